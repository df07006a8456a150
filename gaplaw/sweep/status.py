"""Where does a sweep stand, as its folder tells it, and what did one `run` of it come to?

`status_of` asks files only: it works while the sweep runs, and on machines that only see the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gaplaw.errors import SweepError
from gaplaw.sweep.bucket import folder_at
from gaplaw.sweep.display import describe
from gaplaw.sweep.eta import Running, progress_of
from gaplaw.sweep.planned import duration

_MOST_FAILURES = 20


@dataclass(frozen=True, kw_only=True)
class Status:
    """Counts by role and in all, groups at work, and what failed. `missing` counts cells without a row."""

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

    def text(self) -> str:
        """The same for people, a few lines."""
        lines = [f"{self.sweep}: {self.question}", f"{self.done} of {self.cells} cells done, {self.failed} failed"]
        for role, counts in self.roles.items():
            lines.append(f"  {role}s: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
        if self.running:
            lines.append("running:")
            lines += [f"  {describe(one)} on {one.host}" for one in self.running]
        else:
            lines.append("no process is working on it")
        lines += [f"failed: {name}: {error}" for name, error in list(self.failures.items())[:_MOST_FAILURES]]
        if len(self.failures) > _MOST_FAILURES:
            lines.append(f"and {len(self.failures) - _MOST_FAILURES} more failures")
        lines += [f"warning: {line}" for line in self.damaged]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run came to; `failures` maps cell ids to their error."""

    sweep: str
    out: str
    cells: int
    done: int
    failed: int
    done_before: int
    seconds: float
    failures: dict[str, str]

    def lines(self) -> list[str]:
        """The same for people."""
        counts = f"{self.done} of {self.cells} cells done"
        if self.done_before:
            counts += f" ({self.done_before} of them before)"
        lines = [f"{self.sweep}: {counts}, {self.failed} failed, in {duration(self.seconds)}; results in {self.out}"]
        lines += [f"failed: {name}: {error}" for name, error in self.failures.items()]
        if self.failed:
            lines.append("the same command tries the failed cells again")
        return lines


def status_of(folder: Path | str) -> Status:
    """The state of the sweep in a run folder, given by path or URL.

    Raises: SweepError when the folder is missing or holds no sweep.
    """
    place = folder_at(folder)
    if not place.out.is_dir():
        raise SweepError(f"{folder}: no such folder")
    place.refresh(now=True)
    sweep = place.sweep()
    states = {cell.id: place.state(cell) for cell in sweep.cells}
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
        damaged=tuple(state.error for state in states.values() if state.status == "corrupt"),
    )
