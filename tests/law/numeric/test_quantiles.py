"""Intervals of draws hold one more draw as often as they say, and say when a side is unbounded."""

import numpy as np
import pytest

from gaplaw.law.numeric.quantiles import interval


@pytest.mark.parametrize("count", [19, 200, 1000])
def test_one_more_draw_falls_inside_at_least_as_often_as_the_level_says(count):
    rng = np.random.default_rng(0)
    tries = rng.standard_normal((4000, count + 1))
    inside = [low <= np.exp(row[-1]) <= high for row in tries for low, high in [interval(row[:-1], 0.9)]]
    exact = 1 - 2 * int((count + 1) * 0.05 + 1e-9) / (count + 1)
    assert exact >= 0.9 and np.mean(inside) == pytest.approx(exact, abs=0.015)


def test_a_side_that_many_draws_never_reach_is_none():
    draws = np.concatenate([np.zeros(90), np.full(10, np.inf)])
    assert interval(draws, 0.9) == (1.0, None) and interval(-draws, 0.9) == (None, 1.0)
    assert interval(draws, 0.5) == (1.0, 1.0)
