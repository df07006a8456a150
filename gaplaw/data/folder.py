"""How is a folder of files read? Every .txt file a document, every line of .jsonl and every row of .parquet a document.

A document's domain is the jsonl or parquet field `domain` where it has a value (text, number or true/false), else the
top-level subfolder, else "text". Blank documents are left out. Refuses, with one line naming the file: text that is not
UTF-8, lines that are not JSON, tables without a text column, labels that are lists or other structures.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from gaplaw.data.documents import (
    BYTE_ORDER_MARK,
    Document,
    files_manifest,
    first_bad_byte,
    label_of,
    text_group,
)
from gaplaw.data.json_lines import text_and_domain, whole_line
from gaplaw.data.listing import READ, in_words, kind_of, list_folder
from gaplaw.errors import DataError
from gaplaw.files import sha256_of

RECIPE = "folder-2"  # raise when the same files would yield other documents
ROOT_DOMAIN = "text"
ROWS_AT_ONCE = 1024
ROWS_AT_ONCE_BYTES = 16 << 20
READ_AT_ONCE_BYTES = 1 << 20
_MARK_BYTES = BYTE_ORDER_MARK.encode()


class FolderSource:
    """The .txt, .jsonl and .parquet files under one folder, hidden files excepted, in path order."""

    def __init__(self, path: str):
        self.root = Path(path).expanduser().absolute()
        self.where = f"DataSpec.source = 'folder:{self.root}'"
        if not self.root.is_dir():
            raise DataError(f"{self.where}: there is no such folder")
        self.files, self.left_out = list_folder(self.root, self.where)
        if not self.files:
            others = f"; it holds {in_words(self.left_out)}" if self.left_out else ""
            raise DataError(f"{self.where}: the folder holds no {READ} file{others}")

    def manifest(self) -> str:
        """A hash over relative paths and contents: the same folder elsewhere, or under another name, is the same
        data.
        """
        return files_manifest(RECIPE, [(name, self._digest(name)) for name in self.files])

    def size_bytes(self) -> int:
        return sum((self.root / name).stat().st_size for name in self.files)

    def documents(self, files: list[str] | None = None) -> Iterator[Document]:
        """All documents, or those of some of the files."""
        readers = {".txt": self._txt, ".jsonl": self._jsonl, ".parquet": self._parquet}
        for name in self.files if files is None else files:
            kind, compression = kind_of(name)
            try:
                yield from readers[kind](name, compression)
            except OSError as error:
                why = error.strerror or str(error).splitlines()[0]
                raise DataError(f"{self.where}: {name} cannot be read: {why}") from error

    def _digest(self, name: str) -> str:
        try:
            return sha256_of(self.root / name)
        except OSError as error:
            raise DataError(f"{self.where}: {name} cannot be read: {error.strerror}") from error

    def _open(self, name: str, compression: str | None):
        """The file's bytes, unpacked."""
        if compression is None:
            return open(self.root / name, "rb")
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(self.root / name), compression=compression))

    def _document(self, content: bytes | bytearray, label: object, name: str, place: str) -> Document | None:
        """A document, or None for a blank one. place: where in the file, for errors."""
        group = text_group(content)
        if group is None:
            return None
        try:
            label = label_of(label)
        except ValueError as error:
            raise DataError(
                f"{self.where}: {name} {place}: its domain is {_shortened(label)}: must be text, a number or true/false"
            ) from error
        top, _, rest = name.partition("/")
        return Document(content=content, domain=label or (top if rest else ROOT_DOMAIN), group=group)

    def _refuse_unless_utf8(self, content: bytes, name: str, offset_bytes: int = 0) -> None:
        at = first_bad_byte(content)
        if at is not None:
            raise DataError(f"{self.where}: {name} is not UTF-8 at byte {offset_bytes + at}")

    # A long document must not be kept while the next is read: no local of these generators outlives its `yield`.

    def _txt(self, name: str, compression: str | None) -> Iterator[Document]:
        with self._open(name, compression) as file:
            content = file.read()
        self._refuse_unless_utf8(content, name)
        document = self._document(content.removeprefix(_MARK_BYTES), "", name, "")
        del content
        if document:
            yield document

    def _jsonl(self, name: str, compression: str | None) -> Iterator[Document]:
        offset_bytes, number = 0, 0
        with self._open(name, compression) as file:
            while line := whole_line(file):
                number += 1
                self._refuse_unless_utf8(line, name, offset_bytes)
                offset_bytes += len(line)
                if number == 1 and line.startswith(_MARK_BYTES):
                    line = line[len(_MARK_BYTES) :]
                document = None if line.isspace() else self._row(line, name, number)
                del line
                if document:
                    yield document
                del document

    def _row(self, line: bytes | bytearray, name: str, number: int) -> Document | None:
        try:
            content, label = text_and_domain(line)
        except RecursionError as error:
            raise DataError(f"{self.where}: {name} line {number} is not JSON that can be read: too deep") from error
        except ValueError as error:
            raise DataError(f"{self.where}: {name} line {number} is not JSON: {error}") from error
        except KeyError as error:
            raise DataError(f"{self.where}: {name} line {number} has no string field 'text'") from error
        return self._document(content, label, name, f"line {number}")

    def _parquet(self, name: str, _: None) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.root / name, buffer_size=READ_AT_ONCE_BYTES) as table:
                columns = self._columns(table.schema_arrow, name)
                row = 0
                for part in range(table.num_row_groups):
                    for batch in table.iter_batches(_rows_at_once(table, part), [part], columns):
                        contents, labels = _as_bytes(batch[columns[0]])[::-1], [None] * batch.num_rows
                        if len(columns) == 2:
                            labels = batch[columns[1]].to_pylist()[::-1]
                        del batch
                        while contents:
                            row += 1
                            document = self._parquet_row(contents.pop(), labels.pop(), name, row)
                            if document:
                                yield document
                            del document
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.where}: {name} is not a readable parquet file: {str(error).splitlines()[0]}"
            ) from error

    def _parquet_row(self, content: bytes | None, label: object, name: str, row: int) -> Document | None:
        at = first_bad_byte(content or b"")
        if at is not None:
            raise DataError(f"{self.where}: {name} is not UTF-8 in row {row}, at byte {at} of it")
        return self._document(content or b"", label, name, f"row {row}")

    def _columns(self, schema, name: str) -> list[str]:
        """The column of the texts, and that of the labels where there is one."""
        strings = [field.name for field in schema if _is_text(field.type)]
        texts = [n for n in strings if n != "domain"]
        if "text" not in texts and len(texts) != 1:
            raise DataError(
                f"{self.where}: {name} needs a string column 'text', or exactly one string column; has {schema.names}"
            )
        text = "text" if "text" in texts else texts[0]
        if "domain" not in schema.names:
            return [text]
        kind = schema.field("domain").type
        if not _is_label(kind):
            raise DataError(f"{self.where}: {name}: column domain is {kind}: must be text, a number or true/false")
        return [text, "domain"]


def _is_text(kind) -> bool:
    """True for a column of strings, plain, large, or dictionary-encoded as pandas writes its categories."""
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(value) or pa.types.is_large_string(value)


def _is_label(kind) -> bool:
    """True for a column that `label_of` can read; a column of nothing but nulls is one."""
    import pyarrow as pa

    value, types = kind.value_type if pa.types.is_dictionary(kind) else kind, pa.types
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    return _is_text(value) or any(test(value) for test in tests)


def _as_bytes(column) -> list[bytes | None]:
    """The UTF-8 of a column of strings, whether it is valid or not."""
    import pyarrow as pa

    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()).to_pylist()


def _rows_at_once(table, part: int) -> int:
    """How many rows of a row group make up a batch of bounded size."""
    group = table.metadata.row_group(part)
    row_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
    return max(1, min(ROWS_AT_ONCE, ROWS_AT_ONCE_BYTES // row_bytes))


def _shortened(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:60] + "…"
