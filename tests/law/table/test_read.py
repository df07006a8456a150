"""Any table: three sources give one frame, and what cannot be fitted is refused by row and column."""

import numpy as np
import pandas as pd
import pytest

from gaplaw.errors import TableError
from gaplaw.law.table.read import parse_columns, read_table


@pytest.fixture
def frame():
    rows = [
        {
            "student_params": s,
            "student_tokens": 20.0 * s,
            "teacher_params": t,
            "student_loss": 3 - s / 1e9 + t / 1e11,
            "seed": seed,
        }
        for s in (1e8, 2e8)
        for t in (2e8, 4e8, 8e8)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def sweep_rows(protocol="scratch|soft=1.0,T=1|token-matched"):
    base = {"schema_version": 1, "status": "done", "protocol": protocol, "student_tokens": 1e9, "teacher_tokens": 4e9}
    rows = [base | {"role": "teacher", "student_params": None, "teacher_params": 4e8, "student_loss": 2.0, "seed": 0}]
    for seed in (0, 1):
        for t in (2e8, 4e8):
            rows.append(
                base
                | {
                    "role": "student",
                    "student_params": 1e8,
                    "teacher_params": t,
                    "student_loss": 3 + t / 1e9 + seed,
                    "teacher_loss": 2.5,
                    "seed": seed,
                    "pair": f"100M/{seed}",
                }
            )
        rows.append(base | {"role": "baseline", "student_params": 1e8, "student_loss": 3.5 + seed, "seed": seed})
    rows.append(rows[1] | {"status": "failed", "student_loss": np.nan, "seed": 2})
    return rows


def write_sweep(folder, rows):
    (folder / "cells").mkdir(parents=True)
    for number, row in enumerate(rows):
        pd.DataFrame([row]).to_parquet(folder / "cells" / f"{number}.parquet")
    return folder


def test_frame_csv_and_parquet_agree(frame, tmp_path):
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    tables = [read_table(source) for source in (frame, tmp_path / "t.csv", str(tmp_path / "t.parquet"))]
    for table in tables:
        pd.testing.assert_frame_equal(table.frame, tables[0].frame)
        assert table.coordinate == "teacher_params" and table.protocol is None
    assert frame["student_loss"].tolist() == tables[0].frame["student_loss"].tolist()


def test_columns_are_mapped_and_extra_ones_ignored(frame):
    renamed = frame.rename(columns={"student_params": "NS", "student_tokens": "DS", "student_loss": "LS"}).assign(
        note="x"
    )
    table = read_table(renamed, columns="student_params=NS, student_tokens=DS,student_loss=LS")
    pd.testing.assert_frame_equal(table.frame, read_table(frame).frame)
    assert parse_columns({"student_loss": "LS"}) == {"student_loss": "LS"}


def test_the_mapping_chooses_the_coordinate(frame):
    both = frame.assign(teacher_loss=2.0 + np.arange(len(frame)) / 10, LT=2.0 + np.arange(len(frame)) / 10)
    assert read_table(both).coordinate == "teacher_params"
    assert read_table(both, columns={"teacher_loss": "LT"}).coordinate == "teacher_loss"
    assert read_table(both, coordinate="teacher_loss").coordinate == "teacher_loss"
    assert read_table(both.drop(columns="teacher_params")).coordinate == "teacher_loss"


def test_size_strings(tmp_path):
    pytest.importorskip("gaplaw.spec.sizes")
    (tmp_path / "t.csv").write_text(
        "student_params,teacher_params,student_loss\n190M,1.8B,2.5\n190M,3e9,2.6\n190M,7_000_000_000,2.7\n"
    )
    frame = read_table(tmp_path / "t.csv").frame
    assert frame["student_params"].tolist() == [190e6] * 3
    assert frame["teacher_params"].tolist() == [1.8e9, 3e9, 7e9]
    (tmp_path / "bad.csv").write_text("student_params,teacher_params,student_loss\n190M,1.8B,2.5\n190M,large,2.6\n")
    with pytest.raises(TableError, match=r"row 1 \(line 3\), column teacher_params: 'large'"):
        read_table(tmp_path / "bad.csv")


def test_sweep_folder_keeps_finished_students_and_attaches_baselines(tmp_path):
    table = read_table(write_sweep(tmp_path / "sweep", sweep_rows()))
    assert len(table.frame) == 4
    assert table.protocol == "scratch|soft=1.0,T=1|token-matched"
    assert table.frame["no_teacher_loss"].tolist() == [3.5, 3.5, 4.5, 4.5]
    assert table.frame["group"].tolist() == ["100M/0", "100M/0", "100M/1", "100M/1"]
    assert any("1 failed" in note for note in table.notes)


def test_a_sweeps_own_names_and_pruned_targets_are_understood(frame):
    own = frame.rename(columns={"student_loss": "loss_student_ce_nats"})
    assert read_table(own).frame["student_loss"].tolist() == frame["student_loss"].tolist()
    pruned = frame.assign(
        student_params=frame["student_params"] * (1 + np.arange(len(frame)) / 1e4),
        student_params_target=frame["student_params"].where(frame["student_params"] < 1.5e8),
    )
    sizes = read_table(pruned).frame["student_params"]
    assert (sizes[:6] == 1e8).all() and sizes[6:].tolist() == pruned["student_params"][6:].tolist()


def test_mixed_protocols_are_refused_unless_one_is_chosen(tmp_path):
    rows = sweep_rows() + [row | {"student_loss": 1.0} for row in sweep_rows("prune|soft=0.5,T=1|token-matched")[1:2]]
    folder = write_sweep(tmp_path / "sweep", rows)
    with pytest.raises(TableError, match="column protocol: mixed protocols"):
        read_table(folder)
    assert len(read_table(folder, protocol="prune|soft=0.5,T=1|token-matched").frame) == 1
    with pytest.raises(TableError, match="protocol 'other' is not in the table"):
        read_table(folder, protocol="other")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("student_loss", np.nan, "row 5, column student_loss: missing value"),
        ("student_loss", np.inf, "row 5, column student_loss: inf"),
        ("teacher_params", 0.0, "row 5, column teacher_params: 0 must be positive"),
        ("student_params", -1.0, "row 5, column student_params: -1 must be positive"),
        ("student_tokens", np.nan, "row 5, column student_tokens: missing value"),
        ("seed", np.nan, "row 5, column seed: missing value"),
    ],
)
def test_a_bad_value_is_named(frame, column, value, message):
    frame[column] = frame[column].astype(float)
    frame.loc[5, column] = value
    with pytest.raises(TableError, match=message):
        read_table(frame)


def test_missing_columns_duplicates_and_broken_files(frame, tmp_path):
    with pytest.raises(TableError, match="column student_loss is missing"):
        read_table(frame.drop(columns="student_loss"))
    with pytest.raises(TableError, match="no teacher column"):
        read_table(frame.drop(columns="teacher_params"))
    with pytest.raises(TableError, match="column 'NS'"):
        read_table(frame, columns={"student_params": "NS"})
    with pytest.raises(TableError, match="not a canonical name"):
        read_table(frame, columns={"params": "student_params"})
    with pytest.raises(TableError, match="row 12 duplicates row 3"):
        read_table(pd.concat([frame, frame.iloc[[3]]], ignore_index=True))
    with pytest.raises(TableError, match="replicates need a seed column"):
        read_table(frame.drop(columns="seed"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(TableError, match="broken.parquet: not a readable parquet file"):
        read_table(tmp_path / "broken.parquet")
    (tmp_path / "broken.csv").write_bytes(b'a,b\n"1,2\n3,4,5,6\n\xff\xfe')
    with pytest.raises(TableError, match=r"broken\.csv"):
        read_table(tmp_path / "broken.csv")
    with pytest.raises(TableError, match="no such file"):
        read_table(tmp_path / "absent.csv")


def test_two_teachers_of_one_loss_are_replicates_but_a_repeated_row_is_a_mistake(frame):
    loss = frame.drop(columns=["teacher_params", "seed"]).assign(teacher_loss=2.0 + (np.arange(len(frame)) // 2) / 10)
    loss["student_loss"] += np.arange(len(loss)) / 1000
    assert any("replicates" in note for note in read_table(loss).notes)
    with pytest.raises(TableError, match="row 12 duplicates row 0"):
        read_table(pd.concat([loss, loss.iloc[[0]]], ignore_index=True))


def test_higher_is_better_keeps_differences(frame):
    accuracy = frame.assign(student_loss=0.5 + np.arange(len(frame)) / 100)
    table = read_table(accuracy, higher_is_better=True)
    assert np.diff(table.frame["student_loss"]) == pytest.approx(-0.01)
    assert any("1 - score" in note for note in table.notes)


def test_a_question_needs_no_losses_and_keeps_every_row_in_order(frame):
    question = frame.drop(columns=["student_loss", "seed"])
    table = read_table(question, for_prediction=True)
    assert table.frame["teacher_params"].tolist() == question["teacher_params"].tolist()


def test_a_question_may_use_the_fits_own_mapping(frame):
    asked = frame.rename(columns={"student_params": "NS"}).drop(columns=["student_loss", "seed"])
    mapping = "student_params=NS,student_loss=LS,seed=run"
    assert (
        read_table(asked, columns=mapping, for_prediction=True).frame["student_params"].tolist() == asked["NS"].tolist()
    )
    with pytest.raises(TableError, match="column 'DS'"):
        read_table(asked, columns=mapping + ",student_tokens=DS", for_prediction=True)


def test_one_content_hash_makes_the_paths_of_machines_equal(frame):
    """The same corpus read from two places is one corpus; without the hash, or with two, the places count."""
    places = ["folder:texts", "folder:/data/texts"] * (len(frame) // 2)
    same = frame.assign(data_source=places, data_tokenizer=["file:t.json", "file:/t.json"] * (len(frame) // 2))
    assert len(read_table(same.assign(data_manifest="abc")).frame) == len(frame)
    for manifests in (None, ["abc", None] * (len(frame) // 2), ["abc", "abd"] * (len(frame) // 2)):
        with pytest.raises(TableError, match="column data_source: mixes 'folder:texts' and 'folder:/data/texts'"):
            read_table(same.assign(data_manifest=manifests))
