"""How far is a running sweep, and when will it end? Progress files and finished groups become one snapshot for the
display.

The time left is that of a greedy schedule of what remains, each group at the rate measured for groups like it; it is
called an estimate until something has been measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gaplaw.files import read_json
from gaplaw.spec import Group
from gaplaw.sweep.folder.run_folder import RunFolder, seconds_now
from gaplaw.sweep.planning.estimate import Clock, Measured, finish_seconds
from gaplaw.sweep.planning.make_plan import Work

if TYPE_CHECKING:
    from gaplaw.sweep.running.job import Job
    from gaplaw.sweep.running.pending import Board

SILENT_SECONDS = 60.0  # a progress file older than this belongs to a process that is gone
_TELLING_SHARE = 0.05  # a group's own rate counts once this share of its steps has run


@dataclass(frozen=True, kw_only=True)
class Running:
    """One group that some process is working on."""

    group: str
    host: str
    phase: str
    step: int
    steps: int
    tokens_per_second: float
    loss_nats: float | None

    @staticmethod
    def of(told: dict) -> Running:
        losses = list((told.get("losses_nats") or {}).values())
        return Running(
            group=told.get("group", ""),
            host=told.get("host", ""),
            phase=told.get("phase", "start"),
            step=told.get("step", 0),
            steps=told.get("steps", 0),
            tokens_per_second=told.get("tokens_per_second", 0.0),
            loss_nats=sum(losses) / len(losses) if losses else None,
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A sweep at one moment. `seconds_left` is None when nothing is left or nothing can be said."""

    sweep: str
    cells: int
    done: int
    failed: int
    groups_left: int
    running: tuple[Running, ...]
    elsewhere: tuple[Running, ...]
    seconds_left: float | None
    measured: bool
    elapsed_seconds: float
    waiting: tuple[str, ...] = ()  # who holds groups that this `run` could start


def progress_of(folder: RunFolder) -> list[dict]:
    """The fresh progress files of a folder, whoever wrote them."""
    told = (read_json(path) for path in sorted(folder.part("progress").glob("*.json")))
    now = seconds_now()
    return [
        one for one in told if one and now - one.get("updated", 0) < SILENT_SECONDS and one.get("phase") != "failed"
    ]


def snapshot_of(board: Board, eta: Eta, jobs: list[Job], pending: list[Work], waiting: tuple[str, ...]) -> Snapshot:
    """Where a `run` stands now: its jobs, the groups that it has not started, and for whom it waits."""
    told = {one["group"]: one for one in progress_of(board.folder) if "group" in one}
    mine = {job.work.id: told.pop(job.group.id, {"group": job.group.id}) for job in jobs}
    running = [(job.work.id, job.group, time.monotonic() - job.started, mine[job.work.id]) for job in jobs]
    left, measured = eta.seconds_left(pending, running, len(told), board.execution.workers)
    return Snapshot(
        sweep=board.sweep.name,
        cells=len(board.states),
        done=board.count("done"),
        failed=sum(board.failed(cell) for cell in board.sweep.cells),
        groups_left=len(pending) + len(jobs),
        running=tuple(Running.of(one) for one in mine.values()),
        elsewhere=tuple(Running.of(one) for one in told.values()),
        seconds_left=left,
        measured=measured,
        elapsed_seconds=time.monotonic() - eta.began,
        waiting=waiting,
    )


class Eta:
    """Learns from groups as they run and finish."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self.began = time.monotonic()

    def learn(self, group: Group, seconds: float, told: dict) -> None:
        """Remember a finished group: its seconds as seen from outside, and its last progress file."""
        rest = told.get("tokens", 0) / told["tokens_per_second"] if told.get("tokens_per_second") else seconds
        rest = min(rest, seconds)
        self.clock = self.clock.knowing(Measured(group=group, start_seconds=seconds - rest, rest_seconds=rest))

    def seconds_left(
        self,
        pending: list[Work],
        running: list[tuple[str, Group, float, dict]],
        elsewhere: int,
        workers: int,
    ) -> tuple[float | None, bool]:
        """(seconds until everything is finished, whether that rests on measurements).

        Args:
          pending: groups not started here, in starting order.
          running: (work id, group, seconds since its start, its progress file) of each process of this run.
          elsewhere: groups that other runs work on: as many more workers.
        """
        known = []
        for _, group, seconds, told in running:
            if told.get("tokens_per_second") and told["step"] >= _TELLING_SHARE * told["steps"]:
                rest = group.cells[0].steps * group.cells[0].batch_tokens / told["tokens_per_second"]
                so_far = told["tokens"] / told["tokens_per_second"]
                known.append(Measured(group=group, start_seconds=max(0.0, seconds - so_far), rest_seconds=rest))
        clock = self.clock.knowing(*known)
        left = {}
        for work_id, group, seconds, told in running:
            share = told.get("step", 0) / max(1, told.get("steps", 1))
            started = told.get("phase", "start") not in ("start", "teacher", "compile")
            whole = clock.rest_seconds(group) * (1 - share)
            left[work_id] = whole if started else max(whole, clock.seconds(group) - seconds)
        if not pending and not running:
            return None, bool(clock.measured)
        tasks = [(work.id, clock.seconds(work.group), work.needs) for work in pending]
        return finish_seconds(tasks, left, workers + elsewhere), bool(clock.measured)
