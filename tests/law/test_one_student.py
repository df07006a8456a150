"""Fieller's set is the set it claims to be, edges are censored, and methods that disagree say so."""

import numpy as np
import pytest

from gaplaw.law.one_student import Profile, akima, compare_methods, fieller, joint, quadratic

X = np.linspace(0.0, 3.0, 7)


def profile(y, sd=0.001):
    return Profile(x=X, y=np.asarray(y), sd=np.full(7, sd), freedom=30.0)


def test_fieller_agrees_with_a_scan():
    a, b, t = 0.02, -0.05, 1.7
    cov = np.array([[1.6e-5, -4.5e-5], [-4.5e-5, 1.5e-4]])
    x = np.linspace(-20, 20, 400001)
    inside = x[(2 * a * x + b) ** 2 <= t**2 * (4 * x**2 * cov[0, 0] + 4 * x * cov[0, 1] + cov[1, 1])]
    low, high = fieller(a, b, cov, t)
    assert low == pytest.approx(inside.min(), abs=2e-4) and high == pytest.approx(inside.max(), abs=2e-4)


def test_fieller_is_unbounded_without_curvature():
    assert fieller(0.01, -0.02, np.diag([1e-4, 1e-4]), 1.7) == (None, None)
    assert fieller(-0.02, 0.0, np.diag([1e-8, 1e-8]), 1.7) == (None, None)


def test_fieller_covers_on_a_parabola():
    """90 % intervals on true parabolas cover in 90 % of 400 draws (binomial tolerance 3 sd)."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        low, high = quadratic(profile(0.02 * (X - 1.3) ** 2 + 0.002 * rng.standard_normal(7), sd=0.002)).interval90
        hits += (low is None or low <= np.exp(1.3)) and (high is None or high >= np.exp(1.3))
    assert abs(hits / 400 - 0.9) < 3 * np.sqrt(0.09 / 400) + 0.01


def test_exact_parabola():
    got = quadratic(profile(0.02 * (X - 1.3) ** 2))
    assert got.point == pytest.approx(np.exp(1.3)) and got.censored is None


def test_hill_has_no_minimum():
    got = quadratic(profile(-0.02 * (X - 1.3) ** 2))
    assert got.point is None and got.interval90 == (None, None)


def test_akima_marks_the_edge_and_follows_an_asymmetric_bowl():
    rng = np.random.default_rng(0)
    falling = akima(profile(-0.1 * X), rng)
    assert falling.censored == "high" and falling.interval90[1] is None
    lopsided = np.where(X < 1.0, 0.08, 0.02) * (X - 1.0) ** 2
    got = akima(profile(lopsided, sd=1e-5), rng)
    assert got.point == pytest.approx(np.exp(1.0), rel=0.1)


def test_disagreement_is_reported():
    """On a 4:1 bowl the parabola is far from the truth; the record says so."""
    data = profile(np.where(X < 0.8, 0.08, 0.02) * (X - 0.8) ** 2, sd=1e-4)
    truth = joint(0.8, ((0.75, 0.85), (0.7, 0.9)), data)
    record = compare_methods(1e8, None, data, [quadratic(data), akima(data, np.random.default_rng(0)), truth], 2.0)
    assert record.disagree and record.spread > 0.2
    same = joint(np.log(quadratic(data).point), ((0.9, 1.3), (0.8, 1.5)), data)
    assert not compare_methods(1e8, None, data, [quadratic(data), same], 2.0).disagree
