"""A worker has ended without finishing its cells: what was the cause, and what follows? A table, asked by `running`.

    cause                               answer
    damaged teacher                     train the teacher again, then its students; once
    damaged teacher cache, lost machine start again, on another machine if the engine has one
    killed, out of memory               start again once while nothing else of this `run` works; then fail, with what to
    change out of memory (an error, no kill)   the same program asks for the same memory: cell by cell, a single cell
    fails stopped by somebody                 start again; after the last try its cells are left for a later run,
    without a failed row killed otherwise                    start again, then cell by cell
    an exception                        cell by cell; a single cell fails when the same error comes twice
    a wrong specification or corpus     fail at once

Whoever got further than its last checkpoint starts with all tries again. So no cell is tried for ever.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Literal

from gaplaw.sweep.engines.engine import HOST_LOST, OUT_OF_MEMORY
from gaplaw.sweep.running.worker import BAD_SIGNAL, BAD_TEACHER, HOPELESS

MOST_STARTS = 3  # of the same cells without getting further

Cause = Literal[
    "damaged teacher",
    "damaged teacher cache",
    "lost machine",
    "killed, out of memory",
    "out of memory",
    "stopped",
    "killed",
    "exception",
    "hopeless",
]
Answer = Literal["again", "again alone", "cell by cell", "train the teacher again", "leave", "fail"]

_STOPPED = tuple(code for one in (signal.SIGTERM, signal.SIGINT) for code in (-one, 128 + one))
_NO_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY|MemoryError", re.IGNORECASE)
_LESS_MEMORY = "--accumulate or a smaller --chunk-tokens needs less memory"
REMEDIES = {
    "killed, out of memory": f"; killed, probably out of memory: fewer --workers, {_LESS_MEMORY}",
    "out of memory": f"; {_LESS_MEMORY}, as do --remat full and a larger mesh",
    "stopped": "; stopped from outside, which is no failure of the cells",
}


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one try of some cells ended without finishing them. error: the one line of its worker."""

    cause: Cause
    error: str
    further: bool  # whether it left a checkpoint beyond the one that it started from

    @property
    def line(self) -> str:
        """The error with what to do about it."""
        return self.error + REMEDIES.get(self.cause, "")


def cause_of(code: int, error: str) -> Cause:
    """The cause of an ending, from the exit code (or what an engine puts in its place) and the worker's error."""
    named = {BAD_TEACHER: "damaged teacher", BAD_SIGNAL: "damaged teacher cache", HOPELESS: "hopeless"}
    named |= {HOST_LOST: "lost machine", OUT_OF_MEMORY: "killed, out of memory"}
    if code in named:
        return named[code]
    if code in _STOPPED:
        return "stopped"
    if code > 0 and code != 128 + signal.SIGABRT and _NO_MEMORY.search(error):
        return "out of memory"
    return "killed" if code < 0 or code > 128 else "exception"


def answer_to(endings: tuple[Ending, ...], cells: int, *, retrained: bool = False) -> Answer:
    """What follows from the latest ending.

    Args:
      endings: of the tries of these cells since one got further, the latest last.
      cells: how many are unfinished.
      retrained: whether this job has had its teacher trained again already.
    """
    last = endings[-1]
    tries_left = last.further or len(endings) < MOST_STARTS
    if last.cause == "hopeless":
        return "fail"
    if last.cause == "damaged teacher":
        return "fail" if retrained else "train the teacher again"
    if last.cause in ("damaged teacher cache", "lost machine"):
        return "again" if tries_left else "fail"
    if last.cause == "stopped":
        return "again" if tries_left else "leave"
    if last.cause == "killed, out of memory":
        before = sum(ending.cause == last.cause for ending in endings)
        return "again alone" if last.further or before < 2 else "fail"
    if last.further:
        return "again"
    if last.cause == "out of memory":
        return "cell by cell" if cells > 1 else "fail"
    if cells > 1:
        return "again" if last.cause == "killed" and len(endings) < 2 else "cell by cell"
    same = last.cause == "exception" and any(ending.error == last.error for ending in endings[:-1])
    return "fail" if same or not tries_left else "again"


def what_follows(answer: Answer, last: Ending, cells: int) -> str:
    """An answer that is no failure, for people."""
    if last.further and answer != "leave":
        return "it goes on from its checkpoint" + (", alone" if answer == "again alone" else "")
    them = f"its {cells} unfinished cells" if cells > 1 else "its unfinished cell"
    return (
        them
        + {
            "again": " start again" if cells > 1 else " starts again",
            "again alone": f" start{'' if cells > 1 else 's'} again once, while nothing else works here",
            "cell by cell": " are tried one by one",
            "leave": f" {'are' if cells > 1 else 'is'} left for a later run",
        }[answer]
    )
