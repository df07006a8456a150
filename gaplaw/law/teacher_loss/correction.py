"""What do the parametric forms miss? A smooth correction learnt from all students at once, and what one student or
teacher shares.

Helper of `form_average`, in the law half. Every closed form of L_S(N_S, D_S, L_T) is wrong by a few millinats in a way
that students share: the bowl's shape, weak teachers beaten by their students. The residual is therefore a Gaussian
process in

    z = (ln L_T − ln M, ln(D_S / N_S), ln N_S, ln L_T)

with three parts: a smooth one of the first three, a level of its own for every student size, and one for every teacher.
Each part is kept as a short Bayesian linear model on landmark rows (Nyström features); `correction_fit` finds them.
Away from the data it fades and the closed form is left alone. Reference: Rasmussen and Williams 2006, chapters 5 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAME_SIZE, SAME_TEACHER = 0.02, 0.0008  # ln units within which two rows share a student size, a teacher
LEVELS = (np.array([np.inf, np.inf, SAME_SIZE, np.inf]), np.array([np.inf, np.inf, np.inf, SAME_TEACHER]))


def kernel(a: np.ndarray, b: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Squared-exponential kernel exp(−½ Σ ((a − b) / lengths)²) of rows a (n, 4) and b (m, 4), (n, m)."""
    used = np.isfinite(lengths)
    apart = ((a[:, None, used] - b[None, :, used]) / lengths[used]) ** 2
    return np.exp(-0.5 * apart.sum(2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One Gaussian kernel as m features k(z, landmarks) @ root, (n, m); infinite lengths are axes that it ignores."""

    amplitude: float
    lengths: np.ndarray  # (4,)
    landmarks: np.ndarray  # (m, 4)
    root: np.ndarray  # (m, m)

    def features(self, z: np.ndarray) -> np.ndarray:
        """(n, m) features of rows z (n, 4), in the unit of the residuals."""
        return self.amplitude**2 * kernel(z, self.landmarks, self.lengths) @ self.root


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
        """(n, m) features of rows z (n, 4), of all three parts."""
        return np.hstack([part.features(z) for part in self.parts])

    def levels(self, z: np.ndarray) -> np.ndarray:
        """The features of students' and teachers' levels alone, in units of the noise, (n, k)."""
        return np.hstack([part.features(z) for part in self.parts[1:]]) / self.noise

    def posterior(self, phi: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The matrix G (m, n) of the ridge solution: coefficients = G @ residual.

        Args:
            phi: (n, m) features. weight: (n,), divides the noise variance.
        """
        scaled = phi * (weight / self.noise**2)[:, None]
        return np.linalg.solve(phi.T @ scaled + np.eye(phi.shape[1]), scaled.T)

    def to_dict(self) -> dict:
        """JSON-ready; an infinite length is None."""
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
        """The correction that `to_dict` gave."""
        parts = {}
        for name in ("smooth", "student", "teacher"):
            part = data[name] | {"lengths": [np.inf if length is None else length for length in data[name]["lengths"]]}
            parts[name] = Part(**{key: np.array(value, dtype=float) for key, value in part.items()})
        return cls(noise=data["noise"], **parts)
