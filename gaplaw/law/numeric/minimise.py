"""How is a robust fit minimised so that it can be trusted? Many starts and many draws at once, by damped Newton steps.

Helper of the law half: `no_teacher.supervised_fit` and `teacher_loss.forms` state residuals with exact derivatives.
This file minimises

    F_b(theta) = sum_i w_bi Huber_delta(r_i(theta))        for every start or bootstrap draw b at once.

With delta far below the residuals' size the problem is nearly least absolute deviations, where quasi-Newton codes stop
early (the Chinchilla trap). Here every step uses the exact Hessian in a scaled basis, a step is kept only
when F falls, and convergence means a small predicted decrease relative to F, never "the optimiser stopped".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Minima:
    """What every start reached: theta (B, P), objective (B,), converged (B,) bool, iterations used."""

    theta: np.ndarray
    objective: np.ndarray
    converged: np.ndarray
    iterations: int

    @property
    def best(self) -> int:
        return int(np.argmin(self.objective))

    def share_at_best(self, relative: float = 1e-6) -> float:
        """Share of starts whose objective is within `relative` of the best."""
        low = self.objective[self.best]
        return float(np.mean(self.objective <= low + relative * max(abs(low), 1e-300)))


@dataclass(frozen=True, slots=True)
class Residuals:
    """Residuals and their derivatives at a batch of points.

    Attributes:
        value: (B, n).
        jacobian: (B, n, P).
        bend: v (B, n) → Σ_i v_bi Hess r_i, (B, P, P). Without it the curvature is Gauss-Newton on the IRLS majorant
            of the Huber loss: positive, and exact at small residuals.
    """

    value: np.ndarray
    jacobian: np.ndarray
    bend: Callable[[np.ndarray], np.ndarray] | None = None


def huber(r: np.ndarray, delta: float) -> np.ndarray:
    """Huber's loss: r²/2 inside delta and delta (|r| − delta/2) outside.

    Args:
        r: residuals, any shape. delta: threshold, same unit.
    """
    size = np.abs(r)
    return np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta))


def minimise(
    value: Callable[[np.ndarray], np.ndarray],
    residuals: Callable[[np.ndarray], Residuals],
    starts: np.ndarray,
    *,
    delta: float,
    weights: np.ndarray | None = None,
    penalty: tuple[np.ndarray, np.ndarray] | None = None,
    shift: np.ndarray | None = None,
    iterations: int = 200,
    tolerance: float = 1e-11,
    chunk: int = 128,
) -> Minima:
    """Minimise the Huber objective from every row of `starts`.

    Args:
        value: theta (B, P) → residuals (B, n); the cheap half of `residuals`.
        residuals: theta (B, P) → `Residuals`.
        starts: (B, P).
        delta: Huber's threshold, in the residuals' unit.
        weights: None, or (B, n) or (1, n) non-negative row weights (bootstrap counts).
        penalty: None, or (centre, precision), each (P,) or (B, P): adds ½ Σ precision (theta − centre)², a weak
            ridge.
        shift: None, or (B, n), subtracted from the residuals: other targets for every start (wild bootstrap draws).
        iterations: most Newton steps.
        tolerance: a start has converged when the predicted decrease is below tolerance × F.
        chunk: starts handled together; keeps the work in cache.

    Returns:
        Minima.
    """
    batch, size = starts.shape
    centre, precision = (np.zeros(size), np.zeros(size)) if penalty is None else penalty
    problem = _Problem(
        value=value,
        residuals=residuals,
        delta=delta,
        weights=None if weights is None else np.broadcast_to(weights, (batch, weights.shape[1])),
        centre=np.broadcast_to(centre, (batch, size)),
        precision=np.broadcast_to(precision, (batch, size)),
        shift=shift,
    )
    parts = []
    for low in range(0, batch, chunk):
        index = np.arange(low, min(low + chunk, batch))
        parts.append(_chunk(problem, np.array(starts[index], dtype=np.float64), index, iterations, tolerance))
    theta, objective, converged, steps = (list(column) for column in zip(*parts, strict=True))
    return Minima(
        theta=np.concatenate(theta),
        objective=np.concatenate(objective),
        converged=np.concatenate(converged),
        iterations=max(steps),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """What `minimise` was given, with everything that differs between starts indexed by the start."""

    value: Callable
    residuals: Callable
    delta: float
    weights: np.ndarray | None
    centre: np.ndarray
    precision: np.ndarray
    shift: np.ndarray | None

    def cost(self, points, index) -> np.ndarray:
        r = self.value(points)
        terms = huber(r if self.shift is None else r - self.shift[index], self.delta)
        total = terms.sum(1) if self.weights is None else (terms * self.weights[index]).sum(1)
        return total + self.ridge(points, index)

    def ridge(self, points, index) -> np.ndarray:
        return 0.5 * ((points - self.centre[index]) ** 2 * self.precision[index]).sum(1)

    def derivatives(self, points, index):
        """Objective (b,), gradient (b, P), Hessian (b, P, P) and the scale (b, P) of a basis with unit curvature."""
        r = self.residuals(points)
        value = r.value if self.shift is None else r.value - self.shift[index]
        inside = np.abs(value) <= self.delta
        slope = np.where(inside, value, self.delta * np.sign(value))
        majorant = np.where(inside, 1.0, self.delta / np.maximum(np.abs(value), self.delta))
        curve = inside.astype(np.float64)
        total = huber(value, self.delta)
        if self.weights is not None:
            own = self.weights[index]
            slope, curve, majorant, total = slope * own, curve * own, majorant * own, total * own
        precision = self.precision[index]
        objective = total.sum(1) + self.ridge(points, index)
        gradient = np.matmul(slope[:, None, :], r.jacobian)[:, 0] + precision * (points - self.centre[index])
        jacobian_t = r.jacobian.transpose(0, 2, 1)
        if r.bend is None:
            hessian = np.matmul(jacobian_t * majorant[:, None, :], r.jacobian)
            diagonal = np.einsum("bpp->bp", hessian) + precision
        else:
            hessian = np.matmul(jacobian_t * curve[:, None, :], r.jacobian) + r.bend(slope)
            # The scale comes from the majorant (IRLS) curvature: positive even where no row is inside delta.
            diagonal = np.einsum("bnp,bn,bnp->bp", r.jacobian, majorant, r.jacobian) + precision
        hessian[:, np.arange(points.shape[1]), np.arange(points.shape[1])] += precision
        scale = 1.0 / np.sqrt(diagonal + 1e-12 * diagonal.max(1, keepdims=True) + 1e-300)
        return objective, gradient, hessian, scale


def _chunk(problem: _Problem, theta, index, iterations, tolerance):
    """Damped Newton from the rows of theta; `index` are their places in the whole batch."""
    batch, size = theta.shape
    damping = np.full(batch, 1e-2)
    objective = problem.cost(theta, index)
    objective = np.where(np.isfinite(objective), objective, np.inf)
    converged = np.zeros(batch, dtype=bool)
    active = np.flatnonzero(np.isfinite(objective))
    now = np.empty(batch)
    gradient, hessian, scale = np.empty((batch, size)), np.empty((batch, size, size)), np.empty((batch, size))
    improving = active  # derivatives are computed again only where a step was taken
    steps = 0
    for steps in range(1, iterations + 1):  # noqa: B007
        if not len(active):
            break
        if len(improving):
            now[improving], gradient[improving], hessian[improving], scale[improving] = problem.derivatives(
                theta[improving], index[improving]
            )
        step, predicted_decrease = _step(gradient[active], hessian[active], scale[active], damping[active])
        trial = theta[active] + step
        with np.errstate(over="ignore", invalid="ignore"):
            trial_objective = problem.cost(trial, index[active])
        improves = trial_objective < objective[active]
        # Small predicted decrease with little damping: at the floor, whether or not rounding lets F fall further.
        done = (predicted_decrease <= tolerance * np.maximum(objective[active], 1e-300)) & (damping[active] <= 1e-2)
        done |= damping[active] > 1e12
        gain = np.zeros(len(active))
        np.divide(now[active] - trial_objective, predicted_decrease, out=gain, where=predicted_decrease > 0)
        improving = active[improves]
        theta[improving], objective[improving] = trial[improves], trial_objective[improves]
        factor = np.where(improves, np.where(gain > 0.5, 0.1, 1.0), 8.0)
        damping[active] = np.clip(damping[active] * factor, 1e-9, 1e13)
        converged[active] |= done
        active, improving = active[~done], active[improves & ~done]
    return theta, objective, converged, steps


def _step(gradient, hessian, scale, damping):
    """Newton step in the scaled basis, curvature made positive and damped; with the decrease it predicts."""
    scaled = hessian * scale[:, :, None] * scale[:, None, :]
    scaled = np.nan_to_num(0.5 * (scaled + scaled.transpose(0, 2, 1)), posinf=0.0, neginf=0.0)
    values, vectors = np.linalg.eigh(scaled)
    slope = np.matmul((gradient * scale)[:, None, :], vectors)[:, 0]
    curvature = np.maximum(np.abs(values), 1e-10) + damping[:, None]
    move = -slope / curvature
    predicted_decrease = 0.5 * (slope * slope / curvature).sum(1)
    return np.matmul(vectors, move[:, :, None])[:, :, 0] * scale, predicted_decrease
