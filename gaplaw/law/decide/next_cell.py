"""Which cell is worth running next? Every candidate's expected drop in regret at the target student, per FLOP, and when
to stop.

After the choice in the law half. One-step look-ahead, linearised on the law's draws: a cell measures d, the student's
loss at a teacher relative to that student's other cells; if theta is the target's ln T* then observing d with noise s
removes the share

    rho² = Cov(theta, d)² / (Var(theta) (Var(d) + s²))

of theta's variance, and to second order the same share of the expected regret that knowing T* better can remove. Cells
are picked greedily: each pick is regressed out of the draws before the next is ranked, so two cells that say the same
count once. Related: V-optimal active design per cost, arXiv 2604.22753.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gaplaw.errors import LawError
from gaplaw.law.decide.candidates import candidate_cells, with_trained_teacher
from gaplaw.law.decide.cost import DEFAULT_TOKENS_PER_PARAM, tolerance_or_default
from gaplaw.law.fitted_law import FittedLaw
from gaplaw.law.table.values import to_positive
from gaplaw.law.text import size_words

WORTHLESS_SHARE = 0.002  # of the tolerance: a cell that lowers regret by less is not worth naming


@dataclass(frozen=True, kw_only=True, slots=True)
class NextCell:
    """One cell worth running: what it is, what it costs, and what it is expected to bring at the target."""

    teacher_params: float | None
    teacher_loss: float | None
    student_params: float
    student_tokens: float
    seed: int
    flops: float  # 6SD + 2TD, plus teacher training where the teacher is new
    new_teacher: bool
    expected_drop_nats: float

    @property
    def drop_per_flop(self) -> float:
        return self.expected_drop_nats / self.flops

    def to_dict(self) -> dict:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"drop_per_flop": self.drop_per_flop}


@dataclass(frozen=True, kw_only=True, slots=True)
class NextCells:
    """The ranked cells, the regret now and after them, and whether to stop."""

    cells: tuple[NextCell, ...]
    expected_regret_nats: float | None
    expected_regret_after_nats: float | None
    tolerance_nats: float
    budget_flops: float
    stop: bool
    statement: str

    def to_dict(self) -> dict:
        out = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "cells"}
        return out | {"cells": [cell.to_dict() for cell in self.cells]}

    def text(self) -> str:
        lines = [self.statement]
        if self.cells:
            lines.append(
                f"{'teacher':>10}{'student':>10}{'tokens':>9}{'seed':>6}{'FLOPs':>11}{'drop, nats':>13}{'per 1e18':>12}"
            )
        for cell in self.cells:
            teacher = size_words(cell.teacher_params) if cell.teacher_params else f"{cell.teacher_loss:.4g}"
            lines.append(
                f"{teacher:>10}{size_words(cell.student_params):>10}{size_words(cell.student_tokens):>9}{cell.seed:>6}"
                f"{cell.flops:>11.3g}{cell.expected_drop_nats:>13.5f}{cell.drop_per_flop * 1e18:>12.3g}"
            )
        return "\n".join(lines)


def next_cells(
    law: FittedLaw,
    *,
    target_student_params,
    budget_flops: float,
    target_student_tokens=None,
    candidates: Sequence[Mapping] | None = None,
    teacher_tokens_per_param: float = DEFAULT_TOKENS_PER_PARAM,
    tolerance_nats: float | None = None,
    most: int = 10,
) -> NextCells:
    """Cells ranked by expected drop of the target's regret per FLOP, taken greedily until the budget or the use is
    spent.

    Args:
        law: a fitted Law.
        target_student_params: the student the choice is for, number or size string; target_student_tokens its D_S.
        budget_flops: what the cells together may cost.
        candidates: mappings with student_params, student_tokens, teacher_params (or teacher_loss), and optionally seed,
            flops, new_teacher; by default the measured students × teachers over the measured range.
        teacher_tokens_per_param: D_T / T of a teacher that must be trained first.
        tolerance_nats: regret at which to stop; default 0.002 or one seed standard deviation.
        most: cells named at most.

    Raises:
        LawError: a target, budget or candidate that is not positive.
    """
    target = to_positive("target_student_params", target_student_params)
    tokens = None if target_student_tokens is None else to_positive("target_student_tokens", target_student_tokens)
    if not budget_flops > 0:
        raise LawError(f"budget_flops: {budget_flops} must be positive")
    tolerance = tolerance_or_default(law, tolerance_nats)
    cells = candidate_cells(law, candidates, teacher_tokens_per_param)
    positions_on_axis = [*law.measured[law.coordinate], *(cell[law.coordinate] for cell in cells)]
    options = np.geomspace(min(positions_on_axis), max(positions_on_axis), 81)
    regret = law.regret_draws(target, tokens, options)
    regret_now = float(regret.mean(0).min())
    if not law.refused and regret_now <= tolerance:
        statement = (
            f"stop: the expected regret at {size_words(target)} is {regret_now:.4f} nats, within the tolerance of "
            f"{tolerance:.4f}"
        )
        return NextCells(
            cells=(),
            expected_regret_nats=regret_now,
            expected_regret_after_nats=regret_now,
            tolerance_nats=tolerance,
            budget_flops=budget_flops,
            stop=True,
            statement=statement,
        )
    picks, after = (
        _greedy(law, cells, target, tokens, regret_now, budget_flops, tolerance, most) if cells else ((), regret_now)
    )
    if not cells:
        statement = f"stop: no cell is left to run (regret {regret_now:.4f}, tolerance {tolerance:.4f})"
    elif picks:
        flops = sum(cell.flops for cell in picks)
        statement = (
            f"{len(picks)} cells for {flops:.3g} FLOPs: expected regret at {size_words(target)} from {regret_now:.4f} "
            f"to about {after:.4f} nats (tolerance {tolerance:.4f})"
        )
    elif any(cell["flops"] <= budget_flops for cell in cells):
        statement = (
            f"stop: no cell within the budget lowers the expected regret of {regret_now:.4f} nats by "
            f"{WORTHLESS_SHARE * tolerance:.1e}; "
            "what remains is scatter between students"
        )
    else:
        statement = (
            f"stop: no cell fits the budget of {budget_flops:.3g} FLOPs (regret {regret_now:.4f}, tolerance "
            f"{tolerance:.4f})"
        )
    return NextCells(
        cells=picks,
        expected_regret_nats=regret_now,
        expected_regret_after_nats=after,
        tolerance_nats=tolerance,
        budget_flops=budget_flops,
        stop=not picks,
        statement=statement,
    )


def _greedy(law, cells, target, tokens, regret_now, budget, tolerance, most) -> tuple[tuple[NextCell, ...], float]:
    least = WORTHLESS_SHARE * min(regret_now, tolerance)
    theta = _clip_to_grid(law, law.optimum_draws(target, tokens))
    theta = theta - theta.mean()
    prior = float(theta @ theta) + 1e-300
    contrast, noise = _contrasts(law, cells)
    flops = np.array([cell["flops"] for cell in cells])
    budget_left, free = budget, np.ones(len(cells), dtype=bool)
    picks, regret_left = [], regret_now
    rows = contrast.shape[0]
    # A law that refuses has not shown a bowl yet: its regret says nothing, so it is never good enough to stop on.
    while len(picks) < most and (regret_left > tolerance or law.refused):
        variance = (contrast**2).sum(0) / rows
        share = (contrast.T @ theta) ** 2 / rows / (variance + noise**2)
        drop = regret_now * share / prior
        rate = np.where(free & (flops <= budget_left) & (drop >= least), drop / flops, -1.0)
        pick = int(np.argmax(rate)) if len(rate) else -1
        if pick < 0 or rate[pick] <= 0:
            break
        cell = cells[pick]
        picks.append(NextCell(expected_drop_nats=float(drop[pick]), **cell))
        regret_left -= float(drop[pick])
        budget_left -= flops[pick]
        free[pick] = False
        if cell["new_teacher"]:
            flops, cells = with_trained_teacher(flops, cells, cell)
        theta, contrast = _regress_out(theta, contrast, pick, noise[pick])
    return tuple(picks), max(regret_left, 0.0)


def _regress_out(theta, contrast, pick, noise):
    """Draws after the observation: the Gaussian conditional mean is removed, by the square-root (ensemble) update."""
    d = contrast[:, pick]
    rows = len(d)
    variance = d @ d / rows
    # Gain that leaves the ensemble with the exact conditional variance rather than none along d.
    gain = 1.0 / (variance + noise**2) / (1.0 + np.sqrt(noise**2 / (variance + noise**2)))
    theta = theta - d * (gain * (d @ theta) / rows)
    return theta, contrast - np.outer(d, gain * (d @ contrast) / rows)


def _clip_to_grid(law: FittedLaw, log_optima: np.ndarray) -> np.ndarray:
    """Draws without an interior optimum count as lying one ln unit past the measured teachers."""
    low, high = np.log(law.measured[law.coordinate])
    return np.clip(log_optima, low - 1.0, high + 1.0)


def _contrasts(law: FittedLaw, cells) -> tuple[np.ndarray, np.ndarray]:
    """What each cell measures beyond its student's own offset, (R, cells) centred over draws, and its noise sd
    (cells,).
    """
    sd = max(law.noise.seed_sd_nats or 0.0, law.noise.residual_sd_nats, 1e-9)
    known = {(s.student_params, s.student_tokens): s for s in law.students}
    by_student: dict[tuple, list[int]] = {}
    for index, cell in enumerate(cells):
        by_student.setdefault((cell["student_params"], cell["student_tokens"]), []).append(index)
    values = np.empty((0, 0))
    noise = np.empty(len(cells))
    for (params, tokens), members in by_student.items():
        student = known.get((params, tokens)) or known.get((params, None))
        teachers = [cells[index][law.coordinate] for index in members]
        # A student's own cells fix its offset; a student without cells has only the candidates' mean to be measured
        # against.
        others = np.geomspace(student.lowest, student.highest, student.teachers) if student else np.array(teachers)
        losses = law.loss_draws(params, tokens, np.concatenate([teachers, others]))
        contrast = losses[:, : len(members)] - losses[:, len(members) :].mean(1, keepdims=True)
        if not values.size:
            values = np.empty((len(losses), len(cells)))
        values[:, members] = contrast - contrast.mean(0)
        noise[members] = sd * np.sqrt(1.0 + 1.0 / len(others)) if student else sd * np.sqrt(2.0)
    return values, noise
