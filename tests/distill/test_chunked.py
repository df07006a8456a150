"""Chunked objectives equal dense ones in value and gradient, keep no vocabulary-sized array, and isolate a broken
student.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaplaw.distill import Layout, Output, Vocab, objective_losses, view_of
from gaplaw.spec import ObjectiveSpec

N, D, V, S = 24, 5, 11, 3
SPECS = [
    ObjectiveSpec(soft_weight=0.0),
    ObjectiveSpec(soft_weight=1.0),
    ObjectiveSpec(soft_weight=0.5),
    ObjectiveSpec(soft_weight=0.7, temperature=2.5),
    ObjectiveSpec(soft_weight=0.7, temperature=2.5, temperature_squared=False),
]


def random_output(seed, *lead, width=D):
    keys = jax.random.split(jax.random.key(seed))
    return Output(jax.random.normal(keys[0], (*lead, N, width)), jax.random.normal(keys[1], (*lead, width, V)))


def dense_loss(spec, student, teacher, labels):
    """The definition, written with log_softmax and full arrays."""
    logits = student.hidden_NxD @ student.out_DxV
    teacher_logits = teacher.hidden_NxD @ teacher.out_DxV
    hard = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1).mean()
    heat = spec.temperature
    log_p, log_q = jax.nn.log_softmax(teacher_logits / heat), jax.nn.log_softmax(logits / heat)
    soft = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1).mean()
    return (1 - spec.soft_weight) * hard + spec.soft_weight * (heat**2 if spec.temperature_squared else 1) * soft


def slow_unless(fast, values):
    """All values as parameters of a test, those that are not `fast` in the slow suite."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize("chunk", slow_unless([7, 24], [4, 7, 24, 1000]))
@pytest.mark.parametrize("spec", slow_unless([SPECS[0], SPECS[3], SPECS[4]], SPECS), ids=str)
def test_value_and_gradient_equal_the_dense_definition(spec, chunk):
    student, teacher = random_output(1), random_output(2, width=7)
    labels = jax.random.randint(jax.random.key(3), (N,), 0, V)
    chunked = jax.jit(
        jax.value_and_grad(lambda student: objective_losses((spec,), Layout(chunk), [student], teacher, labels)[0])
    )
    value, slope = chunked(student)
    expected, expected_slope = jax.value_and_grad(lambda student: dense_loss(spec, student, teacher, labels))(student)
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6)
    for ours, theirs in zip(slope, expected_slope, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("way", ["live", "targets"])  # together, and as students in turn see it
@pytest.mark.parametrize("temperature", slow_unless([1.0, 4.5, 1000.0], [1.0, 3.0, 4.5, 10.0, 100.0, 1000.0]))
def test_float32_keeps_the_loss_and_its_gradient_at_every_temperature(temperature, way):
    """Beside float64: KL·T² to 2e-6; its gradient, of differences of nearly equal numbers, to 1e-6 and T · 2e-7."""
    size, spec = 256, ObjectiveSpec(temperature=temperature)
    keys = jax.random.split(jax.random.key(5), 4)
    teacher = Output(jax.random.normal(keys[0], (64, 8)), jax.random.normal(keys[1], (8, size)))
    student = Output(
        *(part + jax.random.normal(key, part.shape) / 3 for part, key in zip(teacher, keys[2:], strict=True))
    )
    labels = jnp.zeros(64, jnp.int32)
    seen = teacher if way == "live" else view_of(Vocab(size), teacher, size).targets(temperature)
    value, slope = jax.value_and_grad(lambda s: objective_losses((spec,), Layout(64), [s], seen, labels)[0])(student)

    hidden, out = (np.asarray(part, np.float64) for part in student)
    log_p, log_q = (
        logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        for logits in (np.asarray(teacher.hidden_NxD, np.float64) @ np.asarray(teacher.out_DxV), hidden @ out)
        for logits in [logits / temperature]
    )
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()
    expected = hidden.T @ (np.exp(log_q) - np.exp(log_p)) * temperature / 64
    assert value == pytest.approx(temperature**2 * kl, rel=2e-6)
    assert np.linalg.norm(slope.out_DxV - expected) < (1e-6 + 2e-7 * temperature) * np.linalg.norm(expected)


def test_a_student_far_from_its_teacher_has_a_finite_loss_at_high_temperature():
    """Its probabilities underflow where the teacher's do not: KL is then that of the logits."""
    teacher = Output(jnp.array([[0.0, 0.0]]), jnp.eye(2))
    student = Output(jnp.array([[0.0, -2e4]]), jnp.eye(2))
    spec = ObjectiveSpec(temperature=10.0, temperature_squared=False)
    (value,) = objective_losses((spec,), Layout(1), [student], teacher, jnp.zeros(1, jnp.int32))
    assert value == pytest.approx(np.log(0.5) + 0.5 * 2e3, rel=1e-6)


def test_a_group_of_stacks_equals_its_members():
    stacks = [random_output(1, S), random_output(4, 2)]
    teacher, labels = random_output(2), jax.random.randint(jax.random.key(3), (N,), 0, V)
    specs = (SPECS[1], SPECS[2])

    def total(stacks):
        losses = objective_losses(specs, Layout(8), stacks, teacher, labels)
        return sum(jnp.sum(loss) for loss in losses), losses

    slopes, losses = jax.grad(total, has_aux=True)(stacks)
    for spec, stack, slope, loss in zip(specs, stacks, slopes, losses, strict=True):
        for place in range(len(loss)):
            alone = Output(*(part[place] for part in stack))
            expected = jax.value_and_grad(lambda s, spec=spec: dense_loss(spec, s, teacher, labels))(alone)
            np.testing.assert_allclose(loss[place], expected[0], rtol=2e-5)
            np.testing.assert_allclose(slope.hidden_NxD[place], expected[1].hidden_NxD, rtol=2e-4, atol=2e-6)


def test_a_broken_student_leaves_its_neighbours_untouched():
    stack, teacher = random_output(1, S), random_output(2)
    labels = jax.random.randint(jax.random.key(3), (N,), 0, V)
    broken = Output(stack.hidden_NxD.at[1].set(jnp.nan), stack.out_DxV)

    def total(stack):
        losses = objective_losses((SPECS[2],), Layout(8), [stack], teacher, labels)[0]
        return jnp.sum(losses), losses

    slope, losses = jax.grad(total, has_aux=True)(broken)
    clean_slope, clean = jax.grad(total, has_aux=True)(stack)
    assert np.isnan(losses[1])
    for place in (0, 2):
        assert losses[place] == clean[place]
        np.testing.assert_array_equal(slope.hidden_NxD[place], clean_slope.hidden_NxD[place])


def test_no_tokens_by_vocabulary_array_is_kept():
    tokens, vocab, width, chunk = 2048, 4096, 32, 128
    shapes = (
        jax.ShapeDtypeStruct((tokens, width), jnp.float32),
        jax.ShapeDtypeStruct((width, vocab), jnp.float32),
        jax.ShapeDtypeStruct((tokens,), jnp.int32),
    )

    def temporary_bytes(loss):
        def call(hidden, out, labels):
            return loss(Output(hidden, out), Output(hidden * 2, out), labels)

        compiled = jax.jit(jax.grad(call, argnums=(0, 1))).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    dense = temporary_bytes(lambda s, t, labels: dense_loss(SPECS[2], s, t, labels))
    chunked = temporary_bytes(lambda s, t, labels: objective_losses((SPECS[2],), Layout(chunk), [s], t, labels)[0])
    assert chunked < 4 * tokens * vocab < dense
    assert chunked < 0.2 * dense


MESHES = slow_unless(
    [(1, 8, 1), (2, 2, 2), (1, 1, 3)], [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 4, 2), (4, 1, 2), (1, 1, 3)]
)


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_gives_the_one_device_answer(shape):
    """data × tensor × student: tokens, vocabulary columns (11 symbols: padded) and stacked students spread over
    devices.
    """
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    if devices.size < np.prod(shape):
        pytest.skip("needs 8 virtual devices")
    mesh = jax.sharding.Mesh(devices, ("data", "tensor", "student"))
    layout = Layout(4, mesh, token_axes=("data",), vocab_axis="tensor", student_axis="student")
    stacks, teacher = [random_output(1, S), random_output(4, 2)], random_output(2, width=7)
    labels, specs = jax.random.randint(jax.random.key(3), (N,), 0, V), (SPECS[3], SPECS[2])

    def total(stacks, layout):
        losses = objective_losses(specs, layout, stacks, teacher, labels)
        return sum(jnp.sum(loss) for loss in losses), losses

    grad = jax.jit(jax.grad(total, has_aux=True), static_argnums=1)
    slopes, losses = grad(stacks, layout)
    expected, expected_losses = grad(stacks, Layout(N))
    for ours, theirs in zip(
        jax.tree.leaves((losses, slopes)), jax.tree.leaves((expected_losses, expected)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
