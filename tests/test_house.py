"""The house rules that a reader relies on: imports point back along the walk, files stay short, the light half stays
light.
"""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# The walk. A module may import what stands before it (and its own package); the law half knows nothing of the training
# half.
WALK = [
    "credentials",
    "errors",
    "packages",
    "files",
    "canonical",
    "methods",
    "spec",
    "objects",
    "rows",
    "columns",
    "results",
    "data",
    "models",
    "distill",
    "train",
    "sweep",
]
LAW_HALF_MAY_IMPORT = {*WALK[: WALK.index("results") + 1], "law"}
REPORT_MAY_IMPORT = {*LAW_HALF_MAY_IMPORT, "report"}
BESIDE_THE_PACKAGE = {"analysis", "experiments", "benchmarks", "tests"}  # in a clone only: no wheel has them
MOST_LINES = 300


def python_files():
    """The project's own files, as git would list them."""
    folders = ["gaplaw", *sorted(BESIDE_THE_PACKAGE)]
    return [ROOT / "setup.py"] + [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def gaplaw_imports(path, top_level_only):
    """Second names of `gaplaw.x…` imports in a file."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name.split(".")[1] for name in found if name.startswith("gaplaw.")}


def stop_of(path):
    return path.relative_to(ROOT / "gaplaw").with_suffix("").parts[0]


@pytest.mark.parametrize("stop", [*WALK, "law", "report"])
def test_imports_point_back_along_the_walk(stop):
    beside = {"law": LAW_HALF_MAY_IMPORT, "report": REPORT_MAY_IMPORT}
    allowed = beside[stop] if stop in beside else {*WALK[: WALK.index(stop) + 1], "__version__"}
    files = [path for path in (ROOT / "gaplaw").rglob("*.py") if stop_of(path) == stop]
    assert files
    for path in files:
        ahead = gaplaw_imports(path, top_level_only=True) & {*WALK, "law", "report", "cli"} - allowed
        assert not ahead, f"{path.relative_to(ROOT)} imports {sorted(ahead)}, which comes later in the walk"


def test_the_package_imports_nothing_that_is_only_in_a_clone():
    for path in (ROOT / "gaplaw").rglob("*.py"):
        imports = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and not node.level}
        assert not {name.split(".")[0] for name in names} & BESIDE_THE_PACKAGE, path


def test_files_stay_short():
    long = {str(p.relative_to(ROOT)): n for p in python_files() if (n := len(p.read_text().splitlines())) > MOST_LINES}
    assert not long, f"over {MOST_LINES} lines; one question per file: {long}"


def test_every_module_says_what_question_it_answers():
    silent = [p for p in python_files() if p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split()


@pytest.mark.parametrize(
    "module", ["gaplaw", "gaplaw.law", "gaplaw.spec.sweep", "gaplaw.sweep", "gaplaw.report", "gaplaw.cli"]
)
def test_the_light_half_does_not_import_jax(module):
    loaded = run(f"import {module}, sys; print(*sorted(sys.modules))")
    assert not {"jax", "flax", "tensorflow", "tensorflow_datasets"} & set(loaded)


def test_public_verbs_exist():
    import gaplaw

    assert all(getattr(gaplaw, name) is not None for name in gaplaw.__all__)


def test_no_path_of_one_machine_in_any_file():
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if tracked.returncode:
        pytest.skip("not a git working copy")
    roots = tuple("/" + name + "/" for name in ("work", "root", "home", "Users"))
    for name in tracked.stdout.split("\n"):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".cfg", ".toml", ".txt", ".ipynb", ".html", ".j2", ".json"} and path.is_file():
            text = path.read_text(errors="replace")
            found = [root for root in roots if root in text]
            assert not found or path.name == "test_house.py", f"{name} names {found}"


def test_prose_stays_within_120_columns():
    """Rows of tables and headings cannot be broken."""
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "experiments").glob("*.md")):
        long = [n for n, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
                if len(line) > 120 and not line.startswith(("|", "#"))]  # fmt: skip
        assert not long, f"{path.name}: lines {long}"
