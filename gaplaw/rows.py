"""How are thousands of small parquet files read as one table: checked, cast to the schema, and each named when it cannot be?

Before results in the walk, which says what the columns mean. Files are read by a few threads, because one file takes about as
long to open as to read, and joined in batches, because a table of one row takes many times the memory of its values. A file that
another program has rewritten may hold its values under another type (pandas: large_string, dictionary, a whole number as a float
because others were missing); it is cast where no value changes, and refused by file and column where one would.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from gaplaw.errors import TableError

THREADS = 4
_BATCH_FILES = 256
_INDEX = "__index_level_"  # a column in which pandas keeps row labels: no value of ours
_NUMBERS = (kinds.is_integer, kinds.is_floating, kinds.is_null)
_MAY_BECOME = {
    pa.string(): (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_null),
    pa.int64(): _NUMBERS,
    pa.float64(): (*_NUMBERS, kinds.is_decimal),
    pa.bool_(): (kinds.is_boolean, *_NUMBERS),
}


def cast_rows(path: Path, rows: pa.Table, type_of: Callable[[str], pa.DataType | None]) -> pa.Table:
    """Rows under the types of the schema; columns that it does not know stay as they are, pandas' row labels go.

    Args: type_of: name of a column → its type in the schema, None when the schema does not know it.
    Raises: TableError naming the file and the column whose values cannot be kept.
    """
    wanted = {field.name: type_of(field.name) or _plain(field.type) for field in rows.schema}
    if len(wanted) < rows.num_columns:
        twice = next(name for name in wanted if rows.schema.names.count(name) > 1)
        raise TableError(f"{path}: column {twice!r} stands there twice; delete the file to redo the cell")
    rows = rows.replace_schema_metadata(None)
    if rows.schema.types == list(wanted.values()) and not any(name.startswith(_INDEX) for name in wanted):
        return rows
    names = [name for name in wanted if not name.startswith(_INDEX)]
    return pa.table({name: _cast(path, name, rows[name], wanted[name]) for name in names})


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if kinds.is_dictionary(kind) else kind


def _cast(path: Path, name: str, values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    values = values.cast(_plain(values.type))
    if values.type == kind or kind not in _MAY_BECOME:
        return values
    try:
        if not any(fits(values.type) for fits in _MAY_BECOME[kind]):
            raise pa.ArrowInvalid("no value of another kind is converted")
        if kinds.is_floating(values.type) and not kinds.is_floating(kind):  # a missing whole number, as pandas keeps it
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        if kind == pa.bool_() and not kinds.is_boolean(values.type):
            values = values.cast(pa.int64())
            if not pc.all(pc.is_in(values, pa.array([0, 1, None], pa.int64()))).as_py():
                raise pa.ArrowInvalid("neither 0 nor 1")
        return values.cast(kind)
    except pa.ArrowException as fault:
        why = " ".join(str(fault).split())[:120]
        raise TableError(
            f"{path}: column {name} is {values.type}, must be {kind} ({why}); delete the file to redo the cell"
        ) from None


def read_each(
    paths: Iterable[Path], read: Callable[[Path], pa.Table]
) -> Iterator[tuple[Path, pa.Table | TableError | FileNotFoundError]]:
    """Each file with its rows, or with why it has none, in the order of the paths."""

    def attempt(path: Path) -> pa.Table | Exception:
        try:
            return read(path)
        except (TableError, FileNotFoundError) as fault:
            return fault

    paths = list(paths)
    with ThreadPoolExecutor(THREADS) as pool:
        for at in range(0, len(paths), _BATCH_FILES):  # not all at once: what waits to be joined takes memory
            some = paths[at : at + _BATCH_FILES]
            yield from zip(some, pool.map(attempt, some), strict=True)


def join(parts: Iterable[pa.Table]) -> pa.Table | None:
    """All rows as one table, in order; a column that only some parts have is null in the others. None without a part.

    Raises: TableError naming a column of which parts hold values of different types.
    """
    joined = []
    parts = iter(parts)
    while some := list(itertools.islice(parts, _BATCH_FILES)):
        alike = (pa.concat_tables(list(run)) for _, run in itertools.groupby(some, key=lambda part: part.schema))
        joined.append(_joined(list(alike)).combine_chunks())
    return _joined(joined) if joined else None


def _joined(parts: list[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(parts, promote_options="default")
    except pa.ArrowException:
        types: dict[str, pa.DataType] = {}
        for part in parts:
            for field in part.schema:
                if kinds.is_null(field.type):
                    continue
                first = types.setdefault(field.name, field.type)
                if field.type != first:
                    fault = f"column {field.name} is {first} in one file and {field.type} in another"
                    raise TableError(f"{fault}; delete or rename one of them") from None
        raise
