"""How sure is the law? Draws from the joint fit, profile likelihood, and a wild cluster bootstrap as independent check.

Follows `joint` and `variance`. Draws: the data are perturbed by the noise that the fit found in them, the exponents'
priors by their own width, and the whole fit is repeated from the optimum, all draws as one batch: the sampling spread
of the penalised estimate (randomise, then optimise; Bardsley et al. 2014).
Profile: one coefficient held on a grid, the rest refitted, the interval where the objective stays within Student's
threshold, scaled to the sampling spread.
Bootstrap: residuals flipped by Webb's six-point weights per cluster (students, and teachers), design fixed, one Newton
step each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import stdtrit

from gaplaw.law.teacher_size.bowl import SHAPES, Bowl
from gaplaw.law.teacher_size.joint import JointFit, Solutions, degrees_of_freedom, information, solve
from gaplaw.law.teacher_size.problem import MOST_PAST_GRID_LN, Design, project

REACH = np.array([0, 0.4, 0.8, 1.2, 1.6, 2, 2.5, 3, 4, 6, 10, 20])  # profile grid, in sd's
WEBB = np.sqrt([1.5, 1.0, 0.5])


def draw_refits(fit: JointFit, count: int, rng: np.random.Generator) -> Solutions:
    """Refits to perturbed data and exponent priors, warm-started at the best fit and its other basins.

    The shape's priors are penalties, so wide that they bias little, and stay as they are: were they redrawn as if
    bowls came from them, the spread of a parabola's optimum would be overstated (by 14 to 32 % with 7 teachers and 6
    students).

    Args:
        fit: the best fit. count: how many draws, R. rng: of the perturbations.

    Returns:
        Solutions, a batch of R.
    """
    problem = fit.problem
    m = problem.design.columns.shape[1]
    sd = np.sqrt(fit.variance * fit.freedom / rng.chisquare(fit.freedom, count))
    targets = problem.target + sd[:, None] * rng.standard_normal((count, len(problem.target)))
    precision = problem.design.prior[1]
    scale = np.where(precision > 0, 1 / np.sqrt(np.maximum(precision, 1e-300)), 0.0)
    shift = np.concatenate([scale * rng.standard_normal((count, m)), np.zeros((count, SHAPES))], axis=1)
    # A bowl with a sharp bend can have several optima; each draw starts from each and keeps its own best.
    basins = np.concatenate([fit.basins.location, fit.basins.shape], axis=1)
    many = len(basins)
    start = np.tile(basins, (count, 1))
    refits = solve(
        problem, start[:, :m], start[:, m:], variance=np.repeat(sd**2, many), targets=np.repeat(targets, many, axis=0),
        prior_shift=np.repeat(shift, many, axis=0), iterations=12, tolerance=1e-3,
    )  # fmt: skip
    best = refits.objective.reshape(count, many).argmin(axis=1)
    return refits.take(np.arange(count) * many + best)


def threshold(level: float, freedom: float) -> float:
    """Rise of the objective at the end of a central interval: Student's t squared."""
    return float(stdtrit(freedom, 0.5 + level / 2) ** 2)


def profile(fit: JointFit, name: str, sd: float, levels=(0.5, 0.9)) -> list[tuple]:
    """Profile intervals of one location coefficient.

    Args:
        fit: the best fit.
        name: of the coefficient, in ln units ('kappa') or an exponent.
        sd: rough standard deviation (from the draws), which sets the grid (out to ± 20 sd).
        levels: of the intervals.

    Returns:
        (low, high) per level; a side that is never reached is None.
    """
    column = fit.problem.design.names.index(name)
    low, high = (edge[column] for edge in fit.problem.design.bounds)
    m = fit.problem.design.columns.shape[1]
    best = fit.theta[column]
    sd = float(np.clip(sd, 1e-4, (high - low) / 4))
    grid = np.unique(np.clip(best + sd * np.concatenate([-REACH[:0:-1], REACH]), low, high))
    start = np.tile(fit.theta, (len(grid), 1))
    start[:, column] = grid
    refits = solve(
        fit.problem,
        start[:, :m],
        start[:, m:],
        variance=fit.variance,
        fixed_columns=(column,),
        iterations=20,
        tolerance=1e-5,
    )
    rise = refits.objective - min(fit.best.objective[0], refits.objective.min())
    root = np.sign(grid - best) * np.sqrt(np.maximum(rise, 0))
    out, share = [], _sampling_share(fit, column)
    for level in levels:
        t = share * np.sqrt(threshold(level, fit.freedom))
        out.append((_cross(grid, root, -t, -1), _cross(grid, root, t, 1)))
    return out


def _sampling_share(fit: JointFit, column: int) -> float:
    """Sampling sd of a location coefficient over the sd that the penalised objective's curvature shows, at most 1 (see
    `draw_refits`).
    """
    normal, precision = information(fit.problem, fit.theta[None], fit.amplitude, fit.variance)
    precision = precision + 1e-9
    covariance = np.linalg.inv(normal + np.diag(precision))
    precision[-SHAPES:] = 0.0
    row = covariance[column + 1]
    return float(np.sqrt(row @ (normal + np.diag(precision)) @ row / row[column + 1]))


def _cross(grid, root, target, side) -> float | None:
    """First grid position, walking outwards from the best fit on `side`, where the signed root passes `target`."""
    order = np.argsort(grid * side)
    g, r = grid[order], root[order] * side
    for i in range(1, len(g)):
        if r[i] >= abs(target) > r[i - 1] and r[i] >= 0:
            part = (abs(target) - r[i - 1]) / (r[i] - r[i - 1])
            return float(g[i - 1] + part * (g[i] - g[i - 1]))
    return None


def recentre(fit: JointFit, columns: np.ndarray) -> JointFit:
    """The same fit with κ moved to another student: κ is then that student's ln T*.

    Args:
        fit: any fit. columns: (m,) location columns of the student.
    """
    design = fit.problem.design
    columns_of_student = design.columns.copy()
    columns_of_student[:, 1:] -= columns[1:]
    location = fit.best.location.copy()
    location[:, 0] = fit.best.location @ columns
    best = replace(fit.best, location=location)
    return replace(fit, problem=replace(fit.problem, design=replace(design, columns=columns_of_student)), best=best)


def wild_bootstrap(fit: JointFit, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws of the location coefficients by flipped residuals, clusters kept whole; the design and one Newton step
    each.

    Args:
        fit: the best fit. count: how many draws. rng: of the signs.

    Returns:
        (count, m) draws under keys 'student' and 'teacher', the clusters. Reference: Webb 2014, six-point weights.
    """
    design = fit.problem.design
    m = design.columns.shape[1]
    # Row-level quantities: weights, offsets removed, so that a cluster's score is a sum over its rows.
    weight = design.weight * fit.robust
    u = design.x - design.columns @ fit.theta[:m]
    h, by_u, by_shape = (a[0] for a in Bowl(fit.theta[None, m:]).with_gradients(u[None]))
    cells = np.concatenate([h[:, None], fit.amplitude * -by_u[:, None] * design.columns, fit.amplitude * by_shape], 1)
    rows = _within(cells[design.cell], design.offset, weight)
    residual = _within((design.y - fit.amplitude * h[design.cell])[:, None], design.offset, weight)[:, 0]
    precision = np.concatenate([[0.0], design.prior[1], np.ones(SHAPES)])
    normal = (rows * weight[:, None]).T @ rows / fit.variance + np.diag(precision + 1e-10)
    inverse = np.linalg.inv(normal)
    leverage = np.einsum("ni,ij,nj->n", rows, inverse, rows) * weight / fit.variance
    residual = residual / np.clip(1 - leverage - 1 / np.bincount(design.offset)[design.offset], 0.2, 1.0)
    scores = rows * (weight * residual)[:, None] / fit.variance
    out = {}
    for name, label in (("student", design.student), ("teacher", design.teacher)):
        cluster = label[design.cell]
        sums = np.stack([np.bincount(cluster, column) for column in scores.T], axis=1)
        webb = rng.choice(np.concatenate([WEBB, -WEBB]), size=(count, len(sums)))
        out[name] = fit.theta[:m] + (webb @ sums @ inverse)[:, 1 : 1 + m]
    return out


def _within(columns: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Columns minus their weighted mean within each label."""
    total = np.maximum(np.bincount(label, weight), 1e-300)
    means = np.stack([np.bincount(label, weight * column) / total for column in columns.T], axis=1)
    return columns - means[label]


def gains_over_no_bowl(fit: JointFit) -> tuple[float, float]:
    """How much better the bowl is than its rivals without an interior optimum, in units of the objective (2 Δ ln L).

    Args:
        fit: the best fit.

    Returns:
        (gain over a flat line, gain over the best fit whose optimum lies at or past one end of the grid for EVERY
        student).
    """
    problem, design = fit.problem, fit.problem.design
    m = design.columns.shape[1]
    low, high = design.x.min(), design.x.max()
    exponent = {"p"} & set(design.names)
    exponents = sorted({float(fit.theta[design.names.index("p")]), 0.0, 0.5, 1.0}) if exponent else [None]
    rows = []
    for p in exponents:
        location = fit.theta[:m].copy()
        if p is not None:
            location[design.names.index("p")] = p
        rest = design.columns[:, 1:] @ location[1:]
        for beyond in (0.0, 0.7, 1.4, MOST_PAST_GRID_LN):
            for kappa in (low - beyond - rest.max(), high + beyond - rest.min()):
                rows.append(np.concatenate([[kappa], location[1:]]))
    rows = np.array(rows)
    wide = replace(problem, design=_DesignWithoutBounds.of(design))
    fixed_columns = (0, *(design.names.index(name) for name in exponent))
    lean = np.zeros((len(rows), SHAPES))
    refits = solve(wide, rows, lean, variance=fit.variance, fixed_columns=fixed_columns, iterations=25, tolerance=1e-5)
    flat = (problem.target @ problem.target + problem.rest) / fit.variance
    best = fit.best.objective[0]
    return float(flat - best), float(min(flat, refits.objective.min()) - best)


class _DesignWithoutBounds(Design):
    """A design whose κ may be held anywhere."""

    __slots__ = ()

    @classmethod
    def of(cls, design: Design) -> _DesignWithoutBounds:
        return cls(**{name: getattr(design, name) for name in Design.__dataclass_fields__})

    @property
    def bounds(self):
        low, high = Design.bounds.fget(self)
        return np.concatenate([[-np.inf], low[1:]]), np.concatenate([[np.inf], high[1:]])


def refit(design: Design, fit: JointFit, effects: np.ndarray, variance: float, rounds: int = 3) -> JointFit:
    """The fit again with random effects in its covariance, warm-started at `fit` and its other basins.

    Args:
        design: of the table. fit: the pilot.
        effects: (n, e) columns in units of the noise sd. variance: first guess of the noise, nats².
        rounds: of fit and noise.
    """
    problem = project(design, effects=effects, robust=fit.robust)
    solutions, freedom = fit.basins, fit.freedom
    for _ in range(rounds):
        solutions = solve(problem, solutions.location, solutions.shape, variance=variance, iterations=40)
        solutions = solutions.take(np.argsort(solutions.objective))
        theta = np.concatenate([solutions.location, solutions.shape], axis=1)[:1]
        freedom = degrees_of_freedom(problem, theta, solutions.amplitude[0], variance, fit.robust)
        variance = max(float(solutions.rss[0]) / freedom, 1e-14)
    best = solutions.take(slice(0, 1))
    return replace(fit, problem=problem, best=best, variance=variance, freedom=freedom, basins=solutions)
