"""How is the correction of a closed form found? Amplitudes, noise and lengths by marginal likelihood under weak priors.

Helper of `stacking`, in the law half; what is found answers in `correction`, without SciPy. Landmark rows are picked by
pivoted Cholesky. Reference: Rasmussen and Williams 2006, chapters 5 and 8.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize as scipy_minimize

from gaplaw.law.teacher_loss.correction import LEVELS, Correction, Part, kernel

# Log-normal priors, in units of the residuals' scale: smooth amplitude, noise, level of a student, of a teacher; then
# the three lengths of the smooth part in their own ln units.
PRIOR_LOG = np.log([1.5, 0.7, 0.3, 0.3, 0.08, 1.2, 1.5])
PRIOR_SD = np.array([1.0, 0.7, 1.0, 1.0, 0.5, 0.6, 0.6])
MOST_ROWS = 260  # for the marginal likelihood, whose cost grows with the cube
MOST_LANDMARKS = 64
OUTLIER = 3.5  # rows this many scales out count less


def fit_correction(z: np.ndarray, residual: np.ndarray, near: Correction | None = None) -> Correction:
    """The correction of residuals, hyperparameters by marginal likelihood under weak priors.

    Args:
        z: (n, 4) where rows sit, ln units. residual: (n,) ln units.
        near: start from these hyperparameters; None starts from the priors.
    """
    scale = robust_scale(residual)
    noise_factor = 1.0 / robust_weights(residual, scale)
    rows = np.arange(len(residual))
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False)
    squared_distances = [(z[rows, i, None] - z[None, rows, i]) ** 2 for i in range(3)]
    levels = [kernel(z[rows], z[rows], lengths) for lengths in LEVELS]
    start = PRIOR_LOG
    if near is not None:
        sizes = [near.smooth.amplitude, near.noise, near.student.amplitude, near.teacher.amplitude]
        start = np.log(np.concatenate([np.array(sizes) / scale, near.smooth.lengths[:3]]))
    best = scipy_minimize(
        _negative_log_likelihood,
        start,
        args=(squared_distances, levels, residual[rows] / scale, noise_factor[rows]),
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([PRIOR_LOG - 4 * PRIOR_SD, PRIOR_LOG + 4 * PRIOR_SD], axis=1),
        options={"maxiter": 25 if near is None else 8, "maxcor": 7},
    ).x
    smooth, noise, student, teacher = (float(value) for value in np.exp(best[:4]) * scale)
    return Correction(
        noise=noise,
        smooth=_part(z, smooth, np.append(np.exp(best[4:]), np.inf)),
        student=_part(z, student, LEVELS[0]),
        teacher=_part(z, teacher, LEVELS[1]),
    )


def _negative_log_likelihood(h, squared_distances, levels, target, factor):
    """Marginal likelihood and prior of h = ln (smooth, noise, student, teacher, lengths), with its gradient."""
    amplitude, noise, *rest = np.exp(h)
    owns, lengths = rest[:2], rest[2:]
    smooth = amplitude**2 * np.exp(
        -0.5 * sum(d / length**2 for d, length in zip(squared_distances, lengths, strict=True))
    )
    shared = [own**2 * level for own, level in zip(owns, levels, strict=True)]
    covariance = smooth + sum(shared) + np.diag(noise**2 * factor + 1e-8 * amplitude**2)
    lower = np.linalg.cholesky(covariance)
    inverse = cho_solve((lower, True), np.eye(len(target)))
    alpha = inverse @ target
    outer = np.outer(alpha, alpha) - inverse
    slope = [2 * (outer * smooth).sum(), 2 * noise**2 * (np.diag(outer) * factor).sum()]
    slope += [2 * (outer * part).sum() for part in shared]
    slope += [(outer * smooth * d).sum() / length**2 for d, length in zip(squared_distances, lengths, strict=True)]
    away = (h - PRIOR_LOG) / PRIOR_SD
    value = 0.5 * target @ alpha + np.log(np.diag(lower)).sum() + 0.5 * away @ away
    return value, -0.5 * np.array(slope) + away / PRIOR_SD


def _part(z, amplitude, lengths) -> Part:
    """Rows picked by pivoted Cholesky until the rest is below 0.1 % of the amplitude's variance, and the whitening
    root.
    """
    variance_left, landmark_rows, columns = np.ones(len(z)), [], []
    for _ in range(min(MOST_LANDMARKS, len(z))):
        pivot = int(np.argmax(variance_left))
        if variance_left[pivot] < 1e-3:
            break
        column = kernel(z, z[pivot : pivot + 1], lengths)[:, 0]
        for known in columns:
            column = column - known * known[pivot]
        column = column / np.sqrt(variance_left[pivot])
        columns.append(column)
        landmark_rows.append(pivot)
        variance_left = np.maximum(variance_left - column**2, 0.0)
        variance_left[pivot] = 0.0
    landmarks = z[landmark_rows]
    gram = amplitude**2 * (kernel(landmarks, landmarks, lengths) + 1e-9 * np.eye(len(landmarks)))
    root = solve_triangular(np.linalg.cholesky(gram), np.eye(len(gram)), lower=True).T
    return Part(amplitude=amplitude, lengths=lengths, landmarks=landmarks, root=root)


def robust_weights(residual: np.ndarray, scale: float) -> np.ndarray:
    """1 for ordinary rows, falling as 1/|r| beyond OUTLIER scales; residual (n,) and scale of one unit."""
    return np.minimum(1.0, OUTLIER * scale / np.maximum(np.abs(residual), 1e-300))


def robust_scale(residual: np.ndarray) -> float:
    """Normal-consistent median absolute deviation, never zero."""
    return float(1.4826 * np.median(np.abs(residual - np.median(residual))) + 1e-9)
