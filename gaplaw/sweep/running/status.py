"""Where does a sweep stand, as its folder tells it, and what did one `run` of it come to?

`status_of` asks files only: it works while the sweep runs, and on machines that only see the folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gaplaw.errors import SweepError
from gaplaw.sweep.folder.compact import damaged_files
from gaplaw.sweep.folder.object_store import folder_at
from gaplaw.sweep.folder.owner import EXPIRY_SECONDS, Holder
from gaplaw.sweep.planning.plan import duration
from gaplaw.sweep.running.eta import Running, progress_of

if TYPE_CHECKING:
    from gaplaw.sweep.running.pending import Board

_MOST_FAILURES = 20


@dataclass(frozen=True, kw_only=True)
class Status:
    """Counts by role and in all, groups at work, and what failed. `missing` counts cells without a row.

    present: the `run` commands that work here. claims: who holds which groups, and what stands in the place of a claim.
    """

    sweep: str
    question: str
    folder: str
    cells: int
    done: int
    failed: int
    missing: int
    roles: dict[str, dict[str, int]]
    running: tuple[Running, ...]
    failures: dict[str, str]
    damaged: tuple[str, ...]
    present: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()

    def text(self) -> str:
        """The same for people, a few lines."""
        lines = [f"{self.sweep}: {self.question}", f"{self.done} of {self.cells} cells done, {self.failed} failed"]
        for role, counts in self.roles.items():
            lines.append(f"  {role}s: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
        if self.running:
            from gaplaw.sweep.running.display import describe  # imports rich

            lines.append("running:")
            lines += [f"  {describe(one)} on {one.host}" for one in self.running]
        elif not self.present:
            lines.append("no process is working on it")
        lines += [f"at work here: {line}" for line in self.present]
        lines += [f"claim: {line}" for line in self.claims[:_MOST_FAILURES]]
        lines += [f"failed: {name}: {error}" for name, error in list(self.failures.items())[:_MOST_FAILURES]]
        if len(self.failures) > _MOST_FAILURES:
            lines.append(f"and {len(self.failures) - _MOST_FAILURES} more failures")
        lines += [f"warning: {line}" for line in self.damaged]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run came to; `failures` maps cell ids to their error, `left` those that were stopped and have no row to
    the reason.
    """

    sweep: str
    out: str
    cells: int
    done: int
    failed: int
    done_before: int
    seconds: float
    failures: dict[str, str]
    left: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The same for people."""
        counts = f"{self.done} of {self.cells} cells done"
        if self.done_before:
            counts += f" ({self.done_before} of them before)"
        lines = [f"{self.sweep}: {counts}, {self.failed} failed, in {duration(self.seconds)}; results in {self.out}"]
        lines += [f"failed: {name}: {error}" for name, error in self.failures.items()]
        lines += [f"left: {name}: {reason}" for name, reason in self.left.items()]
        if self.failed or self.left:
            lines.append("the same command tries the failed cells again" if self.failed else "the same command goes on")
        return lines


def summary_of(board: Board, seconds: float, left: dict[str, str]) -> Summary:
    """What the folder says at the very end of a run: another run may have finished what failed here.

    Args: left: the cells that were not tried again and have not failed, with the reason.
    """
    board.folder.refresh(now=True)
    board.look_again(tuple(cell for cell in board.sweep.cells if board.states[cell.id].status != "done"))
    return Summary(
        sweep=board.sweep.name,
        out=board.folder.name,
        cells=len(board.states),
        done=board.count("done"),
        failed=board.count("failed"),
        done_before=board.done_before,
        seconds=seconds,
        failures=board.failures,
        left={name: why for name, why in left.items() if board.states[name].status == "missing"},
    )


def status_of(folder: Path | str) -> Status:
    """The state of the sweep in a run folder, given by path or URL.

    Raises: SweepError when the folder is missing or holds no sweep.
    """
    place = folder_at(folder)
    if not place.out.is_dir():
        raise SweepError(f"{folder}: no such folder")
    place.refresh(now=True)
    sweep = place.sweep()
    states = place.states(sweep.cells)
    roles: dict[str, dict[str, int]] = {}
    for cell in sweep.cells:
        counts = roles.setdefault(sweep.role(cell), {})
        counts[states[cell.id].status] = counts.get(states[cell.id].status, 0) + 1
    statuses = [state.status for state in states.values()]
    return Status(
        sweep=sweep.name,
        question=sweep.question,
        folder=str(folder),
        cells=len(states),
        done=statuses.count("done"),
        failed=statuses.count("failed"),
        missing=len(states) - statuses.count("done") - statuses.count("failed"),
        roles=roles,
        running=tuple(Running.of(one) for one in progress_of(place)),
        failures={name: state.error or "" for name, state in states.items() if state.status == "failed"},
        damaged=(
            *damaged_files(place.out),
            *(state.error for state in states.values() if state.status == "corrupt"),
        ),
        present=tuple(_alive(holder) for holder in place.holders("presence") if holder.owner and not holder.owner.gone),
        claims=tuple(
            f"{holder.place}: {_alive(holder)}" if holder.owner else holder.describe()
            for holder in place.holders("locks")
        ),
    )


def _alive(holder: Holder) -> str:
    """Who holds something since when, and the date of the last heartbeat: of another clock, so it is shown and decides
    nothing.
    """
    if holder.beat_at is None or holder.owner.gone:
        return holder.describe()
    ago = time.time() - holder.beat_at
    if ago < -EXPIRY_SECONDS:
        return f"{holder.describe()}, last heartbeat dated {duration(-ago)} ahead of this machine's clock"
    return f"{holder.describe()}, last heartbeat {duration(max(0.0, ago))} ago"
