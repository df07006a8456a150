"""What does a person see while a sweep runs? A live table on a terminal, plain lines elsewhere; always on standard
error.

Shows a `Snapshot`; knows nothing of processes or files.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gaplaw.spec.sizes import size_name
from gaplaw.sweep.planning.plan import duration
from gaplaw.sweep.running.eta import Running, Snapshot

PLAIN_SECONDS = 10.0
LIVE_SECONDS = 0.5
_MOST_ROWS = 12


class Screen(Protocol):
    """Where `run` tells what happens; a context manager."""

    def event(self, line: str) -> None: ...

    def update(self, snapshot: Callable[[], Snapshot]) -> None:
        """Show the state, if it is time to: `snapshot` is called only then."""

    def __enter__(self) -> Screen: ...

    def __exit__(self, *_) -> None: ...


def screen_for(console: Console | Screen | None) -> Screen:
    """The live table if standard error (or the given console) is a terminal, plain lines if not; a screen is itself."""
    if console is not None and not isinstance(console, Console):
        return console
    console = console or Console(stderr=True)
    return LiveScreen(console) if console.is_terminal and not console.is_dumb_terminal else PlainScreen(console)


class PlainScreen:
    """One line per event, one line of state every ten seconds: for logs and pipes."""

    def __init__(self, console: Console | None = None):
        self.file = console.file if console else sys.stderr
        self.told = time.monotonic()

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(self, *_) -> None:
        pass

    def event(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=self.file, flush=True)

    def update(self, snapshot: Callable[[], Snapshot]) -> None:
        if time.monotonic() - self.told >= PLAIN_SECONDS:
            self.told = time.monotonic()
            self.event(one_line(snapshot()))


class LiveScreen:
    """A table that redraws in place: a bar for each running group, one for the sweep; events scroll above it."""

    def __init__(self, console: Console):
        self.console = console
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.told = 0.0

    def __enter__(self) -> LiveScreen:
        self.live.__enter__()
        return self

    def __exit__(self, *exc) -> None:
        self.live.__exit__(*exc)

    def event(self, line: str) -> None:
        style = "red" if line.startswith("failed") else "yellow" if line.startswith("warning") else "dim"
        self.live.console.print(
            f"[dim]{time.strftime('%H:%M:%S')}[/dim] [{style}]{escape(line)}[/{style}]", highlight=False
        )

    def update(self, snapshot: Callable[[], Snapshot]) -> None:
        if time.monotonic() - self.told >= LIVE_SECONDS:
            self.told = time.monotonic()
            self.live.update(picture(snapshot(), self.console.width), refresh=True)


def one_line(now: Snapshot) -> str:
    """The state in one plain line: cells, running groups with their progress, time left."""
    parts = [f"{now.sweep}: {now.done}/{now.cells} cells done"]
    if now.failed:
        parts.append(f"{now.failed} failed")
    parts += [describe(one) for one in now.running]
    if now.elsewhere:
        parts.append(f"{len(now.elsewhere)} groups run elsewhere")
    parts.append(time_left(now))
    return "; ".join(parts)


def describe(one: Running) -> str:
    """A running group in words: `from-t98k-1a2b3c 40% (310k tokens/s)`."""
    return f"{one.group} {_share(one):.0%} ({_state(one)})"


def time_left(now: Snapshot) -> str:
    """The time left in words, called an estimate until a group has been measured; for whom we wait, when that is all we
    do.
    """
    if now.waiting and not now.running:
        more = f" and {len(now.waiting) - 1} others" if len(now.waiting) > 1 else ""
        return f"waiting for {now.waiting[0]}{more}"
    if now.seconds_left is None:
        return "nothing left" if not now.groups_left else "time left unknown"
    return f"about {duration(now.seconds_left)} left" + ("" if now.measured else " (estimate, nothing measured yet)")


def picture(now: Snapshot, width: int = 120) -> Group:
    """The live table for a terminal of that many columns: narrow ones lose the loss and the host, then the rate.

    The loss is the training objective, the mean over the group's cells, as `_HEADS` says above it.
    """
    columns = ["group", "bar", "share", "state", "loss", "host"][: 6 if width >= 100 else 4 if width >= 70 else 3]
    bar_width = 24 if width >= 70 else 8
    table = Table(box=None, padding=(0, 1), show_header="loss" in columns, header_style="dim")
    for name in columns:
        table.add_column(_HEADS.get(name, ""), no_wrap=True, justify="right" if name in ("share", "loss") else "left")

    def add(name: str, total: int, completed: int, state: str, loss: str = "", host: str = "", style: str = "") -> None:
        bar = ProgressBar(total=max(1, total), completed=completed, width=bar_width)
        share = f"{completed / max(1, total):.0%}"
        table.add_row(*(Text(name, style=style), bar, share, state, loss, host)[: len(columns)])

    shown = (*now.running, *now.elsewhere)
    for one in shown[:_MOST_ROWS]:
        loss = "" if one.loss_nats is None else f"{one.loss_nats:.3f} nats"
        add(one.group, one.steps, one.step, _state(one), loss, f"on {one.host}" if one in now.elsewhere else "")
    state = f"{now.done}/{now.cells} cells" + (f", [red]{now.failed} failed[/red]" if now.failed else "")
    add(now.sweep, now.cells, now.done + now.failed, state, style="bold")
    line = f"{duration(now.elapsed_seconds)} so far, {time_left(now)}; Ctrl-C stops, the same command goes on"
    if len(shown) > _MOST_ROWS:
        line = f"and {len(shown) - _MOST_ROWS} more groups; {line}"
    return Group(table, Text(f" {line}", style="dim"))


_HEADS = {"group": "group", "state": "now", "loss": "training objective", "host": "host"}


def _share(one: Running) -> float:
    return one.step / one.steps if one.steps else 0.0


def _state(one: Running) -> str:
    if one.phase == "train" and one.tokens_per_second:
        return f"{size_name(round(one.tokens_per_second))} tokens/s"
    return {
        "start": "starting",
        "teacher": "filling cache",
        "compile": "compiling",
        "train": "training",
        "evaluate": "evaluating",
    }.get(one.phase, one.phase)
