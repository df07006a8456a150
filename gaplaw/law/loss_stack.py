"""Which form of L_S(N_S, D_S, L_T) should be believed? All of them, by how well each predicts students it has not seen.

Helper of `loss_coordinate`, in the law half. Each closed form (`loss_forms`) is fitted robustly from many starts, corrected
(`correction`), and scored by leaving one student size out; the law is their weighted mean in ln loss. Draws are a fixed-design
wild cluster bootstrap: whole-model residuals keep their place and get Webb's six-point signs, per (student, tokens) group in
half of the draws and per teacher in the other half, and every draw is refitted from the best point to full tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gaplaw.law.correction import Correction, fit_correction, robust_scale, robust_weights
from gaplaw.law.loss_forms import BrokenPowerForm, DriftForm, Points, ReachForm, residual_functions
from gaplaw.law.minimise import Minima, minimise

FORMS = {"reach": ReachForm(), "drift": DriftForm(), "broken_power": BrokenPowerForm()}
FIRST_DELTA = 0.01  # ln units, before the scale of the residuals is known
HUBER_TUNING = 1.5
MOST_FOLDS = 12
WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One fitted form: theta (P,), its correction and coefficients (m,), and draws theta (R, P), coefficients (R, m)."""

    kind: str
    weight: float
    theta: np.ndarray
    correction: Correction
    coefficients: np.ndarray
    theta_draws: np.ndarray | None = None
    coefficient_draws: np.ndarray | None = None
    status: str = "converged"
    share_at_best: float = 1.0
    scale: float = 0.0  # robust sd of the form's own residuals, ln units
    loso_rms: float | None = None  # rms of leave-one-student-out errors, ln units

    @property
    def form(self):
        return FORMS[self.kind]

    def log_loss(self, points: Points, z: np.ndarray) -> np.ndarray:
        """Point prediction of ln L_S, (n,)."""
        return self.form.value(self.theta[None], points)[0] + self.correction.features(z) @ self.coefficients

    def log_loss_draws(self, points: Points, z: np.ndarray) -> np.ndarray:
        """(R, n)."""
        return self.form.value(self.theta_draws, points) + self.coefficient_draws @ self.correction.features(z).T


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The weighted forms, the scale ln M that places the correction, and what leaving students out showed."""

    components: tuple[Component, ...]
    reach_theta: np.ndarray  # (10,) of ReachForm: its floor is ln M
    fitted: np.ndarray  # (n,) ln L_S
    loso: np.ndarray | None  # (n,) ln L_S predicted without the row's student size; None below three sizes

    def features(self, points: Points) -> np.ndarray:
        """(n, 3): where a row sits for the correction."""
        floor, _ = FORMS["reach"].floor(self.reach_theta[None], points)
        return np.stack(np.broadcast_arrays(points.t - floor[0], points.ratio, points.x), axis=1)

    def log_loss(self, points: Points) -> np.ndarray:
        z = self.features(points)
        return sum(part.weight * part.log_loss(points, z) for part in self.components)

    def log_loss_draws(self, points: Points) -> np.ndarray:
        """(R, n): every draw is one form, drawn as often as its weight, so that the forms' disagreement is in the spread."""
        z = self.features(points)
        return np.concatenate([part.log_loss_draws(points, z) for part in self.components])


def ridge_of(form, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(centre, precision) of the form's weak ridge, in units of the Huber objective."""
    centre, sd = np.array(form.ridge).T
    return centre, (scale / sd) ** 2


def fit_form(form, points: Points, log_loss, weight, starts=None) -> tuple[Minima, float]:
    """Robust fit in two passes: a wide Huber threshold to find the scale, then 1.5 scales. Returns minima and the scale."""
    value, residuals = residual_functions(form, points, log_loss)
    starts = form.starts(points, log_loss) if starts is None else starts
    own = None if weight is None else weight[None]
    first = minimise(
        value,
        residuals,
        starts,
        delta=FIRST_DELTA,
        weights=own,
        penalty=ridge_of(form, 0.003),
        tolerance=1e-5,
        iterations=80,
    )
    scale = max(robust_scale(value(first.theta[first.best][None])[0]), 1e-6)
    ridge = ridge_of(form, scale)
    options = {"delta": HUBER_TUNING * scale, "weights": own, "penalty": ridge, "tolerance": 1e-8, "iterations": 100}
    return minimise(value, residuals, first.theta, **options), scale


def fit_stack(points: Points, log_loss, *, sizes, weight=None) -> Stack:
    """Fit, correct and weigh every form. `sizes` (n,) are the student sizes that are left out in turn."""
    reach, drifting = FORMS["reach"], points.y is not None
    kinds = [kind for kind in FORMS if drifting or kind != "drift"]
    fits = {kind: fit_form(FORMS[kind], points, log_loss, weight) for kind in kinds}
    reach_theta = fits["reach"][0].theta[fits["reach"][0].best]
    floor, _ = reach.floor(reach_theta[None], points)
    z = np.stack([points.t - floor[0], points.ratio, points.x], axis=1)
    parts = []
    for kind in kinds:
        minima, scale = fits[kind]
        theta = minima.theta[minima.best]
        residual = log_loss - FORMS[kind].value(theta[None], points)[0]
        correction = fit_correction(z, residual)
        phi, confidence = correction.features(z), robust_weights(residual, robust_scale(residual))
        if weight is not None:
            confidence = confidence * weight
        share = minima.share_at_best(1e-3)
        status = "not converged" if not minima.converged[minima.best] else "converged"
        if share * len(minima.objective) < 1.5:
            status = "starts disagree"
        parts.append(
            Component(
                kind=kind, weight=1.0 / len(kinds), theta=theta, correction=correction,
                coefficients=correction.posterior(phi, confidence) @ residual, status=status, share_at_best=share, scale=scale,
            )
        )  # fmt: skip
    parts, loso = _weigh(parts, points, log_loss, sizes, weight)
    fitted = sum(part.weight * part.log_loss(points, z) for part in parts)
    return Stack(components=tuple(parts), reach_theta=reach_theta, fitted=fitted, loso=loso)


def folds(sizes: np.ndarray) -> list[np.ndarray]:
    """Boolean masks of left-out rows: one per student size, neighbouring sizes together above MOST_FOLDS."""
    distinct = np.unique(sizes)
    if len(distinct) < 3:
        return []
    return [np.isin(sizes, block) for block in np.array_split(distinct, min(len(distinct), MOST_FOLDS))]


def _weigh(parts, points, log_loss, sizes, weight):
    """Leave students out, form by form; weights fall with the fourth power of the left-out error."""
    left_out = folds(sizes)
    if not left_out:
        return parts, None
    predictions = np.full((len(parts), len(log_loss)), np.nan)
    for out in left_out:
        inside, outside = take(points, ~out), take(points, out)
        own = None if weight is None else weight[~out]
        reach_theta = None
        for row, part in enumerate(parts):
            minima, _ = fit_form(part.form, inside, log_loss[~out], own, starts=_restarts(part, inside, log_loss[~out]))
            theta = minima.theta[minima.best]
            reach_theta = theta if part.kind == "reach" else reach_theta
            z_in, z_out = (_features(reach_theta, p) for p in (inside, outside))
            residual = log_loss[~out] - part.form.value(theta[None], inside)[0]
            confidence = robust_weights(residual, robust_scale(residual)) * (1.0 if own is None else own)
            gain = part.correction.posterior(part.correction.features(z_in), confidence)
            correction = part.correction.features(z_out) @ (gain @ residual)
            predictions[row, out] = part.form.value(theta[None], outside)[0] + correction
    errors = np.sqrt(np.mean((predictions - log_loss) ** 2, axis=1))
    share = (errors.min() / errors) ** 4
    share /= share.sum()
    parts = [replace(part, weight=float(w), loso_rms=float(e)) for part, w, e in zip(parts, share, errors, strict=True)]
    return parts, share @ predictions


def _restarts(part: Component, points: Points, log_loss) -> np.ndarray:
    """The whole table's answer and a few cold starts: a fold must not inherit the basin of the rows it lacks."""
    cold = part.form.starts(points, log_loss)
    return np.vstack([part.theta[None], cold[:: max(1, len(cold) // 3)]])


def _features(reach_theta, points: Points) -> np.ndarray:
    floor, _ = FORMS["reach"].floor(reach_theta[None], points)
    return np.stack([points.t - floor[0], points.ratio, points.x], axis=1)


def take(points: Points, mask) -> Points:
    """The rows of `mask`."""
    return Points(
        points.x[mask],
        None if points.y is None else points.y[mask],
        points.t[mask],
        None if points.alone is None else points.alone[mask],
    )


def draw(stack: Stack, points: Points, log_loss, *, groups, teachers, weight, count: int, seed: int) -> Stack:
    """The same stack with `count` wild-cluster draws of every component; groups and teachers are cluster labels (n,)."""
    rng = np.random.default_rng(seed)
    rows = len(log_loss)
    residual = log_loss - stack.fitted
    # The fit has bent towards its rows: residuals are widened by the parameters spent (forms and corrections).
    z = stack.features(points)
    spent = np.mean([_spent(part, z) for part in stack.components])
    residual = residual * np.sqrt(rows / max(rows - spent, 0.5 * rows))
    parts = []
    for part, own_count in zip(stack.components, _shares(stack, count), strict=True):
        signs = np.empty((own_count, rows))
        signs[0::2] = rng.choice(WEBB, size=(len(signs[0::2]), groups.max() + 1))[:, groups]
        signs[1::2] = rng.choice(WEBB, size=(len(signs[1::2]), teachers.max() + 1))[:, teachers]
        targets = stack.fitted + residual * signs
        value, residuals = residual_functions(part.form, points, np.zeros(rows))
        phi = part.correction.features(z)
        gain = part.correction.posterior(phi, np.ones(rows) if weight is None else weight)
        # A draw of the smooth misfit beyond what its rows pin down: prior sample plus the ridge fit of what it leaves.
        prior = rng.standard_normal((own_count, phi.shape[1]))
        minima = minimise(
            value, residuals, np.repeat(part.theta[None], own_count, axis=0), delta=HUBER_TUNING * part.scale, shift=targets,
            weights=None if weight is None else weight[None], penalty=ridge_of(part.form, part.scale), tolerance=1e-6,
            iterations=40,
        )  # fmt: skip
        left = targets - part.form.value(minima.theta, points) - prior @ phi.T
        parts.append(replace(part, theta_draws=minima.theta, coefficient_draws=prior + left @ gain.T))
    return replace(stack, components=tuple(parts))


def _shares(stack: Stack, count: int) -> list[int]:
    """How many of `count` draws each form gets: at least two, for its parameters' own intervals."""
    own = [max(2, round(part.weight * count)) for part in stack.components]
    own[int(np.argmax(own))] += count - sum(own)
    return own


def _spent(part: Component, z) -> float:
    phi = part.correction.features(z)
    return len(part.theta) + float(np.trace(part.correction.posterior(phi, np.ones(len(z))) @ phi))
