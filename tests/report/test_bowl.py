"""Do the words of the glossary's bowl stand where the law puts them? On the committed quickstart, which it is drawn
of.
"""

import re
from dataclasses import replace

import numpy as np
import pytest

import gaplaw
from gaplaw.report.bowl import bowl
from gaplaw.report.style import size_text, svg
from tests.conftest import ROOT
from tests.report.known import REFUSAL

RUN = ROOT / "experiments" / "results" / "quickstart"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cells():
    return gaplaw.read(RUN)


@pytest.fixture(scope="module")
def law():
    return gaplaw.load_law(RUN / "law.json")


def test_the_drawn_optimum_interval_and_regret_are_those_of_the_law(cells, law):
    (ax,) = bowl(cells, law, student=1).axes
    joint = law.students[1].method("joint")
    (diamond,) = [line for line in ax.lines if line.get_marker() == "D"]
    curve = max(ax.lines, key=lambda line: len(line.get_xdata()))
    assert diamond.get_xdata() == [joint.point]
    assert diamond.get_ydata()[0] == pytest.approx(min(curve.get_ydata()), abs=1e-4)
    drawn = [(note.xyann, note.xy) for note in ax.texts if getattr(note, "arrow_patch", None)]
    ends = {tuple(sorted(end[axis] for end in pair)) for pair in drawn for axis in (0, 1)}
    assert tuple(joint.interval90) in ends
    rise = curve.get_ydata()[-1] - min(curve.get_ydata())
    assert any(high - low == pytest.approx(rise, abs=1e-4) for low, high in ends)
    said = [float(number) for text in ax.texts for number in re.findall(r"([\d.]+) nats", text.get_text())]
    assert said == [pytest.approx(rise, abs=1e-3)]


def test_the_text_below_the_bowl_says_what_the_bowl_shows(cells, law):
    caption = " ".join(re.search(r"!\[.*?\]\(bowl\.svg\)\n\n((?:.+\n)+)", GLOSSARY)[1].split())
    joint = law.students[1].method("joint")
    (ax,) = bowl(cells, law, student=1).axes
    (regret,) = re.findall(r"[\d.]+ nats", " ".join(text.get_text() for text in ax.texts))
    for number in (*map(size_text, (law.students[1].student_params, joint.point, *joint.interval90)), regret):
        assert re.search(rf"(?<![\w.]){re.escape(number)}\b", caption), number


def test_a_bowl_without_an_optimum_is_refused(cells, law):
    with pytest.raises(ValueError, match="1.5k student: the law has no interior optimum"):
        bowl(cells, replace(law, flags=(REFUSAL,)), student=1)
    open_end = replace(law.students[1].method("joint"), interval90=(None, 2000.0))
    methods = tuple(open_end if m.method == "joint" else m for m in law.students[1].methods)
    students = tuple(replace(s, methods=methods) if i == 1 else s for i, s in enumerate(law.students))
    with pytest.raises(ValueError, match="no interior optimum with an interval"):
        bowl(cells, replace(law, students=students), student=1)


def longest_line(picture):
    """Corners of the longest line of straight pieces in an SVG: here the law's curve, in points."""
    pieces = max(re.findall(r' d="(M[^"QCz]*)"', picture), key=len)
    return np.array(re.findall(r"[ML] (\S+) (\S+)", pieces), float)


def test_the_picture_in_the_clone_is_what_make_bowl_draws(cells, law):
    kept = longest_line((ROOT / "docs" / "bowl.svg").read_text(encoding="utf-8"))
    drawn = longest_line(svg(bowl(cells, law, student=1)))
    assert len(kept) > 20 and kept[0] == pytest.approx(drawn[0], abs=2) and kept[-1] == pytest.approx(drawn[-1], abs=2)
    assert kept[:, 1].max() == pytest.approx(drawn[:, 1].max(), abs=2)
