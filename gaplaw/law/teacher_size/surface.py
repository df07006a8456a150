"""What does the joint fit say about any student and teacher? `BowlSurface`: the fitted bowl, its draws and the
students' offsets.

Follows `joint` and `intervals`; a `Law` in the teacher_params coordinate asks it everything. It is plain arrays, so a
law read from JSON answers exactly as the law that was fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.errors import LawError
from gaplaw.law.teacher_size.bowl import SHAPES, Bowl

BOWL_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class References:
    """Where the logs are measured from: mean ln N_S, ln(D_S/N_S), ln(D_T/N_T) of the table (0 where a column is
    absent).
    """

    student: float
    tokens_per_param: float = 0.0
    teacher_tokens_per_param: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """The student's loss under its best teacher: c(N, D) = E + A N^-a + B D^-b, and as measured for known students."""

    students: tuple[tuple[float, float | None, float], ...]  # (params, tokens, c)
    coefficients: tuple[float, float, float, float, float]  # E, A, a, B, b with N and D in units of their reference
    reference: tuple[float, float]

    def __call__(self, params: float, tokens: float | None) -> float:
        for known_params, known_tokens, c in self.students:
            same = tokens is None or known_tokens is None or abs(tokens / known_tokens - 1) < 1e-6
            if abs(params / known_params - 1) < 1e-6 and same:
                return c
        e, a_, a, b_, b = self.coefficients
        data = 0.0 if not b_ or tokens is None else b_ * (tokens / self.reference[1]) ** -b
        return e + a_ * (params / self.reference[0]) ** -a + data


@dataclass(frozen=True, kw_only=True, slots=True)
class BowlSurface:
    """A law over teacher sizes as arrays: the fitted bowl, R draws of it, and the floor; implements `Surface`.

    Attributes:
        names: location coefficients. fixed: those that the table cannot tell, at their assumed value.
        references: where the logs are measured from.
        location, shape, amplitude: the best fit, (m,), (SHAPES,) and nats.
        draws_location, draws_shape, draws_amplitude: (R, m), (R, SHAPES), (R,).
        draws_scatter: (R,) shift of ln T* of a new student.
        bounds: κ at which a draw has run off the grid.
        floor: the student's loss under its best teacher.
    """

    names: tuple[str, ...]
    fixed: dict[str, float]  # coefficients that the table cannot tell, at their assumed value
    references: References
    location: np.ndarray  # (m,)
    shape: np.ndarray  # (SHAPES,)
    amplitude: float
    draws_location: np.ndarray  # (R, m)
    draws_shape: np.ndarray  # (R, SHAPES)
    draws_amplitude: np.ndarray  # (R,)
    draws_scatter: np.ndarray  # (R,) shift of ln T* of a new student
    bounds: tuple[float, float]  # κ at which a draw has run off the grid
    floor: Floor
    kind: str = "bowl"

    def _columns(self, params: float, tokens: float | None) -> tuple[np.ndarray, float]:
        """(coefficients' multipliers (m,), part of the location that is fixed)."""
        if tokens is None and "q" in self.names:
            tokens = params * np.exp(self.references.tokens_per_param)
        w = 0.0 if tokens is None else np.log(tokens / params) - self.references.tokens_per_param
        values = {"kappa": 1.0, "p": np.log(params) - self.references.student, "q": w, "r": 0.0}
        return np.array([values[name] for name in self.names]), sum(values[k] * v for k, v in self.fixed.items())

    def optimum_point(self, student_params: float, student_tokens: float | None) -> float:
        """See `Surface`; NaN where the bowl is flat."""
        if self.amplitude <= 0:
            return float("nan")
        if not self.bounds[0] < self.location[0] < self.bounds[1]:
            return float("-inf") if self.location[0] <= self.bounds[0] else float("inf")
        columns, fixed = self._columns(student_params, student_tokens)
        return float(columns @ self.location + fixed)

    def _draws(self, params, tokens) -> np.ndarray:
        columns, fixed = self._columns(params, tokens)
        return self.draws_location @ columns + fixed

    def optimum_draws(self, student_params: float, student_tokens: float | None) -> np.ndarray:
        """See `Surface`; a draw without a bowl counts half on each side."""
        draws = self._draws(student_params, student_tokens) + self.draws_scatter
        kappa = self.draws_location[:, 0]
        flat = self.draws_amplitude <= 0
        # A draw without a bowl says nothing about the side on which the optimum lies: half of them go to each.
        side = np.where(np.arange(len(draws)) % 2 == 0, -np.inf, np.inf)
        draws = np.where(kappa <= self.bounds[0], -np.inf, np.where(kappa >= self.bounds[1], np.inf, draws))
        return np.where(flat, side, draws)

    def _heights(self, location: np.ndarray, teachers: np.ndarray, teacher_tokens) -> np.ndarray:
        x = np.log(teachers)
        if teacher_tokens is not None and "r" in self.names:
            v = np.log(np.asarray(teacher_tokens, np.float64) / teachers) - self.references.teacher_tokens_per_param
            x = x + self.draws_location[:, self.names.index("r")][:, None] * v
        u = x - location[:, None]
        return self.draws_amplitude[:, None] * Bowl(self.draws_shape).value(u)

    def regret_draws(self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None):
        """See `Surface`."""
        location = self._draws(student_params, student_tokens) + self.draws_scatter
        return self._heights(location, np.asarray(teachers, np.float64), teacher_tokens)

    def loss_draws(self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None):
        """See `Surface`."""
        return self._heights(
            self._draws(student_params, student_tokens), np.asarray(teachers, np.float64), teacher_tokens
        )

    def teacher_draws(self, student_params: float, student_tokens: float | None, teachers) -> np.ndarray:
        """Zeros (R, n): a size names a family of teachers, not one that was measured."""
        return np.zeros((len(self.draws_amplitude), len(np.atleast_1d(teachers))))

    def predict(self, frame) -> np.ndarray:
        """See `Surface`. Raises LawError without student_tokens where the law depends on them."""
        tokens = frame["student_tokens"].to_numpy(np.float64) if "student_tokens" in frame else None
        if tokens is None and "q" in self.names:
            raise LawError(
                "student_tokens: this law depends on tokens per parameter, so the table must have the column"
            )
        params = frame["student_params"].to_numpy(np.float64)
        x = np.log(frame["teacher_params"].to_numpy(np.float64))
        if "r" in self.names and "teacher_tokens" in frame:
            v = np.log(frame["teacher_tokens"].to_numpy(np.float64)) - x - self.references.teacher_tokens_per_param
            x = x + self.location[self.names.index("r")] * v
        out = np.empty(len(frame))
        for i in range(len(frame)):
            d = None if tokens is None else float(tokens[i])
            columns, fixed = self._columns(params[i], d)
            u = x[i] - columns @ self.location - fixed
            out[i] = self.floor(params[i], d) + self.amplitude * Bowl(self.shape[None]).value(np.array([[u]]))[0, 0]
        return out

    def to_dict(self) -> dict:
        """JSON-ready but for its arrays, with the version of the bowl."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data["references"] = {f: getattr(self.references, f) for f in References.__dataclass_fields__}
        data["floor"] = {f: getattr(self.floor, f) for f in Floor.__dataclass_fields__}
        return {**data, "bowl_version": BOWL_VERSION}

    @classmethod
    def from_dict(cls, data: dict) -> BowlSurface:
        """The surface that `to_dict` gave. Raises LawError for a bowl of another version."""
        data = dict(data)
        if data.pop("bowl_version") != BOWL_VERSION or len(data["shape"]) != SHAPES:
            raise LawError("law: its bowl was written by another version of gaplaw; fit the table again")
        for name in ("location", "shape", "draws_location", "draws_shape", "draws_amplitude", "draws_scatter"):
            data[name] = np.asarray(data[name], dtype=np.float64)
        floor = data["floor"]
        data["floor"] = Floor(
            students=tuple(tuple(s) for s in floor["students"]),
            coefficients=tuple(floor["coefficients"]),
            reference=tuple(floor["reference"]),
        )
        data["references"] = References(**data["references"])
        data["names"], data["bounds"] = tuple(data["names"]), tuple(data["bounds"])
        return cls(**data)
