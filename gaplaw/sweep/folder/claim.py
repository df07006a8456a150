"""Who is working on a group of cells right now? Claims on a shared folder: no server, no clock agreement, no lost
locks.

A claim is a folder that holds one file; the file's name is its owner and its modification time changes with every
heartbeat. Three operations, each one rename or unlink that the file system makes atomic:

    claim      a folder with the owner file inside is renamed into place: fails unless the place is absent or empty
    take over  the expired owner's file is renamed to the new owner's name: only one rename can succeed
    release    the owner removes its own file; a claim that was taken over has no such file any more

A claim expires when its heartbeat has not been seen to change for so long (`gaplaw.sweep.folder.owner`). Results do not
depend on claims: rows are whole files of deterministic cells, so the worst that a lost claim costs is work done twice.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from gaplaw.canonical import short_hash
from gaplaw.spec import Group, science
from gaplaw.sweep.folder.owner import EXPIRY_SECONDS, Holder, Observer, Owner

HEARTBEAT_SECONDS = 5.0


def claim_key(group: Group, *, keeps: bool) -> str:
    """The name of a group's claim: the same for every run of a sweep, however many of its cells are left.

    Args: keeps: whether the group trains teachers that students need.
    """
    cell = group.cells[0]
    fields = science(cell)
    train = cell.train
    shared = [fields["data"], cell.split, train.tokens, train.batch_sequences, train.batch_seed, cell.signal.label]
    kind = f"from-{group.teacher.id}" if group.teacher else "teacher" if keeps else "alone"
    shape = None if group.teacher else fields["model"]
    return f"{kind}-{short_hash([shape, *shared])}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim that this process holds; see `Claims.claim`."""

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


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Claims in folders, as this process sees them change; the counterpart of
    `gaplaw.sweep.folder.object_claim.Leases`.
    """

    observer: Observer = field(default_factory=Observer)

    def claim(self, place: Path, *, expiry_seconds: float = EXPIRY_SECONDS) -> Claim | None:
        """Claim a place (its folder is made if absent), taking over from an owner that is gone or silent for too long.

        Returns: the claim, to be kept alive by `Heartbeat` and released; None when something else stands there.
        Raises: OSError when the folder cannot be written.
        """
        place.parent.mkdir(parents=True, exist_ok=True)
        found = self.look(place)
        if found is None:
            return _claim_free(place)
        return _take_over(place, found.owner) if self.observer.dead(found, expiry_seconds) else None

    def look(self, place: Path) -> Holder | None:
        """What stands in a place; None when it is free."""
        try:
            info = place.lstat()
            if not stat.S_ISDIR(info.st_mode):
                what = "a link" if stat.S_ISLNK(info.st_mode) else "a file"
                return Holder(place=str(place), owner=None, sign=str(info.st_mtime_ns), what=what)
            names = sorted(os.listdir(place))
            for name in names:
                if owner := Owner.parse(name):
                    beat = (place / name).stat()
                    dates = {"claimed_at": info.st_mtime, "beat_at": beat.st_mtime}
                    return Holder(place=str(place), owner=owner, sign=str(beat.st_mtime_ns), **dates)
        except FileNotFoundError:  # released or taken over while we looked
            return None
        what = f"a folder with {names[0]!r}" if names else ""
        return Holder(place=str(place), owner=None, sign=" ".join(names), what=what) if names else None

    def holders(self, folder: Path) -> list[Holder]:
        """What stands in all places of a folder."""
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return [found for name in names if not name.startswith(".") and (found := self.look(folder / name))]

    def remove_junk(self, folder: Path) -> list[str]:
        """Remove what is no claim. Returns: what was removed."""
        junk = [holder for holder in self.holders(folder) if holder.owner is None]
        for holder in junk:
            place = Path(holder.place)
            place.unlink(missing_ok=True) if holder.what in ("a file", "a link") else shutil.rmtree(place)
        return [holder.place for holder in junk]

    def clear(self, folder: Path, *, expiry_seconds: float = EXPIRY_SECONDS) -> bool:
        """Remove what killed owners left in a folder of claims. Returns: whether nothing else stands there."""
        quiet = True
        for entry in list(folder.iterdir()) if folder.is_dir() else ():
            if entry.name.startswith("."):  # a claim that was being made; no harm is done if it still is
                if abs(time.time() - entry.lstat().st_mtime) > expiry_seconds:
                    shutil.rmtree(entry, ignore_errors=True)
                continue
            taken = self.claim(entry, expiry_seconds=expiry_seconds)
            quiet &= taken is not None
            if taken:
                taken.release()
        return quiet


def _claim_free(place: Path) -> Claim | None:
    mine = Claim(place=place, owner=Owner.here())
    ready = place.with_name(f".{place.name}.{mine.owner.token}")
    ready.mkdir()
    try:
        (ready / mine.owner.file_name).touch()
        os.rename(ready, mine.place)
    except OSError as fault:
        shutil.rmtree(ready, ignore_errors=True)
        if os.path.lexists(mine.place) or isinstance(fault, FileNotFoundError):  # somebody was faster, or cleared it
            return None
        raise fault
    return mine


def _take_over(place: Path, from_owner: Owner) -> Claim | None:
    mine = Claim(place=place, owner=Owner.here())
    try:
        os.rename(place / from_owner.file_name, mine._file)
    except FileNotFoundError:
        return None
    mine.beat()
    return mine


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
