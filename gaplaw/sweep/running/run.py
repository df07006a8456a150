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
from gaplaw.spec import Cell, Execution, Sweep
from gaplaw.sweep.engines.engine import Executor
from gaplaw.sweep.engines.local import LocalExecutor
from gaplaw.sweep.folder.claim import Heartbeat
from gaplaw.sweep.folder.object_store import folder_at
from gaplaw.sweep.folder.owner import EXPIRY_SECONDS
from gaplaw.sweep.folder.run_folder import NOT_WRITABLE, RunFolder, cannot_write
from gaplaw.sweep.planning.checks import check_before_run
from gaplaw.sweep.planning.estimate import clock_for
from gaplaw.sweep.planning.make_plan import Work, foretell, starting_order, works_of
from gaplaw.sweep.planning.plan import amount, duration
from gaplaw.sweep.running import worker
from gaplaw.sweep.running.display import screen_for
from gaplaw.sweep.running.eta import Eta, Snapshot, snapshot_of
from gaplaw.sweep.running.job import Attempt, Job
from gaplaw.sweep.running.pending import Board
from gaplaw.sweep.running.retry import Ending, answer_to, cause_of, what_follows
from gaplaw.sweep.running.status import Summary, summary_of
from gaplaw.sweep.running.system import refuse_system
from gaplaw.sweep.running.waiting import LOOK_SECONDS, Waiting

POLL_SECONDS = 0.1


def run(
    sweep: Sweep,
    out: Path | str | RunFolder,
    execution: Execution,
    console=None,
    *,
    executor: Executor | None = None,
    expiry_seconds: float = EXPIRY_SECONDS,
    remove_junk: bool = False,
    warnings: Sequence[str] = (),
) -> Summary:
    """Run what a sweep still lacks in a folder, with up to `execution.workers` groups at a time.

    Args:
      sweep: resolved (`gaplaw.sweep.resolve`), so that cells are identified by their data's content.
      out: the run folder, a path or a URL; made if absent. Cells done there are not run again; cells that failed
        earlier are.
      console: a rich Console for the display, standard error if None.
      executor: the engine that starts groups; processes on this machine if None.
      expiry_seconds: after how long a silent `run` on another machine counts as dead.
      remove_junk: whether to remove what stands in the place of a claim and is none.
      warnings: lines to show first, once it is clear that the sweep can run.
    Returns: counts and failures. A failed cell is a row with its error, not an exception.
    Raises: SweepError for a folder that cannot be written or holds other science, or an engine that cannot be used;
    KeyboardInterrupt after stopping cleanly.
    """
    refuse_system()
    folder, executor = out if isinstance(out, RunFolder) else folder_at(out), executor or LocalExecutor()
    notes = [executor.prepare(execution)]
    try:
        with screen_for(console) as screen, Heartbeat() as heartbeat:
            here = isinstance(executor, LocalExecutor)
            folder.prepare()
            heartbeat.keep(folder.be_present())
            check_before_run(sweep, execution, folder, on_this_machine=here, tell=screen.event)
            notes += [f"removed, no claim: {place}" for place in folder.remove_junk()] if remove_junk else []
            notes.append(folder.adopt(sweep))
            notes.append(foretell(sweep, execution, folder))
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
        self.waiting = Waiting(folder, expiry_seconds, screen.event)
        self.left: dict[str, str] = {}  # cells that this run does not try again, and which have not failed
        self.notes: set[str] = set()  # what workers remarked on their machines, each once
        self.looked = float("-inf")
        self.retrained_at: dict[str, float] = {}  # teachers whose checkpoint was of no use, and when it was dropped

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
                if not self.jobs:
                    self.waiting.refuse_junk([work for work in self.pending if self.board.ready(work)])
                self.screen.update(self.snapshot)
                time.sleep(POLL_SECONDS)
        finally:
            for job in self.jobs.values():
                if job.handle is not None:
                    job.handle.stop()
                if job.group is not None:
                    job.tidy(self.folder)
        self.clear()
        return summary_of(self.board, time.monotonic() - self.began, self.left)

    def clear(self) -> None:
        """Remove what killed runs left behind, unless somebody is still at work here."""
        self.folder.claims.clear(self.folder.part("presence"), expiry_seconds=self.expiry_seconds)
        if self.folder.claims.clear(self.folder.part("locks"), expiry_seconds=self.expiry_seconds):
            for part in ("tasks", "progress"):
                self.folder.withdraw(*self.folder.part(part).iterdir())
            if not (self.board.failures or self.left):  # such a group may go on from its checkpoint in a later run
                shutil.rmtree(self.folder.part("checkpoints"), ignore_errors=True)
                self.folder.forget_checkpoints()

    def settle(self) -> None:
        """See which groups are left, whoever finished the others, and fail the students of failed teachers."""
        self.looked = time.monotonic()
        self.folder.refresh()
        self.pending = []
        for work in self.works:
            lacking = () if work.id in self.jobs else self.board.lacking(work)
            teacher, reason = work.group.teacher, self.board.blocked(work)
            if teacher is not None and teacher.id in self.left:
                self.left |= {cell.id: f"its teacher {teacher.id} is left" for cell in lacking}
            if all(cell.id in self.left for cell in lacking):
                continue
            if reason is None:
                self.pending.append(work)
            else:
                self.fail(lacking, reason)

    def fail(self, cells: tuple[Cell, ...], error: str) -> None:
        for cell in cells:
            self.board.fail(cell, error)
            self.screen.event(f"failed: {cell.id}: {error}")

    def start_one(self) -> bool:
        """Claim and start the first pending group that is ready and free. Returns: whether there was one."""
        if any(job.alone for job in self.jobs.values()):
            return False
        for work in self.pending:
            if self.waiting.asked(work) or not self.board.ready(work):
                continue
            held = self.folder.claim(work.group, keeps=bool(work.keeps), expiry_seconds=self.expiry_seconds)
            if held is None:
                self.waiting.begin(work, idle=not self.jobs)
                continue
            self.waiting.end(work)
            self.heartbeat.keep(held)
            self.pending.remove(work)
            self.folder.refresh(now=True)
            lacking = self.board.lacking(work)  # another run may have finished it between our look and our claim
            if not lacking:
                self.heartbeat.drop(held)
                return True
            job = self.jobs[work.id] = Job(work=work, claim=held, attempts=deque([Attempt(cells=lacking)]))
            self.launch(job)
            return True
        return False

    def launch(self, job: Job) -> None:
        job.next_attempt(self.folder, self.sweep, self.execution)
        for cell in job.group.cells:
            place = self.folder.store / "teachers" / cell.id
            if cell.id in job.work.keeps and place.exists() and cell.fingerprint not in self.retrained_at:
                self.screen.event(f"warning: {place}: not a whole teacher (unfinished or damaged); it is trained again")
        job.handle = self.executor.start(self.folder, job.group.id, self.execution)
        self.screen.event(
            f"started: {job.group.id}, {len(job.group.cells)} cell{'s' if len(job.group.cells) > 1 else ''}"
        )

    def attend(self, job: Job) -> None:
        """See whether a job's process has ended, and what follows from how it did."""
        if job.handle is None:  # it waits to be alone
            if not any(other.handle for other in self.jobs.values()):
                self.launch(job)
            return
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
        told, error = job.last_words(self.folder, code)
        if code == worker.CANNOT_WRITE:
            free = amount(shutil.disk_usage(self.folder.out).free)
            raise SweepError(
                f"{self.folder.name}: cannot be written ({free} free; {error}); rows already there are safe"
            )
        self.board.look_again(job.group.cells)
        lacking = tuple(cell for cell in self.board.lacking(job.work) if cell in job.group.cells)
        if lacking:
            self.answer(job, job.endings(self.folder, cause_of(code, error), error), lacking)
        else:
            self.report(job, told)
        if not job.attempts:
            self.end(job)
        elif job.alone:
            job.handle = None
        else:
            self.launch(job)

    def answer(self, job: Job, endings: tuple[Ending, ...], lacking: tuple[Cell, ...]) -> None:
        """Do what follows from how an attempt ended."""
        last, teacher = endings[-1], job.group.teacher
        # a job that began before its teacher was dropped had the same one
        dropped = self.retrained_at.get(teacher.fingerprint) if teacher else None
        answer = answer_to(endings, len(lacking), retrained=dropped is not None and job.started >= dropped)
        if answer == "fail":
            self.fail(lacking, last.line)
        elif answer == "leave":
            self.left |= {cell.id: last.line for cell in lacking}
        elif answer == "train the teacher again":
            self.retrain(teacher, last.error)
            job.attempts.clear()
        else:
            job.try_again(lacking, answer, endings)
        if answer not in ("fail", "train the teacher again"):
            self.screen.event(f"warning: {job.group.id}: {last.line}; {what_follows(answer, last, len(lacking))}")

    def end(self, job: Job) -> None:
        job.tidy(self.folder)
        self.heartbeat.drop(job.claim)
        del self.jobs[job.work.id]
        self.settle()

    def report(self, job: Job, told: dict) -> None:
        seconds = time.monotonic() - job.started
        self.eta.learn(job.group, seconds, told)
        if told.get("note") and told["note"] not in self.notes:
            self.notes.add(told["note"])
            self.screen.event(f"warning: {told['note']}")
        for cell in job.group.cells:
            if self.board.failed(cell):
                self.screen.event(f"failed: {cell.id}: {self.board.states[cell.id].error}")
        self.screen.event(f"finished: {job.group.id} in {duration(seconds)}")

    def retrain(self, teacher: Cell, error: str) -> None:
        """Drop a teacher's unusable checkpoint, so that it is trained again; once."""
        if teacher.fingerprint in self.retrained_at:
            return
        self.retrained_at[teacher.fingerprint] = time.monotonic()
        self.screen.event(f"warning: {error}; teacher {teacher.id} is trained again")
        entry = self.folder.teacher_entry(teacher)
        if entry is not None:
            self.folder.drop_teacher(entry)

    def snapshot(self) -> Snapshot:
        """Where the sweep stands now, for the display."""
        waiting = self.waiting.lines(self.pending)
        return snapshot_of(self.board, self.eta, list(self.jobs.values()), self.pending, waiting)
