"""How does a whole sweep get run? Claim groups, start processes, write down failures, until every cell has a row.

A group is ready when its teacher's checkpoint is in the store; the longest path starts first. Several `run` commands
may share a folder: each claims groups, waits for those of others, and takes over claims that have expired. Stopping at
any moment loses at most the groups in flight, because finished cells are whole files and everything else can be made
again.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from gaplaw.errors import SweepError
from gaplaw.execution import Execution
from gaplaw.files import read_json
from gaplaw.grid import Sweep
from gaplaw.spec import Cell
from gaplaw.sweep import worker
from gaplaw.sweep.board import Board
from gaplaw.sweep.bucket import folder_at
from gaplaw.sweep.checks import check_before_run
from gaplaw.sweep.claim import EXPIRY_SECONDS, Heartbeat
from gaplaw.sweep.cost import clock_for
from gaplaw.sweep.display import screen_for
from gaplaw.sweep.engine import HOST_LOST, Executor
from gaplaw.sweep.eta import Eta, Running, Snapshot, progress_of
from gaplaw.sweep.folder import NOT_WRITABLE, RunFolder, cannot_write
from gaplaw.sweep.job import Job
from gaplaw.sweep.local import LocalExecutor
from gaplaw.sweep.planned import amount, duration
from gaplaw.sweep.planning import Work, foretell, starting_order, works_of
from gaplaw.sweep.status import Summary

POLL_SECONDS = 0.1
LOOK_SECONDS = 1.0  # how often rows and claims of other `run` commands are looked at
MOST_LOSSES = 3  # hosts that a group may lose without getting further before its cells are called failed


def run(
    sweep: Sweep,
    out: Path | str | RunFolder,
    execution: Execution,
    console=None,
    *,
    executor: Executor | None = None,
    expiry_seconds: float = EXPIRY_SECONDS,
    warnings: Sequence[str] = (),
) -> Summary:
    """Run what a sweep still lacks in a folder, with up to `execution.workers` groups at a time.

    Args:
      sweep: resolved (`gaplaw.sweep.resolve`), so that cells are identified by their data's content.
      out: the run folder, a path or a URL; made if absent. Cells done there are not run again; cells that failed earlier are.
      console: a rich Console for the display, standard error if None.
      executor: the engine that starts groups; processes on this machine if None.
      expiry_seconds: after how long a silent `run` on another machine counts as dead.
      warnings: lines to show first, once it is clear that the sweep can run.
    Returns: counts and failures. A failed cell is a row with its error, not an exception.
    Raises: SweepError for a folder that cannot be written or holds other science, or an engine that cannot be used;
    KeyboardInterrupt after stopping cleanly.
    """
    folder, executor = out if isinstance(out, RunFolder) else folder_at(out), executor or LocalExecutor()
    notes = [executor.prepare(execution)]
    try:
        with screen_for(console) as screen, Heartbeat() as heartbeat:
            here = isinstance(executor, LocalExecutor)
            folder.prepare()
            check_before_run(sweep, execution, folder, on_this_machine=here, tell=screen.event)
            notes.append(folder.adopt(sweep))
            foretell(sweep, execution, folder)
            for note in (*filter(None, notes), *(f"warning: {line}" for line in warnings)):
                screen.event(note)
            return _Runner(sweep, folder, execution, executor, expiry_seconds, screen, heartbeat).until_finished()
    except OSError as fault:
        if fault.errno not in NOT_WRITABLE:
            raise
        raise SweepError(cannot_write(folder.name, fault)) from None


class _Runner:
    """The moving parts of one `run` command: the board, the jobs, and what is pending."""

    def __init__(self, sweep, folder, execution, executor, expiry_seconds, screen, heartbeat):
        self.sweep, self.folder, self.execution, self.executor = sweep, folder, execution, executor
        self.expiry_seconds, self.screen, self.heartbeat = expiry_seconds, screen, heartbeat
        self.began = time.monotonic()
        clock = clock_for(folder, execution)
        self.works = starting_order(works_of(sweep, clock))
        self.eta = Eta(clock)
        self.board = Board(sweep, folder, self.works, execution)
        for state in self.board.states.values():
            if state.status == "corrupt":
                screen.event(f"warning: {state.error}")
        self.jobs: dict[str, Job] = {}
        self.pending: list[Work] = []
        self.try_again_at: dict[str, float] = {}  # groups that other runs hold
        self.looked = float("-inf")
        self.retrained: set[str] = set()

    def until_finished(self) -> Summary:
        try:
            self.settle()
            while self.pending or self.jobs:
                for job in list(self.jobs.values()):
                    self.attend(job)
                if time.monotonic() - self.looked >= LOOK_SECONDS:
                    self.settle()
                while len(self.jobs) < self.execution.workers and self.start_one():
                    pass
                self.screen.update(self.snapshot)
                time.sleep(POLL_SECONDS)
        finally:
            for job in self.jobs.values():
                if job.handle is not None:
                    job.handle.stop()
                    job.tidy(self.folder)
        self.clear()
        board = self.board
        return Summary(
            sweep=self.sweep.name,
            out=self.folder.name,
            cells=len(board.states),
            done=board.count("done"),
            failed=board.count("failed"),
            done_before=board.done_before,
            seconds=time.monotonic() - self.began,
            failures=board.failures,
        )

    def clear(self) -> None:
        """With every cell finished, remove what killed runs left behind, unless somebody is still at work here."""
        if self.folder.clear_claims(expiry_seconds=self.expiry_seconds):
            for part in ("tasks", "progress"):
                self.folder.withdraw(*self.folder.part(part).iterdir())
            if not self.board.failures:  # a failed group may go on from its checkpoint in a later run
                shutil.rmtree(self.folder.part("checkpoints"), ignore_errors=True)
                self.folder.forget_checkpoints()

    def settle(self) -> None:
        """See which groups are left, whoever finished the others, and fail the students of failed teachers."""
        self.looked = time.monotonic()
        self.folder.refresh()
        self.pending = []
        for work in self.works:
            lacking = () if work.id in self.jobs else self.board.lacking(work)
            reason = self.board.blocked(work)
            if reason is None and lacking:
                self.pending.append(work)
            elif lacking:
                self.fail(lacking, reason)

    def fail(self, cells: tuple[Cell, ...], error: str) -> None:
        for cell in cells:
            self.board.fail(cell, error)
            self.screen.event(f"failed: {cell.id}: {error}")

    def start_one(self) -> bool:
        """Claim and start the first pending group that is ready and free. Returns: whether there was one."""
        for work in self.pending:
            if time.monotonic() < self.try_again_at.get(work.id, 0.0) or not self.board.ready(work):
                continue
            held = self.folder.claim(work.group, keeps=bool(work.keeps), expiry_seconds=self.expiry_seconds)
            if held is None:
                self.try_again_at[work.id] = time.monotonic() + LOOK_SECONDS
                continue
            self.heartbeat.keep(held)
            self.pending.remove(work)
            self.folder.refresh(now=True)
            lacking = self.board.lacking(work)  # another run may have finished it between our look and our claim
            if not lacking:
                self.heartbeat.drop(held)
                return True
            job = self.jobs[work.id] = Job(work=work, claim=held, attempts=deque([lacking]))
            self.launch(job)
            return True
        return False

    def launch(self, job: Job) -> None:
        job.next_attempt(self.folder, self.sweep, self.execution)
        job.handle = self.executor.start(self.folder, job.group.id, self.execution)
        self.screen.event(
            f"started: {job.group.id}, {len(job.group.cells)} cell{'s' if len(job.group.cells) > 1 else ''}"
        )

    def attend(self, job: Job) -> None:
        """See whether a job's process has ended, and what follows from how it did."""
        code = job.handle.poll()
        if code is None:
            if self.heartbeat.lost(job.claim):
                job.handle.stop()
                self.screen.event(
                    f"warning: {job.group.id}: another run took this group over; its process is stopped here"
                )
                self.end(job)
            return
        self.folder.refresh(now=True)
        self.folder.publish_missing(job.group.cells)
        told = read_json(self.folder.part("progress") / f"{job.group.id}.json") or {}
        # a process that was killed has said nothing: what was told is then another's, about losing it
        error = told.get("error") if told.get("phase") == "failed" and code >= 0 else None
        if code and not error:
            error = f"{job.handle.ending()}; see {self.folder.show(job.handle.log)}"
        error = error or job.handle.ending()
        if code == worker.CANNOT_WRITE:
            free = amount(shutil.disk_usage(self.folder.out).free)
            raise SweepError(
                f"{self.folder.name}: cannot be written ({free} free; {error}); rows already there are safe"
            )
        crashed = code not in (worker.BAD_TEACHER, worker.BAD_SIGNAL, worker.HOPELESS)
        self.board.look_again(job.group.cells)
        lacking = tuple(cell for cell in self.board.lacking(job.work) if cell in job.group.cells)
        if not lacking:
            self.report(job, told)
        elif code in (HOST_LOST, worker.BAD_SIGNAL) and (job.losses < MOST_LOSSES or job.got_further(self.folder)):
            job.losses += 1
            job.attempts.appendleft(lacking)
            why = job.handle.ending() if code == HOST_LOST else error  # a damaged part of a teacher cache: made again
            self.screen.event(f"warning: {job.group.id}: {why}; its {len(lacking)} unfinished cells start again")
        elif code == worker.BAD_TEACHER and self.retrain(job, error):
            job.attempts.clear()
        elif crashed and job.got_further(self.folder):
            self.screen.event(f"warning: {job.group.id}: {error}; it goes on from its checkpoint")
            job.attempts.appendleft(job.group.cells)
        elif crashed and len(job.group.cells) > 1:
            self.screen.event(
                f"warning: {job.group.id}: {error}; its {len(lacking)} unfinished cells are tried one by one"
            )
            job.attempts.extend((cell,) for cell in lacking)
        else:
            self.fail(lacking, error)
        if job.attempts:
            self.launch(job)
        else:
            self.end(job)

    def end(self, job: Job) -> None:
        job.tidy(self.folder)
        self.heartbeat.drop(job.claim)
        del self.jobs[job.work.id]
        self.settle()

    def report(self, job: Job, told: dict) -> None:
        seconds = time.monotonic() - job.started
        self.eta.learn(job.group, seconds, told)
        for cell in job.group.cells:
            if self.board.failed(cell):
                self.screen.event(f"failed: {cell.id}: {self.board.states[cell.id].error}")
        self.screen.event(f"finished: {job.group.id} in {duration(seconds)}")

    def retrain(self, job: Job, error: str) -> bool:
        """Drop a teacher's unusable checkpoint, so that it is trained again. False when that has been tried already."""
        teacher = job.group.teacher
        if teacher.fingerprint in self.retrained:
            return False
        self.retrained.add(teacher.fingerprint)
        self.screen.event(f"warning: {error}; teacher {teacher.id} is trained again")
        entry = self.folder.teacher_entry(teacher)
        if entry is not None:
            self.folder.drop_teacher(entry)
        return True

    def snapshot(self) -> Snapshot:
        """Where the sweep stands now, for the display."""
        told = {one["group"]: one for one in progress_of(self.folder) if "group" in one}
        mine = {job.work.id: told.pop(job.group.id, {"group": job.group.id}) for job in self.jobs.values()}
        running = [
            (job.work.id, job.group, time.monotonic() - job.started, mine[job.work.id]) for job in self.jobs.values()
        ]
        left, measured = self.eta.seconds_left(self.pending, running, len(told), self.execution.workers)
        return Snapshot(
            sweep=self.sweep.name,
            cells=len(self.board.states),
            done=self.board.count("done"),
            failed=sum(self.board.failed(cell) for cell in self.sweep.cells),
            groups_left=len(self.pending) + len(self.jobs),
            running=tuple(Running.of(one) for one in mine.values()),
            elsewhere=tuple(Running.of(one) for one in told.values()),
            seconds_left=left,
            measured=measured,
            elapsed_seconds=time.monotonic() - self.began,
        )
