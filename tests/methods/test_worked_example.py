"""Does the example of CONTRIBUTING.md do what it says? Its blocks are run as they are printed."""

import os
import re
import shutil
import subprocess
import sys
from types import ModuleType

import pytest

from gaplaw.errors import SpecError
from tests.conftest import ROOT
from tests.methods import test_objectives

SECTION = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## A new objective\n")[1].split("\n## ")[0]
OBJECTIVE, AMONG_OBJECTIVES, DEFINITION, EXPERIMENT = re.findall(r"^```python\n(.*?)^```", SECTION, re.M | re.S)
AMONG = ROOT / "gaplaw" / "methods" / "objectives" / "__init__.py"
ADDED = r" \| SkewKL|, \"SkewKL\""  # what its two lines have more than today's


def test_the_objective_has_the_value_and_the_gradient_of_its_definition(monkeypatch):
    module = ModuleType("skew_kl")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # a dataclass looks its module up
    exec(OBJECTIVE, module.__dict__)
    test = {**vars(test_objectives), "SkewKL": module.SkewKL}
    exec(DEFINITION, test)
    test_objectives.test_value_and_gradient_are_those_of_the_definition_in_float64(*test["ROW"])
    with pytest.raises(SpecError, match=r"^SkewKL\.skew = 1.0: must be above 0 and below 1"):
        module.SkewKL(skew=1.0)


def test_a_copy_of_the_package_with_its_lines_plans_its_cells(tmp_path):
    found = AMONG.read_text()
    imported, *lines = AMONG_OBJECTIVES.strip().split("\n\n")
    for line in lines:
        (today,) = [old for old in found.split("\n") if old == re.sub(ADDED, "", line)]
        found = found.replace(today, line)
    for folder in ("gaplaw", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    copy = tmp_path / AMONG.relative_to(ROOT)
    copy.write_text(found.replace("\nfrom", f"\n{imported}\nfrom", 1))
    copy.with_name("skew_kl.py").write_text(OBJECTIVE)
    (tmp_path / "experiments" / "skew.py").write_text(EXPERIMENT)
    code = (
        "from gaplaw.sweep.planning.load import load_experiment; sweep = load_experiment('experiments/skew.py'); "
        "print(len(sweep.cells), *sorted({cell.protocol for cell in sweep.students}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert ran.stdout.split() == ["7", "scratch|skew_kl", "scratch|soft=1|T=1"], ran.stderr
