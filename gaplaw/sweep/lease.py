"""Who is working on a group when the run folder is on an object store? Claims made of objects that only one writer can create.

    LOCKS/KEY/00000007     the seventh claim of KEY, with its owner and a count of heartbeats

The highest number is the claim. Taking a free, released or expired one means to create the next number, which the store grants to
exactly one; the owner alone rewrites its own object. A claim expires when its content has not changed for so long on the clock of
whoever looks, so no two clocks are compared; an owner of this machine that is gone counts as expired at once. As with claims in a
folder, the worst that a lost one costs is work done twice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from gaplaw.objects import Mirror, join
from gaplaw.sweep.claim import EXPIRY_SECONDS, Owner

RELEASED = "released"


@dataclass(eq=False, kw_only=True)
class Lease:
    """A claim that this process holds; the counterpart of `gaplaw.sweep.claim.Claim`."""

    mirror: Mirror
    place: str
    number: int
    owner: Owner
    beats: int = 0

    def beat(self) -> bool:
        """Show that the owner is alive. False when somebody else has taken the claim over."""
        try:
            if _top(self.mirror, self.place) > self.number:
                return False
            self.beats += 1
            self.mirror.put_text(_name(self.place, self.number), f"{self.owner.file_name} {self.beats}")
        except Exception:  # a store that hiccups, in whatever way its client tells it, is no reason to stop work
            pass
        return True

    def release(self) -> None:
        try:
            if _top(self.mirror, self.place) == self.number:
                self.mirror.put_text(_name(self.place, self.number), RELEASED)
        except Exception:  # it will expire
            pass


@dataclass(kw_only=True)
class Leases:
    """Claims on one object store, as this process sees them change."""

    mirror: Mirror
    seen: dict[str, tuple[str, float]] = field(default_factory=dict)  # name → (content, when it was first seen so)

    def claim(self, place: str, *, expiry_seconds: float = EXPIRY_SECONDS) -> Lease | None:
        """Claim a place, taking over from an owner that is gone or silent for too long. Returns: None when it is held."""
        top = _top(self.mirror, place)
        if top and not self._free(_name(place, top), expiry_seconds):
            return None
        owner = Owner.here()
        if not self.mirror.create(_name(place, top + 1), f"{owner.file_name} 0"):
            return None
        self.mirror.remove(
            *(self.mirror.root / join(place, name) for name in self.mirror.names(place) if int(name) <= top)
        )
        return Lease(mirror=self.mirror, place=place, number=top + 1, owner=owner)

    def clear(self, locks: str, *, expiry_seconds: float) -> bool:
        """Remove claims that nobody holds. Returns: whether no living claim remains."""
        quiet = True
        for name in self.mirror.names(locks):
            if self._free(join(locks, name), expiry_seconds):
                self.mirror.remove(self.mirror.root / join(locks, name))
            else:
                quiet = False
        return quiet

    def _free(self, name: str, expiry_seconds: float) -> bool:
        content, now = self.mirror.text(name), time.monotonic()
        if content is None or content == RELEASED:
            return True
        before, since = self.seen.get(name, ("", now))
        if content != before:
            since = now
        self.seen[name] = content, since
        owner = Owner.parse(content.split(" ")[0])
        return owner is None or owner.gone or now - since > expiry_seconds


def _name(place: str, number: int) -> str:
    return join(place, f"{number:08d}")


def _top(mirror: Mirror, place: str) -> int:
    return max((int(name) for name in mirror.names(place)), default=0)
