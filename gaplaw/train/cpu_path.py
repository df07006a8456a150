"""How does a dispatch run on one CPU core? The teacher first, then each stack of students, each student by itself.

A program of the teacher makes what students need of it for all batches of the dispatch; a program per stack then takes
one student after the other through them, so that its state and activations stay in the core's cache. No program of
students knows the teacher's shape: through the compilation cache the groups of a sweep share them. See step.py for the
other way.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gaplaw.distill import Kept, Layout, Vocab, objective_losses, score_batch, temperatures, view, view_of
from gaplaw.spec import Execution, ModelSpec
from gaplaw.train.optimizer import decays
from gaplaw.train.stack import Stack, State, apply_gradients, inputs_and_labels, output_of, teacher_at_step

BLOCK_TOKENS = 512  # a student's activations for so many tokens stay in a core's cache, and
CACHED_LOGITS = 2**15  # so do the few arrays of so many logits (128 KiB) that its loss passes over


def targets_program(objectives, teacher_model: ModelSpec, execution: Execution):
    """Compile-ready `make(source, batches_KxBxL1)`: targets of [K·blocks, N/blocks, …] (see `blocks_of`), one for each
    of the `temperatures` of the objectives.

    source: see `teacher_at_step`.
    """

    @jax.jit
    def make(source, batches_KxBxL1):
        blocks, size = blocks_of(batches_KxBxL1), teacher_model.vocab_size
        pieces, source = _cut(batches_KxBxL1, blocks), _cut(source, blocks) if isinstance(source, Kept) else source

        def one(at):
            inputs_BxL, _ = inputs_and_labels(pieces[at])
            teacher = teacher_at_step(teacher_model, execution, None, source, at, inputs_BxL)
            seen = view_of(Vocab(size), teacher, size)
            return tuple(seen.targets(temperature) for temperature in temperatures(objectives))

        return jax.lax.map(one, jnp.arange(len(pieces)))

    return make


def stack_program(stack: Stack, execution: Execution):
    """Compile-ready `train(state, batches_KxBxL1, targets, first, stop) -> (state, losses_KxS)`; `state` is donated.

    targets: at the stack's temperature, see `targets_program`; None without soft targets.
    """
    place = Layout(min(execution.chunk_tokens, max(1, CACHED_LOGITS // stack.model.vocab_size)))

    def loss(params, batch_BxL1, targets):
        inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)
        output = output_of(stack.model, execution, None, params, inputs_BxL)
        return objective_losses((stack.objective,), place, [output], targets, labels_N)[0]

    @partial(jax.jit, donate_argnums=0)
    def train(state, batches_KxBxL1, targets, first, stop):
        like = jax.eval_shape(lambda params: jax.tree.map(lambda part: part[0], params), state.params)
        blocks = blocks_of(batches_KxBxL1)
        pieces = (_cut(batches_KxBxL1, blocks), targets)

        def step(at, carried):
            rows, losses_KxS = carried

            def one(rows):
                params = _tree(rows.params, like)

                def add(block, sums):
                    piece = jax.tree.map(lambda part: part[at * blocks + block], pieces)
                    value, grads = jax.value_and_grad(loss)(params, *piece)
                    return jax.tree.map(lambda mean, part: mean + part / blocks, sums, (value, _rows(grads)))

                zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, rows.params))
                value, grads = jax.lax.fori_loop(0, blocks, add, zero)
                return apply_gradients(stack, rows, grads, {"loss": value}), value

            rows, losses_S = jax.lax.map(one, rows)
            return rows, losses_KxS.at[at].set(losses_S)

        losses_KxS = jnp.zeros((len(batches_KxBxL1), len(stack.cells)), jnp.float32)
        rows, losses_KxS = jax.lax.fori_loop(first, stop, step, (jax.vmap(_with_rows)(state), losses_KxS))
        return jax.vmap(partial(_without_rows, like=like))(rows), losses_KxS

    return train


def view_program(teacher_model: ModelSpec, execution: Execution, domains: int):
    """Compile-ready `look(params, tokens_KxBxL1, domain_KxB) -> (TeacherReference, Scores)` of [K·blocks, …]: its own
    scores, too.
    """
    vocab = Vocab(teacher_model.vocab_size)

    @jax.jit
    def look(params, tokens_KxBxL1, domain_KxB):
        def one(piece):
            batch_BxL1, domain_B = piece
            inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)
            teacher = output_of(teacher_model, execution, None, params, inputs_BxL)
            domain_N = jnp.repeat(domain_B, inputs_BxL.shape[1])
            return view(vocab, teacher), score_batch(vocab, teacher, None, labels_N, domain_N, domains=domains)

        return jax.lax.map(one, _cut((tokens_KxBxL1, domain_KxB), blocks_of(tokens_KxBxL1)))

    return look


def score_program(stack: Stack, execution: Execution, domains: int):
    """Compile-ready `score(params, tokens_KxBxL1, domain_KxB, views) -> Scores` of [K·blocks, S, …].

    views: see `view_program`; None without a teacher.
    """
    vocab = Vocab(stack.model.vocab_size)

    @jax.jit
    def score(params, tokens_KxBxL1, domain_KxB, views):
        def one(piece):
            (batch_BxL1, domain_B), seen = piece
            inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)
            domain_N = jnp.repeat(domain_B, inputs_BxL.shape[1])

            def of(student):
                output = output_of(stack.model, execution, None, student, inputs_BxL)
                return score_batch(vocab, output, seen, labels_N, domain_N, domains=domains)

            return jax.lax.map(of, params)

        return jax.lax.map(one, (_cut((tokens_KxBxL1, domain_KxB), blocks_of(tokens_KxBxL1)), views))

    return score


def blocks_of(batches_KxBxL1: jax.Array) -> int:
    """Into how many equal blocks of whole sequences each batch is cut, for at most BLOCK_TOKENS in each where that can
    be.
    """
    _, sequences, length = batches_KxBxL1.shape
    fitting = max(1, BLOCK_TOKENS // (length - 1))
    return sequences // next(size for size in range(min(fitting, sequences), 0, -1) if sequences % size == 0)


def _cut(tree, blocks: int):
    """[K, B, …] arrays as [K·blocks, B/blocks, …]."""
    return jax.tree.map(lambda part: part.reshape(-1, part.shape[1] // blocks, *part.shape[2:]), tree)


class _Rows(NamedTuple):
    """A parameter tree as a vector of what decays (optimizer.py) and one of the rest: an optimizer step is then a few
    loops.
    """

    decayed_P: jax.Array
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
    decayed_P, rest_P = (jnp.concatenate([leaf.ravel() for leaf in part]) for part in _decayed_and_rest(tree))
    return _Rows(decayed_P, rest_P)


def _tree(rows: _Rows, like):
    """The inverse of `_rows`; like: a tree of the same shapes."""
    parts = []
    for flat_P, leaves in zip(rows, _decayed_and_rest(like), strict=True):
        pieces = jnp.split(flat_P, np.cumsum([leaf.size for leaf in leaves])[:-1])
        parts.append(iter([piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)]))
    return jax.tree_util.tree_map_with_path(lambda path, _: next(parts[not decays(path)]), like)


def _decayed_and_rest(tree) -> tuple[list, list]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [leaf for path, leaf in leaves if decays(path)], [leaf for path, leaf in leaves if not decays(path)]
