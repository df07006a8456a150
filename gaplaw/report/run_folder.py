"""What does a run folder hold? Its rows, its curves, what was planned and foretold, and the files that cannot be read.

After tables in the walk of the report; nothing is drawn or fitted here.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gaplaw.canonical import from_dict
from gaplaw.credentials import mask_credentials
from gaplaw.errors import GaplawError, TableError
from gaplaw.files import intact
from gaplaw.report.tables import FORETOLD
from gaplaw.results import read_table, row_files
from gaplaw.spec import Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What the specification of a run says: its name, its question, how many cells it has, and which have left no row
    yet.
    """

    name: str
    question: str
    count: int
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a folder holds: rows, curves, the sweep it belongs to (None when it says none), and files that cannot be
    read.

    folder: what commands call it.
    """

    name: str
    folder: str
    cells: pd.DataFrame
    curves: pd.DataFrame
    sweep: Planned | None
    damaged: tuple[str, ...]
    forecast: dict | None = None


def require_run(folder: Path | str, name: str | None = None) -> None:
    """Raise a TableError unless the folder is a run's; `name` is what people call it, where that is no local path."""
    folder, name = Path(folder), name or folder
    if not folder.is_dir():
        what = "is a file, and a run is a folder" if folder.is_file() else "no such folder"
        raise TableError(f"{name}: {what}; `gaplaw run EXPERIMENT --out FOLDER` makes one")
    if not ((folder / "sweep.json").exists() or row_files(folder)):
        files = "no sweep.json, no cells/*.parquet"
        raise TableError(f"{name}: holds no run ({files}); `gaplaw run EXPERIMENT --out FOLDER` makes one")


def read_run(folder: Path | str, name: str | None = None) -> Run:
    """Read a run folder as far as it can be read; `name` as in `require_run`.

    Raises: TableError when there is no such folder, or it holds no run.
    """
    require_run(folder, name)
    folder, name = Path(folder), mask_credentials(str(name or folder))
    damaged: list[str] = []
    cells, curves = (_read(folder, table, damaged) for table in ("cells", "curves"))
    return Run(
        name=folder.resolve().name,
        folder=shlex.quote(name),
        cells=cells,
        curves=curves,
        sweep=_read_sweep(folder, cells, damaged),
        forecast=_read_forecast(folder, damaged),
        damaged=tuple(damaged),
    )


def _read(folder: Path, table: str, damaged: list[str]) -> pd.DataFrame:
    unreadable: list[Path] = []
    rows = read_table(folder, table, unreadable)
    damaged += [f"{table}/{path.name}" for path in unreadable]
    return pd.DataFrame() if rows is None else rows.to_pandas()


def _read_sweep(folder: Path, cells: pd.DataFrame, damaged: list[str]) -> Planned | None:
    """What was planned. A cell whose row carries its specification, word for word, is known; only the others are made
    and named.
    """
    path = folder / "sweep.json"
    if not path.exists():
        return None
    ids, specs = (set(cells[name].dropna()) if name in cells else set() for name in ("cell_id", "spec"))
    try:
        sweep = _checked(path)["sweep"]
        listed = [cell for part in _CELLS_OF_A_SWEEP for cell in sweep.get(part, ())]
        others = from_dict(tuple[Cell, ...], [cell for cell in listed if json.dumps(cell) not in specs])
        missing = tuple(cell.id for cell in others if cell.id not in ids)
        return Planned(name=str(sweep["name"]), question=str(sweep["question"]), count=len(listed), missing=missing)
    except (ValueError, KeyError, TypeError, AttributeError, GaplawError):
        damaged.append("sweep.json")
        return None


def _checked(path: Path) -> dict:
    """The object in a JSON file. Raises: ValueError when that is damaged."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not intact(found):
        raise ValueError("its checksum does not fit")
    return found


_CELLS_OF_A_SWEEP = ("teachers", "baselines", "students")


def _read_forecast(folder: Path, damaged: list[str]) -> dict | None:
    """What `gaplaw plan --target … --out` or the run itself foretold: {"target", "cells"}; None when nobody did."""
    path = folder / "forecast.json"
    if not path.exists():
        return None
    try:
        found = _checked(path)
        return {"target": str(found["target"]), "cells": pd.DataFrame(found["cells"])[list(FORETOLD)]}
    except (ValueError, KeyError, TypeError):
        damaged.append("forecast.json")
        return None
