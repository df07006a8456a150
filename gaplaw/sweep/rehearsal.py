"""Will every program of a sweep start, train, survive a kill and write its rows on the mesh that is meant? Tried here, in small.

Each distinct program (see `shrink`) runs through `run` itself, in real processes on virtual CPU devices: two steps, a checkpoint
after the first, a real kill at the end, the resumed second step, rows written; then what the resumed group wrote is held against
what the unbroken one wrote. What this cannot tell: memory, speed, and the accelerator's own compiler.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from gaplaw import results
from gaplaw.errors import TableError
from gaplaw.execution import Execution
from gaplaw.grid import Sweep
from gaplaw.sizes import size_name
from gaplaw.spec import DataSpec
from gaplaw.sweep.folder import RunFolder
from gaplaw.sweep.local import LocalExecutor
from gaplaw.sweep.rehearsal_worker import UNBROKEN
from gaplaw.sweep.running import run
from gaplaw.sweep.shrink import STEPS, Program, shrink_execution, shrink_sweep

VALIDATION_TOKENS = 1024
TOLERANCE = 1e-4  # relative, of losses between a resumed and an unbroken group of several devices; on one device: none


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What came of one program. `largest_difference`: relative, of any loss between the resumed and the unbroken group."""

    program: str
    stands_for: tuple[str, ...]
    passed: bool
    error: str | None
    cells: int
    processes: int
    devices: int
    params: int
    params_before: int
    compile_seconds: float | None
    resumed_at_step: int
    largest_difference: float | None

    def line(self) -> str:
        """The same for people."""
        also = f" (also {len(self.stands_for) - 1} more groups)" if len(self.stands_for) > 1 else ""
        size = f"{size_name(self.params)} parameters at most"
        if self.params < self.params_before:
            size = f"shrunk to {size_name(self.params)} of {size_name(self.params_before)} parameters"
        head = f"{self.stands_for[0]}{also}: {self.cells} cell{'s' if self.cells > 1 else ''}, {size}"
        if not self.passed:
            return f"FAILED {head}: {self.error}"
        same = "to the same bits" if self.largest_difference == 0 else f"within {self.largest_difference:.0e}"
        return (
            f"ok     {head}: compiled in {self.compile_seconds:.1f} s, {STEPS} steps, checkpoint written, killed, resumed "
            f"at step {self.resumed_at_step} {same}, rows written"
        )


def rehearse(
    sweep: Sweep,
    execution: Execution,
    *,
    processes: int,
    devices: int,
    console=None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Rehearsed]:
    """Rehearse every distinct program of a sweep, whose data need not be here.

    Args:
      execution: as on the real machine; its mesh is shrunk to at most `devices` over at most `processes` processes.
      tell: gets a line about what will be run, before it is.
    """
    from gaplaw import data

    small = shrink_execution(execution, devices, processes)
    made, programs = shrink_sweep(sweep, small, data.resolve(DataSpec(validation_tokens=VALIDATION_TOKENS)))
    mesh = ", ".join(f"{axis} {getattr(execution.mesh, axis)} → {getattr(small.mesh, axis)}" for axis in _AXES)
    tell(
        f"{len(programs)} distinct programs in {len(sweep.groups())} groups; mesh {mesh}; {small.hosts.processes} processes of "
        f"{small.hosts.local_devices} virtual CPU devices"
    )
    with tempfile.TemporaryDirectory(prefix="gaplaw-rehearsal-") as place:
        out = Path(place) / made.name
        summary = run(made, out, small, console, executor=LocalExecutor(module="gaplaw.sweep.rehearsal_worker"))
        return [_judged(program, out, summary.failures, small) for program in programs]


_AXES = ("data", "fsdp", "tensor", "student")


def _judged(program: Program, out: Path, failures: dict[str, str], execution: Execution) -> Rehearsed:
    cells = [cell.id for cell in program.group.cells]
    found = Rehearsed(
        program=program.group.id,
        stands_for=program.stands_for,
        passed=False,
        error=next((failures[cell] for cell in cells if cell in failures), None),
        cells=len(cells),
        processes=execution.hosts.processes,
        devices=execution.mesh.devices,
        params=program.params,
        params_before=program.params_before,
        compile_seconds=None,
        resumed_at_step=_resumed_at_step(RunFolder(out), program.group.id),
        largest_difference=None,
    )
    if found.error:
        return found
    try:
        resumed, unbroken = (_rows(folder, cells) for folder in (out, out / UNBROKEN / "run"))
    except TableError as fault:
        return replace(found, error=f"rows are missing: {fault}")
    numbers = [name for name in resumed if name.endswith("_nats")]
    difference = ((resumed[numbers] - unbroken[numbers]).abs() / unbroken[numbers].abs()).astype(float)
    difference = float(
        difference.fillna(0 if resumed[numbers].isna().equals(unbroken[numbers].isna()) else 1).max().max()
    )
    allowed = 0.0 if execution.mesh.devices == 1 else TOLERANCE
    error = None
    if found.resumed_at_step != STEPS - 1:
        error = f"resumed at step {found.resumed_at_step}, not {STEPS - 1}"
    elif not difference <= allowed:
        error = f"the resumed group differs from the unbroken one by {difference:.1e}, more than {allowed:.0e}"
    elif len(resumed) < len(cells):
        error = f"{len(resumed)} rows of {len(cells)} cells"
    seconds = float(unbroken.compile_seconds.max())
    return replace(found, passed=error is None, error=error, compile_seconds=seconds, largest_difference=difference)


def _rows(folder: Path, cells: list[str]) -> pd.DataFrame:
    return results.read(folder).set_index("cell_id").reindex(cells).dropna(subset="fingerprint")


def _resumed_at_step(folder: RunFolder, group: str) -> int:
    """The step that the group's own log says it went on from; 0 when it never did."""
    log = folder.part("logs") / f"{group}.log"
    lines = [line for line in log.read_text().splitlines() if "goes on from step" in line] if log.exists() else []
    return int(lines[-1].split("goes on from step ")[1].split()[0]) if lines else 0
