"""Who holds a claim, and for how long has it shown no sign of life? Told by heartbeats that are seen to change, never
by a date.

Clocks of machines differ, and a file may be dated in the future. So whoever looks remembers, on its own clock, when it
last saw a holder change (`Observer`). A holder on this very machine whose process has ended is known to be gone at
once.
"""

from __future__ import annotations

import functools
import os
import platform
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from gaplaw.canonical import short_hash

EXPIRY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The holder of a claim, as written in its file's name; `started` tells a process from a later one of the same
    number.
    """

    host: str
    machine: str
    pid: int
    started: str
    token: str

    @property
    def file_name(self) -> str:
        return ",".join((self.host, self.machine, str(self.pid), self.started, self.token))

    @staticmethod
    def parse(file_name: str) -> Owner | None:
        parts = file_name.split(",")
        if len(parts) != 5 or not parts[2].isdigit():
            return None
        return Owner(host=parts[0], machine=parts[1], pid=int(parts[2]), started=parts[3], token=parts[4])

    @staticmethod
    def here() -> Owner:
        """A new owner: this process, under a token of its own."""
        host, pid = platform.node().replace(",", "-"), os.getpid()
        return Owner(host=host, machine=machine_id(), pid=pid, started=_started(pid) or "0", token=uuid.uuid4().hex[:8])

    @property
    def gone(self) -> bool:
        """True only when this machine knows that the process has ended; another machine's owner is never known to be
        gone.
        """
        return self.machine == machine_id() and self.started != "0" and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"{self.host} (pid {self.pid})"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """What stands in the place of a claim.

    place: its path or URL. owner: None for something that is no claim. what: that something, in words. sign: another
    text after every heartbeat. claimed_at, beat_at: dates as its file system has them (POSIX seconds), to be shown, not
    to be relied on.
    """

    place: str
    owner: Owner | None
    sign: str
    claimed_at: float | None = None
    beat_at: float | None = None
    what: str = ""

    def describe(self) -> str:
        """Who holds it since when, or what to do about what is no claim."""
        if self.owner is None:
            return f"{self.place}: {self.what}, not a claim; delete it, or add --remove-junk to gaplaw run"
        since = "" if self.claimed_at is None else f" since {_date(self.claimed_at)}"
        ended = ", which has ended" if self.owner.gone else ""
        return f"{self.owner}{since}{ended}"


class Observer:
    """Remembers when each holder was last seen to change, on this process's own clock."""

    def __init__(self):
        self._seen: dict[str, tuple[tuple, float]] = {}  # place → (what was seen there, since when)

    def silent_seconds(self, holder: Holder) -> float:
        """For how long a holder has not changed while this process looked; 0 at the first look."""
        now, sign = time.monotonic(), (holder.owner, holder.sign)
        before, since = self._seen.get(holder.place, (None, now))
        if sign != before:
            since = now
        self._seen[holder.place] = sign, since
        return now - since

    def dead(self, holder: Holder, expiry_seconds: float) -> bool:
        """Whether a claim may be taken over: its process has ended, or no heartbeat was seen for too long."""
        silent = self.silent_seconds(holder) > expiry_seconds
        return holder.owner is not None and (silent or holder.owner.gone)


@functools.cache
def machine_id() -> str:
    """One name per running kernel and process namespace: containers that share a host name still differ."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return short_hash([boot, os.readlink("/proc/self/ns/pid"), platform.node()])
    except OSError:  # not Linux: the network card's number
        return short_hash([uuid.getnode(), platform.node()])


def _started(pid: int) -> str | None:
    """The start time of a process in kernel ticks; None when it has ended (a zombie has ended) or cannot be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
