"""Is every value of a table usable? Numbers and size strings, refusals by row and column, scores turned into losses,
duplicates.

Helper of `table`, first in the law half of the walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gaplaw.errors import GaplawError, LawError, TableError
from gaplaw.spec.sizes import parse_size

SIZES = ("student_params", "student_tokens", "teacher_params", "teacher_tokens")
LOSSES = ("student_loss", "teacher_loss", "no_teacher_loss")
TEXT_COLUMNS = ("training_epochs", "validation_tokens")  # what a sweep's own rows say of their text; see `enough`
CANONICAL = (*SIZES, *LOSSES, "seed", "group", "weight")
COORDINATES = ("teacher_params", "teacher_loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableLocation:
    """Where a value stands in its table, said as its owner counts: index, and line for a CSV."""

    label: str
    lines: bool

    def row(self, index) -> str:
        """ "label: row 3 (line 5)" for an index of the frame."""
        line = f" (line {int(index) + 2})" if self.lines else ""
        return f"{self.label}: row {index}{line}"


def to_number(value) -> float:
    """A number, or a size string such as '1.8B', as float64.

    Raises:
        GaplawError: when the text is neither.
    """
    if isinstance(value, str):
        try:
            return float(value.replace("_", ""))
        except ValueError:
            return float(parse_size(value.strip()))
    return float(value)


def to_positive(name: str, value) -> float:
    """The number or size string `value` of the argument `name`, as a float.

    Raises:
        LawError: when it is not positive and finite. GaplawError: when it is no number.
    """
    number = to_number(value)
    if not (np.isfinite(number) and number > 0):
        raise LawError(f"{name}: {value} must be positive and finite")
    return number


def read_numbers(frame: pd.DataFrame, required, location: TableLocation) -> pd.DataFrame:
    """The canonical columns of a frame as float64, every value checked.

    Args:
        frame: canonical names, values as they were read.
        required: columns in which no value may be missing.
        location: of the table, for messages.

    Returns:
        DataFrame with the same index, canonical columns only.

    Raises:
        TableError: a value is missing, no number, not finite, or not positive where it must be.
    """
    names = [name for name in (*SIZES, *LOSSES, "weight") if name in frame]
    out = {}
    for name in names:
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column):
            column = parse_numbers(column, name, location)
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        # A baseline, or the teacher coordinate that is not used, may be unknown in a row; every other number is needed.
        optional = name == "no_teacher_loss" or (name in COORDINATES and name not in required)
        bad = np.isinf(values) if optional else ~np.isfinite(values)
        if bad.any():
            hint = "; a run without a teacher needs role = baseline" if name in COORDINATES else ""
            raise TableError(f"{location.row(frame.index[bad][0])}, column {name}: {_bad_value(values[bad][0])}{hint}")
        if name in SIZES or name in ("weight", "teacher_loss"):
            low = values <= 0 if name != "weight" else values < 0
            if low.any():
                rule = "must be positive" if name != "weight" else "must not be negative"
                raise TableError(f"{location.row(frame.index[low][0])}, column {name}: {values[low][0]:g} {rule}")
        out[name] = values
    result = pd.DataFrame(out, index=frame.index)
    for name in ("seed", "group"):
        if name in frame:
            if frame[name].isna().any():
                raise TableError(f"{location.row(frame.index[frame[name].isna()][0])}, column {name}: missing value")
            result[name] = frame[name].astype(str) if name == "group" else frame[name]
    for name in TEXT_COLUMNS:
        if name in frame:
            result[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    return result[[name for name in (*CANONICAL, *TEXT_COLUMNS) if name in result]]


def _bad_value(value: float) -> str:
    return "missing value (NaN)" if np.isnan(value) else f"{value} is not finite"


def parse_numbers(column: pd.Series, name: str, location: TableLocation) -> pd.Series:
    """A column of numbers and size strings ('1.8B') as float64; missing values become NaN.

    Args:
        column: values. name: of the column. location: of the table, for messages.

    Raises:
        TableError: a value that is neither.
    """
    out = np.empty(len(column))
    for position, (index, value) in enumerate(column.items()):
        if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            out[position] = np.nan
            continue
        try:
            out[position] = to_number(value)
        except (GaplawError, ValueError, TypeError) as error:
            raise TableError(f"{location.row(index)}, column {name}: {value!r} is not a number or a size") from error
    return pd.Series(out, index=column.index)


def scores_to_losses(frame, baseline, notes):
    """Scores become errors, whole − score, so that lower is better everywhere; differences keep their size.

    Args:
        frame: canonical. baseline: its rows without a teacher. notes: what was done is added here.

    Returns:
        (frame, baseline).
    """
    values = frame[[name for name in LOSSES if name in frame]].to_numpy()
    top = np.nanmax(values)
    whole = 1.0 if top <= 1.0 and np.nanmin(values) >= 0 else 100.0 if top <= 100.0 else 0.0
    columns = [name for name in LOSSES if name in frame]
    frame = frame.assign(**{name: whole - frame[name] for name in columns})
    if "student_loss" in baseline:
        baseline = baseline.assign(student_loss=whole - baseline["student_loss"].astype(float))
    notes.append(f"higher is better: {', '.join(columns)} became {whole:g} - score")
    return frame, baseline


def refuse_duplicates(frame, coordinate, location, notes) -> None:
    """Refuse two rows of one student, teacher, seed and group; two teachers of one loss are replicates, and noted.

    Args:
        frame: canonical. coordinate: the law's. location: of the table. notes: a note is added here.

    Raises:
        TableError: naming both rows.
    """
    keys = [name for name in (*SIZES, "teacher_loss", "seed", "group") if name in frame]
    repeats = frame.duplicated(subset=keys, keep="first")
    if coordinate == "teacher_loss" and repeats.any():
        # Two teachers may share a loss to the printed digit; only a row repeated in full is certainly a mistake.
        full = frame.duplicated(keep="first")
        if not full.any():
            notes.append(f"{int(repeats.sum())} rows repeat a student and a teacher loss: kept as replicates")
            return
        repeats = full
    if repeats.any():
        index = frame.index[repeats][0]
        twin = frame.index[(frame[keys] == frame.loc[index, keys]).all(axis=1)][0]
        hint = "" if "seed" in frame else "; replicates need a seed column"
        raise TableError(f"{location.row(index)} duplicates row {twin}: same {', '.join(keys)}{hint}")
