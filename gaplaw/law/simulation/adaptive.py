"""How much of a grid must be run? Adaptive experiments: start coarse, add the cells that `next_cell` ranks first, stop
in time.

Pure computation, in the law half: `adapt` asks a function for losses, so a simulation and a real sweep run the same
loop. `rehearse` measures, on simulated tables with a known truth, which share of a full grid's FLOPs reaches the full
grid's regret.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gaplaw.errors import LawError
from gaplaw.law.decide.cost import DEFAULT_TOKENS_PER_PARAM
from gaplaw.law.decide.next_cell import next_cells
from gaplaw.law.fitting import fit
from gaplaw.law.law import Law
from gaplaw.law.simulation.simulate import bowl, simulate, true_optimum
from gaplaw.law.table.read import Table

CELL = ["student_params", "student_tokens", "teacher_params", "seed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveRun:
    """Where an adaptive run ended. `measured` holds every row that was run, in order; nothing else entered the fit."""

    law: Law
    measured: pd.DataFrame
    flops: float
    expected_regret_nats: float
    rounds: int
    statement: str


def adapt(
    measure: Callable[[pd.DataFrame], np.ndarray],
    candidates: pd.DataFrame,
    start: pd.DataFrame,
    *,
    target_student_params: float,
    tolerance_nats: float,
    budget_flops: float,
    target_student_tokens: float | None = None,
    cells_per_round: int = 12,
    most_rounds: int = 30,
    draws: int = 300,
    seed: int = 0,
) -> AdaptiveRun:
    """Run cells until the target's expected regret is within the tolerance, nothing helps, or the budget is spent.

    Args:
        measure: rows of cells (columns student_params, student_tokens, teacher_params, seed) → their student losses,
          nats.
        candidates: every cell that may be run, same columns (and teacher_tokens where known).
        start: the cells of the coarse start.
        tolerance_nats, budget_flops: as for `next_cells`; the budget includes the start.

    Raises:
        LawError: when the start alone is over the budget.
    """
    trained_teachers: set[float] = set()
    flops = cell_flops(start, trained_teachers)
    if flops > budget_flops:
        raise LawError(f"budget_flops: {budget_flops:.3g} must cover the start, {flops:.3g}")
    trained_teachers |= set(start["teacher_params"])
    measured = start.assign(student_loss=measure(start))
    law, statement, rounds = None, "stop: the most rounds were run", 0
    for rounds in range(1, most_rounds + 1):  # noqa: B007
        law = fit_cells(measured, draws, seed)
        unmeasured = candidates.merge(measured[CELL], on=CELL, how="left", indicator=True)
        unmeasured = unmeasured[unmeasured["_merge"] == "left_only"].drop(columns="_merge")
        candidate_cells = [
            cell | {"new_teacher": cell["teacher_params"] not in trained_teachers}
            for cell in unmeasured.to_dict("records")
        ]
        answer = next_cells(
            law,
            target_student_params=target_student_params,
            target_student_tokens=target_student_tokens,
            budget_flops=max(budget_flops - flops, 1.0),
            candidates=candidate_cells,
            tolerance_nats=tolerance_nats,
            most=cells_per_round,
        )
        if answer.stop:
            statement = answer.statement
            break
        rows = pd.DataFrame([cell.to_dict() for cell in answer.cells])[CELL].merge(candidates, on=CELL, how="left")
        flops += cell_flops(rows, trained_teachers)
        trained_teachers |= set(rows["teacher_params"])
        measured = pd.concat([measured, rows.assign(student_loss=measure(rows))], ignore_index=True)
    else:
        law = fit_cells(measured, draws, seed)
    return AdaptiveRun(
        law=law,
        measured=measured,
        flops=flops,
        rounds=rounds,
        statement=statement,
        expected_regret_nats=expected_regret(
            law, candidates["teacher_params"], target_student_params, target_student_tokens
        ),
    )


def cell_flops(cells: pd.DataFrame, trained_teachers=()) -> float:
    """FLOPs of cells: 6SD + 2TD of each, plus 6·T·D_T for every teacher that is not trained yet.

    Args:
        cells: columns student_params, student_tokens, teacher_params.
        trained_teachers: sizes that cost nothing more.
    """
    own = (6 * cells["student_params"] + 2 * cells["teacher_params"]) * cells["student_tokens"]
    new = np.array([size for size in cells["teacher_params"].unique() if size not in set(trained_teachers)])
    return float(own.sum() + (6 * DEFAULT_TOKENS_PER_PARAM * new**2).sum())


def expected_regret(law: Law, teachers, params: float, tokens: float | None = None) -> float:
    """The least expected regret that the law can promise at a student, over the range of the teachers at hand, nats.

    Args:
        law: a fitted law.
        teachers: sizes at hand.
        params, tokens: the student, N_S and D_S.
    """
    return float(law.regret_draws(params, tokens, np.geomspace(min(teachers), max(teachers), 81)).mean(0).min())


def fit_cells(frame: pd.DataFrame, draws: int, seed: int) -> Law:
    """The law of the cells that were run so far, not compared with rivals; pairing groups are left out."""
    keep = [name for name in frame.columns if name != "group"]
    table = Table(
        frame=frame[keep].reset_index(drop=True),
        coordinate="teacher_params",
        protocol=None,
        notes=(),
        source="adaptive",
    )
    return fit(table, compare=False, draws=draws, seed=seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """One simulated comparison of an adaptive run with the full grid; regrets at the target in nats."""

    share_of_flops: float
    reached: bool
    expected_regret_nats: float
    full_expected_regret_nats: float
    true_regret_nats: float
    full_true_regret_nats: float
    cells: int
    full_cells: int


def rehearse(
    *,
    students,
    teachers,
    target_student_params: float,
    seeds_available: int = 5,
    start_students: int = 3,
    start_teachers: int = 5,
    draws: int = 300,
    rng: int = 0,
    slack: float = 1.05,
    **truth,
) -> Rehearsal:
    """Simulate a pool of cells, fit the full grid (first seed), and let an adaptive run reach that regret for less.

    Args:
        students, teachers: the full grid. seeds_available: replicates that the adaptive run may ask for.
        start_students, start_teachers: the coarse start: the smallest students, with teachers spread over the cheap
          part.
        slack: the adaptive run must reach slack × the full grid's expected regret.
        truth: passed to `simulate` (k, p, asymmetry, noise_nats, ...).
    """
    frame = simulate(students=students, teachers=teachers, seeds=seeds_available, rng=rng, **truth)
    pool = frame.drop(columns="group", errors="ignore")
    full = pool[pool["seed"] == 0]
    full_law = fit_cells(full, draws, rng)
    goal = slack * expected_regret(full_law, teachers, target_student_params)
    small_teachers = np.sort(pool["teacher_params"].unique())[:start_teachers]
    small_students = np.sort(pool["student_params"].unique())[:start_students]
    start = full[full["student_params"].isin(small_students) & full["teacher_params"].isin(small_teachers)]
    candidates = pool.drop(columns="student_loss")
    losses = pool.set_index(CELL)["student_loss"]

    def measure(rows: pd.DataFrame) -> np.ndarray:
        return losses.loc[list(rows[CELL].itertuples(index=False, name=None))].to_numpy()

    whole = cell_flops(full)
    run = adapt(
        measure, candidates, start.drop(columns="student_loss"), target_student_params=target_student_params,
        tolerance_nats=goal, budget_flops=whole, draws=draws, seed=rng,
    )  # fmt: skip
    return Rehearsal(
        share_of_flops=run.flops / whole,
        reached=run.expected_regret_nats <= goal and not run.law.refused,
        expected_regret_nats=run.expected_regret_nats,
        full_expected_regret_nats=goal / slack,
        true_regret_nats=true_regret(frame, run.law, teachers, target_student_params, truth),
        full_true_regret_nats=true_regret(frame, full_law, teachers, target_student_params, truth),
        cells=len(run.measured),
        full_cells=len(full),
    )


def true_regret(frame, law: Law, teachers, params: float, truth: dict) -> float:
    """What the truth says of the law's own pick, nats: the teacher of least expected regret in the range of the grid.

    Args:
        frame: from `simulate`. law: fitted to it or to a part of it.
        teachers: sizes of the grid.
        params: N_S of the student that is asked about.
        truth: what `simulate` was given (depth, shape, asymmetry).
    """
    grid = np.geomspace(min(teachers), max(teachers), 201)
    pick = grid[int(np.argmin(law.regret_draws(params, None, grid).mean(0)))]
    u = np.log(pick / true_optimum(frame, params))
    return float(truth.get("depth", 0.03) * bowl(u, truth.get("shape", "power"), truth.get("asymmetry", 1.0)))
