"""Rows that another program has rewritten are cast to the schema, value by value, or refused by file and column."""

import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gaplaw import results
from gaplaw.errors import TableError
from gaplaw.rows import write_many
from gaplaw.spec import Execution
from tests import toy


@pytest.fixture
def folder(tmp_path):
    """Rows with and without a teacher, a domain and an error: nulls in every kind of column."""
    sweep = toy.sweep()
    for number, cell in enumerate(sweep.cells):
        row = results.describe_cell(cell, sweep.role(cell)) | {"sweep": sweep.name, "git_dirty": bool(number % 2)}
        if number == 3:
            row |= {"status": "failed", "error": "nan", "git_dirty": None}
        else:
            row |= {"status": "done", "loss_student_ce_nats": 2.0 + number / 100}
        row |= {"domain_code_loss_nats": 1.5} if number % 2 else {}
        results.write_cell(tmp_path, row, [{"tokens": 128, "training_loss_nats": 2.5}], Execution())
    return tmp_path


def joined_one_by_one(folder, table="cells"):
    """The table by the plainest way: one file after the other, from its columns, no batches."""
    parts = [pq.read_table(path) for path in results.row_files(folder, table)]
    mapper = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get
    return pa.concat_tables(parts, promote_options="default").to_pandas(types_mapper=mapper)


@pytest.mark.parametrize("table", results.TABLES)
@pytest.mark.parametrize("batch", [1, 3, 256])
def test_batches_change_nothing(folder, table, batch, monkeypatch):
    monkeypatch.setattr("gaplaw.rows._BATCH_FILES", batch)
    pd.testing.assert_frame_equal(results.read(folder, table), joined_one_by_one(folder, table))


def write(path, rows):
    """As a program does that knows nothing of our checksum; pandas' own metadata stays."""
    kept = {key: value for key, value in (rows.schema.metadata or {}).items() if key == b"pandas"}
    pq.write_table(rows.replace_schema_metadata(kept), path)


def rewritten(path, rewrite):
    write(path, rewrite(pq.read_table(path)))


def retyped(name, kind):
    """Change a column's type, as an arrow writer would."""
    return lambda rows: rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(kind))


REWRITERS = {
    "pandas": lambda rows: pa.Table.from_pandas(rows.to_pandas()),
    "pandas with nullable types": lambda rows: pa.Table.from_pandas(rows.to_pandas().convert_dtypes()),
    "pandas with an index": lambda rows: pa.Table.from_pandas(rows.to_pandas().set_index("cell_id")),
    "pandas with row labels": lambda rows: pa.Table.from_pandas(rows.to_pandas().set_index(pd.Index(["x"]))),
    "pandas with categories": lambda rows: pa.Table.from_pandas(rows.to_pandas().astype({"status": "category"})),
    "large strings": lambda rows: rows.cast(
        pa.schema([(f.name, pa.large_string() if f.type == pa.string() else f.type) for f in rows.schema])
    ),
    "numbers as reals": lambda rows: rows.cast(
        pa.schema([(f.name, pa.float64() if f.type in (pa.int64(), pa.bool_()) else f.type) for f in rows.schema])
    ),
    "missing as NaN": lambda rows: rows.set_column(
        rows.schema.get_field_index("student_params_target"), "student_params_target", pa.array([np.nan])
    ),
    "small types": lambda rows: retyped("seed", pa.int8())(retyped("steps", pa.uint16())(rows)),
    "null columns": lambda rows: pa.table(
        {name: pa.nulls(len(rows)) if rows[name].null_count else rows[name] for name in rows.schema.names}
    ),
}


@pytest.mark.parametrize("rewrite", REWRITERS.values(), ids=REWRITERS)
def test_a_rewritten_file_gives_the_same_frame(folder, rewrite):
    wanted = results.read(folder)
    for path in results.row_files(folder)[::2]:
        rewritten(path, rewrite)
    pd.testing.assert_frame_equal(results.read(folder)[wanted.columns], wanted)


def test_whole_folders_in_one_file_of_pandas(folder):
    wanted = results.read(folder)
    for path in results.row_files(folder):
        path.unlink()
    wanted.to_parquet(folder / "cells" / "all.parquet")
    pd.testing.assert_frame_equal(results.read(folder), wanted)


def test_the_quick_copy_counts_only_while_the_file_is_whole(folder, monkeypatch):
    wanted, path = results.read(folder), results.row_files(folder)[0]
    with monkeypatch.context() as patch:
        patch.setattr(pq, "ParquetFile", None)  # of files that gaplaw wrote, no column needs to be opened
        pd.testing.assert_frame_equal(results.read(folder), wanted)
    rows = pq.read_table(path)
    changed = rows.set_column(rows.schema.get_field_index("seed"), "seed", pa.array([77]))
    write(path, changed)
    assert 77 in set(results.read(folder)["seed"])
    pq.write_table(changed, path)  # with the metadata, hence the old copy and the old checksum
    assert 77 in set(results.read(folder)["seed"])
    with pq.ParquetWriter(path, changed.schema, store_schema=False) as writer:
        writer.write_table(changed)
        writer.add_key_value_metadata(changed.schema.metadata)  # the same, but nothing tells it from a damaged file
    with pytest.raises(TableError, match=f"{path.name}: .*checksum does not fit: damaged, or rewritten"):
        results.read(folder)


@pytest.mark.parametrize("table", results.TABLES)
def test_a_file_rewritten_with_our_metadata_gives_the_same_frame(folder, table):
    wanted, paths = results.read(folder, table), results.row_files(folder, table)
    for path in paths[::2]:
        pq.write_table(pq.read_table(path), path)
    pd.testing.assert_frame_equal(results.read(folder, table), wanted)
    whole = pa.concat_tables([pq.read_table(path) for path in paths], promote_options="default")
    for path in paths:
        path.unlink()
    pq.write_table(whole, folder / table / "all.parquet")  # keeps the metadata, and so the checksum, of the first
    pd.testing.assert_frame_equal(results.read(folder, table), wanted)


@pytest.mark.parametrize("writer", ["a cell's own file", "a file of many cells"])
def test_no_changed_bit_makes_a_file_look_rewritten(folder, writer):
    path = results.row_files(folder)[0]
    if writer == "a file of many cells":
        path = folder / "many.parquet"
        write_many(path, pq.read_table(results.row_files(folder)[0]))
    whole, chance = path.read_bytes(), random.Random(writer)
    note = whole.find(b"ARROW:schema")
    for at in [*range(max(note, 0), max(note, 0) + 40), *(chance.randrange(len(whole)) for _ in range(300))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :])
        with pytest.raises(TableError, match="not a readable results file"):
            results.read_rows(path)


def test_text_that_looks_like_a_mark_is_only_text(tmp_path):
    error = "gaplaw-rows:9:[] gaplaw-sha256:" + "0" * 64 + ' \\u002d "quoted" \u2713'
    path = results.write_rows(tmp_path, "cells", "a", [{"error": error, "status": "failed"}])
    assert results.first_row(path)["error"] == error == results.read(tmp_path)["error"][0]
    assert pq.read_table(path)["error"][0].as_py() == error


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 5e-324, 0.1, -0.0, None])
def test_numbers_survive_to_the_last_bit(tmp_path, value):
    path = results.write_rows(tmp_path, "cells", "a", [{"loss_student_ce_nats": value, "batch_seed": 2**63 - 1}])
    row, plain = results.first_row(path), pq.read_table(path).to_pylist()[0]
    assert repr(row["loss_student_ce_nats"]) == repr(plain["loss_student_ce_nats"]) == repr(value)
    assert row["batch_seed"] == plain["batch_seed"] == 2**63 - 1


WRONG = {
    "seed": (pa.array([0.5]), pa.array(["0"]), pa.array([1e300]), pa.array([[1]])),
    "status": (pa.array([1]), pa.array([b"done"]), pa.array([["done"]])),
    "loss_student_ce_nats": (pa.array(["2.0"]), pa.array([True]), pa.array([2**60 + 1])),
    "git_dirty": (pa.array([2]), pa.array(["no"])),
    "domain_code_loss_nats": (pa.array(["low"]),),
    "schema_version": (pa.array(["one"]), pa.array([[1]])),
}


@pytest.mark.parametrize(("name", "values"), [(n, v) for n, kinds in WRONG.items() for v in kinds], ids=str)
def test_a_value_that_a_cast_would_change_is_refused_by_file_and_column(folder, name, values):
    path = next(p for p in results.row_files(folder) if name in pq.read_schema(p).names)
    rows = pq.read_table(path)
    write(path, rows.set_column(rows.schema.get_field_index(name), name, values))
    with pytest.raises(TableError) as refusal:
        results.read(folder)
    assert path.name in str(refusal.value) and "\n" not in str(refusal.value)
    assert name in str(refusal.value) or name == "schema_version"


def test_columns_of_others_stay_unless_files_disagree(folder):
    first, second = results.row_files(folder)[:2]
    rewritten(first, lambda rows: rows.append_column("note", pa.array(["mine"])))
    assert results.read(folder)["note"].notna().sum() == 1
    rewritten(second, lambda rows: rows.append_column("note", pa.array([[1]])))
    with pytest.raises(TableError, match="column note"):
        results.read(folder)


def test_random_mixes_of_writers_give_the_same_frame(folder):
    wanted, writers, draw = results.read(folder), list(REWRITERS.values()), np.random.default_rng(0)
    whole = {path: pq.read_table(path) for path in results.row_files(folder)}
    for _ in range(5):
        for path, rows in whole.items():
            write(path, writers[draw.integers(len(writers))](rows))
        pd.testing.assert_frame_equal(results.read(folder)[wanted.columns], wanted)
