"""How do thousands of finished cells become one file a table, at any moment and beside any number of runs?

    OUT/{cells,curves}/finished.parquet      the rows of finished cells, once `gaplaw compact` has been asked for

The new files hold everything, are read back and take their names before any cell's own file is removed; a cell that has
both counts once, by its own file. So a stop between two steps loses and repeats nothing for `gaplaw.read` and all
verbs, and the next `compact` removes what the stopped one left. Until then other programs (pandas, pyarrow, DuckDB) see
the cells that have both twice, with equal values; likewise a cell that was compacted and is run again, until the next
`compact`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from gaplaw import results, rows
from gaplaw.errors import SweepError, TableError
from gaplaw.objects import is_url

FINISHED = "finished.parquet"  # no cell's file: their names end in six digits


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """What `compact` came to: cells in the two files now, and files of single cells that they replaced."""

    folder: str
    cells: int
    files_removed: int


def compact(folder: Path | str) -> Compaction:
    """Put the rows of all finished cells of a run folder into one file a table; failed and damaged ones stay as they
    are.

    Raises: SweepError for an object store, or while another `compact` is at work; TableError naming a damaged file.
    """
    if is_url(folder):
        raise SweepError(f"{folder}: compacts folders only; copy the run here, compact it and put it back")
    folder = Path(folder)
    if not results.row_files(folder):
        raise TableError(f"{folder}: holds no cells (no file {folder}/cells/*.parquet)")
    with _alone(folder / "cells"):
        seen = {table: {path: _version(path) for path in results.row_files(folder, table)} for table in results.TABLES}
        cells, curves = (results.read_table(folder, table) for table in results.TABLES)
        if curves is None or cells is None:
            return Compaction(folder=str(folder), cells=0, files_removed=0)
        done = cells.filter(pc.equal(cells["status"], "done"))
        done = done.filter(pc.is_in(done["cell_id"], pc.unique(curves["cell_id"])))
        names = pc.unique(done["cell_id"])
        for table, whole in (("curves", curves.filter(pc.is_in(curves["cell_id"], names))), ("cells", done)):
            if len(names):
                rows.write_many(folder / table / FINISHED, whole.combine_chunks())
        removed = 0
        for table in results.TABLES:
            for name in names.to_pylist():
                path = folder / table / f"{name}.parquet"
                if seen[table].get(path) is not None and _version(path) == seen[table][path]:  # not run again meanwhile
                    path.unlink(missing_ok=True)
                    removed += 1
    return Compaction(folder=str(folder), cells=len(names), files_removed=removed)


_STATE = ("cell_id", "fingerprint", "status", "error", "loss_student_ce_nats")


def row_of(folder: Path, cell_id: str) -> dict | None:
    """The row of a cell, or of a compacted one what its state is and its loss; None when there is none.

    Raises: TableError, IndexError when the cell's own file is damaged, or empty.
    """
    try:
        return results.first_row(folder / "cells" / f"{cell_id}.parquet")
    except (FileNotFoundError, NotADirectoryError):
        version = _version(folder / "cells" / FINISHED)
        return _compacted(folder / "cells" / FINISHED, version).get(cell_id) if version else None


@functools.lru_cache(maxsize=8)
def _compacted(path: Path, version: tuple[int, ...]) -> dict[str, dict]:
    with contextlib.suppress(TableError, FileNotFoundError, KeyError):  # damaged: its cells are run again
        return {row["cell_id"]: row for row in results.read_rows(path).select(_STATE).to_pylist()}
    return {}


def _version(path: Path) -> tuple[int, ...] | None:
    """Changes whenever a file is written; None when it is absent."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _alone(folder: Path):
    """One `compact` of a folder at a time: two could each remove what only the other's file holds."""
    try:
        import fcntl
    except ImportError:
        raise SweepError("compact: needs fcntl, which this system does not have") from None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SweepError(f"{folder}: another compact is at work here") from None
    finally:
        os.close(handle)
