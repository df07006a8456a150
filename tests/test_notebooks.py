"""Do the notebooks run from top to bottom, do their stored outputs agree with a fresh run, and are they calls plus
prose?
"""

import ast
import copy
import re

import nbformat
import pytest

from gaplaw.columns import CELLS
from tests.notebook_run import EXAMPLE, NOTEBOOKS, differences, execute, sizes_agree, texts_agree
from tests.report.simulated import write_folder

READING, FITTING, CHOOSING = NOTEBOOKS
# The first notebook only reads; the others fit, by optimizers whose last digits follow the libraries and the machine.
TOLERANCES = {READING: dict(relative=1e-6, absolute=1e-9), FITTING: dict(relative=0.02, absolute=2e-4)}
TOLERANCES[CHOOSING] = TOLERANCES[FITTING]


def plain(source: str) -> str:
    """A cell without its IPython magics."""
    return "\n".join(line for line in source.splitlines() if not line.startswith("%"))


def stored(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def figures(notebook) -> int:
    return sum("image/png" in output.get("data", {}) for cell in code(notebook) for output in cell.outputs)


def figures_asked(notebook) -> int:
    return sum(line.startswith("report.") for cell in notebook.cells for line in cell.source.splitlines())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_agree_with_a_fresh_run_on_the_example(path):
    pytest.importorskip("nbclient")
    fresh = execute(path, EXAMPLE)
    assert not differences(stored(path), fresh, **TOLERANCES[path]), "run `make notebooks` if the change is meant"
    assert figures(fresh) == figures_asked(fresh) > 0  # every figure that a cell ends in is shown


@pytest.mark.parametrize(
    "path", [READING, pytest.param(FITTING, marks=pytest.mark.slow)], ids=lambda path: path.stem
)  # the third has a simulated table of its own
def test_runs_on_a_fresh_folder(path, tmp_path):
    pytest.importorskip("nbclient")
    fresh = execute(path, write_folder(tmp_path / "quickstart", seeds=(0, 1), fail=(5,)))
    assert figures(fresh) == figures_asked(fresh)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_calls_plus_prose_with_clean_outputs(path):
    notebook = stored(path)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # run once, from top to bottom
    assert figures(notebook) == figures_asked(notebook) > 0
    for cell in cells:
        for node in ast.walk(ast.parse(plain(cell.source))):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.For | ast.While), cell.source
        assert not cell.metadata and all(not output.get("metadata") for output in cell.outputs)
        assert all(o.output_type != "error" and o.get("name") != "stderr" for o in cell.outputs), cell.source
    assert set(notebook.metadata.language_info) == {"name"}  # no version of one machine
    assert path.stat().st_size < 1_000_000
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")


def test_the_first_notebook_shows_the_meaning_of_every_column_and_elides_none():
    (cell,) = [cell for cell in code(stored(READING)) if "gaplaw.columns import CELLS" in cell.source]
    for shown in cell.outputs[0].data.values():
        words = " ".join(shown.split())
        assert all(name in words for name in CELLS) and "..." not in words and "…" not in words
    html = cell.outputs[0].data["text/html"]
    assert all(meaning.replace(">", "&gt;") in html for _, meaning in CELLS.values())


def test_laws_and_choices_are_shown_in_their_html_form():
    last = [cell.source.splitlines()[-1] for path in (FITTING, CHOOSING) for cell in code(stored(path))]
    assert {"law", "measured", "refused"} <= set(last)
    outputs = [o for path in (FITTING, CHOOSING) for cell in code(stored(path)) for o in cell.outputs]
    html = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert sum("<b>Law " in text for text in html) == 4
    assert sum("<b>Choice for a student" in text for text in html) == 1
    assert any("No answer:" in text for text in html)


def test_the_comparison_sees_a_changed_number_a_changed_word_a_lost_figure_and_another_size():
    notebook = stored(CHOOSING)
    tolerance = TOLERANCES[CHOOSING]
    assert not differences(notebook, copy.deepcopy(notebook), **tolerance)

    def changed(kind, old="", new="") -> list[str]:
        """Differences after one output of that kind lost its first match of a pattern, or, without one, was lost."""
        other = copy.deepcopy(notebook)
        output = next(o for cell in code(other) for o in cell.outputs if kind in o.get("data", {}))
        text = output.data.pop(kind)
        if old:
            output.data[kind] = re.sub(old, new, text, count=1)
            assert output.data[kind] != text
        return differences(notebook, other, **tolerance)

    assert changed("image/png") and changed("text/html", r"\d\.\d+", "987.6") and changed("text/plain", "Law", "Rule")
    assert texts_agree("a  1.000\n", "a 1.001", relative=0.01, absolute=0)
    assert not texts_agree("1.0", "1.1", relative=0.01, absolute=0)
    assert not texts_agree("a 1", "b 1", relative=1, absolute=1) and not texts_agree("1 2", "1", relative=1, absolute=1)
    assert sizes_agree((970, 300), (960, 301)) and not sizes_agree((970, 300), (970, 400))
