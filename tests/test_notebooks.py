"""Do the notebooks run from top to bottom on a table that they have not seen, and are they calls plus prose?"""

import ast
import json
from pathlib import Path

import nbformat
import pytest

from tests.analysis.simulated import write_folder

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def plain(source: str) -> str:
    """A cell without its IPython magics."""
    return "\n".join(line for line in source.splitlines() if not line.startswith("%"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("runs") / "quickstart", seeds=(0, 1), fail=(5,))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_a_fresh_folder(path, run, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("GAPLAW_RUN", str(run))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    drawn = sum("image/png" in output.get("data", {}) for output in outputs)
    asked = sum(line.startswith("analysis.") for cell in notebook.cells for line in cell.source.splitlines())
    assert drawn == asked > 0  # every figure that a cell ends in is shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_calls_plus_prose_without_stored_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    for cell in code:
        for node in ast.walk(ast.parse(plain(cell.source))):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.For | ast.While), cell.source
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")


def test_the_first_notebook_explains_every_column():
    text = json.dumps(nbformat.read(NOTEBOOKS[0], as_version=4))
    assert "gaplaw.results import CELLS" in text and [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03"]
