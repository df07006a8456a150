"""Which of the teachers at hand should this student learn from? The choice by expected regret plus cost.

After the law, before the command line and the report. For every available teacher it states the expected regret in nats
(mean over the law's draws, against each draw's own best teacher), the chance to be the best of those available, and the
compute 6·S·D + 2·T·D (+ 6·T·D_T); it recommends the teacher of least regret plus cost, and says so when no teacher is
worth its compute. Cost is counted in `cost`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from gaplaw.errors import LawError
from gaplaw.law.answers import Optimum
from gaplaw.law.decide.cost import (
    COSTS,
    TeacherChoice,
    coordinates,
    plain_row,
    teacher_tokens_of,
    tokens_for_flops,
    tolerance_or_default,
    with_cost,
    with_flops,
)
from gaplaw.law.decide.rules_of_thumb import RuleChoice, rule_choices
from gaplaw.law.decide.teachers import Teacher, read_teachers
from gaplaw.law.fitted_law import FittedLaw
from gaplaw.law.flags import Flag, worst_first
from gaplaw.law.notebook_view import ChoiceView
from gaplaw.law.table.values import to_positive
from gaplaw.law.text import choice_text

FAR_RANGES = 1.0  # extrapolation beyond this many measured ranges is called a guess
HOPELESS_RANGES = 3.0  # and beyond this many there is no answer


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Choice(ChoiceView):
    """The answer to `choose`.

    Attributes:
        recommended: a teacher's name; None when the law refuses, or when no teacher is worth it.
        optimum: the best possible teacher, available or not.
        near_optimal: names of the teachers whose expected regret is within the tolerance.
        teachers: all that were weighed, in the order of the question.
        rules: what rules of thumb would pick, with the law's regret of each.
        flags: the law's, and those of this question.
        near_optimal_range: (low, high) of the near-optimal teachers that were measured; None at the edge.
    """

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
        """The teacher of that name."""
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
        return choice_text(self)


def choose(
    law: FittedLaw,
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
        teachers: what is available: a list of sizes (losses, for a law in teacher loss), of size strings, or of
            mappings with name, params, tokens, loss; or a CSV file or DataFrame with those columns.
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
    params = to_positive("student_params", student_params)
    tokens = None if student_tokens is None else to_positive("student_tokens", student_tokens)
    flags = [*law.flags, *extrapolation_flags(law, params, tokens, available)]
    flop_tokens, token_flag = tokens_for_flops(law, params, tokens)
    tolerance = tolerance_or_default(law, tolerance_nats)
    if any(flag.severity == "refusal" for flag in flags):
        rows = [with_flops(plain_row(teacher), teacher, params, flop_tokens, cost) for teacher in available]
        optimum, near, span, rules, recommended = Optimum(), (), (None, None), (), None
    else:
        regret = available_regret(law, params, tokens, available)
        expected_regret, p_best = regret.mean(0), share_best(regret)
        rows = [
            replace(plain_row(teacher), expected_regret_nats=float(expected_regret[i]), p_best=float(p_best[i]))
            for i, teacher in enumerate(available)
        ]
        rows = [
            with_flops(row, teacher, params, flop_tokens, cost) for row, teacher in zip(rows, available, strict=True)
        ]
        rows, cost_flags = with_cost(law, rows, available, params, tokens, flop_tokens, cost, price_per_flop)
        flags += cost_flags + ([token_flag] if token_flag and cost != "best" else [])
        optimum = law.optimum(params, tokens)
        flags += _optimum_flags(law, optimum) + _teacher_flags(rows)
        near = tuple(row.name for row in rows if row.expected_regret_nats <= tolerance)
        span = near_optimal_range(law, params, tokens, tolerance)
        rules = rule_choices(law, available, params, tokens, expected_regret)
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
        tolerance_nats=tolerance,
        coordinate=law.coordinate,
    )


def available_regret(law: FittedLaw, params: float, tokens: float | None, available: list[Teacher]) -> np.ndarray:
    """Regret of each available teacher, nats ≥ 0, (R, n).

    Against the best possible teacher, or the best available where that is better: a measured teacher can do more for
    its students than its size or loss says.

    Args:
        law: a fitted law.
        params, tokens: the student, N_S and D_S.
        available: n teachers.
    """
    positions_on_axis = coordinates(available, law)
    regret = law.regret_draws(params, tokens, positions_on_axis, teacher_tokens_of(available))
    regret = regret + law.teacher_draws(params, tokens, positions_on_axis)
    return regret - np.minimum(regret.min(1, keepdims=True), 0.0)


def share_best(regret: np.ndarray) -> np.ndarray:
    """Chance of each teacher to be the best available, (n,), summing to 1; ties are shared.

    Args:
        regret: (R, n), nats.
    """
    best = regret <= regret.min(1, keepdims=True) + 1e-12
    return (best / best.sum(1, keepdims=True)).mean(0)


def near_optimal_range(law: FittedLaw, params, tokens, tolerance_nats: float, points: int = 161):
    """The measured stretch of teachers whose expected regret is within the tolerance.

    Args:
        law: a fitted law.
        params, tokens: the student, N_S and D_S.
        tolerance_nats: the regret that counts as none.
        points: of the grid over the measured teachers.

    Returns:
        (low, high) on the law's axis; a side is None where the stretch reaches the edge of what was measured.
    """
    low, high = law.measured[law.coordinate]
    grid = np.geomspace(low, high, points)
    inside = np.flatnonzero(law.regret_draws(params, tokens, grid).mean(0) <= tolerance_nats)
    if not len(inside):
        return None, None
    first, last = inside[0], inside[-1]
    return (float(grid[first]) if first else None, float(grid[last]) if last < points - 1 else None)


def extrapolation_flags(law: FittedLaw, params: float, tokens: float | None, available: list[Teacher]) -> list[Flag]:
    """How far the question lies outside what was measured, in units of the measured range of each logarithm.

    Args:
        law: a fitted law.
        params, tokens: the student, N_S and D_S.
        available: the teachers.

    Returns:
        Flags: a note near the edge, a warning beyond a quarter of the range, a refusal beyond 3 ranges.
    """
    flags = []
    question = {"student_params": params}
    if tokens is not None and "student_tokens" in law.measured:
        question["student_tokens"] = tokens
    for name, value in question.items():
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


def _optimum_flags(law: FittedLaw, optimum: Optimum) -> list[Flag]:
    """This student's optimum lies past what was measured: there is a choice among teachers, but its best place is
    open.
    """
    if optimum.censored is None:
        return []
    low, high = law.measured[law.coordinate]
    side = f"at or below the lowest measured, {low:.4g}" if optimum.censored == "low" else f"at or above {high:.4g}"
    text = f"the best {law.coordinate} for this student lies {side}: no interior optimum for it"
    return [Flag(f"edge_optimum_{optimum.censored}", text, "warning")]


def _teacher_flags(rows: list[TeacherChoice]) -> list[Flag]:
    """Teachers that are themselves no better than the student alone."""
    known = [row for row in rows if row.loss is not None and row.no_teacher_loss_nats is not None]
    weak = [row.name for row in known if row.loss >= row.no_teacher_loss_nats]
    text = (
        f"teachers no better than the student alone at equal compute: {', '.join(weak[:5])}"
        f"{' and more' * (len(weak) > 5)}"
    )
    return [Flag("teacher_no_better", text, "warning")] if weak else []


def ranges_outside(measured: tuple[float, float], value: float) -> float:
    """Distance of ln value beyond the measured interval, in units of its length (at least ln 2); 0 inside.

    Args:
        measured: (low, high).
        value: of the same unit, positive.
    """
    low, high = np.log(measured)
    return max(low - np.log(value), np.log(value) - high, 0.0) / max(high - low, np.log(2.0))


def _recommend(rows: list[TeacherChoice], law: FittedLaw) -> tuple[str | None, list[Flag]]:
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
