"""Does README say what happens? Its example prints these lines, its snippet runs, and its options are the verbs'
own.
"""

import contextlib
import io
import re

import gaplaw
from gaplaw.cli import main
from gaplaw.law import load_law
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
LAW = ROOT / "experiments" / "results" / "quickstart" / "law.json"


def test_the_example_prints_the_lines_that_are_shown(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    command, *shown = re.search(r"    \$ gaplaw (choose .*)\n((?:    .*\n)+)", README)[0].strip().split("\n")
    assert main(command.removeprefix("$ gaplaw ").split()) == 0
    shown = [line.removeprefix("    ") for line in shown]
    assert shown.pop() == "..." and capsys.readouterr().out.split("\n")[: len(shown)] == shown


def test_the_snippet_answers(monkeypatch):
    monkeypatch.setattr(gaplaw, "fit", lambda folder: load_law(LAW))  # of the committed rows
    code = "\n".join(line.strip() for line in re.search(r"    import gaplaw\n((?:    .*\n)+)", README)[0].split("\n"))
    found = {}
    exec(code, found)
    assert found["choice"].optimum.interval90[0] > 0 and found["choice"].near_optimal


def test_options_that_are_named_exist():
    helps = io.StringIO()
    verbs = "plan run rehearse status emit fit choose predict next report compact power".split()
    for verb in verbs:
        with contextlib.redirect_stdout(helps), contextlib.suppress(SystemExit):
            main([verb, "--help"])
    named = {*re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", README)} - {"--xla_gpu_enable_triton_gemm"}
    elsewhere = {"--teachers", "--steps", "--rounds"}  # also of benchmarks
    known = {*re.findall(r"--[a-z][\w.-]*\w", helps.getvalue())}
    assert named - elsewhere <= known and len(named) > 20
    assert {*re.findall(r"gaplaw ([a-z]+) +(?:EXPERIMENT|[a-z0-9_]+\.|experiments|runs|minima)", README)} <= {*verbs}
