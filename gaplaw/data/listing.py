"""Which files of a folder are read, and which are not? Found by suffix in any case, through links, and counted.

Linked folders are followed, each real folder once: a link that leads back, or to what was read already, is counted and
not read again. What stands in the folder itself comes before what is linked, so a copy by link does not hide it.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from gaplaw.errors import DataError

KINDS = (".txt", ".jsonl", ".parquet")
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
COMPRESSIBLE = (".txt", ".jsonl")  # parquet compresses inside
READ = ".txt, .jsonl (also .gz, .bz2, .zst) or .parquet"


def kind_of(name: str) -> tuple[str, str | None] | None:
    """(kind, compression or None) of a file that is read: `a.JSONL.gz` → (".jsonl", "gzip"); None for other files."""
    stem, suffix = os.path.splitext(name.lower())
    if suffix in KINDS:
        return suffix, None
    inner = os.path.splitext(stem)[1]
    return (inner, COMPRESSIONS[suffix]) if suffix in COMPRESSIONS and inner in COMPRESSIBLE else None


def list_folder(root: Path, where: str) -> tuple[list[str], dict[str, int]]:
    """The relative paths of the files that are read, in order, and how many others there are, by kind of reason.

    Raises: DataError naming a folder that cannot be listed.
    """
    files: list[str] = []
    left_out: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    folders, links = [root], []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            found = folder.stat()
            if (found.st_dev, found.st_ino) in seen:
                left_out["linked folders that were read already"] += 1
                continue
            seen.add((found.st_dev, found.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{where}: {folder} cannot be read: {error.strerror}") from error
        for entry in entries:
            if entry.name.startswith("."):
                left_out["hidden"] += 1
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(folder / entry.name)
            elif not entry.is_file():
                left_out["broken links" if entry.is_symlink() else "special files"] += 1
            elif kind_of(entry.name) is None:
                left_out[_suffixes(entry.name)] += 1
            else:
                files.append((folder / entry.name).relative_to(root).as_posix())
    return sorted(files), dict(sorted(left_out.items()))


def in_words(left_out: dict[str, int]) -> str:
    """`3 .json, 1 hidden`, the most frequent first."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(left_out.items(), key=lambda item: -item[1]))


def _suffixes(name: str) -> str:
    """What a person calls a kind of file: `.json`, `.csv.gz`, or `without a suffix`."""
    stem, suffix = os.path.splitext(name.lower())
    inner = os.path.splitext(stem)[1] if suffix in COMPRESSIONS else ""
    return inner + suffix or "without a suffix"
