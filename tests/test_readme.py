"""Do README and the guides say what happens? Their examples print these lines, their snippets run, and their options
are the verbs' own.
"""

import contextlib
import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

import gaplaw
from gaplaw.cli import main
from gaplaw.law import load_law
from gaplaw.law.flags import FEWEST_STUDENTS, FEWEST_TEACHERS
from gaplaw.report.style import size_text
from gaplaw.report.view import paired, view
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("scale", "sweep", "forecast")}
GUIDES = "\n".join([README, *PAGES.values()])
QUICKSTART = ROOT / "experiments" / "results" / "quickstart"


def code_after(text, first):
    """The block of code whose first line begins so, without its indentation."""
    block = re.search(rf"^    {re.escape(first)}.*\n(?:    .*\n)*", text, re.M)[0].rstrip()
    return "\n".join(line.removeprefix("    ") for line in block.split("\n"))


def command_and_shown(text, verb):
    """An example `$ gaplaw VERB …` as its arguments and what is shown below it."""
    first, _, shown = code_after(text, f"$ gaplaw {verb} ").replace("\\\n", "").partition("\n")
    return first.removeprefix("$ gaplaw ").split(), shown.split("\n")


def same_line(shown, printed):
    """The same words, and numbers within a tenth: other versions of SciPy end a fit elsewhere in its last digits."""
    number = r"\d+(?:\.\d+)?"
    one, other = (np.array(re.findall(number, line), float) for line in (shown, printed))
    return re.split(number, shown) == re.split(number, printed) and np.allclose(one, other, rtol=0.1)


def assert_printed(shown, printed):
    """What is shown was printed, in this order; `...` stands for lines that are left out."""
    at, free = 0, False
    for line in shown:
        if line == "...":
            free = True
            continue
        found = next((i for i in range(at, len(printed)) if same_line(line, printed[i])), None)
        assert found is not None and (free or found == at), line
        at, free = found + 1, False
    assert free or at == len(printed)


def test_the_examples_of_a_table_print_the_lines_that_are_shown(capsys, monkeypatch, tmp_path):
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "table.csv", tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    for verb in ("fit", "choose"):
        arguments, shown = command_and_shown(README, verb)
        assert main(arguments) == 0 and len(shown) > 3
        assert_printed(shown, capsys.readouterr().out.rstrip().split("\n"))


def test_the_table_is_the_quickstart_as_a_paper_would_print_it():
    table = pd.read_csv(ROOT / "docs" / "table.csv")
    assert (ROOT / "docs" / "table.csv").read_text().startswith(code_after(README, "N_S,").removesuffix("\n..."))
    students = view(gaplaw.read(QUICKSTART)).students
    assert f"{len(table)} rows" in README and len(table) == sum(len(s.teachers) for s in students)
    for student in students:
        own = table[table["N_S"] == student.params]
        means = student.rows.groupby("teacher")["student_loss"].mean()
        assert list(own["N_T"]) == list(means.index) and own["L_S"].to_numpy() == pytest.approx(means, abs=6e-4)
        assert own["L_alone"].to_numpy() == pytest.approx(student.baseline_loss, abs=6e-4)


def test_the_caption_names_the_optima_and_the_lowest_points_of_the_picture():
    caption = " ".join(re.search(r"\n\*(Three students.*?)\*\n", README, re.S)[1].split())
    law, students = load_law(QUICKSTART / "law.json"), view(gaplaw.read(QUICKSTART)).students
    optima = [size_text(found.method("joint").point) for found in law.students]
    means = [paired(student).means for student in students]
    lowest = [size_text(float(m["teacher"][m["value"].idxmin()])) for m in means]
    for sizes in (optima, lowest):
        assert "{}, {} and {}".format(*sizes) in caption


def test_the_snippet_answers(monkeypatch):
    monkeypatch.setattr(gaplaw, "fit", lambda folder: load_law(QUICKSTART / "law.json"))  # of the committed rows
    found = {}
    exec(code_after(README, "import gaplaw"), found)
    assert found["choice"].optimum.interval90[0] > 0 and found["choice"].near_optimal


def test_the_sweep_of_ones_own_is_a_law_s_smallest_grid():
    found = {}
    exec(code_after(README, "from gaplaw.spec import"), found)
    sweep = found["sweep"]
    assert len(sweep.teachers) == FEWEST_TEACHERS and len({cell.model for cell in sweep.students}) == FEWEST_STUDENTS
    assert f"at least {FEWEST_TEACHERS} teachers and {FEWEST_STUDENTS} students" in README
    assert f"its {len(sweep.cells)} cells" in README


def test_the_manifest_of_the_guide_is_the_one_that_is_printed(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments, shown = command_and_shown(PAGES["scale"], "emit")
    assert main(arguments) == 0
    assert yaml.safe_load("\n".join(shown)) == yaml.safe_load(capsys.readouterr().out)


def test_the_priced_examples_multiply_right():
    """Every `a × b = c` and `a / b / c = d` of the recipes, to the last digit that is shown."""
    scale = " ".join(PAGES["scale"].split()).replace(",", "")
    sums = re.findall(r"([\d.e+]+(?: [×/] [\d.e+]+)+) = ([\d]+)", scale)
    assert len(sums) >= 5
    for left, right in sums:
        assert round(eval(left.replace("×", "*"))) == int(right), left


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_options_that_are_named_exist():
    helps = io.StringIO()
    verbs = "plan run rehearse status emit fit choose predict next report compact power".split()
    for verb in verbs:
        with contextlib.redirect_stdout(helps), contextlib.suppress(SystemExit):
            main([verb, "--help"])
    elsewhere = {"--xla_gpu_enable_triton_gemm", "--addons"}  # of XLA and of gcloud
    ours = "\n".join(line for line in GUIDES.split("\n") if not re.search("docker |gcloud |ray start", line))
    named = {*re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", ours)} - elsewhere
    known = {*re.findall(r"--[a-z][\w.-]*\w", helps.getvalue())}
    assert named <= known and len(named) > 20
    assert {*re.findall(r"gaplaw ([a-z]+) +(?:EXPERIMENT|[a-z0-9_]+\.|experiments|runs|minima)", GUIDES)} <= {*verbs}
