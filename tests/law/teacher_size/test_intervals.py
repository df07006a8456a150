"""The intervals cover the truth on bowls the fit does not contain; profile, draws and bootstrap agree; noise is
found.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gaplaw.law.simulation.coverage import BOWLS, NOISES, coverage, one_table
from gaplaw.law.simulation.simulate import simulate
from gaplaw.law.table.read import read_table
from gaplaw.law.teacher_size import intervals, variance
from gaplaw.law.teacher_size.design import design_of_table
from gaplaw.law.teacher_size.joint import fit_joint

STUDENTS = 5e7 * 2.0 ** np.arange(6)
TEACHERS = np.geomspace(1e8, 1.28e10, 7)


def fitted(**world):
    frame = simulate(**{"students": STUDENTS, "teachers": TEACHERS, "rng": 0} | world)
    return fit_joint(design_of_table(read_table(frame)).design)


def test_coverage_of_unfitted_bowls_quick():
    """24 tables, symmetric and 4:1, three noises: 18 or more of them cover with probability 0.99 if each does with
    0.9.
    """
    cases = [("quadratic", 1), ("quadratic", 4), ("logcosh", 1), ("two_sided", 4)]
    got = [one_table(s, a, n, seed, draws=100) for s, a in cases for n in NOISES for seed in range(2)]
    assert all(item is not None for item in got)
    assert 18 <= sum(item[1] for item in got)
    assert abs(np.mean([item[0] for item in got])) < 0.08


def test_coverage_does_not_depend_on_the_pool():
    alone = coverage("two_sided", 4, 0.003, draws=3)
    with ThreadPoolExecutor(2) as pool:
        assert coverage("two_sided", 4, 0.003, draws=3, pool=pool) == alone
    assert alone.covered * 3 in (0, 1, 2, 3) and alone.refused == 0 and 0 < alone.width_ln < 2


@pytest.mark.slow
def test_coverage_is_neither_too_low_nor_too_high():
    """Every row of `make coverage` with 20 tables: together 0.90 within 3 binomial sd's of 420 tables, none far
    below.
    """
    rows = [coverage(shape, asymmetry, noise, draws=20) for shape, asymmetry in BOWLS for noise in NOISES]
    assert abs(np.mean([row.covered for row in rows]) - 0.9) < 0.045, rows
    assert min(row.covered for row in rows) >= 0.65 and max(row.refused for row in rows) <= 0.05, rows


@pytest.mark.parametrize("shape", ["flat", "falling", "rising"])
def test_refuses_without_a_minimum(shape):
    assert [one_table(shape, 1, n, seed, draws=20) for n in (0.001, 0.01) for seed in range(2)] == [None] * 4


def test_profile_draws_and_bootstrap_agree():
    fit = fitted(noise_nats=0.003, asymmetry=2)
    refits = intervals.draw_refits(fit, 500, np.random.default_rng(0))
    for name, column in (("kappa", 0), ("p", 1)):
        draws = refits.location[:, column]
        low, high = intervals.profile(fit, name, draws.std())[1]
        assert high - low == pytest.approx(np.subtract(*np.quantile(draws, [0.95, 0.05])), rel=0.25)
        assert low < fit.theta[column] < high
    for clusters in intervals.wild_bootstrap(fit, 1500, np.random.default_rng(1)).values():
        assert 0.3 < clusters[:, 1].std() / refits.location[:, 1].std() < 3
        assert clusters[:, 1].mean() == pytest.approx(fit.theta[1], abs=0.02)


def test_profile_of_another_student_is_centred_on_its_optimum():
    fit = fitted(noise_nats=0.003)
    columns = np.array([1.0, 0.7])
    here = intervals.recentre(fit, columns)
    low, high = intervals.profile(here, "kappa", 0.05)[1]
    assert low < fit.theta[:2] @ columns < high


def test_noise_components_are_found():
    quiet = variance.variance_components(fitted(noise_nats=0.003))
    assert quiet.tau == 0
    stray = [variance.variance_components(fitted(noise_nats=0.001, scatter_ln=0.4, rng=seed)).tau for seed in range(4)]
    assert np.mean(stray) == pytest.approx(0.4, rel=0.4)
    columns = [
        variance.variance_components(fitted(noise_nats=0.001, teacher_sd_nats=0.006, rng=seed)).teacher
        for seed in range(4)
    ]
    assert np.median(columns) >= 2


def test_paired_seeds_cancel_the_offset():
    fit = fitted(noise_nats=0.003, seed_offset_nats=0.03, seeds=4, students=STUDENTS[:3])
    raw, paired = variance.seed_noise(fit.problem.design)
    assert paired == pytest.approx(0.003, rel=0.25) and raw > 5 * paired
    assert np.sqrt(fit.variance) == pytest.approx(0.003, rel=0.25)
