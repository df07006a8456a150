"""What was fitted? The teacher law with its bands, the regret of every teacher, and what the law leaves unexplained.

After figures in the walk of the report. Every function takes a fitted `gaplaw.law.Law` (and, where it compares, the
table) and returns one matplotlib figure. Bands are quantiles of the law's own draws; nothing is refitted here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from gaplaw.errors import LawError
from gaplaw.law.decide.rules_of_thumb import PUBLISHED_RATIO
from gaplaw.report.figures import NOTHING, is_stronger, law_question, student_level, teacher_axis, teacher_ticks
from gaplaw.report.style import (
    ACCENT,
    INK,
    MUTED,
    PUBLISHED,
    SHADE,
    WIDE,
    colours,
    empty,
    in_style,
    markers,
    new_figure,
    panels,
    size_axis,
)
from gaplaw.report.view import of_the_law, paired, view

_METHODS = {"joint": "o", "akima": "^", "quadratic": "s"}
_POINTS = 60


@in_style
def optimal_teacher(law, *, teachers=None, width: float = WIDE) -> Figure:
    """The optimal teacher T* against the student S: the law with 50 and 90 % bands for a new student, and what each
    student says.

    Full circles are the joint fit's optima with 90 % intervals, hollow marks the two local methods; arrows are optima
    beyond the tried teachers. The shaded box is what was measured, outside it the law is extrapolated (dashed). A law
    that refused draws no line. In parameters, the dotted line is the published 2.5 ratio, measured on pruned students.

    Args: teachers: the measured ones, for the ticks; without them the axis has round numbers.
    """
    if not law.students:
        return empty(width, "The law holds no student, so there is nothing to draw.")
    figure = new_figure(min(width, 7.4), 4.9 if width > 6 else 4.3)
    ax = figure.subplots()
    in_params = law.coordinate == "teacher_params"
    measured = np.array([s.student_params for s in law.students])
    low, high = law.measured[law.coordinate]
    ax.set_xscale("log")
    ax.set_yscale("log")
    sizes = np.geomspace(measured.min() / 2, measured.max() * 8, _POINTS)
    ax.add_patch(
        Rectangle(
            (measured.min(), low), np.ptp(measured) or measured[0] * 0.01, high - low, fc=SHADE, ec="none", zorder=0
        )
    )
    ax.set_xlim(sizes[0], sizes[-1])
    room = 6.0 if in_params else 1.12
    ax.set_ylim(low / room, high * room)
    if not law.refused:
        _bands(ax, law, sizes, (measured.min(), measured.max()))
    if in_params:
        ax.plot(sizes, PUBLISHED_RATIO * sizes, ":", color=PUBLISHED, lw=1.8)
    for found in law.students:
        for method in found.methods:
            _student_mark(ax, found, method, (low, high), law.coordinate)
    size_axis(ax.xaxis, measured, beyond=True)
    if not in_params:
        ax.invert_yaxis()
    teacher_ticks(ax.yaxis, teachers, law.coordinate, beyond=in_params)
    ax.set_xlabel("student S, non-embedding parameters")
    ax.set_ylabel("optimal teacher T*, " + ("parameters" if in_params else "nats (better is higher)"))
    figure.legend(
        handles=_law_legend(law, in_params), loc="outside upper left", ncols=1 if width < 6 else 2, fontsize=8.2
    )
    return figure


def _bands(ax: Axes, law, sizes: np.ndarray, measured: tuple[float, float]) -> None:
    tokens = [_tokens_at(law, size) for size in sizes]
    draws = np.stack([law.optimum_draws(s, d) for s, d in zip(sizes, tokens, strict=True)])
    bottom, top = (np.log(edge) for edge in sorted(ax.get_ylim()))
    for level, alpha in ((0.9, 0.14), (0.5, 0.26)):
        ends = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1, method="closest_observation")
        ax.fill_between(sizes, *np.exp(np.clip(ends, bottom - 1, top + 1)), color=ACCENT, alpha=alpha, lw=0, zorder=1)
    line = np.array([law.surface.optimum_point(float(s), d) for s, d in zip(sizes, tokens, strict=True)])
    line = np.where(np.isfinite(line), np.exp(np.clip(line, bottom - 9, top + 9)), np.nan)
    inside = (sizes >= measured[0]) & (sizes <= measured[1])
    ax.plot(sizes, line, ls=(0, (4, 3)), color=ACCENT, lw=1.3, zorder=2)
    ax.plot(sizes[inside], line[inside], color=ACCENT, lw=2.2, zorder=2)


def _tokens_at(law, student_params: float) -> float | None:
    """The token budget that the measured students suggest for a size: theirs, interpolated in logs, constant
    outside.
    """
    known = sorted({(s.student_params, s.student_tokens) for s in law.students if s.student_tokens})
    if not known:
        return None
    size, tokens = (np.log([pair[i] for pair in known]) for i in (0, 1))
    return float(np.exp(np.interp(np.log(student_params), size, tokens)))


def _student_mark(ax: Axes, found, method, ladder: tuple[float, float], coordinate: str) -> None:
    joint = method.method == "joint"
    shift = {"joint": 1.0, "akima": 1.045, "quadratic": 1 / 1.045}.get(method.method, 1.0)
    at, colour = found.student_params * shift, INK if joint else MUTED
    if method.censored or method.point is None:
        if joint and method.censored:
            stronger = is_stronger(method.censored, coordinate)
            ax.annotate(
                "",
                (at, ladder[method.censored == "high"]),
                xytext=(0, 26 if stronger else -26),
                textcoords="offset points",
                arrowprops={"arrowstyle": "<|-", "color": INK, "lw": 1.6},
            )
        return
    if joint:
        bottom, top = sorted(ax.get_ylim())
        ends = [bottom if method.interval90[0] is None else method.interval90[0],
                top if method.interval90[1] is None else method.interval90[1]]  # fmt: skip
        ax.plot([at, at], ends, color=colour, lw=1.3, zorder=4)
    face, size = (colour, 6.5) if joint else ("white", 5)
    ax.plot(at, method.point, _METHODS.get(method.method, "P"), mfc=face, mec=colour, ms=size, mew=1.2, zorder=5)


def _law_legend(law, in_params: bool) -> list:
    handles = [Line2D([], [], ls="-", marker="o", color=INK, ms=6, label="a student's optimum, joint fit, 90 %")]
    handles.append(Line2D([], [], ls="", marker="s", mfc="white", mec=MUTED, label="local quadratic (△ Akima)"))
    if law.refused:
        handles.append(Line2D([], [], ls="", label="the law was refused: no line is drawn"))
    else:
        handles.append(Line2D([], [], color=ACCENT, lw=2.2, label=f"law: {law.form}" if len(law.form) < 40 else "law"))
        handles.append(Patch(color=ACCENT, alpha=0.3, label="50 and 90 %, a new student"))
    handles.append(Patch(fc=SHADE, ec=MUTED, lw=0.5, label="measured (outside: extrapolated)"))
    if in_params:
        handles.append(Line2D([], [], ls=":", color=PUBLISHED, lw=1.8, label="published 2.5×, pruned students"))
    return handles


@in_style
def regret(
    law,
    choice=None,
    *,
    student_params: float | None = None,
    student_tokens: float | None = None,
    teachers=None,
    width: float = WIDE,
):
    """Expected regret of a teacher for one student, in nats above the best possible teacher, with its 90 % band.

    Dots are the teachers that a choice weighed; the recommended one is full. Shaded ends lie outside the measured
    teachers.

    Args: teachers: the measured ones, for the ticks; without them the axis has round numbers.
    """
    if choice is not None:
        student_params, student_tokens = choice.student_params, choice.student_tokens
    if law.refused:
        return empty(width, "The law was refused, so no regret is claimed.")
    if student_params is None:
        raise LawError("regret: needs a choice, or student_params")
    low, high = law.measured[law.coordinate]
    offered = [t for t in (choice.teachers if choice is not None else ())]
    places = [p for t in offered if (p := _coordinate_of(t, law.coordinate)) is not None]
    left, right = min([low, *places]), max([high, *places])
    grid = np.geomspace(left, right, 90)
    draws = law.regret_draws(student_params, student_tokens, grid)
    figure = new_figure(min(width, 7.4), 3.4)
    ax = figure.subplots()
    ax.set_xscale("log")
    ax.axhline(0, color=MUTED, lw=0.8)
    ax.fill_between(grid, *np.quantile(draws, [0.05, 0.95], axis=0), color=ACCENT, alpha=0.15, lw=0)
    ax.plot(grid, draws.mean(axis=0), color=ACCENT, lw=1.8)
    for start, end in ((left, low), (high, right)):
        if end > start * 1.001:
            ax.axvspan(start, end, color=SHADE, zorder=0)
    for teacher in offered:
        at, best = _coordinate_of(teacher, law.coordinate), teacher.name == choice.recommended
        if at is None or teacher.expected_regret_nats is None:
            continue
        ax.plot(at, teacher.expected_regret_nats, "o", ms=8, mfc=INK if best else "white", mec=INK, mew=1.4, zorder=4)
        ax.annotate(teacher.name, (at, teacher.expected_regret_nats), xytext=(0, 9), textcoords="offset points",
                    ha="center", fontsize=8, fontweight="bold" if best else "normal", zorder=5,
                    bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8})  # fmt: skip
    ax.set_ylim(bottom=-0.05 * ax.get_ylim()[1])
    ax.margins(x=0.04)
    in_params = law.coordinate == "teacher_params"
    if not in_params:
        ax.invert_xaxis()
    teacher_ticks(ax.xaxis, teachers, law.coordinate, beyond=in_params)
    ax.set_xlabel("teacher, non-embedding parameters" if in_params else "teacher loss, nats")
    ax.set_ylabel("expected regret, nats")
    return figure


def _coordinate_of(teacher, coordinate: str) -> float | None:
    return teacher.params if coordinate == "teacher_params" else teacher.loss


@in_style
def residuals(cells: pd.DataFrame, law, *, width: float = WIDE) -> Figure:
    """What the law leaves unexplained: paired means less the law's prediction, against teacher and against student
    size.

    Each student's own level is free in the law, so its residuals average zero; a pattern along either axis is misfit.
    """
    seen = of_the_law(view(cells, law.coordinate), law)
    if not seen.students:
        return empty(width, NOTHING)
    figure, (left, right) = panels(width, 2, height=3.0)
    colour, mark = colours(s.params for s in seen.students), markers(s.size_label for s in seen.students)
    handles = []
    for student in seen.students:
        means = paired(student).means
        predicted = law.predict(law_question(law, student, means["teacher"].to_numpy()))
        rest = means["value"].to_numpy() - predicted - student_level(law, student, means)
        style = {"marker": mark[student.size_label], "color": colour[student.params], "ms": 5}
        left.errorbar(means["teacher"], rest, yerr=means["half_width"].fillna(0), ls="", elinewidth=1, **style)
        right.plot(student.params * np.linspace(0.97, 1.03, len(rest)), rest, ls="", **style)
        handles.append(Line2D([], [], ls="", label=student.size_label, **style))
    teacher_axis(left, seen)
    right.set_xscale("log")
    size_axis(right.xaxis, [s.params for s in seen.students])
    for ax, label in ((left, "teacher"), (right, "student, non-embedding parameters")):
        ax.axhline(0, color=MUTED, lw=1)
        ax.set_xlabel(label)
    left.set_ylabel("measured − law, nats")
    figure.legend(handles=handles, loc="outside upper center", ncols=4 if width < 6 else 8, title="student")
    return figure
