"""How is one line of JSON read without holding it several times? Long strings are set apart and decoded in pieces.

`json.loads` of a line of 200 MB holds the bytes, the line as a string and the values: with one emoji in it, nine times
its size. Here a long line is parsed with its long strings replaced by short ones, and only the wanted string is
decoded.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import BinaryIO

from gaplaw.data.documents import character_start

LONG_LINE_BYTES = 1 << 20
LONG_STRING_BYTES = 1 << 16
_MARK = f"long-string-{uuid.uuid4().hex}-"  # no text can hold it
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Up to about 1 MiB of a string's inside that end between characters: no escape, nor a pair of them, is cut.
_INSIDE = re.compile(
    rb"(?:[^\\]{1,65536}+|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.){1,16}+",
    re.DOTALL,
)


def whole_line(file: BinaryIO) -> bytes | bytearray:
    """The next line, its end included; empty at the end. A long one grows in place: `readline` alone would hold it
    twice.
    """
    line = file.readline(LONG_LINE_BYTES)
    if len(line) < LONG_LINE_BYTES or line.endswith(b"\n"):
        return line
    line = bytearray(line)
    while part := file.readline(LONG_LINE_BYTES):
        line += part
        if part.endswith(b"\n"):
            break
    return line


def text_and_domain(line: bytes | bytearray) -> tuple[bytes | bytearray, object]:
    """The fields `text`, as UTF-8, and `domain` of a line that holds a JSON object.

    Lone surrogates, which are no characters, become question marks.

    Raises: ValueError or RecursionError from `json` for what is not JSON; KeyError where there is no string `text`.
    """
    if len(line) <= LONG_LINE_BYTES:
        row, strings = json.loads(line), []
    else:
        row, strings = _short(line)
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise KeyError("text")
    domain = row.get("domain")
    if isinstance(domain, str):
        if domain.startswith(_MARK):
            start, end = strings[int(domain[len(_MARK) :])]
            domain = json.loads(line[start:end])
        domain = domain.encode("utf-8", "replace").decode()
    if text.startswith(_MARK):
        start, end = strings[int(text[len(_MARK) :])]
        return _decoded(line, start + 1, end - 1), domain
    return text.encode("utf-8", "replace"), domain


def _short(line: bytes | bytearray) -> tuple[object, list[tuple[int, int]]]:
    """The line's value with every long string replaced by a mark and its number, and where those strings stand."""
    parts, strings, at = [], [], 0
    for found in _STRING.finditer(line):
        start, end = found.span()
        if end - start > LONG_STRING_BYTES:
            parts += [line[at:start], json.dumps(f"{_MARK}{len(strings)}").encode()]
            strings.append((start, end))
            at = end
    parts.append(line[at:])
    return json.loads(b"".join(parts)), strings


def _decoded(line: bytes | bytearray, start: int, end: int) -> bytearray:
    """The UTF-8 of the string whose inside stands in line[start:end]."""
    text = bytearray()
    while start < end:
        found = _INSIDE.match(line, start, end)
        stop = found.end() if found else end
        stop = end if stop == end else character_start(line, stop)
        text += json.loads(b'"' + line[start:stop] + b'"').encode("utf-8", "replace")
        start = stop
    return text
