"""How far is a long preparation, and how long will it still take? A changing line on a terminal, one now and then
elsewhere.

Always on standard error; nothing is shown of what takes less than two seconds (ten, where there is no terminal).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

FIRST_SECONDS, CHANGE_SECONDS = 2.0, 0.5
LINE_SECONDS = 10.0


class Preparation(contextlib.AbstractContextManager):
    """Shown while it is open; the work calls `advance`, which costs an addition.

    Args: what: in words. total: of the unit in which the work advances; None if it is not known.
    """

    def __init__(self, what: str, total: float | None = None):
        self.what, self.total, self.done = what, total, 0.0
        self._ended, self._began = threading.Event(), time.monotonic()
        show = self._one_line if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else self._lines
        self._thread = threading.Thread(target=show, daemon=True)
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

    def _lines(self) -> None:
        while not self._ended.wait(LINE_SECONDS):
            print(f"gaplaw: {self.line()}", file=sys.stderr, flush=True)

    def _one_line(self) -> None:
        if self._ended.wait(FIRST_SECONDS):
            return
        from rich.console import Console  # only now: most preparations end sooner
        from rich.status import Status
        from rich.text import Text

        with Status(Text(self.line()), console=Console(stderr=True)) as status:
            while not self._ended.wait(CHANGE_SECONDS):
                status.update(Text(self.line()))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
