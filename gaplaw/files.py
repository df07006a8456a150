"""How does a file appear whole or not at all, how is it known to hold what was written, and which names may it have?

Second in the walk. A file is written under another name beside it, then renamed: whoever reads sees the old file or the
new one, and a writer may be killed at any moment. What is kept for later carries the SHA-256 of its content: a folder
in a file `SHA256SUMS` (which `sha256sum -c` reads too), a JSON file in a field, a file of another format in a mark
inside it. So a byte that changes on a disk or on the way is found when the file is opened.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
import uuid
from contextlib import contextmanager
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path

SUMS = "SHA256SUMS"
_SUMS_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_MARK, _BLANK = b"gaplaw-sha256:", b"0" * 64
UNMARKED = (_MARK + _BLANK).decode()  # where `marked` puts the checksum
# Of 255 bytes that file systems allow a name; locks, Orbax and files in the making add a prefix, two hashes and an
# ending.
LONGEST_NAME_BYTES = 160
FORBIDDEN = '/\\:*?"<>|[]'
RESERVED = ("store", "con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)))
NAME_RULE = (
    f"must be a plain file name: at most {LONGEST_NAME_BYTES} bytes, none of {' '.join(FORBIDDEN)} and no control "
    "character, "
    "no dot or space first or last, not empty, not 'store' and no device of Windows"
)


def is_plain_name(name: str) -> bool:
    """Whether files and folders of every usual system can carry a name, with what is added to it; see NAME_RULE."""
    return (
        0 < len(name.encode("utf-8", "replace")) <= LONGEST_NAME_BYTES
        and name == name.strip(". ")
        and not any(one in FORBIDDEN for one in name)
        and (name.isprintable() or not any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in name))
        and name.partition(".")[0].lower() not in RESERVED
    )


def same_file_name(name: str) -> str:
    """Equal for names that some file systems hold to be one: they differ by case or by how letters are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@contextmanager
def renamed(path: Path):
    """Yields a name to write to, in the same folder (made if need be); it becomes `path` when all went well, else
    goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    with renamed(path) as temporary:
        temporary.write_text(json.dumps(value))


def read_json(path: Path) -> dict | None:
    """The value of a JSON file; None when it is absent or not whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


# ---- JSON objects with a checksum


def write_checked_json(path: Path, value: dict) -> None:
    write_json(path, with_sum(value))


def read_checked_json(path: Path) -> dict | None:
    """What `write_checked_json` wrote; None when it is absent, without a checksum, or damaged."""
    return without_sum(read_json(path))


def with_sum(value: dict) -> dict:
    """A JSON object with its own SHA-256 as one more field."""
    return value | {"sha256": _json_sum(value)}


def without_sum(value: object) -> dict | None:
    """What `with_sum` was given; None when that is not so."""
    if not isinstance(value, dict):
        return None
    rest = {name: part for name, part in value.items() if name != "sha256"}
    return rest if value.get("sha256") == _json_sum(rest) else None


def intact(value: object) -> bool:
    """Whether a JSON object is what `with_sum` made, or carries no checksum (of an older gaplaw)."""
    return isinstance(value, dict) and ("sha256" not in value or without_sum(value) is not None)


def _json_sum(value: dict) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# ---- folders with a list of checksums


def sha256_of(path: Path) -> str:
    """A file's SHA-256; within a process it is read again only when its size or time has changed."""
    found = path.stat()
    return _sha256_once(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _sha256_once(path: Path, size_bytes: int, modified_ns: int) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path, *, but: str = SUMS) -> None:
    """List the SHA-256 of every file below a folder, as they are now; except one of the given name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (SUMS, but))
    lines = []
    for path in files:
        with open(path, "rb") as file:
            lines.append(f"{file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    with renamed(folder / SUMS) as temporary:
        temporary.write_text("".join(lines))


def damage(folder: Path, part: int = 0, parts: int = 1) -> str | None:
    """One line naming the first file that does not hold what `write_sums` listed; None when all do. Other files are no
    matter.

    part, parts: look only at every so many-th file; several processes divide the work.
    """
    try:
        listed = [_SUMS_LINE.fullmatch(line) for line in (folder / SUMS).read_text().splitlines()]
        wanted = {line[2]: line[1] for line in listed}
        if not wanted or len(wanted) < len(listed):
            raise ValueError
    except FileNotFoundError:
        return f"{folder}: has no checksums (no file {SUMS})"
    except (OSError, ValueError, TypeError) as fault:  # TypeError: a line of another form
        return f"{folder / SUMS}: not a readable list of checksums ({type(fault).__name__})"
    for name in sorted(wanted)[part::parts]:
        try:
            found = sha256_of(folder / name)
        except (OSError, ValueError) as fault:
            return f"{folder / name}: cannot be read ({getattr(fault, 'strerror', None) or type(fault).__name__})"
        if found != wanted[name]:
            return f"{folder / name}: damaged (its content is not what {SUMS} says)"
    return None


# ---- files of other formats, with a checksum of themselves inside


def marked(content: bytes) -> bytes:
    """Content that holds `UNMARKED` somewhere (the last place counts), with its SHA-256 filled in there."""
    at = content.rindex(_MARK) + len(_MARK)
    return content[:at] + sha256(content).hexdigest().encode() + content[at + len(_BLANK) :]


def mark_fits(content: bytes) -> bool:
    """Whether content is what `marked` made, or has no mark at all."""
    at = content.rfind(_MARK) + len(_MARK)
    if at < len(_MARK):
        return True
    blank = content[:at] + _BLANK + content[at + len(_BLANK) :]
    return content[at : at + len(_BLANK)] == sha256(blank).hexdigest().encode()
