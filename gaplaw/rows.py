"""How are thousands of small parquet files read as one table: checked, cast to the schema, and each named when it
cannot be?

Before results in the walk, which says what the columns mean. To open a parquet file of seventy columns takes twenty
times as long as to read its one row. So a file carries a copy of its rows as JSON in its metadata, for us alone; it
counts only while the file's checksum fits, so that it never says anything else than the columns, which pandas, pyarrow
and DuckDB read.

A file that another program has rewritten may hold its values under another type (pandas: large_string, dictionary, a
whole number as a float because others were missing); it is cast where no value changes, and refused by file and column
where one would. Such a file has no checksum of its own; one that it took over with gaplaw's metadata, and the copy
beside it, count no more.
"""

from __future__ import annotations

import functools
import itertools
import json
from base64 import b64decode
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gaplaw.errors import TableError
from gaplaw.files import UNMARKED, mark_fits, marked, renamed
from gaplaw.packages import Later

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import pyarrow.types as kinds
else:  # not needed where every file is our own: half of what `gaplaw status` would import
    pa, pc, pq, kinds = map(Later, ("pyarrow", "pyarrow.compute", "pyarrow.parquet", "pyarrow.types"))

_START, _CHECKSUM = b"gaplaw-rows:", UNMARKED.partition(":")[0].encode()
_BATCH_FILES = 256  # so many are joined at once: a table of one row takes many times the memory of its values
# What a file of one row has no use for: without it a file is half as large.
_SMALL = {"use_dictionary": False, "write_statistics": False, "store_schema": False, "compression": "none"}
# Name of a column → Arrow's name of its type; None when the schema does not know the column.
TypeOf = Callable[[str], str | None]
_INDEX = "__index_level_"  # a column in which pandas keeps row labels: no value of ours
_NUMBERS = ("integer", "floating", "null")
_MAY_BECOME = {
    "string": ("string", "large_string", "string_view", "null"),
    "int64": _NUMBERS,
    "double": (*_NUMBERS, "decimal"),
    "bool": ("boolean", *_NUMBERS),
}


def cast_rows(path: Path, rows: pa.Table, type_of: TypeOf) -> pa.Table:
    """Rows under the types of the schema; columns that it does not know stay as they are, pandas' row labels go.

    Raises: TableError naming the file and the column whose values cannot be kept.
    """
    wanted = {field.name: _arrow(type_of(field.name)) or _plain(field.type) for field in rows.schema}
    if len(wanted) < rows.num_columns:
        twice = next(name for name in wanted if rows.schema.names.count(name) > 1)
        raise TableError(f"{path}: column {twice!r} stands there twice; delete the file to redo the cell")
    rows = rows.replace_schema_metadata(None)
    if rows.schema.types == list(wanted.values()) and not any(name.startswith(_INDEX) for name in wanted):
        return rows
    names = [name for name in wanted if not name.startswith(_INDEX)]
    return pa.table({name: _cast(path, name, rows[name], wanted[name]) for name in names})


def _arrow(kind: str | None) -> pa.DataType | None:
    return kind and pa.type_for_alias(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if kinds.is_dictionary(kind) else kind


def _cast(path: Path, name: str, values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    values = values.cast(_plain(values.type))
    if values.type == kind or str(kind) not in _MAY_BECOME:
        return values
    try:
        if not any(getattr(kinds, f"is_{other}")(values.type) for other in _MAY_BECOME[str(kind)]):
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


class Copy(NamedTuple):
    """The rows of one file, from the copy in its metadata."""

    names: tuple[str, ...]
    rows: list[list]

    def column(self, name: str) -> list:
        at = self.names.index(name)
        return [row[at] for row in self.rows]


def write_many(path: Path, rows: pa.Table) -> None:
    """Write the rows of many cells, whole or not at all, with the file's own checksum; read back before it takes its
    name.

    Raises: TableError when it does not hold what was written.
    """
    stream = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata({"sha256": UNMARKED}), stream)
    content = marked(stream.getvalue().to_pybytes())
    with renamed(path) as temporary:
        temporary.write_bytes(content)
        found = temporary.read_bytes()
        if found != content or pq.ParquetFile(pa.BufferReader(found)).read().num_rows != rows.num_rows:
            raise TableError(f"{path}: does not hold what was written; nothing was removed")


def write_file(path: Path, values: list[dict], types: dict[str, str]) -> None:
    """Write the rows of one cell, whole or not at all, with the file's own checksum and the copy. types: by column."""
    content = pa.BufferOutputStream()
    rows = pa.Table.from_pylist(values, schema=pa.schema(types.items()))
    values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
    text = json.dumps([rows.schema.names, *values], separators=(",", ":"))
    text = text.replace("gaplaw-", "gaplaw\\u002d")  # the same in JSON; so our marks stand nowhere else in it
    with pq.ParquetWriter(content, rows.schema, **_SMALL) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({"rows": f"{_START.decode()}{len(text)}:{text}", "sha256": UNMARKED})
    with renamed(path) as temporary:
        temporary.write_bytes(marked(content.getvalue().to_pybytes()))


def read_file(path: Path, type_of: TypeOf, newest_version: int) -> pa.Table | Copy:
    """A file's rows, from the copy or, without one, from its columns.

    Raises: TableError naming the file when it is corrupt, of a newer schema, or holds a column that cannot be cast;
      FileNotFoundError.
    """
    try:
        content = path.read_bytes()
        whole = mark_fits(content)
        if not whole and not _is_rewritten(content):
            raise TableError("its checksum does not fit: damaged, or rewritten with gaplaw's metadata")
        rows = (whole and _copy_in(content, type_of)) or pq.ParquetFile(pa.BufferReader(content)).read()
        versions = rows.column("schema_version")
        version = max(versions, default=None) if isinstance(rows, Copy) else pc.max(versions).as_py()
        version = newest_version if version is None else version
        newer = version > newest_version
    except FileNotFoundError:
        raise
    except Exception as fault:  # pyarrow raises several unrelated kinds for damaged files
        why = str(fault) if isinstance(fault, TableError) else type(fault).__name__
        raise TableError(f"{path}: not a readable results file ({why}); delete it to redo the cell") from None
    if newer:
        raise TableError(f"{path}: schema_version = {version:g}, but this gaplaw reads up to {newest_version}")
    return rows if isinstance(rows, Copy) else cast_rows(path, rows, type_of)


def _is_rewritten(content: bytes) -> bool:
    """Whether another program wrote these rows together with the checksum of the file that it had read.

    An arrow writer notes the schema of the table that it was given, metadata included. In a file of our own that note
    cannot hold the file's checksum, which is filled in when all else is written: no damage makes one look like a
    rewritten file.
    """
    try:
        metadata = pq.read_metadata(pa.BufferReader(content)).metadata
        given = pa.ipc.read_schema(pa.py_buffer(b64decode(metadata[b"ARROW:schema"]))).metadata
        return given[b"sha256"] == metadata[b"sha256"]
    except Exception:  # no metadata, no such note, or damaged: pyarrow raises several unrelated kinds
        return False


def read_files(
    listed: Callable[[], list[Path]],
    read: Callable[[Path], pa.Table | Copy],
    type_of: TypeOf,
    damaged: list[Path] | None = None,
) -> pa.Table | None:
    """All rows of many files, in order; of a file of many cells only those that have no file of their own.

    Args: listed: gives the files; asked again when one has vanished meanwhile. damaged: see
      `gaplaw.results.read_table`.
    """
    for last in (False, False, True):
        files, vanished = listed(), []
        own = pa.array([path.stem for path in files], pa.string())

        def parts(files=files, own=own, vanished=vanished):
            for path in files:
                try:
                    rows = read(path)
                except FileNotFoundError:
                    vanished.append(path)
                except TableError:
                    if damaged is None:
                        raise
                    damaged.append(path)
                else:
                    yield rows if _is_own(path, rows) else _without(own, join([rows], type_of))

        joined = join(parts(), type_of)
        if not vanished:
            return joined
        if last:
            raise TableError(f"{vanished[0]}: cannot be read (No such file or directory)")
        if damaged is not None:  # compacted meanwhile: look again
            damaged.clear()


def _is_own(path: Path, rows: pa.Table | Copy) -> bool:
    """Whether a file holds the rows of the one cell that names it; rows of another program may name no cell."""
    named = "cell_id" in (rows.names if isinstance(rows, Copy) else rows.schema.names)
    return not named or str(next(iter(rows.column("cell_id")), "")) == path.stem


def _without(own: pa.Array, rows: pa.Table) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["cell_id"], own)))


def records(rows: pa.Table | Copy) -> list[dict]:
    """One dict a row."""
    if isinstance(rows, Copy):
        return [dict(zip(rows.names, row, strict=True)) for row in rows.rows]
    return rows.to_pylist()


def _copy_in(content: bytes, type_of: TypeOf) -> Copy | None:
    """The copy in a file whose checksum fits; None without one, without a checksum, or with columns that we do not
    know.
    """
    at = content.rfind(_START)
    if at < 0 or content.rfind(_CHECKSUM) < 0:
        return None
    begin = content.index(b":", at + len(_START)) + 1
    text = content[begin : begin + int(content[at + len(_START) : begin - 1])].decode()
    first, _, rest = text.partition("]")  # no name of a column holds one
    names = _names_in(f"{first}]]", type_of)
    return names and Copy(names, json.loads("[" + rest.removeprefix(",")))


@functools.lru_cache(maxsize=1000)
def _names_in(text: str, type_of: TypeOf) -> tuple[str, ...] | None:
    """The names that a copy begins with; None with one that we do not know. Of thousands of files they are the same."""
    names = tuple(json.loads(text)[0])
    return names if all(map(type_of, names)) else None


def join(parts: Iterable[pa.Table | Copy], type_of: TypeOf) -> pa.Table | None:
    """All rows as one table, in order; a column that only some parts have is null in the others. None without a part.

    Raises: TableError naming a column of which parts hold values of different types.
    """
    joined = []
    parts = iter(parts)
    while some := list(itertools.islice(parts, _BATCH_FILES)):
        runs = itertools.groupby(some, key=lambda part: part.names if isinstance(part, Copy) else part.schema)
        joined.append(_joined([_alike(list(run), type_of) for _, run in runs]).combine_chunks())
    return _joined(joined) if joined else None


def _alike(parts: list[pa.Table] | list[Copy], type_of: TypeOf) -> pa.Table:
    """Parts with the same columns as one table."""
    if not isinstance(parts[0], Copy):
        return pa.concat_tables(parts)
    columns = zip(*(row for part in parts for row in part.rows), strict=True)
    values = list(columns) or [[] for _ in parts[0].names]
    return pa.table({n: pa.array(v, _arrow(type_of(n))) for n, v in zip(parts[0].names, values, strict=True)})


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
