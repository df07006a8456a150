"""Rows survive writing, many writers and damage; a folder is one dataset for pandas, pyarrow and DuckDB."""

import json
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from gaplaw import columns, results
from gaplaw.canonical import from_dict
from gaplaw.errors import TableError
from gaplaw.spec import Cell, Execution
from gaplaw.spec.sizes import count_params
from tests import toy


@pytest.fixture
def folder(tmp_path):
    """A folder with every cell of the toy sweep, one of them failed, students carrying a domain column."""
    sweep = toy.sweep()
    for number, cell in enumerate(sweep.cells):
        row = results.describe_cell(cell, sweep.role(cell)) | {"sweep": sweep.name}
        if number == 3:
            row |= {"status": "failed", "error": "training loss became nan at step 7"}
        else:
            row |= {"status": "done", "loss_student_ce_nats": 2.0 + number / 100, "domain_code_loss_nats": 1.5}
        results.write_cell(tmp_path, row, [{"tokens": 128, "training_loss_nats": 2.5}], Execution())
    return tmp_path


def test_rows_come_back_with_their_types(folder):
    frame, sweep = results.read(folder), toy.sweep()
    assert len(frame) == len(sweep.cells)
    assert frame["student_params"].dtype == pd.Int64Dtype() and frame["loss_student_ce_nats"].dtype == np.float64
    failed = frame[frame["status"] == "failed"].iloc[0]
    assert pd.isna(failed["loss_student_ce_nats"]) and pd.isna(failed["domain_code_loss_nats"])
    teachers = frame[frame["role"] == "teacher"]
    assert teachers["teacher_params"].isna().all() and len(teachers) == 2
    by_id = {cell.id: cell for cell in sweep.cells}
    for row in frame.to_dict("records"):
        cell = from_dict(Cell, json.loads(row["spec"]))
        assert cell == by_id[row["cell_id"]] and cell.fingerprint == row["fingerprint"]
        assert row["student_training_flops"] == 6 * count_params(cell.model).active * cell.steps * cell.batch_tokens


def test_curves_join_the_cells(folder):
    assert set(results.read(folder, "curves")["cell_id"]) == set(results.read(folder)["cell_id"])


def test_one_dataset_for_pyarrow_and_duckdb(folder):
    import pyarrow.dataset

    cells = folder / "cells"
    assert pyarrow.dataset.dataset(cells, format="parquet").count_rows() == len(toy.sweep().cells)
    duckdb = pytest.importorskip("duckdb")
    query = f"select count(*), max(loss_student_ce_nats) from read_parquet('{cells}/*.parquet', union_by_name => true)"
    rows, worst = duckdb.sql(query).fetchall()[0]
    assert rows == len(toy.sweep().cells) and worst == results.read(folder)["loss_student_ce_nats"].max()


def test_unknown_columns_are_refused(tmp_path):
    with pytest.raises(TableError, match="'loss' is not in the schema"):
        results.write_rows(tmp_path, "cells", "a", [{"loss": 1.0}])


def test_a_corrupt_file_is_named(folder):
    victim = results.row_files(folder)[2]
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.raises(TableError, match=victim.name):
        results.read(folder)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(TableError, match="holds no cells"):
        results.read(tmp_path)


def test_many_processes_write_one_folder(tmp_path):
    program = (
        "import sys; from gaplaw.results import write_rows\n"
        "for i in range(20): write_rows(sys.argv[1], 'cells', f'{sys.argv[2]}-{i}', [{'status': 'done'}])"
    )
    workers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(n)]) for n in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    assert len(results.read(tmp_path)) == 80


# ---- domains


def random_labels(number):
    draw = random.Random(0)
    letters = ["a", "b", "c", "A", "0", "1", "_", "-", " ", "+", "#", ".", "é", "İ", "ß", "漢", "🙂", "\n", "\ud800"]
    return {"".join(draw.choices(letters, k=draw.randint(0, 5))) for _ in range(number)}


def test_domains_never_share_a_column():
    labels = random_labels(20_000) | {
        "C",
        "C++",
        "c#",
        "c",
        "",
        " ",
        "_",
        "__",
        "0",
        "00",
        "漢",
        "字",
        "x" * 500,
        "x" * 499,
    }
    labels |= {
        columns.domain_column(label).removeprefix("domain_").removesuffix("_loss_nats") for label in list(labels)[:2000]
    }
    names = {label: columns.domain_column(label) for label in labels}
    assert len(set(names.values())) == len(labels)
    assert all(columns.DOMAIN_COLUMN.fullmatch(name) for name in names.values())


def test_a_plain_label_is_its_columns_name():
    for label in ("code", "docs", "a_b", "0", "c4", "x1_y2", "_"):
        assert columns.domain_column(label) == f"domain_{label}_loss_nats"
    assert columns.domain_column("C++") == "domain_c__f1deb75f_loss_nats"
    assert columns.domain_column("漢字") == "domain_label__c6d29771_loss_nats"
