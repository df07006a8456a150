"""What else was measured? Losses by domain, fidelity to the teacher, and how much pairing by seed cancels.

After figures in the walk of the report. Every function takes the frame that `gaplaw.read` returns and returns one
matplotlib figure.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from gaplaw.report.figures import NOTHING, shared_labels, student_panels, teacher_axis
from gaplaw.report.style import (
    ACCENT,
    FEWEST_FOR_A_CURVE,
    GRID,
    INK,
    MUTED,
    WIDE,
    colours,
    empty,
    grouped_panels,
    in_style,
    joined,
    markers,
    unordered_colours,
)
from gaplaw.report.view import Paired, domains, paired, view


@in_style
def domain_losses(cells: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """Is the best teacher the same in every domain? Loss above the domain's own best teacher, one panel per student.

    Means over seeds of each domain's validation loss, less the lowest of them; zero marks the domain's best teacher.
    """
    seen = view(cells)
    students = [s for s in seen.students if domains(s.rows)]
    if not students:
        return empty(width, "No losses by domain were recorded.")
    seen = replace(seen, students=tuple(students))
    figure, axes = student_panels(width, seen, height=2.6)
    names = sorted({d for s in students for d in domains(s.rows)})
    colour, mark = unordered_colours(names), markers(names)
    for ax, student in zip(axes, students, strict=True):
        fewest = len(student.teachers)
        for domain, column in domains(student.rows).items():
            means = paired(student, column).means
            fewest = min(fewest, len(means) or fewest)
            gap = means["value"] - means["value"].min()
            style = {"marker": mark[domain], "color": colour[domain]} | joined(len(means))
            ax.plot(means["teacher"], gap, ms=4, lw=1.2, **style)
        teacher_axis(ax, seen)
        ax.set_ylim(bottom=-0.04 * ax.get_ylim()[1])
        ax.set_title(f"{student.size_label} student{few_text(fewest)}")
    handles = [Line2D([], [], color=colour[n], marker=mark[n], ms=4, label=n.replace("_", " ")) for n in names]
    figure.legend(handles=handles, loc="outside upper center", ncols=3 if width < 6 else 8)
    shared_labels(figure, seen, "nats above the domain's best teacher")
    return figure


def few_text(count: int) -> str:
    """What a panel says where its points are too few for a curve."""
    return "" if count >= FEWEST_FOR_A_CURVE else f"\n{count} teacher{'s' * (count > 1)}: points, no curve"


_FIDELITY = {
    "kl_teacher_student_nats": "KL(teacher ‖ student), nats",
    "agreement": "same first choice, share",
    "calibration_error": "calibration error",
}


@in_style
def fidelity(cells: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """How closely do students follow their teachers, and how well do they know what they know? KL, agreement,
    calibration.
    """
    seen = view(cells)
    known = {
        c: text for c, text in _FIDELITY.items() if any(c in s.rows and s.rows[c].notna().any() for s in seen.students)
    }
    if not known:
        return empty(width, "Fidelity to the teacher was not recorded.")
    blocks = seen.by_protocol
    figure, axes = grouped_panels(width, dict.fromkeys(blocks, len(known)), height=2.6)
    colour, mark = colours(s.params for s in seen.students), markers(s.size_label for s in seen.students)
    itself = {"ls": "--"} if len(seen.teachers) >= FEWEST_FOR_A_CURVE else {"marker": "x", "ms": 5, "ls": ""}
    places = [(own, column, text) for own in blocks.values() for column, text in known.items()]
    for ax, (students, column, text) in zip(axes, places, strict=True):
        fewest = FEWEST_FOR_A_CURVE
        for student in students:
            means = paired(student, column).means
            fewest = min(fewest, len(means) or fewest)
            style = {"marker": mark[student.size_label], "color": colour[student.params]} | joined(len(means))
            ax.plot(means["teacher"], means["value"], ms=4, lw=1.2, **style)
        if column == "calibration_error" and column in seen.teachers and seen.coordinate == "teacher_params":
            own = seen.teachers.sort_values("student_params")
            ax.plot(own["student_params"], own["calibration_error"], color=MUTED, lw=1.2, **itself)
        teacher_axis(ax, seen)
        ax.set_title(text + few_text(fewest), fontsize=9)
    sizes = {s.size_label: colour[s.params] for s in seen.students}
    handles = [Line2D([], [], color=c, marker=mark[name], ms=4, label=name) for name, c in sizes.items()]
    handles.append(Line2D([], [], color=MUTED, label="the teacher itself", **itself))
    figure.legend(handles=handles, title="student", loc="outside upper center", ncols=3 if width < 6 else 8)
    shared_labels(figure, seen, "")
    return figure


@in_style
def seed_pairing(cells: pd.DataFrame, *, width: float = WIDE) -> Figure:
    """How much does pairing cancel? Spread of the difference between two teachers, seeds unpaired and paired, per
    student.

    One run's spread around its teacher's mean times √2, before (hollow) and after (full) removing the seed effect,
    beside the gap that is to be seen: largest teacher's mean less the best one's (bar).
    """
    seen = view(cells)
    if not seen.students:
        return empty(width, NOTHING)
    rows = [(s, paired(s)) for s in seen.students]
    rows = [(s, p) for s, p in rows if np.isfinite(p.paired_sd) and p.paired_sd > 0]
    if not rows:
        return empty(width, "One seed per student: what pairing cancels cannot be measured.")
    blocks: dict[str, list] = {}
    for student, split in rows:
        blocks.setdefault(student.protocol_label, []).append((student, split))
    most = max(len(own) for own in blocks.values())
    figure, axes = grouped_panels(min(width, 6.4), dict.fromkeys(blocks, 1), height=0.9 + 0.42 * most, most=1)
    colour = colours(s.params for s in seen.students)
    for ax, own in zip(axes, blocks.values(), strict=True):
        for line, (student, split) in enumerate(own):
            _spread_line(
                ax, line, split, colour[student.params], strongest=-1 if seen.coordinate == "teacher_params" else 0
            )
        ax.set_xscale("log")
        ax.set_yticks(range(len(own)), [s.size_label for s, _ in own])
        ax.set_ylim(most - 0.4, -0.6)
        ax.set_ylabel("student")
    ends = [ax.get_xlim() for ax in axes]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    for ax in axes:  # one scale for all protocols
        ax.set_xlim(low, high)
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 60 else (1.0,)))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.10f}".rstrip("0").rstrip("."))
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[-1].set_xlabel("nats (at the right: spread unpaired ÷ paired)")
    handles = [
        Line2D([], [], ls="", marker="o", mfc="white", mec=INK, ms=8, label="seeds unpaired"),
        Line2D([], [], ls="", marker="o", color=INK, ms=8, label="seeds paired"),
        Line2D([], [], ls="", marker="|", color=ACCENT, ms=13, mew=2.4, label="largest minus best teacher"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=1 if width < 6 else 3)
    return figure


def _spread_line(ax: Axes, line: int, split: Paired, shade: str, *, strongest: int) -> None:
    after, before = np.sqrt(2) * split.paired_sd, np.sqrt(2) * split.unpaired_sd
    value = split.means["value"].to_numpy()
    gap = value[strongest] - value.min()
    ax.plot([after, before], [line, line], color=GRID, lw=3, zorder=1)
    ax.plot(before, line, "o", mfc="white", mec=shade, ms=8, mew=1.6)
    ax.plot(after, line, "o", color=shade, ms=8)
    if gap > 0:
        ax.plot(gap, line, "|", color=ACCENT, ms=15, mew=2.4)
    ax.annotate(f"÷{before / after:.1f}", (1, line), xycoords=ax.get_yaxis_transform(), xytext=(5, 0),
                textcoords="offset points", va="center", fontsize=8.5, color=MUTED)  # fmt: skip
