"""What does the joint fit minimise? The table's cells, its offsets and correlated effects projected out, its rows
weighted.

Between `design` (which reads a table) and `joint` (which searches): everything here is linear algebra on the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.law.teacher_size.bowl import Bowl

# Weak priors and bounds of the location coefficients, in ln units: wide enough for every published law, narrow enough
# that a table which says nothing about a coefficient shows itself as 'unidentified' and does not send the fit to
# infinity.
EXPONENTS = {"p": (1.0, 1.0), "q": (0.0, 1.0), "r": (0.0, 1.0)}
BOUND = 3.0  # in prior sd's
HUBER = 2.5  # residuals beyond this many noise sd's pull with constant force
MISFIT = 0.01  # relative error of any bowl's height that must not move its minimum
MOST_PAST_GRID_LN = 2.0  # how far past the measured teachers (ln units) an optimum is followed


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """The cells of a table (distinct pairs of student and teacher) and how rows average them; all logs natural.

    Attributes:
        names: location coefficients, 'kappa' first.
        x: (n_cells,) ln teacher size.
        columns: (n_cells, m) d location / d coefficient.
        cell, offset: (n,) of each row.
        student, teacher: (n_cells,) of each cell.
        y: (n,) student loss, nats. weight: (n,).
    """

    names: tuple[str, ...]
    x: np.ndarray
    columns: np.ndarray
    cell: np.ndarray  # row → cell
    offset: np.ndarray  # row → offset
    student: np.ndarray  # cell → student
    teacher: np.ndarray  # cell → teacher
    y: np.ndarray
    weight: np.ndarray

    @property
    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Prior mean and precision of the location coefficients; κ has none."""
        pairs = [EXPONENTS.get(name, (0.0, np.inf)) for name in self.names]
        return np.array([m for m, _ in pairs]), np.array([s**-2.0 for _, s in pairs])

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        spread = self.columns[:, 0] * 0.0 + self.x
        low, high = [spread.min() - MOST_PAST_GRID_LN], [spread.max() + MOST_PAST_GRID_LN]
        for name in self.names[1:]:
            mean, sd = EXPONENTS[name]
            low.append(mean - BOUND * sd)
            high.append(mean + BOUND * sd)
        return np.array(low), np.array(high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """The table with offsets (and correlated effects) projected out: minimise |target − A · mix · h(cells)|².

    Attributes:
        design: of the table.
        mix: (k, n_cells). target: (k,).
        rest: residual sum of squares that no h can reach (seed noise), nats².
        dof: rows − offsets.
    """

    design: Design
    mix: np.ndarray
    target: np.ndarray
    rest: float
    dof: int


def project(design: Design, *, effects: np.ndarray | None = None, robust: np.ndarray | None = None) -> Problem:
    """Whiten rows by weights and random effects, project offsets out, and compress rows to cells.

    Args:
        effects: (n_rows, e) columns of random effects in units of the noise sd: covariance I + effects effectsᵀ.
        robust: (n_rows,) extra weights of a robust fit.
    """
    n = len(design.y)
    weight = design.weight * (1.0 if robust is None else robust)
    root = np.sqrt(weight)[:, None]
    offsets = np.zeros((n, design.offset.max() + 1))
    offsets[np.arange(n), design.offset] = 1.0
    spread = np.zeros((n, len(design.x)))
    spread[np.arange(n), design.cell] = 1.0
    block = np.concatenate([design.y[:, None], offsets, spread], axis=1) * root
    if effects is not None and effects.shape[1]:
        scaled = effects * root
        # (I + ZZᵀ)^(-1/2) by the SVD of Z; cheaper and steadier than an n × n Cholesky factor.
        left, values, _ = np.linalg.svd(scaled, full_matrices=False)
        block = block + left @ ((1.0 / np.sqrt(1.0 + values**2) - 1.0)[:, None] * (left.T @ block))
    count = offsets.shape[1]
    basis, _ = np.linalg.qr(block[:, 1 : 1 + count])
    block = block - basis @ (basis.T @ block)
    y, cells = block[:, 0], block[:, 1 + count :]
    q, mix = np.linalg.qr(cells)
    target = q.T @ y
    rest = float(max(y @ y - target @ target, 0.0))
    return Problem(design=design, mix=mix, target=target, rest=rest, dof=int((weight > 0).sum()) - count)


def fitted_rows(
    design: Design, theta: np.ndarray, amplitude: float, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fitted loss per row (n,) and the offsets c (n_offsets,), weighted means of what the bowl leaves; nats.

    Args:
        design: of the table. theta: (1, m + SHAPES). amplitude: A, nats. weight: (n,).
    """
    m = design.columns.shape[1]
    u = design.x - theta[:, :m] @ design.columns.T
    h = amplitude * Bowl(theta[:, m:]).value(u)[0][design.cell]
    total = np.bincount(design.offset, weight)
    c = np.bincount(design.offset, weight * (design.y - h)) / np.maximum(total, 1e-300)
    return c[design.offset] + h, c


def row_weights(design, height, sd, theta=None, amplitude=0.0, freedom=1.0, previous=1.0):
    """Huber's weights, and less trust in a bowl's far walls: any bowl is believed only to MISFIT of its height.

    Args:
        design: of the table. height: (n,) above the student's best cell, nats. sd: of the noise, nats.
        theta, amplitude, freedom, previous: of the last fit; without theta only the heights count.

    Returns:
        (n,) in (0, 1].
    """
    if theta is None:
        return 1.0 / (1.0 + (MISFIT * height / sd) ** 2)
    fitted, _ = fitted_rows(design, theta, amplitude, design.weight * previous)
    size = np.abs(design.y - fitted) * np.sqrt(design.weight)
    # The median residual, corrected for what the fit absorbed, bounds the scale: one wild run cannot excuse itself.
    typical = 1.4826 * float(np.median(size)) * np.sqrt(len(size) / max(freedom, 1.0))
    sd = min(sd, 1.5 * typical + 1e-12)
    trust = 1.0 / (1.0 + (MISFIT * height / sd) ** 2)
    return trust * np.minimum(1.0, HUBER * sd / np.maximum(size * np.sqrt(trust), 1e-300))


def heights_and_noise_guess(design: Design) -> tuple[np.ndarray, float]:
    """Before any fit: each row's height above its student's best cell, nats (n,), and a low first guess of the noise
    sd.

    The guess is half the median gap between a cell and the straight line through its two neighbours: small on purpose,
    since a fit that starts with too much noise lets the walls of the bowl explain themselves by it and never sees the
    minimum.
    """
    count = np.bincount(design.offset)
    above_mean = design.y - (np.bincount(design.offset, design.y) / count)[design.offset]
    size = np.bincount(design.cell, minlength=len(design.x))
    mean = np.bincount(design.cell, above_mean, minlength=len(design.x)) / size
    height, gaps = np.zeros(len(design.x)), []
    for s in np.unique(design.student):
        cells = np.flatnonzero(design.student == s)
        cells = cells[np.argsort(design.x[cells])]
        x, y = design.x[cells], mean[cells]
        height[cells] = y - y.min()
        wide = x[2:] - x[:-2]
        ok = wide > 1e-9
        part = (x[1:-1] - x[:-2])[ok] / wide[ok]
        gaps.append(np.abs(y[1:-1][ok] - (1 - part) * y[:-2][ok] - part * y[2:][ok]))
    gaps = np.concatenate(gaps) if gaps else np.zeros(0)
    return height[design.cell], max(0.5 * float(np.median(gaps)) if len(gaps) else 1e-3, 1e-6)
