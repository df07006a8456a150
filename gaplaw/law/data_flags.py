"""Is there enough of everything for a law: teachers and students, text to train on, and held-out text to measure with?

Helper of the flags of both fits, and of `gaplaw plan` and `run`, which say beforehand what a fit would refuse. Light:
no SciPy.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from gaplaw.law.flags import FEWEST_STUDENTS, FEWEST_TEACHERS, Flag
from gaplaw.spec import Sweep
from gaplaw.spec.sizes import count_params

# Up to about four epochs a repeated token is worth nearly as much as a new one, past that ever less: Muennighoff et al.
# 2023, Scaling Data-Constrained Language Models (arXiv 2305.16264).
MOST_EPOCHS = 4.0
# The standard error of a mean loss over n tokens is at least about loss / sqrt(n): in n-gram models of the embedded
# corpus the loss of one token spreads by 0.5 to 1.7 times its mean, and tokens of one window of 64 are alike, which
# makes it 1.2 to 4.1 times (benchmarks/token_spread.py). So 10,000 tokens leave 1 % or more.
FEWEST_HELD_OUT_TOKENS = 10_000


def grid_flags(teachers: int, sizes: int) -> Iterator[Flag]:
    """Refusals of a grid that is too small for a law.

    Args:
        teachers: the most that one student has met.
        sizes: distinct sizes of students.
    """
    if teachers < FEWEST_TEACHERS:
        yield Flag(
            "few_teachers",
            f"no student has met more than {teachers} teachers; at least {FEWEST_TEACHERS} on one grid are needed",
            "refusal",
        )
    if sizes < FEWEST_STUDENTS:
        yield Flag(
            "few_students",
            f"{sizes} student size{'s' if sizes > 1 else ''}; a law over sizes needs at least {FEWEST_STUDENTS}",
            "refusal",
        )


def sweep_warnings(sweep: Sweep) -> list[str]:
    """What `gaplaw fit` would refuse of a sweep's rows, a line for each reason; protocols are fitted apart."""
    sizes_by_protocol: dict[str, dict[int, set[int]]] = {}
    for cell in sweep.students:
        size = cell.target_params or count_params(cell.model).non_embedding
        sizes_by_protocol.setdefault(cell.protocol, {}).setdefault(size, set()).add(
            count_params(cell.teacher.model).non_embedding
        )
    return [
        f"gaplaw fit will refuse this grid ({protocol}): {flag.message}"
        for protocol, students in sizes_by_protocol.items()
        for flag in grid_flags(max(map(len, students.values())), len(students))
    ]


def text_flags(frame: pd.DataFrame) -> Iterator[Flag]:
    """Doubts about the text that rows were trained and measured on.

    Args:
        frame: rows that may know training_epochs and validation_tokens (a plan's do, too).
    """
    epochs, held_out = (_column_values(frame, name) for name in ("training_epochs", "validation_tokens"))
    many = epochs[epochs > MOST_EPOCHS]
    if len(many):
        yield Flag(
            "many_epochs",
            f"{len(many)} of {len(frame)} models see their training text up to {many.max():.3g} times; past about "
            f"{MOST_EPOCHS:g} "
            "times repeated text teaches less than new text would, so a law holds for this corpus, not for this many "
            "tokens",
            "warning",
        )
    if len(held_out) and 0 < held_out.min() < FEWEST_HELD_OUT_TOKENS:
        least = held_out.min()
        yield Flag(
            "few_held_out_tokens",
            f"losses are means over {least:,.0f} held-out tokens, whose standard error is about {least**-0.5:.1%} of "
            "the loss, or "
            f"more; at least {FEWEST_HELD_OUT_TOKENS:,} tokens are advised",
            "warning",
        )


def _column_values(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name].dropna() if name in frame else pd.Series(dtype=float)
