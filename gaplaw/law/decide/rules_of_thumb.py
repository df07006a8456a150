"""What would the rules of thumb pick? Same size, 2.5 times, the largest, a constant ratio; always shown beside the law.

Part of the law half, used by the comparison (scored on measured students) and by the choice (scored by the law's own
regret). A rule names a target and takes the available teacher nearest to it in log. Where teachers are known by loss
only, a size rule needs each loss's size-equivalent (20 tokens per parameter, from the no-teacher law); without one it
is not applicable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.law.decide.teachers import EQUIVALENT_TOKENS_PER_PARAM, Teacher
from gaplaw.law.no_teacher.scaling_law import law_loss

PUBLISHED_RATIO = 2.5  # Zhang et al. 2023, arXiv 2311.07052: students pruned from their teachers
LARGEST, CONSTANT_LOSS_RATIO = "largest available", "constant loss ratio"


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleChoice:
    """What one rule picks from the available teachers, and the law's expected regret of that pick, nats."""

    rule: str
    teacher: str | None
    expected_regret_nats: float | None
    target: float | None = None
    note: str = ""

    def to_dict(self) -> dict:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def size_rules(constant_ratio: float | None) -> dict[str, float | None]:
    """Rule → the ratio of teacher to student size that it names; None where no ratio was measured."""
    return {"same size": 1.0, "2.5 times": PUBLISHED_RATIO, "constant ratio": constant_ratio}


def strongest(values, coordinate: str) -> int:
    """Index of the teacher of lowest loss where loss is the coordinate, of the largest otherwise."""
    return int(np.argmin(values) if coordinate == "teacher_loss" else np.argmax(values))


def nearest(log_values: np.ndarray, log_target: float) -> int:
    """Index of the available value that is nearest to the target.

    Args:
        log_values: (n,) logs. log_target: a log.
    """
    return int(np.argmin(np.abs(log_values - log_target)))


def size_equivalents(losses, baseline: dict | None) -> np.ndarray | None:
    """Sizes whose no-teacher loss at 20 tokens per parameter equals each loss, (n,).

    Args:
        losses: (n,) nats.
        baseline: the no-teacher law.

    Returns:
        Parameters, or None when no law over sizes and tokens gives them.
    """
    if baseline is None or baseline["kind"] != "surface":
        return None
    log_sizes = np.linspace(np.log(1e4), np.log(1e16), 4000)
    curve = law_loss(baseline["parameters"], np.exp(log_sizes), EQUIVALENT_TOKENS_PER_PARAM * np.exp(log_sizes))
    return np.exp(np.interp(-np.asarray(losses, dtype=float), -curve, log_sizes))


def rule_choices(
    law, available: list[Teacher], params: float, tokens, expected_regret: np.ndarray
) -> tuple[RuleChoice, ...]:
    """What every rule picks from the available teachers.

    Args:
        law: a fitted law, compared or not.
        available: n teachers.
        params, tokens: the student, N_S and D_S.
        expected_regret: (n,) the law's expected regret of each teacher, nats.

    Returns:
        One RuleChoice per rule; its teacher is None where the rule does not apply, and `note` says why.
    """
    sizes = [teacher.params for teacher in available]
    if any(size is None for size in sizes):
        losses = [teacher.loss for teacher in available]
        equivalent = None if any(loss is None for loss in losses) else size_equivalents(losses, law.baseline)
        sizes, note = equivalent, "sizes from losses, at 20 tokens per parameter"
    else:
        note = ""
    out = []
    for rule, ratio in size_rules(law.comparison.get("constant_ratio")).items():
        if sizes is None or ratio is None:
            why = (
                "not applicable: teachers are known by loss only"
                if sizes is None
                else "not applicable: no ratio measured"
            )
            out.append(RuleChoice(rule=rule, teacher=None, expected_regret_nats=None, note=why))
            continue
        target = ratio * params
        out.append(_rule_choice(rule, nearest(np.log(sizes), np.log(target)), available, expected_regret, target, note))
    pick = strongest([teacher.coordinate(law.coordinate) for teacher in available], law.coordinate)
    out.insert(2, _rule_choice(LARGEST, pick, available, expected_regret, None, ""))
    constant = law.comparison.get("loss_ratio")
    if law.coordinate == "teacher_loss" and constant is not None:
        target = constant * float(law.surface.scale_loss(params, tokens))
        losses = np.log([teacher.loss for teacher in available])
        pick = nearest(losses, np.log(target))
        out.append(_rule_choice(CONSTANT_LOSS_RATIO, pick, available, expected_regret, target, ""))
    return tuple(out)


def _rule_choice(rule, index, available, expected_regret, target, note) -> RuleChoice:
    return RuleChoice(
        rule=rule,
        teacher=available[index].name,
        expected_regret_nats=float(expected_regret[index]),
        target=None if target is None else float(target),
        note=note,
    )
