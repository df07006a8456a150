"""Which of the teachers at hand should this student learn from? The choice by expected regret plus cost.

After the law, before the command line and the report. For every available teacher it states the expected regret in nats (mean
over the law's draws, against each draw's own best teacher), the chance to be the best of those available, and the compute
6·S·D + 2·T·D (+ 6·T·D_T); it recommends the teacher of least regret plus cost, and says so when no teacher is worth its compute.

Cost enters in nats. With `price_per_flop` (nats per FLOP) it is price × counted FLOPs. Without, a FLOP costs what the student could
have done with it: the counted FLOPs spent on more tokens lower the no-teacher loss by L̃(N, D) − L̃(N, D + FLOPs / 6N).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from gaplaw.errors import LawError
from gaplaw.law.available import Teacher, read_teachers
from gaplaw.law.baseline import baseline_loss, loss_at_equal_compute
from gaplaw.law.flags import Flag, worst_first
from gaplaw.law.law import Law, Optimum
from gaplaw.law.rules import RuleChoice, rule_choices
from gaplaw.law.table import to_number

COSTS = ("best", "inference", "pretraining", "both")
DEFAULT_TOLERANCE_NATS = 0.002
DEFAULT_TOKENS_PER_PARAM = 20.0
FAR_RANGES = 1.0  # extrapolation beyond this many measured ranges is called a guess
HOPELESS_RANGES = 3.0  # and beyond this many there is no answer


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The answer: `recommended` is a teacher's name, or None when refused or when no teacher is worth it."""

    recommended: str | None
    optimum: Optimum
    near_optimal: tuple[str, ...]
    teachers: tuple[TeacherChoice, ...]
    rules: tuple[RuleChoice, ...]
    flags: tuple[Flag, ...]
    student_params: float
    student_tokens: float | None
    cost: str
    tolerance_nats: float
    coordinate: str
    near_optimal_range: tuple[float | None, float | None] = field(default=(None, None))

    def teacher(self, name: str) -> TeacherChoice:
        return next(teacher for teacher in self.teachers if teacher.name == name)

    def to_dict(self) -> dict:
        """The layout of `gaplaw choose --json`."""
        point = getattr(self.optimum, self.coordinate)
        optimum = {self.coordinate: point, "interval50": self.optimum.interval50, "interval90": self.optimum.interval90}
        return {
            "recommended": self.recommended,
            "optimum": {key: list(value) if isinstance(value, tuple) else value for key, value in optimum.items()},
            "near_optimal": list(self.near_optimal),
            "near_optimal_range": list(self.near_optimal_range),
            "teachers": [teacher.to_dict() for teacher in self.teachers],
            "rules": [rule.to_dict() for rule in self.rules],
            "flags": [flag.to_dict() for flag in self.flags],
            "student_params": self.student_params,
            "student_tokens": self.student_tokens,
            "cost": self.cost,
            "tolerance_nats": self.tolerance_nats,
        }

    def text(self) -> str:
        """The answer in a few lines for people."""
        from gaplaw.law.words import choice_text

        return choice_text(self)


def choose(
    law: Law,
    *,
    student_params,
    teachers,
    student_tokens=None,
    cost: str = "best",
    price_per_flop: float | None = None,
    tolerance_nats: float | None = None,
) -> Choice:
    """Choose a teacher: argmin over the available of E[L_S(T) − min L_S] + cost(T), over the law's draws.

    Args:
        law: a fitted Law.
        student_params: N_S, a number or a size string.
        teachers: what is available: a list of sizes (losses, for a law in teacher loss), of size strings, or of mappings with
            name, params, tokens, loss; or a CSV file or DataFrame with those columns.
        student_tokens: D_S; by default the tokens per parameter of the table (20 if it has none), and flagged.
        cost: which teacher FLOPs count: 'best' none, 'inference' 2TD, 'pretraining' 6TD_T, 'both'.
        price_per_flop: nats per FLOP; by default the student's own gain from the same FLOPs.
        tolerance_nats: a teacher is near-optimal within this regret; default 0.002 or one seed standard deviation.

    Returns:
        Choice, whose `teachers` keep the order of the input.

    Raises:
        LawError: no teacher, an unknown cost case, a size or loss missing that the law or the cost case needs.
    """
    if cost not in COSTS:
        raise LawError(f"cost: {cost!r} must be one of {', '.join(COSTS)}")
    if price_per_flop is not None and not price_per_flop >= 0:
        raise LawError(f"price_per_flop: {price_per_flop} must not be negative")
    available = read_teachers(teachers, coordinate=law.coordinate, baseline=law.baseline)
    params = _positive("student_params", student_params)
    tokens = None if student_tokens is None else _positive("student_tokens", student_tokens)
    flags = [*law.flags, *extrapolation_flags(law, params, tokens, available)]
    spent, token_flag = _tokens_for_flops(law, params, tokens)
    tolerance = tolerance_nats if tolerance_nats is not None else max(DEFAULT_TOLERANCE_NATS, law.noise.seed_sd_nats or 0.0)
    if any(flag.severity == "refusal" for flag in flags):
        rows = [_with_flops(_plain_row(teacher), teacher, params, spent, cost) for teacher in available]
        optimum, near, span, rules, recommended = Optimum(), (), (None, None), (), None
    else:
        regret = law.regret_draws(params, tokens, _coordinates(available, law), _teacher_tokens(available))
        expected, p_best = regret.mean(0), share_best(regret)
        rows = [
            replace(_plain_row(teacher), expected_regret_nats=float(expected[i]), p_best=float(p_best[i]))
            for i, teacher in enumerate(available)
        ]
        rows = [_with_flops(row, teacher, params, spent, cost) for row, teacher in zip(rows, available, strict=True)]
        rows, cost_flags = _with_cost(law, rows, available, params, tokens, spent, cost, price_per_flop)
        flags += cost_flags + ([token_flag] if token_flag and cost != "best" else [])
        optimum = law.optimum(params, tokens)
        near = tuple(row.name for row in rows if row.expected_regret_nats <= tolerance)
        span = near_optimal_range(law, params, tokens, tolerance)
        rules = rule_choices(law, available, params, tokens, expected)
        recommended, verdict = _recommend(rows, law)
        flags += verdict
    return Choice(
        recommended=recommended,
        optimum=optimum,
        near_optimal=near,
        near_optimal_range=span,
        teachers=tuple(rows),
        rules=rules,
        flags=worst_first(flags),
        student_params=params,
        student_tokens=tokens,
        cost=cost,
        tolerance_nats=float(tolerance),
        coordinate=law.coordinate,
    )


def share_best(regret: np.ndarray) -> np.ndarray:
    """Chance of each teacher to be the best available, (n,), from regrets (R, n); ties are shared."""
    best = regret <= regret.min(1, keepdims=True) + 1e-12
    return (best / best.sum(1, keepdims=True)).mean(0)


def near_optimal_range(law: Law, params, tokens, tolerance_nats: float, points: int = 161):
    """The measured stretch of teachers whose expected regret is within the tolerance; None where it reaches the edge."""
    low, high = law.measured[law.coordinate]
    grid = np.geomspace(low, high, points)
    inside = np.flatnonzero(law.regret_draws(params, tokens, grid).mean(0) <= tolerance_nats)
    if not len(inside):
        return None, None
    first, last = inside[0], inside[-1]
    return (float(grid[first]) if first else None, float(grid[last]) if last < points - 1 else None)


def extrapolation_flags(law: Law, params: float, tokens: float | None, available: list[Teacher]) -> list[Flag]:
    """How far the question lies outside what was measured, in units of the measured range of each logarithm."""
    flags = []
    asked = {"student_params": params}
    if tokens is not None and "student_tokens" in law.measured:
        asked["student_tokens"] = tokens
    for name, value in asked.items():
        distance = ranges_outside(law.measured[name], value)
        if distance <= 1e-9:
            continue
        severity = "refusal" if distance > HOPELESS_RANGES else "warning" if distance > 0.25 else "note"
        low, high = law.measured[name]
        edge = value / high if value > high else low / value
        guess = "; beyond one range the answer is a guess" if distance > FAR_RANGES else ""
        message = (
            f"{name} {value:.4g} is {edge:.3g} times outside the measured {low:.4g} to {high:.4g}: "
            f"an extrapolation by {distance:.2f} measured ranges{guess}"
        )
        flags.append(Flag("extrapolation", message, severity))
    low, high = law.measured[law.coordinate]
    outside = [t.name for t in available if not 0.999 * low <= t.coordinate(law.coordinate) <= 1.001 * high]
    if outside:
        names = ", ".join(outside[:5]) + (" and more" if len(outside) > 5 else "")
        flags.append(Flag("teacher_outside", f"teachers outside the measured {law.coordinate}: {names}", "warning"))
    return flags


def ranges_outside(measured: tuple[float, float], value: float) -> float:
    """Distance of ln value beyond the measured interval, in units of its length (at least ln 2)."""
    low, high = np.log(measured)
    return max(low - np.log(value), np.log(value) - high, 0.0) / max(high - low, np.log(2.0))


def _positive(name: str, value) -> float:
    number = to_number(value)
    if not (np.isfinite(number) and number > 0):
        raise LawError(f"{name}: {value} must be positive and finite")
    return number


def _coordinates(available: list[Teacher], law: Law) -> np.ndarray:
    return np.array([teacher.coordinate(law.coordinate) for teacher in available])


def _teacher_tokens(available: list[Teacher]):
    """Teacher tokens for the law, or None unless every teacher states them."""
    tokens = [teacher.tokens for teacher in available]
    return None if any(value is None for value in tokens) else np.array(tokens, dtype=float)


def _tokens_for_flops(law: Law, params: float, tokens: float | None) -> tuple[float, Flag | None]:
    """D_S for the FLOPs, with a flag when it is an assumption."""
    if tokens is not None:
        return tokens, None
    ratio, source = DEFAULT_TOKENS_PER_PARAM, "by convention"
    if "student_tokens" in law.measured:
        ends = [t / s for t, s in zip(law.measured["student_tokens"], law.measured["student_params"], strict=True)]
        ratio, source = float(np.sqrt(ends[0] * ends[1])), "as in the table"
    message = f"no tokens given: FLOPs are stated at {ratio:.3g} tokens per parameter, {source}"
    return ratio * params, Flag("tokens_assumed", message, "note")


def _plain_row(teacher: Teacher) -> TeacherChoice:
    return TeacherChoice(
        name=teacher.name,
        params=teacher.params,
        tokens=teacher.tokens,
        loss=teacher.loss,
        expected_regret_nats=None,
        p_best=None,
    )


def _with_flops(row: TeacherChoice, teacher: Teacher, params: float, tokens: float, cost: str) -> TeacherChoice:
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


def _with_cost(law, rows, available, params, tokens, spent, cost, price):
    """Cost in nats and the student alone at equal compute, for each teacher; with flags for what cannot be said."""
    flags: list[Flag] = []
    counted = np.array([_counted(row, cost) for row in rows])
    at = spent if tokens is None else tokens
    predicted = None
    if law.baseline is not None:
        alone = np.asarray(loss_at_equal_compute(law.baseline, params, at, counted), dtype=float)
        predicted = _predicted_losses(law, available, params, at)
        rows = [replace(row, no_teacher_loss_nats=float(value)) for row, value in zip(rows, alone, strict=True)]
        rows = [replace(row, predicted_loss_nats=float(value)) for row, value in zip(rows, predicted, strict=True)]
        if law.baseline["kind"] == "path" and cost != "best":
            text = "the value of extra tokens is not measured: taken as half the slope along the measured path"
            flags.append(Flag("token_value_assumed", text, "note"))
    else:
        text = "the table has no no_teacher_loss: whether distillation beats the student alone cannot be said"
        flags.append(Flag("no_baseline", text, "note"))
    if price is not None:
        cost_nats = price * counted
    elif law.baseline is not None:
        cost_nats = baseline_loss(law.baseline, params, at) - np.array([row.no_teacher_loss_nats for row in rows])
    else:
        cost_nats = np.zeros(len(rows))
        if cost != "best":
            text = f"cost = {cost} has no price: give price_per_flop, or a table with no_teacher_loss; chosen by regret alone"
            flags.append(Flag("no_price", text, "warning"))
    return [replace(row, cost_nats=float(value)) for row, value in zip(rows, cost_nats, strict=True)], flags


def _counted(row: TeacherChoice, cost: str) -> float:
    forward = row.teacher_forward_flops if cost in ("inference", "both") else 0.0
    training = row.teacher_training_flops if cost in ("pretraining", "both") else 0.0
    return forward + training


def _predicted_losses(law, available, params, tokens) -> np.ndarray:
    import pandas as pd

    frame = pd.DataFrame({"student_params": params, "student_tokens": tokens, law.coordinate: _coordinates(available, law)})
    teacher_tokens = _teacher_tokens(available)
    if teacher_tokens is not None:
        frame["teacher_tokens"] = teacher_tokens
    return law.predict(frame)


def _recommend(rows: list[TeacherChoice], law: Law) -> tuple[str | None, list[Flag]]:
    best = min(rows, key=lambda row: row.total_nats)
    if best.no_teacher_loss_nats is not None:
        gains = [row.no_teacher_loss_nats - row.predicted_loss_nats for row in rows]
        if max(gains) <= 0:
            text = (
                f"distillation is not worth it: at equal compute the student alone is better than with any of these "
                f"teachers, by at least {-max(gains):.4f} nats"
            )
            return None, [Flag("not_worth_it", text, "warning")]
    return best.name, []
