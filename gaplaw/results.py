"""What does a finished cell leave behind? One parquet file per cell and table, with units in the column names.

A row is written under a temporary name and renamed, so a reader sees a whole file or none, and any number of writers on
any number of machines may share a folder. A file carries its own checksum (`gaplaw.files.marked`; older ones have
none). Missing is null, never 0. `read` joins a folder into one frame; the same files are one dataset for pyarrow and
DuckDB (`read_parquet('RUN/cells/*.parquet', union_by_name => true)`).
"""

from __future__ import annotations

import functools
import json
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from gaplaw import rows
from gaplaw.canonical import to_dict
from gaplaw.errors import TableError
from gaplaw.objects import brought_here
from gaplaw.rows import Copy
from gaplaw.spec import Cell, Execution, ModelSpec, Role
from gaplaw.spec.sizes import ParamCounts, count_params, teacher_flops, train_flops

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SCHEMA_VERSION = 1
TABLES = ("cells", "curves")

_TEXT, _WHOLE, _REAL, _FLAG = "string", "int64", "double", "bool"

# Column → (Arrow type, meaning). The README and the first notebook print these meanings; nothing else may be written.
CELLS = {
    "schema_version": (_WHOLE, "meaning of the columns; changes are listed in CHANGELOG.md"),
    "sweep": (_TEXT, "name of the sweep that ran the cell"),
    "cell_id": (_TEXT, "readable name plus 6 digits of the fingerprint; also the file name"),
    "fingerprint": (_TEXT, "12-digit hash of everything that changes the numbers"),
    "role": (_TEXT, "teacher, assistant (a distilled teacher), student (distilled) or baseline (a student alone)"),
    "status": (_TEXT, "done or failed"),
    "error": (_TEXT, "why a cell failed"),
    "protocol": (_TEXT, "initialisation, share of soft targets, temperature: rows of different protocols share no fit"),
    "pair": (_TEXT, "pairing key: same initialisation and same batches, different teacher"),
    "seed": (_WHOLE, "seed of the initialisation"),
    "student_params": (_WHOLE, "S: non-embedding parameters of the model that the row trained"),
    "student_params_target": (_WHOLE, "S that pruning was asked for; null for students from scratch"),
    "student_params_embedding": (_WHOLE, "parameters in token and position embeddings and in an untied output head"),
    "student_params_active": (
        _WHOLE,
        "all parameters that one token meets (fewer than the total only in a mixture of experts)",
    ),
    "student_params_unique": (_WHOLE, "stored numbers, each once (fewer than the total only where layers are re-used)"),
    "student_params_total": (_WHOLE, "all parameters"),
    "student_tokens": (_WHOLE, "D_S: tokens that the row trained on"),
    "teacher_params": (_WHOLE, "T: non-embedding parameters of the teacher; null without one"),
    "teacher_params_total": (_WHOLE, "all parameters of the teacher"),
    "teacher_tokens": (_WHOLE, "D_T: tokens that the teacher was trained on"),
    "teacher_id": (_TEXT, "cell_id of the teacher"),
    "teacher_fingerprint": (_TEXT, "fingerprint of the teacher"),
    "student_training_flops": (_REAL, "6·S·D_S, S = active parameters"),
    "teacher_signal": (
        _TEXT,
        "live, or what a cache kept of the teacher: topk:SYMBOLS, sampled:SYMBOLS; null without a teacher",
    ),
    "teacher_cache_bytes_per_token": (_REAL, "bytes that the cache keeps for one token; null for a live teacher"),
    "teacher_cache_kept_mass": (
        _REAL,
        "teacher's mass on the symbols kept, at the row's temperature, on held-out tokens",
    ),
    "teacher_cache_kl_error_nats": (
        _REAL,
        "KL from the cache minus KL from all logits, for a reference student (the teacher with halved logits)",
    ),
    "teacher_cache_gradient_agreement": (_REAL, "cosine of that student's two gradients (output matrix)"),
    "teacher_forward_flops": (
        _REAL,
        "2·T·D_S, T = active parameters; with a cache spent once for all rows that share it",
    ),
    "teacher_training_flops": (_REAL, "6·T·D_T, T = active parameters; not what an assistant's own teacher took"),
    "loss_student_ce_nats": (_REAL, "cross-entropy against the data, mean over validation tokens"),
    "loss_teacher_ce_nats": (_REAL, "the same for the teacher, on the same tokens"),
    "kl_teacher_student_nats": (_REAL, "KL(teacher || student), temperature 1, mean over validation tokens"),
    "agreement": (_REAL, "share of validation tokens where teacher and student rank the same token first"),
    "calibration_error": (_REAL, "expected calibration error of the student's first choice, 21 equal bins"),
    "teacher_calibration_error": (_REAL, "the same for the teacher"),
    "validation_tokens": (_WHOLE, "tokens evaluated on; the same tokens for every cell of a corpus"),
    "training_epochs": (_REAL, "how often training saw each window of its text, on average: 4 is every one four times"),
    "training_loss_nats": (
        _REAL,
        "mean objective over the last tenth of the steps (rounded up), each before its update",
    ),
    "domain_labels": (_TEXT, "JSON: column → label of each domain whose label is not the middle of its column's name"),
    "model": (_TEXT, "ModelSpec as JSON: the shape that was trained (for pruned students, the shape found)"),
    "data_source": (_TEXT, "DataSpec.source"),
    "data_tokenizer": (_TEXT, "DataSpec.tokenizer"),
    "data_manifest": (_TEXT, "content hash of the corpus"),
    "sequence_tokens": (_WHOLE, "tokens per sequence"),
    "init": (_TEXT, "scratch or prune"),
    "objective": (_TEXT, "kind of the objective; its numbers are in `protocol` and `spec`"),
    "soft_weight": (_REAL, "share of the KL term in the objective kd; null for others"),
    "temperature": (_REAL, "temperature of the KL term of the objective kd; null for others"),
    "temperature_squared": (_FLAG, "whether the KL term is multiplied by T²"),
    "learning_rate": (_REAL, "peak learning rate"),
    "batch_sequences": (_WHOLE, "sequences per step"),
    "batch_seed": (_WHOLE, "seed of the batch order"),
    "steps": (_WHOLE, "optimizer steps"),
    "spec": (_TEXT, "the whole Cell as JSON, its teacher included"),
    "cpu_path": (_FLAG, "whether the group ran the fast way for one CPU core"),
    "group_id": (_TEXT, "the compiled program that the cell ran in"),
    "group_cells": (_WHOLE, "cells in that program"),
    "group_wall_seconds": (_REAL, "wall time of that program, compilation and evaluation included"),
    "compile_seconds": (_REAL, "time until the first dispatch returned"),
    "wall_seconds": (_REAL, "group_wall_seconds divided by group_cells"),
    "device": (_TEXT, "kind of device"),
    "device_count": (_WHOLE, "devices used"),
    "process_count": (_WHOLE, "processes used"),
    "execution": (_TEXT, "Execution as JSON: recorded, not identity"),
    "versions": (_TEXT, "python, gaplaw, jax, flax, optax and orbax versions as JSON"),
    "git_commit": (_TEXT, "commit of the working copy, null outside one"),
    "git_dirty": (_FLAG, "whether tracked files differed from that commit"),
    "finished_at": (_TEXT, "UTC time, ISO 8601"),
}
DOMAIN_COLUMN = re.compile(r"domain_[a-z0-9_]+_loss_nats")
MEASURE_COLUMN = re.compile(r"measure_[a-z0-9_]+")  # what an objective measures: mean over the last tenth of the steps
DOMAIN_READABLE_CHARACTERS = 40
CURVES = {
    "schema_version": (_WHOLE, "as in cells"),
    "cell_id": (_TEXT, "as in cells"),
    "tokens": (_WHOLE, "tokens trained on so far"),
    "training_loss_nats": (
        _REAL,
        "mean objective over the steps since the previous row (in the first: since the start); weighted by the tokens between, "
        "rows add up to any longer stretch",
    ),
    "validation_loss_nats": (_REAL, "cross-entropy on the validation tokens; null between evaluations"),
}
_COLUMNS = {"cells": CELLS, "curves": CURVES}


def domain_column(domain: str) -> str:
    """The cells column of one domain's validation loss: `domain_code_loss_nats`.

    Two labels never share one. A label of lower-case letters, digits and single underscores is the column's middle
    itself; any other is shortened to that and told apart by eight digits of its hash: "C++" is
    `domain_c__f1deb75f_loss_nats`.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", domain.lower())
    if plain != domain or not domain:
        readable = plain.strip("_")[:DOMAIN_READABLE_CHARACTERS].rstrip("_") or "label"
        plain = f"{readable}__{sha256(domain.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return f"domain_{plain}_loss_nats"


def describe_cell(cell: Cell, role: Role, *, model: ModelSpec | None = None, teacher: ModelSpec | None = None) -> dict:
    """The columns of a cells row that are known before it runs. model, teacher: the shapes that pruning found."""
    return describe_cost(cell, role, model=model, teacher=teacher) | {
        "pair": cell.pair,
        "student_params_target": cell.target_params,
        "model": json.dumps(to_dict(model or cell.model)),
        "data_source": cell.data.source,
        "data_tokenizer": cell.data.tokenizer,
        "data_manifest": cell.data.manifest or None,
        "sequence_tokens": cell.data.sequence_tokens,
        "init": cell.init,
        "objective": getattr(cell.objective, "kind", "kd"),
        "soft_weight": getattr(cell.objective, "soft_weight", None),
        "temperature": getattr(cell.objective, "temperature", None),
        "temperature_squared": getattr(cell.objective, "temperature_squared", None),
        "learning_rate": cell.train.learning_rate,
        "batch_sequences": cell.train.batch_sequences,
        "batch_seed": cell.train.batch_seed,
        "steps": cell.steps,
        "spec": json.dumps(to_dict(cell)),
    }


def describe_cost(cell: Cell, role: Role, *, model: ModelSpec | None = None, teacher: ModelSpec | None = None) -> dict:
    """Those of them that say which cell it is, its sizes and its FLOPs: what a plan shows."""
    model, source = model or cell.model, cell.teacher
    row = _size_columns(count_params(model)) | {
        "cell_id": cell.id,
        "fingerprint": cell.fingerprint,
        "role": role,
        "protocol": cell.protocol,
        "seed": cell.seed,
        "student_tokens": cell.steps * cell.batch_tokens,
        "student_training_flops": float(train_flops(model, cell.steps * cell.batch_tokens)),
    }
    if source is not None:
        teacher = teacher or source.model
        size, tokens = count_params(teacher), source.steps * source.batch_tokens
        row |= {
            "teacher_params": size.non_embedding,
            "teacher_params_total": size.total,
            "teacher_tokens": tokens,
            "teacher_id": source.id,
            "teacher_fingerprint": source.fingerprint,
            "teacher_signal": cell.signal.label,
            "teacher_forward_flops": float(teacher_flops(teacher, row["student_tokens"])),
            "teacher_training_flops": float(train_flops(teacher, tokens)),
        }
    return row


def _size_columns(size: ParamCounts) -> dict:
    return {
        "student_params": size.non_embedding,
        "student_params_embedding": size.embedding,
        "student_params_active": size.active,
        "student_params_unique": size.unique,
        "student_params_total": size.total,
    }


def write_rows(folder: Path | str, table: str, cell_id: str, values: list[dict]) -> Path:
    """Write one cell's rows of one table, whole or not at all.

    Raises: TableError for a column that the schema does not know; OSError when the folder cannot be written.
    """
    columns = _COLUMNS[table]
    values = [{"schema_version": SCHEMA_VERSION, "cell_id": cell_id} | row for row in values]
    named = {name for row in values for name in row}
    free = sorted(name for name in named - set(columns) if table == "cells" and _free_column(name))
    unknown = sorted(named - set(columns) - set(free))
    if unknown:
        raise TableError(f"{table} of {cell_id}: column {unknown[0]!r} is not in the schema, version {SCHEMA_VERSION}")
    target = Path(folder) / table / f"{cell_id}.parquet"
    rows.write_file(target, values, {name: _type_of(name) for name in (*columns, *free)})
    return target


def write_cell(folder: Path | str, row: dict, curve: list[dict], execution: Execution) -> None:
    """Write a cell's curve, then its row: a cell whose row exists is complete."""
    write_rows(folder, "curves", row["cell_id"], curve)
    write_rows(folder, "cells", row["cell_id"], [row | {"execution": json.dumps(to_dict(execution))}])


def read_file(path: Path) -> pa.Table | Copy:
    """One file's rows as it is quickest to read. Raises: as `read_rows`, but FileNotFoundError for an absent file."""
    return rows.read_file(path, _type_of, SCHEMA_VERSION)


def read_rows(path: Path) -> pa.Table:
    """One file's rows, cast to the schema. Raises: TableError naming a file that is corrupt or cannot be cast."""
    try:
        return rows.join([read_file(path)], _type_of)
    except FileNotFoundError:
        raise TableError(f"{path}: not a readable results file (FileNotFoundError)") from None


def first_row(path: Path) -> dict:
    """The first row of a file. Raises: as `read_file`; IndexError when it is empty."""
    return rows.records(read_file(path))[0]


@functools.cache
def _type_of(name: str) -> str | None:
    if name in CELLS or name in CURVES:
        return (CELLS.get(name) or CURVES[name])[0]
    return _REAL if _free_column(name) else None


def _free_column(name: str) -> bool:
    """Whether a column is one whose name follows the data or the objective."""
    return bool(DOMAIN_COLUMN.fullmatch(name) or MEASURE_COLUMN.fullmatch(name))


def row_files(folder: Path | str, table: str = "cells") -> list[Path]:
    """The finished files of one table, sorted by name; temporary ones are not among them."""
    try:
        with os.scandir(Path(folder) / table) as entries:
            names = sorted(e.name for e in entries if e.name.endswith(".parquet") and not e.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [Path(folder) / table / name for name in names]


def read_table(folder: Path | str, table: str, damaged: list[Path] | None = None) -> pa.Table | None:
    """All rows of one table, each cell's once: a cell's own file counts before a file of many cells (`gaplaw compact`).

    Args: damaged: where files that cannot be read are named; without it they are refused.
    Returns: None when the folder holds no such file.
    Raises: TableError naming the file.
    """
    return rows.read_files(lambda: row_files(folder, table), read_file, _type_of, damaged)


def read(folder: Path | str, table: str = "cells") -> pd.DataFrame:
    """All rows of a run folder as one frame; columns that only some rows have are null in the others.

    Args:
      folder: what `gaplaw run --out` wrote, a path or a URL such as s3://bucket/runs/NAME.
      table: "cells" (one row a cell) or "curves" (loss against tokens).
    Raises: TableError when the folder holds no such table, or naming the file that is corrupt.
    """
    import pandas as pd  # takes longer than all that `gaplaw status` does
    import pyarrow as pa

    if table not in TABLES:
        raise TableError(f"table = {table!r}: must be one of {', '.join(TABLES)}")
    with brought_here(folder, table) as (place, _):
        joined = read_table(place, table)
        if joined is None:
            raise TableError(f"{folder}: holds no {table} (no file {folder}/{table}/*.parquet)")
    return joined.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get)
