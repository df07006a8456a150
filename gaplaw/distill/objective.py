"""What does one student lose against the labels and its teacher, and in which direction should it move?

Everything is computed from hidden states and output matrices in chunks of tokens, with the gradient taken in the same pass:
the backward pass keeps d loss / d hidden and d loss / d output, never a tokens × vocabulary array. One teacher softmax per
chunk serves every student of the group. `gaplaw.distill.evaluate` measures with the same pieces.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gaplaw.spec import ObjectiveSpec


class Output(NamedTuple):
    """The last hidden states of one model and the matrix that turns them into logits.

    For a stack of S students both carry a leading axis: hidden_SxNxD, out_SxDxV.
    """

    hidden_NxD: jax.Array
    out_DxV: jax.Array


class Softmax(NamedTuple):
    """softmax(z) with what else one pass over the logits gives: the largest logit's place and log sum exp z."""

    probs: jax.Array
    log_normaliser: jax.Array


def logits_of(output: Output) -> jax.Array:
    """z = hidden · out in float32, whatever the compute type: [(S,) N, V]."""
    return jnp.einsum("...nd,...dv->...nv", output.hidden_NxD, output.out_DxV, preferred_element_type=jnp.float32)


def softmax(logits: jax.Array) -> Softmax:
    """One exponential per logit: both the probabilities and their log normaliser."""
    top = jnp.max(logits, axis=-1, keepdims=True)
    powers = jnp.exp(logits - top)
    total = jnp.sum(powers, axis=-1, keepdims=True)
    return Softmax(powers / total, (top + jnp.log(total))[..., 0])


def label_mask(labels_N: jax.Array, vocab: int) -> jax.Array:
    """A comparison that the compiler fuses into its consumer: no one-hot array is stored."""
    return jax.lax.broadcasted_iota(labels_N.dtype, (*labels_N.shape, vocab), labels_N.ndim) == labels_N[..., None]


def label_logit(logits: jax.Array, labels_N: jax.Array) -> jax.Array:
    """z[label] for every token, [(S,) N]."""
    return jnp.sum(jnp.where(label_mask(labels_N, logits.shape[-1]), logits, 0.0), axis=-1)


def _chunk_loss(spec: ObjectiveSpec, student: Output, teacher_logits, labels_N, norm: float):
    """Loss [(S,)] of one chunk and its gradient with respect to (hidden, out), both divided by `norm` tokens."""
    logits = logits_of(student)
    loss, slope = 0.0, 0.0
    if spec.soft_weight < 1:
        q = softmax(logits)
        hard = 1 - spec.soft_weight
        loss += hard * jnp.sum(q.log_normaliser - label_logit(logits, labels_N), axis=-1)
        slope += hard * (q.probs - label_mask(labels_N, logits.shape[-1]))
    if spec.soft_weight > 0:
        heat = spec.temperature
        p, q_heated = softmax(teacher_logits / heat), softmax(logits / heat)
        # KL(p||q) = sum_v p (log p - log q), written with both log normalisers so that no logarithm of p is taken
        gap = jnp.sum(p.probs * (teacher_logits - logits), axis=-1) / heat
        loss += spec.soft_scale * jnp.sum(gap - p.log_normaliser + q_heated.log_normaliser, axis=-1)
        slope += spec.soft_scale / heat * (q_heated.probs - p.probs)
    slope = (slope / norm).astype(student.hidden_NxD.dtype)
    grad_hidden = jnp.einsum("...nv,...dv->...nd", slope, student.out_DxV)
    grad_out = jnp.einsum("...nd,...nv->...dv", student.hidden_NxD, slope, preferred_element_type=jnp.float32)
    return loss / norm, Output(grad_hidden, grad_out)


def _losses_and_slopes(specs, chunk_tokens, students, teacher, labels_N):
    tokens = labels_N.shape[0]
    chunk = min(chunk_tokens, tokens)
    while tokens % chunk:  # the largest chunk that divides the batch, so that no token is padded or dropped
        chunk -= 1

    def one_chunk(hiddens, teacher_hidden, labels):
        z_teacher = None if teacher is None else logits_of(Output(teacher_hidden, teacher.out_DxV))
        parts = [
            _chunk_loss(spec, Output(hidden, student.out_DxV), z_teacher, labels, tokens)
            for spec, hidden, student in zip(specs, hiddens, students, strict=True)
        ]
        return [p[0] for p in parts], [p[1].hidden_NxD for p in parts], [p[1].out_DxV for p in parts]

    hiddens = [s.hidden_NxD for s in students]
    teacher_hidden = None if teacher is None else teacher.hidden_NxD
    if chunk == tokens:
        losses, grad_hiddens, grad_outs = one_chunk(hiddens, teacher_hidden, labels_N)
    else:
        split = partial(_split_tokens, count=tokens // chunk)

        def body(carry, piece):
            losses, grad_hiddens, grad_outs = one_chunk(*piece)
            return jax.tree.map(jnp.add, carry, (losses, grad_outs)), grad_hiddens

        zero = (
            [jnp.zeros(h.shape[:-2], jnp.float32) for h in hiddens],
            [jnp.zeros(s.out_DxV.shape, jnp.float32) for s in students],
        )
        pieces = ([split(h) for h in hiddens], None if teacher is None else split(teacher_hidden), split(labels_N, axis=0))
        (losses, grad_outs), stacked = jax.lax.scan(body, zero, pieces)
        grad_hiddens = [_join_tokens(g, h.shape) for g, h in zip(stacked, hiddens, strict=True)]
    return losses, [
        Output(h, out.astype(s.out_DxV.dtype)) for h, out, s in zip(grad_hiddens, grad_outs, students, strict=True)
    ]


def _split_tokens(array, *, count: int, axis: int = -2):
    """Cut the token axis into `count` chunks and put the chunk axis first, as scan wants it."""
    axis %= array.ndim
    shape = (*array.shape[:axis], count, array.shape[axis] // count, *array.shape[axis + 1 :])
    return jnp.moveaxis(array.reshape(shape), axis, 0)


def _join_tokens(chunks, shape):
    return jnp.moveaxis(chunks, 0, -3).reshape(shape)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def objective_losses(
    specs: tuple[ObjectiveSpec, ...],
    chunk_tokens: int,
    students: list[Output],
    teacher: Output | None,
    labels_N: jax.Array,
) -> list[jax.Array]:
    """Mean loss of every student of a group, in nats per token; see `ObjectiveSpec` for the formula.

    Args:
      specs: one objective per entry of `students`.
      chunk_tokens: tokens whose logits exist at one time; the largest divisor of N not above it is used.
      students: hidden_(S)xNxD and out_(S)xDxV of each stack of students.
      teacher: hidden_NxD and out_DxV, or None when no objective has soft targets. It gets no gradient.
      labels_N: the next token at each position.
    Returns: one array per entry of `students`, of its stack shape [(S,)]. A student whose values are not finite gives a
      loss and a gradient that are not finite, and leaves every other student's untouched.
    """
    return _losses_and_slopes(specs, chunk_tokens, students, teacher, labels_N)[0]


def _forward(specs, chunk_tokens, students, teacher, labels_N):
    losses, slopes = _losses_and_slopes(specs, chunk_tokens, students, teacher, labels_N)
    return losses, slopes


def _backward(specs, chunk_tokens, slopes, cotangents):
    def scale(g, slope):
        return (slope * g.reshape(g.shape + (1,) * (slope.ndim - g.ndim))).astype(slope.dtype)

    students = [
        Output(scale(g, slope.hidden_NxD), scale(g, slope.out_DxV)) for g, slope in zip(cotangents, slopes, strict=True)
    ]
    return students, None, None


objective_losses.defvjp(_forward, _backward)
