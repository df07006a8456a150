"""Where is the best teacher, told by all students at once? The joint fit of one shared bowl, offsets solved inside.

    L_S(i, j) = c_ig + A h(u_ij; b),      u_ij = ln T_j + r v_j − (κ + p z_i + q w_i)

z = ln N_S, w = ln(D_S / N_S), v = ln(D_T / N_T), each from its reference value; c_ig one offset per student, or per
student and pairing group. Offsets and A are linear and solved inside (variable projection); (κ, p, q, r, b) are
searched by damped Gauss-Newton steps with analytic derivatives; many starts, profiles or draws are one NumPy batch.
Students whose optimum lies past the edge of the grid still bend the shared bowl and so inform κ and p; nothing is
dropped. Follows `bowl` and `problem`, feeds `intervals`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.law.teacher_size.bowl import SHAPES, Bowl
from gaplaw.law.teacher_size.problem import Design, Problem, heights_and_noise_guess, project, row_weights

BASIN_GAP, MOST_BASINS = 6.0, 3  # other optima that the draws must visit too, in units of the objective


@dataclass(frozen=True, kw_only=True, slots=True)
class Solutions:
    """A batch of B fits.

    Attributes:
        location: (B, m) coefficients of ln T*. shape: (B, SHAPES). amplitude: (B,) nats.
        rss: (B,) nats². objective: (B,) rss / variance plus priors.
        promise: (B,) decrease of the objective that a full Gauss-Newton step still promises.
    """

    location: np.ndarray
    shape: np.ndarray
    amplitude: np.ndarray
    rss: np.ndarray
    objective: np.ndarray
    promise: np.ndarray  # decrease of the objective that a full Gauss-Newton step still promises

    def take(self, index) -> Solutions:
        return Solutions(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


def solve(
    problem: Problem,
    location: np.ndarray,
    shape: np.ndarray,
    *,
    variance: float | np.ndarray,
    fixed_columns: tuple[int, ...] = (),
    targets: np.ndarray | None = None,
    prior_shift: np.ndarray | None = None,
    iterations: int = 30,
    tolerance: float = 1e-7,
    chunk: int = 96,
) -> Solutions:
    """Minimise rss / variance + |b|² + exponent priors, from every start at once, by damped Gauss-Newton steps.

    Args:
        problem: from `project`.
        location, shape: (B, m) and (B, SHAPES) starts.
        variance: noise variance, nats², scalar or (B,).
        fixed_columns: location coefficients that stay at their start (profiles, restricted forms).
        targets: (B, k) other targets than the problem's (draws).
        prior_shift: (B, m + SHAPES) other prior means.
        iterations, tolerance: when to stop. chunk: starts handled together.

    Returns:
        Solutions, in the order of the starts.
    """
    parts = []
    total = len(location)
    variance = np.broadcast_to(np.asarray(variance, dtype=np.float64), (total,))
    for start in range(0, total, chunk):
        rows = slice(start, start + chunk)
        parts.append(
            _solve_chunk(
                problem,
                location[rows],
                shape[rows],
                variance[rows],
                fixed_columns,
                None if targets is None else targets[rows],
                None if prior_shift is None else prior_shift[rows],
                iterations,
                tolerance,
            )
        )
    return Solutions(**{f: np.concatenate([getattr(p, f) for p in parts]) for f in Solutions.__dataclass_fields__})


def _solve_chunk(problem, location, shape, variance, fixed_columns, targets, shift, iterations, tolerance) -> Solutions:
    design = problem.design
    batch, m = location.shape
    low, high = design.bounds
    target = np.broadcast_to(problem.target, (batch, len(problem.target))) if targets is None else targets
    mean, precision = design.prior
    centre = np.concatenate([mean, np.zeros(SHAPES)]) + (np.zeros((batch, 1)) if shift is None else shift)
    precision = np.concatenate([precision, np.ones(SHAPES)])
    free = np.array([k for k in range(m + SHAPES) if k not in fixed_columns])
    diagonal = np.arange(len(free))

    theta = np.concatenate([np.clip(location, low, high), shape], axis=1)
    value, rss, amplitude = _objective(problem, theta, target, variance, centre, precision)
    damping = np.full(batch, 1e-3)
    promise = np.full(batch, np.inf)
    active = np.arange(batch)
    for _ in range(iterations):
        at = theta[active]
        gradient, normal = _normal_equations(problem, at, target[active], variance[active])
        gradient = (gradient + (at - centre[active]) * precision)[:, free]
        normal = normal[:, free[:, None], free] + np.diag(precision[free])
        normal[:, diagonal, diagonal] *= 1.0 + damping[active][:, None]
        normal[:, diagonal, diagonal] += 1e-9
        step = -np.linalg.solve(normal, gradient[..., None])[..., 0]
        trial = at.copy()
        trial[:, free] += np.clip(step, -1.5, 1.5)
        trial[:, :m] = np.clip(trial[:, :m], low, high)
        got = _objective(problem, trial, target[active], variance[active], centre[active], precision)
        drop = value[active] - got[0]
        better = drop >= 0
        index = active[better]
        theta[index], value[index], rss[index], amplitude[index] = trial[better], *(g[better] for g in got)
        damping[active] = np.where(better, damping[active] * 0.2, damping[active] * 8.0)
        promise[active] = np.abs(np.einsum("bi,bi->b", gradient, step))
        done = (better & (drop < tolerance * (1.0 + np.abs(got[0])))) | (damping[active] > 1e8)
        active = active[~done]
        if not len(active):
            break
    return Solutions(
        location=theta[:, :m], shape=theta[:, m:], amplitude=amplitude, rss=rss, objective=value, promise=promise
    )


def _objective(problem, theta, target, variance, centre, precision):
    """(objective, rss, amplitude), each (B,), with the amplitude solved inside and kept non-negative."""
    m = problem.design.columns.shape[1]
    u = problem.design.x - theta[:, :m] @ problem.design.columns.T
    h = Bowl(theta[:, m:]).value(u) @ problem.mix.T
    amplitude = np.maximum(np.einsum("bk,bk->b", h, target) / (np.einsum("bk,bk->b", h, h) + 1e-300), 0.0)
    rss = ((target - amplitude[:, None] * h) ** 2).sum(1) + problem.rest
    return rss / variance + ((theta - centre) ** 2 * precision).sum(1), rss, amplitude


def jacobian(problem: Problem, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mix · h (B, k) and its derivative in theta = (location, shape), (B, k, m + SHAPES), both per unit amplitude."""
    m = problem.design.columns.shape[1]
    u = problem.design.x - theta[:, :m] @ problem.design.columns.T
    h, by_u, by_shape = Bowl(theta[:, m:]).with_gradients(u)
    by = np.concatenate([-by_u[..., None] * problem.design.columns, by_shape], axis=2)
    return h @ problem.mix.T, np.matmul(problem.mix, by)


def _normal_equations(problem, theta, target, variance):
    """Half gradient and Gauss-Newton matrix of rss / variance, the amplitude projected out (Kaufman's form)."""
    h, by = jacobian(problem, theta)
    norm = np.einsum("bk,bk->b", h, h) + 1e-300
    amplitude = np.maximum(np.einsum("bk,bk->b", h, target) / norm, 0.0)
    residual = target - amplitude[:, None] * h
    along = np.einsum("bk,bki->bi", h, by) / norm[:, None]
    by = amplitude[:, None, None] * (by - h[..., None] * along[:, None, :])
    normal = np.matmul(by.transpose(0, 2, 1), by) / variance[:, None, None]
    return -np.einsum("bki,bk->bi", by, residual) / variance[:, None], normal


@dataclass(frozen=True, kw_only=True, slots=True)
class JointFit:
    """The best fit and how it was reached."""

    problem: Problem
    best: Solutions  # batch of one
    variance: float  # noise, nats²
    freedom: float  # rows − offsets − effective parameters
    share_of_starts: float
    gap: float  # objective of the best other basin minus the best, in units of 2 Δ ln likelihood
    robust: np.ndarray  # row weights of the robust loss
    basins: Solutions  # the distinct optima within BASIN_GAP of the best, best first, at most MOST_BASINS

    @property
    def theta(self) -> np.ndarray:
        return np.concatenate([self.best.location, self.best.shape], axis=1)[0]

    @property
    def amplitude(self) -> float:
        return float(self.best.amplitude[0])


def fit_joint(design: Design, *, effects: np.ndarray | None = None, fixed_values: dict | None = None) -> JointFit:
    """Fit the shared bowl from many starts, with the noise variance and Huber's row weights found by iteration.

    Args:
        design: of the table.
        effects: random-effect columns in units of the noise sd (see `project`).
        fixed_values: location coefficient → value, for a restricted law (p = 1).

    Returns:
        JointFit, with the share of starts that reached it and the other optima nearby.
    """
    fixed_values = fixed_values or {}
    fixed_columns = tuple(design.names.index(name) for name in fixed_values)
    location, shape = starts(design, fixed_values)
    height, sd = heights_and_noise_guess(design)
    robust = row_weights(design, height, sd)
    problem = project(design, effects=effects, robust=robust)
    variance = sd**2
    from_starts = solve(problem, location, shape, variance=variance, fixed_columns=fixed_columns, iterations=12)
    solutions = from_starts.take(np.argsort(from_starts.objective)[: max(6, len(location) // 6)])
    for round_ in range(8):
        solutions = solve(
            problem, solutions.location, solutions.shape, variance=variance, fixed_columns=fixed_columns, iterations=40
        )
        best = int(np.argmin(solutions.objective))
        theta = np.concatenate([solutions.location, solutions.shape], axis=1)[best : best + 1]
        freedom = degrees_of_freedom(problem, theta, solutions.amplitude[best], variance, robust, fixed_columns)
        previous, variance = variance, max(solutions.rss[best] / freedom, 1e-14)
        if round_ < 5:
            robust = row_weights(design, height, np.sqrt(variance), theta, solutions.amplitude[best], freedom, robust)
            problem = project(design, effects=effects, robust=robust)
        elif abs(np.log(variance / previous)) < 0.02:
            break
    # Every start on to the final variance and weights: which of them reach the best answer is part of the result.
    final = solve(
        problem, from_starts.location, from_starts.shape, variance=variance, fixed_columns=fixed_columns, iterations=60
    )
    second_pass = solve(
        problem, solutions.location, solutions.shape, variance=variance, fixed_columns=fixed_columns, iterations=60
    )
    solutions = Solutions(
        **{f: np.concatenate([getattr(final, f), getattr(second_pass, f)]) for f in Solutions.__dataclass_fields__}
    )
    solutions = solutions.take(np.argsort(solutions.objective))
    low = solutions.objective[0]
    share = float(np.mean(final.objective <= low + 1e-2))
    away = np.abs(solutions.location[:, 0] - solutions.location[0, 0]) > 0.1
    gap = float(np.min(solutions.objective[away]) - low) if away.any() else np.inf
    return JointFit(
        problem=problem, best=solutions.take(slice(0, 1)), variance=float(variance), freedom=float(freedom),
        share_of_starts=share, gap=gap, robust=robust, basins=_distinct(solutions),
    )  # fmt: skip


def _distinct(solutions: Solutions) -> Solutions:
    """Optima (sorted, best first) that are near the best in objective and apart from each other in location."""
    basin_rows: list[int] = []
    for i in np.flatnonzero(solutions.objective <= solutions.objective[0] + BASIN_GAP):
        if all(np.abs(solutions.location[i] - solutions.location[j]).max() > 0.03 for j in basin_rows):
            basin_rows.append(int(i))
    return solutions.take(np.array(basin_rows[:MOST_BASINS]))


def starts(design: Design, fixed_values: dict) -> tuple[np.ndarray, np.ndarray]:
    """A grid over κ, p and the lean of the bowl, (B, m) and (B, SHAPES); the rest starts at its prior mean."""
    mean, _ = design.prior
    span = design.x.min(), design.x.max()
    rows, shapes = [], []
    for kappa in np.linspace(span[0] - 0.3, span[1] + 0.3, 9):
        for p in (0.6, 1.2) if "p" in design.names and "p" not in fixed_values else (None,):
            for lean in (-0.8, 0.8):
                row = mean.copy()
                row[0] = kappa
                if p is not None:
                    row[design.names.index("p")] = p
                for name, value in fixed_values.items():
                    row[design.names.index(name)] = value
                rows.append(row)
                shapes.append(np.eye(SHAPES)[0] * lean)
    return np.array(rows), np.array(shapes)


def information(
    problem: Problem, theta: np.ndarray, amplitude: float, variance: float
) -> tuple[np.ndarray, np.ndarray]:
    """What the data say of (A, location, shape) at theta (1, m + SHAPES), (K, K), and their priors' precision, (K,)."""
    h, by = jacobian(problem, theta)
    columns = np.concatenate([h[0][:, None], amplitude * by[0]], axis=1)
    return columns.T @ columns / variance, np.concatenate([[0.0], problem.design.prior[1], np.ones(SHAPES)])


def degrees_of_freedom(
    problem: Problem, theta: np.ndarray, amplitude: float, variance: float, robust, fixed_columns=()
) -> float:
    """Σ robust_i (1 − leverage_i): degrees of freedom of the weighted residual sum of squares, offsets counted.

    A down-weighted row adds less than one, so that distrust in the far walls of a bowl does not shrink the noise
    estimate.

    Args:
        problem: from `project`. theta: (1, m + SHAPES). amplitude: A, nats. variance: nats².
        robust: (n,) row weights. fixed_columns: coefficients that were not fitted.
    """
    normal, precision = information(problem, theta, amplitude, variance)
    free = np.array([k for k in range(len(precision)) if k - 1 not in fixed_columns])
    normal, precision = normal[free[:, None], free], precision[free]
    used = float(np.trace(np.linalg.solve(normal + np.diag(precision + 1e-9), normal)))
    trust = float(robust.sum() / (robust > 0).sum())
    return max(trust * (problem.dof - used), 1.0)
