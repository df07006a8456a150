"""For whom does a `run` wait, and why? Groups whose claims others hold, named by host, process and date.

What stands in the place of a claim and is none is named, too: nobody can work on its group until it is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gaplaw.errors import SweepError
from gaplaw.sweep.folder.owner import Holder
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning.make_plan import Work
from gaplaw.sweep.planning.plan import duration

LOOK_SECONDS = 1.0  # how often rows and claims of other `run` commands are looked at


class Waiting:
    """The groups that this `run` could start if nothing else stood in the place of their claims."""

    def __init__(self, folder: RunFolder, expiry_seconds: float, event: Callable[[str], None]):
        self.folder, self.expiry_seconds, self.event = folder, expiry_seconds, event
        self._held: dict[str, Holder] = {}
        self._ask_again_at: dict[str, float] = {}
        self._named: set[tuple] = set()

    def asked(self, work: Work) -> bool:
        """Whether a group's claim was asked for so lately that it need not be asked for now."""
        return time.monotonic() < self._ask_again_at.get(work.id, 0.0)

    def begin(self, work: Work, *, idle: bool) -> None:
        """A group's claim was refused. idle: whether this `run` has nothing else to do, so that people should know at
        once.
        """
        self._ask_again_at[work.id] = time.monotonic() + LOOK_SECONDS
        place, key = self.folder.claim_of(work.group, keeps=bool(work.keeps))
        holder = self.folder.claims.look(place / key)
        if holder is None:  # released meanwhile
            return self.end(work)
        self._held[work.id] = holder
        name = (holder.place, holder.owner)
        if name not in self._named and (idle or holder.owner is None):
            self._named.add(name)
            said = f"waiting for {holder.describe()}, who has {holder.place}" if holder.owner else holder.describe()
            self.event(f"{'' if holder.owner else 'warning: '}{work.group.id}: {said}")

    def end(self, work: Work) -> None:
        """The group is held by others no more."""
        self._held.pop(work.id, None)

    def lines(self, pending: list[Work]) -> tuple[str, ...]:
        """One line for each holder of pending groups: who, since when, and for how long without a sign of life."""
        groups: dict[tuple, list[Holder]] = {}
        for work in pending:
            holder = self._held.get(work.id)
            if holder is not None:
                groups.setdefault((holder.owner, holder.place if holder.owner is None else None), []).append(holder)
        return tuple(self._line(holders) for holders in groups.values())

    def _line(self, holders: list[Holder]) -> str:
        first = holders[0]
        if first.owner is None:
            return first.describe()
        silent = min(self.folder.claims.observer.silent_seconds(holder) for holder in holders)
        more = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
        said = f"{first.describe()}, {first.place}{more}"
        if silent < self.expiry_seconds / 4:
            return said
        return f"{said}; no sign of life for {duration(silent)}, taken over after {duration(self.expiry_seconds)}"

    def refuse_junk(self, startable: list[Work]) -> None:
        """With nothing at work and nothing else to start: end when what stands in the places is no claim, and stays so.

        Raises: SweepError naming the first of them.
        """
        held = [self._held.get(work.id) for work in startable]
        silent = self.folder.claims.observer.silent_seconds
        if held and all(one and one.owner is None and silent(one) > self.expiry_seconds for one in held):
            raise SweepError(f"{held[0].describe()}; {len(held)} groups wait for nothing else")
