"""What else was measured? Losses by domain, fidelity to the teacher, and how much pairing by seed cancels.

After figures in the walk of analysis. Every function takes the frame that `gaplaw.read` returns and returns one matplotlib figure.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import shared_labels, teacher_axis
from analysis.style import (
    ACCENT,
    GRID,
    INK,
    MUTED,
    WIDE,
    colours,
    empty,
    in_style,
    markers,
    new_figure,
    panels,
    unordered_colours,
)
from analysis.view import domains, paired, view


@in_style
def domain_losses(cells: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """Is the best teacher the same in every domain? Loss above the domain's own best teacher, one panel per student.

    Means over seeds of each domain's validation loss, less the lowest of them; zero marks the domain's best teacher.
    """
    seen = view(cells)
    students = [s for s in seen.students if domains(s.rows)]
    if not students:
        return empty(width, "No losses by domain were recorded.")
    figure, axes = panels(width, len(students), height=2.6)
    names = sorted({d for s in students for d in domains(s.rows)})
    colour, mark = unordered_colours(names), markers(names)
    for ax, student in zip(axes, students, strict=True):
        for domain, column in domains(student.rows).items():
            means = paired(student, column).means
            gap = means["value"] - means["value"].min()
            ax.plot(means["teacher"], gap, marker=mark[domain], ms=4, lw=1.2, color=colour[domain])
        teacher_axis(ax, seen)
        ax.set_ylim(bottom=-0.04 * ax.get_ylim()[1])
        ax.set_title(f"{student.label} student")
    handles = [Line2D([], [], color=colour[n], marker=mark[n], ms=4, label=n.replace("_", " ")) for n in names]
    figure.legend(handles=handles, loc="outside upper center", ncols=3 if width < 6 else 8)
    shared_labels(figure, seen, "nats above the domain's best teacher")
    return figure


_FIDELITY = {
    "kl_teacher_student_nats": "KL(teacher ‖ student), nats",
    "agreement": "same first choice, share",
    "calibration_error": "calibration error",
}


@in_style
def fidelity(cells: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """How closely do students follow their teachers, and how well do they know what they know? KL, agreement, calibration."""
    seen = view(cells)
    known = {
        c: text for c, text in _FIDELITY.items() if any(c in s.rows and s.rows[c].notna().any() for s in seen.students)
    }
    if not known:
        return empty(width, "Fidelity to the teacher was not recorded.")
    figure, axes = panels(width, len(known), height=2.6)
    colour, mark = colours(s.params for s in seen.students), markers(s.label for s in seen.students)
    for ax, (column, text) in zip(axes, known.items(), strict=True):
        for student in seen.students:
            means = paired(student, column).means
            ax.plot(
                means["teacher"], means["value"], marker=mark[student.label], ms=4, lw=1.2, color=colour[student.params]
            )
        if (
            column == "calibration_error"
            and "calibration_error" in seen.teachers
            and seen.coordinate == "teacher_params"
        ):
            own = seen.teachers.sort_values("student_params")
            ax.plot(own["student_params"], own["calibration_error"], "--", color=MUTED, lw=1.2)
        teacher_axis(ax, seen)
        ax.set_title(text, fontsize=9)
    handles = [Line2D([], [], color=colour[s.params], marker=mark[s.label], ms=4, label=s.label) for s in seen.students]
    handles.append(Line2D([], [], color=MUTED, ls="--", label="the teacher itself"))
    figure.legend(handles=handles, title="student", loc="outside upper center", ncols=3 if width < 6 else 8)
    shared_labels(figure, seen, "")
    return figure


@in_style
def seed_pairing(cells: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """How much does pairing cancel? Spread of the difference between two teachers, seeds unpaired and paired, per student.

    One run's spread around its teacher's mean times √2, before (hollow) and after (full) removing the seed effect, beside the
    gap that is to be seen: largest teacher's mean less the best one's (bar).
    """
    seen = view(cells)
    rows = [(s, paired(s)) for s in seen.students]
    rows = [(s, p) for s, p in rows if np.isfinite(p.paired_sd) and p.paired_sd > 0]
    if not rows:
        return empty(width, "One seed per student: what pairing cancels cannot be measured.")
    figure = new_figure(min(width, 6.4), 1.1 + 0.42 * len(rows))
    ax = figure.subplots()
    colour = colours(s.params for s in seen.students)
    for line, (student, split) in enumerate(rows):
        after, before = np.sqrt(2) * split.paired_sd, np.sqrt(2) * split.unpaired_sd
        value = split.means["value"].to_numpy()
        strongest = -1 if seen.coordinate == "teacher_params" else 0
        gap = value[strongest] - value.min()
        shade = colour[student.params]
        ax.plot([after, before], [line, line], color=GRID, lw=3, zorder=1)
        ax.plot(before, line, "o", mfc="white", mec=shade, ms=8, mew=1.6)
        ax.plot(after, line, "o", color=shade, ms=8)
        if gap > 0:
            ax.plot(gap, line, "|", color=ACCENT, ms=15, mew=2.4)
        ax.annotate(f"÷{before / after:.1f}", (np.sqrt(before * after), line), xytext=(0, 5), textcoords="offset points",
                    ha="center", fontsize=8, color=MUTED)  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    ax.tick_params(axis="x", which="minor", labelsize=8)
    ax.set_yticks(range(len(rows)), [s.label for s, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("nats")
    ax.set_ylabel("student")
    handles = [
        Line2D([], [], ls="", marker="o", mfc="white", mec=INK, ms=8, label="seeds unpaired"),
        Line2D([], [], ls="", marker="o", color=INK, ms=8, label="seeds paired"),
        Line2D([], [], ls="", marker="|", color=ACCENT, ms=13, mew=2.4, label="largest minus best teacher"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=1 if width < 6 else 3)
    return figure
