"""What would a sweep run, in which order, and what would it cost? One row per cell; trains nothing, imports no JAX.

A `Work` is one group with what it waits for; `plan` adds sizes, FLOPs, an estimate of seconds and bytes, and what is
already done in the folder. The same works, in the same order, are what `gaplaw.sweep.running` hands to processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rich.table import Table

from gaplaw.canonical import short_hash
from gaplaw.execution import Execution
from gaplaw.files import read_json, write_json
from gaplaw.grid import Group, Sweep
from gaplaw.results import describe_cost
from gaplaw.sizes import size_name
from gaplaw.spec import Cell, Role
from gaplaw.sweep.cost import Clock, clock_for, disk_bytes, finish_seconds
from gaplaw.sweep.folder import RunFolder

FINISHED = ("done", "stored")
FORECAST = "forecast.json"  # in a run folder


@dataclass(frozen=True, kw_only=True)
class Work:
    """One group of a sweep; `needs` is the id of the group that trains its teacher, `keeps` the ids of its own teachers."""

    group: Group
    role: Role
    keeps: tuple[str, ...]
    needs: str | None
    seconds: float

    @property
    def id(self) -> str:
        return self.group.id


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One cell of a plan. `flops` = student training + teacher forward; seconds are the group's, shared by its cells."""

    cell_id: str
    role: Role
    status: str  # "done", "stored" (a teacher that an earlier sweep trained), "failed", "corrupt" or "missing"
    group_id: str
    seed: int
    protocol: str
    fingerprint: str
    teacher_id: str | None
    student_params: int
    student_params_embedding: int
    student_params_active: int
    student_params_unique: int
    student_params_total: int
    student_tokens: int
    teacher_params: int | None
    student_training_flops: float
    teacher_forward_flops: float
    teacher_training_flops: float
    flops: float
    estimated_seconds: float
    disk_bytes: int
    teacher_signal: str | None
    teacher_cache_bytes: (
        int  # of the whole cache that the cell reads; cells of one teacher and order of batches share it
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every cell of a sweep with its cost; totals are over what is left to do."""

    sweep: str
    question: str
    cells: tuple[PlannedCell, ...]
    groups_left: int
    workers: int
    wall_seconds: float
    estimate_from: str
    teacher_cache_bytes: int  # of all caches that what is left reads, each once

    @property
    def left(self) -> tuple[PlannedCell, ...]:
        return tuple(cell for cell in self.cells if cell.status not in FINISHED)

    @property
    def flops_left(self) -> float:
        return sum(cell.flops for cell in self.left)

    @property
    def disk_bytes_left(self) -> int:
        return sum(cell.disk_bytes for cell in self.left)

    def to_rows(self) -> list[dict]:
        """One plain object per cell, for `--json`."""
        return [asdict(cell) for cell in self.cells]

    def table(self) -> Table:
        """One line per cell for the terminal; `to_rows` has the exact numbers."""
        table = Table(title=f"{self.sweep}: {self.question}", title_justify="left", title_style="bold", box=None)
        table.add_column("cell", no_wrap=True)
        table.add_column("role", no_wrap=True)
        for name in ("params", "all params", "tokens", "train FLOPs", "teacher FLOPs", "seconds*", "disk"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for cell in self.cells:
            todo = cell.status not in FINISHED
            table.add_row(
                cell.cell_id,
                cell.role,
                size_name(cell.student_params),
                size_name(cell.student_params_total),
                size_name(cell.student_tokens),
                f"{cell.student_training_flops:.2e}",
                f"{cell.teacher_forward_flops:.2e}" if cell.teacher_params else "-",
                f"{cell.estimated_seconds:.1f}" if todo else "-",
                amount(cell.disk_bytes),
                "to do" if cell.status == "missing" else cell.status,
                style=None if todo else "dim",
            )
        return table

    def totals(self) -> list[str]:
        """What the table sums to, in plain lines."""
        left, caches = self.left, self.teacher_cache_bytes
        kept = f", {amount(caches)} in teacher caches" if caches else ""
        return [
            f"{len(self.cells)} cells, {len(self.cells) - len(left)} done; {len(left)} left in {self.groups_left} groups: "
            f"{self.flops_left:.2e} FLOPs, {amount(self.disk_bytes_left)} on disk{kept}",
            f"estimate: {duration(self.wall_seconds)} with {self.workers} worker{'s' if self.workers > 1 else ''} "
            f"(* estimate from {self.estimate_from}; a cell's share of its group's seconds)",
        ]


def plan(sweep: Sweep, execution: Execution, folder: RunFolder | None = None) -> Plan:
    """What `run` would do.

    Args: folder: the run folder whose finished cells are marked and whose measured rates are used; None for an empty
    one.
    """
    clock = clock_for(folder, execution) if folder else Clock(execution=execution)
    works = works_of(sweep, clock)
    planned, left, caches = [], set(), {}
    for work in works:
        first, signal = work.group.cells[0], work.group.signal
        cache_bytes = signal.token_bytes(first.model.vocab_size) * first.steps * first.batch_tokens
        for cell in work.group.cells:
            status = _status(folder, cell, work) if folder else "missing"
            if status not in FINISHED:
                left.add(work.id)
            known = describe_cost(cell, work.role)
            forward = known.get("teacher_forward_flops") or 0.0
            planned.append(
                PlannedCell(
                    **{name: known.get(name) for name in _SAME},
                    status=status,
                    group_id=work.id,
                    teacher_forward_flops=forward,
                    teacher_training_flops=known.get("teacher_training_flops") or 0.0,
                    flops=known["student_training_flops"] + forward,
                    estimated_seconds=work.seconds / len(work.group.cells),
                    disk_bytes=disk_bytes(cell, checkpoint=cell.id in work.keeps),
                    teacher_cache_bytes=cache_bytes,
                )
            )
        if work.id in left and signal.cached:
            stream = short_hash(work.group.stream)  # of several budgets the longest includes the others
            caches[stream] = max(caches.get(stream, 0), cache_bytes)
    order = {cell.id: number for number, cell in enumerate(sweep.cells)}
    tasks = [(w.id, w.seconds, w.needs) for w in starting_order(works) if w.id in left]
    return Plan(
        sweep=sweep.name,
        question=sweep.question,
        cells=tuple(sorted(planned, key=lambda cell: order[cell.cell_id])),
        groups_left=len(left),
        workers=execution.workers,
        wall_seconds=finish_seconds(tasks, {}, execution.workers),
        estimate_from=clock.source,
        teacher_cache_bytes=sum(caches.values()),
    )


def foretell(sweep: Sweep, execution: Execution, folder: RunFolder) -> None:
    """Keep in the folder what the cells that are about to run are expected to take, unless it holds a forecast of them.

    The report sets it beside what was measured; `gaplaw plan --target … --out` keeps another machine's forecast there.
    """
    kept = read_json(folder.out / FORECAST) or {"target": "the machine that ran it first", "cells": []}
    known = {row["cell_id"] for row in kept["cells"]}
    if any(cell.id not in known for cell in sweep.cells):
        rows = [row for row in plan(sweep, execution, folder).to_rows() if row["cell_id"] not in known]
        write_json(folder.out / FORECAST, kept | {"cells": kept["cells"] + rows})
        folder.publish(folder.out / FORECAST)


_SAME = (
    *("cell_id", "role", "seed", "protocol", "fingerprint", "teacher_id", "teacher_params", "teacher_signal"),
    *(f"student_params{part}" for part in ("", "_embedding", "_active", "_unique", "_total")),
    *("student_tokens", "student_training_flops"),
)


def _status(folder: RunFolder, cell: Cell, work: Work) -> str:
    status = folder.state(cell).status
    if cell.id in work.keeps and status != "done" and folder.teacher_entry(cell):
        return "stored"
    return status


def works_of(sweep: Sweep, clock: Clock) -> list[Work]:
    """The groups of a sweep with what each waits for, teachers first."""
    groups, teachers = sweep.groups(), {cell.id for cell in sweep.teachers}
    trained_in = {cell.fingerprint: group.id for group in groups for cell in group.cells if cell.id in teachers}
    return [
        Work(
            group=group,
            role=sweep.role(group.cells[0]),
            keeps=tuple(cell.id for cell in group.cells if cell.id in teachers),
            needs=trained_in[group.teacher.fingerprint] if group.teacher else None,
            seconds=clock.seconds(group),
        )
        for group in groups
    ]


def starting_order(works: list[Work]) -> list[Work]:
    """Longest path first: a group's own time plus the longest of what waits for it, so that no worker idles at the end."""
    waiting: dict[str | None, list[Work]] = {}
    for work in works:
        waiting.setdefault(work.needs, []).append(work)

    def path(work: Work) -> float:
        return work.seconds + max((path(other) for other in waiting.get(work.id, ())), default=0.0)

    return sorted(works, key=path, reverse=True)


def amount(size_bytes: float) -> str:
    """Bytes for people: 1536 → "1.5 kB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Seconds for people, two significant parts: 3725 → "1 h 02 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
