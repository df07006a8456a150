"""What does the walk look like? `python -m tests.draw_walk` draws docs/walk.svg from the imports of the package.

An arrow that follows from others is left out: sweep imports spec, too, but data does so already.
"""

from tests.conftest import ROOT
from tests.test_house import gaplaw_imports, stop_of

PICTURE = ROOT / "docs" / "walk.svg"
FEET = ("credentials", "errors", "packages", "files", "canonical", "columns", "objects", "rows")  # one box
PLACES = {  # box: column, row
    "feet": (0, 1.5),
    "methods": (1, 1.5),
    "spec": (2, 1.5),
    "models": (3, 0),
    "distill": (3, 1),
    "data": (3, 2),
    "results": (3, 3),
    "train": (4, 0.5),
    "law": (4, 3),
    "sweep": (5, 1),
    "report": (5, 3),
    "cli": (6, 1.5),
}
WIDTH, HEIGHT, ACROSS, DOWN, EDGE = 84, 30, 112, 50, 12
INK, LINE, PLAIN, JAX = "#222222", "#8a8a8a", "#f4f4f2", "#f6dcc0"


def imports():
    """({box: boxes that it imports}, the boxes that import JAX when they are loaded), functions looked into."""
    found, with_jax = {name: set() for name in PLACES}, set()
    for path in sorted((ROOT / "gaplaw").rglob("*.py")):
        room = box_of(stop_of(path))
        if room == "__init__":
            continue
        found[room] |= {box_of(name) for name in gaplaw_imports(path, top_level_only=False)} & {*PLACES} - {room}
        if any(line.startswith(("import jax", "from jax")) for line in path.read_text().splitlines()):
            with_jax.add(room)
    return found, with_jax


def box_of(name):
    return "feet" if name in FEET else name


def reached(found, room):
    return {room}.union(*(reached(found, other) for other in found[room]))


def arrows(found):
    """Pairs (room, what it imports), without those that follow from others."""
    return sorted(
        (room, other)
        for room, others in found.items()
        for other in others
        if not any(other in reached(found, third) for third in others - {other})
    )


def corner(room):
    column, row = PLACES[room]
    return EDGE + ACROSS * column, EDGE + DOWN * row


def box(room, with_jax):
    x, y = corner(room)
    names, height = (room,), HEIGHT
    if room == "feet":
        names, height = FEET, 3 * DOWN + HEIGHT
        y = EDGE
    first = y + height / 2 + 4 - 8.5 * (len(names) - 1)
    yield (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{height}" rx="4" '
        f'fill="{JAX if room in with_jax else PLAIN}" '
        f'stroke="{LINE}"/>'
    )
    for number, name in enumerate(names):
        yield f'<text x="{x + WIDTH / 2:g}" y="{first + 17 * number:g}">{name}</text>'


def arrow(room, other):
    x, y = corner(room)
    to_x, to_y = corner(other)
    assert to_x < x, f"{room} imports {other}, which stands beside or after it"
    middle = HEIGHT / 2
    return f'<path d="M{x:g} {y + middle:g}L{to_x + WIDTH + 2:g} {to_y + middle:g}"/>'


def drawing():
    """The picture, as the text of an SVG file."""
    found, with_jax = imports()
    width, height = 2 * EDGE + 6 * ACROSS + WIDTH, 2 * EDGE + 3 * DOWN + HEIGHT
    title = "Rooms of gaplaw: an arrow points from a room to one that it imports; shaded rooms import JAX"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13" text-anchor="middle">',
        f"<title>{title}</title>",
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<g fill="none" stroke="{LINE}" stroke-width="1.2" marker-end="url(#head)">',
        *(arrow(*pair) for pair in arrows(found)),
        "</g>",
        f'<g fill="{INK}">',
        *(line for room in PLACES for line in box(room, with_jax)),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
