"""How does everything that the project draws look? One restrained style: light, colour-blind safe, readable on a phone.

First file of analysis, last stop of the walk before the notebooks. Students take their colour from their place in the order
of sizes, so one size has one colour on every figure of a page. Figures are drawn at one of two widths, `WIDE` (a page) and
`NARROW` (a phone), with the same text size at both; the report shows whichever fits.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from gaplaw.sizes import size_name

WIDE, NARROW = 9.6, 3.9  # inches; at 100 CSS pixels an inch, a text column and a phone

INK, MUTED, GRID, PAPER = "#1f2933", "#5c6773", "#e3e7eb", "#ffffff"
ACCENT, SHADE, WARNING, PUBLISHED = "#b5371f", "#f1f3f5", "#8a5a00", "#6b4fa0"

_RC = {
    "figure.facecolor": PAPER,
    "figure.dpi": 100,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "svg.hashsalt": "gaplaw",  # the same figure gives the same bytes
    "axes.formatter.useoffset": False,
}


def in_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make a drawing function use the house style, and leave the caller's matplotlib settings as they were."""

    @functools.wraps(draw)
    def styled(*args, **kwargs):
        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return styled


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to no pyplot state, so a library call leaves nothing open."""
    return Figure(figsize=(width, height), layout="constrained")


def panels(width: float, count: int, *, height: float = 2.7, most: int = 3, sharex=False, sharey=False):
    """A figure with `count` panels in rows of as many as fit the width. Returns the figure and its axes."""
    rows = -(-count // max(1, min(most, round(width / 3.1))))
    columns = -(-count // rows)  # four panels stand two by two, not three and one
    figure = new_figure(width, rows * height)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def colours(keys: Iterable, *, palette: str = "viridis", low: float = 0.0, high: float = 0.68) -> dict:
    """One colour per key in sorted order, dark to light along a perceptually even, colour-blind-safe scale."""
    keys = sorted(set(keys))
    scale = matplotlib.colormaps[palette]
    step = (high - low) / max(len(keys) - 1, 1)
    return {key: matplotlib.colors.to_hex(scale(low + step * i)) for i, key in enumerate(keys)}


# Okabe and Ito's colours for things without an order, without their yellow, which is too light for lines.
_UNORDERED = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1f2933")


def unordered_colours(keys: Iterable) -> dict:
    """One colour-blind-safe colour per key, for keys without an order; repeats after seven."""
    return {key: _UNORDERED[i % len(_UNORDERED)] for i, key in enumerate(sorted(set(keys)))}


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")


def markers(keys: Iterable) -> dict:
    """One marker per key, so that colour is never the only difference."""
    return {key: MARKERS[i % len(MARKERS)] for i, key in enumerate(sorted(set(keys)))}


def size_text(count: float | None) -> str:
    """A size for people, as in the names of cells: 1536 → '1.5k', 190e6 → '190M'."""
    return "unknown" if count is None or not math.isfinite(count) else size_name(round(count))


def ratio_text(ratio: float) -> str:
    return f"{float(f'{ratio:.2g}'):g}×"


def size_axis(axis, at: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis in sizes: the given ones where they leave room, else 1, 2 and 5 of each decade."""
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    if at is None or len(at) == 0:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        return
    inches = axis.axes.get_position().width * axis.get_figure().get_figwidth()
    axis.set_major_locator(FixedLocator(thinned(sorted(set(at)), _LABEL_INCHES / inches)))


_LABEL_INCHES = 0.4  # room that one size label needs


def thinned(values: Sequence[float], least_share: float) -> list[float]:
    """Values far enough apart (in logs, as a share of their span) for their labels not to touch; both ends stay."""
    if len(values) < 3:
        return list(values)
    span = math.log(values[-1] / values[0])
    kept = [values[0]]
    for value in values[1:-1]:
        if min(math.log(value / kept[-1]), math.log(values[-1] / value)) >= least_share * span:
            kept.append(value)
    return [*kept, values[-1]]


@in_style
def empty(width: float, text: str) -> Figure:
    """A figure that says what is missing; `missing` tells it from a drawn one."""
    figure = new_figure(width, 1.0)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes, wrap=True)
    figure.set_label(text)
    return figure


def missing(figure: Figure) -> str:
    """What a figure made by `empty` says; an empty text for a drawn one."""
    return figure.get_label()


def svg(figure: Figure) -> str:
    """The figure as one SVG document, without date or creator, so that the same data gives the same page."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "gaplaw"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _LONG_NUMBER.sub(r"\1", out.getvalue())


# A hundredth of a point is invisible; numbers below 1 stay whole, because scales are among them.
_LONG_NUMBER = re.compile(r"\b([1-9]\d*\.\d\d)\d+")
