"""How does student loss depend on the teacher's loss? A table of teacher losses in, the averaged forms with draws out.

After `forms`, `correction` and `stacking`, which it calls; before `summary`, which makes the law of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gaplaw.errors import LawError
from gaplaw.law.no_teacher.baseline import baseline_loss, fit_baseline
from gaplaw.law.table.read import Table
from gaplaw.law.teacher_loss.form_average import FormAverage
from gaplaw.law.teacher_loss.forms import Inputs
from gaplaw.law.teacher_loss.stacking import draw_bootstrap, fit_average
from gaplaw.law.teacher_loss.surface import LossSurface, columns_of

FEWEST_ROWS = 20
SAME_TOKENS = 0.1  # ln units
LEAST_STUDENT_SCATTER_LN = 0.01  # ln L_T; a new student's own shift is never taken to be exactly zero


@dataclass(frozen=True, kw_only=True, slots=True)
class FormsFit:
    """The averaged forms with their draws, and the rows that they were fitted to; log losses in ln nats."""

    surface: LossSurface
    inputs: Inputs  # (n,)
    log_loss: np.ndarray  # (n,)
    weight: np.ndarray | None  # (n,)
    student_scatter_ln: float

    @property
    def average(self) -> FormAverage:
        return self.surface.average


def fit_forms(table: Table, *, seed: int, draws: int) -> FormsFit:
    """L_S(N_S, D_S, L_T) of a table of teacher losses: competing forms, corrected, averaged and drawn.

    Args:
        table: `Table` with coordinate teacher_loss.
        seed: of the draws.
        draws: wild-cluster bootstrap draws.

    Raises:
        LawError: fewer rows than the forms have parameters to spare, or a student loss that is not positive.
    """
    frame = table.frame
    if len(frame) < FEWEST_ROWS:
        raise LawError(
            f"{table.source}: {len(frame)} rows are too few for a law in teacher loss; {FEWEST_ROWS} are needed"
        )
    log_n, log_d, log_t, log_s = columns_of(frame)
    if log_d is not None and np.ptp(log_d) < SAME_TOKENS:
        log_d = None  # one token budget says nothing about tokens: a term for them would only trade with the floor
    baseline = fit_baseline(table)
    no_teacher_log_loss = None
    if baseline is not None:
        no_teacher_log_loss = np.log(baseline_loss(baseline, np.exp(log_n), None if log_d is None else np.exp(log_d)))
    centre = (float(log_n.mean()), None if log_d is None else float(log_d.mean()))
    inputs = Inputs(log_n - centre[0], None if log_d is None else log_d - centre[1], log_t, no_teacher_log_loss)
    weight = frame["weight"].to_numpy(float) if "weight" in frame else None
    sizes = frame["student_params"].to_numpy(float)
    average = fit_average(inputs, log_s, sizes=sizes, weight=weight)
    groups, teachers = clusters(frame)
    average = draw_bootstrap(
        average, inputs, log_s, groups=groups, teachers=teachers, weight=weight, count=draws, seed=seed
    )
    tau = student_scatter(average, inputs, log_s, sizes)
    total = sum(len(part.theta_draws) for part in average.components)
    rng = np.random.default_rng(seed + 1)
    # tau rests on few students: its own uncertainty widens the scatter as a t distribution.
    freedom = max(len(np.unique(sizes)) - 1, 2)
    scatter = tau * rng.standard_normal(total) * np.sqrt(freedom / rng.chisquare(freedom, total))
    surface = LossSurface(
        average=average,
        centre=centre,
        log_ratio=None if log_d is None else float(np.median(log_d - log_n)),
        span=(float(log_t.min()), float(log_t.max())),
        scatter=np.clip(scatter, -0.5, 0.5),
        baseline=baseline,
    )
    return FormsFit(surface=surface, inputs=inputs, log_loss=log_s, weight=weight, student_scatter_ln=tau)


def clusters(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Cluster labels (n,) of rows: one per (student, tokens), and one per teacher (equal losses to 3 decimals).

    Args:
        frame: canonical.
    """
    names = [name for name in ("student_params", "student_tokens") if name in frame]
    groups = frame.groupby(names, sort=True).ngroup().to_numpy()
    return groups, np.unique(frame["teacher_loss"].round(3), return_inverse=True)[1]


def student_scatter(average, inputs: Inputs, log_loss, sizes) -> float:
    """tau: how far students' bowls sit from where the law, fitted without them, puts them, ln L_T.

    Per student the left-out residual is regressed on the slope of its predicted curve; the variance of these shifts
    beyond their own standard errors is tau², with a floor.

    Args:
        average: the fitted forms. inputs, log_loss: the rows. sizes: (n,) student sizes.
    """
    if average.left_out_log_loss is None:
        return 0.05
    step = 0.005
    up = Inputs(inputs.x, inputs.y, inputs.t + step, inputs.no_teacher_log_loss)
    down = Inputs(inputs.x, inputs.y, inputs.t - step, inputs.no_teacher_log_loss)
    slope = (average.log_loss(up, teachers=False) - average.log_loss(down, teachers=False)) / (2 * step)
    residual = log_loss - average.left_out_log_loss
    shifts, errors = [], []
    for size in np.unique(sizes):
        rows = sizes == size
        s, r = slope[rows] - slope[rows].mean(), residual[rows] - residual[rows].mean()
        if rows.sum() < 4 or s @ s < 1e-6:
            continue
        shift = -(s @ r) / (s @ s)
        shifts.append(shift)
        errors.append(np.mean((r + shift * s) ** 2) / (s @ s))
    if len(shifts) < 2:
        return 0.05
    return float(np.sqrt(max(np.mean(np.square(shifts)) - np.mean(errors), LEAST_STUDENT_SCATTER_LN**2)))
