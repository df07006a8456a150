"""Which cells of a sweep still need work, from the files of its folder alone?

The board is what several `run` commands agree on without talking: a cell is finished when its row says done, or says
failed since this command began; a teacher is finished for its students when its checkpoint is in the store.
"""

from __future__ import annotations

from pathlib import Path

from gaplaw.errors import TableError
from gaplaw.spec import Cell, Execution, Sweep
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning.make_plan import Work


class Board:
    """The states of all cells, read again when asked. Rows that failed before the board was made are to be tried
    again.
    """

    def __init__(self, sweep: Sweep, folder: RunFolder, works: list[Work], execution: Execution):
        self.sweep, self.folder, self.works, self.execution = sweep, folder, works, execution
        self.states = {cell.id: folder.state_with_curve(cell) for cell in sweep.cells}
        self._before = dict(self.states)
        self._needed_by = {work.id: [other for other in works if other.needs == work.id] for work in works}
        self.done_before = self.count("done")

    def count(self, status: str) -> int:
        return sum(state.status == status for state in self.states.values())

    @property
    def failures(self) -> dict[str, str]:
        return {name: state.error or "" for name, state in self.states.items() if state.status == "failed"}

    def finished(self, cell: Cell) -> bool:
        """Whether a cell needs no more work in this run: done, or failed since the board was made."""
        state = self.states[cell.id]
        return state.status == "done" or (state.status == "failed" and state != self._before[cell.id])

    def failed(self, cell: Cell) -> bool:
        return self.finished(cell) and self.states[cell.id].status == "failed"

    def look_again(self, cells: tuple[Cell, ...]) -> None:
        """Read rows again; curves only of cells that were damaged, because reading them takes as long as reading
        rows.
        """
        for cell in cells:
            damaged = self.states[cell.id].status == "corrupt"
            self.states[cell.id] = self.folder.state_with_curve(cell) if damaged else self.folder.state(cell)

    def lacking(self, work: Work) -> tuple[Cell, ...]:
        """The cells of a group that must be run: unfinished ones, and teachers without the checkpoint that students
        need.
        """
        self.look_again(tuple(cell for cell in work.group.cells if not self.finished(cell)))
        waiting = {
            other.group.teacher.fingerprint
            for other in self._needed_by[work.id]
            if not all(self.finished(cell) for cell in other.group.cells)
        }
        found = []
        for cell in work.group.cells:
            if self.failed(cell):
                continue
            if cell.id in work.keeps and (not self.finished(cell) or cell.fingerprint in waiting):
                entry = self.folder.teacher_entry(cell)
                if entry is None or not (self.finished(cell) or self.reused(cell, entry)):
                    found.append(cell)
            elif not self.finished(cell):
                found.append(cell)
        return tuple(found)

    def reused(self, cell: Cell, entry: Path) -> bool:
        """Take a teacher's rows from the store. Returns: False when they are damaged there."""
        try:
            self.folder.reuse_teacher(self.sweep, cell, entry)
        except TableError:
            return False
        self.look_again((cell,))
        return True

    def ready(self, work: Work) -> bool:
        return work.group.teacher is None or self.folder.teacher_entry(work.group.teacher) is not None

    def blocked(self, work: Work) -> str | None:
        """Why a group can never run: its teacher failed. None when it can."""
        teacher = work.group.teacher
        if teacher is None or not self.failed(teacher):
            return None
        self.look_again((teacher,))  # another run may have made it meanwhile
        if not self.failed(teacher):
            return None
        return f"its teacher {teacher.id} failed: {self.states[teacher.id].error}"

    def fail(self, cell: Cell, error: str) -> None:
        """Write a failed row for a cell whose worker could not, unless another run has finished it."""
        self.look_again((cell,))
        if self.states[cell.id].status == "done":
            return
        self.folder.write_failure(self.sweep, cell, error, self.execution)
        self.look_again((cell,))
