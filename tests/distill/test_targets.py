"""What is kept of a teacher serves its students: everything kept is dense, a bucket never adds, draws are unbiased."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaplaw.distill import Layout, Output, Vocab, keep, objective_losses, view_of
from gaplaw.distill.targets import kept_shapes, unpacked
from gaplaw.errors import SignalError
from gaplaw.spec import ObjectiveSpec, TeacherSignal
from gaplaw.spec.teacher_signal import HALF_TAILS
from tests.distill.test_chunked import MESHES, N, S, V, dense_loss, random_output, slow_unless

SOFT, MIXED = ObjectiveSpec(), ObjectiveSpec(soft_weight=0.7, temperature=2.0)
KEY, WHOLE = jax.random.key(9), Layout(N)
LABELS = jax.random.randint(jax.random.key(3), (N,), 0, V)


def kept_of(teacher, kind="topk", symbols=V, key=KEY, layout=WHOLE, temperatures=(1.0, 2.0, 3.0)):
    signal, uniform_N = TeacherSignal(kind=kind, symbols=symbols), jax.random.uniform(key, (len(teacher.hidden_NxD),))
    return keep(signal, temperatures, layout, teacher, uniform_N)


def loss_and_slope(spec, student, teacher, chunk=N):
    return jax.value_and_grad(lambda s: objective_losses((spec,), Layout(chunk), [s], teacher, LABELS)[0])(student)


@pytest.mark.parametrize("spec", [SOFT, MIXED, ObjectiveSpec(temperature=3.0)], ids=str)
def test_keeping_every_symbol_is_keeping_everything(spec):
    student, teacher = random_output(1), random_output(2, width=7)
    value, slope = loss_and_slope(spec, student, kept_of(teacher), chunk=8)
    expected, expected_slope = jax.value_and_grad(lambda s: dense_loss(spec, s, teacher, LABELS))(student)
    np.testing.assert_allclose(value, expected, rtol=2e-3)  # log-probabilities of 11 bits
    for ours, theirs in zip(slope, expected_slope, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-2, atol=2e-4)


def bucket_kl(student, teacher, heat, symbols):
    """The definition in float64: KL between the distributions over the teacher's k likeliest symbols and one for the
    rest.
    """
    z, w = (np.asarray(o.hidden_NxD, np.float64) @ np.asarray(o.out_DxV, np.float64) for o in (teacher, student))

    def buckets(logits, order):
        powers = np.exp(logits / heat - (logits / heat).max(axis=1, keepdims=True))
        sorted_probs = np.take_along_axis(powers / powers.sum(axis=1, keepdims=True), order, axis=1)
        return np.c_[sorted_probs[:, :symbols], sorted_probs[:, symbols:].sum(axis=1)]

    order = np.argsort(-z, axis=1)
    p, q = buckets(z, order), buckets(w, order)
    return (p * np.log(p / q)).sum(axis=1).mean()


@pytest.mark.parametrize("heat", slow_unless([0.5, 2.0, 30.0], [0.5, 1.0, 2.0, 3.0, 30.0]))
@pytest.mark.parametrize("symbols", [1, 4])
def test_topk_is_the_kl_of_buckets_and_never_above_the_dense_one(heat, symbols):
    spec = ObjectiveSpec(temperature=heat, temperature_squared=False)
    student, teacher = random_output(1), random_output(2, width=7)
    found, _ = loss_and_slope(spec, student, kept_of(teacher, symbols=symbols, temperatures=(heat,)), chunk=6)
    assert found == pytest.approx(bucket_kl(student, teacher, heat, symbols), rel=5e-3)
    assert found < dense_loss(spec, student, teacher, LABELS)  # the data-processing inequality


def test_the_slope_of_a_bucket_is_the_slope_of_its_loss():
    """The slope is written out; the loss it belongs to is differentiated numerically here."""
    student, kept = random_output(1), kept_of(random_output(2, width=7), symbols=3)
    value, slope = loss_and_slope(MIXED, student, kept)
    way = Output(
        *(jax.random.normal(key, part.shape) for key, part in zip(jax.random.split(KEY), student, strict=True))
    )
    step = 1e-2
    ahead, behind = (
        loss_and_slope(MIXED, jax.tree.map(lambda a, b, s=sign: a + s * step * b, student, way), kept)[0]
        for sign in (1, -1)
    )
    directional = sum(float(jnp.vdot(a, b)) for a, b in zip(slope, way, strict=True))
    assert directional == pytest.approx(float(ahead - behind) / (2 * step), rel=2e-3)


def test_draws_are_unbiased_in_loss_and_gradient():
    """The mean over independent sets of draws is the dense value and gradient, within four standard errors
    everywhere.
    """
    student, teacher, count = random_output(1), random_output(2, width=7), 400

    @jax.jit
    @jax.vmap
    def once(key):
        return loss_and_slope(SOFT, student, kept_of(teacher, "sampled", 3, key))

    found = once(jax.random.split(KEY, count))
    expected = loss_and_slope(SOFT, student, teacher)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        error = np.std(ours, axis=0, ddof=1) / np.sqrt(count)
        assert np.all(error > 0)
        miss = np.abs(np.mean(ours, axis=0) - theirs) / (error + 1e-4)  # Σ p log p is kept with 11 bits
        assert np.max(miss) < 5 and np.mean(miss > 2) < 0.1


def test_draws_come_as_often_as_expected_within_one():
    teacher, symbols = random_output(2, width=7), 5
    p = jax.nn.softmax(teacher.hidden_NxD @ teacher.out_DxV)
    ids = np.asarray(kept_of(teacher, "sampled", symbols).ids_NxT)
    counts = (ids[:, :, None] == np.arange(V)).sum(axis=1)
    assert np.abs(counts - symbols * np.asarray(p)).max() < 1


def few_likely(size=300):
    """A teacher with few likely symbols: interpolated, its tail was 24 % off at temperature 1.5 and 6 % at 3."""
    return Output(12 * jax.random.normal(KEY, (50, size)), jnp.eye(size))


@pytest.mark.parametrize("heat", slow_unless([0.5, 1.5, 2.0, 1000.0], [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 1000.0]))
def test_the_mass_of_a_tail_is_exact_at_every_temperature_that_was_asked_for(heat):
    size, symbols, teacher = 300, 16, few_likely()
    kept = kept_of(teacher, symbols=symbols, temperatures=(1.0, heat))
    p = np.asarray(jax.nn.softmax(np.asarray(teacher.hidden_NxD, np.float64)), np.float64)
    p = np.sort(p, axis=1)[:, :-symbols] ** (1 / heat)
    found = np.asarray(kept.log_tails_N[heat], np.float64)
    np.testing.assert_allclose(found, np.log(p.sum(axis=1)), rtol=1e-3 if heat in HALF_TAILS else 1e-6, atol=1e-5)
    mass = unpacked(Vocab(size), kept, size, heat).tail_N
    exact = np.sort(np.asarray(jax.nn.softmax(teacher.hidden_NxD / heat), np.float64), axis=1)[:, :-symbols].sum(axis=1)
    np.testing.assert_allclose(mass, exact, rtol=2e-2, atol=1e-6)  # float16 heads share in it


def test_a_temperature_without_a_tail_is_refused_in_one_line():
    kept = kept_of(few_likely(), symbols=16, temperatures=(1.0, 3.0))
    with pytest.raises(SignalError, match=r"temperature = 2: the teacher cache keeps the tail's mass at 1, 3 only"):
        unpacked(Vocab(300), kept, 300, 2.0)


@pytest.mark.parametrize("kind", ["topk", "sampled"])
@pytest.mark.parametrize(("size", "wide"), [(256, 1), (257, 2)])
def test_bytes_are_what_the_signal_says(kind, size, wide):
    signal = TeacherSignal(kind=kind, symbols=5)
    teacher = Output(jax.random.normal(KEY, (4, size)), jnp.eye(size))
    kept = kept_of(teacher, kind, signal.symbols, temperatures=(1.0, 3.0))
    assert kept.ids_NxT.dtype.itemsize == wide
    assert sum(part.nbytes for part in jax.tree.leaves(kept)) == 4 * signal.token_bytes(size, (1.0, 3.0))


@pytest.mark.parametrize(("kind", "spec"), [("topk", MIXED), ("sampled", SOFT)])
@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_keeps_and_serves_the_same(shape, kind, spec):
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    if devices.size < np.prod(shape):
        pytest.skip("needs 8 virtual devices")
    mesh = jax.sharding.Mesh(devices, ("data", "tensor", "student"))
    layout = Layout(4, mesh, token_axes=("data",), vocab_axis="tensor", student_axis="student")
    stacks, teacher = [random_output(1, S), random_output(4, 2)], random_output(2, width=7)
    kept = kept_of(teacher, kind, 4)
    for ours, theirs in zip(*map(jax.tree.leaves, (kept_of(teacher, kind, 4, layout=layout), kept)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3)

    def total(stacks, layout, kept):
        losses = objective_losses((spec, spec), layout, stacks, kept, LABELS)
        return sum(jnp.sum(loss) for loss in losses), losses

    grad = jax.jit(jax.grad(total, has_aux=True), static_argnums=1)
    found, expected = grad(stacks, layout, kept), grad(stacks, Layout(N), kept)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "spec"), [("topk", MIXED), ("sampled", SOFT)])
def test_students_in_turn_see_the_same_targets(kind, spec):
    student, kept = random_output(1), kept_of(random_output(2, width=7), kind, 4)
    for ours, theirs in zip(
        jax.tree.leaves(loss_and_slope(spec, student, view_of(Vocab(V), kept, V).targets(spec.temperature))),
        jax.tree.leaves(loss_and_slope(spec, student, kept, chunk=8)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_no_tokens_by_vocabulary_array_is_kept():
    tokens, vocab, width = 2048, 4096, 32
    of_token = kept_shapes(TeacherSignal(kind="topk", symbols=8), (1.0, 3.0), vocab)
    shapes = (
        jax.ShapeDtypeStruct((tokens, width), jnp.float32),
        jax.ShapeDtypeStruct((width, vocab), jnp.float32),
        jax.tree.map(lambda one: jax.ShapeDtypeStruct((tokens, *one.shape[1:]), one.dtype), of_token),
    )

    def call(hidden, out, kept):
        labels = jnp.zeros(tokens, jnp.int32)
        return objective_losses((SOFT,), Layout(128), [Output(hidden, out)], kept, labels)[0]

    compiled = jax.jit(jax.grad(call, argnums=(0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < tokens * vocab
