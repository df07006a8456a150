"""Which teachers are at hand? Sizes, size strings, mappings or a teachers file, read into one list.

Beside the choice in the law half of the walk. A teacher has a name and what is known of it: params, tokens, loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from gaplaw.errors import GaplawError, LawError, TableError
from gaplaw.law.no_teacher.baseline import baseline_loss
from gaplaw.law.table.values import to_number

FIELDS = ("name", "params", "tokens", "loss")
# The names a table uses are understood too.
ALIASES = {"teacher_params": "params", "teacher_tokens": "tokens", "teacher_loss": "loss"}
EQUIVALENT_TOKENS_PER_PARAM = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A teacher at hand; params, tokens and loss (nats) are None where unknown."""

    name: str
    params: float | None = None
    tokens: float | None = None
    loss: float | None = None

    def coordinate(self, name: str) -> float:
        """Its place on the law's axis, 'teacher_params' or 'teacher_loss'."""
        return self.params if name == "teacher_params" else self.loss


def read_teachers(source, *, coordinate: str, baseline: dict | None = None) -> list[Teacher]:
    """The teachers in `source`, in order, each with the law's coordinate known.

    Args:
        source: list of numbers or strings (sizes; losses when the coordinate is teacher_loss), of mappings with name,
            params, tokens, loss, or a mix; a comma-separated string; a CSV file; a DataFrame.
        coordinate: the law's, 'teacher_params' or 'teacher_loss'.
        baseline: the law's no-teacher law; gives the loss of a teacher known by params and tokens.

    Raises:
        LawError: an empty list, or a teacher without what the coordinate needs.
        TableError: a teachers file that cannot be read, or a value that is no positive number.
    """
    items = _items(source)
    teachers = [_teacher(item, coordinate, position) for position, item in enumerate(items)]
    if not teachers:
        raise LawError("teachers: at least one is needed")
    name_counts: dict[str, int] = {}
    for position, teacher in enumerate(teachers):
        name_counts[teacher.name] = name_counts.get(teacher.name, 0) + 1
        if name_counts[teacher.name] > 1:
            teachers[position] = replace(teacher, name=f"{teacher.name} #{name_counts[teacher.name]}")
    return [_with_coordinate(teacher, coordinate, baseline) for teacher in teachers]


def _items(source) -> list:
    if isinstance(source, Path) or (isinstance(source, str) and Path(source).suffix.lower() in (".csv", ".parquet")):
        path = Path(source)
        try:
            source = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise TableError(f"{path}: teachers file cannot be read ({' '.join(str(error).split())[:120]})") from error
    if isinstance(source, pd.DataFrame):
        known = [name for name in source.columns if name in (*FIELDS, *ALIASES)]
        if not set(known) - {"name"}:
            raise TableError(
                f"teachers file: one of params, loss is needed; it has {', '.join(map(str, source.columns))}"
            )
        return source[known].to_dict("records")
    if isinstance(source, str):
        return [part.strip() for part in source.split(",") if part.strip()]
    if isinstance(source, int | float | Mapping):
        return [source]
    return list(source)


def _teacher(item, coordinate: str, position: int) -> Teacher:
    if isinstance(item, Teacher):
        return item
    if not isinstance(item, Mapping):
        name = item.strip() if isinstance(item, str) else repr(float(item)).removesuffix(".0")
        known = "params" if coordinate == "teacher_params" or name[-1:].isalpha() else "loss"  # "7B" is never a loss
        return Teacher(name=name, **{known: _number(item, known, position)})
    fields = {ALIASES.get(key, key): value for key, value in item.items()}
    unknown = set(fields) - set(FIELDS)
    if unknown:
        raise LawError(f"teachers: teacher {position} has {sorted(unknown)[0]!r}; it may have {', '.join(FIELDS)}")
    numbers = {key: _number(fields[key], key, position) for key in FIELDS[1:] if not _is_missing(fields.get(key))}
    name = fields.get("name")
    if _is_missing(name):
        size = fields.get("params") if not _is_missing(fields.get("params")) else fields.get("loss")
        name = f"teacher {position}" if _is_missing(size) else f"{size:.6g}" if isinstance(size, float) else str(size)
    return Teacher(name=str(name), **numbers)


def _is_missing(value) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)) or value == ""


def _number(value, field: str, position: int) -> float:
    try:
        number = to_number(value)
    except (GaplawError, ValueError, TypeError) as error:
        raise TableError(f"teachers: teacher {position}, {field}: {value!r} is not a number or a size") from error
    if not (np.isfinite(number) and number > 0):
        raise TableError(f"teachers: teacher {position}, {field}: {value!r} must be positive")
    return number


def _with_coordinate(teacher: Teacher, coordinate: str, baseline: dict | None) -> Teacher:
    if teacher.coordinate(coordinate) is not None:
        return teacher
    if coordinate == "teacher_loss" and teacher.params and baseline is not None and baseline["kind"] == "surface":
        tokens = teacher.tokens or EQUIVALENT_TOKENS_PER_PARAM * teacher.params
        return replace(teacher, loss=float(baseline_loss(baseline, teacher.params, tokens)))
    need = "params" if coordinate == "teacher_params" else "loss"
    raise LawError(f"teacher {teacher.name}: {need} is needed, since the law was fitted in {coordinate}")
