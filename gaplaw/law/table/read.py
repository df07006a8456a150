"""What was measured? Any results table, read into one canonical frame with typed refusals.

First file of the law half of the walk: the parquet folder (or an outside CSV) comes in here and nothing later reads
files. Letters used in the law half: N_S student parameters, D_S student tokens, N_T teacher parameters, L_T teacher
loss, L_S student loss. It refuses, naming row and column, what a fit could not honestly use; it never drops a row
without saying so in `notes`.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from gaplaw.credentials import mask_credentials
from gaplaw.errors import MixedProtocolsError, TableError
from gaplaw.law.table.values import (
    CANONICAL,
    COORDINATES,
    TableLocation,
    parse_numbers,
    read_numbers,
    refuse_duplicates,
    scores_to_losses,
)
from gaplaw.objects import brought_here, is_url
from gaplaw.results import read as read_folder
from gaplaw.spec import Role

# What a sweep of our own calls the two losses, and the columns in which its rows must agree to be compared at all.
SWEEP_NAMES = {"loss_student_ce_nats": "student_loss", "loss_teacher_ce_nats": "teacher_loss"}
# What a question to a law need not have.
ANSWER_COLUMNS = ("student_loss", "no_teacher_loss", "seed", "group", "weight")
SAME_IN_ALL_ROWS = ("data_source", "data_tokenizer", "data_manifest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One row per distilled student, under canonical names.

    Attributes:
        frame: student_params, student_loss and the coordinate always; student_tokens, teacher_tokens, the other
            teacher coordinate, seed, group, weight and no_teacher_loss where the source knows them. Sizes in
            parameters or tokens, losses in nats per token, floats as float64; the order is the source's.
        coordinate: 'teacher_params' or 'teacher_loss'.
        protocol: the rows' protocol, None where the source has none.
        notes: what was left out or changed on the way in.
        source: the file or folder, for messages.
    """

    frame: pd.DataFrame
    coordinate: str
    protocol: str | None
    notes: tuple[str, ...]
    source: str


def parse_columns(text: str | Mapping[str, str] | None) -> dict[str, str]:
    """Canonical name → name in the file.

    Args:
        text: a mapping, or 'student_params=NS,student_loss=LS'; None is an empty mapping.

    Raises:
        TableError: a pair without '=', or a name that is not canonical.
    """
    if text is None:
        return {}
    if isinstance(text, str):
        pairs = [part.strip() for part in text.split(",") if part.strip()]
        for pair in pairs:
            if "=" not in pair:
                raise TableError(f"columns: {pair!r} is not of the form canonical=column")
        text = {key.strip(): value.strip() for key, value in (pair.split("=", 1) for pair in pairs)}
    for name in text:
        if name not in CANONICAL:
            raise TableError(f"columns: {name!r} is not a canonical name; choose from {', '.join(CANONICAL)}")
    return dict(text)


def read_table(
    source,
    *,
    columns: str | Mapping[str, str] | None = None,
    protocol: str | None = None,
    higher_is_better: bool = False,
    coordinate: str | None = None,
    for_prediction: bool = False,
) -> Table:
    """Read a DataFrame, a CSV or parquet file, or a sweep folder into a canonical `Table`.

    Args:
        source: pandas DataFrame; path of a .csv or .parquet file; or a sweep folder (with parquet files in `cells/`).
        columns: canonical name → name in the source; names that are already canonical need no entry.
        protocol: which protocol to keep when the source holds several.
        higher_is_better: the loss columns hold scores such as accuracies; they become 1 − score (100 − score for
          percentages).
        coordinate: 'teacher_params' or 'teacher_loss'; without it teacher_params is preferred when both are there,
            unless `columns` maps teacher_loss alone.
        for_prediction: the table asks a question of a law, so student_loss may be absent and repeated rows are allowed.

    Raises:
        TableError: missing column, NaN, text that is no number, non-positive size or loss coordinate, duplicate,
            corrupt or empty file. MixedProtocolsError: rows of several protocols, and none chosen.
    """
    if coordinate is not None and coordinate not in COORDINATES:
        raise TableError(f"coordinate: {coordinate!r} must be one of {', '.join(COORDINATES)}")
    mapping = parse_columns(columns)
    raw, label, is_text = _load(source)
    if for_prediction:  # a question may use the fit's own mapping and lack the answers that it names
        mapping = {name: column for name, column in mapping.items() if column in raw or name not in ANSWER_COLUMNS}
    notes: list[str] = []
    frame = _rename(raw, mapping, label)
    location = TableLocation(label=label, lines=is_text)
    frame, baseline = _split_roles(frame, notes, label)
    frame, protocol = _one_protocol(frame, protocol, label, for_prediction)
    if frame.empty:
        raise TableError(f"{label}: no finished student rows to fit")
    coordinate = coordinate or _coordinate(frame, mapping, label)
    required = ["student_params", coordinate] + ([] if for_prediction else ["student_loss"])
    _require(frame, required, label)
    frame = read_numbers(frame, required, location)
    if higher_is_better:
        frame, baseline = scores_to_losses(frame, baseline, notes)
        if coordinate == "teacher_loss" and (frame["teacher_loss"] <= 0).any():
            index = frame.index[frame["teacher_loss"] <= 0][0]
            raise TableError(f"{location.row(index)}, column teacher_loss: a perfect score leaves no error to scale by")
    if not for_prediction:
        refuse_duplicates(frame, coordinate, location, notes)
    frame = _with_baseline(frame, baseline, notes, location)
    frame = frame.reset_index(drop=True)
    return Table(frame=frame, coordinate=coordinate, protocol=protocol, notes=tuple(notes), source=label)


def _load(source) -> tuple[pd.DataFrame, str, bool]:
    if isinstance(source, Table):
        return source.frame.copy(), source.source, False
    if isinstance(source, pd.DataFrame):
        return source.copy(), "frame", False
    if is_url(source):
        if not PurePosixPath(source).suffix:
            return read_folder(source), mask_credentials(source), False
        with brought_here(source) as (path, _):
            return _load(path)[0], mask_credentials(source), path.suffix not in (".parquet", ".pq")
    path = Path(source)
    if path.is_dir():
        return _load_folder(path), str(source), False
    if not path.exists():
        raise TableError(f"{source}: no such file or folder")
    if path.suffix.lower() in (".parquet", ".pq"):
        return _load_parquet(path), path.name, False
    try:
        frame = pd.read_csv(
            path, sep=None if path.suffix.lower() == ".txt" else ("\t" if path.suffix == ".tsv" else ",")
        )
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise TableError(f"{path.name}: not a readable CSV file ({_one_line(error)})") from error
    return frame, path.name, True


def _load_parquet(path: Path) -> pd.DataFrame:
    try:
        return pq.ParquetFile(path).read().to_pandas()
    except (ValueError, OSError, KeyError) as error:  # pyarrow's own errors derive from these
        raise TableError(f"{path.name}: not a readable parquet file ({_one_line(error)})") from error


def _load_folder(path: Path) -> pd.DataFrame:
    if (path / "cells").is_dir():
        return read_folder(path)
    files = sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))
    if not files:
        raise TableError(f"{path}: neither cells/*.parquet (a sweep folder) nor *.parquet files")
    return pd.concat([_load_parquet(file) for file in files], ignore_index=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _rename(raw: pd.DataFrame, mapping: Mapping[str, str], label: str) -> pd.DataFrame:
    for name, column in mapping.items():
        if column not in raw.columns:
            known = ", ".join(map(str, raw.columns[:20]))
            raise TableError(f"{label}: column {column!r} (for {name}) is missing; the table has {known}")
    # A canonical column that the mapping replaces must not survive beside the mapped one.
    frame = raw.drop(columns=[name for name in mapping if name in raw.columns and mapping[name] != name])
    copies = {name: raw[column] for name, column in mapping.items()}
    frame = frame.assign(**copies)
    frame = frame.rename(columns={own: name for own, name in SWEEP_NAMES.items() if own in frame and name not in frame})
    if "student_params_target" in frame and "student_params" in frame and "student_params" not in mapping:
        # One pruned student under several teachers differs by a few parameters: its target is what makes it one
        # student.
        target = frame["student_params_target"]
        frame["student_params"] = target.where(target.notna(), frame["student_params"])
    if "group" not in frame and "pair" in frame:
        frame["group"] = frame["pair"]
    # A column with no value at all is a column the source does not know.
    return frame.drop(columns=[name for name in CANONICAL if name in frame and frame[name].isna().all()])


def roles_of(frame: pd.DataFrame) -> pd.Series:
    """The role of each row; in rows of earlier versions a student that teaches another row is an assistant."""
    role = frame["role"].astype(str)
    if {"fingerprint", "teacher_fingerprint"} <= set(frame):
        teaches = frame["fingerprint"].isin(frame["teacher_fingerprint"].dropna())
        role = role.mask(teaches & (role == "student"), "assistant")
    return role


def _split_roles(frame: pd.DataFrame, notes: list[str], label: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    if "role" in frame:
        frame = frame.assign(role=roles_of(frame))
    if "status" in frame:
        done = frame["status"].astype(str).eq("done")
        if (~done).any():
            counts = frame.loc[~done, "status"].astype(str).value_counts()
            left_out = ", ".join(f"{count} {status}" for status, count in counts.items())
            notes.append(f"rows left out because they are not done: {left_out}")
        frame = frame[done]
    if "role" not in frame:
        return frame, frame.iloc[:0]
    role = frame["role"]
    others = sorted(set(role) - set(typing.get_args(Role)))
    if others:
        known = ", ".join(typing.get_args(Role))
        raise TableError(f"{label}: column role holds {others[0]!r}; it must be one of {known}")
    if assistants := int((role == "assistant").sum()):
        notes.append(f"rows left out because they are teacher assistants, not students: {assistants}")
    return frame[role == "student"], frame[role == "baseline"]


def _one_protocol(frame, protocol, label, for_prediction) -> tuple[pd.DataFrame, str | None]:
    # one content hash for all rows: the same text and tokenizer, whatever their paths on the machines that ran them
    same = "data_manifest" in frame and frame["data_manifest"].notna().all() and frame["data_manifest"].nunique() == 1
    for name in () if for_prediction or same else SAME_IN_ALL_ROWS:
        if name in frame and frame[name].nunique() > 1:
            first, second = frame[name].dropna().unique()[:2]
            raise TableError(f"{label}: column {name}: mixes {first!r} and {second!r}; their losses cannot be compared")
    if "protocol" not in frame:
        if protocol is not None:
            raise TableError(f"{label}: protocol={protocol!r} was asked for but the table has no protocol column")
        return frame, None
    present = sorted(frame["protocol"].dropna().astype(str).unique())
    if protocol is not None:
        if protocol not in present:
            raise TableError(f"{label}: protocol {protocol!r} is not in the table; it has {'; '.join(present)}")
        return frame[frame["protocol"].astype(str) == protocol], protocol
    if len(present) > 1 and not for_prediction:
        row = frame.index[frame["protocol"].astype(str) != str(frame["protocol"].iloc[0])][0]
        raise MixedProtocolsError(
            f"{label}: row {row}, column protocol: mixed protocols ({'; '.join(present)}); choose one with protocol="
        )
    return frame, present[0] if len(present) == 1 else None


def _coordinate(frame: pd.DataFrame, mapping: Mapping[str, str], label: str) -> str:
    if "teacher_loss" in mapping and "teacher_params" not in mapping:
        return "teacher_loss"
    for name in COORDINATES:
        if name in frame:
            return name
    raise TableError(
        f"{label}: no teacher column; one of {' or '.join(COORDINATES)} is required (map it with columns=)"
    )


def _require(frame: pd.DataFrame, names, label: str) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise TableError(f"{label}: column {missing[0]} is missing (map it with columns=); the table has "
                         f"{', '.join(map(str, frame.columns[:20]))}")  # fmt: skip


def _with_baseline(frame, baseline, notes, location) -> pd.DataFrame:
    """Attach each student's own loss without a teacher: same size, tokens and seed; the mean over seeds otherwise."""
    if baseline.empty or "student_loss" not in baseline:
        return frame
    names = [name for name in ("student_params", "student_tokens") if name in frame and name in baseline]
    known = baseline[[*names, "student_loss"]].apply(lambda column: parse_numbers(column, column.name, location))
    known = known.rename(columns={"student_loss": "no_teacher_loss"})
    frame = frame.drop(columns="no_teacher_loss", errors="ignore")
    mean = known.groupby(names, as_index=False)["no_teacher_loss"].mean()
    no_teacher_loss = frame.merge(mean, on=names, how="left")["no_teacher_loss"].to_numpy()
    if "seed" in frame and "seed" in baseline:
        seed_losses = (
            known.assign(seed=baseline["seed"]).groupby([*names, "seed"], as_index=False)["no_teacher_loss"].mean()
        )
        own = frame.merge(seed_losses, on=[*names, "seed"], how="left")["no_teacher_loss"].to_numpy()
        no_teacher_loss = np.where(np.isnan(own), no_teacher_loss, own)
    unknown = int(np.isnan(no_teacher_loss).sum())
    if unknown:
        notes.append(f"{unknown} rows have no baseline of their own student")
    return frame.assign(no_teacher_loss=no_teacher_loss)
