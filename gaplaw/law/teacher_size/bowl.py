"""What shape may the capacity gap have? One bowl h(u), shared by all students, with its minimum at u = 0 by
construction.

    h(u) = A · ∫_0^u v · exp(g(v)) dv,      g(v) = Σ_k b_k φ_k(asinh v),      g(0) = 0,      b_k ~ N(0, 1)

u is ln(teacher / best teacher) of the student at hand. exp(g) is the secant curvature relative to that at the minimum,
so h falls on the left and rises on the right whatever b is: the location of the optimum is a parameter of the law and
never a by-product of a polynomial. The first φ let left and right differ: a sharp and a broad step of the curvature at
the minimum, and a change that goes on for ever. How sharp it is decides where the optimum lies (by some 10 % at 4:1),
and few tables can tell, so both steps are offered; their priors are wide, because a shrunken asymmetry is a biased
optimum. The next two make both walls steeper (exponential) or flatter (linear) than a parabola's. The rest are smooth
local bumps, which let the data bend h away from any one family. With b = 0 the bowl is a parabola. Foot of the law half
of the walk; `joint` fits it.
"""

from __future__ import annotations

import numpy as np

REACH = 40.0  # |u| at which the table ends
CELLS = 120
STEPS = ((2.0, 0.15), (1.4, 1.0))  # (sd of half the log ratio of left to right curvature, how sharp the change is in u)
TAIL_SD = 1.0  # slope of log curvature per unit u: one wall steeper than the other
EVEN_SD = 1.0  # both walls steeper, or flatter, than a parabola's
BUMP_SD, BUMP_WIDTH = 0.4, 0.6
CENTRES = (-1.5, -0.6, 0.6, 1.5)
SHAPES = len(STEPS) + 3 + len(CENTRES)


def _features(xi: np.ndarray) -> np.ndarray:
    """φ_k at xi = asinh(u), each scaled to its prior sd and zero at xi = 0, (n, SHAPES)."""
    u = np.clip(np.sinh(xi), -7.0, 7.0)
    centres = np.asarray(CENTRES)
    bumps = np.exp(-0.5 * ((xi[:, None] - centres) / BUMP_WIDTH) ** 2) - np.exp(-0.5 * (centres / BUMP_WIDTH) ** 2)
    walls = np.sqrt(1 + u * u) - 1, np.log1p(u * u) / 2
    steps = (sd * np.tanh(u / width) for sd, width in STEPS)
    broad = *steps, TAIL_SD * u, EVEN_SD * walls[0], EVEN_SD * walls[1]
    return np.concatenate([np.stack(broad, axis=1), BUMP_SD * bumps], axis=1)


_XI_END = float(np.arcsinh(REACH))
_STEP = 2 * _XI_END / CELLS
_EDGES = np.sinh(np.linspace(-_XI_END, _XI_END, CELLS + 1))
_PHI = _features(np.arcsinh(_EDGES))  # (CELLS + 1, SHAPES)
_MIDDLE = CELLS // 2


def _weights(start: np.ndarray, length: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """∫ v c(v) dv over [start, start + along] = w0 c0 + w1 c1 for c linear from c0 to c1 over [start, start +
    length].
    """
    w1 = along * along * (start / 2 + along / 3) / length
    return along * (start + along / 2) - w1, w1


_LENGTH = np.diff(_EDGES)
_W0, _W1 = _weights(_EDGES[:-1], _LENGTH, _LENGTH)


def _from_middle(at_edges: np.ndarray) -> np.ndarray:
    """∫_0^edge v c(v) dv at every edge for c (B, CELLS + 1, K), summed outwards: a steep wall costs no digits at the
    minimum.
    """
    out = np.empty(at_edges.shape)
    out[:, _MIDDLE] = 0.0
    steps = at_edges[:, :-1] * _W0[:, None]
    steps += at_edges[:, 1:] * _W1[:, None]
    np.cumsum(steps[:, _MIDDLE:], axis=1, out=out[:, _MIDDLE + 1 :])
    left = out[:, _MIDDLE - 1 :: -1]
    np.cumsum(steps[:, _MIDDLE - 1 :: -1], axis=1, out=left)
    np.negative(left, out=left)
    return out


class Bowl:
    """h / A and its derivatives for a batch of shapes b (B, SHAPES), exact for curvature linear in u within a cell.

    Continuous curvature matters: with steps, every cell edge that passes a data point is a false optimum of the
    location.
    """

    def __init__(self, shape: np.ndarray):
        self.curvature = np.exp(np.clip(shape @ _PHI.T, -30.0, 30.0))  # at every edge, (B, CELLS + 1)
        self.height = _from_middle(self.curvature[..., None])[..., 0]  # h at every edge, (B, CELLS + 1)
        self._rows = (CELLS + 1) * np.arange(len(shape))[:, None]

    def _at(self, u: np.ndarray):
        """(clipped u, cell, flat index of its lower edge, weights of the curvature at both edges), each (B, n)."""
        u = np.clip(u, -REACH, REACH)
        cell = np.clip(((np.arcsinh(u) + _XI_END) / _STEP).astype(np.intp), 0, CELLS - 1)
        return u, cell, cell + self._rows, *_weights(_EDGES[cell], _LENGTH[cell], u - _EDGES[cell])

    def value(self, u: np.ndarray) -> np.ndarray:
        """h(u) / A, nats per unit of A, (B, n) for u (B, n) in ln units."""
        _, _, at, w0, w1 = self._at(u)
        curvature = self.curvature.ravel()
        return self.height.ravel()[at] + curvature[at] * w0 + curvature[at + 1] * w1

    def slope(self, u: np.ndarray) -> np.ndarray:
        """h'(u) / A, (B, n) for u (B, n)."""
        u, cell, at, _, _ = self._at(u)
        return u * self._between(u, cell, at)

    def _between(self, u, cell, at) -> np.ndarray:
        curvature, part = self.curvature.ravel(), (u - _EDGES[cell]) / _LENGTH[cell]
        return curvature[at] * (1 - part) + curvature[at + 1] * part

    def with_gradients(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """h / A (B, n), its derivative in u (B, n) and in the shape b (B, n, SHAPES)."""
        u, cell, at, w0, w1 = self._at(u)
        curvature = self.curvature.ravel()
        low, high = curvature[at] * w0, curvature[at + 1] * w1
        by_shape = _from_middle(self.curvature[..., None] * _PHI).reshape(-1, SHAPES).take(at, axis=0)
        by_shape += low[..., None] * _PHI.take(cell, axis=0)
        by_shape += high[..., None] * _PHI.take(cell + 1, axis=0)
        return self.height.ravel()[at] + low + high, u * self._between(u, cell, at), by_shape
