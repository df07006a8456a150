"""What is a claimed group while it runs: its attempts, and the task file that tells a worker what to do?"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace

from gaplaw.canonical import to_dict
from gaplaw.files import read_json, write_json
from gaplaw.spec import Cell, Execution, Group, Sweep
from gaplaw.sweep.engines.engine import HOST_LOST, Handle
from gaplaw.sweep.folder.claim import Claim
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning.make_plan import Work
from gaplaw.sweep.running.retry import Answer, Cause, Ending


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Cells to be run as one group. endings: of earlier tries of them that got no further, the latest last."""

    cells: tuple[Cell, ...]
    endings: tuple[Ending, ...] = ()


@dataclass
class Job:
    """A claimed group and the attempts that it still needs: whole at first, later perhaps cell by cell
    (`gaplaw.sweep.running.retry`).

    alone: whether it is to run while nothing else of this `run` works. handle: None while it waits for that.
    """

    work: Work
    claim: Claim
    attempts: deque[Attempt]
    attempt: Attempt | None = None
    group: Group | None = None
    handle: Handle | None = None
    started: float = 0.0
    started_at_step: int = 0
    alone: bool = False

    def next_attempt(self, folder: RunFolder, sweep: Sweep, execution: Execution) -> None:
        """Make the next cells the job's group and write their task file."""
        self.attempt = self.attempts.popleft()
        self.group, self.started = replace(self.work.group, cells=self.attempt.cells), time.monotonic()
        self.started_at_step = folder.checkpoint_step(self.group.id)
        self.tidy(folder)
        task = {
            "group": self.group.id,
            "sweep": sweep.name,
            "execution": to_dict(execution),
            "cells": [to_dict(cell) for cell in self.group.cells],
            "sweep_temperatures": list(self.group.sweep_temperatures),
            "roles": {cell.id: sweep.role(cell) for cell in self.group.cells},
            "keeps": [cell.id for cell in self.group.cells if cell.id in self.work.keeps],
        }
        path = folder.part("tasks") / f"{self.group.id}.json"
        write_json(path, task)
        folder.publish(path)

    def tidy(self, folder: RunFolder) -> None:
        folder.withdraw(*(folder.part(part) / f"{self.group.id}.json" for part in ("tasks", "progress")))

    def last_words(self, folder: RunFolder, code: int) -> tuple[dict, str]:
        """(the last progress of the attempt, one line that says how it ended)."""
        told = read_json(folder.part("progress") / f"{self.group.id}.json") or {}
        # a process that was killed has said nothing: what was told is then another's, about losing it
        if told.get("phase") == "failed" and told.get("error") and 0 <= code < HOST_LOST:
            return told, told["error"]
        return told, self.handle.ending() + (f"; see {folder.show(self.handle.log)}" if code else "")

    def endings(self, folder: RunFolder, cause: Cause, error: str) -> tuple[Ending, ...]:
        """How this attempt ended, after those before it; those no longer count when it left a checkpoint beyond its
        first.
        """
        further = folder.checkpoint_step(self.group.id) > self.started_at_step
        before = () if further else self.attempt.endings
        return (*before, Ending(cause=cause, error=error, further=further))

    def try_again(self, lacking: tuple[Cell, ...], answer: Answer, endings: tuple[Ending, ...]) -> None:
        """Put what an answer asks for before or after the attempts that are left."""
        if answer == "cell by cell":
            self.attempts.extend(Attempt(cells=(cell,), endings=endings) for cell in lacking)
        else:  # the same cells go on from their checkpoint, which only their own group finds
            cells = self.attempt.cells if endings[-1].further else lacking
            self.attempts.appendleft(Attempt(cells=cells, endings=endings))
            self.alone = self.alone or answer == "again alone"
