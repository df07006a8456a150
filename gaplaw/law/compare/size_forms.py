"""T = kS, kS + b, kS^p or kS^p (D/S)^q: which form do the students' own optima support?

Helper of `compare`, in the law half. The forms share the joint fit's bowl: a student's evidence about its own optimum
is the likelihood curve of the bowl's place, blurred by the between-student scatter, so that students with an optimum
past the edge count for what they say and nothing is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from gaplaw.law.compare.cases import Case

LEAST_SCATTER_LN = 0.05  # ln T; between-student scatter is never taken to be smaller when forms are compared


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeForm:
    """ln T*(S, D/S) as one of the competing laws; `grid` holds candidate parameters (g, m)."""

    name: str
    parameters: int
    drifts: bool = False
    offset: bool = False
    power: bool = True

    def log_optima(self, theta: np.ndarray, log_size: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
        """ln T* of every candidate and student, (g, n).

        Args:
            theta: (g, 3): optimum at the mean student, p, q; for kS + b, p is the local slope there.
            log_size: (n,) ln N_S − mean. log_ratio: (n,) ln(D_S / N_S) − mean.
        """
        if self.offset:
            # T = kS + b with value exp(theta0) and log-slope p at the mean student: T / T0 = 1 + p (S/S0 − 1).
            return theta[:, 0:1] + np.log(np.maximum(1.0 + theta[:, 1:2] * (np.exp(log_size) - 1.0), 1e-6))
        return theta[:, 0:1] + theta[:, 1:2] * log_size + theta[:, 2:3] * log_ratio


SIZE_FORMS = (
    SizeForm(name="T = k S", parameters=1, power=False),
    SizeForm(name="T = k S + b", parameters=2, offset=True),
    SizeForm(name="T = k S^p", parameters=2),
    SizeForm(name="T = k S^p (D/S)^q", parameters=3, drifts=True),
)


def evidence(case: Case, bowl, noise: float, tau: float, log_optima: np.ndarray) -> np.ndarray:
    """ln likelihood of the optimum's place for one student, from its own best, offset profiled out, blurred by tau.

    Args:
        case: the student.
        bowl: u → nats.
        noise: sd of one run, nats. tau: scatter between students, ln T.
        log_optima: (g,) even grid of candidate places, ln T.

    Returns:
        (g,), largest value 0.
    """
    h = bowl(case.log_teacher[None] - log_optima[:, None])
    w = case.rows / noise**2
    gap = case.loss[None] - h
    gap = gap - (gap @ w / w.sum())[:, None]
    log_likelihood = -0.5 * (gap**2 @ w)
    top = log_likelihood.max()
    blurred = gaussian_filter1d(
        np.exp(log_likelihood - top), tau / (log_optima[1] - log_optima[0]), mode="nearest", truncate=6.0
    )
    # Past the blur's reach the likelihood keeps falling as it does without blur: no form may win by being lost in
    # zeros.
    out = np.maximum(np.log(np.maximum(blurred, 1e-300)), np.maximum(log_likelihood - top, -600.0))
    return out - out.max()


def fit_forms(
    log_likelihoods: np.ndarray, log_optima: np.ndarray, log_size: np.ndarray, log_ratio: np.ndarray, with_tokens: bool
):
    """The best fit of every competing form to the students' evidence, by a grid refined seven times.

    Args:
        log_likelihoods: (n, g), from `evidence`.
        log_optima: (g,) its grid.
        log_size, log_ratio: (n,) centred ln N_S and ln(D_S / N_S).
        with_tokens: also fit the form with an exponent of tokens.

    Returns:
        Name → (form, theta (3,), ln likelihood).
    """
    out = {}
    step = log_optima[1] - log_optima[0]
    for form in SIZE_FORMS:
        if form.drifts and not with_tokens:
            continue
        centre, half = np.array([log_optima.mean(), 1.0, 0.0]), np.array([np.ptp(log_optima) / 2, 1.2, 0.8])
        free = np.array([True, form.power or form.offset, form.drifts])
        theta, value = centre, -np.inf
        for _ in range(7):
            axes = [centre[i] + half[i] * np.linspace(-1, 1, 17) if free[i] else [centre[i]] for i in range(3)]
            if form.offset:
                axes[1] = np.clip(axes[1], 0.0, None)
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
            at = np.clip(
                (form.log_optima(grid, log_size, log_ratio) - log_optima[0]) / step, 0, len(log_optima) - 1.001
            )
            cell = at.astype(int)
            rows = np.arange(len(log_size))
            share = at - cell
            total = (log_likelihoods[rows, cell] * (1 - share) + log_likelihoods[rows, cell + 1] * share).sum(1)
            theta, value = grid[int(np.argmax(total))], float(total.max())
            centre, half = theta, half * 0.35
        out[form.name] = (form, theta, value)
    return out


def aicc(log_likelihood: float, parameters: int, students: int) -> float:
    """Small-sample AIC with n = students: −2 ln L + 2k + 2k(k+1)/(n − k − 1); infinite when n ≤ k + 1.

    Args:
        log_likelihood: ln L. parameters: k. students: n.
    """
    if students - parameters - 1 <= 0:
        return float("inf")
    return -2 * log_likelihood + 2 * parameters + 2 * parameters * (parameters + 1) / (students - parameters - 1)


def shared_bowl(law, cases: list[Case]):
    """u → nats: the law's own bowl around its minimum, as the middle student has it.

    Args:
        law: a fitted law over sizes. cases: its students.
    """
    middle = cases[len(cases) // 2]
    logs = np.concatenate([case.log_teacher for case in cases])
    reach = np.ptp(logs) + 2.0
    log_optimum = law.surface.optimum_point(middle.student_params, middle.student_tokens)
    log_optimum = float(np.clip(log_optimum, logs.min(), logs.max()))
    u = np.linspace(-reach, reach, 401)
    ask = pd.DataFrame({"student_params": middle.student_params, "teacher_params": np.exp(log_optimum + u)})
    if middle.student_tokens is not None:
        ask["student_tokens"] = middle.student_tokens
    curve = law.surface.predict(ask)
    spline = CubicSpline(u - u[int(np.argmin(curve))], curve - curve.min())
    return lambda at: spline(np.clip(at, spline.x[0], spline.x[-1]))
