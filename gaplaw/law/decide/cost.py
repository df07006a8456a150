"""What does a teacher cost, and what would the student do alone for the same compute? FLOPs and nats for every
available teacher.

Helper of `choose`, in the law half. Compute is stated as 6·S·D + 2·T·D (+ 6·T·D_T). Cost enters in nats. With
`price_per_flop` (nats per FLOP) it is price × counted FLOPs. Without, a FLOP costs what the student could have done
with it: the counted FLOPs spent on more tokens lower the no-teacher loss by L̃(N, D) − L̃(N, D + FLOPs / 6N).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gaplaw.errors import LawError
from gaplaw.law.decide.teachers import Teacher
from gaplaw.law.fitted_law import FittedLaw
from gaplaw.law.flags import Flag
from gaplaw.law.no_teacher.baseline import baseline_loss, loss_at_equal_compute

COSTS = ("best", "inference", "pretraining", "both")
DEFAULT_TOKENS_PER_PARAM = 20.0
DEFAULT_TOLERANCE_NATS = 0.002


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherChoice:
    """One available teacher. Regret and cost in nats; FLOPs are None when its size (or tokens) is unknown."""

    name: str
    params: float | None
    tokens: float | None
    loss: float | None
    expected_regret_nats: float | None
    p_best: float | None
    cost_nats: float | None = None
    student_training_flops: float | None = None
    teacher_forward_flops: float | None = None
    teacher_training_flops: float | None = None
    flops: float | None = None  # 6SD + 2TD, plus teacher training where the cost case counts it
    predicted_loss_nats: float | None = None
    no_teacher_loss_nats: float | None = None  # the student alone, at equal compute

    @property
    def total_nats(self) -> float:
        return (self.expected_regret_nats or 0.0) + (self.cost_nats or 0.0)

    def to_dict(self) -> dict:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def coordinates(available: list[Teacher], law: FittedLaw) -> np.ndarray:
    """The teachers on the law's axis, (n,): parameters, or nats."""
    return np.array([teacher.coordinate(law.coordinate) for teacher in available])


def teacher_tokens_of(available: list[Teacher]):
    """Teacher tokens for the law, or None unless every teacher states them."""
    tokens = [teacher.tokens for teacher in available]
    return None if any(value is None for value in tokens) else np.array(tokens, dtype=float)


def tokens_for_flops(law: FittedLaw, params: float, tokens: float | None) -> tuple[float, Flag | None]:
    """D_S for the FLOPs, with a flag when it is an assumption.

    Args:
        law: a fitted law.
        params: N_S.
        tokens: D_S, or None: then the table's tokens per parameter, 20 where it has none.
    """
    if tokens is not None:
        return tokens, None
    ratio, source = DEFAULT_TOKENS_PER_PARAM, "by convention"
    if "student_tokens" in law.measured:
        ends = [t / s for t, s in zip(law.measured["student_tokens"], law.measured["student_params"], strict=True)]
        ratio, source = float(np.sqrt(ends[0] * ends[1])), "as in the table"
    message = f"no tokens given: FLOPs are stated at {ratio:.3g} tokens per parameter, {source}"
    return ratio * params, Flag("tokens_assumed", message, "note")


def tolerance_or_default(law: FittedLaw, tolerance_nats: float | None) -> float:
    """The regret that counts as none, nats: as given, or 0.002, or one sd between seeds where larger."""
    default = max(DEFAULT_TOLERANCE_NATS, law.noise.seed_sd_nats or 0.0)
    return float(default if tolerance_nats is None else tolerance_nats)


def plain_row(teacher: Teacher) -> TeacherChoice:
    """A teacher's row before anything was computed."""
    return TeacherChoice(
        name=teacher.name,
        params=teacher.params,
        tokens=teacher.tokens,
        loss=teacher.loss,
        expected_regret_nats=None,
        p_best=None,
    )


def with_flops(row: TeacherChoice, teacher: Teacher, params: float, tokens: float, cost: str) -> TeacherChoice:
    """The row with its FLOPs: student training 6·S·D, teacher forward 2·T·D, teacher training 6·T·D_T.

    Args:
        row, teacher: of one available teacher.
        params, tokens: the student, N_S and D_S.
        cost: the cost case.

    Raises:
        LawError: the teacher's size or tokens are unknown and the cost case counts them.
    """
    own = 6.0 * params * tokens
    if teacher.params is None:
        if cost != "best":
            raise LawError(f"teacher {teacher.name}: params are needed for cost = {cost}")
        return replace(row, student_training_flops=own)
    forward = 2.0 * teacher.params * tokens
    training = None if teacher.tokens is None else 6.0 * teacher.params * teacher.tokens
    if cost in ("pretraining", "both") and training is None:
        raise LawError(f"teacher {teacher.name}: tokens are needed for cost = {cost} (its own training tokens)")
    total = own + forward + (training if cost in ("pretraining", "both") else 0.0)
    return replace(
        row, student_training_flops=own, teacher_forward_flops=forward, teacher_training_flops=training, flops=total
    )


def with_cost(law, rows, available, params, tokens, flop_tokens, cost, price):
    """Cost in nats, and the student alone at equal compute, for each teacher; with flags for what cannot be said.

    Args:
        law: a fitted law.
        rows, available: the teachers, with their FLOPs.
        params, tokens: the student, N_S and D_S (or None).
        flop_tokens: D_S that the FLOPs were counted with.
        cost: the cost case.
        price: nats per FLOP, or None: what the student would gain from the same FLOPs.

    Returns:
        (rows, flags).
    """
    flags: list[Flag] = []
    counted_flops = np.array([_counted_flops(row, cost) for row in rows])
    at = flop_tokens if tokens is None else tokens
    predicted_losses = None
    if law.baseline is not None:
        no_teacher_losses = np.asarray(loss_at_equal_compute(law.baseline, params, at, counted_flops), dtype=float)
        predicted_losses = _predicted_losses(law, available, params, at)
        rows = [
            replace(row, no_teacher_loss_nats=float(value)) for row, value in zip(rows, no_teacher_losses, strict=True)
        ]
        rows = [
            replace(row, predicted_loss_nats=float(value)) for row, value in zip(rows, predicted_losses, strict=True)
        ]
        if law.baseline["kind"] == "path" and cost != "best":
            text = "the value of extra tokens is not measured: taken as half the slope along the measured path"
            flags.append(Flag("token_value_assumed", text, "note"))
    else:
        text = "the table has no no_teacher_loss: whether distillation beats the student alone cannot be said"
        flags.append(Flag("no_baseline", text, "note"))
    if price is not None:
        cost_nats = price * counted_flops
    elif law.baseline is not None:
        cost_nats = baseline_loss(law.baseline, params, at) - np.array([row.no_teacher_loss_nats for row in rows])
    else:
        cost_nats = np.zeros(len(rows))
        if cost != "best":
            text = (
                f"cost = {cost} has no price: give price_per_flop, or a table with no_teacher_loss; chosen by regret "
                "alone"
            )
            flags.append(Flag("no_price", text, "warning"))
    return [replace(row, cost_nats=float(value)) for row, value in zip(rows, cost_nats, strict=True)], flags


def _counted_flops(row: TeacherChoice, cost: str) -> float:
    forward = row.teacher_forward_flops if cost in ("inference", "both") else 0.0
    training = row.teacher_training_flops if cost in ("pretraining", "both") else 0.0
    return forward + training


def _predicted_losses(law, available, params, tokens) -> np.ndarray:
    frame = pd.DataFrame(
        {"student_params": params, "student_tokens": tokens, law.coordinate: coordinates(available, law)}
    )
    teacher_tokens = teacher_tokens_of(available)
    if teacher_tokens is not None:
        frame["teacher_tokens"] = teacher_tokens
    return law.predict(frame)
