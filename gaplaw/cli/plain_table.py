"""How is a table of thousands of rows printed? Column by column as plain text: rich takes a millisecond for every cell
of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat, zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Column, Table

MOST_STYLED_ROWS = 500


def stacks_of(columns: Sequence, lines: int) -> list[list]:
    """The first column alone, and the others in stacks of `lines`."""
    first, *rest = columns
    return [[first]] + [rest[at : at + lines] for at in range(0, len(rest), lines)]


def column_widths(table: Table) -> list[int]:
    """Characters that each column takes, with a space on both sides."""
    return [max(map(len, _texts(column))) + 2 for column in table.columns]


def row_width(widths: Sequence[int], lines: int) -> int:
    """Characters that a row takes when its columns after the first stand in stacks of `lines`."""
    return sum(map(max, stacks_of(widths, lines)))


def _texts(column: Column) -> list[str]:
    return [str(column.header), *map(str, column.cells)]


def plain(table: Table) -> str:
    """The text that rich makes of a table without borders in a window that is wide enough; no colours."""
    columns = [(_texts(column), str.rjust if column.justify == "right" else str.ljust) for column in table.columns]
    title = [str(table.title)] if table.title else []
    if any("\n" in text for texts, _ in columns for text in texts):
        return "\n".join([*title, *_stacked_rows(columns)])
    padded = [map(adjust, texts, repeat(max(map(len, texts)))) for texts, adjust in columns]
    return "\n".join([*title, *(f" {'  '.join(row)}".rstrip() for row in zip(*padded, strict=True))])


def _stacked_rows(columns: list[tuple]) -> Iterator[str]:
    """The lines of rows whose cells have several lines."""
    cells = []
    for texts, adjust in columns:
        lines = [text.split("\n") for text in texts]
        width = max(len(line) for some in lines for line in some)
        cells.append([[f" {adjust(line, width)} " for line in some] for some in lines])
    for number, row in enumerate(zip(*cells, strict=True)):
        blank = [" " * len(cell[0]) for cell in row]
        ends = -1 if number == 0 else 1  # headers stand at the bottom of their row
        stacked = [
            "".join(part or space for part, space in zip(parts, blank, strict=True)).rstrip()
            for parts in zip_longest(*(cell[::ends] for cell in row))
        ]
        yield from stacked[::ends]
