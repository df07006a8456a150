"""The house rules that a reader relies on: imports point back along the walk, files stay short, the light half stays
light.
"""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

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

# Imports inside functions hide an arrow, so each needs a reason: a heavy or optional package that the file's importers
# are spared, or a room of ours that loads one. A verb of `cli` loads only the half that it asks.
HEAVY_PACKAGES = {
    *("fcntl", "filelock", "fsspec", "jax", "orbax", "pandas", "pyarrow", "ray", "rich", "submitit", "tokenizers"),
    *("tyro", "yaml"),
}
HEAVY_ROOMS = {f"gaplaw.{room}" for room in ("data", "models", "distill", "train")}
OTHER_HIDDEN_IMPORTS = {  # file below gaplaw/ -> modules, and why
    "data/sources.py": {"import_module"},  # TFDS and its builders, which are heavy, by the name that a person gave
    "sweep/forecast/compile_worker.py": {"numpy", "gaplaw.sweep.forecast.collectives"},  # after its process has started
    "sweep/running/status.py": {"gaplaw.sweep.running.display"},  # loads rich
    "train/hosts.py": {"numpy"},  # one process needs nothing of this file
}


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


def imported_modules(nodes):
    """Full names that these nodes import: `import a.b` is a.b, `from a.b import c` is a.b.c."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"relative import of {node.module}: name the package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def hidden_imports(tree):
    """Modules that a file imports inside its functions, or by a string; the lazy names of a package are no secret."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if getattr(function, "name", "") != "__getattr__":
                yield from imported_modules(ast.walk(function))
                calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
                names = (getattr(func, "attr", getattr(func, "id", "")) for func in calls)
                yield from (name for name in names if name in {"import_module", "__import__"})


def outside_functions(node):
    """The nodes below that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        types_only = isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING"
        if not types_only and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)


def import_graph(root):
    """Module of the package at `root`/gaplaw -> its modules that this one imports when it is imported itself."""
    paths = (root / "gaplaw").rglob("*.py")
    modules = {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}
    graph = {}
    for module, path in modules.items():
        names = set(imported_modules(outside_functions(ast.parse(path.read_text()))))
        # `from a.b import c` imports the module a.b.c where there is one, and the name c of a.b otherwise
        graph[module] = {n if n in modules else n.rpartition(".")[0] for n in names} & set(modules) - {module}
    return graph


def import_cycle(root):
    """The modules of one import cycle, or none."""
    try:
        TopologicalSorter(import_graph(root)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


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


def spared(name, module):
    """Whether a file below gaplaw/ may import a module inside a function."""
    if module.split(".")[0] in HEAVY_PACKAGES or ".".join(module.split(".")[:2]) in HEAVY_ROOMS:
        return True
    return name.startswith("cli/") and module.startswith("gaplaw.")


def test_imports_inside_functions_spare_what_is_heavy():
    rest = {}
    for path in sorted((ROOT / "gaplaw").rglob("*.py")):
        name = path.relative_to(ROOT / "gaplaw").as_posix()
        hidden = {module for module in hidden_imports(ast.parse(path.read_text())) if not spared(name, module)}
        if hidden:
            rest[name] = hidden
    listed = {
        name: {
            module for module in hidden if any(module.startswith(known) for known in OTHER_HIDDEN_IMPORTS.get(name, ()))
        }
        for name, hidden in rest.items()
    }
    assert rest == listed and listed.keys() == OTHER_HIDDEN_IMPORTS.keys()


def test_no_module_imports_itself_through_others():
    cycle = import_cycle(ROOT)
    assert not cycle, f"import cycle: {' -> '.join(cycle)}"


def test_the_house_sees_a_cycle_and_a_hidden_import(tmp_path):
    (tmp_path / "gaplaw").mkdir()
    texts = {"one": "from gaplaw import two", "two": "if 1:\n    from gaplaw.three import x", "three": "x = 1"}
    for name, text in texts.items():
        (tmp_path / "gaplaw" / f"{name}.py").write_text(text)
    assert not import_cycle(tmp_path)
    (tmp_path / "gaplaw" / "three.py").write_text("import gaplaw.one")
    assert set(import_cycle(tmp_path)) == {"gaplaw.one", "gaplaw.two", "gaplaw.three"}
    tree = ast.parse("import a\n\ndef f():\n    import b\n    import_module('c')\n    return lambda: __import__('d')")
    assert set(hidden_imports(tree)) == {"b", "import_module", "__import__"}


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
