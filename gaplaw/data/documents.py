"""What does every source of text hand on? A stream of documents, and a hash of the content that they come from.

First in the data walk: sources yield `Document`s, `split` divides them, `tokenizers` encode them, `pack` writes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from gaplaw.canonical import short_hash

BYTE_ORDER_MARK = "\ufeff"
CHECK_AT_ONCE_BYTES = 1 << 20
# Every character that Python calls white space, and the byte order mark, as UTF-8; none has more than three bytes.
_EDGE = tuple(c.encode() for c in [*filter(str.isspace, map(chr, range(0x3001))), BYTE_ORDER_MARK])
_LEADING_EDGE = re.compile(b"(?:" + b"|".join(map(re.escape, _EDGE)) + b")*+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text, its domain label, and the group that it must not be separated from.

    The text is held as UTF-8 bytes: as a Python string, one emoji makes every character of it take four bytes.

    Documents of one group (the code and the docstrings of one file, two copies of one page) land in the same split, so
    nothing in validation was seen in training. Where a source knows no better the group is the text's own hash.
    """

    content: bytes | bytearray
    domain: str
    group: str

    @property
    def text(self) -> str:
        return self.content.decode()


class Source(Protocol):
    """A corpus before tokenization: `manifest` is cheap and hashes the content, `documents` always streams in one
    order.

    left_out: what the source holds and does not read, by kind, counted.
    size_bytes: about what there is to read, known without reading it.
    """

    left_out: dict[str, int]

    def manifest(self) -> str: ...

    def size_bytes(self) -> int: ...

    def documents(self) -> Iterator[Document]: ...


def text_group(content: bytes | bytearray) -> str | None:
    """The identity of a document that has no name: equal texts share it, hence a split. None for a blank text.

    Texts that differ only in line ends (CRLF, CR, LF), in white space at their two edges or in a byte order mark count
    as equal. Other differences count: white space inside a line or at its end, case, punctuation.
    """
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    start, end = _LEADING_EDGE.match(content).end(), len(content)
    if start == end:
        return None
    while content.endswith(_EDGE, start, end):
        end -= 1
        while 0x80 <= content[end] < 0xC0:  # to the first byte of the character
            end -= 1
    return sha256(memoryview(content)[start:end]).hexdigest()[:24]


def first_bad_byte(content: bytes | bytearray) -> int | None:
    """Where a content stops being UTF-8, or None; decoded in pieces, so that a long one is not held twice."""
    start = 0
    while start < len(content):
        end = character_start(content, start + CHECK_AT_ONCE_BYTES)
        try:
            content[start:end].decode()
        except UnicodeDecodeError as error:
            return start + error.start
        start = end
    return None


def character_start(content: bytes | bytearray, at: int) -> int:
    """The last place at or before `at` where a UTF-8 character starts, or the end."""
    if at >= len(content):
        return len(content)
    for place in range(at, max(-1, at - 4), -1):
        if not 0x80 <= content[place] < 0xC0:
            return place
    return at  # not UTF-8 here; whoever decodes will say so


def label_of(value: object) -> str:
    """A domain label as text: numbers keep their value (0 is "0", 2.0 is "2"), True is "true"; "" where there is none.

    Raises: ValueError for what is no label, such as a list.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):  # how pandas writes a missing number
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    raise ValueError(f"a {type(value).__name__} is no label")


def files_manifest(recipe: str, files: list[tuple[str, str]]) -> str:
    """One hash over (relative path, sha256) pairs in path order and the recipe that turns them into documents."""
    return short_hash([recipe, sorted(files)])
