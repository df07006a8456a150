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
    import pyarrow as pa
    import pyarrow.compute as pc

    folder = Path(folder)
    if not results.row_files(folder):
        raise TableError(f"{folder}: holds no cells (no file {folder}/cells/*.parquet)")
    with _alone(folder / "cells"):
        seen = {table: {path: _version(path) for path in results.row_files(folder, table)} for table in results.TABLES}
        cells, curves = (results.read_table(folder, table) for table in results.TABLES)
        if curves is None or cells is None:
            return Compaction(folder=str(folder), cells=0, files_removed=0)
        done = cells.filter(pc.equal(cells["status"], "done"))
        has_curve = pc.is_in(done["cell_id"], pc.unique(curves["cell_id"]))
        has_own_file = pc.is_in(done["cell_id"], pa.array([path.stem for path in seen["cells"]], pa.string()))
        done = done.filter(pc.or_(has_curve, pc.invert(has_own_file)))  # a row that is nowhere else is never dropped
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
        return compacted(folder).get(cell_id)


def compacted(folder: Path) -> dict[str, dict]:
    """What is known of each compacted cell, by id: what its state is, and its loss."""
    path = folder / "cells" / FINISHED
    version = _version(path)
    return (version and _compacted(path, version)) or {}


def damaged_files(folder: Path) -> list[str]:
    """A line for each of the two files that is there and cannot be read: what follows, and what to do."""
    cells, curves = (folder / table / FINISHED for table in results.TABLES)
    lines = []
    if (version := _version(cells)) and _compacted(cells, version) is None:
        lines.append(
            f"{cells}: damaged; its cells count as missing and are run again; delete it, or put a whole copy there"
        )
    if _version(curves):
        try:
            results.read_rows(curves)
        except TableError:
            lines.append(
                f"{curves}: damaged; its curves cannot be read; delete it to run its cells again, or put a whole "
                "copy there"
            )
    return lines


def cell_ids(folder: Path) -> set[str]:
    """The cells that have a row in a folder, compacted or not."""
    version = _version(folder / "cells" / FINISHED)
    compacted = _compacted(folder / "cells" / FINISHED, version) if version else {}
    return {path.stem for path in results.row_files(folder)} | compacted.keys()


@functools.lru_cache(maxsize=8)
def _compacted(path: Path, version: tuple[int, ...]) -> dict[str, dict] | None:
    """What `compacted` gives; None of a file that cannot be read."""
    try:
        return {row["cell_id"]: row for row in results.read_rows(path).select(_STATE).to_pylist()}
    except (TableError, KeyError):
        return None


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
