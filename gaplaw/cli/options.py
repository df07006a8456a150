"""How do options look on the command line? Types that several verbs share: a placeholder name, and no noise about
defaults.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from gaplaw.errors import SpecError
from gaplaw.objects import is_url
from gaplaw.spec.sizes import parse_size


def named(metavar: str) -> object:
    """An option shown as METAVAR, whose help text says all there is to say about its default."""
    return arg(metavar=metavar, help_behavior_hint="")


def required(metavar: str) -> object:
    return arg(metavar=metavar, help_behavior_hint="(required)")


Experiment = Annotated[str, Positional, named("EXPERIMENT")]
Folder = Annotated[str, Positional, named("DIR|URL")]
LawFile = Annotated[str, Positional, named("LAW.json")]
Source = Annotated[str, Positional, named("DIR|TABLE|URL")]
OutFolder = Annotated[str | None, named("DIR|URL")]
File = Annotated[str | None, named("FILE")]
Size = Annotated[str | None, named("SIZE")]
Number = Annotated[float | None, named("X")]
Flag = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="")]


def size(text: str | None, option: str) -> int | None:
    """A size string given for an option. Raises: SpecError naming the option."""
    if text is None:
        return None
    try:
        return parse_size(text)
    except SpecError as fault:
        raise SpecError(f"{option}: {fault}") from None


def file_here(text: str | None, option: str) -> Path | None:
    """A file given for an option. Raises: SpecError for a URL, which would be taken for a folder named after its
    scheme.
    """
    if text is not None and is_url(text):
        raise SpecError(f"{option} {text}: must be a file on this machine, not a URL")
    return text and Path(text)


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers separated by commas. Raises: SpecError naming the option."""
    return tuple(size(part, option) for part in text.split(",") if part.strip())


def print_wide(table) -> None:
    """A rich table on standard output, no digit lost: in a narrow window its columns are folded, in a file its lines
    are long.
    """
    from rich.console import Console

    from gaplaw.cli import plain_table

    console, widths = Console(), plain_table.column_widths(table)
    lines, most = 1, max(1, len(widths) - 1)
    if console.is_terminal or "COLUMNS" in os.environ:
        fits = (some for some in range(1, most) if plain_table.row_width(widths, some) <= console.width)
        lines = next(fits, most)
    shown = folded(table, lines)
    if table.row_count > plain_table.MOST_STYLED_ROWS:
        print(plain_table.plain(shown))
    else:
        Console(width=max(console.width, plain_table.row_width(widths, lines))).print(shown)


def folded(table, lines: int):
    """The same table with its columns after the first stacked, `lines` of them in one: a row then takes that many
    lines.
    """
    from rich.table import Table

    from gaplaw.cli.plain_table import stacks_of

    if lines == 1:
        return table
    made = Table(title=table.title, title_justify=table.title_justify, title_style=table.title_style, box=table.box)
    stacks = stacks_of(table.columns, lines)
    for stack in stacks:
        made.add_column("\n".join(str(column.header) for column in stack), justify=stack[-1].justify, no_wrap=True)
    cells = [[list(column.cells) for column in stack] for stack in stacks]
    for number, row in enumerate(table.rows):
        made.add_row(*("\n".join(column[number] for column in stack) for stack in cells), style=row.style)
    return made


def print_json(value: object) -> None:
    """Exactly one JSON document on standard output; what is not finite becomes null."""
    print(json.dumps(_plain(value), allow_nan=False))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
