"""What would a sweep run, in which order, and what would it cost? One row per cell; trains nothing, imports no JAX.

A `Work` is one group with what it waits for; `plan` adds sizes, FLOPs, an estimate of seconds and bytes, and what is
already done in the folder. The same works, in the same order, are what `gaplaw.sweep.running.run` hands to processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from gaplaw.canonical import short_hash
from gaplaw.files import read_json, write_json
from gaplaw.results import describe_cost
from gaplaw.spec import Cell, DataSpec, Execution, Group, Sweep
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning.estimate import Clock, Phases, clock_for, disk_bytes, finish_seconds
from gaplaw.sweep.planning.plan import FINISHED, LONGEST_SECONDS, Plan, PlannedCell

FORECAST = "forecast.json"  # in a run folder


@dataclass(frozen=True, kw_only=True)
class Work:
    """One group of a sweep; `needs` is the id of the group that trains its teacher, `keeps` the ids of its own
    teachers.
    """

    group: Group
    keeps: tuple[str, ...]
    needs: str | None
    seconds: float
    phases: Phases = Phases()

    @property
    def id(self) -> str:
        return self.group.id


def plan(
    sweep: Sweep,
    execution: Execution,
    folder: RunFolder | None = None,
    corpora: Mapping[DataSpec, object] | None = None,
) -> Plan:
    """What `run` would do.

    Args:
      folder: the run folder whose finished cells are marked and whose measured rates are used; None for an empty one.
      corpora: the corpora whose tokens are counted, by spec; see `gaplaw.sweep.planning.checks`.
    """
    corpora = corpora or {}
    clock = clock_for(folder, execution) if folder else Clock(execution=execution)
    works = works_of(sweep, clock)
    planned, left, caches = [], set(), {}
    for work in works:
        first, signal = work.group.cells[0], work.group.signal
        text = _text_of(first, corpora.get(first.data))
        cache_bytes = (
            signal.token_bytes(first.model.vocab_size, work.group.temperatures) * first.steps * first.batch_tokens
        )
        for cell in work.group.cells:
            status = _status(folder, cell, work) if folder else "missing"
            if status not in FINISHED:
                left.add(work.id)
            known = describe_cost(cell, sweep.role(cell))
            forward = known.get("teacher_forward_flops") or 0.0
            planned.append(
                PlannedCell(
                    **{name: known.get(name) for name in _SAME},
                    status=status,
                    group_id=work.id,
                    teacher_forward_flops=forward,
                    teacher_training_flops=known.get("teacher_training_flops") or 0.0,
                    flops=known["student_training_flops"] + forward,
                    **text,
                    estimated_seconds=None if work.seconds > LONGEST_SECONDS else work.seconds / len(work.group.cells),
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
        phases=_sum(work.phases for work in works if work.id in left),
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


def _text_of(cell: Cell, corpus) -> dict:
    if corpus is None:
        return {"training_epochs": None, "validation_tokens": None}
    epochs = cell.steps * cell.train.batch_sequences / corpus.windows_per_epoch(cell.split)
    return {"training_epochs": epochs, "validation_tokens": corpus.validation_tokens}


def _sum(some: Iterable[Phases]) -> Phases:
    totals = Counter()
    for one in some:
        totals.update(asdict(one))
    return Phases(**totals)


def works_of(sweep: Sweep, clock: Clock) -> list[Work]:
    """The groups of a sweep with what each waits for, teachers first."""
    groups, teachers = sweep.groups(), {cell.id for cell in sweep.teachers}
    trained_in = {cell.fingerprint: group.id for group in groups for cell in group.cells if cell.id in teachers}
    phases = {group.id: clock.phases(group) for group in groups}
    return [
        Work(
            group=group,
            keeps=tuple(cell.id for cell in group.cells if cell.id in teachers),
            needs=trained_in[group.teacher.fingerprint] if group.teacher else None,
            seconds=phases[group.id].total_seconds,
            phases=phases[group.id],
        )
        for group in groups
    ]


def starting_order(works: list[Work]) -> list[Work]:
    """Longest path first: a group's own time plus the longest of what waits for it, so that no worker idles at the
    end.
    """
    waiting: dict[str | None, list[Work]] = {}
    for work in works:
        waiting.setdefault(work.needs, []).append(work)

    def path(work: Work) -> float:
        return work.seconds + max((path(other) for other in waiting.get(work.id, ())), default=0.0)

    return sorted(works, key=path, reverse=True)
