"""How does `gaplaw run --adaptive` spend less than the grid? Sweep and law meet here: run a few cells, fit, ask which
are worth it.

The experiment's students are the candidates; the loop is `gaplaw.law.simulation.adaptive.adapt`; every round runs a
larger part of the same sweep in the same folder, so stopping and starting again costs nothing. Cells that were never
run have no rows, and so never enter a fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from gaplaw.errors import SpecError, SweepError
from gaplaw.law.simulation.adaptive import CELL, AdaptiveRun, adapt, cell_flops
from gaplaw.spec import Cell, Sweep
from gaplaw.spec.sizes import count_params
from gaplaw.sweep.folder.compact import row_of

START_STUDENTS, START_TEACHERS = 3, 5  # the fewest that a law may be fitted on


def run_adaptive(
    sweep: Sweep,
    out: Path,
    run_part: Callable[[Sweep], object],
    *,
    target_student_params: float,
    target_student_tokens: float | None,
    tolerance_nats: float,
    budget_flops: float | None,
) -> AdaptiveRun:
    """Run the smallest students under the cheapest teachers, then what the law asks for, until the target is known well
    enough.

    Args:
      out: the run folder.
      run_part: runs a part of the sweep in that folder to the end (`gaplaw.sweep.run`).
      tolerance_nats: the target's expected regret at which to stop. budget_flops: the whole grid's cost if None.
    Raises: SpecError for a sweep of several protocols or repeated cells; SweepError when a cell that is needed fails.
    """
    protocols = sorted({cell.protocol for cell in sweep.students})
    if len(protocols) != 1:
        raise SpecError(
            f"--adaptive: the experiment has {len(protocols)} protocols, {', '.join(protocols)}: must be one"
        )
    cells = {_key(cell): cell for cell in sweep.students}
    if len(cells) != len(sweep.students):
        raise SpecError("--adaptive: students must differ in size, tokens, teacher or seed")
    candidates = pd.DataFrame(list(cells), columns=CELL)
    requested_cells: dict[str, Cell] = {}

    def measure(rows: pd.DataFrame) -> np.ndarray:
        batch = [cells[key] for key in rows[CELL].itertuples(index=False, name=None)]
        requested_cells.update({cell.id: cell for cell in batch})
        run_part(part(sweep, requested_cells))
        return np.array([_loss(out, cell) for cell in batch])

    return adapt(
        measure,
        candidates,
        _start(candidates),
        target_student_params=target_student_params,
        target_student_tokens=target_student_tokens,
        tolerance_nats=tolerance_nats,
        budget_flops=cell_flops(candidates) if budget_flops is None else budget_flops,
    )


def part(sweep: Sweep, requested_cells: dict[str, Cell]) -> Sweep:
    """The sweep with only those students, their teachers and their baselines, in the sweep's order."""
    teachers = {cell.teacher.fingerprint for cell in requested_cells.values()}
    twins = {(cell.model, cell.train, cell.seed) for cell in requested_cells.values()}
    return replace(
        sweep,
        teachers=tuple(cell for cell in sweep.teachers if cell.fingerprint in teachers),
        baselines=tuple(cell for cell in sweep.baselines if (cell.model, cell.train, cell.seed) in twins),
        students=tuple(cell for cell in sweep.students if cell.id in requested_cells),
    )


def _key(cell: Cell) -> tuple:
    size = cell.target_params or count_params(cell.model).non_embedding
    return size, cell.steps * cell.batch_tokens, count_params(cell.teacher.model).non_embedding, cell.seed


def _start(candidates: pd.DataFrame) -> pd.DataFrame:
    """The coarse grid: smallest students, cheapest teachers, first seed."""
    students = np.sort(candidates["student_params"].unique())[:START_STUDENTS]
    teachers = np.sort(candidates["teacher_params"].unique())[:START_TEACHERS]
    first = candidates["seed"] == candidates["seed"].min()
    return candidates[
        first & candidates["student_params"].isin(students) & candidates["teacher_params"].isin(teachers)
    ].reset_index(drop=True)


def _loss(out: Path, cell: Cell) -> float:
    row = row_of(out, cell.id) or {"loss_student_ce_nats": None, "error": "it has left no row"}
    if row["loss_student_ce_nats"] is None:
        raise SweepError(f"--adaptive: {cell.id} failed and its loss is needed: {row['error']}")
    return row["loss_student_ce_nats"]
