"""Who is working on a group when the run folder is on an object store? Claims made of objects that only one writer can
create.

    LOCKS/KEY/00000007     the seventh claim of KEY, with its owner and a count of heartbeats

The highest number is the claim. Taking a free, released or expired one means to create the next number, which the store
grants to exactly one; the owner alone rewrites its own object. A claim expires when its content has not changed for so
long on the clock of whoever looks, so no two clocks are compared; an owner of this machine that is gone counts as
expired at once. As with claims in a folder, the worst that a lost one costs is work done twice.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from gaplaw.objects import Mirror, join
from gaplaw.sweep.folder.owner import EXPIRY_SECONDS, Holder, Observer, Owner

RELEASED = "released"


@dataclass(eq=False, kw_only=True)
class Lease:
    """A claim that this process holds; the counterpart of `gaplaw.sweep.folder.claim.Claim`."""

    mirror: Mirror
    place: str
    number: int
    owner: Owner
    claimed_at: float
    beats: int = 0

    @property
    def text(self) -> str:
        return f"{self.owner.file_name} {self.beats} {self.claimed_at:.0f}"

    def beat(self) -> bool:
        """Show that the owner is alive. False when somebody else has taken the claim over."""
        try:
            if _top(self.mirror, self.place) > self.number:
                return False
            self.beats += 1
            self.mirror.put_text(_name(self.place, self.number), self.text)
        except Exception:  # a store that hiccups, in whatever way its client tells it, is no reason to stop work
            pass
        return True

    def release(self) -> None:
        try:
            if _top(self.mirror, self.place) == self.number:
                self.mirror.put_text(_name(self.place, self.number), RELEASED)
        except Exception:  # it will expire
            pass


@dataclass(frozen=True, kw_only=True)
class Leases:
    """Claims on one object store, as this process sees them change; the counterpart of
    `gaplaw.sweep.folder.claim.Claims`.
    """

    mirror: Mirror
    observer: Observer = field(default_factory=Observer)

    def claim(self, place: Path, *, expiry_seconds: float = EXPIRY_SECONDS) -> Lease | None:
        """Claim a place, taking over from an owner that is gone or silent for too long. Returns: None when it is
        held.
        """
        below = self._below(place)
        top = _top(self.mirror, below)
        if top and not self._free(below, top, expiry_seconds):
            return None
        lease = Lease(mirror=self.mirror, place=below, number=top + 1, owner=Owner.here(), claimed_at=time.time())
        if not self.mirror.create(_name(below, top + 1), lease.text):
            return None
        self.mirror.remove(*(self.mirror.root / _name(below, number) for number in _numbers(self.mirror, below)[:-1]))
        return lease

    def look(self, place: Path) -> Holder | None:
        """What stands in a place; None when it is free."""
        below = self._below(place)
        top = _top(self.mirror, below)
        return self._holder(below, top) if top else None

    def holders(self, folder: Path) -> list[Holder]:
        """What stands in all places of a folder."""
        keys = sorted({name.split("/")[0] for name in self.mirror.names(self._below(folder))})
        return [holder for key in keys if (holder := self.look(folder / key))]

    def remove_junk(self, folder: Path) -> list[str]:
        """Remove objects that are no part of a claim. Returns: what was removed."""
        below = self._below(folder)
        junk = [name for name in self.mirror.names(below) if not re.fullmatch(r"[^/]+/\d{8}", name)]
        self.mirror.remove(*(folder / name for name in junk))
        return [join(self.mirror.url, below, name) for name in junk]

    def clear(self, folder: Path, *, expiry_seconds: float) -> bool:
        """Remove claims that nobody holds. Returns: whether no living claim remains."""
        quiet = True
        for key in sorted({name.split("/")[0] for name in self.mirror.names(self._below(folder))}):
            below = join(self._below(folder), key)
            for number in _numbers(self.mirror, below):
                if self._free(below, number, expiry_seconds):
                    self.mirror.remove(self.mirror.root / _name(below, number))
                else:
                    quiet = False
        return quiet

    def _holder(self, below: str, number: int) -> Holder | None:
        content = self.mirror.text(_name(below, number))
        if content is None or content == RELEASED:
            return None
        owner, _, rest = content.partition(" ")
        dates = rest.split(" ")[1:]  # heartbeats, and when it was claimed (absent in claims of older versions)
        return Holder(
            place=join(self.mirror.url, below),
            owner=Owner.parse(owner),
            sign=content,
            claimed_at=float(dates[0]) if dates and dates[0].isdigit() else None,
            what=f"an object with {content[:40]!r}",
        )

    def _free(self, below: str, number: int, expiry_seconds: float) -> bool:
        holder = self._holder(below, number)
        if holder is None:
            return True
        silent = self.observer.silent_seconds(holder) > expiry_seconds
        return silent or (holder.owner is not None and holder.owner.gone)

    def _below(self, path: Path) -> str:
        return path.relative_to(self.mirror.root).as_posix()


def _name(place: str, number: int) -> str:
    return join(place, f"{number:08d}")


def _numbers(mirror: Mirror, place: str) -> list[int]:
    return sorted(int(name) for name in mirror.names(place) if name.isdigit())


def _top(mirror: Mirror, place: str) -> int:
    return max(_numbers(mirror, place), default=0)
