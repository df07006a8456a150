"""Which form of L_S(N_S, D_S, L_T) should be believed? All of them, by how well each predicts students it has not seen.

Called by `fit`, in the law half. Each closed form (`forms`) is fitted robustly from many starts, corrected
(`correction_fit`), refitted with what a student size and a teacher share counted as such, and scored by leaving
one student size out; the law is their weighted mean in ln loss. Draws are a fixed-design wild cluster bootstrap:
whole-model residuals keep their place and get Webb's six-point signs, per (student, tokens) group in half of the draws
and per teacher in the other half, the levels of students and teachers are drawn anew, and every draw is refitted from
the best point to full tolerance.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gaplaw.law.numeric.minimise import Minima, minimise
from gaplaw.law.teacher_loss.correction_fit import fit_correction, robust_scale, robust_weights
from gaplaw.law.teacher_loss.form_average import FORMS, FittedForm, FormAverage, correction_inputs
from gaplaw.law.teacher_loss.forms import Inputs, residual_functions, whitener

FIRST_DELTA = 0.01  # ln units, before the scale of the residuals is known
HUBER_TUNING = 1.5
MOST_FOLDS = 12
REFITS = 2
EQUAL_PULL = 0.1  # of equal weights, as a share of the mean square error
NO_FLOOR = 4.0  # ln units below the lowest loss at which a floor E has left the law
WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


def ridge_of(form, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(centre, precision) of the form's weak ridge, (P,) each, in units of the Huber objective."""
    centre, sd = np.array(form.ridge).T
    return centre, (scale / sd) ** 2


def fit_form(form, inputs: Inputs, log_loss, weight, starts=None) -> tuple[Minima, float]:
    """Robust fit in two passes: a wide Huber threshold to find the scale, then 1.5 scales.

    Args:
        form: one of the forms. inputs: the rows. log_loss: (n,) ln L_S. weight: (n,) or None.
        starts: (S, P); the form's own by default.

    Returns:
        (minima of every start, scale in ln units).
    """
    value, residuals = residual_functions(form, inputs, log_loss)
    starts = form.starts(inputs, log_loss) if starts is None else starts
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


def refit_form(form, inputs: Inputs, log_loss, weight, theta, levels) -> tuple[np.ndarray, float]:
    """theta and scale again from theta, with what rows of one student or one teacher share counted as such.

    Args:
        form, inputs, log_loss, weight: as for `fit_form`.
        theta: (P,) start. levels: (n, k), what rows share, in units of the noise.
    """
    value, residuals = residual_functions(form, inputs, log_loss, whitener(levels))
    scale = max(robust_scale(value(theta[None])[0]), 1e-6)
    minima = minimise(
        value, residuals, theta[None], delta=HUBER_TUNING * scale, weights=None if weight is None else weight[None],
        penalty=ridge_of(form, scale), tolerance=1e-8, iterations=100,
    )  # fmt: skip
    return minima.theta[0], scale


def fit_average(inputs: Inputs, log_loss, *, sizes, weight=None) -> FormAverage:
    """Fit, correct and weigh every form.

    Args:
        inputs: the rows. log_loss: (n,) ln L_S.
        sizes: (n,) student sizes, left out in turn.
        weight: (n,) or None.

    Returns:
        FormAverage, without draws.
    """
    kinds = [kind for kind in FORMS if inputs.y is not None or kind != "drift"]
    fits = {kind: fit_form(FORMS[kind], inputs, log_loss, weight)[0] for kind in kinds}
    reach_theta = fits["reach"].theta[fits["reach"].best]
    z = correction_inputs(reach_theta, inputs)
    parts = []
    for kind, minima in fits.items():
        theta, correction = minima.theta[minima.best], None
        for _ in range(REFITS):
            correction = fit_correction(z, log_loss - FORMS[kind].value(theta[None], inputs)[0], correction)
            theta, scale = refit_form(FORMS[kind], inputs, log_loss, weight, theta, correction.levels(z))
        residual = log_loss - FORMS[kind].value(theta[None], inputs)[0]
        phi, confidence = correction.features(z), robust_weights(residual, robust_scale(residual))
        if weight is not None:
            confidence = confidence * weight
        share = minima.share_at_best(1e-3)
        status = "not converged" if not minima.converged[minima.best] else "converged"
        if share * len(minima.objective) < 1.5:
            status = "starts disagree"
        if FORMS[kind].names[0] == "e" and theta[0] < log_loss.min() - NO_FLOOR:
            status = "unidentified parameter"
        parts.append(
            FittedForm(
                kind=kind,
                weight=1.0 / len(kinds),
                theta=theta,
                correction=correction,
                coefficients=correction.posterior(phi, confidence) @ residual,
                status=status,
                share_at_best=share,
                scale=scale,
            )
        )
    parts, left_out_log_loss = _weigh(parts, inputs, log_loss, sizes, weight)
    fitted_log_loss = sum(part.weight * part.log_loss(inputs, z) for part in parts)
    return FormAverage(
        components=tuple(parts),
        reach_theta=reach_theta,
        fitted_log_loss=fitted_log_loss,
        left_out_log_loss=left_out_log_loss,
    )


def folds(sizes: np.ndarray) -> list[np.ndarray]:
    """Boolean masks of left-out rows: one per student size, neighbouring sizes together above MOST_FOLDS."""
    distinct = np.unique(sizes)
    if len(distinct) < 3:
        return []
    return [np.isin(sizes, block) for block in np.array_split(distinct, min(len(distinct), MOST_FOLDS))]


def _weigh(parts, inputs, log_loss, sizes, weight):
    """Leave students out, form by form, and weigh the forms by what was seen; see `stacking_weights`."""
    student_folds = folds(sizes)
    if not student_folds:
        return parts, None
    predictions = np.full((len(parts), len(log_loss)), np.nan)
    for out in student_folds:
        inside, outside = take(inputs, ~out), take(inputs, out)
        own = None if weight is None else weight[~out]
        reach_theta = None
        for row, part in enumerate(parts):
            minima, _ = fit_form(part.form, inside, log_loss[~out], own, starts=_restarts(part, inside, log_loss[~out]))
            theta = minima.theta[minima.best]
            reach_theta = theta if part.kind == "reach" else reach_theta
            z_in, z_out = (correction_inputs(reach_theta, p) for p in (inside, outside))
            theta, _ = refit_form(part.form, inside, log_loss[~out], own, theta, part.correction.levels(z_in))
            residual = log_loss[~out] - part.form.value(theta[None], inside)[0]
            confidence = robust_weights(residual, robust_scale(residual)) * (1.0 if own is None else own)
            gain = part.correction.posterior(part.correction.features(z_in), confidence)
            correction = part.correction.features(z_out) @ (gain @ residual)
            predictions[row, out] = part.form.value(theta[None], outside)[0] + correction
    errors = predictions - log_loss
    tokens = inputs.x if inputs.y is None else inputs.y
    shares = stacking_weights(errors, np.unique(np.stack([inputs.x, tokens]), axis=1, return_inverse=True)[1].ravel())
    rms = np.sqrt(np.mean(errors**2, axis=1))
    parts = [replace(part, weight=float(w), loso_rms=float(e)) for part, w, e in zip(parts, shares, rms, strict=True)]
    return parts, shares @ predictions


def stacking_weights(errors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Weights ≥ 0 of sum 1 that minimise the mean square of the weighted left-out errors, pulled towards equal ones.

    Half of the criterion are the errors themselves, half their differences within a (student, tokens) group, on
    which a choice of teacher rests; each half in units of its own size. Solved exactly: the best of all subsets of
    forms.

    Args:
        errors: (K, n) ln units. groups: (n,) labels.

    Returns:
        (K,). Reference: Yao et al. 2018, arXiv 1704.02030 (stacking).
    """
    count = len(errors)
    within = np.array([row - (np.bincount(groups, row) / np.bincount(groups))[groups] for row in errors])
    cross = sum(part @ part.T / max(np.mean(part**2), 1e-30) for part in (errors, within))
    cross = cross + EQUAL_PULL * np.trace(cross) / count * np.eye(count)
    best, lowest = np.full(count, 1 / count), np.inf
    for bits in range(1, 2**count):
        index = [k for k in range(count) if bits >> k & 1]
        share = np.zeros(count)
        share[index] = np.linalg.solve(cross[np.ix_(index, index)], np.ones(len(index)))
        share /= share.sum()
        if share.min() >= 0 and share @ cross @ share < lowest:
            best, lowest = share, share @ cross @ share
    return best


def _restarts(part: FittedForm, inputs: Inputs, log_loss) -> np.ndarray:
    """The whole table's answer and a few cold starts: a fold must not inherit the basin of the rows it lacks."""
    cold = part.form.starts(inputs, log_loss)
    return np.vstack([part.theta[None], cold[:: max(1, len(cold) // 3)]])


def take(inputs: Inputs, mask) -> Inputs:
    """The rows of `mask`."""
    return Inputs(
        inputs.x[mask],
        None if inputs.y is None else inputs.y[mask],
        inputs.t[mask],
        None if inputs.no_teacher_log_loss is None else inputs.no_teacher_log_loss[mask],
    )


def draw_bootstrap(
    average: FormAverage, inputs: Inputs, log_loss, *, groups, teachers, weight, count: int, seed: int
) -> FormAverage:
    """The same average with wild-cluster draws of every component.

    Args:
        average: the fitted forms. inputs, log_loss, weight: the rows.
        groups, teachers: (n,) cluster labels.
        count: draws over all forms. seed: of the signs.
    """
    rng = np.random.default_rng(seed)
    rows = len(log_loss)
    residual = log_loss - average.fitted_log_loss
    # The fit has bent towards its rows: residuals are widened by the parameters spent (forms and corrections).
    z = correction_inputs(average.reach_theta, inputs)
    parameters_used = np.mean([_effective_parameters(part, z) for part in average.components])
    residual = residual * np.sqrt(rows / max(rows - parameters_used, 0.5 * rows))
    parts = []
    for part, own_count in zip(average.components, _shares(average, count), strict=True):
        signs = np.empty((own_count, rows))
        signs[0::2] = rng.choice(WEBB, size=(len(signs[0::2]), groups.max() + 1))[:, groups]
        signs[1::2] = rng.choice(WEBB, size=(len(signs[1::2]), teachers.max() + 1))[:, teachers]
        targets = average.fitted_log_loss + residual * signs
        levels, phi = part.correction.levels(z), part.correction.features(z)
        white = whitener(levels)
        value, residuals = residual_functions(part.form, inputs, np.zeros(rows), white)
        # The form is drawn as if with other students and teachers: their levels are exchanged for new ones.
        own = part.coefficients[-levels.shape[1] :]
        level_shift = part.correction.noise * (rng.standard_normal((own_count, levels.shape[1])) - own) @ levels.T
        gain = part.correction.posterior(phi, np.ones(rows) if weight is None else weight)
        minima = minimise(
            value, residuals, np.repeat(part.theta[None], own_count, axis=0), delta=HUBER_TUNING * part.scale,
            shift=white(targets + level_shift), weights=None if weight is None else weight[None],
            penalty=ridge_of(part.form, part.scale), tolerance=1e-6, iterations=40,
        )  # fmt: skip
        # A draw of the misfit beyond what its rows pin down: prior sample plus the ridge fit of what it leaves.
        prior = rng.standard_normal((own_count, phi.shape[1]))
        left = targets - part.form.value(minima.theta, inputs) - prior @ phi.T
        parts.append(replace(part, theta_draws=minima.theta, coefficient_draws=prior + left @ gain.T))
    return replace(average, components=tuple(parts))


def _shares(average: FormAverage, count: int) -> list[int]:
    """How many of `count` draws each form gets: at least two, for its parameters' own intervals."""
    own = [max(2, round(part.weight * count)) for part in average.components]
    own[int(np.argmax(own))] += count - sum(own)
    return own


def _effective_parameters(part: FittedForm, z) -> float:
    phi = part.correction.features(z)
    return len(part.theta) + float(np.trace(part.correction.posterior(phi, np.ones(len(z))) @ phi))
