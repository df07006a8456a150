"""Which students of a group are one array program? Those that differ only in their seed: a stack.

A stack holds the parameters of S cells of one shape, objective and recipe along a leading axis; everything that is done to one
student is done to all of them under vmap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gaplaw import models
from gaplaw.distill import Output
from gaplaw.models.prune import importance, prune
from gaplaw.spec import Cell, ModelSpec
from gaplaw.train.optimizer import optimizer


@dataclass(frozen=True)
class Stack:
    """S cells that share `model` (the shape really trained, after pruning), objective and recipe."""

    cells: tuple[Cell, ...]
    model: ModelSpec

    @property
    def objective(self):
        return self.cells[0].objective

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optimizer(self.cells[0].train, self.cells[0].steps)


class State(NamedTuple):
    """What a training step changes: parameters and optimizer state, each with a leading axis over the stack's seeds."""

    params: dict
    moments: optax.OptState


def stacks_of(cells: tuple[Cell, ...], shapes: dict[str, ModelSpec]) -> list[Stack]:
    """Sort a group's cells into stacks. shapes: the shape to train by cell fingerprint (differs from cell.model when pruned)."""
    by_key: dict[tuple, list[Cell]] = {}
    for cell in cells:
        key = (shapes[cell.fingerprint], cell.objective, cell.train, cell.init)
        by_key.setdefault(key, []).append(cell)
    return [Stack(tuple(members), key[0]) for key, members in by_key.items()]


def start(stack: Stack, pruned: dict | None) -> State:
    """Initial parameters: from each cell's seed alone, or the same pruned parameters for every seed."""
    if pruned is not None:
        params = jax.tree.map(lambda p: jnp.stack([p] * len(stack.cells)), pruned)
    else:
        keys = jnp.stack([jax.random.key(cell.seed) for cell in stack.cells])
        params = jax.jit(jax.vmap(lambda key: models.init(key, stack.model)))(keys)
    return State(params, jax.jit(jax.vmap(stack.optimizer.init))(params))


def outputs(stack: Stack, params: dict, tokens_BxL: jax.Array) -> Output:
    """hidden_SxNxD and out_SxDxV of every student of the stack on one batch, N = B·L."""

    def one(student):
        return output_of(stack.model, student, tokens_BxL)

    return jax.vmap(one)(params)


def output_of(model: ModelSpec, params: dict, tokens_BxL: jax.Array) -> Output:
    """hidden_NxD and out_DxV of one model."""
    hidden_BxLxD = models.apply_hidden(params, tokens_BxL, model)
    return Output(hidden_BxLxD.reshape(-1, hidden_BxLxD.shape[-1]), models.output_matrix(params, model))


def cut_from_teacher(cells, teacher, batches) -> dict[int, tuple[dict, ModelSpec]]:
    """Prune the teacher once per target size: target → (parameters, shape). Empty without pruned cells.

    Args: teacher: (params, ModelSpec). batches: iterable of int32 [B, L+1], the importance sample.
    """
    targets = sorted({cell.target_params for cell in cells if cell.init == "prune"})
    if not targets:
        return {}
    params, model = teacher
    ranking = importance(params, model, batches)
    return {target: prune(params, model, ranking, target) for target in targets}
