"""Is the page self-contained, accessible and honest: with a law, with a refused one, with none, and with nothing at
all?
"""

import dataclasses
import json
import re
import shutil

import pandas as pd
import pytest
from markupsafe import Markup

from gaplaw.canonical import to_dict
from gaplaw.errors import TableError
from gaplaw.files import write_checked_json
from gaplaw.law.flags import Flag
from gaplaw.report.advice import advice
from gaplaw.report.figures import student_loss
from gaplaw.report.page import render, write_report
from gaplaw.report.run_folder import read_run
from gaplaw.report.style import svg
from gaplaw.report.summary import headline
from gaplaw.report.tables import cell_text
from gaplaw.report.view import view
from tests.report.known import REFUSAL, known_law
from tests.report.page import Page
from tests.report.simulated import sweep, write_folder

MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def run(run_folder):
    return read_run(run_folder)


@pytest.fixture
def words_only(monkeypatch):
    """Leave the figures out: drawing takes seconds, and these tests read words."""
    monkeypatch.setattr("gaplaw.report.page.picture", lambda draw, text: Markup("<p>a figure</p>"))


@pytest.fixture(scope="module")
def full(run):
    law = known_law(view(run.cells))
    teachers = [{"name": "small", "params": 2e4}, {"name": "medium", "params": 8e4}, {"name": "large", "params": 3e5}]
    return render(run, law, law.choose(student_params=9000, teachers=teachers))


def test_the_page_is_one_well_formed_file_that_asks_nothing_of_the_network(full):
    page = Page(full)
    assert page.open == [] and len(set(page.ids)) == len(page.ids)
    assert all(address.startswith(("data:image/svg+xml;base64,", "#")) for address in page.addresses)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(full.encode()) < MOST_BYTES
    assert all(word not in full for word in ("<script src", "@import", "url("))


def test_the_page_can_be_read_without_seeing_it(full):
    page = Page(full)
    assert len(page.images) == 8 and all(len(image["alt"]) > 30 for image in page.images)
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    steps = zip(page.headings, page.headings[1:], strict=False)
    assert all(after - before <= 1 for before, after in steps)
    assert '<html lang="en">' in full and 'name="viewport"' in full


def test_the_headline_names_the_teachers_and_the_choice(full):
    head = Page(full).text["header"]
    assert "law identified" in head and "4 of 4 students" in head
    assert "1.3k student learns best from a teacher of 12k (9×)" in head
    assert "For a 9k student, of 3 teachers, take medium" in head
    assert "102 of 103" in head


def test_tables_hold_the_law_the_choice_the_cells_and_the_provenance(full, run):
    text = Page(full).text
    assert "not distinguishable" in text["law"] and "0.0456" in text["law"] and "70\xa0%" in text["law"]
    assert "7 to ∞" in text["law"] and "T* = k · S<sup>p</sup>" in full
    assert all(name in text["choice"] for name in ("small", "medium", "large", "recommended", "2.5 times"))
    assert all(cell in text["cells"] for cell in run.cells["cell_id"])
    assert "0123456789ab" in text["provenance"] and "jax 0.10.2" in text["provenance"]
    assert f"gaplaw run EXPERIMENT --out {run.folder}" in text["rebuild"]


def test_a_forecast_stands_beside_what_happened(run, tmp_path, words_only):
    groups = run.cells[run.cells["status"] == "done"].groupby("group_id")["cell_id"].apply(list)
    whole, partly = [cells for cells in groups if len(cells) > 1][:2]
    cells = [{"cell_id": cell, "estimated_seconds": 18.0 / len(whole), "flops": 1e9 / len(whole)} for cell in whole]
    cells += [{"cell_id": partly[0], "estimated_seconds": 1.0, "flops": 1e9}]
    (tmp_path / "sweep.json").write_text(json.dumps({"sweep": to_dict(sweep())}))
    (tmp_path / "forecast.json").write_text(json.dumps({"target": "v5e:2x2", "cells": cells}))
    text = Page(render(dataclasses.replace(run, forecast=read_run(tmp_path).forecast))).text["forecast"]
    names = {cell: name for name, group in groups.items() for cell in group}
    assert "v5e:2x2" in text and names[whole[0]] in text and names[partly[0]] not in text
    assert "18" in text and "36" in text and "1.00·10⁹" in text  # it took twice as long
    (tmp_path / "forecast.json").write_text("{")
    assert read_run(tmp_path).damaged == ("forecast.json",)
    for name in ("forecast.json", "sweep.json"):
        write_checked_json(tmp_path / name, {"target": "v5e:2x2", "cells": cells, "sweep": to_dict(run.sweep)})
    assert read_run(tmp_path).damaged == ()
    for name in ("forecast.json", "sweep.json"):
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("v5e:2x2", "v5e:2x4"))
    assert read_run(tmp_path).damaged == ("sweep.json", "forecast.json")
    assert "No forecast was kept" in Page(render(run)).text["forecast"]


def banner(page: str) -> str:
    """The words of the banner."""
    return re.sub(r"<[^>]+>", " ", page.partition('<div class="verdict')[2].partition("</div>")[0])


def test_the_banner_gives_one_advice_and_the_lists_stand_below(run, full, words_only):
    law, refused = known_law(view(run.cells)), known_law(view(run.cells), flags=[REFUSAL])
    whole = dataclasses.replace(run, cells=run.cells[run.cells["status"] == "done"], sweep=None)
    pages = [full, render(run), render(run, law), render(run, refused), render(whole), render(whole, refused)]
    for page in pages:
        assert page.count("Do first:") == 1 and "<li>" not in page.partition('class="verdict')[2].partition("</div>")[0]
        assert banner(page).count("gaplaw ") <= 1
        assert "lowest mean loss" not in banner(page) and "lowest mean loss" in Page(page).text["loss"]
    assert "take medium" in banner(full) and "gaplaw " not in banner(full)
    assert "Finish the sweep: 1 cell has no result." in banner(pages[1]) and "gaplaw run" in banner(pages[1])
    assert "without a teacher" in banner(pages[2])  # every student is better alone here
    assert "Finish the sweep" in banner(pages[3])
    assert "Fit the law." in banner(pages[4]) and f"gaplaw fit {run.folder}" in banner(pages[4])
    assert "Add seeds or teachers" in banner(pages[5])


def test_commands_on_the_page_name_the_folder_as_it_was_given_and_only_files_that_are_there(
    run_folder, tmp_path, words_only, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, "my runs/one")
    page = write_report("my runs/one", out="page.html").read_text()
    assert "gaplaw run EXPERIMENT --out &#39;my runs/one&#39;" in page and str(tmp_path) not in page
    page = write_report("my runs/one", out="page.html", name="s3://bucket/one").read_text()
    assert "gaplaw report s3://bucket/one" in page and "my runs" not in page
    run = read_run("my runs/one")
    own = dataclasses.replace(run, sweep=dataclasses.replace(run.sweep, name="quickstart"))
    assert "gaplaw run quickstart --out" in render(own)


def test_the_advice_follows_the_refusal_and_the_choice(run):
    seen = view(run.cells)
    names = dict(folder="runs/x", experiment="x")

    def said(law, choice=None) -> str:
        return advice(headline(seen, law), seen, law, choice, **names).sentence

    for kind, words in (("edge_optimum_high", "above the largest"), ("edge_optimum_low", "below the smallest")):
        assert words in said(known_law(seen, flags=[Flag(kind, "past the edge", "refusal")]))
    law = known_law(seen)
    far = law.choose(student_params=1e12, teachers=[1e5])
    assert far.recommended is None and "from this law: student_params" in said(law, far)
    poor = dataclasses.replace(far, flags=(Flag("not_worth_it", "not worth it", "warning"),), student_params=2000.0)
    assert said(law, poor).startswith("Train the 2k student without a teacher")


def test_every_table_can_be_scrolled_keeps_its_first_column_and_says_that_it_goes_on(full):
    assert full.count('<div class="table"><div class="scroll') == full.count("<table") == full.count('class="hint"') > 5
    assert re.search(r"th:first-child \{[^}]*position: sticky; left: 0", full)
    for body in re.findall(r"<tbody>(.*?)</tbody>", full, re.S):
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.S):
            assert row.lstrip().startswith('<th scope="row"'), row  # the sticky column


def test_several_protocols_have_short_labels_and_are_counted_apart(tmp_path, words_only):
    frames = [read_run(write_folder(tmp_path / "one", students=(8, 12), teachers=(16, 24, 32), seeds=(0, 1))).cells]
    frames.append(frames[0].assign(protocol=frames[0]["protocol"].str.replace("T=1", "T=2")))
    run = dataclasses.replace(
        read_run(tmp_path / "one"), cells=pd.concat(frames[:1] + [frames[1][frames[1]["role"] == "student"]])
    )
    long = view(run.cells).protocols
    page = Page(render(run))
    assert len(long) == 2 and "2protocols" in page.text["header"].replace("\n", "")
    assert "student, temperature 2: lowest" in page.text["loss"]
    for section in ("header", "loss", "pairing", "curves", "domains"):
        assert not any(name in page.text[section] for name in long), section


def test_a_baseline_that_shares_the_batches_of_pruned_students_is_not_called_pruned(tmp_path, words_only):
    assert (
        cell_text("s1k-alone-prune-r0-1a2b3c") == "s1k-r0-1a2b3c, no teacher, batches as for students that are pruned"
    )
    assert cell_text("s1k-alone-r0-1a2b3c") == "s1k-alone-r0-1a2b3c" and cell_text("t14k-1a2b3c") == "t14k-1a2b3c"
    folder = write_folder(tmp_path / "run", students=(8,), teachers=(16, 24), seeds=(0,), curves=False)
    run = read_run(folder)
    alone = run.cells["role"] == "baseline"
    run.cells.loc[alone, "cell_id"] = "s1.3k-alone-prune-r0-1a2b3c"
    page = render(run)
    assert "alone-prune" not in page and "s1.3k-r0-1a2b3c, no teacher" in Page(page).text["cells"]


def test_a_failed_cell_shows_its_error(full):
    assert "the loss became NaN at step 512" in Page(full).text["failures"]


def test_a_refused_law_says_why_and_shows_the_near_optimal_sets(run, words_only):
    text = Page(render(run, known_law(view(run.cells), flags=[REFUSAL]))).text
    assert "law not identified" in text["header"] and "bends enough" in text["header"]
    assert "so not distinguishable" in text["loss"] and "so not distinguishable" not in text["header"]
    assert "refusal" in text["law"] and "Nothing is extrapolated" in text["law"]
    assert "no choice and no regret is claimed" in text["choice"]


def test_one_seed_is_never_called_identified(tmp_path, words_only):
    run = read_run(write_folder(tmp_path / "single", seeds=(0,), curves=False))
    text = Page(render(run, known_law(view(run.cells)))).text
    assert "law not identified" in text["header"] and "1 seed a student" in text["header"]
    assert "a second seed" in text["header"] and "a single run of each" in text["loss"]


def test_without_a_law_the_page_says_so(run, words_only):
    text = Page(render(run)).text
    assert "no law" in text["header"] and "No law was fitted" in text["law"]
    assert "lowest mean loss from the teacher of" in text["loss"]


def test_an_empty_folder_a_missing_cell_and_a_damaged_file(tmp_path, run_folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(run_folder / "sweep.json", empty)
    page = Page(write_report(empty).read_text())
    assert "nothing to conclude" in page.text["header"] and page.images == []
    assert "103 cells of the sweep have not run yet" in page.text["failures"]
    assert "No finished student yet" in page.text["pairing"]

    part = tmp_path / "part"
    (part / "cells").mkdir(parents=True)
    shutil.copy(run_folder / "sweep.json", part)
    files = sorted((run_folder / "cells").iterdir())
    shutil.copy(files[0], part / "cells")
    (part / "cells" / files[1].name).write_bytes(b"PAR1 not parquet")
    text = Page(write_report(part).read_text()).text["failures"]
    assert f"cells/{files[1].name}" in text and "102 cells of the sweep have not run yet" in text


def test_error_texts_are_escaped(tmp_path, words_only):
    folder = write_folder(tmp_path / "run", students=(8,), teachers=(16, 24), seeds=(0, 1), fail=(0,), curves=False)
    run = read_run(folder)
    run.cells.loc[run.cells["status"] == "failed", "error"] = "<script>alert(1)</script>"
    page = render(run)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page


def test_the_same_folder_gives_the_same_bytes(tmp_path, words_only, cells):
    folder = write_folder(tmp_path / "run", students=(8,), teachers=(16, 24), seeds=(0,))
    first = write_report(folder).read_bytes()
    assert write_report(folder, out=tmp_path / "again.html").read_bytes() == first
    assert sorted(path.name for path in folder.iterdir()) == ["cells", "curves", "report.html"]
    assert svg(student_loss(cells)) == svg(student_loss(cells))


def test_what_cannot_be_read_or_written_is_one_clear_line(tmp_path):
    with pytest.raises(TableError, match="no such folder"):
        write_report(tmp_path / "absent")
    with pytest.raises(TableError, match="holds no run"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "sweep.json").write_text("not JSON")  # a run whose specification is damaged has a page
    assert write_report(tmp_path, out=tmp_path / "new" / "report.html").exists()
    with pytest.raises(TableError, match="cannot be written"):
        write_report(tmp_path, out=tmp_path / "new" / "report.html" / "report.html")
