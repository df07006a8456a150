"""What do students lose against the labels and their teacher, and in which direction should they move?

Everything is computed from hidden states and output matrices in chunks of tokens, with the gradient taken in the same
pass: the backward pass keeps d loss / d hidden and d loss / d output, never a tokens × vocabulary array. What is
computed of a teacher in a chunk serves every student of the group. Which loss it is, an objective says
(`gaplaw.methods.protocol`); its gradient is derived here, inside the chunk, unless it gives one.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from gaplaw.distill.layout import Layout, join_tokens, split_tokens
from gaplaw.distill.views import TeacherInput, view_of
from gaplaw.distill.vocab import Output, Vocab
from gaplaw.methods.protocol import Objective


def _chunk_loss(objective, vocab: Vocab, student: Output, teacher, labels_N, state, norm: float):
    """(loss [(S,)], measured {name: [(S,)]}) of one chunk and its gradient with respect to (hidden, out), all divided
    by `norm` tokens.
    """
    logits = vocab.logits(student)
    by_hand = objective.losses_and_grads(vocab, logits, teacher, labels_N)
    if by_hand is not None:
        (loss, grad), measured = by_hand, {}
    else:

        def total(logits_NxV, state):
            loss_N, measured = objective.token_losses(vocab, logits_NxV, teacher, labels_N, state)
            return jnp.sum(loss_N), {name: jnp.sum(measured[name]) for name in objective.measures}

        derive = jax.value_and_grad(total, has_aux=True)
        derive = jax.vmap(derive) if logits.ndim == 3 else derive
        (loss, measured), grad = derive(logits, jax.lax.stop_gradient(state))
    grad = (grad / norm).astype(student.hidden_NxD.dtype)
    grad_hidden = vocab.sum(jnp.einsum("...nv,...dv->...nd", grad, student.out_DxV))
    grad_out = jnp.einsum("...nd,...nv->...dv", student.hidden_NxD, grad, preferred_element_type=jnp.float32)
    return jax.tree.map(lambda part: part / norm, (loss, measured)), Output(grad_hidden, grad_out)


def _on_one_device(objectives, leads, layout: Layout, vocab: Vocab, students, teacher, labels_N, states):
    """Losses, measured means and gradients from one device's tokens and columns, summed over the mesh's token axes.

    leads: the partition of each stack's leading axis.
    """
    tokens = labels_N.shape[0]
    norm, count = tokens, layout.chunks(tokens)
    for axis in layout.token_axes:
        norm *= layout.axis_size(axis)

    def one_chunk(hiddens, teacher_tokens, labels):
        if isinstance(teacher, Output):
            teacher_tokens = Output(teacher_tokens, teacher.out_DxV)
        view = view_of(vocab, teacher_tokens, students[0].out_DxV.shape[-1])
        parts = [
            _chunk_loss(objective, vocab, Output(hidden, student.out_DxV), view, labels, state, norm)
            for objective, hidden, student, state in zip(objectives, hiddens, students, states, strict=True)
        ]
        return [p[0] for p in parts], [p[1].out_DxV for p in parts], [p[1].hidden_NxD for p in parts]

    hiddens = [s.hidden_NxD for s in students]
    by_token = teacher.hidden_NxD if isinstance(teacher, Output) else teacher  # what of the teacher is cut into chunks
    if count == 1:
        means, grad_outs, grad_hiddens = one_chunk(hiddens, by_token, labels_N)
    else:

        def body(carry, piece):
            means, grad_outs, grad_hiddens = one_chunk(*piece)
            return jax.tree.map(jnp.add, carry, (means, grad_outs)), grad_hiddens

        zero_means = [
            (zero, dict.fromkeys(objective.measures, zero))
            for objective, hidden, lead in zip(objectives, hiddens, leads, strict=True)
            for zero in [layout.zeros(hidden.shape[:-2], *lead)]
        ]
        zero_grads = [
            layout.zeros(student.out_DxV.shape, *lead, layout.vocab_axis)
            for student, lead in zip(students, leads, strict=True)
        ]
        cut_teacher = jax.tree.map(lambda array: split_tokens(array, count), by_token)
        pieces = ([split_tokens(h, count, axis=-2) for h in hiddens], cut_teacher, split_tokens(labels_N, count))
        (means, grad_outs), stacked = jax.lax.scan(body, (zero_means, zero_grads), pieces)
        grad_hiddens = [join_tokens(g, h.shape) for g, h in zip(stacked, hiddens, strict=True)]
    means, grad_outs = layout.sum(means), [layout.sum_by_width(grad) for grad in grad_outs]
    grads = [Output(h, o.astype(s.out_DxV.dtype)) for h, o, s in zip(grad_hiddens, grad_outs, students, strict=True)]
    return means, grads


def _means_and_grads(objectives, layout: Layout, students, teacher, labels_N, states):
    size = students[0].out_DxV.shape[-1]
    partitions = [layout.place(student) for student in students]
    if isinstance(teacher, Output):
        teacher, of_teacher = layout.fill_up(teacher), layout.place(teacher)
    else:
        of_teacher = layout.tokens  # of nothing, or of what is known of each token
    leads = [layout.lead(student) for student in students]
    by_student = [P(*lead) for lead in leads]
    means, grads = layout.run(
        partial(_on_one_device, objectives, leads, layout),
        size,
        ([layout.fill_up(student) for student in students], teacher, labels_N, states),
        (partitions, of_teacher, layout.tokens, by_student),
        (by_student, [layout.place_slope(student) for student in students]),
    )
    return means, [Output(grad.hidden_NxD, grad.out_DxV[..., :size]) for grad in grads]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def objective_means(
    objectives: tuple[Objective, ...],
    layout: Layout,
    students: list[Output],
    teacher: TeacherInput,
    labels_N: jax.Array,
    states: list[dict],
) -> list[tuple[jax.Array, dict[str, jax.Array]]]:
    """Mean loss of every student of a group, in nats per token, and the means of what its objective measures.

    Args:
      objectives: one per entry of `students`.
      layout: chunk size and mesh.
      students: hidden_(S)xNxD and out_(S)xDxV of each stack of students.
      teacher: hidden_NxD and out_DxV, or what a cache kept of it, or targets made beforehand (without a mesh), or None
        when no objective needs one. It gets no gradient.
      labels_N: the next token at each position.
      states: of each entry of `students`, what its objective carries: {name: [(S,)]}. They get no gradient.
    Returns: (loss, {measure: mean}) for each entry of `students`, of its stack shape [(S,)]. A student whose values are
      not finite gives a loss and a gradient that are not finite, and leaves every other student's untouched.
    """
    return _means_and_grads(objectives, layout, students, teacher, labels_N, states)[0]


def _backward(objectives, layout, grads, cotangents):
    def scale(g, grad):
        return (grad * g.reshape(g.shape + (1,) * (grad.ndim - g.ndim))).astype(grad.dtype)

    students = [
        Output(scale(g, grad.hidden_NxD), scale(g, grad.out_DxV))
        for (g, _), grad in zip(cotangents, grads, strict=True)
    ]
    return students, None, None, None


objective_means.defvjp(_means_and_grads, _backward)


def objective_losses(objectives, layout: Layout, students, teacher: TeacherInput, labels_N) -> list[jax.Array]:
    """The losses of `objective_means` alone, for objectives in their initial state."""
    states = [
        {name: jnp.full(student.hidden_NxD.shape[:-2], value) for name, value in objective.initial_state().items()}
        for objective, student in zip(objectives, students, strict=True)
    ]
    return [loss for loss, _ in objective_means(objectives, layout, students, teacher, labels_N, states)]
