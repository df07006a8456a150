"""Where does the scatter in a table come from? Seeds, a teacher's identity, and students that stray from the law.

Follows `joint`: at a fitted bowl the model is linear, so the variance components are found by restricted likelihood
(REML) with the law's coefficients, the bowl's shape and the offsets all integrated out. Feeds `intervals`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.law.teacher_size.bowl import SHAPES, Bowl
from gaplaw.law.teacher_size.joint import JointFit, jacobian
from gaplaw.law.teacher_size.problem import Design

RATIOS = (0.0, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)  # sd of an effect / sd of the noise
SCATTERS = (0.0, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0)  # tau, in ln T
ROUNDS = 6
EVIDENCE = 1.0  # gain in 2 ln likelihood that a teacher effect must bring to be kept
# Weight of 'students follow the law exactly' before the table is seen, and the scale of tau otherwise (half-normal, in
# ln T). With fewer than five students tau is barely estimable, so that the stated prior, not the table, keeps the
# interval honest.
EXACT_WEIGHT, EXACT_WEIGHT_FEW, TAU_SCALE = 0.8, 0.5, 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class VarianceComponents:
    """Where the scatter comes from.

    Attributes:
        teacher, cell: sd of an effect in units of the noise sd; 0 where the table cannot separate it.
        tau: scatter of students around the law, ln T. tau_weights: its posterior over `SCATTERS`.
        seed_sd_nats: sd between runs of one cell. paired_sd_nats: the same without the pairing offset.
        variance: noise left when the effects are removed, nats².
    """

    teacher: float
    cell: float
    tau: float
    tau_weights: tuple[float, ...]
    seed_sd_nats: float | None
    paired_sd_nats: float | None
    variance: float  # noise left when the effects are taken out, nats²

    @property
    def any(self) -> bool:
        return self.teacher > 0 or self.cell > 0 or self.tau > 0


def variance_components(fit: JointFit) -> VarianceComponents:
    """REML estimates of the variance components at a fit; one that the table cannot separate is 0.

    Args:
        fit: the pilot.
    """
    design = fit.problem.design
    students = len(np.unique(design.student))
    teachers = len(np.unique(design.teacher))
    variance = fit.variance
    for _ in range(ROUNDS):  # a pilot that took effects for noise must not set the scale in which tau is measured
        likelihood = _RestrictedLikelihood(fit, variance)
        teacher = cell = tau = 0.0
        weights = np.eye(len(SCATTERS))[0]
        if likelihood.replicated:
            cell = _best(lambda s: likelihood(0.0, s, 0.0), RATIOS)  # noqa: B023
        if students > 1 and teachers > 2:
            teacher = _best(lambda s: likelihood(s, cell, 0.0), RATIOS)  # noqa: B023
        if students >= 3 and fit.amplitude > 0:
            weights = _scatter_weights(np.array([likelihood(teacher, cell, t) for t in SCATTERS]), students)
            slab = weights[1:].sum()
            tau = float(weights[1:] @ np.array(SCATTERS[1:]) / slab) if slab > 0.5 else 0.0
        previous, variance = variance, likelihood.variance(teacher, cell, tau)
        if abs(np.log(variance / previous)) < 0.05:
            break
    seed, paired = seed_noise(design)
    return VarianceComponents(
        teacher=teacher,
        cell=cell,
        tau=tau,
        tau_weights=tuple(weights),
        seed_sd_nats=seed,
        paired_sd_nats=paired,
        variance=variance,
    )


def _scatter_weights(logs: np.ndarray, students: int) -> np.ndarray:
    """Posterior of tau over `SCATTERS` from its log likelihood."""
    exact = EXACT_WEIGHT if students >= 5 else EXACT_WEIGHT_FEW
    grid = np.array(SCATTERS[1:])
    slab = np.gradient(grid) * np.exp(-0.5 * (grid / TAU_SCALE) ** 2)
    weights = np.concatenate([[exact], (1 - exact) * slab / slab.sum()]) * np.exp(logs - logs.max())
    return weights / weights.sum()


def _best(likelihood, grid) -> float:
    logs = np.array([likelihood(value) for value in grid])
    k = int(np.argmax(logs))
    return float(grid[k]) if 2 * (logs[k] - logs[0]) > EVIDENCE else 0.0


def effect_columns(fit: JointFit, parts: VarianceComponents) -> np.ndarray:
    """Random-effect columns per row in units of the noise sd, (n, e), for `problem.project`.

    Args:
        fit: the pilot. parts: its components.
    """
    design = fit.problem.design
    blocks = []
    if parts.teacher:
        blocks.append(parts.teacher * _indicators(design.teacher))
    if parts.cell:
        blocks.append(parts.cell * np.eye(len(design.x)))
    if parts.tau:
        blocks.append(parts.tau / np.sqrt(parts.variance) * _slopes(fit))
    if not blocks:
        return np.zeros((len(design.y), 0))
    return np.concatenate(blocks, axis=1)[design.cell]


def _indicators(labels: np.ndarray) -> np.ndarray:
    return (labels[:, None] == np.unique(labels)[None, :]).astype(float)


def _slopes(fit: JointFit) -> np.ndarray:
    """d loss / d (shift of one student's optimum), cells × students, nats per ln unit."""
    design = fit.problem.design
    m = design.columns.shape[1]
    u = design.x - design.columns @ fit.theta[:m]
    slope = fit.amplitude * Bowl(fit.theta[None, m:]).slope(u[None])[0]
    return -slope[:, None] * _indicators(design.student)


class _RestrictedLikelihood:
    """Restricted log likelihood of (teacher, cell, tau), noise variance profiled out, up to a constant."""

    def __init__(self, fit: JointFit, variance: float):
        problem, design = fit.problem, fit.problem.design
        theta = fit.theta[None]
        h, by = jacobian(problem, theta)
        by = fit.amplitude * by[0]
        precision = np.concatenate([design.prior[1], np.ones(SHAPES)])
        loose = precision <= 0
        self.residual = problem.target - fit.amplitude * h[0]
        # Adding the pull of the prior makes the linearised optimum the fitted one.
        self.fixed = np.concatenate([h.T, by[:, loose]], axis=1)
        tight = by[:, ~loose] / np.sqrt(precision[~loose] * variance)
        at = fit.theta[~loose] - np.concatenate([design.prior[0], np.zeros(SHAPES)])[~loose]
        self.residual = self.residual + by[:, ~loose] @ at
        self.base = np.eye(len(problem.target)) + tight @ tight.T
        self.rest, self.dof = problem.rest, problem.dof
        teacher = problem.mix @ _indicators(design.teacher)
        slopes = problem.mix @ _slopes(fit) / np.sqrt(variance)
        self.grams = teacher @ teacher.T, problem.mix @ problem.mix.T, slopes @ slopes.T
        self.replicated = len(design.y) >= 1.3 * len(design.x) and problem.dof - len(problem.target) >= 3

    def __call__(self, teacher: float, cell: float, tau: float) -> float:
        rss, free, logdet = self._parts(teacher, cell, tau)
        return float(-0.5 * (free * np.log(rss) + logdet))

    def variance(self, teacher: float, cell: float, tau: float) -> float:
        """Noise variance at these effects, nats²."""
        rss, free, _ = self._parts(teacher, cell, tau)
        return rss / free

    def _parts(self, teacher: float, cell: float, tau: float) -> tuple[float, float, float]:
        v = self.base + teacher**2 * self.grams[0] + cell**2 * self.grams[1] + tau**2 * self.grams[2]
        factor = np.linalg.cholesky(v)
        both = np.linalg.solve(factor, np.concatenate([self.residual[:, None], self.fixed], axis=1))
        y, f = both[:, 0], both[:, 1:]
        q, r = np.linalg.qr(f)
        rss = max(y @ y - (q.T @ y) @ (q.T @ y) + self.rest, 1e-20)
        free = max(self.dof - f.shape[1], 1)
        return float(rss), free, 2 * np.log(np.diag(factor)).sum() + 2 * np.log(np.abs(np.diag(r)) + 1e-300).sum()


def seed_noise(design: Design) -> tuple[float | None, float | None]:
    """Sd between runs of one cell, and the same after the pairing offset is removed, nats; None without replicates.

    Args:
        design: of the table.
    """
    counts = np.bincount(design.cell, minlength=len(design.x))
    extra = int((counts - 1).clip(0).sum())
    if extra < 2:
        return None, None
    means = np.bincount(design.cell, design.y) / counts
    raw = design.y - means[design.cell]
    offsets = len(np.unique(design.offset))
    students = len(np.unique(design.student))
    if offsets <= students or extra <= offsets - students:
        return float(np.sqrt((raw**2).sum() / extra)), None
    # Two-way means (cells and pairing offsets) by least squares.
    n = len(design.y)
    columns = np.zeros((n, len(design.x) + offsets))
    columns[np.arange(n), design.cell] = 1.0
    columns[np.arange(n), len(design.x) + design.offset] = 1.0
    left = design.y - columns @ np.linalg.lstsq(columns, design.y, rcond=None)[0]
    free = n - np.linalg.matrix_rank(columns)
    paired = float(np.sqrt((left**2).sum() / free)) if free > 0 else None
    return float(np.sqrt((raw**2).sum() / extra)), paired
