"""What does a fitted law know of its own? `FittedLaw`: parameters, optima, flags and draws, and the questions that need
nothing else.

Middle of the law half of the walk: table → fit → **law** → choose, next, report. A fitted law is plain data (`answers`)
plus one `Surface`, the part that differs between coordinates: how a student's loss depends on its teacher. The `Law`
that users hold is in `fitting`: it adds what stands above this file (storage, choice). Letters: N_S student parameters,
D_S student tokens, T teacher (parameters, or loss in nats when the coordinate is teacher_loss), R draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from gaplaw.errors import LawError
from gaplaw.law.answers import Noise, Optimum, Parameter, StudentOptimum
from gaplaw.law.flags import Flag, refuses
from gaplaw.law.numeric.quantiles import interval
from gaplaw.law.table.read import read_table


class Surface(Protocol):
    """How student loss depends on the teacher: everything in which the coordinates differ.

    Sizes and losses come in as plain floats or 1-d arrays (params, tokens, nats), never as logs. One draw is one
    plausible world: column order and row order of draws are the same in every method, so differences between methods'
    draws are paired.
    """

    @property
    def kind(self) -> str:
        """'bowl' or 'loss'; the key of `law.SURFACES`."""
        ...

    def predict(self, frame) -> np.ndarray:
        """Expected student loss of every row of a canonical frame, nats, (n,).

        Raises:
            LawError: a column that this surface needs is missing; NaN is never returned.
        """
        ...

    def optimum_point(self, student_params: float, student_tokens: float | None) -> float:
        """ln T* at the best fit; ±inf when the best fit has no interior optimum on that side."""
        ...

    def optimum_draws(self, student_params: float, student_tokens: float | None) -> np.ndarray:
        """ln T* of a new student, (R,), scatter between students included; ±inf without interior optimum."""
        ...

    def regret_draws(
        self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None
    ) -> np.ndarray:
        """L_S(T) − min_T L_S of each teacher, nats ≥ 0, (R, n): against the draw's own optimum."""
        ...

    def loss_draws(
        self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None
    ) -> np.ndarray:
        """L_S(T) up to one constant per student and draw, nats, (R, n), WITHOUT the scatter."""
        ...

    def teacher_draws(self, student_params: float, student_tokens: float | None, teachers) -> np.ndarray:
        """What each of these teachers, if it was measured, does to this student beyond its coordinate, nats, (R, n)."""
        ...

    def to_dict(self) -> dict:
        """JSON-ready, with key 'kind'."""
        ...

    @classmethod
    def from_dict(cls, data: dict) -> Surface: ...


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class FittedLaw:
    """A fitted teacher law: what was found, and its answers about any student and teacher.

    Attributes:
        coordinate: 'teacher_params' or 'teacher_loss': the axis on which teachers are known.
        form: the law in words, such as 'T = k S^p'.
        status: 'converged', 'bound hit', 'starts disagree' or 'unidentified parameter'.
        share_of_starts: share of the starts that reached the best fit.
        parameters: name → value with intervals.
        students: what each measured student says on its own, by three methods.
        flags: every reason to doubt or to refuse, worst first.
        measured: canonical column → (least, largest) value in the table.
        noise: where the scatter of the table comes from, nats.
        surface: how a student's loss depends on its teacher.
        provenance: source, rows, protocol, draws, seed.
        rivals, comparison: other forms and rules of thumb, scored on students left out; empty when not compared.
        baseline: the law of students without a teacher, as `fit_baseline` gives it; None without such runs.
    """

    coordinate: str  # 'teacher_params' | 'teacher_loss'
    form: str
    status: str  # 'converged' | 'bound hit' | 'starts disagree' | 'unidentified parameter'
    share_of_starts: float
    parameters: dict[str, Parameter]
    students: tuple[StudentOptimum, ...]
    flags: tuple[Flag, ...]
    measured: dict[str, tuple[float, float]]  # canonical column → (min, max)
    noise: Noise
    surface: Surface
    provenance: dict
    rivals: tuple[dict, ...] = ()
    comparison: dict = field(default_factory=dict)
    baseline: dict | None = None  # the no-teacher student law, when the table has one

    @property
    def refused(self) -> bool:
        return refuses(self.flags)

    def optimum(self, student_params: float, student_tokens: float | None = None) -> Optimum:
        """The best teacher for a student, with intervals for a NEW student (the scatter between students is included).

        Args:
            student_params: N_S.
            student_tokens: D_S; by default the tokens per parameter of the table.

        Returns:
            Optimum in the law's coordinate (parameters, or nats). The point is None when the law refuses or has no
            interior optimum; an interval's side that falls off the measured range is None; `censored` says on which
            side of the measured teachers the optimum lies.

        Raises:
            LawError: a size or a number of tokens that is not positive.
        """
        if self.refused:
            return Optimum()
        draws = self.optimum_draws(student_params, student_tokens)
        point = self.surface.optimum_point(float(student_params), _float(student_tokens))
        low, high = np.log(self.measured[self.coordinate])
        censored = "low" if point < low else "high" if point > high else None
        name = {self.coordinate: float(np.exp(point)) if np.isfinite(point) else None}
        return Optimum(**name, interval50=interval(draws, 0.5), interval90=interval(draws, 0.9), censored=censored)

    def optimum_draws(self, student_params: float, student_tokens: float | None = None) -> np.ndarray:
        """ln T* of a new student in every draw, (R,); ±inf where a draw has no interior optimum.

        Args:
            student_params: N_S.
            student_tokens: D_S; by default the tokens per parameter of the table.

        Raises:
            LawError: a value that is not positive.
        """
        return self.surface.optimum_draws(*_student(student_params, student_tokens))

    def regret_draws(
        self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None
    ) -> np.ndarray:
        """What each teacher costs a new student against the best possible one: L_S(T) − min_T L_S, nats ≥ 0, (R, n).

        Args:
            student_params: N_S.
            student_tokens: D_S; by default the tokens per parameter of the table.
            teachers: (n,) on the law's axis, parameters or nats.
            teacher_tokens: (n,) D_T, for a law that depends on it.

        Raises:
            LawError: a value that is not positive.
        """
        return self.surface.regret_draws(*_student(student_params, student_tokens), _teachers(teachers), teacher_tokens)

    def loss_draws(
        self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None
    ) -> np.ndarray:
        """Student loss up to one constant per draw, nats, (R, n), without the scatter between students.

        Differences within a row are what two cells of one student would show. Arguments as for `regret_draws`.
        """
        return self.surface.loss_draws(*_student(student_params, student_tokens), _teachers(teachers), teacher_tokens)

    def teacher_draws(self, student_params: float, student_tokens: float | None, teachers) -> np.ndarray:
        """What measured teachers do to a student beyond what their size or loss says, nats, (R, n); 0 for any other
        teacher.

        Arguments as for `regret_draws`.
        """
        return self.surface.teacher_draws(*_student(student_params, student_tokens), _teachers(teachers))

    def predict(self, frame, columns=None) -> np.ndarray:
        """Expected student loss, nats, one per row, in order, (n,).

        Args:
            frame: anything that `read_table` reads, with student_params and the law's coordinate, and student_tokens
                where the law depends on them.
            columns: canonical name → name in the frame.

        Raises:
            TableError: a value or a column is missing.
            LawError: a column that this law needs is missing.
        """
        table = read_table(frame, columns=columns, coordinate=self.coordinate, for_prediction=True)
        return self.surface.predict(table.frame)

    def with_rivals(self, rivals, comparison: dict, flags=()) -> FittedLaw:
        """The same law with its comparison filled in.

        Args:
            rivals: one dict per form and rule, best first.
            comparison: winner, verdict, constant ratio and what else `compare` found.
            flags: to be added.
        """
        return replace(self, rivals=tuple(rivals), comparison=comparison, flags=(*self.flags, *flags))


def _float(value) -> float | None:
    return None if value is None else float(value)


def _student(params, tokens) -> tuple[float, float | None]:
    params, tokens = float(params), _float(tokens)
    if not params > 0:
        raise LawError(f"student_params: {params:g} must be positive")
    if tokens is not None and not tokens > 0:
        raise LawError(f"student_tokens: {tokens:g} must be positive")
    return params, tokens


def _teachers(values) -> np.ndarray:
    teachers = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if teachers.ndim != 1 or not np.all(np.isfinite(teachers) & (teachers > 0)):
        raise LawError("teachers: every size or loss must be finite and positive")
    return teachers


def _tuples(data: dict, _cls) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
