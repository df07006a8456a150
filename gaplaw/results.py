"""What does a finished cell leave behind? One parquet file per cell and table, with units in the column names.

A row is written under a temporary name and renamed, so a reader sees a whole file or none, and any number of writers on
any number of machines may share a folder. A file carries its own checksum (`gaplaw.files.marked`; older ones have
none). Missing is null, never 0. `read` joins a folder into one frame; the same files are one dataset for pyarrow and
DuckDB (`read_parquet('RUN/cells/*.parquet', union_by_name => true)`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gaplaw import rows
from gaplaw.canonical import to_dict
from gaplaw.columns import COLUMNS, SCHEMA_VERSION, TABLES, is_free, type_of
from gaplaw.errors import TableError
from gaplaw.objects import brought_here
from gaplaw.rows import Copy
from gaplaw.spec import Cell, Execution, ModelSpec, Role
from gaplaw.spec.sizes import ParamCounts, count_params, teacher_flops, train_flops

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


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
    columns = COLUMNS[table]
    values = [{"schema_version": SCHEMA_VERSION, "cell_id": cell_id} | row for row in values]
    named = {name for row in values for name in row}
    free = sorted(name for name in named - set(columns) if table == "cells" and is_free(name))
    unknown = sorted(named - set(columns) - set(free))
    if unknown:
        raise TableError(f"{table} of {cell_id}: column {unknown[0]!r} is not in the schema, version {SCHEMA_VERSION}")
    target = Path(folder) / table / f"{cell_id}.parquet"
    rows.write_file(target, values, {name: type_of(name) for name in (*columns, *free)})
    return target


def write_cell(folder: Path | str, row: dict, curve: list[dict], execution: Execution) -> None:
    """Write a cell's curve, then its row: a cell whose row exists is complete."""
    write_rows(folder, "curves", row["cell_id"], curve)
    write_rows(folder, "cells", row["cell_id"], [row | {"execution": json.dumps(to_dict(execution))}])


def read_file(path: Path) -> pa.Table | Copy:
    """One file's rows as it is quickest to read. Raises: as `read_rows`, but FileNotFoundError for an absent file."""
    return rows.read_file(path, type_of, SCHEMA_VERSION)


def read_rows(path: Path) -> pa.Table:
    """One file's rows, cast to the schema. Raises: TableError naming a file that is corrupt or cannot be cast."""
    try:
        return rows.join([read_file(path)], type_of)
    except FileNotFoundError:
        raise TableError(f"{path}: not a readable results file (FileNotFoundError)") from None


def first_row(path: Path) -> dict:
    """The first row of a file. Raises: as `read_file`; IndexError when it is empty."""
    return rows.records(read_file(path))[0]


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
    return rows.read_files(lambda: row_files(folder, table), read_file, type_of, damaged)


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
