"""What does a fitted law know, and what can it be asked? The `Law` object: parameters, optima, flags, draws, and its
questions.

Middle of the law half of the walk: table → fit → **Law** → choose, next, report. A Law is plain data (JSON round trip)
plus one `Surface`, the part that differs between coordinates: how a student's loss depends on its teacher. Letters: N_S
student parameters, D_S student tokens, T teacher (parameters, or loss in nats when the coordinate is teacher_loss), R
draws.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from gaplaw.errors import LawError
from gaplaw.files import intact, renamed, with_sum
from gaplaw.law.flags import Flag, refuses
from gaplaw.law.notebook_view import LawView
from gaplaw.law.numeric.quantiles import Interval, interval
from gaplaw.objects import brought_here

SCHEMA_VERSION = 1

# Where each kind of surface lives; imported only when a law of that kind is loaded.
SURFACES = {
    "bowl": "gaplaw.law.teacher_size.surface:BowlSurface",
    "loss": "gaplaw.law.teacher_loss.surface:LossSurface",
}


class Surface(Protocol):
    """How student loss depends on the teacher: everything in which the coordinates differ.

    Sizes and losses come in as plain floats or 1-d arrays (params, tokens, nats), never as logs. One draw is one
    plausible world: column order and row order of draws are the same in every method, so differences between methods'
      draws are paired.
    """

    kind: str

    def predict(self, frame) -> np.ndarray:
        """Expected student loss, nats, per row of a canonical frame, (n,); NaN never: raise LawError with the
        reason.
        """

    def optimum_point(self, student_params: float, student_tokens: float | None) -> float:
        """ln T* at the best fit; ±inf when the best fit has no interior optimum on that side."""

    def optimum_draws(self, student_params: float, student_tokens: float | None) -> np.ndarray:
        """ln T*, (R,), including between-student scatter for a new student; ±inf where a draw has no interior
        optimum.
        """

    def regret_draws(self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None):
        """L_S(T) − min_T L_S, nats ≥ 0, (R, n): regret against the draw's own continuous optimum, with the same
        scatter.
        """

    def loss_draws(self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None):
        """L_S(T) up to one constant per student and draw, nats, (R, n), WITHOUT scatter: what a next cell would
        measure.
        """

    def teacher_draws(self, student_params: float, student_tokens: float | None, teachers) -> np.ndarray:
        """What each of these teachers, if it was measured, does to this student beyond its coordinate, nats, (R, n)."""

    def to_dict(self) -> dict:
        """JSON-ready, with key 'kind'."""

    @classmethod
    def from_dict(cls, data: dict) -> Surface: ...


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


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Law(LawView):
    """A fitted teacher law: `optimum`, `optimum_draws`, `regret_draws`, `predict`, `choose`; `save` and `load`."""

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

    # ------------------------------------------------------------------ questions
    @property
    def refused(self) -> bool:
        return refuses(self.flags)

    def optimum(self, student_params: float, student_tokens: float | None = None) -> Optimum:
        """The best teacher for a student, with 50 and 90 % intervals for a NEW student (scatter included).

        Refused laws give an Optimum whose point is None; an interval side that falls off the measured range is None.
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
        """ln T* of a new student, (R,)."""
        return self.surface.optimum_draws(*_student(student_params, student_tokens))

    def regret_draws(self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None):
        """Regret of each teacher against the continuous optimum, nats, (R, n)."""
        return self.surface.regret_draws(*_student(student_params, student_tokens), _teachers(teachers), teacher_tokens)

    def loss_draws(self, student_params: float, student_tokens: float | None, teachers, teacher_tokens=None):
        """Student loss up to a constant per draw, nats, (R, n), without between-student scatter."""
        return self.surface.loss_draws(*_student(student_params, student_tokens), _teachers(teachers), teacher_tokens)

    def teacher_draws(self, student_params: float, student_tokens: float | None, teachers) -> np.ndarray:
        """What measured teachers do to a student beyond what their size or loss says, nats, (R, n); 0 for any other
        teacher.
        """
        return self.surface.teacher_draws(*_student(student_params, student_tokens), _teachers(teachers))

    def predict(self, frame, columns=None) -> np.ndarray:
        """Expected student loss, nats, one per row, in order. `frame`: anything `read_table` reads."""
        from gaplaw.law.table.read import read_table

        table = read_table(frame, columns=columns, coordinate=self.coordinate, predicting=True)
        return self.surface.predict(table.frame)

    def choose(self, **question):
        """Which available teacher to use; see `gaplaw.law.decide.choose.choose`."""
        return import_module("gaplaw.law.decide.choose").choose(self, **question)

    # ------------------------------------------------------------------ storage
    def to_dict(self) -> dict:
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data["parameters"] = {name: asdict(p) for name, p in self.parameters.items()}
        data["students"] = [asdict(s) for s in self.students]
        data["flags"] = [flag.to_dict() for flag in self.flags]
        data["noise"] = asdict(self.noise)
        data["surface"] = self.surface.to_dict()
        return {"schema_version": SCHEMA_VERSION, **data}

    @classmethod
    def from_dict(cls, data: dict) -> Law:
        data = {name: value for name, value in data.items() if name != "sha256"}
        version = data.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise LawError(f"law: schema_version {version!r} must be {SCHEMA_VERSION}; fit the table again")
        data["parameters"] = {n: Parameter(**_tuples(p, Parameter)) for n, p in data["parameters"].items()}
        data["students"] = tuple(_student_from(s) for s in data["students"])
        data["flags"] = tuple(Flag.from_dict(f) for f in data["flags"])
        data["measured"] = {name: tuple(span) for name, span in data["measured"].items()}
        data["noise"] = Noise(**data["noise"])
        data["rivals"] = tuple(data["rivals"])
        module, name = SURFACES[data["surface"]["kind"]].split(":")
        data["surface"] = getattr(import_module(module), name).from_dict(data["surface"])
        return cls(**data)

    def save(self, path) -> None:
        """Write JSON to a temporary name and rename, so that a reader never sees half a law."""
        path = Path(path)
        try:
            with renamed(path) as temporary:
                text = json.dumps(with_sum(_plain(self.to_dict())), indent=1, allow_nan=False)
                temporary.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise LawError(f"law file {path}: cannot be written ({error.strerror or error})") from error

    @classmethod
    def load(cls, path) -> Law:
        """Read a law written by `save`, from a path or a URL.

        Raises:
            LawError: no such file, not JSON, changed since it was written, or not a law of this schema version.
        """
        try:
            with brought_here(path) as (here, _):
                data = json.loads(here.read_text(encoding="utf-8"))
        except OSError as error:
            raise LawError(f"law file {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise LawError(f"law file {path}: not JSON ({error})") from error
        if not isinstance(data, dict) or "surface" not in data:
            raise LawError(f"law file {path}: not a law written by gaplaw fit")
        if not intact(data):
            raise LawError(f"law file {path}: changed since gaplaw fit wrote it (its checksum does not fit); fit again")
        try:
            return cls.from_dict(data)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise LawError(f"law file {path}: not a readable law ({error!r}); fit again") from error

    def with_rivals(self, rivals, comparison: dict, flags=()) -> Law:
        """The same law with its comparison table filled in."""
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


def _student_from(data: dict) -> StudentOptimum:
    methods = tuple(MethodOptimum(**_tuples(m, MethodOptimum)) for m in data["methods"])
    return StudentOptimum(**{**data, "methods": methods})


def _plain(value):
    """JSON has no NaN, no infinities and no numpy: arrays become lists of 7 significant digits, non-finite becomes
    null.
    """
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value] if value.ndim > 1 else [_plain(float(f"{x:.7g}")) for x in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
