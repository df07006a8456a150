"""The simulator's bowls have their minimum where they say, the asymmetry they say, and tables that follow the stated
law.
"""

import numpy as np
import pytest

from gaplaw.errors import LawError
from gaplaw.law.simulation.simulate import bowl, simulate, true_optimum


@pytest.mark.parametrize("shape", ["quadratic", "power", "logcosh", "two_sided"])
@pytest.mark.parametrize("asymmetry", [1, 4])
def test_bowls_have_their_minimum_at_zero(shape, asymmetry):
    u = np.linspace(-4, 4, 801)
    h = bowl(u, shape, asymmetry)
    assert abs(u[h.argmin()]) < 1e-9 and abs(h.min()) < 1e-12


def test_asymmetry_is_what_it_says():
    steep, flat = (lambda s: bowl(np.array([-1.0]), s, 4)[0]), (lambda s: bowl(np.array([1.0]), s, 4)[0])
    assert steep("quadratic") / flat("quadratic") == pytest.approx(4)
    far = bowl(np.array([-40.0, -39.0, 39.0, 40.0]), "logcosh", 4)
    assert (far[0] - far[1]) / (far[3] - far[2]) == pytest.approx(4, rel=1e-6)
    assert np.allclose(bowl(np.array([0.7]), "power", 0.25), bowl(np.array([-0.7]), "power", 4))


def test_table_follows_the_law():
    frame = simulate(
        students=[1e8, 4e8, 1.6e9], teachers=np.geomspace(1e8, 1e11, 400), k=5, p=0.8, q=0.3, noise_nats=0.0,
        student_tokens=(10, 40), rng=0,
    )  # fmt: skip
    for (n, d), rows in frame.groupby(["student_params", "student_tokens"]):
        best = rows["teacher_params"].iloc[rows["student_loss"].argmin()]
        assert best == pytest.approx(true_optimum(frame, n, d / n), rel=0.02)


def test_noise_is_the_noise_asked_for():
    world = dict(students=[1e8] * 1, teachers=np.geomspace(1e8, 1e10, 5), seeds=800, rng=1)
    quiet = simulate(**world, noise_nats=0.0, seed_offset_nats=0.0)
    loud = simulate(**world, noise_nats=0.01, seed_offset_nats=0.05)
    error = (loud["student_loss"] - quiet["student_loss"]).to_numpy().reshape(5, 800)
    assert error.mean(axis=0).std() == pytest.approx(np.hypot(0.05, 0.01 / np.sqrt(5)), rel=0.08)
    assert (error - error.mean(axis=0)).std() == pytest.approx(0.01 * np.sqrt(0.8), rel=0.05)


def test_unknown_shape_is_refused():
    with pytest.raises(LawError, match="shape: 'cubic'"):
        bowl(0.0, "cubic")
