"""The rate of every step, and weight decay: it reaches matrices and nothing else, whatever axes they carry."""

import itertools

import jax
import numpy as np
import optax
import pytest

from gaplaw import models
from gaplaw.spec import TrainSpec
from gaplaw.train.optimizer import decays, optimizer, schedule
from tests import toy

STEPS = (2, 3, 10, 64)


def rates(spec, steps):
    return np.asarray(schedule(spec, steps)(np.arange(steps)))


def rates_before(spec, steps):
    """The schedule as it was when recipes with a warm-up got their fingerprints."""
    warmup = min(max(1, round(spec.warmup_fraction * steps)), max(1, steps - 1))
    before = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=spec.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=spec.learning_rate * spec.final_fraction,
    )
    return np.asarray(before(np.arange(steps)))


@pytest.mark.parametrize("warmup", [1e-9, 0.05, 0.37, 1.0])  # less than one step, and as long as the run
def test_recipes_with_a_warm_up_keep_their_rates_to_the_bit(warmup):
    for steps, final in itertools.product(STEPS, (0.0, 0.1)):
        spec = TrainSpec(tokens=1, learning_rate=0.024, warmup_fraction=warmup, final_fraction=final)
        found = rates(spec, steps)
        np.testing.assert_array_equal(found, rates_before(spec, steps))
        assert found[0] == 0 and found[spec.warmup_steps(steps)] == found.max() == np.float32(0.024)


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_without_a_warm_up_the_first_rate_is_the_peak(final):
    for steps in (1, *STEPS):
        found = rates(TrainSpec(tokens=1, learning_rate=0.5, warmup_fraction=0.0, final_fraction=final), steps)
        share = final + (1 - final) * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
        np.testing.assert_allclose(found, 0.5 * share, rtol=1e-5, atol=1e-7)
        assert found[0] == 0.5 and found.min() > 0  # nor is the last step wasted


@pytest.mark.parametrize("stacked", [False, True])
def test_with_no_gradient_only_matrices_shrink(stacked):
    model = toy.model(8, 2, block="gpt2")
    params = jax.tree.map(lambda p: p + 1.0, models.init(jax.random.key(0), model))
    params = models.stack_layers(params, model) if stacked else params
    chain = optimizer(TrainSpec(tokens=1, warmup_fraction=0.0, weight_decay=0.1, learning_rate=0.5), steps=8)
    nothing = jax.tree.map(np.zeros_like, params)
    change, _ = jax.jit(chain.update)(nothing, chain.init(params), params)
    for path, moved in jax.tree_util.tree_leaves_with_path(change):
        name = path[-1].key
        assert decays(path) == (name in ("kernel", "embedding"))
        assert bool(np.any(moved != 0)) == decays(path), path
