"""The power check: more noise needs more cells, too few students are refused, and the cheapest sufficient design is
named.
"""

import json

import pytest

from gaplaw.errors import LawError
from gaplaw.law.simulation.power import DesignPower, Power, power


def design(**values):
    base = dict(students=6, teachers=7, seeds=1, simulations=3, flops=1.0, share_within=1.0, share_refused=0.0)
    base |= dict(
        median_true_regret_nats=0.0, median_expected_regret_nats=0.0, interval_half_width_ln=0.1, coverage90=1.0
    )
    return DesignPower(**(base | values))


def test_a_quiet_table_answers_and_two_students_are_refused():
    answer = power(students=(2, 6), teachers=(7,), seeds=(1,), simulations=3, draws=100, noise=0.001)
    few, enough = answer.designs
    assert few.share_refused == 1.0 and few.share_within == 0.0
    assert enough.share_within == 1.0 and enough.median_true_regret_nats < 0.002
    assert answer.enough == enough and "6 students, 7 teachers, 1 seed" in answer.statement


def test_noise_widens_the_interval():
    quiet, loud = (
        power(students=6, teachers=7, seeds=1, simulations=3, draws=100, noise=noise).designs[0]
        for noise in (0.0005, 0.004)
    )
    assert loud.interval_half_width_ln is None or loud.interval_half_width_ln > 1.5 * quiet.interval_half_width_ln


def test_the_cheapest_sufficient_design_is_named_and_its_absence_is_said():
    cheap, dear, poor = design(flops=1.0), design(flops=2.0), design(flops=0.1, share_within=0.5)
    common = {"tolerance_nats": 0.002, "target_student_params": 1e9, "truth": {}}
    assert "1 FLOPs" in Power(designs=(dear, cheap, poor), enough=cheap, **common).statement
    none = Power(designs=(poor,), enough=None, **common)
    assert "no design reaches" in none.statement and "no design" in none.text()
    assert json.loads(json.dumps(none.to_dict()))["designs"][0]["share_within"] == 0.5


def test_counts_below_one_are_refused():
    with pytest.raises(LawError, match="seeds"):
        power(seeds=(0,))
