"""Is it said when a grid, its training text or its held-out text is too small, and not said of tables that do not
tell?
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gaplaw.law import fit
from gaplaw.law.data_flags import FEWEST_HELD_OUT_TOKENS, MOST_EPOCHS, sweep_warnings, text_flags
from gaplaw.law.simulation.simulate import simulate
from gaplaw.law.table.read import read_table
from gaplaw.law.teacher_loss.checks import diagnostics
from tests import toy
from tests.sweep.sweeps import tiny_sweep

GRID = {"students": np.geomspace(5e7, 8e8, 4), "teachers": np.geomspace(1e8, 6.4e9, 7), "noise_nats": 0.003, "rng": 2}

LITTLE = simulate(**GRID).assign(training_epochs=370.0, validation_tokens=64)


def kinds(epochs, held_out) -> set[str]:
    return {flag.kind for flag in text_flags(pd.DataFrame({"training_epochs": epochs, "validation_tokens": held_out}))}


@pytest.mark.parametrize(
    ("epochs", "held_out", "expected"),
    [
        ([1.0, MOST_EPOCHS], [FEWEST_HELD_OUT_TOKENS] * 2, set()),
        ([1.0, MOST_EPOCHS + 0.1], [FEWEST_HELD_OUT_TOKENS] * 2, {"many_epochs"}),
        ([1.0, 1.0], [FEWEST_HELD_OUT_TOKENS, 64], {"few_held_out_tokens"}),
        ([370.0, 370.0], [64, 64], {"many_epochs", "few_held_out_tokens"}),
        ([None, None], [None, None], set()),
        ([np.nan, 370.0], [np.nan, 0], {"many_epochs"}),
    ],
)
def test_text_that_is_repeated_often_or_measured_on_little_is_flagged(epochs, held_out, expected):
    assert kinds(epochs, held_out) == expected


def test_the_numbers_stand_in_the_words():
    many, few = text_flags(pd.DataFrame({"training_epochs": [370.2, 1.0], "validation_tokens": [64, 64]}))
    assert "1 of 2 models" in many.message and "370 times" in many.message
    assert "64 held-out tokens" in few.message and "12.5%" in few.message  # 1 / sqrt(64)


def test_a_fit_passes_the_flags_on():
    kinds_found = {flag.kind for flag in fit(LITTLE, compare=False, draws=20).flags}
    assert {"many_epochs", "few_held_out_tokens"} <= kinds_found


def test_a_fit_in_teacher_loss_passes_them_on_too():
    table, stack = read_table(LITTLE.assign(teacher_loss=2.0)), SimpleNamespace(components=[])
    kinds_found = {flag.kind for flag in diagnostics(table, stack)}
    assert {"many_epochs", "few_held_out_tokens"} <= kinds_found


@pytest.mark.parametrize(
    "more", [{}, {"training_epochs": None}, {"training_epochs": "many", "validation_tokens": "few"}]
)
def test_tables_without_text_columns_get_no_text_flags(more):
    assert not list(text_flags(read_table(simulate(**GRID).assign(**more)).frame))


def test_a_grid_below_what_a_fit_needs_is_reported_before_the_run_by_protocol(tmp_path):
    two = sweep_warnings(toy.sweep())
    assert len(two) == 2 and all("gaplaw fit will refuse this grid (scratch|soft=0.5|T=1)" in line for line in two)
    assert "more than 2 teachers; at least 5" in two[0] and "2 student sizes" in two[1]
    whole = tiny_sweep("stdlib", teachers=(10, 12, 14, 16, 18), students=(2, 4, 8), seeds=(0,))
    assert sweep_warnings(whole) == []
