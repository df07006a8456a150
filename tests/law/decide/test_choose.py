"""The choice: regret by hand, costs at equal compute, refusals; on a law whose answer is known in closed form."""

import json

import numpy as np
import pytest

from gaplaw.errors import LawError, TableError
from gaplaw.law.answers import Noise
from gaplaw.law.decide.choose import choose, ranges_outside, share_best
from gaplaw.law.decide.teachers import read_teachers
from gaplaw.law.flags import Flag
from gaplaw.law.law import Law
from gaplaw.law.no_teacher.baseline import baseline_loss, loss_at_equal_compute

CURVATURE = 0.01
ALONE = {"kind": "surface", "parameters": {"A": 400.0, "B": 2000.0, "E": 1.8, "alpha": 0.34, "beta": 0.37}}


class Parabola:
    """L = level + 0.01 (ln T − ln k − ln N)², with ln k uncertain: expected regret has a closed form."""

    kind = "parabola"

    def __init__(self, ratio=4.0, spread=0.2, draws=4000, gain=0.1):
        self.log_ratio, self.gain = np.log(ratio), gain
        # Symmetric draws, so that means are exact.
        half = np.random.default_rng(0).standard_normal(draws // 2) * spread
        self.draws = self.log_ratio + np.concatenate([half, -half])

    def optimum_point(self, n, d):
        return self.log_ratio + np.log(n)

    def optimum_draws(self, n, d):
        return self.draws + np.log(n)

    def regret_draws(self, n, d, teachers, teacher_tokens=None):
        return CURVATURE * (np.log(teachers) - self.optimum_draws(n, d)[:, None]) ** 2

    def teacher_draws(self, n, d, teachers):
        return np.zeros((len(self.draws), len(teachers)))

    def predict(self, frame):
        at = np.log(frame["teacher_params"]) - self.log_ratio - np.log(frame["student_params"])
        alone = baseline_loss(ALONE, frame["student_params"], frame["student_tokens"])
        return np.asarray(alone - self.gain + CURVATURE * at**2)


def law_with(flags=(), baseline=None, **surface):
    return Law(
        coordinate="teacher_params",
        form="parabola",
        status="converged",
        share_of_starts=1.0,
        parameters={},
        students=(),
        flags=tuple(flags),
        measured={"student_params": (1e8, 1e9), "student_tokens": (2e9, 2e10), "teacher_params": (1e8, 3e10)},
        noise=Noise(residual_sd_nats=0.001),
        surface=Parabola(**surface),
        provenance={},
        comparison={"constant_ratio": 5.0},
        baseline=baseline,
    )


def test_expected_regret_is_bias_plus_variance():
    choice = choose(law_with(spread=0.2), student_params="500M", teachers=["500M", "2B", "8B"])
    variance = np.mean((Parabola(spread=0.2).draws - np.log(4)) ** 2)
    expected = [CURVATURE * (np.log(ratio / 4) ** 2 + variance) for ratio in (1, 4, 16)]
    assert [t.expected_regret_nats for t in choice.teachers] == pytest.approx(expected, rel=1e-6)
    assert choice.recommended == "2B"
    assert sum(t.p_best for t in choice.teachers) == pytest.approx(1.0)
    assert choice.near_optimal == ("2B",)
    assert choice.optimum.teacher_params == pytest.approx(2e9)
    low, high = choice.optimum.interval90
    assert low < 2e9 < high


def test_near_optimal_range_is_the_tolerance_set():
    choice = choose(law_with(spread=0.0), student_params=5e8, teachers=[2e9], tolerance_nats=0.0025)
    low, high = choice.near_optimal_range
    assert np.log([low, high]) == pytest.approx(np.log(2e9) + np.array([-0.5, 0.5]), abs=0.04)


def test_rules_pick_the_nearest_and_carry_their_regret():
    choice = choose(law_with(), student_params=5e8, teachers=[5e8, 1.2e9, 2e9, 2.6e9, 2e10])
    picks = {rule.rule: rule.teacher for rule in choice.rules}
    assert picks == {
        "same size": "500000000",
        "2.5 times": "1200000000",
        "largest available": "20000000000",
        "constant ratio": "2600000000",
    }
    for rule in choice.rules:
        assert rule.expected_regret_nats == choice.teacher(rule.teacher).expected_regret_nats


def test_compute_is_split_and_counted_by_the_cost_case():
    teachers = [{"name": "t", "params": 2e9, "tokens": 4e10}]
    rows = {
        cost: choose(
            law_with(), student_params=5e8, student_tokens=1e10, teachers=teachers, cost=cost, price_per_flop=1e-22
        )
        for cost in ("best", "inference", "pretraining", "both")
    }
    row = rows["both"].teachers[0]
    assert (row.student_training_flops, row.teacher_forward_flops, row.teacher_training_flops) == (3e19, 4e19, 4.8e20)
    assert rows["best"].teachers[0].flops == rows["inference"].teachers[0].flops == 7e19
    assert row.flops == pytest.approx(5.5e20)
    costs = {cost: choice.teachers[0].cost_nats for cost, choice in rows.items()}
    assert costs == pytest.approx({"best": 0.0, "inference": 0.004, "pretraining": 0.048, "both": 0.052})


def test_a_price_moves_the_choice_to_a_cheaper_teacher():
    ask = {"student_params": 5e8, "student_tokens": 1e10, "teachers": [5e8, 1e9, 2e9]}
    assert choose(law_with(), **ask).recommended == "2000000000"
    cheap = choose(law_with(), **ask, cost="inference", price_per_flop=3e-21)
    assert cheap.recommended == "500000000"


def test_distillation_is_not_worth_it_at_equal_compute():
    """With a gain of 0.1 nats at 500M and 10B tokens: a free teacher helps, a priced one of 40 times the compute does
    not.
    """
    ask = {"student_params": 5e8, "student_tokens": 1e10, "teachers": [{"name": "t", "params": 2e9, "tokens": 4e11}]}
    law = law_with(baseline=ALONE)
    free = choose(law, **ask)
    assert free.recommended == "t"
    paid = choose(law, **ask, cost="both")
    row = paid.teachers[0]
    extra = row.teacher_forward_flops + row.teacher_training_flops
    assert row.no_teacher_loss_nats == pytest.approx(baseline_loss(ALONE, 5e8, 1e10 + extra / 3e9))
    assert row.predicted_loss_nats > row.no_teacher_loss_nats
    assert paid.recommended is None
    assert any("distillation is not worth it" in flag.message for flag in paid.flags)
    assert "not worth it" in paid.text()
    # Without a price the cost is the student's own foregone gain, so the two statements agree.
    assert row.cost_nats == pytest.approx(baseline_loss(ALONE, 5e8, 1e10) - row.no_teacher_loss_nats)


def test_a_path_baseline_values_tokens_at_half_the_slope():
    path = {"kind": "path", "slope": -0.1, "level": 3.0, "tokens_per_param": 20.0}
    assert baseline_loss(path, 1e9) == pytest.approx(np.exp(3 - 0.1 * np.log(1e9)))
    assert loss_at_equal_compute(path, 1e9, 2e10, 6e9 * 2e10) == pytest.approx(baseline_loss(path, 1e9) * 2**-0.05)


def test_a_refused_law_answers_with_its_reason_only():
    law = law_with(flags=[Flag("no_interior_minimum", "no student has an interior minimum", "refusal")])
    choice = choose(law, student_params=5e8, teachers=["1B", "2B"])
    assert choice.recommended is None and choice.near_optimal == () and choice.optimum.teacher_params is None
    assert all(t.expected_regret_nats is None and t.flops > 0 for t in choice.teachers)
    assert "refuses" in choice.text() and "interior minimum" in choice.text()


def test_extrapolation_is_measured_in_ranges():
    assert ranges_outside((1e8, 1e9), 1e10) == pytest.approx(1.0)
    assert ranges_outside((1e8, 1e9), 5e8) == 0.0
    by_kind = {f.kind: f for f in choose(law_with(), student_params=2e10, teachers=["2B", "90B"]).flags}
    assert by_kind["extrapolation"].severity == "warning" and "a guess" in by_kind["extrapolation"].message
    assert "90B" in by_kind["teacher_outside"].message
    far = choose(law_with(), student_params=1e13, teachers=["2B"])
    assert far.recommended is None


def test_json_layout():
    choice = choose(law_with(), student_params=5e8, teachers=["1B", {"name": "big", "params": "8B", "loss": 2.0}])
    data = json.loads(json.dumps(choice.to_dict()))
    assert {"recommended", "optimum", "near_optimal", "teachers", "rules", "flags"} <= set(data)
    assert set(data["optimum"]) == {"teacher_params", "interval50", "interval90"}
    assert {"name", "params", "expected_regret_nats", "p_best", "flops"} <= set(data["teachers"][0])
    assert [t["name"] for t in data["teachers"]] == ["1B", "big"]


def test_ties_share_the_chance_to_be_best():
    assert share_best(np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])) == pytest.approx([0.75, 0.25, 0.0])


def test_teachers_are_read_from_text_files_and_mappings(tmp_path):
    (tmp_path / "t.csv").write_text("name,params,tokens,loss\nsmall,1.5B,30e9,2.3\nlarge,70B,,1.9\n")
    small, large = read_teachers(tmp_path / "t.csv", coordinate="teacher_params")
    assert (small.name, small.params, small.tokens) == ("small", 1.5e9, 3e10)
    assert (large.params, large.tokens, large.loss) == (7e10, None, 1.9)
    assert [t.name for t in read_teachers("7B,13B", coordinate="teacher_params")] == ["7B", "13B"]
    assert [t.loss for t in read_teachers([2.5, 2.1], coordinate="teacher_loss")] == [2.5, 2.1]
    again = read_teachers([{"name": "x", "loss": 2.1}, {"name": "x", "loss": 2.2}], coordinate="teacher_loss")
    assert [t.name for t in again] == ["x", "x #2"]
    derived = read_teachers([{"params": 1e9, "tokens": 2e10}], coordinate="teacher_loss", baseline=ALONE)
    assert derived[0].loss == pytest.approx(float(baseline_loss(ALONE, 1e9, 2e10)))


def test_a_size_given_to_a_law_in_loss_is_never_taken_for_a_loss():
    with pytest.raises(LawError, match="teacher 7B: loss is needed"):
        read_teachers(["7B"], coordinate="teacher_loss")
    known = read_teachers(["7B"], coordinate="teacher_loss", baseline=ALONE)[0]
    assert known.params == 7e9 and known.loss == pytest.approx(float(baseline_loss(ALONE, 7e9, 1.4e11)))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"cost": "free"}, "cost: 'free' must be one of"),
        ({"teachers": []}, "at least one"),
        ({"teachers": [{"name": "t", "loss": 2.0}]}, "teacher t: params is needed"),
        ({"teachers": [{"name": "t", "loss": 2.0, "params": "big"}]}, "'big' is not a number or a size"),
        ({"teachers": ["huge"]}, "'huge' is not a number or a size"),
        ({"student_params": -1}, "student_params: -1 must be positive"),
        ({"cost": "both", "teachers": ["2B"]}, "tokens are needed for cost = both"),
        ({"teachers": [{"size": 3}]}, "teacher 0 has 'size'"),
        ({"teachers": "absent.csv"}, "teachers file cannot be read"),
    ],
)
def test_impossible_questions(question, message):
    with pytest.raises((LawError, TableError), match=message):
        choose(law_with(), **({"student_params": 5e8, "teachers": ["2B"]} | question))
