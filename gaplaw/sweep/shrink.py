"""What is the same sweep, small enough to be rehearsed here? Same structure; fewer steps, devices, parameters and tokens.

A program is what a group compiles: its teacher's shape and its students' shapes, objectives and numbers of seeds. Groups that
differ only in names, seeds, rates or the teacher's parameters are one program and are rehearsed once. Shapes stay as they are up
to LARGEST parameters; above, every model of the sweep is scaled alike: width, heads and neurons by one factor, depth and
vocabulary cut. Text is that of the embedded corpus, as bytes, so that nothing is downloaded.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from gaplaw.canonical import short_hash
from gaplaw.errors import SpecError
from gaplaw.execution import Execution, HostsSpec, MeshSpec
from gaplaw.grid import Group, Sweep
from gaplaw.sizes import count_params, pruned_shape
from gaplaw.spec import Cell, DataSpec, ModelSpec, science

STEPS = 2
LARGEST_PARAMS = 4_000_000  # of one model, embeddings included: two steps in seconds on a CPU
DEPTH, VOCAB, HEAD_SIZE, SEQUENCE_TOKENS = 2, 1024, 8, 64  # at most, in a scaled model


@dataclass(frozen=True, kw_only=True)
class Program:
    """A small group and what it stands for: groups of the original sweep by id, and parameters of the largest model there."""

    group: Group
    stands_for: tuple[str, ...]
    params_before: int

    @property
    def params(self) -> int:
        models = [cell.model for cell in self.group.cells] + ([self.group.teacher.model] if self.group.teacher else [])
        return max(_params(model) for model in models)


def shrink_mesh(mesh: MeshSpec, devices: int, processes: int) -> tuple[MeshSpec, int]:
    """The largest mesh within `devices` that keeps as many axes above 1 as it can, and over how many processes it goes.

    Each axis becomes a divisor of itself. 64 × 4 over data and fsdp on 8 devices: 4 × 2.
    """
    axes = ("data", "fsdp", "tensor", "student")
    sizes = [getattr(mesh, axis) for axis in axes]
    choices = [[d for d in range(1, size + 1) if size % d == 0] for size in sizes]

    def merit(shape):
        product = math.prod(shape)
        likeness = sum(small * size for small, size in zip(shape, sizes, strict=True))  # long axes stay the longer ones
        return sum(small > 1 for small in shape), product % processes == 0, product, likeness

    best = max((shape for shape in itertools.product(*choices) if math.prod(shape) <= devices), key=merit)
    over = max(count for count in range(1, processes + 1) if math.prod(best) % count == 0)
    return MeshSpec(**dict(zip(axes, best, strict=True))), over


def shrink_execution(execution: Execution, devices: int, processes: int) -> Execution:
    """The same way of running on virtual CPU devices, with a checkpoint after every step."""
    if devices < processes:
        raise SpecError(f"--devices {devices}: must be at least --processes {processes}; it is the number in all")
    mesh, processes = shrink_mesh(execution.mesh, devices, processes)
    return replace(
        execution,
        workers=1,
        mesh=mesh,
        hosts=HostsSpec(processes=processes, local_devices=mesh.devices // processes),
        attention="xla" if execution.attention == "cudnn" else execution.attention,  # cuDNN needs a GPU
        accumulate=min(2, execution.accumulate),
        steps_per_dispatch=1,
        evaluations=1,
        checkpoint_seconds=0.0,
    )


def shrink_sweep(sweep: Sweep, execution: Execution, data: DataSpec) -> tuple[Sweep, list[Program]]:
    """A sweep with one small group for each distinct program of another.

    Args: execution: shrunk already. data: the resolved corpus to read.
    """
    models, factor = {cell.model for cell in sweep.cells}, 1.0
    while max(_params(_scaled(model, factor, execution)) for model in models) > LARGEST_PARAMS:
        factor /= 1.4
    small: dict[str, Cell] = {}  # by the fingerprint of the original
    kept: dict[str, tuple[Cell, ...]] = {}
    names: dict[str, list[str]] = {}  # the original groups of each program
    before: dict[str, int] = {}

    for number, group in enumerate(sweep.groups()):
        cells = tuple(_shrunk(cell, number, small, factor, execution, data) for cell in group.cells)
        key = program_key(Group(cells=cells))
        names.setdefault(key, []).append(group.id)
        models = [cell.model for cell in group.cells] + ([group.teacher.model] if group.teacher else [])
        before[key] = max(before.get(key, 0), *(_params(model) for model in models))
        small |= {cell.fingerprint: made for cell, made in zip(group.cells, kept.setdefault(key, cells), strict=True)}
    chosen = {cell.name for cells in kept.values() for cell in cells}

    def part(of: tuple[Cell, ...]) -> tuple[Cell, ...]:
        return tuple(small[cell.fingerprint] for cell in of if cell.name in chosen)

    made = replace(sweep, teachers=part(sweep.teachers), baselines=part(sweep.baselines), students=part(sweep.students))
    programs = []
    for group in made.groups():
        key = program_key(group)
        programs.append(Program(group=group, stands_for=tuple(names[key]), params_before=before[key]))
    return made, programs


def program_key(group: Group) -> str:
    """Equal for groups that compile to the same program: everything of their cells but names, seeds, rates and parameters."""

    def shape(cell: Cell) -> str:
        fields = science(cell)
        fields["teacher"] = fields["teacher"] and fields["teacher"]["model"]
        fields["train"] = [cell.steps, cell.train.batch_sequences]
        return short_hash({name: value for name, value in fields.items() if name != "seed"})

    return short_hash(sorted(shape(cell) for cell in group.cells))


def _shrunk(
    cell: Cell, number: int, small: dict[str, Cell], factor: float, execution: Execution, data: DataSpec
) -> Cell:
    """A cell of group `number` in small; its batches are the group's own, so that groups stay apart."""
    teacher = small[cell.teacher.fingerprint] if cell.teacher else None
    model, target = _scaled(cell.model, factor, execution), None
    if cell.init == "prune":
        share = cell.target_params / count_params(cell.teacher.model).non_embedding
        target = int(share * count_params(teacher.model).non_embedding)
        model = pruned_shape(teacher.model, target)
    ways = execution.mesh.data * execution.mesh.fsdp * execution.accumulate
    batch = ways * min(2, max(1, cell.train.batch_sequences // ways))
    length = min(cell.data.sequence_tokens, SEQUENCE_TOKENS)
    return replace(
        cell,
        model=model,
        teacher=teacher,
        target_params=target,
        data=replace(data, sequence_tokens=length, teacher_fraction=cell.data.teacher_fraction),
        train=replace(cell.train, tokens=STEPS * batch * length, batch_sequences=batch, batch_seed=number),
        seed=number if cell.init == "prune" else cell.seed,  # a pruned student's seed is that of its batches
    )


def _scaled(model: ModelSpec, factor: float, execution: Execution) -> ModelSpec:
    """Width, heads and neurons times the factor, in multiples that the mesh divides; depth and vocabulary cut."""
    if factor == 1.0:
        return model
    depth = min(model.depth, DEPTH)

    def fewer(count: int, unit: int) -> int:
        return unit * max(1, round(count * factor / unit)) if count else 0

    def per_layer(value, unit: int):
        return fewer(value, unit) if isinstance(value, int) else tuple(fewer(one, unit) for one in value[:depth])

    split = 8 * execution.mesh.fsdp * execution.mesh.tensor
    return replace(
        model,
        vocab_size=min(model.vocab_size, VOCAB),
        width=fewer(model.width, split),
        depth=depth,
        heads=per_layer(model.heads, model.kv_group * execution.mesh.tensor),
        head_size=min(model.head_size, HEAD_SIZE),
        hidden=per_layer(model.hidden, split),
    )


def _params(model: ModelSpec) -> int:
    return count_params(model).total
