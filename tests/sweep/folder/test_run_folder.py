"""A run folder belongs to one sweep, may grow, and never mixes science; damaged rows count as missing."""

import os
from dataclasses import replace

import pytest

from gaplaw import results
from gaplaw.errors import SweepError
from gaplaw.sweep import resolve
from gaplaw.sweep.folder.run_folder import RunFolder
from tests.sweep.sweeps import QUICK, texts, tiny_sweep


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "runs" / "tiny")
    made.make()
    return made


def done(folder, sweep, cell):
    row = results.describe_cell(cell, sweep.role(cell)) | {"sweep": sweep.name, "status": "done"}
    results.write_cell(folder.out, row, [{"tokens": 1}], QUICK)


def test_the_recorded_sweep_is_the_same_value_again(folder, sweep):
    assert folder.adopt(sweep) is None
    assert folder.sweep() == sweep
    assert folder.adopt(sweep) is None


def test_a_sweep_may_grow_and_shrink_but_rows_are_never_forgotten(folder, source, sweep):
    folder.adopt(sweep)
    more = resolve(tiny_sweep(source, seeds=(0, 1, 2)))
    assert "3 cells added" in folder.adopt(more)
    assert "3 cells of the folder" in folder.adopt(sweep)
    assert {cell.id for cell in folder.sweep().cells} == {cell.id for cell in more.cells}


def test_another_name_science_corpus_or_unrelated_cells_are_refused_by_name(folder, source, sweep, tmp_path):
    folder.adopt(sweep)
    with pytest.raises(SweepError, match="holds the sweep 'tiny', not 'other'"):
        folder.adopt(replace(sweep, name="other"))
    with pytest.raises(SweepError, match="different science .*train.tokens was 1536, is now 3072"):
        folder.adopt(resolve(tiny_sweep(source, student_tokens=3072)))
    with pytest.raises(SweepError, match="no cell in common"):
        folder.adopt(resolve(tiny_sweep(source, teachers=(10, 12), students=(14,))))
    other = texts(tmp_path / "other")
    (other / "0.txt").write_text("something else " * 300)
    elsewhere = resolve(tiny_sweep(f"folder:{other}", teachers=(10,), students=(14,)))
    mixed = replace(sweep, teachers=sweep.teachers + elsewhere.teachers)
    with pytest.raises(SweepError, match="another corpus"):
        folder.adopt(mixed)
    assert folder.sweep() == sweep


def test_states_are_read_from_rows_and_a_damaged_row_is_to_be_redone(folder, sweep):
    good, damaged, foreign, failed = sweep.cells[:4]
    for cell in (good, damaged):
        done(folder, sweep, cell)
    folder.row_path(damaged).write_bytes(b"PAR1 torn")
    os.link(folder.row_path(good), folder.row_path(foreign))
    folder.write_failure(sweep, failed, "worker killed", QUICK)
    assert [folder.state(cell).status for cell in sweep.cells[:5]] == [
        "done",
        "corrupt",
        "corrupt",
        "failed",
        "missing",
    ]
    assert folder.state(failed).error == "worker killed"
    assert str(folder.row_path(damaged)) in folder.state(damaged).error


def test_a_teacher_of_another_sweep_is_found_by_science_under_any_name(folder, sweep):
    teacher = sweep.teachers[0]
    assert folder.teacher_entry(teacher) is None
    under_other_name = replace(teacher, name="big")
    entry = folder.store / "teachers" / under_other_name.id
    row = results.describe_cell(under_other_name, "teacher") | {
        "sweep": "older",
        "status": "done",
        "loss_student_ce_nats": 1.5,
    }
    results.write_cell(entry, row, [{"tokens": 7, "training_loss_nats": 2.0}], QUICK)
    assert folder.teacher_entry(teacher) is None  # no checkpoint yet
    (entry / "checkpoint").mkdir()
    assert folder.teacher_entry(teacher) == entry
    folder.reuse_teacher(sweep, teacher, entry)
    read = results.read(folder.out).iloc[0]
    assert (read.cell_id, read.sweep, read.loss_student_ce_nats) == (teacher.id, "tiny", 1.5)
    assert results.read(folder.out, "curves").cell_id.tolist() == [teacher.id]


def test_a_claim_key_does_not_depend_on_how_many_cells_are_left(folder, sweep):
    groups = sweep.groups()
    keys = [folder.claim_of(group, keeps=False)[1] for group in groups]
    assert len(set(keys)) == len(groups)
    for group, key in zip(groups, keys, strict=True):
        assert folder.claim_of(replace(group, cells=group.cells[-1:]), keeps=False)[1] == key
    assert folder.claim_of(groups[0], keeps=True)[0] == folder.store / "locks"


def test_a_folder_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(SweepError, match="cannot be written") as caught:
        RunFolder(tmp_path / "runs" / "tiny").make()
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_sweep_or_with_a_damaged_one_says_so(folder):
    with pytest.raises(SweepError, match="holds no sweep"):
        folder.sweep()
    (folder.out / "sweep.json").write_text('{"sweep": 1')
    with pytest.raises(SweepError, match="not a readable sweep"):
        folder.sweep()
