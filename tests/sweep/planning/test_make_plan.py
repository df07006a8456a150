"""A plan counts FLOPs as the closed forms do, orders groups by longest path, and learns times from what has run."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from gaplaw import data, results
from gaplaw.cli.options import print_wide
from gaplaw.spec import Execution, TeacherSignal
from gaplaw.spec.sizes import count_params, forward_flops_per_token
from gaplaw.sweep import plan
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning import plan as planned_module
from gaplaw.sweep.planning.estimate import (
    Clock,
    Machine,
    Measured,
    clock_for,
    evaluation_flops,
    finish_seconds,
    training_flops,
)
from gaplaw.sweep.planning.make_plan import starting_order, works_of
from gaplaw.sweep.planning.plan import amount, duration
from tests.sweep.sweeps import QUICK, ROOT


@pytest.fixture(autouse=True)
def fixed_rates(monkeypatch):
    machine = Machine(
        matrix_flops_per_second={16: 1e9, 1024: 4e9}, elements_per_second=1e9, memory_bytes_per_second=1e10
    )
    monkeypatch.setattr("gaplaw.sweep.planning.estimate.measure_machine", lambda single_thread: machine)


def test_a_plan_has_one_row_per_cell_with_the_closed_form_counts(sweep):
    made = plan(sweep, QUICK)
    assert [row.cell_id for row in made.cells] == [cell.id for cell in sweep.cells]
    for cell, row in zip(sweep.cells, made.cells, strict=True):
        size, tokens = count_params(cell.model), cell.steps * cell.batch_tokens
        assert row.student_params == size.non_embedding and row.student_tokens == tokens
        assert row.student_training_flops == 6 * size.total * tokens
        teacher = count_params(cell.teacher.model).total if cell.teacher else 0
        assert row.teacher_forward_flops == 2 * teacher * tokens
        assert row.flops == row.student_training_flops + row.teacher_forward_flops
        assert row.status == "missing" and row.estimated_seconds > 0
    kept = {row.cell_id for row in made.cells if row.disk_bytes > 4 * row.student_params_total}
    assert {cell.id for cell in sweep.teachers} <= kept
    assert json.loads(json.dumps(made.to_rows()))[0]["role"] == "teacher"


def test_a_plan_marks_what_is_done_failed_or_in_the_store_and_sums_the_rest(sweep, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    whole = plan(sweep, QUICK, folder)
    done, failed = sweep.baselines
    row = results.describe_cell(done, "baseline") | {"status": "done"}
    results.write_cell(folder.out, row, [{"tokens": 1}], QUICK)
    folder.write_failure(sweep, failed, "nan", QUICK)
    stored = sweep.teachers[0]
    entry = folder.store / "teachers" / stored.id
    results.write_cell(entry, results.describe_cell(stored, "teacher") | {"status": "done"}, [{"tokens": 1}], QUICK)
    (entry / "checkpoint").mkdir()
    made = plan(sweep, QUICK, folder)
    status = {row.cell_id: row.status for row in made.cells}
    assert (status[done.id], status[failed.id], status[stored.id]) == ("done", "failed", "stored")
    assert len(made.left) == len(sweep.cells) - 2
    flops = {row.cell_id: row.flops for row in whole.cells}
    assert made.flops_left == pytest.approx(whole.flops_left - flops[done.id] - flops[stored.id])
    assert made.wall_seconds < whole.wall_seconds


def test_a_plan_counts_each_teacher_cache_once(sweep):
    assert plan(sweep, QUICK).teacher_cache_bytes == 0
    cached = replace(
        sweep, students=tuple(replace(c, signal=TeacherSignal(kind="topk", symbols=4)) for c in sweep.students)
    )
    made = plan(cached, QUICK)
    tokens = cached.students[0].steps * cached.students[0].batch_tokens
    assert made.teacher_cache_bytes == len(cached.teachers) * tokens * (4 * 3 + 2)
    assert {row.teacher_cache_bytes for row in made.cells if row.role == "student"} == {tokens * 14}
    assert "in teacher caches" in made.totals()[0]


def test_planning_imports_no_jax():
    modules = "gaplaw.sweep.planning.make_plan, gaplaw.sweep.planning.load, gaplaw.sweep.running.run, gaplaw.cli"
    code = f"import sys, {modules}; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


def test_group_flops_count_the_teacher_once_and_each_student_three_times(sweep):
    group = next(group for group in sweep.groups() if group.teacher and len(group.cells) > 1)
    cell, length = group.cells[0], group.cells[0].data.sequence_tokens
    student, teacher = (forward_flops_per_token(model, length) for model in (cell.model, group.teacher.model))
    tokens = cell.steps * cell.batch_tokens
    assert training_flops(group) == tokens * (3 * student * len(group.cells) + teacher)
    three = replace(QUICK, evaluations=3)
    assert evaluation_flops(group, three) == 3 * 512 * (student * len(group.cells) + teacher)


def test_the_clock_reproduces_what_it_has_measured_and_scales_the_rest(sweep):
    alone, taught = (next(g for g in sweep.groups() if (g.teacher is not None) == want) for want in (False, True))
    plain = Clock(execution=QUICK)
    assert "no group has run" in plain.source
    knowing = plain.knowing(Measured(group=taught, start_seconds=3.0, rest_seconds=50.0))
    assert knowing.seconds(taught) == pytest.approx(53.0)
    scale = 50.0 / plain.rest_seconds(taught)
    assert knowing.seconds(alone) == pytest.approx(
        3.0 + scale * plain.rest_seconds(alone)
    )  # nothing like it yet: all count
    both = knowing.knowing(Measured(group=alone, start_seconds=1.0, rest_seconds=2.0))
    assert both.seconds(alone) == pytest.approx(3.0) and both.seconds(taught) == pytest.approx(53.0)


def test_the_clock_reads_whole_groups_of_the_same_threading_from_rows(sweep, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    group = next(group for group in sweep.groups() if group.teacher and len(group.cells) == 2)
    for cell in group.cells:
        assert not clock_for(folder, QUICK).measured  # half a group says nothing
        row = results.describe_cell(cell, "student") | {"status": "done", "group_id": group.id, "group_cells": 2}
        row |= {"group_wall_seconds": 12.0, "compile_seconds": 2.0}
        results.write_cell(folder.out, row, [{"tokens": 1}], QUICK)
    (known,) = clock_for(folder, QUICK).measured
    assert known.rest_seconds == 10.0 and [c.id for c in known.group.cells] == [c.id for c in group.cells]
    assert not clock_for(folder, replace(QUICK, single_thread=not QUICK.single_thread)).measured


def test_the_longest_path_starts_first_and_students_never_before_their_teacher(sweep):
    slow = sweep.teachers[1].fingerprint
    seconds = {
        group.id: 10.0 if group.teacher and group.teacher.fingerprint == slow else 1.0 for group in sweep.groups()
    }
    works = works_of(sweep, Clock(execution=QUICK))
    order = starting_order([replace(work, seconds=seconds[work.id]) for work in works])
    assert order[0].group.cells[0].fingerprint == slow
    ids = [work.id for work in order]
    assert all(ids.index(work.needs) < ids.index(work.id) for work in order if work.needs)


@pytest.mark.parametrize(
    ("tasks", "running", "workers", "expected"),
    [
        ([], {}, 2, 0.0),
        ([("a", 3, None), ("b", 2, None), ("c", 2, None)], {}, 2, 4.0),
        ([("t", 3, None), ("s", 5, "t")], {}, 2, 8.0),
        ([("s", 5, "t"), ("x", 1, None)], {"t": 4.0}, 2, 9.0),
        ([("a", 1, None)], {"r": 7.0, "q": 2.0}, 2, 7.0),
        ([("a", 1, None)], {"r": 7.0, "q": 2.0}, 1, 7.0),
    ],
)
def test_the_time_to_finish_is_that_of_a_greedy_schedule(tasks, running, workers, expected):
    assert finish_seconds(tasks, running, workers) == expected


def test_amounts_and_durations_are_short():
    assert [amount(n) for n in (12, 1536, 2_500_000, 3e9)] == ["12 B", "1.5 kB", "2.5 MB", "3.0 GB"]
    assert [duration(s) for s in (9.6, 75, 3725)] == ["10 s", "1 min 15 s", "1 h 02 min"]


def test_the_table_names_every_cell_and_says_where_the_estimate_comes_from(sweep):
    from rich.console import Console

    made = plan(sweep, Execution(workers=3))
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(made.table())
    text = console.export_text()
    assert all(cell.id in text for cell in sweep.cells) and sweep.question in text
    assert "3 workers" in made.totals()[1] and "no group has run yet" in made.totals()[1]
    assert planned_module.FINISHED == ("done", "stored")


def test_a_plan_says_where_the_time_goes(sweep):
    made = plan(sweep, QUICK)
    works = works_of(sweep, Clock(execution=QUICK))
    assert made.phases.total_seconds == pytest.approx(sum(work.seconds for work in works))
    assert made.phases.start_seconds == pytest.approx(3.0 * len(works))
    twice = plan(sweep, replace(QUICK, evaluations=2)).phases
    assert twice.evaluate_seconds == pytest.approx(2 * made.phases.evaluate_seconds)
    assert replace(twice, evaluate_seconds=0.0) == replace(made.phases, evaluate_seconds=0.0)
    shown = made.totals()[2]
    assert all(f"{name} " in shown for name in ("start", "compile", "train", "evaluate")) and shown.count("%") == 4


def test_without_a_rate_for_the_size_no_hours_are_given(sweep, monkeypatch):
    slow = Machine(matrix_flops_per_second={16: 0.1}, elements_per_second=0.1, memory_bytes_per_second=1.0)
    monkeypatch.setattr("gaplaw.sweep.planning.estimate.measure_machine", lambda single_thread: slow)
    made = plan(sweep, QUICK)
    assert {cell.estimated_seconds for cell in made.cells if cell.role == "student"} == {None}
    text = "\n".join(made.totals())
    assert "no measured rate for this size" in text and " h " not in text
    assert json.loads(json.dumps(made.to_rows()))[-1]["estimated_seconds"] is None


def test_epochs_and_held_out_tokens_stand_in_the_plan(sweep):
    assert "not counted yet" in plan(sweep, QUICK).totals()[-1]
    corpus = data.load(sweep.cells[0].data)
    made = plan(sweep, QUICK, corpora={sweep.cells[0].data: corpus})
    windows = corpus.tokens_in("train") // 16 - 1
    for cell, row in zip(sweep.cells, made.cells, strict=True):
        assert row.training_epochs == pytest.approx(cell.steps * 8 / windows)
        assert row.validation_tokens == corpus.validation().tokens_NxL1[:, 1:].size
    assert "epochs of training" in made.totals()[-1] and f"{corpus.validation_tokens:,} held-out" in made.totals()[-1]


@pytest.mark.parametrize("most_styled_rows", [0, 500])  # a long table is printed as plain text
@pytest.mark.parametrize("columns", [30, 60, 80, 100, 120, 121, 200])
def test_a_narrow_window_folds_columns_and_loses_no_digit(sweep, columns, most_styled_rows, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("gaplaw.cli.plain_table.MOST_STYLED_ROWS", most_styled_rows)
    table = plan(sweep, QUICK).table()
    print_wide(table)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    values = [str(value) for column in table.columns for value in (column.header, *column.cells)]
    assert sorted(value for value in shown.split("?", 1)[1].split()) == sorted(" ".join(values).split())
    starts = [number for number, line in enumerate(lines) if any(line.split()[:1] == [cell.id] for cell in sweep.cells)]
    assert len(starts) == len(sweep.cells) and len(set(np.diff(starts))) == 1  # every row takes the same few lines
    assert columns < 60 or max(map(len, lines)) <= columns
    assert columns < 160 or set(np.diff(starts)) == {1}


@pytest.mark.parametrize("columns", ["60", "200"])
def test_a_question_is_printed_as_it_is_written(sweep, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    print_wide(plan(replace(sweep, question="is [/x] [bold] the [best]?"), QUICK).table())
    assert ": is [/x] [bold] the [best]?" in capsys.readouterr().out


def test_a_file_gets_one_line_for_each_cell(sweep, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_wide(plan(sweep, QUICK).table())
    shown = capsys.readouterr().out
    assert all(f" {cell.id} " in shown for cell in sweep.cells) and shown.count("to do") == len(sweep.cells)
    assert all("to do" in line for line in shown.splitlines() if any(cell.id in line for cell in sweep.cells))
