"""Is a pruned student the published rule's? Importance by hand, reordering without effect, prefixes, sparsities and
sizes.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaplaw import models
from gaplaw.errors import SpecError
from gaplaw.models import Masks, prune
from gaplaw.spec import ModelSpec
from gaplaw.spec.sizes import LLAMA2_7B, count_params, model_for

apply = jax.jit(models.apply, static_argnums=2)


def shape(**fields):
    base = dict(vocab_size=17, width=16, depth=2, heads=4, head_size=4, hidden=24, max_length=12)
    return ModelSpec(**base | fields)


SHAPES = [
    shape(),
    shape(block="gpt2"),
    shape(tied=False, kv_group=2),
    shape(block="gpt2", tied=False, heads=(2, 4, 0), hidden=(0, 24, 16), depth=3),
]
names = [f"{spec.block}-{'tied' if spec.tied else 'untied'}" for spec in SHAPES]
quick = [pytest.param(spec, marks=pytest.mark.slow) if n in (1, 2) else spec for n, spec in enumerate(SHAPES)]
each_shape = pytest.mark.parametrize("spec", quick, ids=names)


def teacher_of(spec, seed=0):
    """Parameters with no trivial value anywhere: biases and norm scales too."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        middle = 1.0 if path[-1].key == "scale" else 0.0
        return (middle + 0.4 * rng.normal(size=leaf.shape)).astype(np.float32)

    blank = jax.eval_shape(lambda key: models.init(key, spec), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, blank)


def batches_of(spec, count=3, seed=5):
    return np.random.default_rng(seed).integers(0, spec.vocab_size, (count, 4, 11)).astype(np.int32)


def ranking_of(spec, seed=0):
    """A ranking with nothing special about it, without running the model."""
    rng = np.random.default_rng(seed)
    groups = tuple(rng.random(heads // spec.kv_group) for heads in spec.heads_by_layer)
    return prune.Importance(
        rng.random(spec.width), groups, tuple(rng.random(hidden) for hidden in spec.hidden_by_layer)
    )


def even_ranking(spec):
    """Every layer equally important at every rank, so that the global ranking cuts all layers alike."""
    groups = tuple(np.linspace(1, 0.1, heads // spec.kv_group) for heads in spec.heads_by_layer)
    neurons = tuple(np.linspace(1, 0.1, hidden) for hidden in spec.hidden_by_layer)
    return prune.Importance(np.linspace(1, 0.1, spec.width), groups, neurons)


# ---- importance ----


@pytest.mark.parametrize("spec", [SHAPES[2], pytest.param(SHAPES[3], marks=pytest.mark.slow)], ids=names[2:])
def test_importance_is_the_gradient_of_scaled_weights(spec):
    """A mask that scales a head is the same as scaling its output weights: I = |⟨W, ∂L/∂W⟩|, with no mask in sight.

    The shared hidden mask scales the looked-up embeddings and every residual write, so its sum runs over all of them.
    """

    def loss(params, batch):
        log_probs = jax.nn.log_softmax(models.apply(params, batch[:, :-1], spec))
        return -jnp.take_along_axis(log_probs, batch[:, 1:, None], axis=-1).mean()

    params, batches = teacher_of(spec), batches_of(spec)
    heads = [np.zeros(count) for count in spec.heads_by_layer]
    neurons = [np.zeros(count) for count in spec.hidden_by_layer]
    hidden, slope_of = np.zeros(spec.width), jax.jit(jax.grad(loss))
    for batch in batches:
        slope = slope_of(params, batch)
        share = jax.tree.map(lambda w, g: np.asarray(w, np.float64) * np.asarray(g, np.float64), params, slope)
        shared = share["token_embedding"]["embedding"].sum(axis=0)  # untied: the table is only looked up
        if spec.block == "gpt2":
            shared += share["position_embedding"]["embedding"].sum(axis=0)
        for index in range(spec.depth):
            layer = share.get(f"layers_{index}", {})
            if "attention" in layer:
                write = layer["attention"]["output"]
                heads[index] += np.abs(write["kernel"].sum(axis=(1, 2))) / len(batches)
                shared += write["kernel"].sum(axis=(0, 1)) + write.get("bias", 0)
            if "feed_forward" in layer:
                write = layer["feed_forward"]["down"]
                neurons[index] += np.abs(write["kernel"].sum(axis=1)) / len(batches)
                shared += write["kernel"].sum(axis=0) + write.get("bias", 0)
        hidden += np.abs(shared) / len(batches)

    found = prune.importance(params, spec, batches, pieces=2)
    pairs = [(found.hidden_D, hidden)] + list(zip(found.neurons, neurons, strict=True))
    pairs += [
        (group, head.reshape(-1, spec.kv_group).sum(axis=1)) for group, head in zip(found.groups, heads, strict=True)
    ]
    for ours, theirs in pairs:
        if len(theirs):
            np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs), rtol=2e-3, atol=1e-4)
            assert np.linalg.norm(ours) == pytest.approx(1)


@pytest.mark.parametrize(  # the slow ones are compared, in pieces, with sums by hand
    "spec", [SHAPES[0], *(pytest.param(spec, marks=pytest.mark.slow) for spec in SHAPES[1:])], ids=names
)
def test_a_batch_in_pieces_ranks_as_the_whole(spec):
    params, batches = teacher_of(spec), batches_of(spec)
    whole, cut = (prune.importance(params, spec, batches, pieces=pieces) for pieces in (1, 4))
    for ours, theirs in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_units_that_do_nothing_are_found_and_cut_without_loss():
    """Recovery of a known truth: silence some heads and neurons; they rank last, and dropping them changes no logit."""
    spec, dead_heads, dead_neurons = SHAPES[1], [[1], [0, 3]], [[2, 7, 8], [0]]
    params = teacher_of(spec)
    for index in range(spec.depth):
        params[f"layers_{index}"]["attention"]["output"]["kernel"][dead_heads[index]] = 0
        params[f"layers_{index}"]["feed_forward"]["down"]["kernel"][dead_neurons[index]] = 0
    ranking = prune.importance(params, spec, batches_of(spec))
    assert [np.flatnonzero(scores == 0).tolist() for scores in ranking.groups] == dead_heads
    assert [np.flatnonzero(scores == 0).tolist() for scores in ranking.neurons] == dead_neurons
    groups = [np.flatnonzero(scores) for scores in ranking.groups]
    neurons = [np.flatnonzero(scores) for scores in ranking.neurons]
    student = prune.select(params, spec, np.arange(spec.width), groups, neurons)
    shrunk = replace(spec, heads=tuple(map(len, groups)), hidden=tuple(map(len, neurons)))
    tokens = batches_of(spec)[0]
    np.testing.assert_allclose(apply(student, tokens, shrunk), apply(params, tokens, spec), rtol=1e-4, atol=1e-4)


def test_importance_needs_a_batch():
    with pytest.raises(SpecError, match="at least one batch"):
        prune.importance(teacher_of(SHAPES[0]), SHAPES[0], [])


# ---- reordering and slicing ----


@each_shape
def test_reordering_leaves_the_function_unchanged(spec):
    params, ranking, tokens = teacher_of(spec), ranking_of(spec), batches_of(spec)[0]
    moved = prune.reorder(params, spec, ranking)
    key = jax.tree_util.keystr
    before, after = (jax.tree_util.tree_leaves_with_path(tree) for tree in (params, moved))
    assert [(key(path), leaf.shape) for path, leaf in before] == [(key(path), leaf.shape) for path, leaf in after]
    assert not np.array_equal(before[-1][1], after[-1][1])
    np.testing.assert_allclose(apply(moved, tokens, spec), apply(params, tokens, spec), rtol=1e-4, atol=1e-4)


@each_shape
def test_the_student_is_a_prefix_of_the_reordered_teacher(spec):
    params, ranking = teacher_of(spec), ranking_of(spec)
    student, shrunk = prune.prune(params, spec, ranking, int(0.4 * count_params(spec).non_embedding))
    moved = prune.reorder(params, spec, ranking)

    def is_prefix(path, small):
        whole = moved
        for step in path:
            whole = whole[step.key]
        np.testing.assert_array_equal(small, whole[tuple(map(slice, small.shape))])

    jax.tree_util.tree_map_with_path(is_prefix, student)
    assert sum(leaf.size for leaf in jax.tree.leaves(student)) == count_params(shrunk).total


@each_shape
def test_the_masked_teacher_equals_the_sliced_student(spec):
    """Zeros in the masks and rows taken away are the same model: also through norms, biases and rotary positions."""
    params, ranking, tokens = teacher_of(spec), ranking_of(spec), batches_of(spec)[0]
    student, shrunk = prune.prune(params, spec, ranking, int(0.5 * count_params(spec).non_embedding))

    def ones_at(size, chosen):
        return jnp.zeros(size).at[np.asarray(chosen, int)].set(1.0)

    def best(scores, count):
        return np.argsort(-scores, kind="stable")[:count]

    dimensions = best(ranking.hidden_D, shrunk.width)
    heads = [
        (best(scores, count // spec.kv_group)[:, None] * spec.kv_group + np.arange(spec.kv_group)).reshape(-1)
        for scores, count in zip(ranking.groups, shrunk.heads_by_layer, strict=True)
    ]
    neurons = [best(scores, count) for scores, count in zip(ranking.neurons, shrunk.hidden_by_layer, strict=True)]
    masks = Masks(
        ones_at(spec.width, dimensions),
        tuple(ones_at(*pair) for pair in zip(spec.heads_by_layer, heads, strict=True)),
        tuple(ones_at(*pair) for pair in zip(spec.hidden_by_layer, neurons, strict=True)),
    )
    # a layer's half that is gone writes nothing; its bias is gone with it, which a head mask alone cannot say
    for index, (held, hidden) in enumerate(zip(shrunk.heads_by_layer, shrunk.hidden_by_layer, strict=True)):
        layer = params.get(f"layers_{index}", {})
        for half, write, size in (("attention", "output", held), ("feed_forward", "down", hidden)):
            if half in layer and not size and "bias" in layer[half][write]:
                layer[half][write]["bias"] *= 0
    whole = apply(params, tokens, spec, masks=masks)
    np.testing.assert_allclose(apply(student, tokens, shrunk), whole, rtol=1e-4, atol=1e-4)
    inside = jax.jit(models.apply_hidden, static_argnums=2)(params, tokens, spec, masks=masks)
    assert not np.delete(np.asarray(inside), dimensions, axis=-1).any()


# ---- sparsities and sizes ----


def test_per_axis_sparsity_follows_the_published_map():
    """methods §1.4 step 5: overall p → per-axis p' in whole percent."""
    spec = shape(width=800, heads=100, head_size=8, hidden=1600)
    order = prune.order_of(even_ranking(spec))
    published = {10: 5, 20: 11, 30: 16, 40: 23, 50: 29, 60: 37, 70: 45, 80: 55, 85: 61, 90: 68, 95: 78, 97: 83, 98: 86}
    for overall, per_axis in published.items():
        found = prune.shape_at(spec, order, overall / 100)
        for size, most in ((found.width, 800), (found.heads_by_layer[0], 100), (found.hidden_by_layer[0], 1600)):
            assert 100 * (1 - size / most) == pytest.approx(per_axis, abs=1.01), (overall, size, most)
        assert found.width % 8 == 0 and all(hidden % 8 == 0 for hidden in found.hidden_by_layer)


def test_heads_and_neurons_are_ranked_over_all_layers_together():
    spec = shape(width=64, heads=8, head_size=8, hidden=128)
    strong, weak = np.linspace(0.9, 0.5, 8), np.linspace(0.4, 0.1, 8)
    neurons = (np.full(128, 0.1), np.full(128, 0.9))
    order = prune.order_of(prune.Importance(np.ones(64), (strong, weak), neurons))
    found = prune.shape_at(spec, order, 0.75)  # half of each axis: the whole weak layer and nothing else
    assert (found.width, found.heads, found.hidden) == (32, (8, 0), (0, 128))


def test_above_ninety_percent_neurons_pay_for_the_heads():
    """Equal parameters: heads stay at a tenth, and the neurons lost beyond p' are worth the heads kept beyond p'."""
    for block in ("llama", "gpt2"):
        spec = shape(block=block, width=512, heads=64, head_size=8, hidden=2048, depth=4)
        order = prune.order_of(even_ranking(spec))
        axis = 0.94
        found = prune.shape_at(spec, order, 1 - (1 - axis) ** 2, finest=1)
        assert sum(found.heads_by_layer) == round(0.1 * 256)
        missing = sum((1 - axis) * 2048 - hidden for hidden in found.hidden_by_layer)
        assert missing == pytest.approx((axis - 0.9) * 256 * 8 * {"llama": 4 / 3, "gpt2": 2}[block], abs=5)


def test_small_layers_are_skipped():
    spec = shape(width=128, heads=16, head_size=8, hidden=512)
    neurons = (np.full(512, 0.5), np.full(512, 0.1))
    neurons[1][:5] = 0.9  # five neurons of the second layer are wanted: below the floor of 8
    order = prune.order_of(prune.Importance(np.ones(128), (np.ones(16), np.ones(16)), neurons))
    found = prune.shape_at(spec, order, 0.75)
    assert found.hidden[1] == 0 and found.hidden[0] == pytest.approx(512 - 5, abs=4)


@pytest.mark.parametrize("block", ["llama", "gpt2"])
@pytest.mark.parametrize("size", ["1.5k", "6k", "25k", "221k"])
def test_targets_are_met_within_five_percent(block, size):
    spec = model_for(size, vocab_size=64, max_length=16, block=block)
    ranking = ranking_of(spec)
    whole = count_params(spec).non_embedding
    for fraction in (0.1, 0.25, 0.5, 0.75, 0.95):
        target = int(fraction * whole)
        shrunk = prune.student_shape(spec, ranking, target)
        assert count_params(shrunk).non_embedding == pytest.approx(target, rel=0.05)
        assert (shrunk.depth, shrunk.head_size, shrunk.vocab_size) == (spec.depth, spec.head_size, spec.vocab_size)


def test_the_rule_scales_to_published_models():
    """Llama-2 7B at p = 60 %: hidden 4096·0.632, heads and neurons about 63 % of each layer, all multiples of 8."""
    found = prune.shape_at(LLAMA2_7B, prune.order_of(ranking_of(LLAMA2_7B)), 0.6)
    assert found.width == 2592
    assert sum(found.heads_by_layer) == round(math.sqrt(0.4) * 32 * 32)
    assert all(hidden % 8 == 0 and 0.5 < hidden / 11008 < 0.75 for hidden in found.hidden_by_layer)


def test_whole_key_value_groups_are_cut():
    spec = shape(width=32, heads=8, head_size=4, kv_group=4, hidden=64)
    for fraction in (0.3, 0.5, 0.8):
        target = int(fraction * count_params(spec).non_embedding)
        shrunk = prune.student_shape(spec, ranking_of(spec), target)
        assert shrunk.kv_group == 4 and all(heads % 4 == 0 for heads in shrunk.heads_by_layer)


@pytest.mark.parametrize("target", [0, 10**9])
def test_impossible_targets_are_refused(target):
    spec = SHAPES[0]
    with pytest.raises(SpecError, match=f"target_params = {target}"):
        prune.prune(teacher_of(spec), spec, ranking_of(spec), target)


def test_a_target_that_no_shape_meets_is_refused():
    spec = shape(width=4, heads=1, hidden=4, depth=1)
    with pytest.raises(SpecError, match="within 5 %; the nearest has"):
        prune.prune(teacher_of(spec), spec, ranking_of(spec), 7)
