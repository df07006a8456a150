"""Does the report sort rows by role and keep protocols apart, and is its pairing the textbook one?"""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gaplaw.report.panels import representative
from gaplaw.report.protocols import protocol_labels
from gaplaw.report.view import averaged_curves, domains, indistinguishable, paired, view


def table(losses, **columns) -> pd.DataFrame:
    """Rows from a (seeds, teachers) array of losses of one student."""
    seeds, teachers = losses.shape
    rows = {
        "role": "student",
        "status": "done",
        "student_params": 1000,
        "teacher_params": np.tile(1000 * 2 ** np.arange(teachers), seeds),
        "seed": np.repeat(np.arange(seeds), teachers),
        "pair": [f"p{seed}" for seed in np.repeat(np.arange(seeds), teachers)],
        "student_loss": losses.ravel(),
    }
    return pd.DataFrame(rows | columns)


def only(frame):
    (student,) = view(frame).students
    return student


def test_without_noise_pairing_removes_the_seed_effect_exactly():
    teachers, seeds = np.array([2.13, 2.11, 2.12]), np.array([[0.03], [-0.02], [0.005], [-0.01]])
    split = paired(only(table(teachers + seeds)))
    assert split.paired_sd == pytest.approx(0, abs=1e-12)
    assert split.unpaired_sd == pytest.approx(seeds.std(ddof=1), rel=1e-12)
    np.testing.assert_allclose(split.means["value"], teachers + seeds.mean(), rtol=1e-12)
    np.testing.assert_allclose(split.points["value"], np.tile(teachers + seeds.mean(), 4), rtol=1e-12)


def test_two_teachers_give_the_paired_t_interval():
    losses = np.random.default_rng(3).normal(2, 0.01, (6, 2)) + np.random.default_rng(4).normal(0, 0.1, (6, 1))
    interval = stats.ttest_rel(losses[:, 0], losses[:, 1]).confidence_interval(0.9)
    half = (interval.high - interval.low) / 2
    student = only(table(losses))
    np.testing.assert_allclose(2 * paired(student).means["half_width"], half, rtol=1e-9)
    assert indistinguishable(student)[2] == pytest.approx(half, rel=1e-9)


def test_a_missing_run_does_not_move_the_other_teachers():
    teachers, seeds = np.array([2.13, 2.11, 2.12]), np.array([[0.03], [-0.02], [0.005]])
    frame = table(teachers + seeds).drop(index=4)  # the best teacher loses one seed
    means = paired(only(frame)).means["value"].to_numpy()
    np.testing.assert_allclose(means - means[0], teachers - teachers[0], atol=1e-12)


def test_one_seed_has_no_interval_and_claims_no_set():
    student = only(table(np.array([[2.13, 2.11, 2.12]])))
    assert paired(student).means["half_width"].isna().all()
    close, best, tolerance = indistinguishable(student)
    assert tolerance is None and best == 2000 and list(close) == [2000]


def test_close_teachers_are_not_distinguished_and_far_ones_are():
    noise = np.random.default_rng(1).normal(0, 0.002, (5, 4))
    close, best, tolerance = indistinguishable(only(table(np.array([2.2, 2.1, 2.1005, 2.15]) + noise)))
    assert set(close) == {2000, 4000} and best in close and 0.0005 < tolerance < 0.01


def test_roles_failures_and_baselines():
    frame = pd.concat(
        [
            table(np.full((2, 3), 2.0)),
            table(np.full((2, 1), 1.9), role="baseline", teacher_params=None),
            table(np.full((1, 2), 1.5), role="teacher", teacher_params=None, student_params=[2000, 4000]),
            table(np.full((1, 1), np.nan), status="failed", error="the loss became NaN"),
        ]
    )
    seen = view(frame)
    (student,) = seen.students
    assert len(student.rows) == 6 and student.baseline_loss == pytest.approx(1.9)
    assert len(seen.teachers) == 2 and list(seen.failed["error"]) == ["the loss became NaN"]
    assert len(seen.rows) == len(frame)


def test_a_done_row_without_a_loss_counts_as_failed():
    losses = np.full((1, 3), 2.0)
    losses[0, 1] = np.nan
    seen = view(table(losses))
    assert len(seen.failed) == 1 and len(seen.students[0].rows) == 2


def test_protocols_and_token_budgets_are_never_pooled():
    parts = [table(np.full((1, 3), loss), protocol=p, student_tokens=d)
             for loss, p, d in ((2.0, "scratch", 8e6), (2.1, "prune", 8e6), (1.9, "scratch", 16e6))]  # fmt: skip
    seen = view(pd.concat(parts))
    assert {(s.protocol, s.tokens): s.rows["student_loss"].iloc[0] for s in seen.students} == {
        ("scratch", 8e6): 2.0,
        ("prune", 8e6): 2.1,
        ("scratch", 16e6): 1.9,
    }
    assert len({s.label for s in seen.students}) == 3


def test_pruned_students_are_grouped_by_the_size_they_aimed_at():
    frame = table(np.full((1, 3), 2.0), student_params=[990, 1003, 1010], init="prune")
    frame["spec"] = json.dumps({"target_params": 1000})
    assert only(frame).params == 1000


def test_an_outside_table_needs_only_sizes_and_losses():
    frame = pd.DataFrame({"student_params": [1e3, 1e3], "teacher_params": [2e3, 4e3], "student_loss": [2.0, 1.9]})
    assert list(only(frame).teachers) == [2e3, 4e3]
    by_loss = pd.DataFrame({"student_params": [1e3, 1e3], "teacher_loss": [1.8, 1.7], "student_loss": [2.0, 1.9]})
    assert view(by_loss).coordinate == "teacher_loss" and list(view(by_loss).ladder) == [1.7, 1.8]


@pytest.mark.parametrize("cells", [None, pd.DataFrame()])
def test_nothing_gives_an_empty_view(cells):
    seen = view(cells)
    assert seen.students == () and len(seen.ladder) == 0 and seen.protocols == ()


def test_curves_are_averaged_over_seeds_at_equal_tokens():
    rows = pd.DataFrame({"cell_id": ["a", "b", "c"], "teacher": [1.0, 1.0, 2.0]})
    curves = pd.DataFrame(
        {
            "cell_id": list("aabbccd"),
            "tokens": [1, 2, 1, 2, 1, 2, 1],
            "validation_loss_nats": [4.0, 3, 2, 1, 5, None, 9],
        }
    )
    table = averaged_curves(curves, rows, "teacher")
    assert table[1.0].tolist() == [3.0, 2.0] and table[2.0].iloc[0] == 5.0 and np.isnan(table[2.0].iloc[1])


@pytest.mark.parametrize(
    ("protocols", "labels"),
    [
        (["scratch|soft=1|T=3"], [""]),
        (["scratch|soft=1|T=1", "scratch|soft=1|T=2"], ["temperature 1", "temperature 2"]),
        (["prune|soft=0.5|T=1", "scratch|soft=0.5|T=1"], ["pruned", "from scratch"]),
        (["scratch|soft=1|T=1", "scratch|soft=1|T=1|topk:4"], ["live teacher", "top-4 cache"]),
        (["scratch|soft=1|T=2", "scratch|soft=1|T=2|no-T2"], ["T² factor", "no T² factor"]),
        (["scratch|soft=1|T=1|sampled:4", "prune|soft=0.5|T=1|topk:4"],
         ["from scratch, soft share 1, cache of 4 draws", "pruned, soft share 0.5, top-4 cache"]),
        (["mine", "yours", None], ["mine", "yours", "no protocol stated"]),
        (["a|b", "b|a"], ["a|b", "b|a"]),
        (["a", "a|b"], ["a", "b"]),
    ],
)  # fmt: skip
def test_protocols_are_called_by_what_tells_them_apart(protocols, labels):
    assert list(protocol_labels(protocols).values()) == labels


def test_labels_of_protocols_are_unique_and_not_empty_for_any_texts():
    rng = np.random.default_rng(5)
    parts = [
        "scratch",
        "prune",
        "soft=1",
        "soft=0.5",
        "T=1",
        "T=2",
        "no-T2",
        "topk:4",
        "sampled:4",
        "",
        "mine",
        "T=x y",
    ]
    for _ in range(300):
        made = {"|".join(rng.choice(parts, rng.integers(1, 5))) for _ in range(rng.integers(2, 5))}
        labels = protocol_labels([*sorted(made), None])
        assert set(labels) == {*made, None} and len(set(labels.values())) == len(labels) and all(labels.values())


def test_a_student_is_compared_with_the_baseline_of_its_own_batches():
    students = [
        table(np.full((2, 3), 2.0), protocol=p, batch_seed=b) for p, b in (("scratch", 0), ("prune", [0] * 3 + [1] * 3))
    ]
    alone = [
        table(np.full((1, 1), loss), role="baseline", teacher_params=None, protocol="none", seed=seed, batch_seed=batch)
        for seed, batch, loss in ((0, 0, 1.0), (1, 0, 2.0), (1, 1, 4.0))
    ]
    of_protocol = {s.protocol: s.baseline_loss for s in view(pd.concat(students + alone)).students}
    assert of_protocol == {"scratch": 1.5, "prune": 2.5}


def test_a_domain_is_called_by_its_label():
    frame = pd.DataFrame({"domain_c__f1deb75f_loss_nats": [1.0, 2.0], "domain_code_loss_nats": [1.0, None]})
    assert domains(frame) == {"c__f1deb75f": "domain_c__f1deb75f_loss_nats", "code": "domain_code_loss_nats"}
    told = frame.assign(domain_labels=[json.dumps({"domain_c__f1deb75f_loss_nats": "C++"}), None])
    assert domains(told) == {"C++": "domain_c__f1deb75f_loss_nats", "code": "domain_code_loss_nats"}


def many_students(students, protocols=("a",)) -> pd.DataFrame:
    sizes = 1000.0 * 2 ** np.arange(students)
    rows = [
        {"student_params": s, "teacher_params": t, "protocol": protocol, "student_loss": 2.0, "teacher_loss": 1.0}
        for protocol in protocols
        for s in sizes
        for t in (1e5, 2e5)
    ]
    return pd.DataFrame(rows)


def test_few_students_all_have_a_panel_and_of_many_some_from_the_smallest_to_the_largest():
    for students, protocols in ((1, "a"), (6, "a"), (3, "abc"), (4, "abc")):
        seen = view(many_students(students, protocols))
        assert representative(seen).students == seen.students
    seen = view(many_students(11))
    assert [s.params for s in representative(seen).students] == [1000.0 * 2**n for n in (0, 2, 4, 6, 8, 10)]
    seen = view(many_students(40, "abcd"))
    drawn = representative(seen).by_protocol
    assert list(drawn) == list(seen.by_protocol) and all(len(own) == 3 for own in drawn.values())
    for label, own in drawn.items():
        assert (own[0], own[-1]) == (seen.by_protocol[label][0], seen.by_protocol[label][-1])
    assert len(representative(view(many_students(3, "abcdefghijklmnop"))).students) == 16  # no protocol without a panel


def test_a_view_is_taken_for_its_table():
    frame = many_students(2)
    seen = view(frame)
    assert view(seen) is seen and view(seen, "teacher_params") is seen
    assert view(seen, "teacher_loss").coordinate == "teacher_loss"
    assert view(seen, "teacher_loss").ladder.tolist() == [1.0]
