"""Does the transformer compute what it says? Against counts in closed form, a NumPy model written here, and
causality.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaplaw import models
from gaplaw.errors import SpecError
from gaplaw.models import prune
from gaplaw.spec import ModelSpec, sizes
from gaplaw.spec.sizes import count_params, forward_flops_per_token, model_for
from tests.models.reference import numpy_logits

# compiled whole: op-by-op dispatch would compile every small operation on its own
init = jax.jit(models.init, static_argnums=1)
apply = jax.jit(models.apply, static_argnums=2, static_argnames=("dtype", "kernel", "scan", "remat"))


def shape(**fields):
    base = dict(vocab_size=19, width=12, depth=2, heads=4, head_size=4, hidden=20, max_length=16)
    return ModelSpec(**base | fields)


SHAPES = [
    shape(),
    shape(block="gpt2"),
    shape(tied=False, kv_group=2),
    shape(block="gpt2", tied=False, kv_group=4),
    shape(heads=(4, 2, 0), hidden=(20, 0, 12), depth=3),
    shape(block="gpt2", heads=(2, 0, 1), hidden=(0, 0, 7), depth=3),
]


def params_of(spec, seed=0):
    """Random parameters with no trivial value anywhere: norm scales and biases too."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        middle = 1.0 if path[-1].key == "scale" else 0.0
        return (middle + 0.4 * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, built(spec))


def built(spec):
    """The shapes of the parameters, without making them."""
    return jax.eval_shape(lambda key: models.init(key, spec), jax.random.key(0))


def tokens_of(spec, batch=2, length=9, seed=1):
    return jax.random.randint(jax.random.key(seed), (batch, length), 0, spec.vocab_size)


# ---- an independent implementation, in float64, position by position and head by head ----


@pytest.mark.parametrize("spec", SHAPES)
def test_logits_equal_an_independent_implementation(spec):
    params, tokens = params_of(spec), tokens_of(spec)
    logits = apply(params, tokens, spec)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, numpy_logits(params, tokens, spec), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("block", ["gpt2", "llama"])
def test_causality_by_gradient(block):
    """The output at a position has zero gradient with respect to later tokens and a non-zero one to itself and
    before.
    """
    spec = shape(block=block, tied=False)
    params = params_of(spec)
    tokens = jnp.arange(9)[None]  # every token occurs once, so that rows of the token table are positions

    def output_at(table, position):
        changed = params | {"token_embedding": {"embedding": table}}
        return (models.apply_hidden(changed, tokens, spec)[0, position] * jnp.arange(1.0, 13.0)).sum()

    slopes = jax.jit(jax.vmap(jax.grad(output_at), in_axes=(None, 0)))(
        params["token_embedding"]["embedding"], jnp.arange(9)
    )
    strength = np.abs(np.asarray(slopes))[:, :9].max(axis=-1)
    assert (strength[np.triu_indices(9, 1)] == 0).all()
    assert (strength[np.tril_indices(9)] > 0).all()


# ---- counts and FLOPs of what is built ----


def leaves_size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_shape(rng):
    depth, group = int(rng.integers(1, 4)), int(rng.integers(1, 4))

    def per_layer(draw):
        return int(draw()) if rng.random() < 0.5 else tuple(int(draw()) for _ in range(depth))

    return ModelSpec(
        block=("gpt2", "llama")[rng.integers(2)],
        vocab_size=int(rng.integers(2, 40)),
        width=int(rng.integers(1, 30)),
        depth=depth,
        heads=per_layer(lambda: group * rng.integers(0, 4)),
        head_size=2 * int(rng.integers(1, 5)),
        hidden=per_layer(lambda: rng.integers(0, 50)),
        max_length=int(rng.integers(8, 20)),
        kv_group=group,
        tied=bool(rng.integers(2)),
    )


def test_counts_equal_the_built_model_over_many_shapes():
    rng = np.random.default_rng(0)
    for _ in range(12):
        spec = random_shape(rng)
        tree, counts = built(spec), count_params(spec)
        tables = [tree.get(name, {}) for name in ("token_embedding", "position_embedding", "output")]
        assert counts.total == leaves_size(tree), spec
        assert counts.embedding == leaves_size(tables), spec


@pytest.mark.parametrize(
    "spec",
    [
        sizes.GPT2_SMALL,
        sizes.GPT2_MEDIUM,
        sizes.GPT2_LARGE,
        sizes.GPT2_XL,
        sizes.LLAMA2_7B,
        sizes.LLAMA2_13B,
        sizes.LLAMA2_70B,
    ],
    ids=lambda spec: sizes.size_name(count_params(spec).total),
)
def test_published_shapes_are_built_with_their_published_totals(spec):
    assert leaves_size(built(spec)) == count_params(spec).total


def dot_flops(jaxpr):
    """Multiply-adds × 2 of every matrix product in a traced program."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                total += dot_flops(getattr(inner, "jaxpr", inner))
    return total


@pytest.mark.parametrize("spec", SHAPES)
def test_flops_equal_the_traced_matrix_products(spec):
    tokens = tokens_of(spec, batch=2, length=8)
    traced = jax.make_jaxpr(lambda params: apply(params, tokens, spec))(built(spec))
    assert dot_flops(traced.jaxpr) == forward_flops_per_token(spec, 8) * tokens.size


# ---- other ways to run the same function ----


@pytest.mark.parametrize("block", [pytest.param("gpt2", marks=pytest.mark.slow), "llama"])
def test_scan_remat_and_kernel_change_nothing(block):
    spec = shape(block=block, kv_group=2, depth=2)
    params, tokens = params_of(spec), tokens_of(spec)

    def value_and_grad(**options):
        return jax.jit(jax.value_and_grad(lambda p: (models.apply(p, tokens, spec, **options) ** 2).mean()))(params)

    value, slope = value_and_grad()
    other, other_slope = value_and_grad(scan=True, remat="full", kernel="xla")
    np.testing.assert_allclose(other, value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), other_slope, slope)


def test_stacked_layers_are_the_same_model():
    spec = shape()
    params, tokens = params_of(spec), tokens_of(spec)
    stacked = models.stack_layers(params, spec)
    assert stacked["layers"]["attention"]["query"]["kernel"].shape == (2, 12, 4, 4)
    whole, scanned = apply(params, tokens, spec), apply(stacked, tokens, spec, masks=prune.ones(spec))
    np.testing.assert_allclose(scanned, whole, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, models.unstack_layers(stacked, spec), params)


def test_bfloat16_compute_is_near_and_leaves_parameters_alone():
    spec = shape()
    params, tokens = params_of(spec), tokens_of(spec)
    hidden = jax.eval_shape(lambda p: models.apply_hidden(p, tokens, spec, dtype=jnp.bfloat16), params)
    assert hidden.dtype == jnp.bfloat16
    exact, half = apply(params, tokens, spec), apply(params, tokens, spec, dtype=jnp.bfloat16)
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - exact).max() < 0.1 * np.abs(exact).max()
    slope = jax.eval_shape(jax.grad(lambda p: apply(p, tokens, spec, dtype=jnp.bfloat16).sum()), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(slope)} == {jnp.dtype("float32")}


def test_a_stack_of_students_is_each_student():
    spec = shape(block="gpt2", depth=1)
    keys, tokens = jax.random.split(jax.random.key(3), 3), tokens_of(spec)
    stack = jax.jit(jax.vmap(lambda key: models.init(key, spec)))(keys)
    logits = jax.jit(jax.vmap(lambda params: models.apply(params, tokens, spec)))(stack)
    for place, key in enumerate(keys):
        alone = init(key, spec)
        jax.tree.map(lambda a, b, i=place: np.testing.assert_allclose(a[i], b, rtol=1e-6, atol=1e-7), stack, alone)
        np.testing.assert_allclose(logits[place], apply(alone, tokens, spec), rtol=1e-4, atol=1e-5)


# ---- initialisation ----


@pytest.mark.parametrize("block", ["gpt2", "llama"])
def test_initialisation_weight_by_weight(block):
    spec = shape(
        block=block, width=64, depth=2, heads=8, head_size=16, hidden=300, vocab_size=500, tied=False, max_length=200
    )
    params = init(jax.random.key(0), spec)
    layer, residual = params["layers_1"], (2 * spec.depth) ** -0.5
    expected = {
        "token": (params["token_embedding"]["embedding"], math.sqrt(0.4 / 64)),
        "head": (params["output"]["kernel"], math.sqrt(0.4 / 64)),
        "query": (layer["attention"]["query"]["kernel"], math.sqrt(0.4 / 64)),
        "up": (layer["feed_forward"]["up"]["kernel"], math.sqrt(0.4 / 64)),
        "output": (layer["attention"]["output"]["kernel"], math.sqrt(0.4 / 128) * residual),
        "down": (layer["feed_forward"]["down"]["kernel"], math.sqrt(0.4 / 300) * residual),
    }
    if block == "gpt2":
        expected["position"] = (params["position_embedding"]["embedding"], math.sqrt(0.1 / 64))
    for name, (array, sd) in expected.items():
        assert np.std(array) == pytest.approx(sd, rel=4 / math.sqrt(2 * array.size)), name
        assert abs(np.mean(array)) < 4 * sd / math.sqrt(array.size), name
    assert (layer["attention_norm"]["scale"] == 1).all()
    assert block == "llama" or not layer["feed_forward"]["up"]["bias"].any()


@pytest.mark.parametrize("block", [pytest.param("gpt2", marks=pytest.mark.slow), "llama"])
def test_signals_start_at_one_scale_from_tiny_to_wide(block):
    """The reason for the rule: logits of an untrained model have about the same spread at width 4 and at width 256."""
    spread = {}
    for width in (4, 256):
        spec = shape(block=block, width=width, heads=max(1, width // 16), hidden=2 * width, vocab_size=256, depth=2)
        tokens = tokens_of(spec, 8, 16)
        logits = jax.jit(lambda key, s=spec, t=tokens: models.apply(models.init(key, s), t, s))(jax.random.key(3))
        spread[width] = float(logits.std())
    assert all(0.4 < value < 1.0 for value in spread.values()), spread


def test_initialisation_depends_on_the_seed_alone():
    spec = shape(depth=2)
    same, other = init(jax.random.key(0), spec), init(jax.random.key(1), spec)
    jax.tree.map(np.testing.assert_array_equal, init(jax.random.key(0), spec), same)
    query = "layers_0", "attention", "query", "kernel"
    values = [jax.tree.leaves(tree[query[0]][query[1]][query[2]])[0] for tree in (same, other)]
    assert not np.array_equal(*values)
    first, second = (same[f"layers_{index}"]["attention"]["query"]["kernel"] for index in (0, 1))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, same["layers_0"]["attention"]["value"]["kernel"])


# ---- refusals ----


def test_too_long_a_sequence_is_refused():
    spec = shape()
    with pytest.raises(SpecError, match="tokens = 17.*max_length = 16"):
        apply(params_of(spec), tokens_of(spec, 1, 17), spec)


def test_uneven_layers_cannot_be_scanned():
    spec = SHAPES[4]
    with pytest.raises(SpecError, match="must be even"):
        apply(params_of(spec), tokens_of(spec), spec, scan=True)


def test_the_dial_builds_what_it_counts():
    for size in ("300", "6k", "1M"):
        spec = model_for(size, vocab_size=256, max_length=32)
        assert leaves_size(built(replace(spec, tied=False))) == count_params(spec).total + 256 * spec.width
