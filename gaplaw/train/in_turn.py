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
import numpy as np

from gaplaw.distill import Layout, Vocab, batch_targets, objective_losses, score_batch, view
from gaplaw.execution import Execution
from gaplaw.spec import ModelSpec
from gaplaw.train.stack import Stack, State, inputs_and_labels, moved, output_of, seen_of_teacher

CACHED_LOGITS = 2**15  # 128 KiB: the loss passes over a few arrays of this size, which should stay in a core's cache


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

    place = Layout(min(execution.chunk_tokens, max(1, CACHED_LOGITS // stack.model.vocab_size)))

    @partial(jax.jit, donate_argnums=0)
    def train(state, batches_KxBxL1, by_heat, first, stop):
        like = jax.eval_shape(lambda params: jax.tree.map(lambda part: part[0], params), state.params)

        def step(at, carried):
            rows, losses_KxS = carried
            batch_BxL1, targets = jax.tree.map(lambda part: part[at], (batches_KxBxL1, by_heat))
            inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)

            def loss(params):
                output = output_of(stack.model, execution, True, params, inputs_BxL)
                return objective_losses((stack.objective,), place, [output], targets, labels_N)[0]

            def one(rows):
                value, slope = jax.value_and_grad(loss)(_tree(rows.params, like))
                return moved(stack, rows, _rows(slope)), value

            rows, losses_S = jax.lax.map(one, rows)
            return rows, losses_KxS.at[at].set(losses_S)

        losses_KxS = jnp.zeros((len(batches_KxBxL1), len(stack.cells)), jnp.float32)
        rows, losses_KxS = jax.lax.fori_loop(first, stop, step, (jax.vmap(_with_rows)(state), losses_KxS))
        return jax.vmap(partial(_without_rows, like=like))(rows), losses_KxS

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


def _without_rows(state: State, like) -> State:
    def is_rows(part):
        return isinstance(part, _Rows)

    return jax.tree.map(lambda part: _tree(part, like) if is_rows(part) else part, state, is_leaf=is_rows)


def _rows(tree) -> _Rows:
    matrices_P, rest_P = (jnp.concatenate([leaf.ravel() for leaf in part]) for part in _matrices_and_rest(tree))
    return _Rows(matrices_P[None], rest_P)


def _tree(rows: _Rows, like):
    """The inverse of `_rows`; like: a tree of the same shapes."""
    parts = []
    for flat_P, leaves in zip((rows.matrices_1xP[0], rows.rest_P), _matrices_and_rest(like), strict=True):
        pieces = jnp.split(flat_P, np.cumsum([leaf.size for leaf in leaves])[:-1])
        parts.append(iter([piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)]))
    return jax.tree.map(lambda leaf: next(parts[leaf.ndim < 2]), like)


def _matrices_and_rest(tree) -> tuple[list, list]:
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if leaf.ndim >= 2], [leaf for leaf in leaves if leaf.ndim < 2]
