"""How is a table of thousands of rows printed? Column by column as plain text: rich takes a millisecond for every cell
of it.
"""

from __future__ import annotations

from itertools import zip_longest

from rich.table import Table

MOST_STYLED_ROWS = 500


def plain(table: Table) -> str:
    """The text that rich makes of a table without borders in a window that is wide enough; no colours."""
    columns = []
    for column in table.columns:
        cells = [str(column.header), *map(str, column.cells)]
        cells = [cell.split("\n") for cell in cells[-table.row_count - 1 :]]
        width = max(len(line) for cell in cells for line in cell)
        adjust = str.rjust if column.justify == "right" else str.ljust
        columns.append([[f" {adjust(line, width)} " for line in cell] for cell in cells])
    lines = [str(table.title)] if table.title else []
    for number, row in enumerate(zip(*columns, strict=True)):
        blank = [" " * len(cell[0]) for cell in row]
        ends = -1 if number == 0 else 1  # headers stand at the bottom of their row
        stacked = [
            "".join(part or space for part, space in zip(parts, blank, strict=True)).rstrip()
            for parts in zip_longest(*(cell[::ends] for cell in row))
        ]
        lines += stacked[::ends]
    return "\n".join(lines)
