"""How does a file appear whole or not at all, and which names may it have? Written under another name beside it, then renamed.

Second in the walk. Whoever reads sees the old file or the new one, and a writer may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import unicodedata
import uuid
from contextlib import contextmanager
from pathlib import Path

# Of 255 bytes that file systems allow a name; locks, Orbax and files in the making add a prefix, two hashes and an ending.
LONGEST_NAME_BYTES = 160
FORBIDDEN = '/\\:*?"<>|[]'
RESERVED = ("store", "con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)))
NAME_RULE = (
    f"must be a plain file name: at most {LONGEST_NAME_BYTES} bytes, none of {' '.join(FORBIDDEN)} and no control character, "
    "no dot or space first or last, not empty, not 'store' and no device of Windows"
)


def is_plain_name(name: str) -> bool:
    """Whether files and folders of every usual system can carry a name, with what is added to it; see NAME_RULE."""
    return (
        0 < len(name.encode("utf-8", "replace")) <= LONGEST_NAME_BYTES
        and name == name.strip(". ")
        and not any(one in FORBIDDEN or unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in name)
        and name.partition(".")[0].lower() not in RESERVED
    )


def same_file_name(name: str) -> str:
    """Equal for names that some file systems hold to be one: they differ by case or by how letters are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@contextmanager
def renamed(path: Path):
    """Yields a name to write to, in the same folder (made if need be); it becomes `path` when all went well, else goes."""
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
