"""How is a folder of files read? Every .txt file a document, every line of .jsonl and every row of .parquet a document.

A document's domain is the jsonl or parquet field `domain` where there is one, else the top-level subfolder, else
"text". Refuses, with one line naming the file: text that is not UTF-8, lines that are not JSON, tables without a text
column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path

from gaplaw.data.documents import Document, files_manifest, text_group
from gaplaw.errors import DataError

RECIPE = "folder-1"  # raise when the same files would yield other documents
ROOT_DOMAIN = "text"
SUFFIXES = (".txt", ".jsonl", ".parquet")
ROWS_AT_ONCE = 1024


@lru_cache(maxsize=100_000)
def _digest_once(path: Path, size_bytes: int, modified_ns: int) -> str:
    """A file's sha256, read again in this process only when its size or time has changed."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


class FolderSource:
    """The .txt, .jsonl and .parquet files under one folder, hidden files excepted, in path order."""

    def __init__(self, path: str):
        self.where = f"DataSpec.source = 'folder:{path}'"
        self.root = Path(path).expanduser()
        if not self.root.is_dir():
            raise DataError(f"{self.where}: there is no such folder")
        names = (p.relative_to(self.root) for p in self.root.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        self.files = sorted(n.as_posix() for n in names if not any(part.startswith(".") for part in n.parts))
        if not self.files:
            raise DataError(f"{self.where}: the folder holds no .txt, .jsonl or .parquet file")

    def manifest(self) -> str:
        """A hash over relative paths and contents: the same folder elsewhere, or under another name, is the same data."""
        return files_manifest(RECIPE, [(name, self._digest(name)) for name in self.files])

    def size_bytes(self) -> int:
        return sum((self.root / name).stat().st_size for name in self.files)

    def documents(self) -> Iterator[Document]:
        readers = {".txt": self._txt, ".jsonl": self._jsonl, ".parquet": self._parquet}
        for name in self.files:
            top, _, rest = name.partition("/")
            folder_domain = top if rest else ROOT_DOMAIN
            for text, domain in readers[Path(name).suffix](name):
                if text.strip():
                    yield Document(text=text, domain=domain or folder_domain, group=text_group(text))

    def _digest(self, name: str) -> str:
        path = self.root / name
        try:
            found = path.stat()
            return _digest_once(path, found.st_size, found.st_mtime_ns)
        except OSError as error:
            raise DataError(f"{self.where}: {name} cannot be read: {error.strerror}") from error

    def _decode(self, content: bytes, name: str, offset_bytes: int = 0) -> str:
        try:
            return content.decode("utf-8-sig" if offset_bytes == 0 else "utf-8")
        except UnicodeDecodeError as error:
            at = offset_bytes + error.start + (3 if offset_bytes == 0 and content.startswith(b"\xef\xbb\xbf") else 0)
            raise DataError(f"{self.where}: {name} is not UTF-8 at byte {at}") from error

    def _txt(self, name: str) -> Iterator[tuple[str, str]]:
        yield self._decode((self.root / name).read_bytes(), name), ""

    def _jsonl(self, name: str) -> Iterator[tuple[str, str]]:
        offset_bytes = 0
        with open(self.root / name, "rb") as file:
            for number, line in enumerate(file, 1):
                text = self._decode(line, name, offset_bytes)
                offset_bytes += len(line)
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except ValueError as error:
                    raise DataError(f"{self.where}: {name} line {number} is not JSON: {error}") from error
                if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                    raise DataError(f"{self.where}: {name} line {number} has no string field 'text'")
                yield row["text"].encode("utf-8", "replace").decode(), str(row.get("domain") or "")

    def _parquet(self, name: str) -> Iterator[tuple[str, str]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.root / name) as table:
                schema = table.schema_arrow
                strings = [field.name for field in schema if _is_text(field.type)]
                texts = [n for n in strings if n != "domain"]
                if "text" not in texts and len(texts) != 1:
                    raise DataError(
                        f"{self.where}: {name} needs a string column 'text', or exactly one string column; "
                        f"has {schema.names}"
                    )
                text = "text" if "text" in texts else texts[0]
                columns = [text, *(["domain"] if "domain" in strings else [])]
                for batch in table.iter_batches(ROWS_AT_ONCE, columns=columns):
                    rows = batch.to_pydict()
                    labels = rows.get("domain", [""] * len(rows[text]))
                    yield from ((t or "", d or "") for t, d in zip(rows[text], labels, strict=True))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.where}: {name} is not UTF-8 in a row, at byte {error.start} of it") from error
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.where}: {name} is not a readable parquet file: {str(error).splitlines()[0]}"
            ) from error


def _is_text(kind) -> bool:
    """True for a column of strings, plain, large, or dictionary-encoded as pandas writes its categories."""
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(value) or pa.types.is_large_string(value)
