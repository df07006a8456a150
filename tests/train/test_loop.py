"""A group's numbers equal its members' numbers; pairing is exact; a student that breaks leaves its neighbours alone."""

import dataclasses

import jax
import numpy as np
import pytest

from gaplaw.spec import Group, ObjectiveSpec
from gaplaw.train import cpu_path as in_turn
from gaplaw.train import run_group
from gaplaw.train.outcome import last_steps
from tests import toy


def students(teacher, sweep=None):
    sweep = sweep or toy.sweep()
    return tuple(cell for cell in sweep.students if cell.teacher.fingerprint == teacher.cell.fingerprint)


def run(cells, corpus, teacher, **kwargs):
    outcomes = run_group(
        Group(cells=tuple(cells)),
        corpus=corpus,
        execution=toy.EXECUTION,
        teacher=(teacher.params, teacher.model),
        **kwargs,
    )
    return {outcome.cell.id: outcome for outcome in outcomes}


@pytest.fixture(scope="module")
def base(corpus, teacher):
    """One student, trained alone."""
    cell = students(teacher)[0]
    return run([cell], corpus, teacher)[cell.id]


@pytest.fixture(scope="module")
def together(corpus, teacher):
    """Two shapes of two seeds, trained as one group, by cell id."""
    return run(students(teacher), corpus, teacher)


def test_a_teacher_learns_the_source(teacher):
    losses = [row["validation_loss_nats"] for row in teacher.curve if "validation_loss_nats" in row]
    assert len(losses) == 2 and losses[-1] < losses[0] < np.log(toy.VOCAB) + 0.2
    assert teacher.curve[-1]["tokens"] == teacher.cell.steps * teacher.cell.batch_tokens


def test_group_equals_single_cells(corpus, teacher, base, together):
    cells = students(teacher)
    assert len(together) == 4
    last = run(cells[3:], corpus, teacher)[cells[3].id]
    for cell, outcome in ((cells[0], base), (cells[3], last)):  # of each shape, and of each seed, one
        alone = outcome.metrics
        for name, value in together[cell.id].metrics.items():
            if name.endswith("_nats") or name in ("agreement", "calibration_error"):
                np.testing.assert_allclose(value, alone[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_reported_numbers_agree_with_each_other(corpus, teacher, base):
    row = base.metrics
    assert row["loss_teacher_ce_nats"] == pytest.approx(teacher.metrics["loss_student_ce_nats"], rel=1e-5)
    shares = np.bincount(corpus.validation().domain_N) / len(corpus.validation().domain_N)
    mixed = shares @ [row["domain_even_loss_nats"], row["domain_odd_loss_nats"]]
    assert row["loss_student_ce_nats"] == pytest.approx(mixed, rel=1e-5)
    cell = base.cell
    assert row["training_epochs"] == cell.steps * cell.train.batch_sequences / corpus.windows_per_epoch("train")
    assert row["kl_teacher_student_nats"] > 0 and 0 <= row["agreement"] <= 1


def test_one_seed_means_one_initialisation_and_one_batch_order_under_every_teacher(corpus):
    sweep = toy.sweep()
    by_pair = {}
    for cell in sweep.students:
        by_pair.setdefault(cell.pair, []).append(cell)
    assert all(len(cells) == 2 for cells in by_pair.values()) and len(by_pair) == 4
    baselines = {cell.pair for cell in sweep.baselines}
    assert baselines == set(by_pair)


def test_a_student_that_goes_nan_fails_alone(corpus, teacher, together):
    cells = students(teacher)
    mad = dataclasses.replace(cells[0], name="mad", train=dataclasses.replace(cells[0].train, learning_rate=1e30))
    outcomes = run([mad, *cells[1:]], corpus, teacher)
    assert outcomes[mad.id].status == "failed" and "at step" in outcomes[mad.id].error
    assert "loss_student_ce_nats" not in outcomes[mad.id].metrics
    for cell in cells[1:]:
        ours, theirs = outcomes[cell.id].metrics, together[cell.id].metrics
        assert ours["loss_student_ce_nats"] == pytest.approx(theirs["loss_student_ce_nats"], rel=1e-5)


EXECUTIONS = [
    dict(steps_per_dispatch=1, chunk_tokens=32),
    dict(core_blocked=False),
    pytest.param(  # as in test_step
        dict(core_blocked=False, chunk_tokens=32, scan_layers=True, remat="full", attention="xla"),
        marks=pytest.mark.slow,
    ),
    pytest.param(dict(core_blocked=False, scan_layers=True, remat="dots"), marks=pytest.mark.slow),
    pytest.param(dict(accumulate=4), marks=pytest.mark.slow),  # as in test_step
    dict(steps_per_dispatch=64, evaluations=1),
]


@pytest.mark.parametrize("fields", EXECUTIONS, ids=str)
def test_execution_does_not_change_the_numbers(corpus, teacher, base, fields):
    cell = students(teacher)[0]
    other = dataclasses.replace(toy.EXECUTION, **fields)
    (outcome,) = run_group(
        Group(cells=(cell,)), corpus=corpus, execution=other, teacher=(teacher.params, teacher.model)
    )
    for name in ("loss_student_ce_nats", "training_loss_nats"):
        assert outcome.metrics[name] == pytest.approx(base.metrics[name], rel=1e-4), name
    assert summed_nats(outcome) == pytest.approx(
        summed_nats(base), rel=1e-4
    )  # the curves' rows differ, not what they sum to


def summed_nats(outcome) -> float:
    tokens = np.diff([row["tokens"] for row in outcome.curve], prepend=0)
    return float(tokens @ [row["training_loss_nats"] for row in outcome.curve])


def test_the_training_loss_is_the_mean_of_the_last_tenth_of_the_steps(corpus, teacher):
    cells = students(teacher)[:1]
    single = dataclasses.replace(toy.EXECUTION, **EXECUTIONS[0])  # a step a dispatch
    found = run_group(Group(cells=cells), corpus=corpus, execution=single, teacher=(teacher.params, teacher.model))
    for outcome in found:
        by_step = [row["training_loss_nats"] for row in outcome.curve]
        assert len(by_step) == outcome.cell.steps == 12
        assert outcome.metrics["training_loss_nats"] == sum(by_step[10:]) / 2
    assert [len(last_steps(steps)) for steps in (1, 2, 10, 11, 640)] == [1, 1, 1, 2, 64]
    assert last_steps(640) == range(576, 640)


def test_batches_cut_into_blocks_give_the_numbers_of_whole_ones(corpus, teacher, base, monkeypatch):
    cell, whole = base.cell, base.metrics
    monkeypatch.setattr(in_turn, "BLOCK_TOKENS", cell.batch_tokens // 4)
    cut = run([cell], corpus, teacher)[cell.id].metrics
    for name in ("loss_student_ce_nats", "loss_teacher_ce_nats", "kl_teacher_student_nats", "agreement"):
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_pure_soft_targets_pull_the_student_to_its_teacher(corpus, teacher):
    hard = students(teacher, toy.sweep(objective=ObjectiveSpec(soft_weight=0.0)))[0]
    soft = students(teacher, toy.sweep(objective=ObjectiveSpec(soft_weight=1.0)))[0]
    outcomes = run([hard, soft], corpus, teacher)
    kl = {cell.id: outcomes[cell.id].metrics["kl_teacher_student_nats"] for cell in (hard, soft)}
    assert kl[soft.id] < kl[hard.id]


def test_pruned_students_meet_their_size_and_start_near_the_teacher(corpus, teacher):
    sweep = toy.sweep(init="prune", students=[toy.model(12)])
    cells = students(teacher, sweep)
    outcomes = run(cells, corpus, teacher, keep_params=True)
    from gaplaw.spec.sizes import count_params

    for cell in cells:
        size = count_params(outcomes[cell.id].model).non_embedding
        assert abs(size / cell.target_params - 1) <= 0.05
        built = sum(leaf.size for leaf in jax.tree.leaves(outcomes[cell.id].params))
        assert built == count_params(outcomes[cell.id].model).total
