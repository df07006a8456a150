"""What is a claimed group while it runs: its attempts, and the task file that tells a worker what to do?"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace

from gaplaw.canonical import to_dict
from gaplaw.execution import Execution
from gaplaw.files import write_json
from gaplaw.grid import Group, Sweep
from gaplaw.spec import Cell
from gaplaw.sweep.claim import Claim
from gaplaw.sweep.engine import Handle
from gaplaw.sweep.folder import RunFolder
from gaplaw.sweep.planning import Work


@dataclass
class Job:
    """A claimed group and the attempts that it still needs: whole at first, cell by cell after a crash that got no further."""

    work: Work
    claim: Claim
    attempts: deque[tuple[Cell, ...]]
    group: Group | None = None
    handle: Handle | None = None
    started: float = 0.0
    started_at_step: int = 0
    losses: int = 0

    def next_attempt(self, folder: RunFolder, sweep: Sweep, execution: Execution) -> None:
        """Make the next cells the job's group and write their task file."""
        self.group, self.started = replace(self.work.group, cells=self.attempts.popleft()), time.monotonic()
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

    def got_further(self, folder: RunFolder) -> bool:
        """Whether this attempt left a checkpoint beyond the one that it started from, so that another will get further still."""
        return folder.checkpoint_step(self.group.id) > self.started_at_step
