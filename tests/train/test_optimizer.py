"""Weight decay reaches matrices and nothing else, whatever axes they carry."""

import jax
import numpy as np
import pytest

from gaplaw import models
from gaplaw.spec import TrainSpec
from gaplaw.train.optimizer import decays, optimizer
from tests import toy


@pytest.mark.parametrize("stacked", [False, True])
def test_with_no_gradient_only_matrices_shrink(stacked):
    model = toy.model(8, 2, block="gpt2")
    params = jax.tree.map(lambda p: p + 1.0, models.init(jax.random.key(0), model))
    params = models.stack_layers(params, model) if stacked else params
    chain = optimizer(TrainSpec(tokens=1, warmup_fraction=0.0, weight_decay=0.1, learning_rate=0.5), steps=8)
    state = chain.init(params)
    nothing = jax.tree.map(np.zeros_like, params)
    _, state = chain.update(nothing, state, params)  # the first step of the warm-up has rate 0
    change, _ = chain.update(nothing, state, params)
    for path, moved in jax.tree_util.tree_leaves_with_path(change):
        name = path[-1].key
        assert decays(path) == (name in ("kernel", "embedding"))
        assert bool(np.any(moved != 0)) == decays(path), path
