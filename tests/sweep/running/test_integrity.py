"""Bytes that change in a cache or a run folder never change a table: what is damaged is named and made again."""

import dataclasses
import io
import random
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from gaplaw import data, results
from gaplaw.canonical import to_dict
from gaplaw.errors import CheckpointError, TableError
from gaplaw.sweep import run
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.running import worker
from tests.flips import files, flip, flipped
from tests.sweep.running.test_run import go, ran
from tests.sweep.sweeps import QUICK, one_teacher

ONE = dataclasses.replace(QUICK, workers=1)


def losses(out: Path) -> pd.DataFrame:
    frame = results.read(out).set_index("cell_id").sort_index()
    return frame[[name for name in frame if name.endswith("_nats")]]


def test_any_change_in_a_row_or_a_curve_is_refused_by_name(sweep, tmp_path):
    row = results.describe_cell(sweep.cells[0], "teacher") | {"status": "done", "loss_student_ce_nats": 3.25}
    curve = [{"tokens": n, "training_loss_nats": 4.0 - n / 10} for n in range(20)]
    results.write_cell(tmp_path, row, curve, QUICK)
    chance = random.Random(0)
    for table in results.TABLES:
        (path,) = results.row_files(tmp_path, table)
        whole, rows = path.read_bytes(), results.read_rows(path)
        for _ in range(300):
            path.write_bytes(flipped(whole, chance))
            try:
                assert results.read_rows(path).equals(rows)  # the name of the checksum itself was hit
            except TableError as refusal:
                assert str(path) in str(refusal) and "\n" not in str(refusal)
        path.write_bytes(whole)
        assert results.read_rows(path).equals(rows)


def test_a_teacher_whose_row_in_the_store_is_damaged_is_trained_again_after_one_line(sweep, tmp_path):
    out = tmp_path / "runs" / "tiny"
    go(sweep, out)
    before, begun, folder = losses(out), len(ran(out)), RunFolder(out)
    teacher, student = sweep.teachers[0], next(c for c in sweep.students if c.teacher == sweep.teachers[0])
    entry = folder.teacher_entry(teacher)
    for part in ("cells", "curves"):
        flip(entry / part / f"{teacher.id}.parquet")
        folder.row_path(teacher).unlink()
        folder.row_path(student).unlink()
        summary, shown = go(sweep, out)
        assert summary.done == len(sweep.cells) and shown.count("it is trained again") == 1 and str(entry) in shown
        pd.testing.assert_frame_equal(losses(out), before)
    assert sorted(ran(out)[begun:]) == sorted([teacher.name, student.name] * 2)


def work(folder, sweep, group, execution=ONE):
    task = {"group": group.id, "sweep": sweep.name, "execution": to_dict(execution)}
    task |= {"cells": [to_dict(cell) for cell in group.cells], "roles": {c.id: sweep.role(c) for c in group.cells}}
    worker._run_task(folder, task | {"keeps": [cell.id for cell in group.cells if cell.teacher is None]})


@pytest.mark.slow
def test_a_teacher_that_changed_under_right_checksums_is_found_by_its_own_row_and_no_student_is_done(sweep, tmp_path):
    from gaplaw.train import checkpoint

    small = one_teacher(sweep)
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    teacher, students = small.groups()
    work(folder, small, teacher)
    place = folder.teacher_entry(small.teachers[0]) / "checkpoint"
    params, model = checkpoint.load(place)
    params["layers_0"]["feed_forward"]["down"]["kernel"] *= 1.5
    checkpoint.save(place, params, model)
    with pytest.raises(CheckpointError, match="its own row says"):
        work(folder, small, students)
    assert {folder.state(cell).status for cell in students.cells} == {"missing"}


@pytest.mark.slow  # tests/test_cli.py has the same of one student, through the command line
def test_damaged_tokens_and_a_damaged_teacher_end_in_the_table_of_the_unharmed(sweep, tmp_path, capfd):
    small, out = one_teacher(sweep), tmp_path / "runs" / "tiny"
    shown = Console(file=io.StringIO(), width=300)
    assert run(small, out, ONE, shown).done == len(small.cells)
    before = losses(out)
    folder, packed = RunFolder(out), data.load(small.teachers[0].data).folder
    place = folder.teacher_entry(small.teachers[0]) / "checkpoint"
    arrays = max(files(place), key=lambda path: path.stat().st_size)
    flip(arrays)
    flip(packed / "train.npy")
    for cell in small.students:
        folder.row_path(cell).unlink()
    capfd.readouterr()
    assert run(small, out, ONE, shown).done == len(small.cells)
    assert f"{packed / 'train.npy'}: damaged" in capfd.readouterr().err
    told = shown.file.getvalue()
    assert f"{arrays}: damaged" in told and f"teacher {small.teachers[0].id} is trained again" in told
    pd.testing.assert_frame_equal(losses(out), before)


@pytest.mark.slow
def test_a_teacher_from_before_the_checksums_that_is_damaged_is_trained_again(sweep, tmp_path):
    from gaplaw.files import SUMS
    from gaplaw.train import checkpoint

    small, out = one_teacher(sweep), tmp_path / "runs" / "tiny"
    shown = Console(file=io.StringIO(), width=300)
    run(small, out, ONE, shown)
    before, folder = losses(out), RunFolder(out)
    place = folder.teacher_entry(small.teachers[0]) / "checkpoint"
    params, model = checkpoint.load(place)
    params["layers_0"]["feed_forward"]["down"]["kernel"] *= 1.5
    shutil.rmtree(place)
    checkpoint.save(place, params, model)
    (place / SUMS).unlink()
    for cell in small.students:
        folder.row_path(cell).unlink()
    assert run(small, out, ONE, shown).done == len(small.cells)
    assert "its own row says" in shown.file.getvalue()
    pd.testing.assert_frame_equal(losses(out), before)
