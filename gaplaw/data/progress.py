"""How far is a long preparation, and how long will it still take? A bar on a terminal, now and then a line elsewhere.

Always on standard error; nothing is shown of what takes less than two seconds (ten, where there is no terminal).
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

BAR_AFTER_SECONDS = 2.0
LINE_SECONDS = 10.0


class Preparation(contextlib.AbstractContextManager):
    """Shown while it is open; the work calls `advance`, which costs an addition.

    Args: what: in words. total: of the unit in which the work advances; None if it is not known.
    """

    def __init__(self, what: str, total: float | None = None):
        self.what, self.total, self.done = what, total, 0.0
        self._ended, self._began = threading.Event(), time.monotonic()
        console = Console(stderr=True)
        show = self._bar if console.is_terminal and not console.is_dumb_terminal else self._lines
        self._thread = threading.Thread(target=show, args=(console,), daemon=True)
        self._thread.start()

    def advance(self, amount: float) -> None:
        self.done += amount

    def line(self) -> str:
        """`learning bpe:4096: 40%, about 12 s left`; without a total, how long it has taken so far."""
        seconds = time.monotonic() - self._began
        if not self.total or not self.done:
            return f"{self.what}: {_duration(seconds)} so far"
        share = min(1.0, self.done / self.total)
        return f"{self.what}: {share:.0%}, about {_duration(seconds * (1 - share) / share)} left"

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()

    def _lines(self, _: Console) -> None:
        while not self._ended.wait(LINE_SECONDS):
            print(f"gaplaw: {self.line()}", file=sys.stderr, flush=True)

    def _bar(self, console: Console) -> None:
        if self._ended.wait(BAR_AFTER_SECONDS):
            return
        left = [BarColumn(), TaskProgressColumn(), TimeRemainingColumn()] if self.total else [TimeElapsedColumn()]
        with Progress(TextColumn("{task.description}"), *left, console=console, transient=True) as bar:
            task = bar.add_task(self.what, total=self.total)
            while not self._ended.wait(0.25):
                bar.update(task, completed=self.done)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
