"""Rival forms and rules: the generating form is found, ties are called ties, and rules are scored by hand-checkable
regret.
"""

import numpy as np
import pandas as pd
import pytest

from gaplaw.law.compare.cases import Case, cases_of, learn_loss_ratio, learn_ratio, rule_picks
from gaplaw.law.compare.compare import compare_loss_law, compare_size_law, verdict
from gaplaw.law.compare.size_forms import SIZE_FORMS, aicc, fit_forms
from gaplaw.law.decide.rules_of_thumb import size_equivalents
from gaplaw.law.fitting import fit
from gaplaw.law.simulation.simulate import simulate
from gaplaw.law.table.read import read_table
from tests.conftest import ROOT

GRID = {"students": np.geomspace(5e7, 1.6e9, 6), "teachers": np.geomspace(1e8, 2.5e10, 8), "k": 4.0, "depth": 0.03}


def compared(**truth):
    table = read_table(simulate(**(GRID | {"noise_nats": 0.003, "asymmetry": 2.0, "rng": 1} | truth)))
    return compare_size_law(table, fit(table, compare=False, draws=200))


def scores(law, column="loso_regret_nats"):
    return {rival["name"]: rival[column] for rival in law.rivals}


def test_a_power_law_beats_the_linear_law_where_it_is_true():
    law = compared(p=0.6)
    assert law.comparison["best_by_aicc"] == "T = k S^p" and law.comparison["aicc_gap"] > 2
    assert scores(law)["T = k S^p"] < scores(law)["T = k S"]
    assert scores(law, "loso_log_size")["T = k S^p"] < scores(law, "loso_log_size")["T = k S"]


def test_a_linear_truth_is_linear_or_not_distinguishable():
    law = compared(p=1.0)
    assert law.comparison["best_by_aicc"] == "T = k S" or law.comparison["verdict"] == "not distinguishable"
    assert scores(law)["T = k S"] < scores(law)["2.5 times"] < scores(law)["same size"]


def test_tokens_per_parameter_are_seen_when_they_vary():
    law = compared(p=1.0, q=0.5, student_tokens=(20, 80, 320))
    assert law.comparison["winner"] == "T = k S^p (D/S)^q"
    assert "T = k S^p (D/S)^q" not in scores(compared(p=1.0))


def test_every_rule_is_always_in_the_table_and_wins_sum_to_one():
    law = compared(p=0.8)
    assert {"same size", "2.5 times", "largest available", "constant ratio"} <= set(scores(law))
    assert sum(scores(law, "share_of_wins").values()) == pytest.approx(1.0)
    assert list(scores(law).values()) == sorted(scores(law).values())
    assert law.comparison["constant_ratio"] == pytest.approx(4.0, rel=0.5)


def test_rules_on_one_case_by_hand():
    case = Case(
        student_params=1e8,
        student_tokens=None,
        log_teacher=np.log([1e8, 2e8, 4e8, 8e8]),
        loss=np.array([3.0, 2.9, 2.8, 2.85]),
        rows=np.ones(4),
        log_size=np.log([1e8, 2e8, 4e8, 8e8]),
    )
    assert rule_picks(case, 7.0) == {"same size": 0, "2.5 times": 1, "constant ratio": 3}
    assert [round(case.regret(i), 6) for i in range(4)] == [0.2, 0.1, 0.0, 0.05]
    assert learn_ratio([case]) == pytest.approx(4.0, rel=0.1)
    assert learn_loss_ratio([case], [4e8 / 0.9]) == pytest.approx(0.9, rel=0.25)


def test_aicc_penalises_small_samples_and_refuses_too_small_ones():
    assert aicc(-10.0, 3, 5) == pytest.approx(20 + 6 + 24)  # the +24 of laws with 5 students and 3 parameters
    assert aicc(-10.0, 3, 4) == np.inf


def test_fit_forms_recovers_exact_places():
    """Sharp likelihood curves at known places: every form that contains the truth finds it."""
    log_optima = np.linspace(15, 28, 2401)
    log_size = np.linspace(-1.5, 1.5, 6)
    log_ratio = np.array([-1.0, 1.0] * 3)
    truth = {
        "T = k S": 21 + log_size,
        "T = k S + b": 21 + np.log(1 + 0.6 * (np.exp(log_size) - 1)),
        "T = k S^p": 21 + 0.6 * log_size,
        "T = k S^p (D/S)^q": 21 + 0.6 * log_size + 0.3 * log_ratio,
    }
    for name, at in truth.items():
        log_likelihoods = -0.5 * ((log_optima[None] - at[:, None]) / 0.05) ** 2
        form, theta, value = fit_forms(log_likelihoods, log_optima, log_size, log_ratio, with_tokens=True)[name]
        assert value > -0.05, name
        assert form.log_optima(theta[None], log_size, log_ratio)[0] == pytest.approx(at, abs=0.02)
    assert {form.name for form in SIZE_FORMS} == set(truth)


def test_a_small_aicc_gap_is_not_distinguishable():
    rivals = [{"name": "a", "loso_regret_nats": 0.1, "share_of_wins": 0.6}]
    assert verdict(rivals, {"a": 10.0, "b": 11.9})["verdict"] == "not distinguishable"
    assert verdict(rivals, {"a": 10.0, "b": 12.1})["verdict"].startswith("a by AICc")


def test_the_no_teacher_law_of_a_table_is_stored():
    frame = simulate(**GRID, noise_nats=0.003, rng=2)
    frame["no_teacher_loss"] = 2.0 + 300 / frame["student_params"] ** 0.3
    table = read_table(frame)
    law = compare_size_law(table, fit(table, compare=False, draws=100))
    assert law.baseline["kind"] == "path" and law.baseline["tokens_per_param"] == pytest.approx(20.0)
    choice = law.choose(student_params="300M", teachers=["1B", "2B"])
    assert choice.teachers[0].no_teacher_loss_nats == pytest.approx(2.0 + 300 / 3e8**0.3, rel=0.02)


def test_two_students_are_too_few_and_say_so():
    table = read_table(simulate(**(GRID | {"students": (1e8, 2e8)}), noise_nats=0.003, rng=3))
    law = compare_size_law(table, fit(table, compare=False, draws=50))
    assert law.rivals == () and "too few" in law.comparison["verdict"]


def test_cases_average_seeds_and_sizes_come_from_losses():
    frame = simulate(**GRID, noise_nats=0.003, seeds=2, rng=4)
    case = cases_of(read_table(frame), "teacher_params")[0]
    rows = frame[frame["student_params"] == frame["student_params"].min()]
    assert case.loss == pytest.approx(rows.groupby("teacher_params")["student_loss"].mean().to_numpy())
    assert (case.rows == 2).all()
    surface = {"kind": "surface", "parameters": {"A": 400.0, "B": 2000.0, "E": 1.8, "alpha": 0.34, "beta": 0.37}}
    loss = 1.8 + 400 / 2e9**0.34 + 2000 / 4e10**0.37
    assert size_equivalents([loss], surface) == pytest.approx([2e9], rel=1e-3)
    assert size_equivalents([loss], None) is None
    assert isinstance(frame, pd.DataFrame)


def test_the_choice_does_not_depend_on_whether_rivals_were_compared():
    rows = pd.read_parquet(ROOT / "experiments" / "results" / "quickstart" / "cells" / "finished.parquet")
    question = dict(student_params=2000, teachers=["1.5k", "3.5k", "6k", "14k"])
    plain, compared = (fit(rows, draws=200, compare=wanted).choose(**question) for wanted in (False, True))
    for part in ("recommended", "optimum", "near_optimal", "teachers"):  # rules of thumb are learnt by the comparison
        assert plain.to_dict()[part] == compared.to_dict()[part]
    assert plain.recommended is None
    assert all("not_worth_it" in {flag.kind for flag in found.flags} for found in (plain, compared))


def test_a_law_in_teacher_loss_has_rivals_only_when_asked_and_recommends_the_same():
    table = read_table(ROOT / "experiments" / "results" / "quickstart", coordinate="teacher_loss")
    alone = fit(table, draws=20, compare=False)
    assert alone.rivals == () and alone.comparison == {}
    compared = compare_loss_law(table, alone)
    assert compared.rivals and compared.comparison["verdict"]
    one, two = (law.choose(student_params=2000, teachers=[2.5, 2.6]) for law in (alone, compared))
    assert one.recommended == two.recommended and one.teachers == two.teachers
