"""Will every program of a sweep start, train, survive a kill and write its rows on the mesh that is meant? Tried here,
in small.

Each distinct program (see `shrink`) runs through `run` itself, in real processes on virtual CPU devices: two steps, a
checkpoint after the first, a real kill at the end, the resumed second step, rows written; then what the resumed group
wrote is held against what the unbroken one wrote. What this cannot tell: memory, speed, and the accelerator's own
compiler.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd

from gaplaw import results
from gaplaw.data.tokenizers import BYTE_SYMBOLS
from gaplaw.errors import AbsentDataError, TableError
from gaplaw.spec import DataSpec, Execution, Sweep
from gaplaw.spec.sizes import size_name
from gaplaw.sweep.engines.local import LocalExecutor
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning.load import resolve, with_data, with_whole_paths
from gaplaw.sweep.rehearse.shrink import STEPS, VOCAB, Program, shrink_execution, shrink_sweep
from gaplaw.sweep.rehearse.worker import UNBROKEN
from gaplaw.sweep.running.run import run

VALIDATION_TOKENS = 1024
KILL, MOST_NAMES = "killed by SIGKILL", 3
TOLERANCE = 1e-4  # relative, of losses between a resumed and an unbroken group of several devices; on one device: none


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What came of one program. `largest_difference`: relative, of any loss between the resumed and the unbroken
    group.
    """

    program: str
    stands_for: tuple[str, ...]
    passed: bool
    error: str | None
    cells: int
    cells_before: int
    processes: int
    devices: int
    params: int
    params_before: int
    compile_seconds: float | None
    resumed_at_step: int
    largest_difference: float | None

    def line(self) -> str:
        """The same for people."""
        first, *others = self.stands_for
        names = ", ".join(others[:MOST_NAMES]) + (
            f" and {len(others) - MOST_NAMES} more" if others[MOST_NAMES:] else ""
        )
        also = f" (also for {names}, which differ in numbers only)" if others else ""
        size = f"{size_name(self.params)} parameters at most"
        if self.params < self.params_before:
            size = f"shrunk to {size_name(self.params)} of {size_name(self.params_before)} parameters"
        of = f" of {self.cells_before}" if self.cells < self.cells_before else ""
        head = f"{first}{also}: {self.cells}{of} cell{'s' if self.cells_before > 1 else ''}, {size}"
        if not self.passed:
            return f"FAILED {head}: {self.error}"
        same = "to the same bits" if self.largest_difference == 0 else f"within {self.largest_difference:.0e}"
        return (
            f"ok     {head}: compiled in {self.compile_seconds:.1f} s, {STEPS} steps, checkpoint written, killed, "
            "resumed "
            f"at step {self.resumed_at_step} {same}, rows written"
        )


def rehearse(
    sweep: Sweep,
    execution: Execution,
    *,
    processes: int,
    devices: int,
    tell: Callable[[str], None] = lambda _: None,
    home: Path | None = None,
) -> list[Rehearsed]:
    """Rehearse every distinct program of a sweep, on the start of its own data, or on the embedded corpus without them.

    Args:
      execution: as on the real machine; its mesh is shrunk to at most `devices` over at most `processes` processes.
      tell: gets lines about what will be run and what has become of it.
      home: what relative paths of data and tokenizers are relative to; the working directory if None.
    Raises: DataError, SweepError for data, a tokenizer or a vocabulary that `run` would refuse.
    """
    small = shrink_execution(execution, devices, processes)
    sweep = with_data(sweep, lambda spec: with_whole_paths(spec, home))
    place, found = Path(tempfile.mkdtemp(prefix="gaplaw-rehearsal-")), []
    try:
        small_data, least_vocab = _data_for(sweep, place / "data", tell)
        made, programs = shrink_sweep(sweep, small, small_data, least_vocab)
        made = resolve(made)  # refuses a vocabulary that is too small for its tokenizer, as `run` does
        mesh = ", ".join(f"{axis} {getattr(execution.mesh, axis)} → {getattr(small.mesh, axis)}" for axis in _AXES)
        tell(
            f"{len(programs)} distinct programs in {len(sweep.groups())} groups; mesh {mesh}; {small.hosts.processes} "
            f"processes of {small.hosts.local_devices} virtual CPU devices"
        )
        tell("each program is killed on purpose once, after its first attempt, and must go on from its checkpoint")
        out, executor = place / made.name, LocalExecutor(module="gaplaw.sweep.rehearse.worker")
        summary = run(made, out, small, RehearsalScreen(tell, len(programs)), executor=executor)
        found = [_judged(program, out, summary.failures, small) for program in programs]
        return found
    finally:
        if found and not all(one.passed for one in found):
            tell(f"the logs of what failed are left in {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)


def _data_for(sweep: Sweep, place: Path, tell) -> tuple[Callable[[DataSpec, bool], DataSpec], int]:
    """What a shrunk sweep reads in place of each corpus (see `shrink_sweep`), and the smallest vocabulary for that."""

    def own(spec: DataSpec, scaled: bool) -> DataSpec:
        small = replace(first_documents(spec, place), validation_tokens=min(spec.validation_tokens, VALIDATION_TOKENS))
        if scaled and small.tokenizer.startswith("bpe:"):
            small = replace(small, tokenizer=f"bpe:{min(VOCAB, int(small.tokenizer[4:]))}")
        return data.resolve(small)

    def embedded(spec: DataSpec, scaled: bool) -> DataSpec:
        tokens = min(spec.validation_tokens, VALIDATION_TOKENS)
        return data.resolve(replace(spec, source="stdlib", tokenizer="bytes", manifest="", validation_tokens=tokens))

    from gaplaw import data
    from gaplaw.data.slice import first_documents

    try:
        for spec in {cell.data for cell in sweep.cells}:
            first_documents(spec, place)
    except AbsentDataError as fault:
        tell(f"the data are not on this machine, so that the embedded corpus stands in, as bytes: {fault}")
        return cache(embedded), BYTE_SYMBOLS
    return cache(own), 1


class RehearsalScreen:
    """Shows a rehearsal's run (see `gaplaw.sweep.running.display.Screen`): the one kill that is meant is no warning."""

    def __init__(self, tell: Callable[[str], None], programs: int):
        self.tell, self.programs = tell, programs
        self.started: list[str] = []
        self.killed: set[str] = set()

    def __enter__(self) -> RehearsalScreen:
        return self

    def __exit__(self, *_) -> None:
        pass

    def update(self, snapshot) -> None:
        pass

    def event(self, line: str) -> None:
        kind, _, rest = line.partition(": ")
        group = re.split("[:,] ", rest)[0]
        if kind == "started" and group not in self.started:
            self.started.append(group)
            self.tell(f"{len(self.started)} of {self.programs}: {group}")
        elif kind == "warning" and KILL in rest and group not in self.killed:
            self.killed.add(group)
            self.tell(f"{len(self.started)} of {self.programs}: {group}: killed, as meant; now from its checkpoint")
        elif kind in ("warning", "failed"):
            self.tell(line)


_AXES = ("data", "fsdp", "tensor", "student")


def _judged(program: Program, out: Path, failures: dict[str, str], execution: Execution) -> Rehearsed:
    cells = [cell.id for cell in program.group.cells]
    found = Rehearsed(
        program=program.group.id,
        stands_for=program.stands_for,
        passed=False,
        error=next((failures[cell] for cell in cells if cell in failures), None),
        cells=len(cells),
        cells_before=program.cells_before,
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
