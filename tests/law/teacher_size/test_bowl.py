"""The bowl's minimum is at zero whatever its shape; its derivatives are those of its values; it can follow other
families.
"""

import numpy as np
import pytest

from gaplaw.law.simulation.simulate import bowl as truth
from gaplaw.law.teacher_size.bowl import _EDGES, _PHI, SHAPES, Bowl, _features

RNG = np.random.default_rng(0)


def test_minimum_is_at_zero_for_any_shape():
    u = np.linspace(-6, 6, 481)
    h = Bowl(RNG.standard_normal((50, SHAPES))).value(np.tile(u, (50, 1)))
    assert np.all(h >= 0)
    assert np.all(u[h.argmin(axis=1)] == 0)
    assert np.all(np.diff(h[:, u >= 0], axis=1) > 0) and np.all(np.diff(h[:, u <= 0], axis=1) < 0)


def test_no_shape_is_a_parabola():
    u = np.array([[-3.0, -0.2, 0.0, 1.0, 2.5]])
    assert np.allclose(Bowl(np.zeros((1, SHAPES))).value(u), u**2 / 2)


def test_gradients_agree_with_differences():
    shape, u, e = 0.5 * RNG.standard_normal((4, SHAPES)), RNG.uniform(-4, 4, (4, 20)), 1e-5
    h, by_u, by_shape = Bowl(shape).with_gradients(u)
    assert np.allclose(h, Bowl(shape).value(u))
    assert np.allclose(by_u, (Bowl(shape).value(u + e) - Bowl(shape).value(u - e)) / (2 * e), rtol=1e-4, atol=1e-6)
    for k in range(SHAPES):
        step = np.eye(SHAPES)[k] * e
        numeric = (Bowl(shape + step).value(u) - Bowl(shape - step).value(u)) / (2 * e)
        assert np.allclose(by_shape[..., k], numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family,asymmetry", [("power", 1), ("power", 4), ("logcosh", 4), ("two_sided", 4)])
def test_family_can_follow_other_bowls(family, asymmetry):
    """Projecting the true log secant curvature on the features leaves less than a few percent of the height."""
    u = np.linspace(-3, 3, 301)
    u = u[np.abs(u) > 0.05]
    slope = (truth(u + 1e-5, family, asymmetry) - truth(u - 1e-5, family, asymmetry)) / 2e-5
    columns = np.concatenate([np.ones((len(u), 1)), _features(np.arcsinh(u))], axis=1)
    prior = np.diag([0.0] + [1.0] * SHAPES)
    solution = np.linalg.solve(columns.T @ columns * 100 + prior, columns.T @ np.log(slope / u) * 100)
    height = np.exp(solution[0]) * Bowl(solution[None, 1:]).value(u[None])[0]
    exact = truth(u, family, asymmetry)
    assert np.max(np.abs(height - exact) / (exact + 0.02)) < 0.06


def test_features_vanish_at_the_minimum():
    assert np.allclose(_features(np.zeros(1)), 0)
    assert _PHI.shape[1] == SHAPES


def test_curvature_is_continuous():
    """A jump of h' at a cell's edge would be a false optimum of the location wherever the edge passes a data point."""
    shape, at = RNG.standard_normal((5, SHAPES)), np.tile(_EDGES[1:-1], (5, 1))
    bowl = Bowl(shape)
    assert np.allclose(bowl.slope(at - 1e-9), bowl.slope(at + 1e-9), rtol=1e-6, atol=1e-7)
    assert np.allclose(bowl.value(at - 1e-9), bowl.value(at + 1e-9), rtol=1e-6, atol=1e-7)
