"""What interval do draws make? Helper of the law half, shared by every law and every way to an optimum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Interval = tuple[float | None, float | None]  # an unbounded side is None


def interval(draws_ln: np.ndarray, level: float) -> Interval:
    """Central interval of exp(draws); a side that reaches ±inf is None.

    Its ends are the k-th lowest and the k-th highest of R draws, k = (R + 1)(1 − level)/2 rounded down: one more
    draw would fall between them with probability 1 − 2k/(R + 1), which is at least the level.

    Args:
        draws_ln: (R,) logs.
        level: such as 0.9.

    Returns:
        (low, high), in the unit of exp(draws).
    """
    sorted_draws = np.sort(draws_ln)
    rank = max(int((len(sorted_draws) + 1) * (1 - level) / 2 + 1e-9), 1)
    low, high = sorted_draws[rank - 1], sorted_draws[-rank]
    return (float(np.exp(low)) if np.isfinite(low) else None, float(np.exp(high)) if np.isfinite(high) else None)


def transform(span: Interval, function: Callable[[float], float]) -> Interval:
    """The interval with a rising function applied to its ends; an unbounded side stays None."""
    low, high = (None if end is None else float(function(end)) for end in span)
    return low, high


def central_quantiles(draws: np.ndarray, level: float) -> tuple[float, float]:
    """The (1 − level)/2 and (1 + level)/2 quantiles of finite draws (R,)."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
