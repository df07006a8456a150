"""What do the parametric forms miss? A smooth correction learnt from all students at once, and what one student or
teacher shares.

Helper of `loss_coordinate`, in the law half. Every closed form of L_S(N_S, D_S, L_T) is wrong by a few millinats in a
way that students share: the bowl's shape, weak teachers beaten by their students. The residual is therefore a Gaussian
process
  in

    z = (ln L_T − ln M, ln(D_S / N_S), ln N_S, ln L_T)

with three parts: a smooth one of the first three, a level of its own for every student size, and one for every teacher.
Amplitudes, noise and the smooth lengths maximise the marginal likelihood under weak priors; each part is kept as a
short Bayesian linear model on landmark rows (Nyström features by pivoted Cholesky). Away from the data it fades and the
closed form is left alone.
Reference: Rasmussen and Williams 2006, chapters 5 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize as scipy_minimize

# Log-normal priors, in units of the residuals' scale: smooth amplitude, noise, level of a student, of a teacher; then
# the three lengths of the smooth part in their own ln units.
PRIOR_LOG = np.log([1.5, 0.7, 0.3, 0.3, 0.08, 1.2, 1.5])
PRIOR_SD = np.array([1.0, 0.7, 1.0, 1.0, 0.5, 0.6, 0.6])
SAME_SIZE, SAME_TEACHER = 0.02, 0.0008  # ln units within which two rows share a student size, a teacher
MOST_ROWS = 260  # for the marginal likelihood, whose cost grows with the cube
MOST_LANDMARKS = 64
OUTLIER = 3.5  # rows this many scales out count less


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One Gaussian kernel as m features k(z, landmarks) @ root, (n, m); infinite lengths are axes that it ignores."""

    amplitude: float
    lengths: np.ndarray  # (4,)
    landmarks: np.ndarray  # (m, 4)
    root: np.ndarray  # (m, m)

    def features(self, z: np.ndarray) -> np.ndarray:
        return self.amplitude**2 * _kernel(z, self.landmarks, self.lengths) @ self.root


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """The sum of its parts: correction = features(z) @ coefficients, each coefficient ~ N(0, 1)."""

    noise: float
    smooth: Part
    student: Part
    teacher: Part

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        return self.smooth, self.student, self.teacher

    def features(self, z: np.ndarray) -> np.ndarray:
        """(n, 4) → (n, m)."""
        return np.hstack([part.features(z) for part in self.parts])

    def levels(self, z: np.ndarray) -> np.ndarray:
        """The features of students' and teachers' levels alone, in units of the noise, (n, k)."""
        return np.hstack([part.features(z) for part in self.parts[1:]]) / self.noise

    def posterior(self, phi: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The matrix G (m, n) of the ridge solution: coefficients = G @ residual. `weight` (n,) divides the noise
        variance.
        """
        scaled = phi * (weight / self.noise**2)[:, None]
        return np.linalg.solve(phi.T @ scaled + np.eye(phi.shape[1]), scaled.T)

    def to_dict(self) -> dict:
        names = ("smooth", "student", "teacher")
        parts = {
            name: {key: np.asarray(getattr(part, key)).tolist() for key in Part.__dataclass_fields__}
            for name, part in zip(names, self.parts, strict=True)
        }
        for part in parts.values():  # JSON has no infinity
            part["lengths"] = [length if np.isfinite(length) else None for length in part["lengths"]]
        return {"noise": self.noise, **parts}

    @classmethod
    def from_dict(cls, data: dict) -> Correction:
        parts = {}
        for name in ("smooth", "student", "teacher"):
            part = data[name] | {"lengths": [np.inf if length is None else length for length in data[name]["lengths"]]}
            parts[name] = Part(**{key: np.array(value, dtype=float) for key, value in part.items()})
        return cls(noise=data["noise"], **parts)


def robust_weights(residual: np.ndarray, scale: float) -> np.ndarray:
    """1 for ordinary rows, falling as 1/|r| beyond OUTLIER scales."""
    return np.minimum(1.0, OUTLIER * scale / np.maximum(np.abs(residual), 1e-300))


def robust_scale(residual: np.ndarray) -> float:
    """Normal-consistent median absolute deviation, never zero."""
    return float(1.4826 * np.median(np.abs(residual - np.median(residual))) + 1e-9)


def fit_correction(z: np.ndarray, residual: np.ndarray, near: Correction | None = None) -> Correction:
    """The correction of residuals (n,) at z (n, 4), ln units; hyperparameters by marginal likelihood, from those of
    `near` on.
    """
    scale = robust_scale(residual)
    noise_factor = 1.0 / robust_weights(residual, scale)
    rows = np.arange(len(residual))
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False)
    apart = [(z[rows, i, None] - z[None, rows, i]) ** 2 for i in range(3)]
    levels = [_kernel(z[rows], z[rows], lengths) for lengths in LEVELS]
    start = PRIOR_LOG
    if near is not None:
        sizes = [near.smooth.amplitude, near.noise, near.student.amplitude, near.teacher.amplitude]
        start = np.log(np.concatenate([np.array(sizes) / scale, near.smooth.lengths[:3]]))
    best = scipy_minimize(
        _negative_log_likelihood, start, args=(apart, levels, residual[rows] / scale, noise_factor[rows]), jac=True,
        method="L-BFGS-B", bounds=np.stack([PRIOR_LOG - 4 * PRIOR_SD, PRIOR_LOG + 4 * PRIOR_SD], axis=1),
        options={"maxiter": 25 if near is None else 8, "maxcor": 7},
    ).x  # fmt: skip
    smooth, noise, student, teacher = (float(value) for value in np.exp(best[:4]) * scale)
    return Correction(
        noise=noise,
        smooth=_part(z, smooth, np.append(np.exp(best[4:]), np.inf)),
        student=_part(z, student, LEVELS[0]),
        teacher=_part(z, teacher, LEVELS[1]),
    )


LEVELS = (np.array([np.inf, np.inf, SAME_SIZE, np.inf]), np.array([np.inf, np.inf, np.inf, SAME_TEACHER]))


def _kernel(a, b, lengths):
    used = np.isfinite(lengths)
    apart = ((a[:, None, used] - b[None, :, used]) / lengths[used]) ** 2
    return np.exp(-0.5 * apart.sum(2))


def _negative_log_likelihood(h, apart, levels, target, factor):
    """Marginal likelihood and prior of h = ln (smooth, noise, student, teacher, lengths), with its gradient."""
    amplitude, noise, *rest = np.exp(h)
    owns, lengths = rest[:2], rest[2:]
    smooth = amplitude**2 * np.exp(-0.5 * sum(d / length**2 for d, length in zip(apart, lengths, strict=True)))
    shared = [own**2 * level for own, level in zip(owns, levels, strict=True)]
    covariance = smooth + sum(shared) + np.diag(noise**2 * factor + 1e-8 * amplitude**2)
    lower = np.linalg.cholesky(covariance)
    inverse = cho_solve((lower, True), np.eye(len(target)))
    alpha = inverse @ target
    outer = np.outer(alpha, alpha) - inverse
    slope = [2 * (outer * smooth).sum(), 2 * noise**2 * (np.diag(outer) * factor).sum()]
    slope += [2 * (outer * part).sum() for part in shared]
    slope += [(outer * smooth * d).sum() / length**2 for d, length in zip(apart, lengths, strict=True)]
    away = (h - PRIOR_LOG) / PRIOR_SD
    value = 0.5 * target @ alpha + np.log(np.diag(lower)).sum() + 0.5 * away @ away
    return value, -0.5 * np.array(slope) + away / PRIOR_SD


def _part(z, amplitude, lengths) -> Part:
    """Rows picked by pivoted Cholesky until the rest is below 0.1 % of the amplitude's variance, and the whitening
    root.
    """
    left, picked, columns = np.ones(len(z)), [], []
    for _ in range(min(MOST_LANDMARKS, len(z))):
        pivot = int(np.argmax(left))
        if left[pivot] < 1e-3:
            break
        column = _kernel(z, z[pivot : pivot + 1], lengths)[:, 0]
        for known in columns:
            column = column - known * known[pivot]
        column = column / np.sqrt(left[pivot])
        columns.append(column)
        picked.append(pivot)
        left = np.maximum(left - column**2, 0.0)
        left[pivot] = 0.0
    landmarks = z[picked]
    gram = amplitude**2 * (_kernel(landmarks, landmarks, lengths) + 1e-9 * np.eye(len(landmarks)))
    root = solve_triangular(np.linalg.cholesky(gram), np.eye(len(gram)), lower=True).T
    return Part(amplitude=amplitude, lengths=lengths, landmarks=landmarks, root=root)
