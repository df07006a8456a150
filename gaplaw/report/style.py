"""How does everything that the project draws look? One restrained style: light, colour-blind safe, readable on a phone.

First file of the report, last stop of the walk before the notebooks. Students take their colour from their place in the
order of sizes, so one size has one colour on every figure of a page. Figures are drawn at one of two widths, `WIDE` (a
page) and `NARROW` (a phone), with the same text size at both; the report shows whichever fits.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from gaplaw.spec.sizes import size_name

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
    "axes.titley": 1.0,  # where it would be anyway; else it is looked for in every layout and drawing
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
    "text.parse_math": False,  # a $ in a name is a $
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


def panels(width: float, count: int, *, height: float = 2.7, most: int = 3):
    """A figure with `count` panels in rows of as many as fit the width. Returns the figure and its axes."""
    return grouped_panels(width, {"": count}, height=height, most=most)


def grouped_panels(width: float, groups: Mapping[str, int], *, height: float = 2.7, most: int = 3):
    """A figure with a block of panels for each group, under its name. Returns the figure and all axes, in order."""
    fit = max(1, min(most, round(width / 3.1)))
    if len(groups) == 1:  # four panels stand two by two, not three and one; groups keep one width of panel
        (count,) = groups.values()
        fit = -(-count // -(-count // fit))
    fit = min(fit, max(groups.values()))
    rows = {name: -(-count // fit) for name, count in groups.items()}
    heights = [rows[name] * height + (_HEADING_INCHES if name else 0.0) for name in groups]
    figure = new_figure(width, sum(heights))
    blocks = (
        figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0] if len(groups) > 1 else [figure]
    )
    axes = []
    for block, (name, count) in zip(blocks, groups.items(), strict=True):
        grid = list(block.subplots(rows[name], fit, squeeze=False).flat)
        if name:
            block.suptitle(name[0].upper() + name[1:], x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        for spare in grid[count:]:
            spare.remove()
        axes += grid[:count]
    return figure, axes


_HEADING_INCHES = 0.3


def joined(points: int) -> dict:
    """How measured points are drawn: joined by a line from three on; two points would only look like a curve."""
    return {"ls": "-"} if points >= FEWEST_FOR_A_CURVE else {"ls": ""}


FEWEST_FOR_A_CURVE = 3


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


def size_axis(axis, at: Sequence[float] | None = None, *, beyond: bool = False) -> None:
    """Label a logarithmic axis in sizes: at the given ones, else at 1, 2 and 5 of each decade. See `ticks_at`."""
    if at is None or len(at) == 0:
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    else:
        ticks_at(axis, at, size_text, beyond=beyond)


def ticks_at(axis, values: Sequence[float], text: Callable[[float], str], *, beyond: bool = False) -> None:
    """A tick at each value of a logarithmic axis, and a label where it leaves room.

    Args: beyond: outside the values, 1, 2 and 5 of each decade have ticks too.
    """
    values = sorted(set(map(float, values)))
    low, high = sorted(axis.get_view_interval())
    inches = _axis_inches(axis)
    upright = axis.axis_name == "y"

    def room(one: float, other: float) -> float:
        """Distance that two labels need, in units of ln value."""
        letters = (len(text(one)) + len(text(other))) / 2
        return (_LINE_INCHES if upright else letters * _LETTER_INCHES + _GAP_INCHES) / inches * math.log(high / low)

    labelled = thinned(values, room)
    if beyond:
        decades = (step * 10.0**power for power in range(-3, 16) for step in (1, 2, 5))
        outside = [v for v in decades if low <= v <= high and not values[0] <= v <= values[-1]]
        for value in sorted(outside, key=lambda v: min(abs(math.log(v / values[0])), abs(math.log(v / values[-1])))):
            if all(abs(math.log(value / other)) >= 2 * room(value, other) for other in labelled):
                labelled.append(value)
    axis.set_major_locator(FixedLocator(sorted(labelled)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(FixedLocator([value for value in values if value not in labelled]))
    axis.set_minor_formatter(NullFormatter())


_LETTER_INCHES, _GAP_INCHES, _LINE_INCHES = 0.076, 0.06, 0.19  # of tick labels at 8.5 points
_MARGIN_INCHES = 0.6  # what tick labels and titles beside a panel take


def _axis_inches(axis) -> float:
    """About how long the axis will be once the layout is done."""
    figure, spec = axis.axes.figure, axis.axes.get_subplotspec()
    rows, columns = spec.get_gridspec().get_geometry()
    whole = figure.bbox.width if axis.axis_name == "x" else figure.bbox.height
    return max(whole / figure.dpi / (columns if axis.axis_name == "x" else rows) - _MARGIN_INCHES, 0.5)


def thinned(values: Sequence[float], room: Callable[[float, float], float]) -> list[float]:
    """Ascending values whose labels do not touch: each `room(one, other)` apart in ln value; both ends stay if they
    can.
    """

    def apart(one: float, other: float) -> bool:
        return math.log(other / one) >= room(one, other)

    first, last = values[0], values[-1]
    if first == last or not apart(first, last):
        return [first]
    kept = [first]
    for value in values[1:-1]:
        if apart(kept[-1], value) and apart(value, last):
            kept.append(value)
    return [*kept, last]


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
    """The figure as one SVG document, without date or creator, so that the same data gives the same page.

    The picture is that of `savefig`, which would draw everything a second time for the sake of the layout.
    """
    _leave_out_of_layout(figure)
    out, dpi = io.StringIO(), figure.dpi
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "gaplaw"}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    figure.dpi = dpi
    return _LONG_NUMBER.sub(r"\1", out.getvalue())


def _leave_out_of_layout(figure: Figure) -> None:
    """Have no place sought for labels without text, nor for the lines beside ticks: neither moves anything, both take
    long.
    """
    for axes in figure.axes:
        for spine in axes.spines.values():
            spine.set_in_layout(False)
        for axis in (axes.xaxis, axes.yaxis):
            if not axis.get_label_text():
                axis.set_label_coords(0.5, 0.5)


# A hundredth of a point is invisible; numbers below 1 stay whole, because scales are among them.
_LONG_NUMBER = re.compile(r"\b([1-9]\d*\.\d\d)\d+")
