"""Which heads, neurons and hidden dimensions of a teacher make the student? First-order importance and prefix slices.

The published rule of the capacity-gap pilot (Zhang et al. 2023, 2311.07052, and its released sparsification program):
put multiplicative masks of ones on heads, neurons and the hidden dimension; a unit is as important as the loss is
sensitive to its mask; reorder units by importance so that every smaller model is a prefix; cut all axes to one
per-axis sparsity. Depth is kept.

Where this differs from the release, and why: the overall sparsity p is searched on a fine grid until the student has
the wanted number of parameters (the release rounds to whole percent and takes what comes); sizes are multiples of 8
only where the teacher is large enough for that, otherwise of 4, 2 or 1; under grouped-query attention a unit is a
whole key/value group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from gaplaw.canonical import refuse_unless
from gaplaw.models.transformer import Masks, apply_hidden, output_matrix
from gaplaw.spec import ModelSpec
from gaplaw.spec.sizes import count_params

EPSILON = 1e-17  # of the per-layer L2 norms
TOLERANCE = 0.05  # of the target count
MOST_HEADS_CUT = 0.9  # above this per-axis sparsity, neurons pay for the heads
DENSITIES = np.geomspace(0.6, 1.6, 600)  # candidates for 1 − p, in units of target / teacher size


class Importance(NamedTuple):
    """Sensitivity of the loss to each unit, normalised per layer; float64 on the host.

    hidden_D: one vector for all layers. groups: per layer, one number per key/value group of heads (a head, where
    kv_group is 1). neurons: per layer, one number per feed-forward neuron.
    """

    hidden_D: np.ndarray
    groups: tuple[np.ndarray, ...]
    neurons: tuple[np.ndarray, ...]


def ones(spec: ModelSpec) -> Masks:
    """Masks that change nothing."""
    heads = tuple(jnp.ones(count) for count in spec.heads_by_layer)
    return Masks(jnp.ones(spec.width), heads, tuple(jnp.ones(count) for count in spec.hidden_by_layer))


@partial(jax.jit, static_argnames=("spec", "pieces"))
def _sensitivity(params: dict, spec: ModelSpec, batch_BxL1: jax.Array, pieces: int) -> Masks:
    """|d (mean cross-entropy of the batch) / d mask| at masks of one; the gradient is summed over pieces of the
    batch.
    """

    @jax.checkpoint
    def head(hidden_RxLxD, labels_RxL):
        log_probs_RxLxV = jax.nn.log_softmax(hidden_RxLxD @ output_matrix(params, spec))
        return -jnp.take_along_axis(log_probs_RxLxV, labels_RxL[..., None], axis=-1).mean()

    def loss(masks, part_RxL1):
        return head(apply_hidden(params, part_RxL1[:, :-1], spec, masks=masks, remat="full"), part_RxL1[:, 1:])

    def add(total, part_RxL1):
        return jax.tree.map(jnp.add, total, jax.grad(loss)(ones(spec), part_RxL1)), None

    parts_AxRxL1 = batch_BxL1.reshape(-1, pieces, batch_BxL1.shape[-1]).swapaxes(0, 1)  # of each device its own rows
    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, ones(spec)), parts_AxRxL1)
    return jax.tree.map(lambda slope: jnp.abs(slope / pieces), total)


def importance(params: dict, spec: ModelSpec, batches: Iterable, pieces: int = 1) -> Importance:
    """First-order importance: I = (1/B)·Σ_b |∂L_b/∂mask|, divided by its L2 norm per layer.

    The absolute value is taken of each batch's gradient. A key/value group counts the sum over its query heads.

    Args:
      batches: int32 [B, L + 1] each, or [1, B, L + 1] spread over a mesh; a few are enough, the same ones give the same
        student.
      pieces: into how many parts a batch is cut, of which one at a time is in memory; changes nothing but rounding.
    Raises: SpecError when there is no batch.
    """
    total, count = None, 0
    for batch_BxL1 in batches:
        slopes = _sensitivity(params, spec, jnp.asarray(batch_BxL1), pieces)
        masks = multihost_utils.process_allgather(slopes, tiled=True)
        found = jax.tree.map(lambda part: np.asarray(part, np.float64), masks)
        total = found if total is None else jax.tree.map(np.add, total, found)
        count += 1
    refuse_unless(count > 0, "batches", count, "at least one batch is needed to rank heads and neurons")

    def normalised(part):
        mean = part / count
        return mean / (np.sqrt((mean**2).sum()) + EPSILON)

    groups = tuple(normalised(heads.reshape(-1, spec.kv_group).sum(axis=1)) for heads in total.heads_H)
    return Importance(normalised(total.hidden_D), groups, tuple(normalised(part) for part in total.neurons_F))


def _decreasing(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-scores, kind="stable")


def _heads_of(groups: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Indices of the query heads that belong to the given key/value groups, in order."""
    return (groups[:, None] * spec.kv_group + np.arange(spec.kv_group)).reshape(-1)


def select(params: dict, spec: ModelSpec, hidden_D, groups, neurons) -> dict:
    """The parameters of the given units, in the given order: dimensions, key/value groups and neurons per layer, by
    index.

    A layer's half with no unit is left out with its norm. Permutations leave the model's function unchanged; prefixes
    of the importance order make the student.
    """
    axes = {
        "query": (0, 1),
        "key": (0, 1),
        "value": (0, 1),
        "output": (2, 0),
        "up": (0, 1),
        "gate": (0, 1),
        "down": (1, 0),
    }

    def cut(part: dict, name: str, units) -> dict:
        """A kernel loses dimensions on one axis and units on another; a bias follows the side that is written to."""
        hidden_axis, unit_axis = axes[name]
        kept = {"kernel": part["kernel"].take(hidden_D, axis=hidden_axis).take(units, axis=unit_axis)}
        if "bias" in part:
            kept["bias"] = part["bias"].take(hidden_D if name in ("output", "down") else units, axis=0)
        return kept

    def of_width(part: dict) -> dict:
        return {name: array.take(hidden_D, axis=-1) for name, array in part.items()}

    student = {}
    for name, part in params.items():
        if name == "output":
            student[name] = {"kernel": part["kernel"].take(hidden_D, axis=0)}
        elif not name.startswith("layers_"):
            student[name] = of_width(part)
    for index in range(spec.depth):
        layer, kept = params.get(f"layers_{index}", {}), {}
        heads = _heads_of(groups[index], spec)
        units = {"query": heads, "key": groups[index], "value": groups[index], "output": heads}
        for half, norm, chosen in (
            ("attention", "attention_norm", units),
            ("feed_forward", "feed_forward_norm", dict.fromkeys(("up", "gate", "down"), neurons[index])),
        ):
            if half in layer and len(next(iter(chosen.values()))):
                kept[norm] = of_width(layer[norm])
                kept[half] = {name: cut(part, name, chosen[name]) for name, part in layer[half].items()}
        if kept:
            student[f"layers_{index}"] = kept
    return student


def reorder(params: dict, spec: ModelSpec, ranking: Importance) -> dict:
    """The same model with every axis in order of decreasing importance, so that smaller models are prefixes."""
    groups, neurons = ([_decreasing(scores) for scores in axis] for axis in (ranking.groups, ranking.neurons))
    return select(params, spec, _decreasing(ranking.hidden_D), groups, neurons)


class Order(NamedTuple):
    """The layer that each key/value group (each neuron) belongs to, most important of all layers first."""

    groups: np.ndarray
    neurons: np.ndarray


def order_of(ranking: Importance) -> Order:
    """Rank groups and neurons over all layers together, once; shapes at any sparsity follow from it."""

    def layers(scores):
        layer = np.repeat(np.arange(len(scores)), [len(part) for part in scores])
        return layer[_decreasing(np.concatenate(scores))]

    return Order(layers(ranking.groups), layers(ranking.neurons))


def _step(size: int) -> int:
    """Sizes are multiples of this: 8 from 128 up (a step is at most a sixteenth of the axis); 4, 2 or 1 below."""
    return next((step for step in (8, 4, 2) if size >= 16 * step), 1)


def _rounded(size: float, step: int, most: int) -> int:
    return min(round(size / step) * step, most)


def shape_at(spec: ModelSpec, order: Order, sparsity: float, finest: int = 8, neurons_more: int = 0) -> ModelSpec:
    """The student's shape at overall sparsity p: per-axis sparsity p' = 1 − sqrt(1 − p) on hidden, heads and neurons.

    Hidden loses p' of its dimensions; heads and neurons are ranked over all layers together, so layers end uneven.
    Above p' = 0.9 heads stay at 0.9 and neurons pay the difference, in equal parameters. A layer whose attention
    (heads × head size) or feed-forward falls below 8 units is skipped. Sizes are rounded to multiples of `_step`, at
    most `finest`.

    Args: neurons_more: neurons to keep beyond the rule (fewer when negative), over all layers.
    """
    axis = 1 - math.sqrt(1 - sparsity)
    groups, neurons = len(order.groups), len(order.neurons)
    group_units = spec.kv_group * spec.head_size
    groups_cut = round(min(axis, MOST_HEADS_CUT) * groups)
    # per unit, a head holds query, output and its share of key and value, a neuron two or three rows: 4/3 or 2
    neurons_per_unit = (2 + 2 / spec.kv_group) / (3 if spec.block == "llama" else 2)
    shortfall = max(axis - MOST_HEADS_CUT, 0.0) * groups * group_units * neurons_per_unit
    neurons_cut = min(max(round(axis * neurons + shortfall) - neurons_more, 0), neurons)

    def left(layers, cut):
        return np.bincount(layers[: len(layers) - cut], minlength=spec.depth).tolist()

    step = min(_step(spec.width), finest)
    width = max(_rounded((1 - axis) * spec.width, step, spec.width), step)
    heads = [kept * spec.kv_group for kept in left(order.groups, groups_cut)]
    step = min(_step(max(spec.heads_by_layer) * spec.head_size), finest)
    heads = [count if count * spec.head_size >= step else 0 for count in heads]
    step = min(_step(max(spec.hidden_by_layer)), finest)
    kept = zip(left(order.neurons, neurons_cut), spec.hidden_by_layer, strict=True)
    hidden = [_rounded(count, step, most) if count >= step else 0 for count, most in kept]

    def even(per_layer):  # one number where all layers agree: such a model can be stacked and scanned
        return per_layer[0] if len(set(per_layer)) == 1 else tuple(per_layer)

    return replace(spec, width=width, heads=even(heads), hidden=even(hidden))


def student_shape(spec: ModelSpec, ranking: Importance, target_params: int) -> ModelSpec:
    """The shape of `target_params` non-embedding parameters (within 5 %) that the ranking gives.

    Of 600 overall sparsities the one whose count is nearest to the target is taken; sizes are multiples of 8 (4, 2, 1
    for small axes), and finer only if the target cannot be met otherwise. In a tiny teacher a single head can weigh
    more than the tolerance: then up to a quarter of the neurons, more or fewer, make up the difference.

    Raises: SpecError when the target is not below the model's size, or no sparsity meets it.
    """
    size = count_params(spec).non_embedding
    rule = f"must be above 0 and below the teacher's {size}"
    refuse_unless(0 < target_params < size, "target_params", target_params, rule)

    def miss(shape: ModelSpec) -> float:
        return abs(count_params(shape).non_embedding / target_params - 1)

    order = order_of(ranking)
    sparsities = 1 - np.minimum(DENSITIES * target_params / size, 1)
    for finest in (8, 4, 2, 1):
        shapes = [shape_at(spec, order, sparsity, finest) for sparsity in sparsities]
        shape = min(shapes, key=miss)
        if miss(shape) <= TOLERANCE:
            return shape
    nearest, spare = sparsities[shapes.index(shape)], len(order.neurons) // 4
    shape = min((shape_at(spec, order, nearest, 1, more) for more in range(-spare, spare + 1)), key=miss)
    found = count_params(shape).non_embedding
    rule = f"no sparsity of the teacher ({size}) comes within 5 %; the nearest has {found}"
    refuse_unless(miss(shape) <= TOLERANCE, "target_params", target_params, rule)
    return shape


def prune(
    params: dict, spec: ModelSpec, ranking: Importance, target_params: int, place: Callable | None = None
) -> tuple[dict, ModelSpec]:
    """Cut a student of `target_params` non-embedding parameters (within 5 %) out of a model: see `student_shape`.

    Args: ranking: from `importance`. place: gives the shardings of a tree of shapes, if the student is to be spread.
    Returns: (parameters, shape) of the student; its arrays are slices of the model's.
    Raises: SpecError when the target is not below the model's size, or no sparsity meets it.
    """
    shape = student_shape(spec, ranking, target_params)

    def first(scores_by_layer, counts):
        return [_decreasing(scores)[:count] for scores, count in zip(scores_by_layer, counts, strict=True)]

    groups = first(ranking.groups, [heads // spec.kv_group for heads in shape.heads_by_layer])
    neurons = first(ranking.neurons, shape.hidden_by_layer)
    hidden_D = _decreasing(ranking.hidden_D)[: shape.width]

    def cut(whole):  # one program: slice by slice, each array shape would be compiled on its own
        return select(whole, spec, hidden_D, groups, neurons)

    where = None if place is None else place(jax.eval_shape(cut, params))
    return jax.jit(cut, out_shardings=where)(params), shape
