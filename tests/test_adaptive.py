"""Adaptive runs: parts of a sweep are run until a simulated truth is known well enough; what was not run has no row."""

from dataclasses import replace

import numpy as np
import pytest

from gaplaw import results
from gaplaw import sweep as run
from gaplaw.cli.adaptive import part, run_adaptive
from gaplaw.errors import SpecError, SweepError
from gaplaw.law.simulation.simulate import bowl
from gaplaw.spec import ObjectiveSpec
from gaplaw.spec.sizes import count_params
from tests.sweep.sweeps import QUICK, texts, tiny_sweep


@pytest.fixture(scope="module")
def sweep():
    return tiny_sweep(
        "folder:/texts", teachers=(8, 12, 16, 24, 32, 48, 64), students=(4, 6, 8, 12, 16), seeds=(0, 1, 2)
    )


def size(model):
    return count_params(model).non_embedding


def writer(out, batches, fails=""):
    """Stands in for `gaplaw.sweep.run`: writes each cell's loss from a bowl around T = 4 S with a little noise."""

    def run_part(some):
        batches.append({cell.id for cell in some.cells})
        for cell in some.cells:
            row = results.describe_cell(cell, some.role(cell)) | {"status": "done"}
            if fails and cell.name.startswith(fails):
                row |= {"status": "failed", "error": "nan"}
            elif cell.teacher:
                u = np.log(size(cell.teacher.model) / (4 * size(cell.model)))
                noise = (int(cell.fingerprint, 16) % 1000 - 500) / 500 * 0.0005
                row["loss_student_ce_nats"] = float(3 - 0.1 * np.log(size(cell.model)) + 0.03 * bowl(u) + noise)
            results.write_cell(out, row, [{"tokens": 1}], QUICK)

    return run_part


def go(sweep, out, run_part, **more):
    options = {
        "target_student_params": 4000,
        "target_student_tokens": None,
        "tolerance_nats": 0.003,
        "budget_flops": None,
    }
    return run_adaptive(sweep, out, run_part, **options | more)


def test_it_starts_coarse_grows_within_the_sweep_and_stops_before_the_whole_grid(sweep, tmp_path):
    batches = []
    answer = go(sweep, tmp_path, writer(tmp_path, batches))
    assert all(earlier <= later for earlier, later in zip(batches, batches[1:], strict=False)) and answer.statement
    students = [cell for cell in sweep.students if cell.id in batches[0]]
    assert len(students) == 3 * 5 and {cell.seed for cell in students} == {0}
    assert {cell.id for cell in sweep.baselines} & batches[0]
    rows = results.read(tmp_path)
    assert (rows.role == "student").sum() == len(answer.measured) < len(sweep.students)
    assert set(rows.cell_id) == batches[-1]


@pytest.mark.slow
def test_it_runs_with_real_training(tmp_path):
    """Tiny models trained for a few steps: nothing can be learnt about teachers, but every part of the loop is the real
    one.
    """
    tiny = run.resolve(
        tiny_sweep(
            f"folder:{texts(tmp_path / 'texts')}", teachers=(4, 6, 8, 12, 16), students=(4, 6, 8), baseline=False
        )
    )
    out = tmp_path / "runs" / "tiny"
    answer = go(tiny, out, lambda some: run.run(some, out, QUICK), tolerance_nats=1e-9)
    rows = results.read(out)
    students = rows[rows.role == "student"]
    assert (rows.status == "done").all() and len(students) == len(answer.measured) >= 3 * 5
    assert sorted(students.loss_student_ce_nats) == sorted(answer.measured.student_loss)
    again = go(tiny, out, lambda some: run.run(some, out, QUICK), tolerance_nats=1e-9)
    assert again.measured.student_loss.tolist() == answer.measured.student_loss.tolist()  # nothing is trained twice


def test_a_part_holds_just_the_teachers_and_baselines_of_its_students(sweep):
    cell = sweep.students[-1]
    some = part(sweep, {cell.id: cell})
    assert some.students == (cell,) and [t.fingerprint for t in some.teachers] == [cell.teacher.fingerprint]
    assert [(b.model, b.seed) for b in some.baselines] == [(cell.model, cell.seed)]


def test_a_failed_cell_and_mixed_protocols_are_refused_in_one_line(sweep, tmp_path):
    with pytest.raises(SweepError, match="failed and its loss is needed: nan"):
        go(sweep, tmp_path, writer(tmp_path, [], fails=sweep.students[0].name))
    warm = replace(sweep.students[0], name="warm", objective=ObjectiveSpec(temperature=2.0))
    with pytest.raises(SpecError, match="2 protocols"):
        go(replace(sweep, students=(*sweep.students, warm)), tmp_path, writer(tmp_path, []))
