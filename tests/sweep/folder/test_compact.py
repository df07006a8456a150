"""Compacting changes no frame, no status and no run, wherever it is stopped."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest

from gaplaw import results, rows
from gaplaw.cli import main
from gaplaw.errors import GaplawError, SweepError, TableError
from gaplaw.spec import Execution
from gaplaw.sweep.folder import compact as compacting
from gaplaw.sweep.folder.compact import FINISHED, compact
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.folder.states import CellState
from gaplaw.sweep.running.status import status_of
from tests import toy
from tests.flips import flip

SWEEP = toy.sweep()


def write(out, number, *, status="done", loss=2.0, domains=()):
    cell = SWEEP.cells[number]
    row = results.describe_cell(cell, SWEEP.role(cell)) | {"sweep": SWEEP.name, "status": status}
    row |= {"loss_student_ce_nats": loss} | {f"domain_{name}_loss_nats": loss + 1 for name in domains}
    row |= {"error": "nan"} if status == "failed" else {}
    curve = [{"tokens": 64 * at, "training_loss_nats": loss + 1 / at} for at in (1, 2)]
    results.write_cell(out, row, curve, Execution())


def random_folder(out, seed):
    """Some cells done, some failed, some missing, domains in some rows."""
    RunFolder(out).adopt(SWEEP)
    draw = np.random.default_rng(seed)
    for number in range(len(SWEEP.cells)):
        kind = draw.choice(["done", "done", "failed", "missing"]) if number else "done"
        if kind != "missing":
            write(out, number, status=kind, loss=float(draw.normal(2, 1)), domains=["code"] * int(draw.integers(2)))
    return out


def frames(out):
    """Both tables, in an order that does not depend on file names."""
    found = [results.read(out, table) for table in results.TABLES]
    keys = (["cell_id"], ["cell_id", "tokens"])
    return [f[sorted(f)].sort_values(key).reset_index(drop=True) for f, key in zip(found, keys, strict=True)]


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("seed", range(4))
def test_reading_and_status_are_as_before_and_twice_is_once(tmp_path, seed):
    out = random_folder(tmp_path / "run", seed)
    wanted, status = frames(out), status_of(out)
    first = compact(out)
    done = {cell.id for cell in SWEEP.cells if RunFolder(out).state(cell).status == "done"}
    assert first.cells == len(done) == status.done and first.files_removed == 2 * len(done)
    assert not done & {path.stem for path in results.row_files(out)}
    same(frames(out), wanted)
    assert status_of(out) == status
    assert compact(out) == dataclasses.replace(first, files_removed=0)
    same(frames(out), wanted)


def test_a_value_that_is_no_number_and_an_empty_curve_are_no_obstacle(tmp_path):
    out = random_folder(tmp_path / "run", 0)
    write(out, 0, loss=float("nan"))
    results.write_rows(out, "curves", SWEEP.cells[1].id, [])
    wanted = frames(out)
    compact(out)
    same(frames(out), wanted)
    assert SWEEP.cells[1].id in {path.stem for path in results.row_files(out, "curves")}


class Stopped(Exception):
    pass


@pytest.mark.parametrize("step", range(8))
def test_a_stop_between_any_two_steps_loses_and_repeats_nothing(tmp_path, monkeypatch, step):
    out, steps = random_folder(tmp_path / "run", 1), iter(range(100))
    wanted, status = frames(out), status_of(out)

    def stops(action):
        def run(*args, **kwargs):
            if next(steps) == step:
                raise Stopped
            return action(*args, **kwargs)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(rows, "write_many", stops(rows.write_many))
        patch.setattr(compacting.Path, "unlink", stops(compacting.Path.unlink))
        with pytest.raises(Stopped):
            compact(out)
    same(frames(out), wanted)
    assert status_of(out) == status
    compact(out)
    same(frames(out), wanted)
    rest = pyarrow.dataset.dataset(out / "cells", format="parquet").to_table(columns=["cell_id"])["cell_id"].to_pylist()
    assert len(rest) == len(set(rest)) == len(wanted[0])


def test_a_cell_that_is_run_again_counts_by_its_own_file(tmp_path):
    out = random_folder(tmp_path / "run", 0)
    compact(out)
    write(out, 0, loss=9.0)
    frame = results.read(out)
    assert frame[frame["cell_id"] == SWEEP.cells[0].id]["loss_student_ce_nats"].tolist() == [9.0]
    write(out, 0, status="failed")
    assert RunFolder(out).state(SWEEP.cells[0]).status == "failed"
    compact(out)
    assert RunFolder(out).state(SWEEP.cells[0]).status == "failed"
    table = pyarrow.dataset.dataset(out / "cells" / FINISHED, format="parquet").to_table()
    assert SWEEP.cells[0].id not in table["cell_id"].to_pylist()


def test_a_row_that_is_written_meanwhile_stays(tmp_path, monkeypatch):
    out, real = random_folder(tmp_path / "run", 0), rows.write_many

    def written_meanwhile(path, whole):
        write(out, 0, loss=9.0)
        real(path, whole)

    monkeypatch.setattr(rows, "write_many", written_meanwhile)
    compact(out)
    frame = results.read(out)
    assert frame[frame["cell_id"] == SWEEP.cells[0].id]["loss_student_ce_nats"].tolist() == [9.0]


def test_a_damaged_file_of_rows_is_named_and_its_cells_are_run_again(tmp_path):
    out = random_folder(tmp_path / "run", 0)
    compact(out)
    path = out / "cells" / FINISHED
    flip(path)
    with pytest.raises(TableError, match=FINISHED):
        results.read(out)
    assert RunFolder(out).state(SWEEP.cells[0]).status == "missing"
    (line,) = status_of(out).damaged
    assert f"warning: {path}: damaged" in status_of(out).text() and "run again" in line


def test_a_damaged_file_of_curves_is_named_and_its_cells_are_run_again_when_it_is_deleted(tmp_path):
    out = random_folder(tmp_path / "run", 0)
    compact(out)
    path, folder = out / "curves" / FINISHED, RunFolder(out)
    flip(path)
    (line,) = status_of(out).damaged
    assert line.startswith(f"{path}: damaged")
    assert status_of(out).done and folder.state_with_curve(SWEEP.cells[0]).status == "done"
    path.unlink()
    assert status_of(out).damaged == () and folder.state_with_curve(SWEEP.cells[0]).status == "corrupt"


def test_no_row_is_dropped_for_want_of_its_curve(tmp_path):
    out = random_folder(tmp_path / "run", 0)
    compact(out)
    wanted = frames(out)[0]
    (out / "curves" / FINISHED).unlink()
    write(out, 0)  # one that has a curve
    compact(out)
    assert frames(out)[0]["cell_id"].tolist() == wanted["cell_id"].tolist()


def test_states_of_many_cells_are_those_of_each(tmp_path):
    out = random_folder(tmp_path / "run", 1)
    folder = RunFolder(out)

    def same_as_each():
        return folder.states(SWEEP.cells) == {cell.id: folder.state(cell) for cell in SWEEP.cells}

    assert same_as_each() and RunFolder(tmp_path / "nothing").states(SWEEP.cells[:1]) == {
        SWEEP.cells[0].id: CellState(status="missing")
    }
    flip(results.row_files(out)[1])
    assert same_as_each() and "corrupt" in {state.status for state in folder.states(SWEEP.cells).values()}
    results.row_files(out)[1].unlink()
    compact(out)
    write(out, 0, status="failed")
    assert same_as_each() and {state.status for state in folder.states(SWEEP.cells).values()} >= {"done", "failed"}


def test_one_dataset_for_duckdb(tmp_path):
    duckdb, out = pytest.importorskip("duckdb"), random_folder(tmp_path / "run", 2)
    wanted = len(results.read(out))
    compact(out)
    query = (
        f"select count(*), count(distinct cell_id) from read_parquet('{out}/cells/*.parquet', union_by_name => true)"
    )
    assert duckdb.sql(query).fetchall() == [(wanted, wanted)]


def test_the_command_and_its_refusals(tmp_path, capsys):
    out = random_folder(tmp_path / "run", 0)
    assert main(["compact", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == status_of(out).done
    assert main(["compact", str(tmp_path)]) == 2 and "holds no cells" in capsys.readouterr().err
    with pytest.raises(SweepError, match="folders only"):
        compact("s3://bucket/runs/a")
    with compacting._alone(out / "cells"), pytest.raises(GaplawError, match="another compact"):
        compact(out)
