"""What shape may the capacity gap have? One bowl h(u), shared by all students, with its minimum at u = 0 by construction.

    h(u) = A · ∫_0^u v · exp(g(v)) dv,      g(v) = Σ_k b_k φ_k(asinh v),      g(0) = 0,      b_k ~ N(0, 1)

u is ln(teacher / best teacher) of the student at hand. exp(g) is the secant curvature relative to that at the minimum, so h falls
on the left and rises on the right whatever b is: the location of the optimum is a parameter of the law and never a by-product
of a polynomial. φ_0 and φ_1 let left and right differ (a step of the curvature at the minimum, and a gradual change); their
priors are wide, because a shrunken asymmetry is a biased optimum. φ_2 and φ_3 make both walls steeper (exponential) or flatter
(linear) than a parabola's. The rest are smooth local bumps, finer near the minimum and coarser in the tails, which let the data
bend h away from any one family. With b = 0 the bowl is a parabola. Foot of the law half of the walk; `joint` fits it.
"""

from __future__ import annotations

import numpy as np

REACH = 14.0  # |u| at which the table ends; beyond it the curvature stays what it was
CELLS = 160
STEP_SD, STEP_WIDTH = 1.0, 0.15  # half the log ratio of left to right curvature, and how sharp the change is in u
TAIL_SD = 0.5  # slope of log curvature per unit u: one wall steeper than the other
EVEN_SD = 0.6  # both walls steeper, or flatter, than a parabola's
BUMP_SD, BUMP_WIDTH = 0.25, 0.6
CENTRES = (-2.6, -1.8, -1.1, -0.5, 0.0, 0.5, 1.1, 1.8, 2.6)
SHAPES = 4 + len(CENTRES)


def _features(xi: np.ndarray) -> np.ndarray:
    """φ_k at xi = asinh(u), each scaled to its prior sd and zero at xi = 0, (n, SHAPES)."""
    u = np.clip(np.sinh(xi), -7.0, 7.0)
    centres = np.asarray(CENTRES)
    bumps = np.exp(-0.5 * ((xi[:, None] - centres) / BUMP_WIDTH) ** 2) - np.exp(-0.5 * (centres / BUMP_WIDTH) ** 2)
    walls = np.sqrt(1 + u * u) - 1, np.log1p(u * u) / 2
    broad = STEP_SD * np.tanh(u / STEP_WIDTH), TAIL_SD * u, EVEN_SD * walls[0], EVEN_SD * walls[1]
    return np.concatenate([np.stack(broad, axis=1), BUMP_SD * bumps], axis=1)


_XI_END = float(np.arcsinh(REACH))
_EDGES_XI = np.linspace(-_XI_END, _XI_END, CELLS + 1)
_STEP = _EDGES_XI[1] - _EDGES_XI[0]
_EDGES = np.sinh(_EDGES_XI)
_PHI = _features(0.5 * (_EDGES_XI[1:] + _EDGES_XI[:-1]))  # (CELLS, SHAPES)
_AREA = 0.5 * (_EDGES[1:] ** 2 - _EDGES[:-1] ** 2)  # ∫ v dv over a cell
_MIDDLE = CELLS // 2


def _from_middle(steps: np.ndarray) -> np.ndarray:
    """Sums of cells from u = 0 to every edge, (B, CELLS + 1, ...), outwards so that a steep wall costs no digits at the minimum."""
    out = np.zeros((len(steps), CELLS + 1, *steps.shape[2:]))
    np.cumsum(steps[:, _MIDDLE:], axis=1, out=out[:, _MIDDLE + 1 :])
    out[:, :_MIDDLE] = -np.cumsum(steps[:, _MIDDLE - 1 :: -1], axis=1)[:, ::-1]
    return out


class Bowl:
    """h / A and its derivatives for a batch of shapes b (B, SHAPES), exact for curvature constant within a cell."""

    def __init__(self, shape: np.ndarray):
        self.curvature = np.exp(np.clip(shape @ _PHI.T, -30.0, 30.0))  # (B, CELLS)
        steps = self.curvature * _AREA
        self.height = _from_middle(steps)  # h at every edge, (B, CELLS + 1)
        self._steps = steps
        self._rows = np.arange(len(shape))[:, None]

    def _cell(self, u: np.ndarray) -> np.ndarray:
        return np.clip(((np.arcsinh(u) + _XI_END) / _STEP).astype(np.intp), 0, CELLS - 1)

    def value(self, u: np.ndarray) -> np.ndarray:
        """h(u) / A, (B, n) for u (B, n)."""
        cell = self._cell(u)
        inner = 0.5 * (u * u - _EDGES[cell] ** 2)
        return self.height[self._rows, cell] + self.curvature[self._rows, cell] * inner

    def slope(self, u: np.ndarray) -> np.ndarray:
        """h'(u) / A, (B, n)."""
        return u * self.curvature[self._rows, self._cell(u)]

    def with_gradients(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """h / A (B, n), its derivative in u (B, n) and in the shape b (B, n, SHAPES)."""
        cell = self._cell(u)
        here = self.curvature[self._rows, cell]
        inner = here * 0.5 * (u * u - _EDGES[cell] ** 2)
        steps = self._steps[:, :, None] * _PHI
        by_shape = _from_middle(steps)[self._rows, cell] + inner[..., None] * _PHI[cell]
        return self.height[self._rows, cell] + inner, u * here, by_shape
