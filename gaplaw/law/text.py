"""How are the law half's answers said to people? Plain text for the terminal; the numbers come from the result objects.

Last file of the law half before the command line.
"""

from __future__ import annotations

import numpy as np

from gaplaw.spec.sizes import size_name


def size_words(value: float | None) -> str:
    """1.234e9 → '1.23B': an estimate, so one digit more than in the name of a cell."""
    return "unknown" if value is None or not np.isfinite(value) else size_name(value, digits=3)


def coordinate_words(value: float | None, coordinate: str) -> str:
    """A point on the law's axis: a size, or a loss in nats.

    Args:
        value: parameters or nats; None is 'unknown'. coordinate: the law's.
    """
    return size_words(value) if coordinate == "teacher_params" else "unknown" if value is None else f"{value:.4g} nats"


def interval_words(pair, coordinate: str) -> str:
    """An interval on the law's axis, with an open side said as such.

    Args:
        pair: (low, high), None where unbounded. coordinate: the law's.
    """
    low, high = pair
    if low is None and high is None:
        return "unbounded on both sides"
    if low is None:
        return f"at most {coordinate_words(high, coordinate)} (unbounded below)"
    if high is None:
        return f"at least {coordinate_words(low, coordinate)} (unbounded above)"
    return f"{coordinate_words(low, coordinate)} to {coordinate_words(high, coordinate)}"


def choice_text(choice) -> str:
    """A `Choice` in a few lines: the answer, the optimum, one line per teacher, the rules, the flags."""
    axis = choice.coordinate
    tokens = "" if choice.student_tokens is None else f", {size_words(choice.student_tokens)} tokens"
    lines = [f"student {size_words(choice.student_params)}{tokens}; cost case: {choice.cost}"]
    point = getattr(choice.optimum, axis)
    if choice.recommended is not None:
        lines.append(f"recommended teacher: {choice.recommended}")
    elif any(flag.kind == "not_worth_it" for flag in choice.flags):
        lines.append("no teacher recommended: distillation is not worth it here (see below)")
    else:
        lines.append("no teacher recommended: the law refuses to answer (see below)")
    if point is not None:
        lines.append(f"best teacher: {coordinate_words(point, axis)}")
        lines.append(f"  50% interval: {interval_words(choice.optimum.interval50, axis)}")
        lines.append(f"  90% interval: {interval_words(choice.optimum.interval90, axis)}")
    lines.append("")
    lines.append(f"{'teacher':<16}{'size':>9}{'loss':>8}{'regret, nats':>14}{'P(best)':>9}{'cost, nats':>12}"
                 f"{'6SD + 2TD':>12}{'6TD_T':>11}")  # fmt: skip
    order = sorted(choice.teachers, key=lambda t: (t.expected_regret_nats is None, t.total_nats))
    for t in order:
        mark = "*" if t.name == choice.recommended else "+" if t.name in choice.near_optimal else " "
        both = None if t.teacher_forward_flops is None else t.student_training_flops + t.teacher_forward_flops
        lines.append(
            f"{mark} {t.name:<14}{size_words(t.params) if t.params else '-':>9}{_number(t.loss, '.3f'):>8}"
            f"{_number(t.expected_regret_nats, '.4f'):>14}{_number(t.p_best, '.0%'):>9}"
            f"{_number(t.cost_nats, '.4f'):>12}"
            f"{_number(both, '.3g'):>12}{_number(t.teacher_training_flops, '.3g'):>11}"
        )
    lines.append(f"* recommended, + within {choice.tolerance_nats:.4g} nats of the best")
    if choice.rules:
        lines.append("")
        lines.append("what rules of thumb would pick")
        for rule in choice.rules:
            picked = (
                rule.note if rule.teacher is None else f"{rule.teacher}, regret {rule.expected_regret_nats:.4f} nats"
            )
            lines.append(f"  {rule.rule:<20}{picked}")
    if choice.flags:
        lines.append("")
        lines += [f"[{flag.severity}] {flag.message}" for flag in choice.flags]
    return "\n".join(lines)


def _number(value, form: str) -> str:
    return "-" if value is None else format(value, form)
