"""Is there enough of everything for a law: teachers and students, text to train on, and held-out text to measure with?

Helper of the flags of both fits, and of `gaplaw plan` and `run`, which say beforehand what a fit would refuse. Light:
no SciPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gaplaw.law.flags import FEWEST_STUDENTS, FEWEST_TEACHERS, Flag
from gaplaw.spec import Sweep
from gaplaw.spec.sizes import count_params

if TYPE_CHECKING:
    import pandas as pd

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
    """Doubts about the text that rows were trained and measured on, for rows that say how much there was."""
    known = ([*frame[name].dropna()] if name in frame else [] for name in ("training_epochs", "validation_tokens"))
    return flags_of_text(*known, models=len(frame))


def flags_of_text(epochs: Sequence[float], held_out_tokens: Sequence[float], *, models: int) -> Iterator[Flag]:
    """The same from the numbers that are known of some models."""
    many = [times for times in epochs if times > MOST_EPOCHS]
    if many:
        yield Flag(
            "many_epochs",
            f"{len(many)} of {models} models see their training text up to {max(many):.3g} times; past about "
            f"{MOST_EPOCHS:g} "
            "times repeated text teaches less than new text would, so a law holds for this corpus, not for this "
            "many tokens",
            "warning",
        )
    least = min(held_out_tokens, default=0)
    if 0 < least < FEWEST_HELD_OUT_TOKENS:
        yield Flag(
            "few_held_out_tokens",
            f"losses are means over {least:,.0f} held-out tokens, whose standard error is about {least**-0.5:.1%} of "
            "the loss, or "
            f"more; at least {FEWEST_HELD_OUT_TOKENS:,} tokens are advised",
            "warning",
        )
