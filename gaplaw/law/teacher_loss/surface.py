"""What does a law in teacher loss say of any student and teacher? `LossSurface`: the averaged forms and their draws.

The other coordinate of the law half (see `teacher_size.surface` for teacher size). The variable that acts is the
teacher's loss relative to what the student can itself reach: L_T* = c M(N_S, D_S). Three closed forms with a shared
smooth correction are averaged by how well they predict students left out (`forms`, `correction`, `form_average`); no
published coefficient is used anywhere, and a student may end below its teacher. NumPy only, so that a law that is read
from its file answers without the fit. References: arXiv 2502.08606 eq. 8; arXiv 2210.14891 for the broken power law.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd

from gaplaw.errors import LawError
from gaplaw.law.no_teacher.baseline import baseline_loss
from gaplaw.law.teacher_loss.correction import Correction
from gaplaw.law.teacher_loss.form_average import FittedForm, FormAverage
from gaplaw.law.teacher_loss.forms import Inputs

MARGIN = 0.25  # how far past the measured teachers an optimum is looked for, in measured ranges of ln L_T
GRID = 281


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSurface:
    """Student loss as a function of the teacher's loss; implements `Surface`.

    Attributes:
        average: fitted forms with draws.
        centre: (mean ln N_S, mean ln D_S or None).
        log_ratio: ln(D_S / N_S) assumed when tokens are not given.
        span: measured (min, max) of ln L_T.
        scatter: (R,) shift of a new student's optimum, ln L_T.
        baseline: the no-teacher law, which the broken power law needs.
    """

    average: FormAverage
    centre: tuple[float, float | None]
    log_ratio: float | None
    span: tuple[float, float]
    scatter: np.ndarray
    baseline: dict | None = None
    kind: str = field(default="loss", init=False)

    # ------------------------------------------------------------------ the Surface protocol
    def predict(self, frame) -> np.ndarray:
        """Expected student loss, nats, per row."""
        tokens = frame["student_tokens"].to_numpy(dtype=float) if "student_tokens" in frame else None
        inputs = self.inputs(
            frame["student_params"].to_numpy(dtype=float), tokens, np.log(frame["teacher_loss"].to_numpy(float))
        )
        return np.exp(self.average.log_loss(inputs))

    def optimum_point(self, student_params: float, student_tokens: float | None) -> float:
        """See `Surface`."""
        grid = self._grid()
        curve = np.exp(self.average.log_loss(self._at(student_params, student_tokens, grid), teachers=False))
        return float(curve_minima(curve[None], grid, self.span)[0][0])

    def optimum_draws(self, student_params: float, student_tokens: float | None) -> np.ndarray:
        """See `Surface`."""
        grid = self._grid()
        return curve_minima(self._curves(student_params, student_tokens, grid), grid, self.span)[0] + self.scatter

    def regret_draws(self, student_params, student_tokens, teachers, teacher_tokens=None) -> np.ndarray:
        """See `Surface`; tokens of a teacher do not matter once its loss is known."""
        log_teachers = np.log(np.asarray(teachers, dtype=float))
        grid = self._grid(log_teachers, reach=float(np.abs(self.scatter).max()))
        curves = self._curves(student_params, student_tokens, grid)
        best = curve_minima(curves, grid, self.span)[1]
        # A new student's bowl sits at a shifted place: ask the draw's curve at the teacher minus the shift.
        at = interpolate_curves(curves, grid, log_teachers[None] - self.scatter[:, None])
        return np.maximum(at - best[:, None], 0.0)

    def loss_draws(self, student_params, student_tokens, teachers, teacher_tokens=None) -> np.ndarray:
        """See `Surface`."""
        return self._curves(student_params, student_tokens, np.log(np.asarray(teachers, dtype=float)))

    def teacher_draws(self, student_params, student_tokens, teachers) -> np.ndarray:
        """See `Surface`."""
        log_teachers = np.log(np.asarray(teachers, dtype=float))
        return self._curves(student_params, student_tokens, log_teachers) * np.expm1(
            self.average.teacher_draws(log_teachers)
        )

    def to_dict(self) -> dict:
        """JSON-ready but for its arrays."""
        parts = []
        for part in self.average.components:
            data = {item.name: getattr(part, item.name) for item in fields(part)}
            parts.append(data | {"correction": part.correction.to_dict(), "theta": part.theta.tolist()})
        return {
            "kind": self.kind,
            "components": parts,
            "reach_theta": self.average.reach_theta.tolist(),
            "centre": list(self.centre),
            "log_ratio": self.log_ratio,
            "span": list(self.span),
            "scatter": self.scatter,
            "baseline": self.baseline,
        }

    @classmethod
    def from_dict(cls, data: dict) -> LossSurface:
        """The surface that `to_dict` gave."""
        parts = []
        arrays = ("theta", "coefficients", "theta_draws", "coefficient_draws")
        for part in data["components"]:
            known = {name: np.array(part[name], dtype=float) for name in arrays}
            parts.append(FittedForm(**(part | known | {"correction": Correction.from_dict(part["correction"])})))
        average = FormAverage(
            components=tuple(parts),
            reach_theta=np.array(data["reach_theta"]),
            fitted_log_loss=np.empty(0),
            left_out_log_loss=None,
        )
        return cls(
            average=average,
            centre=tuple(data["centre"]),
            log_ratio=data["log_ratio"],
            span=tuple(data["span"]),
            scatter=np.array(data["scatter"]),
            baseline=data["baseline"],
        )

    # ------------------------------------------------------------------ beyond the protocol
    def scale_loss(self, student_params, student_tokens=None) -> np.ndarray:
        """The loss that a teacher is compared with, nats: L̃_S where no-teacher losses are known, the reachable loss M
        otherwise.

        Args:
            student_params, student_tokens: N_S and D_S.
        """
        if self.baseline is not None:
            return baseline_loss(self.baseline, student_params, self._tokens(student_params, student_tokens))
        inputs = self._at(student_params, student_tokens, np.zeros(1))
        return np.exp(self.average.components[0].form.floor(self.average.reach_theta[None], inputs)[0, 0])

    def inputs(self, params, tokens, log_teacher) -> Inputs:
        """Centred rows of students and teachers; tokens default to the table's tokens per parameter.

        Args:
            params, tokens: N_S and D_S (or None). log_teacher: ln L_T.
        """
        tokens = self._tokens(params, tokens)
        x = np.log(params) - self.centre[0]
        tokens = None if self.centre[1] is None else tokens  # a law without a term for tokens
        y = None if tokens is None else np.log(tokens) - self.centre[1]
        no_teacher_log_loss = None if self.baseline is None else np.log(baseline_loss(self.baseline, params, tokens))
        return Inputs(x, y, log_teacher, no_teacher_log_loss)

    def _tokens(self, params, tokens):
        if tokens is not None or self.log_ratio is None:
            return tokens
        return np.exp(self.log_ratio) * np.asarray(params, dtype=float)

    def _at(self, params, tokens, log_teacher) -> Inputs:
        """One student, many teachers: the student's terms stay of length one and broadcast."""
        return self.inputs(np.array([params]), None if tokens is None else np.array([tokens]), log_teacher)

    def _curves(self, params, tokens, log_teacher) -> np.ndarray:
        return np.exp(self.average.log_loss_draws(self._at(params, tokens, log_teacher), teachers=False))

    def _grid(self, log_teachers=None, reach: float = 0.0) -> np.ndarray:
        low, high = self.span
        margin = MARGIN * (high - low)
        low, high = low - margin, high + margin
        if log_teachers is not None:
            low, high = min(low, log_teachers.min() - reach), max(high, log_teachers.max() + reach)
        return np.linspace(low, high, GRID)


def curve_minima(curves: np.ndarray, grid: np.ndarray, span: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Place and value of each curve's minimum on an even grid, refined by a parabola, (R,) each.

    The minimum is looked for inside the measured span; from its edge it is followed downhill past it, and is ∓inf
    when the hill goes on to the grid's end. A dip beyond the span that is not reached downhill is extrapolation and
    does not count.

    Args:
        curves: (R, G). grid: (G,) even. span: (low, high), inside the grid.
    """
    last = len(grid) - 1
    first_in, last_in = np.searchsorted(grid, span[0]), np.searchsorted(grid, span[1], side="right") - 1
    index = first_in + np.argmin(curves[:, first_in : last_in + 1], axis=1)
    rising = np.diff(curves, axis=1) > 0
    left = first_in - _first_true(~rising[:, :first_in][:, ::-1])
    right = last_in + _first_true(rising[:, last_in:])
    index = np.where(index == first_in, left, np.where(index == last_in, right, index))
    inner = np.clip(index, 1, last - 1)
    rows = np.arange(len(curves))
    before, at, after = (curves[rows, inner + k] for k in (-1, 0, 1))
    bend = before - 2 * at + after
    move = np.where(bend > 0, 0.5 * (before - after) / np.where(bend > 0, bend, 1.0), 0.0)
    move = np.clip(move, -1, 1)
    value = np.minimum(at - 0.25 * (before - after) * move, curves[rows, index])
    place = grid[inner] + move * (grid[1] - grid[0])
    return np.where(index == 0, -np.inf, np.where(index == last, np.inf, place)), value


def _first_true(flags: np.ndarray) -> np.ndarray:
    """Position of the first True in each row; the row's length where there is none."""
    return (
        np.where(flags.any(1), flags.argmax(1), flags.shape[1]) if flags.shape[1] else np.zeros(len(flags), dtype=int)
    )


def interpolate_curves(curves: np.ndarray, grid: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear reading of curves between grid points, (R, n).

    Args:
        curves: (R, G). grid: (G,) even. at: (R, n).
    """
    step = (at - grid[0]) / (grid[1] - grid[0])
    cell = np.clip(step.astype(int), 0, len(grid) - 2)
    share = step - cell
    return np.take_along_axis(curves, cell, 1) * (1 - share) + np.take_along_axis(curves, cell + 1, 1) * share


def columns_of(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """(ln N_S, ln D_S or None, ln L_T, ln L_S) of a canonical frame, (n,) each.

    Args:
        frame: canonical, with teacher_loss.

    Raises:
        LawError: a student loss that has no logarithm.
    """
    loss = frame["student_loss"].to_numpy(float)
    if (loss <= 0).any():
        raise LawError(f"student_loss: {loss[loss <= 0][0]:g} must be positive for a law in teacher loss")
    tokens = np.log(frame["student_tokens"].to_numpy(float)) if "student_tokens" in frame else None
    return (
        np.log(frame["student_params"].to_numpy(float)),
        tokens,
        np.log(frame["teacher_loss"].to_numpy(float)),
        np.log(loss),
    )
