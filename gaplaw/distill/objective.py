"""What does one student lose against the labels and its teacher, and in which direction should it move?

Everything is computed from hidden states and output matrices in chunks of tokens, with the gradient taken in the same pass:
the backward pass keeps d loss / d hidden and d loss / d output, never a tokens × vocabulary array. One teacher softmax per
chunk serves every student of the group. On a mesh, tokens are spread over its data axes, columns of the output matrices over
its tensor axis and stacked students over its student axis (`jax.shard_map`); one device is a mesh of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from gaplaw.distill.vocab import Output, Vocab
from gaplaw.spec import ObjectiveSpec


@dataclass(frozen=True)
class Layout:
    """Where the loss is computed: `mesh` None means one device without a mesh.

    chunk_tokens: tokens per device whose logits exist at one time; the largest divisor of its share not above it is used,
    so that every device and host runs the same number of chunks.
    """

    chunk_tokens: int
    mesh: jax.sharding.Mesh | None = None
    token_axes: tuple[str, ...] = ()
    vocab_axis: str | None = None
    student_axis: str | None = None

    def axis_size(self, name: str | None) -> int:
        return 1 if name is None else self.mesh.shape[name]


class Targets(NamedTuple):
    """A teacher's distribution at one temperature, as students need it: p [N, V] and Σ p log p [N]."""

    probs_NxV: jax.Array
    negative_entropy_N: jax.Array


def targets(vocab: Vocab, teacher: Output, temperature: float) -> Targets:
    """One softmax of the teacher, to be shared by all students of a chunk."""
    heated = vocab.logits(teacher) / temperature
    p = vocab.softmax(heated)
    return Targets(p.probs, vocab.expect(p.probs, heated) - p.log_normaliser)


def batch_targets(specs: tuple[ObjectiveSpec, ...], teacher: Output) -> dict[float, Targets]:
    """The targets of a whole batch by temperature, for students that run one after the other: keeps N·V float32 each."""
    vocab = Vocab(teacher.out_DxV.shape[-1])
    return {heat: targets(vocab, teacher, heat) for heat in _temperatures(specs)}


def _temperatures(specs) -> list[float]:
    return sorted({spec.temperature for spec in specs if spec.soft_weight > 0})


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
        heat, p = spec.temperature, by_heat[spec.temperature]
        q = vocab.softmax(logits / heat)
        # KL(p||q) = Σ p log p − Σ p z/T + log Σ exp z/T: the teacher's part was summed once for all students
        kl_N = p.negative_entropy_N - vocab.expect(p.probs_NxV, logits) / heat + q.log_normaliser
        loss += spec.soft_scale * jnp.sum(kl_N, axis=-1)
        slope += spec.soft_scale / heat * (q.probs - p.probs_NxV)
    slope = (slope / norm).astype(student.hidden_NxD.dtype)
    grad_hidden = vocab.sum(jnp.einsum("...nv,...dv->...nd", slope, student.out_DxV))
    grad_out = jnp.einsum("...nd,...nv->...dv", student.hidden_NxD, slope, preferred_element_type=jnp.float32)
    return loss / norm, Output(grad_hidden, grad_out)


def _chunk_size(tokens: int, most: int) -> int:
    return next(size for size in range(min(most, tokens), 0, -1) if tokens % size == 0)


def _on_one_device(specs, layout: Layout, vocab: Vocab, students, teacher, labels_N):
    """Losses and slopes from one device's tokens and columns, summed over the mesh's token axes."""
    tokens = labels_N.shape[0]
    chunk = _chunk_size(tokens, layout.chunk_tokens)
    norm = tokens
    for axis in layout.token_axes:
        norm *= layout.axis_size(axis)

    def one_chunk(hiddens, teacher_tokens, labels):
        if isinstance(teacher, Output):
            seen = Output(teacher_tokens, teacher.out_DxV)
            teacher_tokens = {heat: targets(vocab, seen, heat) for heat in _temperatures(specs)}
        parts = [
            _chunk_loss(spec, vocab, Output(hidden, student.out_DxV), teacher_tokens, labels, norm)
            for spec, hidden, student in zip(specs, hiddens, students, strict=True)
        ]
        return [p[0] for p in parts], [p[1].hidden_NxD for p in parts], [p[1].out_DxV for p in parts]

    hiddens = [s.hidden_NxD for s in students]
    by_token = teacher.hidden_NxD if isinstance(teacher, Output) else teacher  # what of the teacher is cut into chunks
    if chunk == tokens:
        losses, grad_hiddens, grad_outs = one_chunk(hiddens, by_token, labels_N)
    else:
        count = tokens // chunk

        def body(carry, piece):
            losses, grad_hiddens, grad_outs = one_chunk(*piece)
            return jax.tree.map(jnp.add, carry, (losses, grad_outs)), grad_hiddens

        zero = (
            [jnp.zeros(h.shape[:-2], jnp.float32) for h in hiddens],
            [jnp.zeros(s.out_DxV.shape, jnp.float32) for s in students],
        )
        cut_teacher = jax.tree.map(lambda array: _split_tokens(array, count, axis=0), by_token)
        pieces = ([_split_tokens(h, count) for h in hiddens], cut_teacher, _split_tokens(labels_N, count, axis=0))
        (losses, grad_outs), stacked = jax.lax.scan(body, zero, pieces)
        grad_hiddens = [_join_tokens(g, h.shape) for g, h in zip(stacked, hiddens, strict=True)]
    if layout.token_axes:
        losses, grad_outs = jax.lax.psum((losses, grad_outs), layout.token_axes)
    slopes = [Output(h, o.astype(s.out_DxV.dtype)) for h, o, s in zip(grad_hiddens, grad_outs, students, strict=True)]
    return losses, slopes


def _split_tokens(array, count: int, axis: int = -2):
    """Cut the token axis into `count` chunks and put the chunk axis first, as scan wants it."""
    axis %= array.ndim
    shape = (*array.shape[:axis], count, array.shape[axis] // count, *array.shape[axis + 1 :])
    return jnp.moveaxis(array.reshape(shape), axis, 0)


def _join_tokens(chunks, shape):
    return jnp.moveaxis(chunks, 0, -3).reshape(shape)


def _losses_and_slopes(specs, layout: Layout, students, teacher, labels_N):
    size = students[0].out_DxV.shape[-1]
    if layout.mesh is None:
        return _on_one_device(specs, layout, Vocab(size), students, teacher, labels_N)
    columns = -(-size // layout.axis_size(layout.vocab_axis)) * layout.axis_size(layout.vocab_axis)

    def pad(output):
        widths = [(0, 0)] * (output.out_DxV.ndim - 1) + [(0, columns - size)]
        return Output(output.hidden_NxD, jnp.pad(output.out_DxV, widths) if columns > size else output.out_DxV)

    def placed(output):
        stacked = output.hidden_NxD.ndim == 3
        spread = stacked and output.hidden_NxD.shape[0] % layout.axis_size(layout.student_axis) == 0
        lead = ((layout.student_axis if spread else None),) if stacked else ()
        return Output(P(*lead, layout.token_axes or None, None), P(*lead, None, layout.vocab_axis))

    padded = [pad(student) for student in students]
    student_specs = [placed(student) for student in students]
    teacher_spec = None if teacher is None else placed(teacher)
    losses, slopes = jax.shard_map(
        partial(_on_one_device, specs, layout, Vocab(size, layout.vocab_axis)),
        mesh=layout.mesh,
        in_specs=(student_specs, teacher_spec, P(layout.token_axes or None)),
        out_specs=([P(*s.hidden_NxD[:-2]) for s in student_specs], student_specs),
        check_vma=False,
    )(padded, None if teacher is None else pad(teacher), labels_N)
    return losses, [Output(slope.hidden_NxD, slope.out_DxV[..., :size]) for slope in slopes]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def objective_losses(
    specs: tuple[ObjectiveSpec, ...],
    layout: Layout,
    students: list[Output],
    teacher: Output | dict[float, Targets] | None,
    labels_N: jax.Array,
) -> list[jax.Array]:
    """Mean loss of every student of a group, in nats per token; see `ObjectiveSpec` for the formula.

    Args:
      specs: one objective per entry of `students`.
      layout: chunk size and mesh.
      students: hidden_(S)xNxD and out_(S)xDxV of each stack of students.
      teacher: hidden_NxD and out_DxV, or its `batch_targets` (without a mesh), or None when no objective has soft
        targets. It gets no gradient.
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
