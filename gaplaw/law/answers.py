"""What does a law answer? The records of its parameters, of its optima and of its noise: plain data without methods.

Foot of the law half beside `flags`: the fits fill them, `law` holds them, texts and figures read them. An interval is a
pair (low, high) in the unit of its point; a side that is unbounded is None.
"""

from __future__ import annotations

from dataclasses import dataclass

from gaplaw.law.numeric.quantiles import Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One law parameter: point and profile-likelihood intervals; `bootstrap90` is the independent check."""

    name: str
    point: float
    interval50: Interval = (None, None)
    interval90: Interval = (None, None)
    bootstrap90: Interval | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimum:
    """The best teacher for one student. Exactly one of teacher_params / teacher_loss is set, or neither when
    refused.
    """

    teacher_params: float | None = None
    teacher_loss: float | None = None
    interval50: Interval = (None, None)
    interval90: Interval = (None, None)
    censored: str | None = None  # 'low': at or below the smallest measured coordinate, 'high': at or above the largest


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodOptimum:
    """One method's optimum for one measured student, in the law's coordinate (params or nats)."""

    method: str  # 'quadratic' | 'akima' | 'joint'
    point: float | None
    interval50: Interval = (None, None)
    interval90: Interval = (None, None)
    censored: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentOptimum:
    """One measured student: what three methods say about its best teacher, and how far apart they are (ln units)."""

    student_params: float
    student_tokens: float | None
    teachers: int
    lowest: float
    highest: float
    methods: tuple[MethodOptimum, ...]
    spread: float | None  # largest |difference| between methods' points, in ln T
    disagree: bool
    best_loss_nats: float | None = None

    def method(self, name: str) -> MethodOptimum:
        """What one method says: 'quadratic', 'akima' or 'joint'."""
        return next(m for m in self.methods if m.method == name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Where the scatter comes from, in nats unless said: None is 'not measurable from this table'."""

    residual_sd_nats: float
    seed_sd_nats: float | None = None  # between seeds at one (student, teacher), as measured
    paired_sd_nats: float | None = None  # the same after the pairing offset is taken out
    teacher_sd_nats: float | None = None  # a teacher's identity, shared by its column
    student_scatter_ln: float | None = None  # tau: sd of ln T* around the law from student to student
    seeds: int = 1
