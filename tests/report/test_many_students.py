"""Does the page of a sweep of many students and cells stay readable, and name what it does not draw?"""

import json
import re

import pandas as pd
from markupsafe import Markup

from gaplaw.canonical import to_dict
from gaplaw.report.figures import student_loss
from gaplaw.report.page import render
from gaplaw.report.panels import representative
from gaplaw.report.run_folder import Planned, read_run
from gaplaw.report.tables import cells_table
from gaplaw.report.view import view
from tests.report.page import Page
from tests.report.simulated import sweep, write_folder


def test_students_without_a_panel_are_named_and_their_results_stand_on_the_page(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "gaplaw.report.page.picture", lambda draw, text: drawn.setdefault(text, Markup("<p>a figure</p>"))
    )
    folder = write_folder(tmp_path, students=range(8, 44, 4), teachers=(16, 24, 32), seeds=(0, 1), curves=False)
    run = read_run(folder)
    seen = view(run.cells)
    labels = [student.label for student in seen.students]
    text = Page(render(run)).text
    said = re.search(r"show 6 of 9 students, evenly spaced by size. Not drawn: (.*?)\. ", text["loss"])
    assert said, text["loss"]
    absent = said[1].split("; ")
    assert len(absent) == 3 and labels[0] not in absent and labels[-1] not in absent
    for alternative in drawn:
        assert all((label in alternative) == (label not in absent) for label in labels), alternative
    assert all(f"{label}: lowest mean loss" in text["loss"] for label in labels)
    assert all(cell in text["cells"] for cell in run.cells["cell_id"])
    assert len(student_loss(representative(seen)).axes) == 6


def test_a_table_of_cells_has_a_key_for_every_value_and_no_text_for_a_missing_one():
    cells = pd.DataFrame({"cell_id": ["<b>", "c&d"], "student_params": [1500, 3000], "student_loss": [2.5, None]})
    cells = cells.assign(teacher_params=[1e6, 2e6], status=["done", "failed"])
    table = cells_table(view(cells))
    assert table["count"] == 2 and [head for head, _ in table["head"]][:4] == ["cell", "role", "S", "T"]
    rows = table["body"].splitlines()
    assert rows[0].startswith('<tr><th scope="row" data-key="&lt;b&gt;">&lt;b&gt;</th>') and "c&amp;d" in rows[1]
    assert (
        '<td class="n" data-key="1500.0">1.5k</td>' in rows[0] and '<td class="n" data-key="2.5">2.5000</td>' in rows[0]
    )
    assert '<td class="n" data-key=""></td>' in rows[1] and 'data-key="failed">failed</td>' in rows[1]


def test_planned_cells_are_known_by_their_rows_and_the_others_are_named(tmp_path):
    grid = sweep(students=(8, 12), teachers=(16, 24, 32), seeds=(0,))
    write_folder(tmp_path, grid=grid, curves=False)
    (tmp_path / "sweep.json").write_text(json.dumps({"sweep": to_dict(grid)}))
    ids = [cell.id for cell in grid.cells]
    assert read_run(tmp_path).sweep == Planned(name=grid.name, question=grid.question, count=len(ids), missing=())
    (tmp_path / "cells" / f"{ids[-1]}.parquet").unlink()
    assert read_run(tmp_path).sweep.missing == (ids[-1],)
    told = to_dict(grid)
    for cell in told["students"]:
        cell["train"] = dict(reversed(cell["train"].items()))  # the same cell, in other words
    (tmp_path / "sweep.json").write_text(json.dumps({"sweep": told}))
    assert read_run(tmp_path).sweep.missing == (ids[-1],)
    told["students"][-1]["seed"] = -1
    (tmp_path / "sweep.json").write_text(json.dumps({"sweep": told}))
    assert read_run(tmp_path).damaged == ("sweep.json",) and read_run(tmp_path).sweep is None
