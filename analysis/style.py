"""How does everything that the project draws look? One restrained style: light, colour-blind safe, readable on a phone.

First file of analysis, last stop of the walk before the notebooks. Students take their colour from their place in the order
of sizes, so one size has one colour on every figure of a page. Figures are drawn at one of two widths, `WIDE` (a page) and
`NARROW` (a phone), with the same text size at both; the report shows whichever fits.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

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
    columns = max(1, min(count, most, round(width / 3.1)))
    rows = -(-count // columns)
    figure = new_figure(width, rows * height)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def colours(keys: Iterable, *, palette: str = "viridis", low: float = 0.05, high: float = 0.78) -> dict:
    """One colour per key in sorted order, dark to light along a perceptually even, colour-blind-safe scale."""
    keys = sorted(set(keys))
    scale = matplotlib.colormaps[palette]
    step = (high - low) / max(len(keys) - 1, 1)
    return {key: matplotlib.colors.to_hex(scale(low + step * i)) for i, key in enumerate(keys)}


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")


def markers(keys: Iterable) -> dict:
    """One marker per key, so that colour is never the only difference."""
    return {key: MARKERS[i % len(MARKERS)] for i, key in enumerate(sorted(set(keys)))}


def size_text(count: float | None) -> str:
    """Three significant digits and a unit for people: 1536 → '1.54k', 190e6 → '190M'."""
    if count is None or count != count:
        return "unknown"
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= 0.9995 * unit:
            return f"{float(f'{count / unit:.3g}'):g}{letter}"
    return f"{float(f'{count:.3g}'):g}"


def ratio_text(ratio: float) -> str:
    return f"{float(f'{ratio:.2g}'):g}×"


def size_axis(axis, at: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis in sizes: at the given values where they leave room, else at 1, 2 and 5 of each decade."""
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    if at is None or len(at) == 0:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        return
    axis.set_major_locator(FixedLocator(thinned(sorted(set(at)))))


def thinned(values: Sequence[float], least_share: float = 0.13) -> list[float]:
    """Values far enough apart (in logs, as a share of their span) for their labels not to touch; both ends stay."""
    if len(values) < 3:
        return list(values)
    span = math.log(values[-1] / values[0])
    kept = [values[0]]
    for value in values[1:-1]:
        if math.log(value / kept[-1]) >= least_share * span and math.log(values[-1] / value) >= least_share * span:
            kept.append(value)
    return [*kept, values[-1]]


def note(axes: Axes, text: str) -> None:
    """A sentence in the middle of axes that have nothing to show."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes, wrap=True)


@in_style
def empty(width: float, text: str) -> Figure:
    """A figure that says what is missing."""
    figure = new_figure(width, 1.0)
    note(figure.add_subplot(), text)
    return figure


def svg(figure: Figure) -> str:
    """The figure as one SVG document, without date or creator, so that the same data gives the same page."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "gaplaw"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
