"""What was measured? Student loss against teacher size, and the parts that other figures share.

After view in the walk of the report. Every function takes the frame that `gaplaw.read` returns (or an outside table
under the canonical names) and returns one matplotlib figure; `law` only adds ink. Nothing is fitted here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gaplaw.errors import GaplawError
from gaplaw.report.style import (
    ACCENT,
    FEWEST_FOR_A_CURVE,
    INK,
    MUTED,
    WIDE,
    colours,
    empty,
    grouped_panels,
    in_style,
    joined,
    ratio_text,
    size_axis,
    size_text,
    ticks_at,
)
from gaplaw.report.view import Student, View, paired, view

NOTHING = "No finished student yet, so there is nothing to draw."
_GRID_POINTS = 160


@in_style
def student_loss(cells: pd.DataFrame, law=None, *, width: float = WIDE) -> Figure:
    """Student loss against its teacher, one panel per student, protocols apart, with the optimum and its interval.

    Faint dots are single runs with their seed effect removed, large dots their means with 90 % paired intervals, the
    dashed line is the same student without a teacher. With a law: its curve, and at the foot the joint optimum
    (diamond) with 50 % (thick) and 90 % (thin) interval; an arrow says that the optimum lies beyond the teachers that
    were tried. A law that refused is not drawn, and fewer than three teachers are drawn as points, without a curve.

    Args: cells: results table. law: a fitted `gaplaw.law.Law`, or None. width: inches.
    """
    seen = view(cells, law.coordinate if law else None)
    if not seen.students:
        return empty(width, NOTHING)
    figure, axes = student_panels(width, seen, height=2.9)
    colour = colours(s.params for s in seen.students)
    law = None if law is not None and law.refused else law  # a refused law leaves the measurements to speak
    for ax, student in zip(axes, seen.students, strict=True):
        teacher_axis(ax, seen)
        optimum = measured_optimum(law, student)
        means = _measured(ax, student, colour[student.params], join=optimum is None)
        _title(ax, student, optimum, means, seen.coordinate)
        if optimum is not None and len(means) >= FEWEST_FOR_A_CURVE:
            _fitted(ax, law, student, means)
        if optimum is not None:
            _mark_optimum(ax, optimum, seen.coordinate)
    shared_labels(figure, seen, "validation loss, nats")
    return figure


def student_panels(width: float, seen: View, *, height: float):
    """One panel per student, in blocks by protocol. Returns the figure and the axes in the order of `seen.students`."""
    return grouped_panels(width, {name: len(own) for name, own in seen.by_protocol.items()}, height=height)


def _measured(ax: Axes, student: Student, colour: str, *, join: bool) -> pd.DataFrame:
    split = paired(student)
    means = split.means
    if means["runs"].max() > 1:
        beside = split.points["teacher"] * _beside(student)
        ax.plot(beside, split.points["value"], "o", ms=3, alpha=0.35, mew=0, color=colour)
    width = means["half_width"].fillna(0.0)
    ax.errorbar(
        means["teacher"],
        means["value"],
        yerr=width,
        fmt="o",
        **(joined(len(means)) if join else {}),
        ms=5,
        lw=1.1,
        elinewidth=1.4,
        color=colour,
        zorder=3,
    )
    low, high = _span(means["value"] - width, means["value"] + width)
    pad = 0.12 * (high - low) or 0.001
    bottom, top = low - 2.2 * pad, high + pad  # the foot carries the optimum and its interval
    level = student.baseline_loss
    if level is not None:
        reach = high - low
        if low - 0.7 * reach <= level <= high + 0.7 * reach:
            bottom, top = min(bottom, level - 2.2 * pad), max(top, level + pad)
            ax.axhline(level, color=MUTED, ls=(0, (5, 3)), lw=1.2)
            near = means["value"].to_numpy()[:: -1 if ax.xaxis_inverted() else 1]
            left = abs(near[0] - level) > abs(near[-1] - level)  # write on the side where the dots are farther away
            ax.annotate(
                "no teacher",
                (0.01 if left else 0.99, level),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="left" if left else "right",
                fontsize=8,
                color=MUTED,
            )
        else:
            above = level > high
            ax.annotate(f"no teacher: {level:.3f} {'↑' if above else '↓'}", (0.98, 0.97 if above else 0.13),
                        xycoords="axes fraction", ha="right", va="top", fontsize=8, color=MUTED)  # fmt: skip
    ax.set_ylim(bottom, top)
    return means


def _beside(student: Student) -> np.ndarray:
    """Factors that spread the runs of one teacher a little to both sides of it, seed by seed, so that none hides
    another.
    """
    teachers, seeds = student.teachers, student.rows["seed"].rank(method="dense").fillna(1.0).to_numpy()
    reach = 0.018 * np.log(teachers[-1] / teachers[0])
    middle = (seeds.max() + 1) / 2
    return np.exp(reach * (seeds - middle) / max(middle - 1, 1))


def _span(low, high) -> tuple[float, float]:
    return float(np.min(low)), float(np.max(high))


def measured_optimum(law, student: Student):
    """The law's record of one measured student (`StudentOptimum`), or None."""
    if law is None or (law.provenance.get("protocol") or student.protocol) != student.protocol:
        return None
    for found in law.students:
        same = np.isclose(found.student_params, student.params, rtol=0.05)
        if same and (student.tokens is None or found.student_tokens in (None, student.tokens)):
            return found
    return None


def _title(ax: Axes, student: Student, optimum, means: pd.DataFrame, coordinate: str) -> None:
    joint = optimum.method("joint") if optimum is not None else None
    lowest = float(means["teacher"][means["value"].idxmin()])
    measured = f"lowest measured {place_text(lowest, coordinate)}"
    if joint is not None and joint.censored:
        verdict = f"law: {censored_text(joint.censored, coordinate)}; {measured}"
    elif joint is not None and joint.point is not None:
        verdict = f"law {teacher_text(joint.point, coordinate, student.params)}; {measured}"
    elif joint is not None:
        verdict = f"no optimum claimed; {measured}"
    elif len(means) < FEWEST_FOR_A_CURVE:
        verdict = f"{len(means)} teacher{'s' * (len(means) > 1)}: points, no curve"
    else:
        verdict = f"lowest measured {teacher_text(lowest, coordinate, student.params)}"
    ax.set_title(f"{student.size_label} student", fontsize=9.5, pad=17)
    ax.annotate(verdict, (0, 1), xycoords="axes fraction", xytext=(0, 5), textcoords="offset points", fontsize=8.2,
                color=ACCENT if joint is not None and joint.point is not None else MUTED)  # fmt: skip


def place_text(value: float, coordinate: str) -> str:
    """A teacher without its ratio: '14k' in parameters, '1.92 nats' in loss."""
    return size_text(value) if coordinate == "teacher_params" else f"{value:.3g} nats"


def teacher_text(value: float, coordinate: str, student_params: float) -> str:
    """A teacher for people: '14k (9×)' in parameters, '1.92 nats' in loss."""
    ratio = f" ({ratio_text(value / student_params)})" if coordinate == "teacher_params" else ""
    return place_text(value, coordinate) + ratio


def censored_text(censored: str, coordinate: str) -> str:
    """Where an optimum past the edge of the teachers lies; a low loss is a strong teacher."""
    return f"{'stronger' if is_stronger(censored, coordinate) else 'weaker'} than any tried"


def is_stronger(censored: str, coordinate: str) -> bool:
    """Whether an optimum past the edge ('low' or 'high' in the coordinate) lies past the strongest teacher."""
    return censored == ("high" if coordinate == "teacher_params" else "low")


def teacher_axis(ax: Axes, seen: View) -> None:
    """A logarithmic axis with a tick at every tried teacher; in loss, better teachers stand to the right."""
    ladder = seen.ladder
    ax.set_xscale("log")
    room = (ladder[-1] / ladder[0]) ** 0.06 if len(ladder) > 1 else 1.5
    left, right = ladder[0] / room, ladder[-1] * room
    ax.set_xlim((left, right) if seen.coordinate == "teacher_params" else (right, left))
    teacher_ticks(ax.xaxis, ladder, seen.coordinate)


def teacher_ticks(axis, teachers, coordinate: str, *, beyond: bool = False) -> None:
    """Ticks at these teachers, labelled in sizes or in nats; None: they are not known, and the axis has round
    numbers.
    """
    if teachers is not None:
        ticks_at(axis, teachers, size_text if coordinate == "teacher_params" else "{:.3g}".format, beyond=beyond)
    elif coordinate == "teacher_params":
        size_axis(axis)
    else:
        axis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axis.set_minor_formatter(lambda value, _: f"{value:.3g}")


def _fitted(ax: Axes, law, student: Student, means: pd.DataFrame) -> None:
    inside = np.geomspace(student.teachers[0], student.teachers[-1], _GRID_POINTS)
    try:
        ax.plot(inside, student_curve(law, student, means, inside), color=INK, lw=1.0, alpha=0.75, zorder=2)
    except GaplawError:
        return  # a law that refuses to predict leaves the measurements to speak


def student_curve(law, student: Student, means: pd.DataFrame, teachers) -> np.ndarray:
    """The law's loss of this student under these teachers, nats, at the level that was measured."""
    return law.predict(law_question(law, student, teachers)) + student_level(law, student, means)


def law_question(law, student: Student, teachers) -> pd.DataFrame:
    """The rows that ask a law for this student's loss under these teachers."""
    question = pd.DataFrame({law.coordinate: teachers, "student_params": student.params})
    return question if student.tokens is None else question.assign(student_tokens=student.tokens)


def student_level(law, student: Student, means: pd.DataFrame) -> float:
    """Mean of measured less predicted loss, nats: each student's own level is free in the law, so it is drawn at its
    own.
    """
    rest = means["value"].to_numpy() - law.predict(law_question(law, student, means["teacher"].to_numpy()))
    return float(np.average(rest, weights=means["runs"]))


def _mark_optimum(ax: Axes, optimum, coordinate: str) -> None:
    joint = optimum.method("joint")
    place = ax.get_xaxis_transform()  # x in data, y as a share of the height
    edge = sorted(ax.get_xlim())
    if joint.censored:
        tip, start = (1, -1) if is_stronger(joint.censored, coordinate) else (0, 1)
        ax.annotate("", (tip, 0.06), (tip + 0.16 * start, 0.06), xycoords="axes fraction",
                    arrowprops={"arrowstyle": "-|>", "color": ACCENT, "lw": 2})  # fmt: skip
        return
    if joint.point is None:
        return
    for (low, high), thick in ((joint.interval90, 1.3), (joint.interval50, 4.0)):
        ends = [edge[0] if low is None else max(low, edge[0]), edge[1] if high is None else min(high, edge[1])]
        ax.plot(ends, [0.06, 0.06], transform=place, color=ACCENT, lw=thick, solid_capstyle="butt", clip_on=True)
    ax.plot([joint.point], [0.06], "D", transform=place, color=ACCENT, ms=6, mec="white", zorder=5)
    ax.plot([joint.point] * 2, [0.06, 1], transform=place, color=ACCENT, lw=0.8, alpha=0.5)


def shared_labels(figure: Figure, seen: View, quantity: str) -> None:
    teacher = "teacher, non-embedding parameters" if seen.coordinate == "teacher_params" else "teacher loss, nats"
    figure.supxlabel(teacher, fontsize=9)
    figure.supylabel(quantity, fontsize=9)
