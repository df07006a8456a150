"""What does a plan say? One row per cell for machines, a table and a few sums for people. See `planning` for how it is
made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gaplaw.spec import Role
from gaplaw.spec.sizes import size_name
from gaplaw.sweep.planning.estimate import Phases

if TYPE_CHECKING:
    from rich.table import Table

FINISHED = ("done", "stored")
LONGEST_SECONDS = 1000 * 86_400  # past it, rates measured on this machine say nothing of the machine that will run it
_NUMBERS = (
    *("params", "all params", "tokens", "epochs", "held-out", "train FLOPs", "teacher FLOPs", "seconds*", "disk"),
)


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One cell of a plan. `flops` = student training + teacher forward; seconds are the group's, shared by its
    cells.
    """

    cell_id: str
    role: Role
    status: str  # "done", "stored" (a teacher that an earlier sweep trained), "failed", "corrupt" or "missing"
    group_id: str
    seed: int
    protocol: str
    fingerprint: str
    teacher_id: str | None
    student_params: int
    student_params_embedding: int
    student_params_active: int
    student_params_unique: int
    student_params_total: int
    student_tokens: int
    training_epochs: float | None  # None as long as the tokens of the corpus are not counted
    validation_tokens: int | None  # that the cell is evaluated on
    teacher_params: int | None
    student_training_flops: float
    teacher_forward_flops: float
    teacher_training_flops: float
    flops: float
    estimated_seconds: float | None  # None where no measured rate reaches so far
    disk_bytes: int
    teacher_signal: str | None
    teacher_cache_bytes: (
        int  # of the whole cache that the cell reads; cells of one teacher and order of batches share it
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every cell of a sweep with its cost; totals are over what is left to do."""

    sweep: str
    question: str
    cells: tuple[PlannedCell, ...]
    groups_left: int
    workers: int
    wall_seconds: float
    phases: Phases  # of what is left, over all workers
    estimate_from: str
    teacher_cache_bytes: int  # of all caches that what is left reads, each once

    @property
    def left(self) -> tuple[PlannedCell, ...]:
        return tuple(cell for cell in self.cells if cell.status not in FINISHED)

    @property
    def flops_left(self) -> float:
        return sum(cell.flops for cell in self.left)

    @property
    def disk_bytes_left(self) -> int:
        return sum(cell.disk_bytes for cell in self.left)

    @property
    def training_epochs(self) -> list[float]:
        """Of each cell whose text is counted."""
        return [cell.training_epochs for cell in self.cells if cell.training_epochs is not None]

    @property
    def validation_tokens(self) -> list[int]:
        """Of each cell whose text is counted."""
        return [cell.validation_tokens for cell in self.cells if cell.validation_tokens is not None]

    def to_rows(self) -> list[dict]:
        """One plain object per cell, for `--json`."""
        return [dict(vars(cell)) for cell in self.cells]

    def table(self) -> Table:
        """One line per cell for the terminal; `to_rows` has the exact numbers."""
        from rich.table import Table  # takes longer to import than all else here
        from rich.text import Text

        table = Table(title=Text(f"{self.sweep}: {self.question}", "bold"), title_justify="left", box=None)
        table.add_column("cell", no_wrap=True)
        table.add_column("role", no_wrap=True)
        for name in _NUMBERS:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for cell in self.cells:
            todo = cell.status not in FINISHED
            table.add_row(
                cell.cell_id,
                cell.role,
                size_name(cell.student_params),
                size_name(cell.student_params_total),
                size_name(cell.student_tokens),
                "?" if cell.training_epochs is None else f"{cell.training_epochs:.3g}",
                "?" if cell.validation_tokens is None else size_name(cell.validation_tokens),
                f"{cell.student_training_flops:.2e}",
                f"{cell.teacher_forward_flops:.2e}" if cell.teacher_params else "-",
                f"{cell.estimated_seconds:.1f}" if todo and cell.estimated_seconds is not None else "-",
                amount(cell.disk_bytes),
                "to do" if cell.status == "missing" else cell.status,
                style=None if todo else "dim",
            )
        return table

    def totals(self) -> list[str]:
        """What the table sums to, in plain lines."""
        left, caches = self.left, self.teacher_cache_bytes
        kept = f", {amount(caches)} in teacher caches" if caches else ""
        estimate = (
            f"estimate: {duration(self.wall_seconds)} with {self.workers} worker{'s' if self.workers > 1 else ''} "
            f"(* estimate from {self.estimate_from}; a cell's share of its group's seconds)"
        )
        if self.wall_seconds > LONGEST_SECONDS:
            estimate = "estimate: no measured rate for this size; --target compiles it for a machine that is not here"
        lines = [
            f"{len(self.cells)} cells, {len(self.cells) - len(left)} done; {len(left)} left in {self.groups_left} "
            "groups: "
            f"{self.flops_left:.2e} FLOPs, {amount(self.disk_bytes_left)} on disk{kept}",
            estimate,
        ]
        if left and self.wall_seconds <= LONGEST_SECONDS:
            lines.append(self._where_time_goes())
        return lines + self._text()

    def _where_time_goes(self) -> str:
        parts = (
            f"{name.removesuffix('_seconds')} {duration(seconds)} ({seconds / self.phases.total_seconds:.0%})"
            for name, seconds in asdict(self.phases).items()
        )
        return f"of {duration(self.phases.total_seconds)} of work: {', '.join(parts)}"

    def _text(self) -> list[str]:
        """Whether there is text enough: epochs of training, and tokens to evaluate on."""
        epochs, held_out = self.training_epochs, self.validation_tokens
        if not epochs:
            return ["text: tokens not counted yet (gaplaw run counts them)"]
        fewest, most = f"{min(epochs):.3g}", f"{max(epochs):.3g}"
        span = most if fewest == most else f"{fewest} to {most}"
        return [f"text: {span} epochs of training, {min(held_out):,} held-out tokens"]


def amount(size_bytes: float) -> str:
    """Bytes for people: 1536 → "1.5 kB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Seconds for people, two significant parts: 3725 → "1 h 02 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
