"""How is a table of thousands of rows printed? Column by column as plain text: rich takes a millisecond for every cell
of it.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

MOST_STYLED_ROWS = 500


def plain(table: Table) -> str:
    """The text that rich makes of a table of one-line cells, without borders, in a window that is wide enough; no
    colours.
    """
    columns = []
    for column in table.columns:
        cells = [str(column.header), *column.cells]
        adjust = str.rjust if column.justify == "right" else str.ljust
        columns.append(map(adjust, cells, repeat(max(map(len, cells)))))
    lines = [str(table.title)] if table.title else []
    return "\n".join([*lines, *(f" {'  '.join(row)}".rstrip() for row in zip(*columns, strict=True))])
