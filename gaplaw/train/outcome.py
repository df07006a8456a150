"""What comes out of a group: where it stands while it runs, and what each cell came to at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from gaplaw.columns import domain_column
from gaplaw.spec import Cell, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a group stands; `losses_nats` maps cell names to the latest training objective."""

    phase: Literal["teacher", "compile", "train", "evaluate"]  # teacher: its cache is being filled
    step: int
    steps: int
    tokens: int
    tokens_per_second: float
    losses_nats: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CellOutcome:
    """What one cell came to: columns for its `cells` row, rows for its `curves` table, and parameters if kept.

    params: at the end of training, which the columns describe. best_params: at the evaluation with the lowest loss.
    """

    cell: Cell
    model: ModelSpec
    status: Literal["done", "failed"]
    error: str | None
    metrics: dict
    curve: list[dict]
    params: dict | None = field(default=None, repr=False)
    best_params: dict | None = field(default=None, repr=False)


def last_steps(steps: int) -> range:
    """The steps that a row's training loss is the mean of: the last tenth, at least one, however the group is run."""
    return range(steps - -(-steps // 10), steps)


def measured_columns(score: dict, teacher: dict | None, domains: tuple[str, ...], training_loss_nats: float) -> dict:
    """The measured columns of a finished cell's row. score, teacher: from `gaplaw.distill.evaluate.summarise`."""
    row = {
        "loss_student_ce_nats": score["ce_nats"],
        "calibration_error": score["calibration_error"],
        "validation_tokens": score["tokens"],
        "training_loss_nats": training_loss_nats,
    }
    row |= {domain_column(name): float(loss) for name, loss in zip(domains, score["domain_ce_nats"], strict=True)}
    labels = {column: name for name in domains if (column := domain_column(name)) != f"domain_{name}_loss_nats"}
    row["domain_labels"] = json.dumps(labels) if labels else None
    if teacher:
        row |= {
            "loss_teacher_ce_nats": teacher["ce_nats"],
            "kl_teacher_student_nats": score["kl_nats"],
            "agreement": score["agreement"],
            "teacher_calibration_error": teacher["calibration_error"],
        }
    return row
