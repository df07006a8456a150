"""Who is working on a group of cells right now? Claims on a shared folder: no server, no clock agreement, no lost locks.

A claim is a folder that holds one file; the file's name is its owner and its modification time is the last heartbeat.
Three operations, each one rename or unlink that the file system makes atomic:

    claim      a folder with the owner file inside is renamed into place: fails unless the place is absent or empty
    take over  the expired owner's file is touched, then renamed to the new owner's name: only one rename can succeed
    release    the owner removes its own file; a claim that was taken over has no such file any more

Ages are differences between two times of the same file system, so clocks of machines need not agree. An owner on this
very machine whose process is gone counts as expired at once. Results do not depend on claims: rows are whole files of
deterministic cells, so the worst that a lost claim costs is work done twice.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

from gaplaw.canonical import short_hash

HEARTBEAT_SECONDS = 5.0
EXPIRY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The holder of a claim, as written in its file's name; `started` tells a process from a later one of the same number."""

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
        """True only when this machine knows that the process has ended; another machine's owner is never known to be gone."""
        return self.machine == machine_id() and self.started != "0" and _started(self.pid) != self.started


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


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim that this process holds; see `claim`."""

    place: Path
    owner: Owner

    @property
    def _file(self) -> Path:
        return self.place / self.owner.file_name

    def beat(self) -> bool:
        """Show that the owner is alive. False when somebody else has taken the claim over."""
        try:
            os.utime(self._file)
        except FileNotFoundError:
            return False
        except OSError:  # a file system that hiccups is no reason to stop work; expiry is many beats away
            pass
        return True

    def release(self) -> None:
        try:
            self._file.unlink(missing_ok=True)
            self.place.rmdir()
        except OSError:  # somebody else claimed it meanwhile, or the folder is gone: nothing of ours is left either way
            pass


def holder(folder: Path, key: str) -> tuple[Owner, float] | None:
    """Who holds a claim, and the time of the last heartbeat in the file system's seconds; None when it is free."""
    try:
        for entry in os.scandir(folder / key):
            owner = Owner.parse(entry.name)
            if owner:
                return owner, entry.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):  # released or taken over while we looked
        pass
    return None


def claim(folder: Path, key: str, *, expiry_seconds: float = EXPIRY_SECONDS) -> Claim | None:
    """Claim `key` in `folder` (made if absent), taking over from an owner that is gone or silent for too long.

    Returns: the claim, to be kept alive by `Heartbeat` and released; None when somebody else holds it.
    Raises: OSError when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = holder(folder, key)
    if held is None:
        return _claim_free(folder, key)
    owner, beat = held
    if owner.gone or _now(folder) - beat > expiry_seconds:
        return _take_over(folder, key, owner)
    return None


def clear_dead(folder: Path, *, expiry_seconds: float = EXPIRY_SECONDS) -> bool:
    """Remove what killed owners left in a folder of claims. Returns: whether no living claim remains there."""
    quiet = True
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        if entry.name.startswith("."):  # a claim or a clock reading that was being made
            if _now(folder) - entry.stat().st_mtime > expiry_seconds:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
            continue
        taken = claim(folder, entry.name, expiry_seconds=expiry_seconds)
        quiet &= taken is not None
        if taken:
            taken.release()
    return quiet


def _claim_free(folder: Path, key: str) -> Claim | None:
    mine = Claim(place=folder / key, owner=Owner.here())
    ready = folder / f".{key}.{mine.owner.token}"
    ready.mkdir()
    try:
        (ready / mine.owner.file_name).touch()
        os.rename(ready, mine.place)
    except OSError as fault:
        shutil.rmtree(ready, ignore_errors=True)
        if mine.place.exists():  # somebody was faster
            return None
        raise fault
    return mine


def _take_over(folder: Path, key: str, from_owner: Owner) -> Claim | None:
    mine = Claim(place=folder / key, owner=Owner.here())
    theirs = mine.place / from_owner.file_name
    try:
        # Touch first: the renamed file must not look expired for an instant, or a third claimer could take it again.
        os.utime(theirs)
        os.rename(theirs, mine._file)
    except FileNotFoundError:
        return None
    return mine


def _now(folder: Path) -> float:
    """The file system's own time: that of a file just made there."""
    probe = folder / f".clock-{uuid.uuid4().hex[:8]}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


class Heartbeat:
    """A thread that keeps claims alive until they are dropped, and remembers those that were lost."""

    def __init__(self, seconds: float = HEARTBEAT_SECONDS):
        self._claims: set[Claim] = set()
        self._lost: set[Claim] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(seconds,), name="claims", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
        for held in list(self._claims):
            self.drop(held)

    def keep(self, held: Claim) -> None:
        with self._lock:
            self._claims.add(held)

    def drop(self, held: Claim) -> None:
        with self._lock:
            self._claims.discard(held)
            self._lost.discard(held)
        held.release()

    def lost(self, held: Claim) -> bool:
        """True when the claim was taken over, for instance while this process was suspended."""
        with self._lock:
            return held in self._lost

    def _beat(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            with self._lock:
                claims = list(self._claims)
            for held in claims:
                if not held.beat():
                    with self._lock:
                        self._lost.add(held)
