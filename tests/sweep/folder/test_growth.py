"""What a run folder says of itself: a changed sweep.json or forecast.json is named, and rows of other science are
refused.
"""

import json
import random

import pytest

from gaplaw import results
from gaplaw.canonical import to_dict
from gaplaw.errors import SweepError
from gaplaw.files import read_json, write_json
from gaplaw.sweep.folder.compact import compact
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning.make_plan import FORECAST, foretell
from tests.flips import flipped
from tests.sweep.sweeps import QUICK


@pytest.fixture
def folder(sweep, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    folder.adopt(sweep)
    return folder


def test_any_change_in_the_sweep_of_a_folder_is_refused_by_name(folder, sweep):
    path = folder.out / "sweep.json"
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(100):
        path.write_bytes(flipped(whole, chance))
        try:
            assert folder.sweep() == sweep  # the name of the checksum itself was hit
        except SweepError as refusal:
            assert str(path) in str(refusal) and "\n" not in str(refusal)
    path.write_bytes(whole.replace(b"Does it run?", b"Does it ruin"))
    for ask in (folder.sweep, lambda: folder.adopt(sweep)):
        with pytest.raises(SweepError, match="sweep.json: not a readable sweep .its checksum does not fit.; delete it"):
            ask()


def test_a_sweep_of_before_the_checksums_is_read(folder, sweep):
    write_json(folder.out / "sweep.json", {"gaplaw": "0.1.0", "sweep": to_dict(sweep)})
    assert folder.sweep() == sweep and folder.adopt(sweep) is None


def test_a_changed_forecast_is_made_anew_after_one_line_and_one_without_a_checksum_is_kept(folder, sweep):
    path = folder.out / FORECAST
    assert foretell(sweep, QUICK, folder) is None
    made = read_json(path)
    whole = path.read_bytes()
    for damage in (whole.replace(b'"seed": 0', b'"seed": 7', 1), b"[]", b'{"cells": [3]}', b"{"):
        path.write_bytes(damage)
        note = foretell(sweep, QUICK, folder)
        assert str(path) in note and "damaged" in note and "\n" not in note
        assert read_json(path) == made
    path.write_text(json.dumps({"target": "v5e:2x2", "cells": made["cells"]}))
    assert foretell(sweep, QUICK, folder) is None and read_json(path)["target"] == "v5e:2x2"


def test_rows_of_other_science_under_the_name_of_a_cell_are_refused_compacted_or_not(folder, sweep):
    cell = sweep.students[0]
    row = results.describe_cell(cell, "student") | {"status": "done", "cell_id": f"{cell.name}-012abc"}
    results.write_cell(folder.out, row | {"fingerprint": "012abc012abc"}, [{"tokens": 1}], QUICK)
    for shrink in (lambda: None, lambda: compact(folder.out)):
        shrink()
        for again in (sweep, folder.sweep()):
            with pytest.raises(SweepError, match=f"rows of other science .*{cell.name}-012abc.*remove them") as refusal:
                folder.adopt(again)
            assert "\n" not in str(refusal.value)
    (folder.out / "cells" / "finished.parquet").unlink()
    results.write_cell(folder.out, row | {"cell_id": "other-012abc"}, [{"tokens": 1}], QUICK)
    assert folder.adopt(sweep) is None  # a cell of an earlier, larger sweep
