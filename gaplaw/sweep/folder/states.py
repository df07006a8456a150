"""What does a run folder say of a cell: done, failed, missing, or a file that cannot be used? Asked of files alone.

A row is in the cell's own file or, after `gaplaw compact`, in one file with others (`gaplaw.sweep.folder.compact`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gaplaw import results
from gaplaw.errors import TableError
from gaplaw.files import same_file_name
from gaplaw.spec import Cell
from gaplaw.sweep.folder.compact import FINISHED, compacted, row_of


@dataclass(frozen=True, kw_only=True)
class CellState:
    """What the folder says of one cell. `written` identifies the version of its file."""

    status: str  # "done", "failed", "missing" or "corrupt"
    error: str | None = None
    written: int = 0


_MISSING = CellState(status="missing")


def state_of(out: Path, cell: Cell) -> CellState:
    """Whether a cell is finished, from its row."""
    path = row_path(out, cell)
    try:
        row = row_of(out, cell.id)
        known = row and (row["fingerprint"], row["status"], row["error"])
    except (NotADirectoryError, TableError, KeyError, IndexError):
        if not path.exists():
            return _MISSING
        return CellState(status="corrupt", error=f"{path}: damaged; the cell is run again")
    if known is None:
        return _MISSING
    fingerprint, status, error = known
    if fingerprint != cell.fingerprint:
        return CellState(status="corrupt", error=f"{path}: holds another cell; the cell is run again")
    return CellState(status=status, error=error, written=_written(path))


def states_of(out: Path, cells: Iterable[Cell]) -> dict[str, CellState]:
    """The states of many cells, by id. One listing says which have no row: to look for each takes as long as to read
    one.
    """
    names = [
        *(path.stem for path in results.row_files(out)),
        *compacted(out),
    ]  # in this order: a row is never in neither
    here = set(map(same_file_name, names))
    return {cell.id: state_of(out, cell) if same_file_name(cell.id) in here else _MISSING for cell in cells}


def state_with_curve(out: Path, cell: Cell) -> CellState:
    """The same, and a cell whose row is there is finished only if its curve is.

    A compacted cell is, too, while the file of many curves is damaged: that one file is no reason to run all of them
    again.
    """
    state, path = state_of(out, cell), out / "curves" / f"{cell.id}.parquet"
    compacted_curve = not row_path(out, cell).exists() and (out / "curves" / FINISHED).exists()
    if state.status == "done" and not compacted_curve:
        try:
            results.read_rows(path)
        except TableError:
            how = "damaged" if path.exists() else "missing"
            return CellState(status="corrupt", error=f"{path}: {how}; the cell is run again")
    return state


def row_path(out: Path, cell: Cell) -> Path:
    return out / "cells" / f"{cell.id}.parquet"


def _written(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:  # a compacted cell's
        return 0
