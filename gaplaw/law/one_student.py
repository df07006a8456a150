"""Which teacher is best for ONE measured student? A parabola with Fieller's interval, an Akima curve, the joint fit.

Follows `joint` in the law half of the walk. The first two look at one student alone: the parabola is precise and, on an
asymmetric bowl, precisely wrong; the Akima curve follows the points and cannot leave them. Neither feeds the law; they
are there so that disagreement with the joint fit is seen. All positions in ln teacher size, losses in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import Akima1DInterpolator
from scipy.special import stdtrit

from gaplaw.law.answers import MethodOptimum, StudentOptimum
from gaplaw.law.numeric.quantiles import Interval, interval

DISAGREE_LN = np.log(2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One student's cells: ln teacher x (n,) rising, mean loss y (n,), sd of each mean (n,), degrees of freedom of that
    sd.
    """

    x: np.ndarray
    y: np.ndarray
    sd: np.ndarray
    freedom: float


def fieller(a: float, b: float, cov: np.ndarray, t: float) -> tuple[float | None, float | None]:
    """All x at which the slope 2 a x + b of a parabola is compatible with 0: (2ax + b)² ≤ t² Var(2ax + b).

    Args:
        a, b: curvature and slope coefficients of y = a x² + b x + c; cov (2, 2) their covariance, order (a, b); t:
          quantile.

    Returns:
        (low, high); None on an unbounded side, (None, None) when the curvature is not significant (the set is a
        half-line, a line, or the outside of an interval, none of which locates an optimum). Reference: Fieller (1954),
        J. R. Stat. Soc. B 16, 175.
    """
    vaa, vab, vbb = cov[0, 0], cov[0, 1], cov[1, 1]
    # A x² + B x + C ≤ 0
    qa, qb, qc = 4 * (a * a - t * t * vaa), 4 * (a * b - t * t * vab), b * b - t * t * vbb
    root = qb * qb - 4 * qa * qc
    if a <= 0 or qa <= 0 or root < 0:
        return None, None
    return (-qb - np.sqrt(root)) / (2 * qa), (-qb + np.sqrt(root)) / (2 * qa)


def quadratic(data: Profile) -> MethodOptimum:
    """Vertex of the least-squares parabola with Fieller's interval; its own residuals set the noise when they are
    larger.

    Args:
        data: one student's cells.

    Returns:
        MethodOptimum; without a point where there are fewer than 3 teachers or no minimum.
    """
    if len(data.x) < 3:
        return MethodOptimum(method="quadratic", point=None, note="fewer than 3 teachers")
    centre = data.x.mean()
    x = data.x - centre
    columns = np.stack([x * x, x, np.ones_like(x)], axis=1) / data.sd[:, None]
    coefficients, *_ = np.linalg.lstsq(columns, data.y / data.sd, rcond=None)
    misfit = ((columns @ coefficients - data.y / data.sd) ** 2).sum()
    own = len(x) - 3
    freedom = own + data.freedom
    inflation = max(1.0, misfit / own) if own > 0 else 1.0
    cov = np.linalg.inv(columns.T @ columns)[:2, :2] * inflation
    a, b = coefficients[:2]
    if a <= 0:
        return MethodOptimum(method="quadratic", point=None, note="curvature is not positive: no minimum")
    vertex = centre - b / (2 * a)
    spans = []
    for level in (0.5, 0.9):
        spans.append(_exp(fieller(a, b, cov, float(stdtrit(freedom, 0.5 + level / 2))), centre))
    note = "curvature not significant: interval unbounded" if spans[1] == (None, None) else ""
    side = "low" if vertex < data.x[0] else "high" if vertex > data.x[-1] else None
    point = float(np.exp(vertex)) if abs(vertex - centre) < 20 else None
    return MethodOptimum(
        method="quadratic", point=point, interval50=spans[0], interval90=spans[1], censored=side, note=note
    )


def akima(data: Profile, rng: np.random.Generator, draws: int = 400) -> MethodOptimum:
    """Minimum of an Akima curve through the points; noise redrawn for the interval, widened to a third of the grid
    spacing.

    A minimum at the end of the grid is censored, and an interval side is None when that share of draws ends there.

    Args:
        data: one student's cells. rng: of the noise. draws: of the interval.
    """
    if len(data.x) < 3:
        return MethodOptimum(method="akima", point=None, note="fewer than 3 teachers")
    fine = np.linspace(data.x[0], data.x[-1], 401)
    noise = data.sd[:, None] * rng.standard_normal((len(data.x), draws))
    noise[:, 0] = 0.0
    at = Akima1DInterpolator(data.x, data.y[:, None] + noise, axis=0, method="makima")(fine).argmin(axis=0)
    best = fine[at[0]]
    edge = "low" if at[0] == 0 else "high" if at[0] == len(fine) - 1 else None
    spacing = np.diff(data.x).max()
    minima = fine[at].copy()
    spread = max((spacing / 3) ** 2 - minima.var(), 0.0) ** 0.5
    minima += spread * rng.standard_normal(draws)
    minima[at == 0], minima[at == len(fine) - 1] = -np.inf, np.inf
    spans = [interval(minima, level) for level in (0.5, 0.9)]
    return MethodOptimum(
        method="akima", point=float(np.exp(best)), interval50=spans[0], interval90=spans[1], censored=edge,
        note="minimum at the end of the teacher grid" if edge else "",
    )  # fmt: skip


def joint(point: float, spans, data: Profile) -> MethodOptimum:
    """The joint law's optimum for this student, beside the two methods that look at the student alone.

    Args:
        point: ln T*, may be infinite.
        spans: (50 %, 90 %) intervals of ln T*, sides None where unbounded.
        data: the student's cells, for the ends of its grid.
    """
    if not np.isfinite(point):
        return MethodOptimum(method="joint", point=None, note="no interior optimum")
    side = "low" if point < data.x[0] else "high" if point > data.x[-1] else None
    return MethodOptimum(
        method="joint", point=float(np.exp(point)), interval50=_exp(spans[0], 0.0), interval90=_exp(spans[1], 0.0),
        censored=side, note="past the end of this student's teachers" if side else "",
    )  # fmt: skip


def compare_methods(
    student_params: float, student_tokens: float | None, data: Profile, methods, best_loss_nats: float | None
) -> StudentOptimum:
    """The methods side by side, and whether they disagree: points 2x apart, or one outside another's 90 % interval.

    Args:
        student_params, student_tokens: N_S and D_S.
        data: the student's cells.
        methods: what each said.
        best_loss_nats: the student's loss under its best teacher, where the law knows it.
    """
    points = {m.method: np.log(m.point) for m in methods if m.point is not None and m.censored is None}
    spread = float(max(points.values()) - min(points.values())) if len(points) > 1 else None
    disagree = spread is not None and spread > DISAGREE_LN
    own = points.get("joint")
    for m in methods:
        if own is not None and m.method != "joint" and m.point is not None:
            low, high = m.interval90
            disagree |= (low is not None and own < np.log(low)) or (high is not None and own > np.log(high))
    return StudentOptimum(
        student_params=float(student_params), student_tokens=student_tokens, teachers=len(data.x),
        lowest=float(np.exp(data.x[0])), highest=float(np.exp(data.x[-1])), methods=tuple(methods), spread=spread,
        disagree=bool(disagree), best_loss_nats=best_loss_nats,
    )  # fmt: skip


def _exp(span: Interval, shift: float) -> Interval:
    low, high = (None if end is None or abs(end) > 600 else float(np.exp(end + shift)) for end in span)
    return low, high
