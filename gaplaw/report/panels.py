"""Which students get a panel of their own? So few that each can be read; the page names the others.

After view in the walk of the report.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gaplaw.report.view import View

MOST_PANELS_OF_A_PROTOCOL, MOST_PANELS = 6, 12


def representative(seen: View) -> View:
    """The same view with so few students that a panel each can be read: of every protocol some, evenly spaced by size.

    At most 6 of a protocol and about 12 in all; the largest is always among them, and the smallest where there are two.
    """
    blocks = seen.by_protocol.values()
    most = max(1, min(MOST_PANELS_OF_A_PROTOCOL, MOST_PANELS // max(len(blocks), 1)))
    drawn = []
    for own in blocks:
        last = len(own) - 1
        drawn += [own[i] for i in sorted({round(i) for i in np.linspace(last, 0, min(most, len(own)))})]
    return replace(seen, students=tuple(drawn))
