"""How does a file appear whole or not at all? Written under another name beside it, then renamed.

Second in the walk. Whoever reads sees the old file or the new one, and a writer may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import contextmanager
from pathlib import Path


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
