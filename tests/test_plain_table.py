"""A long table is printed as rich would print it into a file."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from gaplaw.cli.plain_table import plain


@pytest.mark.parametrize("rows", [1, 30])
def test_plain_text_is_what_rich_writes(rows):
    table = Table(title="a: why?", title_justify="left", box=None)
    table.add_column("cell", no_wrap=True)
    table.add_column("FLOPs", justify="right", no_wrap=True)
    for number in range(rows):
        table.add_row(f"s{10**number}", f"{7.0**number:.2e}", style="dim" if number % 2 else None)
    out = io.StringIO()
    Console(file=out, width=300).print(table)
    assert plain(table).split("\n") == [line.rstrip() for line in out.getvalue().rstrip("\n").split("\n")]
