"""What does a teacher say of each token? All of it, its likeliest symbols and one bucket, or draws from it.

Targets are made once per chunk of tokens and serve every student there. `Kept` is what a cache holds of a token, in the
few bytes that `TeacherSignal.token_bytes` counts; `unpacked` turns it into targets again, inside the chunk that needs
them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gaplaw.distill.layout import Layout, split_tokens
from gaplaw.distill.vocab import Output, Vocab
from gaplaw.errors import SignalError
from gaplaw.methods.objectives.kd import SMALLEST
from gaplaw.methods.protocol import Objective
from gaplaw.spec import TeacherSignal
from gaplaw.spec.teacher_signal import HALF_TAILS

NOTHING = -1e4  # log mass of an empty tail at temperatures from 1, within float16


class Targets(NamedTuple):
    """A teacher's distribution at one temperature, as students need it.

    probs_NxV: p; under a tail, 0 marks the symbols of the tail. negative_entropy_N: Σ p log p, the tail counted as one
      symbol.
    tail_N: p of the tail, all symbols that were not kept; None when there is no such bucket.
    """

    probs_NxV: jax.Array
    negative_entropy_N: jax.Array
    tail_N: jax.Array | None = None


class TopK(NamedTuple):
    """T symbols and their log p at temperature 1, largest first; by temperature H, log Σ p^(1/H) of all others."""

    ids_NxT: jax.Array
    log_probs_NxT: jax.Array
    log_tails_N: dict[float, jax.Array]


class Draws(NamedTuple):
    """T draws from p at temperature 1, each worth 1/T; Σ p log p of the whole distribution."""

    ids_NxT: jax.Array
    negative_entropy_N: jax.Array


Kept = TopK | Draws


def targets_of(vocab: Vocab, logits: jax.Array, temperature: float) -> Targets:
    """One softmax of a teacher's logits, to be shared by all students of a chunk."""
    heated = logits / temperature
    p = vocab.softmax(heated)
    return Targets(p.probs, vocab.expect(p.probs, heated) - p.log_normaliser)


def temperatures(objectives: tuple[Objective, ...]) -> tuple[float, ...]:
    """The temperatures at which a group of objectives asks for targets, each once, ascending."""
    return tuple(sorted({temperature for objective in objectives for temperature in objective.temperatures}))


def keep(
    signal: TeacherSignal, temperatures: tuple[float, ...], layout: Layout, teacher: Output, uniform_N: jax.Array
) -> Kept:
    """What a cache holds of some tokens. A chunk's whole logits exist on every device meanwhile, nothing more.

    Args: temperatures: to be served. uniform_N: a uniform random number for each token, for its draws.
    """
    return by_chunks(partial(_kept, signal, temperatures), layout, teacher, uniform_N)


def by_chunks(of_log_probs: Callable, layout: Layout, teacher: Output, uniform_N: jax.Array):
    """`of_log_probs(log_probs_NxV, uniform_N)`, chunk by chunk on every device; its results are arrays of tokens."""

    def local(vocab: Vocab, teacher, uniform_N):
        def one_chunk(piece):
            logits = vocab.logits(Output(piece[0], teacher.out_DxV))
            return of_log_probs(jax.nn.log_softmax(vocab.whole(logits)), piece[1])

        count = layout.chunks(len(uniform_N))
        pieces = split_tokens(teacher.hidden_NxD, count), split_tokens(uniform_N, count)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.lax.map(one_chunk, pieces))

    size, place = teacher.out_DxV.shape[-1], layout.place(teacher)
    return layout.run(
        local, size, (layout.fill_up(teacher), uniform_N), (place, layout.tokens), layout.tokens, checked=False
    )


def _kept(signal: TeacherSignal, temperatures, log_probs_NxV: jax.Array, uniform_N: jax.Array) -> Kept:
    """Of one chunk. Draws are systematic: draw i is where the cumulated p passes (i + uniform)/T.

    Each symbol is expected T·p times, exactly as under independent draws, and never comes a whole draw more or less
    often.
    """
    size, count = log_probs_NxV.shape[-1], signal.symbols
    if signal.kind == "topk":
        top_NxT, ids_NxT = jax.lax.top_k(log_probs_NxV, count)
        rest_NxV = log_probs_NxV.at[jnp.arange(len(ids_NxT))[:, None], ids_NxT].set(-jnp.inf)
        tails_N = {heat: _log_tail(rest_NxV, heat) for heat in temperatures}
        return TopK(_ids(ids_NxT, size), top_NxT.astype(jnp.float16), tails_N)
    probs_NxV = jnp.exp(log_probs_NxV)
    cumulated_NxV = jnp.cumsum(probs_NxV, axis=-1)
    mark_NxT = (jnp.arange(count) + uniform_N[:, None]) / count * cumulated_NxV[:, -1:]
    ids_NxT = jax.vmap(partial(jnp.searchsorted, side="right"))(cumulated_NxV, mark_NxT)
    negative_entropy_N = jnp.sum(probs_NxV * log_probs_NxV, axis=-1)
    return Draws(_ids(jnp.minimum(ids_NxT, size - 1), size), negative_entropy_N.astype(jnp.float16))


def _log_tail(rest_NxV: jax.Array, heat: float) -> jax.Array:
    """log Σ p^(1/heat), of whose digits T² amplifies the loss: float32 but where float16 has always been."""
    tail_N = jnp.maximum(jax.nn.logsumexp(rest_NxV / heat, axis=-1), NOTHING / min(heat, 1.0))
    return tail_N.astype(jnp.float16 if heat in HALF_TAILS else jnp.float32)


def kept_shapes(signal: TeacherSignal, temperatures: tuple[float, ...], vocab_size: int) -> Kept:
    """Shapes and types of what is kept of one token; nothing is computed."""
    like = jax.ShapeDtypeStruct((1, vocab_size), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
    return jax.eval_shape(partial(_kept, signal, temperatures), *like)


def kept_mass(ids_NxT: jax.Array, log_probs_NxV: jax.Array, temperature: float) -> jax.Array:
    """The teacher's mass on the symbols that were kept, each counted once, at a temperature: [N]."""
    ids_NxT = jnp.sort(ids_NxT.astype(jnp.int32), axis=-1)
    first_NxT = jnp.diff(ids_NxT, axis=-1, prepend=-1) > 0
    p_NxT = jnp.take_along_axis(jax.nn.softmax(log_probs_NxV / temperature), ids_NxT, axis=-1)
    return jnp.sum(jnp.where(first_NxT, p_NxT, 0.0), axis=-1)


def _ids(ids: jax.Array, size: int) -> jax.Array:
    return ids.astype(jnp.uint8 if size <= 2**8 else jnp.uint16 if size <= 2**16 else jnp.uint32)


def unpacked(vocab: Vocab, kept: Kept, columns: int, temperature: float) -> Targets:
    """Targets at a temperature from what was kept of some tokens; `columns` symbols of the vocabulary are held here.

    Kept symbols and tail are made to sum to 1. Raises: SignalError for a temperature at which no tail was kept.
    """
    if isinstance(kept, Draws):
        weight_NxT = jnp.full(kept.ids_NxT.shape, 1 / kept.ids_NxT.shape[-1], jnp.float32)
        entropy_N = kept.negative_entropy_N.astype(jnp.float32)
        return Targets(vocab.spread(kept.ids_NxT, weight_NxT, columns), entropy_N)
    if temperature not in kept.log_tails_N:
        known = ", ".join(f"{heat:g}" for heat in kept.log_tails_N)
        raise SignalError(f"temperature = {temperature:g}: the teacher cache keeps the tail's mass at {known} only")
    tail_N = kept.log_tails_N[temperature].astype(jnp.float32)
    log_p = jnp.concatenate([kept.log_probs_NxT.astype(jnp.float32) / temperature, tail_N[:, None]], axis=-1)
    log_p = jax.nn.log_softmax(log_p)
    p = jnp.exp(log_p)
    head_NxV = vocab.spread(kept.ids_NxT, jnp.maximum(p[:, :-1], SMALLEST), columns)
    return Targets(head_NxV, jnp.sum(p * log_p, axis=-1), p[:, -1])
