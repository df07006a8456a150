"""Who was measured, and what would a rule of thumb have picked? One case per measured student, for scoring rivals.

Helper of `compare`, in the law half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.law.decide.rules_of_thumb import nearest, size_equivalents, size_rules

FEWEST_TEACHERS_TO_SCORE = 4  # for a student to be scored


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One measured student, as a case on which a rule or a law is scored.

    Attributes:
        student_params, student_tokens: N_S and D_S.
        log_teacher: (n,) ln of its teachers on the law's axis.
        loss: (n,) mean over seeds, nats.
        rows: (n,) runs behind each mean.
        log_size: (n,) ln teacher size or its equivalent; None where unknown.
    """

    student_params: float
    student_tokens: float | None
    log_teacher: np.ndarray  # (n,)
    loss: np.ndarray  # (n,) mean over seeds, nats
    rows: np.ndarray  # (n,) teachers' seeds
    log_size: np.ndarray | None  # (n,) ln teacher size or its equivalent

    def regret(self, index: int) -> float:
        """Loss under that teacher minus the least measured, nats ≥ 0."""
        return float(self.loss[index] - self.loss.min())


def cases_of(table, axis: str, baseline: dict | None = None) -> list[Case]:
    """Every (student, tokens) of a table with enough teachers to be scored.

    Args:
        table: a `Table`.
        axis: the law's coordinate.
        baseline: the no-teacher law, which gives teachers known by loss a size.
    """
    frame = table.frame
    keys = ["student_params"] + (["student_tokens"] if "student_tokens" in frame else [])
    out = []
    for key, group in frame.groupby(keys):
        mean = group.groupby(axis)["student_loss"].agg(["mean", "count"])
        if len(mean) < FEWEST_TEACHERS_TO_SCORE:
            continue
        teachers = mean.index.to_numpy(float)
        if "teacher_params" in group:
            sizes = group.groupby(axis)["teacher_params"].mean().to_numpy(float)
        else:
            sizes = size_equivalents(teachers, baseline)
        out.append(
            Case(
                student_params=float(key[0]),
                student_tokens=float(key[1]) if len(key) > 1 else None,
                log_teacher=np.log(teachers),
                loss=mean["mean"].to_numpy(),
                rows=mean["count"].to_numpy(float),
                log_size=None if sizes is None else np.log(sizes),
            )
        )
    return out


def rule_picks(case: Case, constant_ratio: float | None) -> dict[str, int | None]:
    """Index of the teacher that each size rule picks; None where sizes or the ratio are unknown.

    Args:
        case: a student. constant_ratio: the ratio learnt from other students.
    """
    picks: dict[str, int | None] = {}
    own = np.log(case.student_params)
    for rule, ratio in size_rules(constant_ratio).items():
        known = case.log_size is not None and ratio is not None
        picks[rule] = nearest(case.log_size, own + np.log(ratio)) if known else None
    return picks


def learn_ratio(cases: list[Case]) -> float | None:
    """The constant ratio T / N_S of least mean regret on these cases, middle of its stretch; None without sizes."""
    if not cases or any(case.log_size is None for case in cases):
        return None
    low = min(case.log_size.min() - np.log(case.student_params) for case in cases)
    high = max(case.log_size.max() - np.log(case.student_params) for case in cases)
    grid = np.linspace(low, high, 121)
    return _best_ratio(grid, [_regrets(c, c.log_size, np.log(c.student_params) + grid) for c in cases])


def learn_loss_ratio(cases: list[Case], scales: list[float]) -> float:
    """The constant c of least mean regret in L_T* = c · scale, middle of its stretch.

    Args:
        cases: students. scales: for each, the loss that c multiplies, nats.
    """
    grid = np.linspace(np.log(0.6), np.log(1.2), 121)
    return _best_ratio(grid, [_regrets(c, c.log_teacher, np.log(s) + grid) for c, s in zip(cases, scales, strict=True)])


def _regrets(case: Case, log_values, log_targets) -> np.ndarray:
    """Regret of the teacher nearest to each target, nats."""
    return case.loss[np.abs(log_values[:, None] - log_targets).argmin(0)] - case.loss.min()


def _best_ratio(grid, regrets) -> float:
    mean = np.mean(regrets, axis=0)
    return float(np.exp(grid[mean <= mean.min() + 1e-12].mean()))
