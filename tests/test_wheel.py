"""What is installed is `gaplaw` alone: it works beside a person's own analysis.py and experiments/, and leaves them
theirs.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


def copied_by_the_dockerfile() -> list[str]:
    """Files and folders: what an image installs gaplaw from must be enough for a wheel."""
    copies = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    return [name for names in copies for name in names]


def sources(folder: Path) -> Path:
    """A copy of what an image is made from, because building writes beside it, and of a folder that must stay out."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "results")
    for name in (*copied_by_the_dockerfile(), "analysis"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def test_the_wheel_holds_gaplaw_with_its_experiments_and_nothing_else(tmp_path):
    source = sources(tmp_path)
    subprocess.run([sys.executable, "-c", BUILD, "dist"], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "gaplaw").rglob("*") if path.suffix in {".py", ".j2"}}
    shipped = {f"gaplaw/experiments/{path.name}" for path in (ROOT / "experiments").glob("*.py")}
    assert names == package | shipped | {"gaplaw/py.typed"}
    assert "gaplaw/experiments/minima_3b.py" in names and "gaplaw/report/report.html.j2" in names


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of the programs of a fresh environment: gaplaw from its wheel, the other packages from here."""
    source = sources(tmp_path_factory.mktemp("sources"))
    environment = tmp_path_factory.mktemp("environment")
    pip, bins = [sys.executable, "-m", "pip", "--disable-pip-version-check"], environment / "bin"

    def run(*words):
        done = subprocess.run([str(word) for word in words], cwd=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    (wheel,) = (source / "dist").glob("*.whl")
    # A gaplaw.egg-info in this folder or on PYTHONPATH would pass for an installed one.
    run(*pip, "--python", bins / "python", "install", "--no-deps", "--ignore-installed", wheel)
    (site,) = environment.glob("lib/python*/site-packages")
    # A line of a .pth file adds a folder behind this one; .pth files there, of an editable gaplaw, are not read.
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "packages.pth").write_text("\n".join(packages) + "\n")
    return bins


@pytest.fixture
def project(tmp_path) -> Path:
    """A person's project, with names that gaplaw uses in its own repository."""
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "experiments" / "minima_3b.py", tmp_path / "experiments" / "ours.py")
    for name in ("analysis", "quickstart", "report"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this file is the person\\'s own')\n")
    (tmp_path / "experiments" / "mine.py").write_text("SIZE = 3\n")  # no __init__.py: a namespace package
    shutil.copytree(ROOT / "experiments" / "results" / "quickstart", tmp_path / "run")
    (tmp_path / "run" / "law.json").unlink()
    return tmp_path


@pytest.mark.slow
def test_an_installed_gaplaw_works_beside_a_project_with_its_own_analysis_and_experiments(installed, project):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words, code=0):
        """What a program of the fresh environment says, started in the person's folder."""
        done = subprocess.run(
            [installed / words[0], *words[1:]], cwd=project, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    module = ("python", "-m", "gaplaw.cli")  # unlike the program, it has the person's folder first on its path
    assert run("python", "-c", "import gaplaw; print(gaplaw.__file__)").startswith(str(installed.parent))
    assert "law written to run/law.json" in run(*module, "fit", "run")
    assert "best teacher" in run(*module, "choose", "run/law.json", "--student", "2k", "--teachers", "6k,14k")
    assert "report written to run/report.html" in run(*module, "report", "run")
    assert "data:image/svg+xml" in (project / "run" / "report.html").read_text()
    assert "minima_3b" in run("gaplaw", "plan", "minima_3b") and "minima_3b" in run(*module, "plan", "ours")
    assert "stdlib_gap" in run(*module, "plan", "stdlib_gap")  # it imports the quickstart, the shipped one
    assert "known here: gpt2_pilot, mine, minima_3b, ours, pythia_pilot" in run("gaplaw", "plan", "nothing", code=2)
    assert run("python", "-c", "from experiments import mine; print(mine.SIZE)") == "3\n"
    assert "the person's own" in run("python", "-c", "import analysis", code=1)
