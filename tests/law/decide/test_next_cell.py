"""The next cell: the look-ahead equals the Gaussian closed form, repeats count once, and the search knows when to
stop.
"""

import json

import numpy as np
import pytest

from gaplaw.errors import LawError
from gaplaw.law.answers import Noise, StudentOptimum
from gaplaw.law.decide.next_cell import _regress_out, next_cells
from gaplaw.law.flags import Flag
from gaplaw.law.law import Law

SD = 0.002


class Linear:
    """One unknown theta ~ N(0, 0.5²): ln T* = ln N + theta, and every student's loss at T is slope(T) · theta."""

    kind = "linear"

    def __init__(self):
        half = np.random.default_rng(0).standard_normal(500) * 0.5
        self.theta = np.concatenate([half, -half])

    def slope(self, n, teachers):
        return 0.01 * (np.log(teachers) - np.log(n) - np.log(4.0))

    def optimum_draws(self, n, d):
        return np.log(4 * n) + self.theta

    def optimum_point(self, n, d):
        return np.log(4 * n)

    def regret_draws(self, n, d, teachers, teacher_tokens=None):
        return 0.05 * (np.log(teachers) - self.optimum_draws(n, d)[:, None]) ** 2

    def loss_draws(self, n, d, teachers, teacher_tokens=None):
        return self.theta[:, None] * self.slope(n, teachers)


def law_with(flags=()):
    students = tuple(
        StudentOptimum(
            student_params=n,
            student_tokens=20 * n,
            teachers=5,
            lowest=n,
            highest=16 * n,
            methods=(),
            spread=None,
            disagree=False,
        )
        for n in (1e8, 2e8)
    )
    return Law(
        coordinate="teacher_params",
        form="linear",
        status="converged",
        share_of_starts=1.0,
        parameters={},
        students=students,
        flags=tuple(flags),
        measured={"student_params": (1e8, 2e8), "teacher_params": (1e8, 3.2e9)},
        noise=Noise(residual_sd_nats=SD),
        surface=Linear(),
        provenance={},
    )


def cell(n, teacher, **more):
    return {"student_params": n, "student_tokens": 20 * n, "teacher_params": teacher} | more


def test_the_look_ahead_is_the_gaussian_closed_form():
    law = law_with()
    answer = next_cells(
        law, target_student_params=2e8, budget_flops=1e30, candidates=[cell(1e8, 16e8)], tolerance_nats=1e-5
    )
    # The student's own five cells lie symmetrically around slope 0, so the contrast is the slope itself.
    slope, variance = law.surface.slope(1e8, 16e8), np.mean(law.surface.theta**2)
    share = slope**2 * variance / (slope**2 * variance + SD**2 * (1 + 1 / 5))
    now = 0.05 * variance
    assert answer.expected_regret_nats == pytest.approx(now, rel=0.02)
    assert answer.cells[0].expected_drop_nats == pytest.approx(answer.expected_regret_nats * share, rel=1e-6)
    assert answer.expected_regret_after_nats == pytest.approx(answer.expected_regret_nats * (1 - share), rel=1e-6)


def test_the_ensemble_update_leaves_the_conditional_variance():
    rng = np.random.default_rng(1)
    d = rng.standard_normal(400)
    d -= d.mean()
    theta = 0.7 * d + rng.standard_normal(400)
    theta -= theta.mean()
    variance, noise = d @ d / 400, 0.6
    after, contrast = _regress_out(theta, d[:, None], 0, noise)
    assert contrast[:, 0] @ contrast[:, 0] / 400 == pytest.approx(variance * noise**2 / (variance + noise**2))
    expected = theta @ theta / 400 - (d @ theta / 400) ** 2 / (variance + noise**2)
    assert after @ after / 400 == pytest.approx(expected)


def test_cheaper_cells_of_equal_news_come_first_and_the_budget_holds():
    candidates = [cell(2e8, 32e8), cell(1e8, 16e8), cell(1e8, 1e8), cell(1e8, 4e8)]
    answer = next_cells(
        law_with(), target_student_params=2e8, budget_flops=1.5e19, candidates=candidates, tolerance_nats=1e-5
    )
    first = answer.cells[0]
    assert (first.student_params, first.teacher_params) == (1e8, 1e8)  # same |slope| as 16e8, smaller teacher
    assert sum(c.flops for c in answer.cells) <= 1.5e19
    assert all(
        c.teacher_params != 4e8 for c in answer.cells
    )  # at the minimum of the bowl nothing is learnt about its place
    drops = [c.expected_drop_nats for c in answer.cells]
    assert sum(drops) < answer.expected_regret_nats


def test_a_new_teacher_is_paid_once():
    candidates = [cell(n, 16e8, new_teacher=True, seed=seed) for n in (1e8, 2e8) for seed in (0, 1)]
    answer = next_cells(
        law_with(), target_student_params=2e8, budget_flops=1e30, candidates=candidates, tolerance_nats=1e-5
    )
    assert [c.new_teacher for c in answer.cells] == [True] + [False] * (len(answer.cells) - 1)
    assert answer.cells[0].flops - answer.cells[1].flops > 0.9 * 6 * 16e8 * 20 * 16e8


def test_it_stops_within_tolerance_and_when_nothing_helps_or_fits():
    ask = {"target_student_params": "200M", "candidates": [cell(1e8, 16e8)]}
    within = next_cells(law_with(), budget_flops=1e30, tolerance_nats=1.0, **ask)
    assert within.stop and within.cells == () and "within the tolerance" in within.statement
    useless = next_cells(
        law_with(), target_student_params=2e8, budget_flops=1e30, candidates=[cell(1e8, 4e8)], tolerance_nats=1e-5
    )
    assert useless.stop and "no cell within the budget lowers" in useless.statement
    poor = next_cells(law_with(), budget_flops=1e10, tolerance_nats=1e-5, **ask)
    assert poor.stop and "no cell fits the budget" in poor.statement
    answer = next_cells(law_with(), target_student_params=2e8, budget_flops=1e30, candidates=[], tolerance_nats=1e-5)
    assert answer.stop and "no cell is left to run" in answer.statement
    # A law that refuses is never 'good enough', whatever its draws say.
    refused = law_with([Flag("few_students", "2 students", "refusal")])
    assert not next_cells(refused, budget_flops=1e30, tolerance_nats=1.0, **ask).stop


def test_default_candidates_json_and_text():
    answer = next_cells(law_with(), target_student_params=2e8, budget_flops=1e22, tolerance_nats=1e-4)
    data = json.loads(json.dumps(answer.to_dict()))
    assert {"cells", "stop", "statement", "expected_regret_nats"} <= set(data)
    assert {"teacher_params", "student_params", "student_tokens", "seed", "flops", "drop_per_flop"} <= set(
        data["cells"][0]
    )
    assert str(len(answer.cells)) in answer.text()


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"target_student_params": 0}, "target_student_params: 0 must be positive"),
        ({"budget_flops": -1}, "budget_flops: -1 must be positive"),
        ({"candidates": [{"student_params": 1e8}]}, "candidate 0: teacher_params is needed"),
    ],
)
def test_impossible_questions(question, message):
    with pytest.raises(LawError, match=message):
        next_cells(law_with(), **({"target_student_params": 1e8, "budget_flops": 1e20} | question))
