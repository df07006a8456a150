"""Every objective: value and gradient of its definition, nothing to learn from an equal, however tokens are cut or
spread.

A new objective is one line of MEMBERS: the objective, the state that it is asked in, and its definition in float64.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaplaw.canonical import from_dict, label, to_dict
from gaplaw.distill import Layout, Output, objective_means
from gaplaw.errors import SpecError
from gaplaw.methods.objectives import TAID, AnyObjective, GeneralizedJSD, ObjectiveSpec, ReverseKL
from gaplaw.methods.protocol import Objective
from gaplaw.spec import Cell, Execution, Group, MeshSpec
from gaplaw.train import run_group
from tests import toy
from tests.train.test_checkpoint import EVERY, Killed, assert_same

N, D, V, S = 12, 4, 11, 2


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(axis=-1)


def hard(student, labels):
    return -np.log(np.take_along_axis(softmax(student), labels[:, None], axis=-1)[:, 0])


def kd(weight, heat, scale):
    return lambda student, teacher, labels: (
        (1 - weight) * hard(student, labels) + weight * scale * kl(softmax(teacher / heat), softmax(student / heat))
    )


def reverse(weight, heat):
    return lambda student, teacher, labels: (
        (1 - weight) * hard(student, labels) + weight * kl(softmax(student / heat), softmax(teacher / heat))
    )


def jsd(beta, heat):
    def loss(student, teacher, labels):
        p, q = softmax(teacher / heat), softmax(student / heat)
        middle = beta * p + (1 - beta) * q
        return beta * kl(p, middle) + (1 - beta) * kl(q, middle)

    return loss


def taid(t):
    """The target takes no gradient, so its student is given apart."""
    return lambda student, teacher, labels, fixed=None: kl(
        softmax((1 - t) * (student if fixed is None else fixed) + t * teacher), softmax(student)
    )


MEMBERS = [
    (ObjectiveSpec(soft_weight=0.0), {}, lambda student, teacher, labels: hard(student, labels)),
    (ObjectiveSpec(soft_weight=0.7, temperature=2.5), {}, kd(0.7, 2.5, 2.5**2)),
    (ObjectiveSpec(temperature=10.0, temperature_squared=False), {}, kd(1.0, 10.0, 1.0)),
    (ReverseKL(), {}, reverse(1.0, 1.0)),
    (ReverseKL(soft_weight=0.5, temperature=2.0), {}, reverse(0.5, 2.0)),
    (GeneralizedJSD(beta=0.1), {}, jsd(0.1, 1.0)),
    (GeneralizedJSD(beta=0.6, temperature=2.0), {}, jsd(0.6, 2.0)),
    (TAID(start=0.3), {}, taid(0.3)),
    (TAID(), {"t": 0.8, "before_nats": 2.0, "trend": 0.1}, taid(0.8)),
]
every = pytest.mark.parametrize(
    "objective, state, definition", MEMBERS, ids=lambda value: label(value) if isinstance(value, Objective) else ""
)


def outputs(seed, *lead, width=D, scale=1.0):
    keys = jax.random.split(jax.random.key(seed))
    return Output(jax.random.normal(keys[0], (*lead, N, width)), scale * jax.random.normal(keys[1], (*lead, width, V)))


LABELS = jax.random.randint(jax.random.key(3), (N,), 0, V)


def ask(objective, state, layout, student, teacher):
    """(loss, measures) and the gradient, of a student or of a stack of equal state."""
    state = objective.initial_state() | state
    lead = student.hidden_NxD.shape[:-2]
    states = [{name: jnp.full(lead, value) for name, value in state.items()}]

    def total(student):
        ((loss, measured),) = objective_means((objective,), layout, [student], teacher, LABELS, states)
        return jnp.sum(loss), (loss, measured)

    grads, means = jax.jit(jax.grad(total, has_aux=True))(student)
    return means, grads


def close(found, expected, rtol=1e-4, atol=2e-6):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


@every
def test_value_and_gradient_are_those_of_the_definition_in_float64(objective, state, definition):
    student, teacher = outputs(1), outputs(2, width=7)
    (loss, _), grads = ask(objective, state, Layout(5), student, teacher)
    hidden, out = (np.asarray(part, np.float64) for part in student)
    teacher_logits = np.asarray(teacher.hidden_NxD, np.float64) @ np.asarray(teacher.out_DxV, np.float64)
    fixed = {"fixed": hidden @ out} if isinstance(objective, TAID) else {}

    def dense(out):
        return definition(hidden @ out, teacher_logits, np.asarray(LABELS), **fixed).mean()

    assert loss == pytest.approx(dense(out), rel=2e-5, abs=1e-6)
    step = np.random.default_rng(0).normal(size=out.shape)
    for direction in (step, np.eye(D, V)):
        slope = (dense(out + 1e-5 * direction) - dense(out - 1e-5 * direction)) / 2e-5
        assert np.vdot(np.asarray(grads.out_DxV, np.float64), direction) == pytest.approx(slope, rel=2e-4, abs=2e-6)


@every
def test_there_is_nothing_to_learn_from_an_equal(objective, state, definition):
    if getattr(objective, "soft_weight", 1.0) < 1:
        pytest.skip("labels remain to be learnt")
    student = outputs(1)
    (loss, _), grads = ask(objective, state, Layout(4), student, student)
    assert abs(loss) < 2e-6
    assert max(float(jnp.abs(part).max()) for part in grads) < 3e-6


@every
def test_chunks_change_nothing(objective, state, definition):
    student, teacher = outputs(1, S), outputs(2)
    expected = ask(objective, state, Layout(N), student, teacher)
    for chunk in (1, 4):
        close(ask(objective, state, Layout(chunk), student, teacher), expected)


@every
@pytest.mark.parametrize("shape", [(2, 2, 2), pytest.param((1, 4, 1), marks=pytest.mark.slow)], ids=str)
def test_a_mesh_changes_nothing(objective, state, definition, shape):
    """Tokens, columns of the vocabulary (11: padded) and students spread over devices; gradients pass their sums."""
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    mesh = jax.sharding.Mesh(devices, ("data", "tensor", "student"))
    spread = Layout(3, mesh, token_axes=("data",), vocab_axis="tensor", student_axis="student")
    student, teacher = outputs(1, S), outputs(2, width=7)
    found, expected = (ask(objective, state, layout, student, teacher) for layout in (spread, Layout(N)))
    close(found, expected)


def test_a_group_of_different_objectives_equals_its_members():
    """They share what is computed of the teacher in a chunk, on one device and on a mesh."""
    objectives = (ReverseKL(), GeneralizedJSD(beta=0.3), TAID(), ObjectiveSpec())
    stacks, teacher = [outputs(seed, S) for seed in range(4)], outputs(9)
    states = [{name: jnp.full(S, value) for name, value in one.initial_state().items()} for one in objectives]
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "tensor", "student"))
    spread = Layout(3, mesh, token_axes=("data",), vocab_axis="tensor", student_axis="student")

    def total(stacks, layout):
        means = objective_means(objectives, layout, stacks, teacher, LABELS, states)
        return sum(jnp.sum(loss) for loss, _ in means), means

    for layout in (Layout(4), spread):
        grads, means = jax.jit(jax.grad(total, has_aux=True), static_argnums=1)(stacks, layout)
        for objective, stack, grad, mean in zip(objectives, stacks, grads, means, strict=True):
            close((mean, grad), ask(objective, {}, Layout(N), stack, teacher), rtol=1e-3, atol=3e-6)


@every
def test_a_broken_student_leaves_its_neighbours_untouched(objective, state, definition):
    stack, teacher = outputs(1, S), outputs(2)
    broken = Output(stack.hidden_NxD.at[0].set(jnp.nan), stack.out_DxV)
    (loss, _), grads = ask(objective, state, Layout(4), broken, teacher)
    (whole, _), expected = ask(objective, state, Layout(4), stack, teacher)
    assert np.isnan(loss[0]) and loss[1] == whole[1]
    np.testing.assert_array_equal(grads.hidden_NxD[1], expected.hidden_NxD[1])


@pytest.mark.parametrize("objective", [m[0] for m in MEMBERS if isinstance(m[0], ObjectiveSpec)], ids=str)
def test_a_gradient_written_by_hand_is_the_derived_one(objective, monkeypatch):
    student, teacher = outputs(1, S), outputs(2)
    by_hand = ask(objective, {}, Layout(4), student, teacher)
    monkeypatch.setattr(ObjectiveSpec, "losses_and_grads", lambda *_: None)
    close(ask(objective, {}, Layout(4), student, teacher), by_hand, rtol=2e-4)


@every
def test_it_survives_json_and_says_its_kind(objective, state, definition):
    text = to_dict(objective)
    assert from_dict(AnyObjective, text) == objective
    assert text.get("kind") == getattr(objective, "kind", None)


def test_ends_of_the_generalised_divergence():
    student, teacher = outputs(1), outputs(2)
    (forward, _), _ = ask(ObjectiveSpec(), {}, Layout(N), student, teacher)
    (backward, _), _ = ask(ReverseKL(), {}, Layout(N), student, teacher)
    (low, _), _ = ask(GeneralizedJSD(beta=1e-4), {}, Layout(N), student, teacher)
    (high, _), _ = ask(GeneralizedJSD(beta=1 - 1e-4), {}, Layout(N), student, teacher)
    assert low / 1e-4 == pytest.approx(float(forward), rel=0.03) and high / 1e-4 == pytest.approx(
        float(backward), rel=0.03
    )


def test_the_target_of_taid_moves_as_published():
    objective = TAID(start=0.4, rate=0.5, momentum=0.5)
    state = objective.next_state(objective.initial_state(), {"taid_cross_entropy_nats": 2.0}, 0.1)
    assert float(state["t"]) == pytest.approx(0.4) and float(state["before_nats"]) == 2.0  # the first keeps J only
    state = objective.next_state(state, {"taid_cross_entropy_nats": 1.0}, 0.2)
    trend = 0.5 * (2.0 - 1.0) / 2.0
    moved = 0.4 + 0.5 / (1 + np.exp(-trend)) * 0.6
    assert float(state["trend"]) == pytest.approx(trend) and float(state["t"]) == pytest.approx(max(moved, 0.52))
    state = objective.next_state(state, {"taid_cross_entropy_nats": 1.0}, 1.0)
    assert float(state["t"]) == pytest.approx(1.0)


TRAINED = [*(pytest.param(one, marks=pytest.mark.slow) for one in (ReverseKL(), GeneralizedJSD(beta=0.1))), TAID()]


def group_of(objective, teacher):
    students = toy.sweep(objective=objective, students=[toy.model(8)]).students
    return Group(cells=tuple(cell for cell in students if cell.teacher.fingerprint == teacher.cell.fingerprint))


def run(objective, corpus, teacher, execution, **more):
    given = (teacher.params, teacher.model)
    return run_group(
        group_of(objective, teacher), corpus=corpus, execution=execution, teacher=given, keep_params=True, **more
    )


@pytest.mark.parametrize("objective", TRAINED, ids=lambda objective: objective.kind)
def test_a_cell_is_trained_killed_and_resumed_to_the_same_bits(objective, corpus, teacher, tmp_path):
    expected = run(objective, corpus, teacher, EVERY)
    row = expected[0].metrics
    measured = [point["validation_loss_nats"] for point in expected[0].curve if "validation_loss_nats" in point]
    assert measured[-1] < measured[0] and row["cpu_path"] is False
    assert {name for name in row if name.startswith("measure_")} == {f"measure_{name}" for name in objective.measures}

    def progress(now):
        if now.phase == "train" and now.step >= 6:
            raise Killed

    with pytest.raises(Killed):
        run(objective, corpus, teacher, EVERY, checkpoints=tmp_path, progress=progress)
    assert_same(run(objective, corpus, teacher, EVERY, checkpoints=tmp_path), expected, np.testing.assert_array_equal)


@pytest.mark.slow
@pytest.mark.parametrize("objective", TRAINED, ids=lambda objective: objective.kind)
def test_microbatches_and_a_mesh_give_the_numbers_of_one_device(objective, corpus, teacher):
    expected = run(objective, corpus, teacher, EVERY)
    spread = dataclasses.replace(EVERY, accumulate=2, mesh=MeshSpec(data=2, tensor=2, student=2))

    def compare(ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)

    assert_same(run(objective, corpus, teacher, spread), expected, compare)


def test_what_cannot_be_is_refused_in_one_line():
    for wrong in (
        lambda: GeneralizedJSD(beta=0.0),
        lambda: TAID(start=0.5, end=0.4),
        lambda: ReverseKL(temperature=0.0),
    ):
        with pytest.raises(SpecError, match=r"^(GeneralizedJSD|TAID|ReverseKL)\."):
            wrong()
    (cell, *_) = toy.sweep().students
    cached = dataclasses.replace(toy.sweep().students[0].signal, kind="topk", symbols=4)
    with pytest.raises(SpecError, match="Cell.objective .*: must have soft targets, which a topk:4 cache serves"):
        dataclasses.replace(cell, objective=ReverseKL(), signal=cached)
    with pytest.raises(SpecError, match="Cell.objective .*: needs a teacher"):
        dataclasses.replace(cell, objective=TAID(), teacher=None)


def test_protocols_and_identities_of_methods_differ():
    cells = [toy.sweep(objective=objective).students[0] for objective, _, _ in MEMBERS if objective.needs_teacher]
    assert len({cell.protocol for cell in cells}) == len({cell.fingerprint for cell in cells}) == len(cells)
    for cell in cells:
        assert from_dict(Cell, to_dict(cell)) == cell
    assert Execution().core_blocked  # the default, which objectives other than kd decline
