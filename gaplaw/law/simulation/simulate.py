"""What would a table look like if the truth were known? Student losses from a known teacher law, for tests, docs and
power checks.

    L_S = E + A N_S^-0.34 + B D_S^-0.28 + depth · H(ln T − ln T*) + noise
    T* = k N_S^p (D_S / N_S)^q, times e^(tau ξ_i) for student i

Stands beside the fitter in the law half of the walk and shares no code with it: the bowls H here are closed forms that
the fitted family does not contain. Each has H(0) = H'(0) = 0 and mean curvature 1, with left : right curvature =
asymmetry in its own sense.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gaplaw.errors import LawError

SHAPES = ("quadratic", "power", "logcosh", "two_sided", "flat", "falling", "rising")


def bowl(u, shape: str = "power", asymmetry: float = 1.0) -> np.ndarray:
    """H(u), nats per unit of depth, for one of `SHAPES`; H(0) = 0.

    quadratic: c u² / 2, with c switching between 2a/(1+a) and 2/(1+a) at 0 (a = asymmetry): a jump in the second
    derivative. two_sided: the same curvatures blended by a logistic of width 0.35. power: a r^-x + b r^y with r = T
    / T*; x, y chosen so that H(-1) / H(1) = asymmetry. logcosh: linear tails of slopes ± whose ratio is the
    asymmetry. flat, falling, rising: no optimum (for refusals).

    Args:
        u: ln(T / T*), any shape.
        shape: one of `SHAPES`.
        asymmetry: steepness of the weak-teacher side over the strong side.

    Raises:
        LawError: another shape.
    """
    u = np.asarray(u, dtype=np.float64)
    if asymmetry < 1:
        return bowl(-u, shape, 1 / asymmetry)
    left, right = 2 * asymmetry / (1 + asymmetry), 2 / (1 + asymmetry)
    if shape == "quadratic":
        return 0.5 * np.where(u < 0, left, right) * u * u
    if shape == "two_sided":
        return 0.5 * (right + (left - right) / (1 + np.exp(u / 0.35))) * u * u
    if shape == "power":
        x, y = _power_exponents(asymmetry)
        return (y * np.exp(-x * u) + x * np.exp(y * u) - x - y) / (x * y * (x + y))
    if shape == "logcosh":
        # Slope -left far left, +right far right, softplus in between, minimum moved to u = 0; unit curvature there.
        lean = np.arctanh((left - right) / (left + right))
        scale = 1.0 - np.tanh(lean) ** 2
        return (np.logaddexp(u + lean, -(u + lean)) - np.tanh(lean) * u - np.logaddexp(lean, -lean)) / scale
    if shape == "flat":
        return np.zeros_like(u)
    if shape == "falling":
        return -0.5 * u
    if shape == "rising":
        return 0.5 * u
    raise LawError(f"shape: {shape!r} must be one of {', '.join(SHAPES)}")


def _power_exponents(asymmetry: float) -> tuple[float, float]:
    """x, y with H(-1) / H(1) = asymmetry; x + y grows with the asymmetry, since two exponentials cannot lean without
    it.
    """
    total = 0.8 + 0.33 * asymmetry

    def ratio(x):
        y = total - x
        return (y * np.exp(x) + x * np.exp(-y) - total) / (y * np.exp(-x) + x * np.exp(y) - total)

    low, high = total / 2, total * (1 - 1e-9)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if ratio(middle) < asymmetry else (low, middle)
    return low, total - low


def simulate(
    *,
    students,
    teachers,
    seeds: int = 1,
    k: float = 4.0,
    p: float = 1.0,
    q: float = 0.0,
    asymmetry: float = 1.0,
    shape: str = "power",
    depth: float = 0.03,
    noise_nats: float = 0.003,
    seed_offset_nats: float = 0.0,
    teacher_sd_nats: float = 0.0,
    scatter_ln: float = 0.0,
    student_tokens=20.0,
    rng=0,
) -> pd.DataFrame:
    """One table from a known law; the truth is in `frame.attrs["truth"]`.

    Args:
        students, teachers: parameters; every student meets every teacher.
        seeds: paired replicates per cell (column `group` says the seed when there are several).
        k, p, q: T* = k N_ref (N/N_ref)^p ((D/N)/(D/N)_ref)^q with N_ref and (D/N)_ref geometric means, so that k is
            the ratio T*/N there.
        shape, asymmetry, depth: the bowl, see `bowl`; depth is the mean curvature at the minimum, nats per ln².
        noise_nats: sd of each run.
        seed_offset_nats: sd of what one (student, seed) shares under all teachers.
        teacher_sd_nats: sd of what a teacher does to all its students.
        scatter_ln: sd of ln T* from student to student.
        student_tokens: tokens per parameter: one number, or several (every student is then trained at each of them).
        rng: NumPy generator or seed.

    Returns:
        DataFrame of student_params, student_tokens, teacher_params, teacher_tokens, student_loss (nats), seed[,
        group].
    """
    rng = np.random.default_rng(rng)
    students, teachers = np.asarray(students, np.float64), np.asarray(teachers, np.float64)
    per_param = np.atleast_1d(np.asarray(student_tokens, np.float64))
    n = np.repeat(students, len(per_param))
    d = n * np.tile(per_param, len(students))
    reference, per_reference = np.exp(np.log(students).mean()), np.exp(np.log(per_param).mean())
    best = np.log(k * reference) + p * np.log(n / reference) + q * np.log(d / n / per_reference)
    optima = best + np.repeat(scatter_ln * rng.standard_normal(len(students)), len(per_param))
    floor = 1.7 + 400 * n**-0.34 + 400 * d**-0.28
    loss = floor[:, None] + depth * bowl(np.log(teachers)[None, :] - optima[:, None], shape, asymmetry)
    loss = loss + teacher_sd_nats * rng.standard_normal(len(teachers))
    loss = loss[:, :, None] + seed_offset_nats * rng.standard_normal((len(n), 1, seeds))
    loss = loss + noise_nats * rng.standard_normal((len(n), len(teachers), seeds))
    i, j, s = np.meshgrid(np.arange(len(n)), np.arange(len(teachers)), np.arange(seeds), indexing="ij")
    frame = pd.DataFrame(
        {
            "student_params": n[i.ravel()],
            "student_tokens": d[i.ravel()],
            "teacher_params": teachers[j.ravel()],
            "teacher_tokens": 20.0 * teachers[j.ravel()],
            "student_loss": loss.ravel(),
            "seed": s.ravel(),
        }
    )
    if seeds > 1:
        frame["group"] = frame["seed"].map(lambda seed: f"seed{seed}")
    frame.attrs["truth"] = {
        "k": k, "p": p, "q": q, "reference_params": reference, "reference_tokens_per_param": per_reference,
        "shape": shape, "asymmetry": asymmetry, "depth": depth, "noise_nats": noise_nats,
        "teacher_sd_nats": teacher_sd_nats, "scatter_ln": scatter_ln,
    }  # fmt: skip
    return frame


def true_optimum(frame: pd.DataFrame, student_params: float, tokens_per_param: float | None = None) -> float:
    """T* of the law that made a simulated table, for any student (without that student's own scatter), parameters.

    Args:
        frame: from `simulate`; the truth is in its attrs.
        student_params: N_S.
        tokens_per_param: D_S / N_S; None means the table's geometric mean.
    """
    truth = frame.attrs["truth"]
    per = 1.0 if tokens_per_param is None else tokens_per_param / truth["reference_tokens_per_param"]
    reference = truth["reference_params"]
    return float(truth["k"] * reference * (student_params / reference) ** truth["p"] * per ** truth["q"])
