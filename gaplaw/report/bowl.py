"""What do T*, its interval and regret mean? One measured bowl with its words, for the glossary.

After figures in the walk of the report. Nothing is fitted here: the words stand where the law puts them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gaplaw.law import load_law
from gaplaw.report.figures import measured_optimum, student_curve, teacher_ticks
from gaplaw.report.style import ACCENT, INK, MUTED, SHADE, in_style, new_figure, size_text, svg
from gaplaw.report.view import paired, view
from gaplaw.results import read


@in_style
def bowl(cells: pd.DataFrame, law, *, student: int, width: float = 6.4) -> Figure:
    """One student's loss against teacher size, with T*, the 90 % interval of T* and the regret of the largest teacher.

    Dots are means over seeds. The curve is the law's; T* is its lowest point, and the regret of a teacher is the height
    of the curve there above that point.

    Args:
        cells: the results table that `gaplaw.read` returns.
        law: a law in teacher parameters, fitted to the table, not refused.
        student: which of the table's students, by size, from 0.
        width: inches.

    Returns:
        One matplotlib figure with one panel: teacher in non-embedding parameters, validation loss in nats.

    Raises:
        ValueError: the law has no interior optimum with an interval for this student.
    """
    seen = view(cells, "teacher_params")
    one = seen.students[student]
    found = measured_optimum(law, one)
    joint = found.method("joint") if found is not None else None
    if law.refused or joint is None or joint.point is None or None in joint.interval90:
        raise ValueError(f"student {one.label}: the law has no interior optimum with an interval to draw")
    means = paired(one).means
    largest = one.teachers[-1]
    low, high = joint.interval90
    best, worst = student_curve(law, one, means, np.array([joint.point, largest]))
    places = np.geomspace(one.teachers[0], largest, 160)
    curve = student_curve(law, one, means, places)
    figure = new_figure(width, 3.6)
    ax = figure.add_subplot()
    ax.set_xscale("log")
    ax.set_xlim(one.teachers[0] / 1.3, largest * 2.5)
    teacher_ticks(ax.xaxis, one.teachers, seen.coordinate)
    top = max(curve.max(), means["value"].max())
    reach = top - best
    ax.set_ylim(best - 0.28 * reach, top + 0.05 * reach)
    ax.axvspan(low, high, color=SHADE, zorder=0)
    ax.plot(places, curve, color=INK, lw=1.4)
    ax.plot(means["teacher"], means["value"], "o", ms=5, color=MUTED, zorder=3)
    ax.plot([joint.point], [best], "D", ms=7, color=ACCENT, mec="white", zorder=4)
    beside = largest * 1.15
    for left, height in ((joint.point, best), (largest, worst)):
        ax.plot([left, beside], [height, height], color=ACCENT, lw=0.9, ls=(0, (3, 2)), zorder=1)
    two_ends = {"arrowstyle": "<->", "color": ACCENT, "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (beside, worst), (beside, best), arrowprops=two_ends)
    floor = best - 0.11 * reach
    ax.annotate("", (low, floor), (high, floor), arrowprops=two_ends)
    words = {"fontsize": 9, "color": ACCENT}
    ax.text(beside * 1.08, (best + worst) / 2, f"regret of\n{size_text(largest)}:\n{worst - best:.3f} nats",
            va="center", **words)  # fmt: skip
    ax.text(joint.point, best + 0.09 * reach, f"T* = {size_text(joint.point)}", ha="center", **words)
    ax.text(joint.point, floor - 0.04 * reach, f"90 % interval of T*: {size_text(low)} to {size_text(high)}",
            ha="center", va="top", **words)  # fmt: skip
    ax.set_title(f"student of {one.size_label} parameters")
    ax.set_xlabel("teacher, non-embedding parameters")
    ax.set_ylabel("student's validation loss, nats")
    return figure


if __name__ == "__main__":
    run, out = sys.argv[1:]
    Path(out).write_text(svg(bowl(read(run), load_law(f"{run}/law.json"), student=1)), encoding="utf-8")
