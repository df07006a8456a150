"""Which machines can a sweep be forecast for, and what can their chips do? Numbers from the vendors' pages, no JAX.

Stands beside cost in the sweep part of the walk: cost measures the machine that is here, this file describes machines
that are not. A target is written KIND:SHAPE: `v5p:4x4x8` is a slice of 128 chips, `gpu:h100x8` one host, `cpu` this
machine.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Literal

from gaplaw.canonical import refuse_unless
from gaplaw.errors import SpecError
from gaplaw.spec import Cell, Execution, Group, MeshSpec
from gaplaw.sweep.planning.estimate import measure_machine

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """What one chip can do at most.

    flops_per_second: of bfloat16 products (dense). float32_flops_per_second: of float32 products as JAX runs them by
      default.
    link_bytes_per_second: what one chip can send to the others of its slice or host, in one direction, all links
      together.
    shapes: the slices (or numbers of GPUs in one host) on offer, smallest first. source: where the numbers stand.
    """

    name: str
    kind: Literal["tpu", "gpu", "cpu"]
    memory_bytes: float
    flops_per_second: float
    float32_flops_per_second: float
    memory_bytes_per_second: float
    link_bytes_per_second: float
    shapes: tuple[str, ...]
    source: str


_GPU_SOURCE = (
    "secondary pages that quote NVIDIA's H100 and H200 data sheets (SXM), read November 2026: dense products, half "
    "of NVLink's "
    "900 GB/s in each direction; a float32 product runs as TF32"
)
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16", "16x16x24")

# On a TPU a float32 product is one pass of bfloat16 by default, hence the same rate. Links: half of the bidirectional
# figure.
CHIPS = (
    Chip(
        name="v5e",
        kind="tpu",
        memory_bytes=16 * GIB,
        flops_per_second=197e12,
        float32_flops_per_second=197e12,
        memory_bytes_per_second=819e9,
        link_bytes_per_second=100e9,
        shapes=_FLAT,
        source="docs.cloud.google.com/tpu/docs/v6e, its v5e column (16 GB, 819 GB/s, 1,600 Gbit/s between "
        "chips), read Nov 2026",
    ),
    Chip(
        name="v5p",
        kind="tpu",
        memory_bytes=95 * GIB,
        flops_per_second=459e12,
        float32_flops_per_second=459e12,
        memory_bytes_per_second=2765e9,
        link_bytes_per_second=600e9,
        shapes=_CUBES,
        source="docs.cloud.google.com/tpu/docs/v5p-training (95 GiB, 2,765 GB/s, 1,200 GB/s bidirectional), "
        "read November 2026; "
        "older copies of the page give 4,800 Gbit/s between chips",
    ),
    Chip(
        name="v6e",
        kind="tpu",
        memory_bytes=32 * GIB,
        flops_per_second=918e12,
        float32_flops_per_second=918e12,
        memory_bytes_per_second=1600e9,
        link_bytes_per_second=400e9,
        shapes=_FLAT,
        source="docs.cloud.google.com/tpu/docs/v6e (32 GB, 1,600 GB/s, 800 GB/s bidirectional), read November "
        "2026; copies of the "
        "page differ (1,640 GB/s, 3,584 Gbit/s)",
    ),
    Chip(
        name="h100",
        kind="gpu",
        memory_bytes=80e9,
        flops_per_second=989.4e12,
        float32_flops_per_second=494.7e12,
        memory_bytes_per_second=3350e9,
        link_bytes_per_second=450e9,
        shapes=("1", "2", "4", "8"),
        source=_GPU_SOURCE,
    ),
    Chip(
        name="h200",
        kind="gpu",
        memory_bytes=141e9,
        flops_per_second=989.4e12,
        float32_flops_per_second=494.7e12,
        memory_bytes_per_second=4800e9,
        link_bytes_per_second=450e9,
        shapes=("1", "2", "4", "8"),
        source=_GPU_SOURCE,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """So many chips of one kind in one shape."""

    chip: Chip
    shape: str

    @property
    def name(self) -> str:
        return {"tpu": f"{self.chip.name}:{self.shape}", "gpu": f"gpu:{self.chip.name}x{self.shape}", "cpu": "cpu"}[
            self.chip.kind
        ]

    @property
    def chips(self) -> int:
        return math.prod(int(side) for side in self.shape.split("x"))

    @property
    def bigger(self) -> Target | None:
        """The next shape on offer, or None."""
        shapes = self.chip.shapes
        at = shapes.index(self.shape) + 1
        return Target(chip=self.chip, shape=shapes[at]) if at < len(shapes) else None


def target(text: str, *, single_thread: bool = True) -> Target:
    """The target that a person names. Raises: SpecError in one line, listing the kinds or the shapes on offer."""
    if text == "cpu":
        return Target(chip=_this_machine(single_thread), shape="1")
    kind, _, shape = text.partition(":")
    if kind == "gpu":
        kind, _, shape = shape.rpartition("x")
    chips = {("gpu" if chip.kind == "gpu" else chip.name, chip.name): chip for chip in CHIPS}
    known = ["cpu", *(f"gpu:{c.name}xN" if c.kind == "gpu" else f"{c.name}:SHAPE" for c in CHIPS)]
    chip = chips.get(("gpu" if text.startswith("gpu:") else kind, kind))
    refuse_unless(chip is not None, "--target", text, f"must be one of {', '.join(known)}")
    offer = ", ".join(chip.shapes)
    refuse_unless(shape in chip.shapes, "--target", text, f"{chip.name} comes in these shapes: {offer}")
    return Target(chip=chip, shape=shape)


def _this_machine(single_thread: bool) -> Chip:
    """The cores of one worker on this machine, measured; one process, hence no links."""
    machine = measure_machine(single_thread)
    rate = max(machine.matrix_flops_per_second.values())
    return Chip(
        name="cpu",
        kind="cpu",
        memory_bytes=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        flops_per_second=rate,
        float32_flops_per_second=rate,
        memory_bytes_per_second=machine.memory_bytes_per_second,
        link_bytes_per_second=math.inf,
        shapes=("1",),
        source="measured on this machine just now, one worker",
    )


def default_mesh(target: Target, cells: tuple[Cell, ...]) -> MeshSpec:
    """A mesh over all chips for an experiment that names none.

    Parameters and batch rows over fsdp, as far as the batch divides; what is left of the chips goes to tensor.

    Raises: SpecError when the batch and the chips have no common divisor that leaves tensor at most 8.
    """
    rows = cells[0].train.batch_sequences
    fsdp = math.gcd(rows, target.chips)
    refuse_unless(
        target.chips // fsdp <= 8,
        f"{cells[0].name}: TrainSpec.batch_sequences",
        rows,
        f"cannot be spread over the {target.chips} chips of {target.name}; name a mesh (--mesh.data, --mesh.fsdp, "
        "--mesh.tensor)",
    )
    return MeshSpec(fsdp=fsdp, tensor=target.chips // fsdp)


def fitted_to(target: Target, execution: Execution, group: Group) -> Execution:
    """The execution as it is compiled: a mesh over all chips unless one is named; all students together, on a CPU
    too.
    """
    mesh = execution.mesh if execution.mesh.devices > 1 else default_mesh(target, group.cells)
    return replace(execution, mesh=mesh, core_blocked=False)


def fitted_to_all(target: Target, execution: Execution, groups: tuple[Group, ...]) -> Execution:
    """The execution of a whole sweep, with one mesh. Raises: SpecError for a group that this mesh does not suit."""
    fitted = fitted_to(target, execution, groups[0])
    for group in groups:
        check_mesh(target, fitted.mesh, group, fitted.accumulate)
    return fitted


def check_mesh(target: Target, mesh: MeshSpec, group: Group, accumulate: int = 1) -> None:
    """Raises: SpecError unless the axes make up the chips and divide every microbatch and every model's heads."""
    first, ways = group.cells[0], mesh.data * mesh.fsdp * accumulate
    if mesh.devices != target.chips:
        raise SpecError(
            f"Execution.mesh = {asdict(mesh)}: the product of the axes, {mesh.devices}, must be the {target.chips} "
            "chips of "
            f"{target.name}"
        )
    if first.train.batch_sequences % ways:
        raise SpecError(
            f"{first.name}: TrainSpec.batch_sequences = {first.train.batch_sequences}: must be a multiple of "
            f"data × fsdp × accumulate = {ways}"
        )
    for cell in (*group.cells, *((group.teacher,) if group.teacher else ())):
        for heads in cell.model.heads_by_layer:
            if heads % mesh.tensor or heads // cell.model.kv_group % mesh.tensor:
                raise SpecError(
                    f"{cell.name}: ModelSpec.heads = {heads} in groups of {cell.model.kv_group}: must be a multiple of "
                    f"Execution.mesh.tensor = {mesh.tensor}"
                )
