"""Adaptive runs: only what was asked for is measured and paid, and a fraction of the grid reaches the grid's regret."""

import numpy as np
import pandas as pd
import pytest

from gaplaw.errors import LawError
from gaplaw.law.simulation.adaptive import CELL, adapt, cell_flops, rehearse
from gaplaw.law.simulation.simulate import simulate

STUDENTS, TEACHERS = np.geomspace(5e7, 1.6e9, 6), np.geomspace(1e8, 6.4e9, 7)
TRUTH = {"k": 3.0, "p": 0.9, "asymmetry": 2.0, "shape": "two_sided", "depth": 0.03, "noise_nats": 0.003}


def pool(rng=0):
    frame = simulate(students=STUDENTS, teachers=TEACHERS, seeds=3, rng=rng, **TRUTH).drop(columns="group")
    start = frame[(frame["seed"] == 0) & (frame["student_params"] <= 2.1e8) & (frame["teacher_params"] <= 1.7e9)]
    return frame, start.drop(columns="student_loss")


def test_flops_by_hand():
    cells = pd.DataFrame(
        {"student_params": [1e8, 2e8], "student_tokens": [2e9, 4e9], "teacher_params": [1e9, 1e9], "seed": 0}
    )
    own = (6e8 + 2e9) * 2e9 + (1.2e9 + 2e9) * 4e9
    assert cell_flops(cells) == pytest.approx(own + 6 * 20 * 1e18)
    assert cell_flops(cells, trained_teachers=[1e9]) == pytest.approx(own)


def test_only_asked_cells_are_measured_and_the_budget_holds():
    frame, start = pool()
    losses, batches = frame.set_index(CELL)["student_loss"], []

    def measure(rows):
        batches.append(rows)
        return losses.loc[list(rows[CELL].itertuples(index=False, name=None))].to_numpy()

    budget = 3 * cell_flops(start)
    run = adapt(
        measure, frame.drop(columns="student_loss"), start, target_student_params=1.6e9, tolerance_nats=1e-5,
        budget_flops=budget, draws=100, most_rounds=4,
    )  # fmt: skip
    measured = pd.concat(batches, ignore_index=True)
    pd.testing.assert_frame_equal(run.measured[CELL], measured[CELL], check_dtype=False)
    assert not run.measured.duplicated(CELL).any()
    assert len(run.measured) > len(start)
    assert run.flops == pytest.approx(cell_flops(measured)) and run.flops <= budget
    with pytest.raises(LawError, match="must cover the start"):
        adapt(measure, frame, start, target_student_params=1e9, tolerance_nats=1e-3, budget_flops=1.0)


@pytest.mark.slow
def test_a_third_of_the_flops_reaches_the_full_grids_regret():
    runs = [
        rehearse(students=STUDENTS, teachers=TEACHERS, target_student_params=1.6e9, rng=seed, draws=200, **TRUTH)
        for seed in range(9)
    ]
    assert np.mean([run.reached for run in runs]) >= 0.75
    assert np.median([run.share_of_flops for run in runs]) <= 0.30
    assert np.median([run.true_regret_nats for run in runs]) < 0.001
