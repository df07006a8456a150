"""Bytes changed at unchanged size, at seeded places: what a bad disk or a bad copy does to a file."""

import os
import random
from pathlib import Path


def flipped(content: bytes, chance: random.Random) -> bytes:
    """One bit changed, or four bytes in a row."""
    at = chance.randrange(len(content))
    if chance.random() < 0.5:
        return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]
    part = bytes(byte ^ chance.randrange(1, 256) for byte in content[at : at + 4])
    return content[:at] + part + content[at + len(part) :]


def flip(path: Path, seed: object = 0) -> bytes:
    """Change a file. Returns: what it held. Its time moves on, as a write would have it in practice."""
    whole = path.read_bytes()
    path.write_bytes(flipped(whole, random.Random(f"{path.name} {seed}")))
    later(path)
    return whole


def later(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000_000))


def files(folder: Path) -> list[Path]:
    """Every file below a folder that holds something."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
