"""How is a robust fit minimised so that it can be trusted? Many starts and many draws at once, by damped Newton steps.

Helper of the law half: `supervised` and `loss_coordinate` state residuals with exact derivatives, this file minimises

    F_b(theta) = sum_i w_bi Huber_delta(r_i(theta))        for every start or bootstrap draw b at once.

With delta far below the residuals' size the problem is nearly least absolute deviations, where quasi-Newton codes stop early
(../reference: the Chinchilla trap). Here every step uses the exact Hessian in a scaled basis, a step is kept only when F falls,
and convergence means a small predicted decrease relative to F, never "the optimiser stopped".
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
    """Residuals at a batch of points: value (B, n), jacobian (B, n, P) and `bend(v)` = sum_i v_bi Hess r_i, (B, P, P)."""

    value: np.ndarray
    jacobian: np.ndarray
    bend: Callable[[np.ndarray], np.ndarray]


def huber(r: np.ndarray, delta: float) -> np.ndarray:
    """Huber's loss, r²/2 inside delta and delta (|r| − delta/2) outside."""
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
        penalty: None, or (centre, precision), each (P,): adds ½ Σ precision (theta − centre)², a weak ridge.
        iterations: most Newton steps.
        tolerance: a start has converged when the predicted decrease is below tolerance × F.
        chunk: starts handled together; keeps the work in cache.
    """
    parts = []
    for low in range(0, len(starts), chunk):
        part = slice(low, low + chunk)
        own = weights if weights is None or len(weights) == 1 else weights[part]
        parts.append(_chunk(value, residuals, starts[part], delta, own, penalty, iterations, tolerance))
    theta, objective, converged, used = (list(column) for column in zip(*parts, strict=True))
    return Minima(
        theta=np.concatenate(theta),
        objective=np.concatenate(objective),
        converged=np.concatenate(converged),
        iterations=max(used),
    )


def _chunk(value, residuals, starts, delta, weights, penalty, iterations, tolerance):
    theta = np.array(starts, dtype=np.float64)
    batch, size = theta.shape
    damping = np.full(batch, 1e-2)
    centre, precision = penalty if penalty is not None else (np.zeros(size), np.zeros(size))

    def cost(points, own):
        terms = huber(value(points), delta)
        total = terms.sum(1) if own is None else (terms * own).sum(1)
        return total + 0.5 * ((points - centre) ** 2 * precision).sum(1)

    def rows(index):
        return None if weights is None else weights if len(weights) == 1 else weights[index]

    objective = cost(theta, rows(np.arange(batch)))
    objective = np.where(np.isfinite(objective), objective, np.inf)
    converged = np.zeros(batch, dtype=bool)
    active = np.flatnonzero(np.isfinite(objective))
    state = None  # gradient and Hessian of the active points; recomputed only where a step was taken
    step_count = 0
    for step_count in range(1, iterations + 1):  # noqa: B007
        if not len(active):
            break
        state = _derivatives(residuals, theta, active, rows, delta, centre, precision, state)
        gradient, hessian, scale = state["gradient"], state["hessian"], state["scale"]
        step, predicted = _step(gradient, hessian, scale, damping[active])
        trial = theta[active] + step
        with np.errstate(over="ignore", invalid="ignore"):
            reached = cost(trial, rows(active))
        fell = reached < objective[active]
        # Small predicted decrease with little damping: at the floor, whether or not rounding lets F fall further.
        done = (predicted <= tolerance * np.maximum(objective[active], 1e-300)) & (damping[active] <= 1e-2)
        done |= damping[active] > 1e12
        theta[active[fell]] = trial[fell]
        objective[active[fell]] = reached[fell]
        gain = np.zeros(len(active))
        np.divide(state["objective"] - reached, predicted, out=gain, where=predicted > 0)
        factor = np.where(fell, np.where(gain > 0.5, 0.1, 1.0), 8.0)
        damping[active] = np.clip(damping[active] * factor, 1e-9, 1e13)
        converged[active] |= done
        state["moved"] = fell
        state["objective"] = np.where(fell, reached, state["objective"])
        keep = ~done
        if not keep.all():
            state = {name: array[keep] for name, array in state.items()}
            active = active[keep]
    return theta, objective, converged, step_count


def _derivatives(residuals, theta, active, rows, delta, centre, precision, state):
    """Gradient, Hessian and scale of the active points; only those that moved are computed again."""
    moved = np.arange(len(active)) if state is None else np.flatnonzero(state["moved"])
    if state is None:
        size = theta.shape[1]
        state = {
            "gradient": np.empty((len(active), size)),
            "hessian": np.empty((len(active), size, size)),
            "scale": np.empty((len(active), size)),
            "objective": np.empty(len(active)),
            "moved": np.ones(len(active), dtype=bool),
        }
    if len(moved):
        points = theta[active[moved]]
        r = residuals(points)
        own = rows(active[moved])
        inside = np.abs(r.value) <= delta
        slope = np.where(inside, r.value, delta * np.sign(r.value))
        curve = inside.astype(np.float64)
        majorant = np.where(inside, 1.0, delta / np.maximum(np.abs(r.value), delta))
        total = huber(r.value, delta)
        if own is not None:
            slope, curve, majorant, total = slope * own, curve * own, majorant * own, total * own
        state["objective"][moved] = total.sum(1) + 0.5 * ((points - centre) ** 2 * precision).sum(1)
        state["gradient"][moved] = np.matmul(slope[:, None, :], r.jacobian)[:, 0] + precision * (points - centre)
        transposed = r.jacobian.transpose(0, 2, 1)
        hessian = np.matmul(transposed * curve[:, None, :], r.jacobian) + r.bend(slope)
        state["hessian"][moved] = hessian + np.diag(precision)
        # The scale comes from the majorant (IRLS) curvature: positive even where no row is inside delta.
        diagonal = np.einsum("bnp,bn,bnp->bp", r.jacobian, majorant, r.jacobian) + precision
        state["scale"][moved] = 1.0 / np.sqrt(diagonal + 1e-12 * diagonal.max(1, keepdims=True) + 1e-300)
    return state


def _step(gradient, hessian, scale, damping):
    """Newton step in the scaled basis, curvature made positive and damped; with the decrease it predicts."""
    scaled = hessian * scale[:, :, None] * scale[:, None, :]
    scaled = np.nan_to_num(0.5 * (scaled + scaled.transpose(0, 2, 1)), posinf=0.0, neginf=0.0)
    values, vectors = np.linalg.eigh(scaled)
    slope = np.matmul((gradient * scale)[:, None, :], vectors)[:, 0]
    curvature = np.maximum(np.abs(values), 1e-10) + damping[:, None]
    move = -slope / curvature
    predicted = 0.5 * (slope * slope / curvature).sum(1)
    return np.matmul(vectors, move[:, :, None])[:, :, 0] * scale, predicted
