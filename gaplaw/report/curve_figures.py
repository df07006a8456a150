"""When does the teacher matter? Validation loss against tokens, of teachers, of students and of students alone.

After figures in the walk of the report. Takes the two frames that `gaplaw.read` returns and returns one matplotlib
figure.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gaplaw.report.style import (
    FEWEST_FOR_A_CURVE,
    INK,
    WIDE,
    colours,
    empty,
    grouped_panels,
    in_style,
    joined,
    size_axis,
    size_text,
)
from gaplaw.report.view import averaged_curves, view


@in_style
def loss_curves(cells: pd.DataFrame, curves: pd.DataFrame | None, *, width: float = WIDE) -> Figure:
    """Validation loss against tokens, means over seeds: what each teacher changes, and when.

    The first panel has the teachers, and the students alone (dashed). The others have one student each: its loss under
    every teacher, and alone (dashed), less the mean over its teachers at the same tokens.
    """
    seen = view(cells)
    column = "validation_loss_nats"
    if curves is None or curves.empty or column not in curves or not curves[column].notna().any():
        return empty(width, "No loss curves were recorded.")
    alone = [averaged_curves(curves, s.baseline, "student_params").add_prefix("alone ") for s in seen.students]
    distilled = [averaged_curves(curves, s.rows, "teacher") for s in seen.students]
    teachers = averaged_curves(curves, seen.teachers, "student_params")
    each = {frozenset(s.baseline["cell_id"]): frame for s, frame in zip(seen.students, alone, strict=True)}
    first = pd.concat([teachers, *each.values()], axis=1).sort_index()  # protocols may share their baselines
    blocks = {name: len(own) for name, own in seen.by_protocol.items()}
    blocks = {"": 1 + len(seen.students)} if len(blocks) < 2 else {"": 1} | blocks
    figure, axes = grouped_panels(width, blocks, height=2.6)
    colour = colours(
        [*teachers.columns, *(t for frame in distilled for t in frame.columns)], palette="plasma", high=0.8
    )
    _draw_curves(axes[0], first, {size: colour[size] for size in teachers.columns})
    axes[0].set_title("teachers and students alone", fontsize=9)
    for ax, student, frame, own in zip(axes[1:], seen.students, distilled, alone, strict=True):
        together = frame.join(own, how="left")
        _draw_curves(ax, together.sub(frame.mean(axis=1, skipna=False), axis=0).loc[frame.index], colour)
        few = f" ({len(frame)} evaluations: points)" if len(frame) < FEWEST_FOR_A_CURVE else ", less the mean"
        ax.set_title(f"{student.size_label} student{few}", fontsize=9)
    handles = [Line2D([], [], color=c, lw=2, label=size_text(k)) for k, c in colour.items()]
    handles.append(Line2D([], [], color=INK, ls=_DASHED, label="no teacher"))
    figure.legend(handles=handles, title="teacher", loc="outside upper center", ncols=4 if width < 6 else 10)
    figure.supylabel("validation loss, nats", fontsize=9)
    return figure


_DASHED = (0, (4, 2))


def _draw_curves(ax: Axes, lines: pd.DataFrame, colour: dict) -> None:
    """Columns against tokens; what has no colour is a student alone. The first fall stays out of view."""
    for name, line in lines.items():
        line = line.dropna()
        style = {"color": colour[name], "lw": 1.3} if name in colour else {"color": INK, "lw": 1.2, "ls": _DASHED}
        few = len(line) < FEWEST_FOR_A_CURVE
        ax.plot(line.index, line.to_numpy(), **style | ({"marker": "o", "ms": 3.5} | joined(len(line)) if few else {}))
    framed = lines[[name for name in lines if name in colour]] if len(colour) else lines
    late = framed[framed.index >= 0.1 * framed.index.max()]
    if late.notna().any(axis=None):
        low, high = float(late.min().min()), float(late.max().max())
        rest = lines.drop(columns=list(framed)).loc[late.index]
        if rest.notna().any(axis=None):  # a student alone widens the frame, up to twice the height
            reach = high - low
            low, high = (
                max(min(low, float(rest.min().min())), low - reach),
                min(max(high, float(rest.max().max())), high + reach),
            )
        pad = 0.06 * (high - low) or 0.001
        ax.set_ylim(low - pad, high + pad)
    ax.set_xscale("log")
    size_axis(ax.xaxis)
    ax.set_xlabel("tokens")
