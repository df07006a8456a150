"""How does a dispatch run on one CPU core? The teacher first, then each stack of students, each student by itself.

A program of the teacher makes what students need of it for all batches of the dispatch; a program per stack then takes one student
after the other through them, so that its state and activations stay in the core's cache. No program of students knows the
teacher's shape: through the compilation cache the groups of a sweep share them. See step.py for the other way.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gaplaw.distill import Vocab, batch_targets, objective_losses, score_batch, view
from gaplaw.execution import Execution
from gaplaw.spec import ModelSpec
from gaplaw.train.mesh import layout
from gaplaw.train.stack import Stack, State, inputs_and_labels, moved, output_of, seen_of_teacher


def targets_program(specs, teacher_model: ModelSpec, execution: Execution):
    """Compile-ready `teach(taught, batches_KxBxL1) -> {temperature: Targets}` of [K, N, …]; taught: see `seen_of_teacher`."""

    @jax.jit
    def teach(taught, batches_KxBxL1):
        def one(at):
            inputs_BxL, _ = inputs_and_labels(batches_KxBxL1[at])
            teacher = seen_of_teacher(teacher_model, execution, True, taught, at, inputs_BxL)
            return batch_targets(specs, teacher, teacher_model.vocab_size)

        return jax.lax.map(one, jnp.arange(len(batches_KxBxL1)))

    return teach


def stack_program(stack: Stack, execution: Execution):
    """Compile-ready `train(state, batches_KxBxL1, by_heat, first, stop) -> (state, losses_KxS)`; `state` is donated.

    by_heat: targets at the stack's temperature, see `targets_program`; None without soft targets.
    """

    @partial(jax.jit, donate_argnums=0)
    def train(state, batches_KxBxL1, by_heat, first, stop):
        def one(state):
            def step(at, carried):
                rows, losses_K = carried
                batch_BxL1, targets = jax.tree.map(lambda part: part[at], (batches_KxBxL1, by_heat))
                inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)

                def loss(params):
                    output = output_of(stack.model, execution, True, params, inputs_BxL)
                    return objective_losses((stack.objective,), layout(None, execution), [output], targets, labels_N)[0]

                value, slope = jax.value_and_grad(loss)(_tree(rows.params, state.params))
                return moved(stack, rows, _rows(slope)), losses_K.at[at].set(value)

            losses_K = jnp.zeros(len(batches_KxBxL1), jnp.float32)
            rows, losses_K = jax.lax.fori_loop(first, stop, step, (_with_rows(state), losses_K))
            return _without_rows(rows, state.params), losses_K

        state, losses_SxK = jax.lax.map(one, state)
        return state, losses_SxK.T

    return train


def view_program(teacher_model: ModelSpec, execution: Execution, domains: int):
    """Compile-ready `look(params, tokens_KxBxL1, domain_KxB) -> (TeacherView, Scores)` of [K, …]: the teacher's own scores, too."""

    @jax.jit
    def look(params, tokens_KxBxL1, domain_KxB):
        def one(piece):
            batch_BxL1, domain_B = piece
            inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)
            teacher = output_of(teacher_model, execution, True, params, inputs_BxL)
            domain_N, vocab = jnp.repeat(domain_B, inputs_BxL.shape[1]), Vocab(teacher_model.vocab_size)
            return view(vocab, teacher), score_batch(vocab, teacher, None, labels_N, domain_N, domains=domains)

        return jax.lax.map(one, (tokens_KxBxL1, domain_KxB))

    return look


def score_program(stack: Stack, execution: Execution, domains: int):
    """Compile-ready `score(params, tokens_KxBxL1, domain_KxB, views) -> Scores` of [K, S, …]; views: None without a teacher."""

    @jax.jit
    def score(params, tokens_KxBxL1, domain_KxB, views):
        def one(piece):
            batch_BxL1, domain_B, seen = piece
            inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)
            domain_N = jnp.repeat(domain_B, inputs_BxL.shape[1])

            def of(student):
                output = output_of(stack.model, execution, True, student, inputs_BxL)
                return score_batch(Vocab(stack.model.vocab_size), output, seen, labels_N, domain_N, domains=domains)

            return jax.lax.map(of, params)

        return jax.lax.map(one, (tokens_KxBxL1, domain_KxB, views))

    return score


class _Rows(NamedTuple):
    """A parameter tree as one row of all its matrices and one vector of the rest, so that an optimizer step is a few loops.

    The row has two axes because the number of axes says what decays (optimizer.py).
    """

    matrices_1xP: jax.Array
    rest_P: jax.Array


def _with_rows(state: State) -> State:
    """The state with rows for its parameters and for their moments."""
    structure = jax.tree.structure(state.params)

    def is_tree(part):
        return jax.tree.structure(part) == structure

    return jax.tree.map(lambda part: _rows(part) if is_tree(part) else part, state, is_leaf=is_tree)


def _without_rows(state: State, params_like) -> State:
    def is_rows(part):
        return isinstance(part, _Rows)

    return jax.tree.map(lambda part: _tree(part, params_like) if is_rows(part) else part, state, is_leaf=is_rows)


def _rows(tree) -> _Rows:
    leaves = jax.tree.leaves(tree)
    matrices_P, rest_P = (
        jnp.concatenate([leaf.ravel() for leaf in leaves if (leaf.ndim >= 2) == matrix]) for matrix in (True, False)
    )
    return _Rows(matrices_P[None], rest_P)


def _tree(rows: _Rows, like):
    """The inverse of `_rows`; like: a tree of the same shapes."""
    leaves, structure = jax.tree.flatten(like)
    _, matrices = ravel_pytree([leaf for leaf in leaves if leaf.ndim >= 2])
    _, rest = ravel_pytree([leaf for leaf in leaves if leaf.ndim < 2])
    parts = {True: iter(matrices(rows.matrices_1xP[0])), False: iter(rest(rows.rest_P))}
    return jax.tree.unflatten(structure, [next(parts[leaf.ndim >= 2]) for leaf in leaves])
