"""What do the parametric forms miss? A smooth correction learnt from all students at once.

Helper of `loss_coordinate`, in the law half. Every closed form of L_S(N_S, D_S, L_T) is wrong by a few millinats in a way that
students share: the bowl's shape, weak teachers beaten by their students. The residual is therefore a Gaussian process in

    (ln L_T − ln M, ln(D_S / N_S), ln N_S),

whose amplitude, noise and three lengths maximise the marginal likelihood under weak priors, kept as a short Bayesian linear
model on landmark rows (Nyström features by pivoted Cholesky). Away from the data it fades and the closed form is left alone.
Reference: Rasmussen and Williams 2006, chapters 5 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize as scipy_minimize

# Log-normal priors of (amplitude, noise) relative to the residuals' scale, and of the three lengths in their own ln units.
PRIOR_LOG = np.log([1.5, 0.7, 0.08, 1.2, 1.5])
PRIOR_SD = np.array([1.0, 0.7, 0.5, 0.6, 0.6])
MOST_ROWS = 260  # for the marginal likelihood, whose cost grows with the cube
MOST_LANDMARKS = 64
OUTLIER = 3.5  # rows this many scales out count less


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A Gaussian process as m features phi(z) = k(z, landmarks) @ root; correction = phi @ coefficients, each ~ N(0, 1)."""

    amplitude: float
    noise: float
    lengths: np.ndarray  # (3,)
    landmarks: np.ndarray  # (m, 3)
    root: np.ndarray  # (m, m)

    def features(self, z: np.ndarray) -> np.ndarray:
        """(n, 3) → (n, m)."""
        return _kernel(z, self.landmarks, self.amplitude, self.lengths) @ self.root

    def posterior(self, phi: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The matrix G (m, n) of the ridge solution: coefficients = G @ residual. `weight` (n,) divides the noise variance."""
        scaled = phi * (weight / self.noise**2)[:, None]
        return np.linalg.solve(phi.T @ scaled + np.eye(phi.shape[1]), scaled.T)

    def to_dict(self) -> dict:
        return {
            "amplitude": self.amplitude,
            "noise": self.noise,
            "lengths": self.lengths.tolist(),
            "landmarks": self.landmarks.tolist(),
            "root": self.root.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict) -> Correction:
        return cls(
            amplitude=data["amplitude"],
            noise=data["noise"],
            **{name: np.array(data[name], dtype=float) for name in ("lengths", "landmarks", "root")},
        )


def robust_weights(residual: np.ndarray, scale: float) -> np.ndarray:
    """1 for ordinary rows, falling as 1/|r| beyond OUTLIER scales."""
    return np.minimum(1.0, OUTLIER * scale / np.maximum(np.abs(residual), 1e-300))


def robust_scale(residual: np.ndarray) -> float:
    """Normal-consistent median absolute deviation, never zero."""
    return float(1.4826 * np.median(np.abs(residual - np.median(residual))) + 1e-9)


def fit_correction(z: np.ndarray, residual: np.ndarray) -> Correction:
    """The correction of residuals (n,) at features z (n, 3), ln units; hyperparameters by marginal likelihood."""
    scale = robust_scale(residual)
    noise_factor = 1.0 / robust_weights(residual, scale)
    rows = np.arange(len(residual))
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False)
    apart = [(z[rows, i, None] - z[None, rows, i]) ** 2 for i in range(3)]
    target, factor = residual[rows] / scale, noise_factor[rows]
    best = scipy_minimize(
        _negative_log_likelihood, PRIOR_LOG, args=(apart, target, factor), jac=True, method="L-BFGS-B",
        options={"maxiter": 20, "maxcor": 5},
    ).x  # fmt: skip
    amplitude, noise = np.exp(best[:2]) * scale
    lengths = np.exp(best[2:])
    landmarks, root = _landmarks(z, float(amplitude), lengths)
    return Correction(amplitude=float(amplitude), noise=float(noise), lengths=lengths, landmarks=landmarks, root=root)


def _kernel(a, b, amplitude, lengths):
    apart = ((a[:, None, :] - b[None, :, :]) / lengths) ** 2
    return amplitude**2 * np.exp(-0.5 * apart.sum(2))


def _negative_log_likelihood(h, apart, target, factor):
    """Marginal likelihood and prior of h = ln (amplitude, noise, lengths), with its gradient."""
    amplitude, noise, *lengths = np.exp(h)
    smooth = amplitude**2 * np.exp(-0.5 * sum(d / length**2 for d, length in zip(apart, lengths, strict=True)))
    covariance = smooth + np.diag(noise**2 * factor + 1e-10)
    lower = np.linalg.cholesky(covariance)
    inverse = cho_solve((lower, True), np.eye(len(target)))
    alpha = inverse @ target
    outer = np.outer(alpha, alpha) - inverse
    slope = [2 * (outer * smooth).sum(), 2 * noise**2 * (np.diag(outer) * factor).sum()]
    slope += [(outer * smooth * d).sum() / length**2 for d, length in zip(apart, lengths, strict=True)]
    away = (h - PRIOR_LOG) / PRIOR_SD
    value = 0.5 * target @ alpha + np.log(np.diag(lower)).sum() + 0.5 * away @ away
    return value, -0.5 * np.array(slope) + away / PRIOR_SD


def _landmarks(z, amplitude, lengths):
    """Rows picked by pivoted Cholesky until the rest is below 1 % of the amplitude's variance, and the whitening root."""
    left = np.full(len(z), amplitude**2)
    picked, columns = [], []
    for _ in range(min(MOST_LANDMARKS, len(z))):
        pivot = int(np.argmax(left))
        if left[pivot] < 1e-3 * amplitude**2:
            break
        column = _kernel(z, z[pivot : pivot + 1], amplitude, lengths)[:, 0]
        for known in columns:
            column = column - known * known[pivot]
        column = column / np.sqrt(left[pivot])
        columns.append(column)
        picked.append(pivot)
        left = np.maximum(left - column**2, 0.0)
        left[pivot] = 0.0
    landmarks = z[picked]
    gram = _kernel(landmarks, landmarks, amplitude, lengths)
    lower = np.linalg.cholesky(gram + 1e-9 * amplitude**2 * np.eye(len(gram)))
    return landmarks, solve_triangular(lower, np.eye(len(lower)), lower=True).T
