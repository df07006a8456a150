"""The features-first forward pass equals the ordinary one, in value and gradient, for both blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaplaw import models
from gaplaw.models import features_first as narrow
from gaplaw.spec import ModelSpec

SHAPES = [
    ModelSpec(block="llama", vocab_size=13, width=8, depth=2, heads=2, head_size=4, hidden=12, max_length=16),
    ModelSpec(
        block="llama", vocab_size=13, width=8, depth=2, heads=4, kv_group=2, head_size=2, hidden=6, max_length=16
    ),
    ModelSpec(block="gpt2", vocab_size=13, width=8, depth=2, heads=1, head_size=8, hidden=16, max_length=16),
    ModelSpec(
        block="gpt2", vocab_size=13, width=6, depth=3, heads=(2, 0, 1), head_size=4, hidden=(8, 5, 0), max_length=16
    ),
]


@pytest.mark.parametrize("spec", SHAPES, ids=lambda spec: f"{spec.block}-{spec.heads}")
def test_equals_the_ordinary_forward_pass(spec):
    params = models.init(jax.random.key(0), spec)
    tokens = jax.random.randint(jax.random.key(1), (3, 16), 0, spec.vocab_size)
    probe = jax.random.normal(jax.random.key(2), (3, 16, spec.width))

    def value(apply):
        return jax.value_and_grad(lambda params: jnp.sum(apply(params, tokens, spec) * probe))(params)

    ours, theirs = jax.jit(lambda: value(narrow.apply_hidden))(), jax.jit(lambda: value(models.apply_hidden))()
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-4)
    for mine, yours in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(theirs[1]), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-3, atol=1e-4)
