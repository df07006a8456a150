"""What lies where in a run folder, what of it is finished, and which sweep does it belong to?

    OUT/sweep.json                    the sweep's cells: what belongs here
    OUT/{cells,curves}/<cell>.parquet results, one file per cell and table (gaplaw.results)
    OUT/{locks,tasks,progress,logs}/  claims, what each worker is to do, where it stands, what it said
    OUT/presence/                     the `run` commands that work here now
    OUT/checkpoints/<group>/<step>/   the newest state of each group in training, gone when its rows are written
    OUT/students/<cell>/              a student's parameters, if `Execution.keep_students` asks for them
    OUT/../store/teachers/<cell>/     a teacher's checkpoint and its rows, for every sweep beside this one

Only files are asked, so any process on any machine that sees the folder gets the same answer.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from gaplaw import results
from gaplaw.canonical import to_dict
from gaplaw.errors import SweepError, TableError
from gaplaw.files import read_json
from gaplaw.spec import Cell, Execution, Group, Sweep
from gaplaw.sweep.folder import states
from gaplaw.sweep.folder.claim import Claim, Claims, claim_key
from gaplaw.sweep.folder.compact import cell_ids
from gaplaw.sweep.folder.growth import grown, holds, read_sweep, refuse_other_rows, write_sweep
from gaplaw.sweep.folder.owner import Holder
from gaplaw.sweep.folder.states import CellState

NOT_WRITABLE = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)
STORE = "store"  # beside the run folders
PARTS = ("cells", "curves", "locks", "presence", "tasks", "progress", "logs")


def seconds_now() -> float:
    return datetime.now(UTC).timestamp()


@dataclass(frozen=True)
class RunFolder:
    """Paths and questions of one run folder; holds nothing in memory. On an object store: `object_store.Bucket`."""

    out: Path

    @property
    def name(self) -> str:
        """What people call the folder."""
        return str(self.out)

    @property
    def address(self) -> str:
        """What another process is given to find the folder."""
        return str(self.out.absolute())

    @property
    def settings(self) -> dict[str, str]:
        """Variables that a worker's environment needs because of the folder."""
        return {}

    @cached_property
    def store(self) -> Path:
        return self.out.absolute().parent / STORE

    def part(self, name: str) -> Path:
        return self.out / name

    def prepare(self) -> None:
        """Get ready for a run. Raises: SweepError in one line."""
        self.make()

    def make(self) -> None:
        """Make the folder and prove that it can be written. Raises: SweepError in one line."""
        try:
            for place in (*(self.part(name) for name in PARTS), self.store / "teachers", self.store / "locks"):
                place.mkdir(parents=True, exist_ok=True)
            for place in (self.out, self.store):
                probe = place / f".probe-{uuid.uuid4().hex[:8]}"
                probe.write_bytes(b"0" * 4096)
                probe.unlink()
        except OSError as fault:
            raise SweepError(cannot_write(self.name, fault)) from None

    # ---- what others wrote, and what others are to see: nothing to do where all see the same files

    def refresh(self, *, now: bool = False) -> None:
        """Learn what other processes have written."""

    def publish(self, *paths: Path) -> None:
        """Let other processes see files or folders that were written here, in this order."""

    def publish_missing(self, cells: tuple[Cell, ...]) -> None:
        """Publish the rows of cells whose writer was stopped before it could."""

    def show(self, log: Path) -> str:
        """Where people find a log."""
        return str(log)

    def withdraw(self, *paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def bring_checkpoint(self, group_id: str) -> None:
        """Have here what a group in training would go on from."""

    def publishing(self, group_id: str):
        """A context in which others see the progress and the checkpoints of a group that this process trains."""
        return contextlib.nullcontext()

    def forget_checkpoints(self, group_id: str = "") -> None:
        """Remove what others see of a group's checkpoints, or of all groups'."""

    def task(self, group_id: str) -> dict | None:
        """What a worker is to do."""
        return read_json(self.part("tasks") / f"{group_id}.json")

    def checkpoint_of(self, entry: Path) -> Path:
        """The checkpoint of a finished teacher, where it can be read."""
        return entry / "checkpoint"

    def drop_teacher(self, entry: Path) -> None:
        """Forget a teacher of the store whose checkpoint is of no use."""
        shutil.rmtree(entry / "checkpoint", ignore_errors=True)

    # ---- which sweep

    def sweep(self) -> Sweep:
        """The sweep that the folder belongs to. Raises: SweepError when it holds none, or a damaged one."""
        path = self.out / "sweep.json"
        if not path.exists():
            raise SweepError(
                f"{self.name}: holds no sweep (no file sweep.json); `gaplaw run EXPERIMENT --out {self.name}` makes one"
            )
        return read_sweep(path)

    def adopt(self, sweep: Sweep) -> str | None:
        """Record that the folder holds this sweep; it may grow, but never change its science.

        Returns: a line to show when the sweep grew or shrank, else None.
        Raises: SweepError naming the two sciences.
        """
        both, note = self.growth(sweep)
        if both is not None:
            self._record(both)
        return note

    def growth(self, sweep: Sweep) -> tuple[Sweep | None, str | None]:
        """What `adopt` would record (None: nothing new) and say; records nothing. Raises: SweepError as it does."""
        path = self.out / "sweep.json"
        new = (sweep, None)
        if path.exists():
            new = (None, None) if holds(path, sweep) else grown(self.sweep(), sweep, self.name)
        refuse_other_rows(sweep, cell_ids(self.out), self.name)
        return new

    def _record(self, sweep: Sweep) -> None:
        write_sweep(self.out / "sweep.json", sweep)
        self.publish(self.out / "sweep.json")

    # ---- what is finished

    def row_path(self, cell: Cell) -> Path:
        return states.row_path(self.out, cell)

    def state(self, cell: Cell) -> CellState:
        """Whether a cell is finished, from its row."""
        return states.state_of(self.out, cell)

    def states(self, cells: Iterable[Cell]) -> dict[str, CellState]:
        """The states of many cells, by id."""
        return states.states_of(self.out, cells)

    def state_with_curve(self, cell: Cell) -> CellState:
        """The same, and a cell whose row is there is finished only if its curve is."""
        return states.state_with_curve(self.out, cell)

    def teacher_entry(self, cell: Cell) -> Path | None:
        """The store's finished folder of a teacher, under whatever name it was trained; None when there is none."""
        for entry in sorted((self.store / "teachers").glob(f"*-{cell.fingerprint[:6]}")):
            if self.teacher_row(entry, cell) and self.has_checkpoint(entry):
                return entry
        return None

    def teacher_row(self, entry: Path, cell: Cell) -> dict | None:
        """The row of a finished teacher in a folder of the store; None when there is none."""
        for path in results.row_files(entry):
            try:
                row = results.first_row(path)
                known = (row["fingerprint"], row["status"])
            except (TableError, KeyError, IndexError, FileNotFoundError):
                continue
            if known == (cell.fingerprint, "done"):
                return row
        return None

    def has_checkpoint(self, entry: Path) -> bool:
        return (entry / "checkpoint").is_dir()

    def reuse_teacher(self, sweep: Sweep, cell: Cell, entry: Path) -> None:
        """Give this folder the rows of a teacher that another sweep trained, under this sweep's names.

        Raises: TableError when its row or its curve is damaged or missing there.
        """
        found = {}
        for table in ("curves", "cells"):  # the row last: a cell whose row exists is complete
            path = entry / table / f"{entry.name}.parquet"
            found[table] = results.read_rows(path).to_pylist()
        for table, rows in found.items():
            names = {"cell_id": cell.id}
            if table == "cells":
                names |= {"sweep": sweep.name, "role": sweep.role(cell), "spec": json.dumps(to_dict(cell))}
            self.publish(results.write_rows(self.out, table, cell.id, [row | names for row in rows]))

    def write_failure(self, sweep: Sweep, cell: Cell, error: str, execution: Execution) -> None:
        """Record why a cell has no numbers, for a worker that could not do so itself."""
        row = results.describe_cell(cell, sweep.role(cell))
        row |= {"sweep": sweep.name, "status": "failed", "error": error, "finished_at": datetime.now(UTC).isoformat()}
        row |= {"execution": json.dumps(to_dict(execution))}
        self.publish(results.write_rows(self.out, "cells", cell.id, [row]))

    def checkpoint_step(self, group_id: str) -> int:
        """The step from which a group would go on; 0 when it would start from its beginning."""
        names = (entry.name for entry in (self.part("checkpoints") / group_id).glob("[0-9]*"))
        return max((int(name) for name in names if name.isdigit()), default=0)

    # ---- who is at it

    @cached_property
    def claims(self) -> Claims:
        """Claims on groups and the presence of `run` commands, as this process sees them change."""
        return Claims()

    def claim(self, group: Group, *, keeps: bool, expiry_seconds: float) -> Claim | None:
        """Claim a group (see `claim_of`). Returns: the claim, None when something else stands there."""
        place, key = self.claim_of(group, keeps=keeps)
        return self.claims.claim(place / key, expiry_seconds=expiry_seconds)

    def holders(self, part: Literal["locks", "presence"]) -> list[Holder]:
        """What stands in the places of claims, those of teachers in the store included, or of `run` commands."""
        shared = self.claims.holders(self.store / part) if part == "locks" else []
        return self.claims.holders(self.part(part)) + shared

    def remove_junk(self) -> list[str]:
        """Remove what stands in the place of a claim and is none. Returns: what was removed."""
        return [place for part in (self.part("locks"), self.store / "locks") for place in self.claims.remove_junk(part)]

    def be_present(self) -> Claim:
        """Say that a `run` of this process works here; lasts as long as its heartbeat."""
        return self.claims.claim(self.part("presence") / uuid.uuid4().hex[:8])

    def claim_of(self, group: Group, *, keeps: bool) -> tuple[Path, str]:
        """(folder, key) of a group's claim. One that trains teachers (`keeps`) is in the store: other sweeps may want
        them.
        """
        return self.store / "locks" if keeps else self.part("locks"), claim_key(group, keeps=keeps)


def cannot_write(folder: str, fault: OSError) -> str:
    """One line for a folder that cannot be written: read-only, full, forbidden, or not a folder."""
    return f"{folder}: cannot be written ({fault.strerror or type(fault).__name__}); rows already there are safe"
