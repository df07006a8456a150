"""Where may a long text be cut, so that its pieces have the tokens of the whole?

Tokenizers hold a hundred bytes and more for every character that they work on, so a long document is encoded, and
learned from, piece by piece. A piece ends at an edge between two words, where nearly all tokenizers cut first of all;
an edge that changes the tokens around it is not used. Text without an edge is cut between two characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gaplaw.data.documents import character_start

# Before a space or a line end that stands alone, and after the stops and commas of East Asia.
_EDGE = re.compile(r"(?<=\S)(?=[ \n]\S)|(?<=[。，、！？；：])(?=\w)")
LOOK_BACK_CHARACTERS = 4096
AROUND_CHARACTERS = 64
TRIES = 8


class Piece(NamedTuple):
    """A whole text, or a part of a long one: whether it ends at an edge, and whether nothing follows."""

    text: str
    at_edge: bool
    last: bool


def pieces(
    content: bytes | bytearray, most_bytes: int, skip_at: Callable[[str, str], int | None] = lambda before, after: 0
) -> Iterator[Piece]:
    """The text in pieces of at most `most_bytes` UTF-8 bytes.

    Args: skip_at: given the text before and after an edge, how many characters to leave out there so that the pieces
      have the tokens of the whole (a tokenizer that puts a space before every text takes one away), or None if none
      does.
    """
    start, length = 0, len(content)
    while length - start > most_bytes:
        stop = character_start(content, start + most_bytes)
        text = content[start:stop].decode()
        ahead = content[stop : character_start(content, stop + 4 * AROUND_CHARACTERS)].decode()
        cut, skip = _last_edge(text + ahead, len(text), skip_at)
        if cut:
            start = stop - len(text[cut + skip :].encode())
            yield Piece(text[:cut], True, False)
        else:
            start = stop
            yield Piece(text, False, False)
    yield Piece(content[start:].decode() if start else content.decode(), True, True)


def _last_edge(text: str, end: int, skip_at: Callable[[str, str], int | None]) -> tuple[int, int]:
    """The last usable edge of text[:end], 0 if there is none, and how many characters to leave out there."""
    found = _EDGE.finditer(text, max(1, end - LOOK_BACK_CHARACTERS))
    edges = [edge.start() for edge in found if edge.start() < end]
    for edge in edges[: -TRIES - 1 : -1]:
        skip = skip_at(text[max(0, edge - AROUND_CHARACTERS) : edge], text[edge : edge + AROUND_CHARACTERS])
        if skip is not None:
            return edge, skip
    return 0, 0
