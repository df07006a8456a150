"""What does one student lose against the labels and its teacher, and in which direction should it move?

Everything is computed from hidden states and output matrices in chunks of tokens, with the gradient taken in the same
pass: the backward pass keeps d loss / d hidden and d loss / d output, never a tokens × vocabulary array. One teacher
softmax per chunk serves every student of the group.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from gaplaw.distill.layout import Layout, join_tokens, split_tokens
from gaplaw.distill.targets import FAINT, Kept, Targets, targets_by_heat
from gaplaw.distill.vocab import Output, Vocab
from gaplaw.spec import ObjectiveSpec

# Above this temperature KL is summed from differences of p and q: entropies, which are nearly equal there, and T² would
# leave errors of 1e-5 at temperature 10, of 1e-1 at 1000. Up to it the entropies cost less, and the teacher's serves
# all students.
ALIKE_ABOVE = 4.0


def _chunk_loss(spec: ObjectiveSpec, vocab: Vocab, student: Output, by_heat: dict, labels_N, norm: float):
    """Loss [(S,)] of one chunk and its gradient with respect to (hidden, out), both divided by `norm` tokens."""
    logits = vocab.logits(student)
    loss, slope = 0.0, 0.0
    if spec.soft_weight < 1:
        q = vocab.softmax(logits)
        hard = 1 - spec.soft_weight
        loss += hard * jnp.sum(q.log_normaliser - vocab.label_logit(logits, labels_N), axis=-1)
        slope += hard * (q.probs - vocab.is_label(logits, labels_N))
    if spec.soft_weight > 0:
        kl_N, away = _soft_loss(spec.temperature, vocab, logits, by_heat[spec.temperature])
        loss += spec.soft_scale * jnp.sum(kl_N, axis=-1)
        slope += spec.soft_scale / spec.temperature * away
    slope = (slope / norm).astype(student.hidden_NxD.dtype)
    grad_hidden = vocab.sum(jnp.einsum("...nv,...dv->...nd", slope, student.out_DxV))
    grad_out = jnp.einsum("...nd,...nv->...dv", student.hidden_NxD, slope, preferred_element_type=jnp.float32)
    return loss / norm, Output(grad_hidden, grad_out)


def _soft_loss(heat: float, vocab: Vocab, logits, p: Targets):
    """KL(p || softmax(logits / heat)) of every token, and its gradient with respect to logits / heat."""
    q = vocab.softmax(logits / heat)
    seen, alike = p.probs_NxV, heat > ALIKE_ABOVE
    if alike:
        parts = _divergence(seen, q.probs, logits / heat - q.log_normaliser[..., None])
    else:  # KL = Σ p log p − Σ p z/T + log Σ exp z/T: the teacher's part was summed once for all students
        kl_N = p.negative_entropy_N - vocab.expect(p.probs_NxV, logits) / heat + q.log_normaliser
    if p.tail_N is not None:  # one bucket of mass: the student is told its share, not how to divide it
        outside = seen == 0
        tail_N = vocab.sum(jnp.sum(jnp.where(outside, q.probs, 0.0), axis=-1))
        tail_N = jnp.maximum(tail_N, FAINT)
        if alike:
            parts = jnp.where(outside, 0.0, parts)
        else:
            kl_N -= p.tail_N * (q.log_normaliser + jnp.log(tail_N))
        seen = jnp.where(outside, q.probs * (p.tail_N / tail_N)[..., None], seen)
    if alike:
        kl_N = vocab.sum(jnp.sum(parts, axis=-1))
        kl_N += 0.0 if p.tail_N is None else _divergence(p.tail_N, tail_N, jnp.log(tail_N))
    return kl_N, q.probs - seen


def _divergence(p, q, log_q):
    """p log(p/q) + q − p: KL, summed over distributions. Never below 0, and keeps its digits where p and q are alike.

    With x = q/p − 1 it is p (x − log(1 + x)), a series where x is small.
    """
    x = (q - p) / p
    series = 1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x * (1 / 6 - x * (1 / 7 - x / 8)))))
    far = p * (jnp.log(jnp.maximum(p, FAINT)) - log_q) + q - p
    return jnp.where(jnp.abs(q - p) < p / 8, p * x**2 * series, far)


def _on_one_device(specs, layout: Layout, vocab: Vocab, students, teacher, labels_N):
    """Losses and slopes from one device's tokens and columns, summed over the mesh's token axes."""
    tokens = labels_N.shape[0]
    norm, count = tokens, layout.chunks(tokens)
    for axis in layout.token_axes:
        norm *= layout.axis_size(axis)

    def one_chunk(hiddens, teacher_tokens, labels):
        if isinstance(teacher, Output):
            teacher_tokens = Output(teacher_tokens, teacher.out_DxV)
        if isinstance(teacher_tokens, Output | Kept):
            teacher_tokens = targets_by_heat(specs, vocab, teacher_tokens, students[0].out_DxV.shape[-1])
        parts = [
            _chunk_loss(spec, vocab, Output(hidden, student.out_DxV), teacher_tokens, labels, norm)
            for spec, hidden, student in zip(specs, hiddens, students, strict=True)
        ]
        return [p[0] for p in parts], [p[1].hidden_NxD for p in parts], [p[1].out_DxV for p in parts]

    hiddens = [s.hidden_NxD for s in students]
    by_token = teacher.hidden_NxD if isinstance(teacher, Output) else teacher  # what of the teacher is cut into chunks
    if count == 1:
        losses, grad_hiddens, grad_outs = one_chunk(hiddens, by_token, labels_N)
    else:

        def body(carry, piece):
            losses, grad_hiddens, grad_outs = one_chunk(*piece)
            return jax.tree.map(jnp.add, carry, (losses, grad_outs)), grad_hiddens

        zero = (
            [jnp.zeros(h.shape[:-2], jnp.float32) for h in hiddens],
            [jnp.zeros(s.out_DxV.shape, jnp.float32) for s in students],
        )
        cut_teacher = jax.tree.map(lambda array: split_tokens(array, count), by_token)
        pieces = ([split_tokens(h, count, axis=-2) for h in hiddens], cut_teacher, split_tokens(labels_N, count))
        (losses, grad_outs), stacked = jax.lax.scan(body, zero, pieces)
        grad_hiddens = [join_tokens(g, h.shape) for g, h in zip(stacked, hiddens, strict=True)]
    losses, grad_outs = layout.sum(losses), [layout.sum_by_width(grad) for grad in grad_outs]
    slopes = [Output(h, o.astype(s.out_DxV.dtype)) for h, o, s in zip(grad_hiddens, grad_outs, students, strict=True)]
    return losses, slopes


def _losses_and_slopes(specs, layout: Layout, students, teacher, labels_N):
    size = students[0].out_DxV.shape[-1]
    places = [layout.place(student) for student in students]
    if isinstance(teacher, Output):
        teacher, teacher_place = layout.fill_up(teacher), layout.place(teacher)
    else:
        teacher_place = layout.tokens  # of nothing, or of what was kept of each token
    losses, slopes = layout.run(
        partial(_on_one_device, specs, layout),
        size,
        ([layout.fill_up(student) for student in students], teacher, labels_N),
        (places, teacher_place, layout.tokens),
        ([P(*layout.lead(student)) for student in students], [layout.place_slope(student) for student in students]),
    )
    return losses, [Output(slope.hidden_NxD, slope.out_DxV[..., :size]) for slope in slopes]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def objective_losses(
    specs: tuple[ObjectiveSpec, ...],
    layout: Layout,
    students: list[Output],
    teacher: Output | Kept | dict[float, Targets] | None,
    labels_N: jax.Array,
) -> list[jax.Array]:
    """Mean loss of every student of a group, in nats per token; see `ObjectiveSpec` for the formula.

    Args:
      specs: one objective per entry of `students`.
      layout: chunk size and mesh.
      students: hidden_(S)xNxD and out_(S)xDxV of each stack of students.
      teacher: hidden_NxD and out_DxV, or what a cache kept of it, or its `batch_targets` (without a mesh), or None when
        no objective has soft targets. It gets no gradient.
      labels_N: the next token at each position.
    Returns: one array per entry of `students`, of its stack shape [(S,)]. A student whose values are not finite gives a
      loss and a gradient that are not finite, and leaves every other student's untouched.
    """
    return _losses_and_slopes(specs, layout, students, teacher, labels_N)[0]


def _forward(specs, layout, students, teacher, labels_N):
    return _losses_and_slopes(specs, layout, students, teacher, labels_N)


def _backward(specs, layout, slopes, cotangents):
    def scale(g, slope):
        return (slope * g.reshape(g.shape + (1,) * (slope.ndim - g.ndim))).astype(slope.dtype)

    students = [
        Output(scale(g, slope.hidden_NxD), scale(g, slope.out_DxV)) for g, slope in zip(cotangents, slopes, strict=True)
    ]
    return students, None, None


objective_losses.defvjp(_forward, _backward)
