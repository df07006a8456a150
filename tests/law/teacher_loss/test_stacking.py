"""What students and teachers share, and which form is believed: against dense algebra, by recovery, by brute force."""

import numpy as np
import pytest

from gaplaw.law import fit
from gaplaw.law.teacher_loss.correction import Correction
from gaplaw.law.teacher_loss.correction_fit import fit_correction
from gaplaw.law.teacher_loss.forms import whitener
from gaplaw.law.teacher_loss.stacking import EQUAL_PULL, stacking_weights
from tests.law.worlds import world

COLUMNS = ["student_params", "student_tokens", "teacher_loss", "student_loss"]


def test_the_whitener_is_the_inverse_root_of_the_covariance():
    rng = np.random.default_rng(0)
    levels = rng.normal(size=(20, 3))
    white = whitener(levels)(np.eye(20))
    assert white @ (np.eye(20) + levels @ levels.T) @ white.T == pytest.approx(np.eye(20), abs=1e-10)


def test_levels_of_students_and_teachers_are_recovered_apart_from_the_smooth_misfit():
    rng = np.random.default_rng(1)
    size, teacher = rng.integers(0, 7, 250), rng.integers(0, 12, 250)
    own, shared = 0.006 * rng.standard_normal(7), 0.003 * rng.standard_normal(12)
    t = np.linspace(0.6, 1.0, 12)[teacher]
    z = np.stack([t - 0.8, rng.normal(size=250), 0.6 * size - 2.0, t], axis=1)
    residual = own[size] + shared[teacher] + 0.002 * rng.standard_normal(250)
    found = fit_correction(z, residual)
    assert found.student.amplitude == pytest.approx(0.006, rel=0.6) and found.teacher.amplitude == pytest.approx(
        0.003, rel=0.6
    )
    assert found.noise == pytest.approx(0.002, rel=0.2)
    coefficients = found.posterior(found.features(z), np.ones(250)) @ residual
    teacher_levels = found.teacher.features(z) @ coefficients[-len(found.teacher.landmarks) :]
    assert np.corrcoef(teacher_levels, shared[teacher])[0, 1] > 0.9
    again = Correction.from_dict(found.to_dict())
    assert again.features(z) == pytest.approx(found.features(z))


def test_the_weights_are_the_least_criterion_on_the_simplex():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(12), 6)
    common = rng.normal(size=72)
    errors = np.array(
        [common + 0.5 * rng.normal(size=72), common + 0.7 * rng.normal(size=72), 3 * rng.normal(size=72) + 2]
    )
    within = np.array([e - (np.bincount(groups, e) / 6)[groups] for e in errors])

    def criterion(share):
        parts = [errors / np.sqrt(np.mean(errors**2)), within / np.sqrt(np.mean(within**2))]
        pull = EQUAL_PULL * sum(np.sum(part**2) for part in parts) / 3 * np.sum(share**2)
        return sum(np.sum((share @ part) ** 2) for part in parts) + pull

    best = stacking_weights(errors, groups)
    assert best.sum() == pytest.approx(1) and best.min() >= 0
    others = rng.dirichlet(np.ones(3), size=4000)
    assert criterion(best) <= min(criterion(share) for share in others) * (1 + 1e-9)


def test_a_teacher_that_does_more_than_its_loss_says_is_known_for_it():
    """One teacher of the world lowers all its students by 0.02 nats: it is chosen where it was measured, and only
    there.
    """
    frame = world("broken power", noise=0.002, teacher_sd=0.0)
    frame = frame[np.isclose(frame["student_tokens"] / frame["student_params"], 20) | (frame["student_params"] > 1e9)]
    good = np.sort(frame["teacher_loss"].unique())[3]
    gift = np.where(frame["teacher_loss"] == good, 0.02, 0.0)
    law = fit(frame.assign(student_loss=frame["student_loss"] - gift)[COLUMNS], draws=60)
    level = law.teacher_draws(1e9, 2e10, [good, good * 1.01]).mean(0)
    assert law.noise.teacher_sd_nats > 0.002
    assert level[0] == pytest.approx(-0.02, abs=0.008) and abs(level[1]) < 0.001
    assert law.choose(student_params=1e9, student_tokens=2e10, teachers=[good, good * 1.01]).recommended == str(good)
