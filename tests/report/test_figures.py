"""Do the figures show the numbers of the table and the law, at both widths, and nothing that was refused?"""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from gaplaw import report
from gaplaw.report.style import NARROW, WIDE, colours, missing, size_text, svg, thinned
from gaplaw.report.view import paired, view
from tests.report.known import REFUSAL, known_law
from tests.report.simulated import TRUE_RATIO

pytestmark = pytest.mark.filterwarnings("error")


def lines(axes):
    """Every line that the axes hold in data coordinates, as (x, y) arrays."""
    return [tuple(np.asarray(part, float) for part in line.get_data()) for line in axes.lines]


def holds(axes, x, y) -> bool:
    return any(len(a) == len(x) and np.allclose(a, x) and np.allclose(b, y) for a, b in lines(axes))


def test_student_loss_shows_the_paired_means_and_the_baseline(cells):
    seen = view(cells)
    figure = report.student_loss(cells)
    assert len(figure.axes) == len(seen.students) == 4
    for axes, student in zip(figure.axes, seen.students, strict=True):
        means = paired(student).means
        assert holds(axes, means["teacher"], means["value"])
        level = student.baseline_loss
        drawn = any(np.allclose(y, level) for _, y in lines(axes) if len(y) == 2)
        assert drawn or any(f"{level:.3f}" in text.get_text() for text in axes.texts)


def test_the_optimum_stands_where_the_law_puts_it_and_past_the_ladder_is_an_arrow(cells):
    law = known_law(view(cells))
    figure = report.student_loss(cells, law)
    for axes, student in zip(figure.axes, law.students, strict=True):
        at = TRUE_RATIO * student.student_params
        assert any(line.get_marker() == "D" and line.get_xdata() == [at] for line in axes.lines)
    small = cells[cells["teacher_params"].isna() | (cells["teacher_params"] < 25_000)]
    law = known_law(view(small))
    censored = [s.method("joint").censored for s in law.students]
    assert censored[0] is None and censored[-1] == "high"
    last = report.student_loss(small, law).axes[-1]
    assert not any(line.get_marker() == "D" for line in last.lines)
    assert any("stronger than any tried" in text.get_text() for text in last.texts)
    assert any(getattr(text, "arrow_patch", None) is not None for text in last.texts)


def test_a_refused_law_is_not_drawn(cells):
    law = known_law(view(cells), flags=[REFUSAL])
    assert not any(line.get_marker() == "D" for axes in report.student_loss(cells, law).axes for line in axes.lines)
    (axes,) = report.optimal_teacher(law).axes
    assert not axes.collections  # no bands
    assert missing(report.regret(law, student_params=3000))


def test_the_bands_are_the_quantiles_of_the_laws_draws(cells):
    law = known_law(view(cells))
    (axes,) = report.optimal_teacher(law).axes
    wide = axes.collections[0].get_paths()[0].vertices
    size = wide[len(wide) // 4, 0]
    band = wide[np.isclose(wide[:, 0], size), 1]
    expected = np.exp(np.quantile(law.optimum_draws(size), [0.05, 0.95], method="closest_observation"))
    np.testing.assert_allclose([band.min(), band.max()], expected, rtol=1e-9)
    assert holds(axes, np.geomspace(*axes.get_xlim(), 60), 2.5 * np.geomspace(*axes.get_xlim(), 60))


def test_residuals_of_the_true_law_are_the_noise(cells):
    left, _ = report.residuals(cells, known_law(view(cells))).axes
    rest = np.concatenate([line.get_ydata() for line in left.lines if len(line.get_xdata()) == 7])
    assert len(rest) == 28 and 0.0003 < rest.std() < 0.003  # the table's noise is 0.002 nats a run, three runs a mean


def test_regret_dots_are_those_of_the_choice(cells):
    law = known_law(view(cells))
    choice = law.choose(student_params=3000, teachers=[12_000, 30_000, 200_000])
    (axes,) = report.regret(law, choice).axes
    dots = {line.get_xdata()[0]: line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"}
    assert dots == {teacher.params: teacher.expected_regret_nats for teacher in choice.teachers}
    full = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o" and line.get_mfc() != "white"]
    assert full == [choice.teacher(choice.recommended).params]


def test_pairing_shows_a_smaller_spread_after_than_before(cells):
    (axes,) = report.seed_pairing(cells).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    before = [d.get_xdata()[0] for d in dots if d.get_mfc() == "white"]
    after = [d.get_xdata()[0] for d in dots if d.get_mfc() != "white"]
    assert len(before) == len(after) == 4
    # Seeds of sd 0.02 cancel down to the noise of 0.002 nats a run, a difference of two runs carries √2 of it.
    assert all(0.001 < a < 0.005 and 3 * a < b < 0.1 for a, b in zip(after, before, strict=True))


def test_curves_of_students_are_shown_less_their_mean(cells, curves):
    figure = report.loss_curves(cells, curves)
    for axes in figure.axes[1:]:
        taught = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "-"]
        assert len(taught) == 7
        np.testing.assert_allclose(np.mean(taught, axis=0), 0, atol=1e-12)


def test_every_domains_best_teacher_is_at_zero(cells):
    for axes in report.domain_losses(cells).axes:
        assert len(axes.lines) == 4 and all(line.get_ydata().min() == 0 for line in axes.lines)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_figure_keeps_its_width_and_leaves_settings_alone(cells, curves, width):
    before = dict(rcParams)
    law = known_law(view(cells))
    drawn = [
        report.student_loss(cells, law, width=width),
        report.loss_curves(cells, curves, width=width),
        report.domain_losses(cells, width=width),
        report.fidelity(cells, width=width),
        report.seed_pairing(cells, width=width),
        report.optimal_teacher(law, width=width),
        report.residuals(cells, law, width=width),
        report.regret(law, student_params=3000, width=width),
    ]
    assert all(figure.get_figwidth() <= width and not missing(figure) for figure in drawn)
    assert svg(drawn[0]).startswith("<?xml") and dict(rcParams) == before


def test_a_picture_is_the_one_that_savefig_would_write(cells):
    saved, figure = io.StringIO(), report.fidelity(cells)
    report.fidelity(cells).savefig(saved, format="svg", metadata={"Date": None, "Creator": None})
    dpi = figure.dpi
    ours, theirs = (re.sub(r"[#\"(][a-zA-Z]+[0-9a-f]{10}", "#", text) for text in (svg(figure), saved.getvalue()))
    assert figure.dpi == dpi and ours.count("<use") > 100
    for tag in ("<use", "<path", "<g", "<clipPath"):
        assert ours.count(tag) == theirs.count(tag)
    ours, theirs = (np.array(re.findall(r'(?:x|y|width|height)="(-?[\d.]+)"', text), float) for text in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=0.011)  # svg cuts numbers to a hundredth of a point


def test_an_empty_table_says_what_is_missing():
    nothing = pd.DataFrame()
    for figure in (
        report.student_loss(nothing),
        report.loss_curves(nothing, None),
        report.domain_losses(nothing),
        report.fidelity(nothing),
        report.seed_pairing(nothing),
    ):
        assert missing(figure).endswith(".")


def test_a_table_known_by_teacher_loss_is_drawn_with_better_teachers_to_the_right():
    frame = pd.DataFrame({"student_params": 1e8, "teacher_loss": [2.4, 2.2, 2.0], "student_loss": [2.6, 2.5, 2.55]})
    (axes,) = report.student_loss(frame).axes
    left, right = axes.get_xlim()
    assert left > 2.4 > 2.0 > right


def test_colours_are_distinct_and_follow_size():
    shades = list(colours([3, 1, 2, 9, 5]).items())
    assert [size for size, _ in shades] == [1, 2, 3, 5, 9] and len({shade for _, shade in shades}) == 5


def test_thinned_labels_keep_both_ends_and_a_distance():
    distance = 0.2 * np.log(100)
    assert thinned([1, 1.1, 4, 30, 95, 100], lambda one, other: distance) == [1, 4, 30, 100]
    assert thinned([99, 100], lambda one, other: distance) == [99] and thinned([7], lambda one, other: 1) == [7]
    assert size_text(1536) == "1.5k" and size_text(None) == size_text(float("nan")) == "unknown"


def overlaps(axis, renderer) -> bool:
    """Whether two tick labels of an axis touch."""
    boxes = [label.get_window_extent(renderer) for label in axis.get_ticklabels() if label.get_text()]
    return any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def rows(teachers, losses, students=(1e6, 3e6, 9e6), **more) -> pd.DataFrame:
    """A table of outside: every student under every teacher, two seeds."""
    table = [
        {"student_params": s, "teacher_params": t, "seed": seed, "student_loss": loss + 0.01 * seed + 0.1 * i}
        for i, s in enumerate(students)
        for t, loss in zip(teachers, losses, strict=True)
        for seed in (0, 1)
    ]
    return pd.DataFrame(table).assign(**more)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("count", [7, 40])
@pytest.mark.parametrize("coordinate", ["teacher_params", "teacher_loss"])
def test_a_tick_stands_at_every_measured_teacher_and_no_labels_touch(width, count, coordinate):
    spread = np.geomspace(1.13e6, 3.77e9, count) * np.random.default_rng(count).uniform(0.9, 1.1, count)
    teachers = np.sort(spread) if coordinate == "teacher_params" else np.linspace(1.713, 2.977, count)
    frame = rows(teachers, np.linspace(3, 2, count) ** 2).rename(columns={"teacher_params": coordinate})
    figure = report.student_loss(frame, width=width)
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        ticks = np.sort(np.concatenate([axes.xaxis.get_majorticklocs(), axes.xaxis.get_minorticklocs()]))
        np.testing.assert_allclose(ticks, np.sort(teachers))
        assert not overlaps(axes.xaxis, figure.canvas.get_renderer())
        shown = [label.get_text() for label in axes.get_xticklabels() if label.get_text()]
        assert len(shown) == len(set(shown)) >= 2


def test_the_axes_of_a_law_have_ticks_at_the_measured_teachers_too(cells):
    seen = view(cells)
    law = known_law(seen)
    for figure, axis in ((report.optimal_teacher(law, teachers=seen.ladder), "yaxis"),
                         (report.regret(law, student_params=3000, teachers=seen.ladder), "xaxis")):  # fmt: skip
        FigureCanvasAgg(figure).draw()
        axis = getattr(figure.axes[0], axis)
        ticks = np.concatenate([axis.get_majorticklocs(), axis.get_minorticklocs()])
        assert all(np.isclose(ticks, teacher).any() for teacher in seen.ladder)
        assert not overlaps(axis, figure.canvas.get_renderer())


def joined_points(figure, styles=("-",)) -> list[int]:
    """Lengths of the lines that join measured points; upright and level ones mark optima and students alone."""
    drawn = [line for axes in figure.axes for line in axes.lines if line.get_linestyle() in styles]
    paths = [(np.atleast_1d(line.get_xdata()), np.atleast_1d(line.get_ydata())) for line in drawn]
    return [len(x) for x, y in paths if len(set(x)) > 1 and len(set(y)) > 1]


def test_two_points_are_not_drawn_as_a_curve_and_this_is_said(cells, curves):
    two = cells[cells["teacher_params"].isna() | cells["teacher_params"].isin(view(cells).ladder[[1, 4]])]
    late = curves[curves.groupby("cell_id")["tokens"].rank(ascending=False) <= 2]
    figures = {
        "loss": report.student_loss(two),
        "with a law": report.student_loss(two, known_law(view(two))),
        "domains": report.domain_losses(two),
        "fidelity": report.fidelity(two),
        "curves": report.loss_curves(cells, late),
    }
    for name, figure in figures.items():
        assert not joined_points(figure), name
        assert sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines) > 0
    assert not joined_points(figures["curves"], ("-", "--"))  # nor the dashed lines of students alone
    few = cells[(cells["role"] != "teacher") | cells["student_params"].isin(view(two).ladder)]
    assert not joined_points(report.fidelity(few[few.index.isin(two.index)]), ("-", "--"))  # nor the teachers' own
    said = {
        name: " ".join(t.get_text() for a in f.axes for t in [a.title, a._left_title, *a.texts])
        for name, f in figures.items()
    }
    assert all("points" in said[name] for name in ("loss", "domains", "fidelity", "curves")), said
    assert all(
        joined_points(f) for f in (report.student_loss(cells), report.domain_losses(cells), report.fidelity(cells))
    )


def test_every_protocol_has_panels_of_its_own_under_a_short_label():
    parts = [
        rows([2e6, 8e6, 3e7], [3.0, 2.8, shift], protocol=f"scratch|soft=1|T={t}") for t, shift in ((1, 2.7), (2, 2.9))
    ]
    frame = pd.concat(parts, ignore_index=True).assign(kl_teacher_student_nats=0.1, domain_code_loss_nats=2.0)
    frame["student_loss"] += np.random.default_rng(0).normal(0, 1e-3, len(frame))
    for figure in (
        report.student_loss(frame),
        report.domain_losses(frame),
        report.fidelity(frame),
        report.seed_pairing(frame),
    ):
        assert [block.get_suptitle() for block in figure.subfigs] == ["Temperature 1", "Temperature 2"]
        texts = [t.get_text() for t in figure.findobj(Text)]
        assert not any("soft=" in text for text in texts)
    assert len(report.student_loss(frame).axes) == len(report.domain_losses(frame).axes) == 6
    assert len(report.fidelity(frame).axes) == 2
    for block, protocol in zip(report.student_loss(frame).subfigs, view(frame).protocols, strict=True):
        own = [s for s in view(frame).students if s.protocol == protocol]
        for axes, student in zip(block.axes, own, strict=True):
            assert holds(axes, paired(student).means["teacher"], paired(student).means["value"])


def test_a_law_of_one_protocol_is_drawn_and_judged_on_its_own_students_only(cells):
    other = cells[cells["role"] == "student"].assign(protocol="prune|soft=1|T=1")
    law = known_law(view(cells))
    law = replace(law, provenance={"protocol": view(cells).protocols[0]})
    both = pd.concat([cells, other])
    left, _ = report.residuals(both, law).axes
    alone, _ = report.residuals(cells, law).axes
    assert len(left.lines) == len(alone.lines)
    marked = [any(line.get_marker() == "D" for line in axes.lines) for axes in report.student_loss(both, law).axes]
    assert marked == [s.protocol == law.provenance["protocol"] for s in view(both).students]


def test_names_are_drawn_as_they_are_written(cells):
    domain, protocol = "cost $x^$", "scratch|soft=1|T=$^$"
    own = cells.assign(domain_labels=json.dumps({"domain_code_loss_nats": domain}))
    own = pd.concat([own, own[own["role"] == "student"].assign(protocol=protocol)])
    for draw, name in ((report.domain_losses, domain), (report.student_loss, "temperature $^$")):
        assert svg(figure := draw(own)) and any(name in text.get_text().lower() for text in figure.findobj(Text))
        assert not any("\\math" in text.get_text() for text in figure.findobj(Text))  # what matplotlib writes itself
