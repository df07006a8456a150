"""Scores equal their definitions in NumPy, add over batches, and ignore padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaplaw.distill import Layout, Output, Scores, score_group
from gaplaw.distill.evaluate import CALIBRATION_BINS, summarise

N, V, DOMAINS = 60, 7, 3


@pytest.fixture(scope="module")
def batch():
    keys = jax.random.split(jax.random.key(5), 6)
    student = Output(jax.random.normal(keys[0], (N, 4)), jax.random.normal(keys[1], (4, V)))
    teacher = Output(jax.random.normal(keys[2], (N, 5)), jax.random.normal(keys[3], (5, V)))
    return student, teacher, jax.random.randint(keys[4], (N,), 0, V), jax.random.randint(keys[5], (N,), 0, DOMAINS)


def score(student, teacher, labels, domain, layout=Layout(16)):  # noqa: B008 (frozen)
    (found,), _ = score_group(layout, [student], teacher, labels, domain, domains=DOMAINS)
    return found


def test_scores_are_their_definitions(batch):
    student, teacher, labels, domain = batch
    found = summarise(score(*batch))
    log_q = np.asarray(jax.nn.log_softmax(student.hidden_NxD @ student.out_DxV), np.float64)
    log_p = np.asarray(jax.nn.log_softmax(teacher.hidden_NxD @ teacher.out_DxV), np.float64)
    ce = -log_q[np.arange(N), labels]
    assert found["ce_nats"] == pytest.approx(ce.mean(), rel=1e-5)
    assert found["kl_nats"] == pytest.approx((np.exp(log_p) * (log_p - log_q)).sum(1).mean(), rel=1e-4)
    assert found["agreement"] == pytest.approx((log_q.argmax(1) == log_p.argmax(1)).mean())
    for number in range(DOMAINS):
        assert found["domain_ce_nats"][number] == pytest.approx(ce[np.asarray(domain) == number].mean(), rel=1e-5)
    confidence, correct = np.exp(log_q).max(1), log_q.argmax(1) == np.asarray(labels)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs((confidence - correct)[bins == b].sum()) for b in range(CALIBRATION_BINS)]
    assert found["calibration_error"] == pytest.approx(sum(gaps) / N, rel=1e-4)


def test_batches_add_and_padding_counts_nowhere(batch):
    student, teacher, labels, domain = batch
    whole = score(*batch)

    def part(rows, domain):
        cut = [Output(model.hidden_NxD[rows], model.out_DxV) for model in (student, teacher)]
        return score(*cut, labels[rows], domain[rows])

    half = part(slice(0, 40), domain)
    rest = part(slice(20, None), jnp.where(jnp.arange(N) < 40, -1, domain))
    for name, a, b, c in zip(Scores._fields, whole, half, rest, strict=True):
        np.testing.assert_allclose(a, b + c, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_teacher_agrees_with_itself(batch):
    _, teacher, labels, domain = batch
    found = summarise(score(teacher, teacher, labels, domain))
    assert found["kl_nats"] == pytest.approx(0, abs=1e-6) and found["agreement"] == 1


MESHES = [
    (2, 2, 2),
    *(pytest.param(shape, marks=pytest.mark.slow) for shape in [(1, 4, 1), (4, 1, 1), (1, 4, 2), (4, 1, 2)]),
]


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_gives_the_scores_of_whole_logits(batch, shape):
    """data × tensor × student: tokens, vocabulary columns (7 symbols: padded) and stacked students spread over
    devices.
    """
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    if devices.size < np.prod(shape):
        pytest.skip("needs 8 virtual devices")
    mesh = jax.sharding.Mesh(devices, ("data", "tensor", "student"))
    spread = Layout(4, mesh, token_axes=("data",), vocab_axis="tensor", student_axis="student")
    student, teacher, labels, domain = batch
    stack = Output(jnp.stack([student.hidden_NxD, -student.hidden_NxD]), jnp.stack([student.out_DxV] * 2))
    (stacked, alone), taught = score_group(spread, [stack, student], teacher, labels, domain, domains=DOMAINS)
    flipped = Output(-student.hidden_NxD, student.out_DxV)
    expected = [score(model, teacher, labels, domain, Layout(N)) for model in (student, flipped)]
    (itself,), _ = score_group(Layout(N), [teacher], None, labels, domain, domains=DOMAINS)
    for ours, theirs in (
        (alone, expected[0]),
        (stacked, jax.tree.map(lambda *a: jnp.stack(a), *expected)),
        (taught, itself),
    ):
        for name, a, b in zip(Scores._fields, ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)


def test_no_tokens_by_vocabulary_array_is_kept():
    tokens, vocab = 2048, 4096
    model = Output(jax.ShapeDtypeStruct((tokens, 32), jnp.float32), jax.ShapeDtypeStruct((32, vocab), jnp.float32))
    ids = jax.ShapeDtypeStruct((tokens,), jnp.int32)

    def call(student, teacher, labels, domain):
        return score_group(Layout(128), [student], teacher, labels, domain, domains=1)

    compiled = jax.jit(call).lower(model, model, ids, ids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * tokens * vocab  # half of one float32 array
