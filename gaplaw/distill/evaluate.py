"""How good is a student, and how close to its teacher? Sums over tokens, so that batches, domains and hosts simply add.

Uses the pieces that the objective is made of, so what is optimised and what is reported cannot drift.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from gaplaw.distill.layout import Layout, split_tokens
from gaplaw.distill.targets import Targets, targets_of
from gaplaw.distill.vocab import Output, Vocab

CALIBRATION_BINS = 21  # as in Distillation Scaling Laws (Busbridge et al. 2025), appendix on calibration


class Scores(NamedTuple):
    """Sums over the tokens of a batch for one model; [G] is per domain, [K] per confidence bin.

    kl and agreement are against the teacher and stay 0 without one.
    """

    tokens_G: jax.Array
    ce_G: jax.Array
    kl: jax.Array
    agreement: jax.Array
    bin_tokens_K: jax.Array
    bin_confidence_K: jax.Array
    bin_correct_K: jax.Array


class TeacherReference(NamedTuple):
    """What scoring needs of a teacher on some tokens, computed once for all its students."""

    targets: Targets
    choice_N: jax.Array


def view(vocab: Vocab, teacher: Output) -> TeacherReference:
    logits = vocab.logits(teacher)
    return TeacherReference(targets_of(vocab, logits, 1.0), vocab.first_choice(logits))


def score_group(
    layout: Layout, students: list[Output], teacher: Output | None, labels_N, domain_N, *, domains: int
) -> tuple[list[Scores], Scores | None]:
    """Score all students of a group and their teacher on one batch, a chunk of tokens at a time, on a mesh or without
    one.

    Args: students, teacher, labels_N as in `objective_losses` (the teacher may be None); the rest as in `score_batch`.
    Returns: scores of each entry of `students`, with its stack's leading axis if any, and of the teacher.
    """
    places = [layout.place(student) for student in students]
    return layout.run(
        partial(_on_one_device, layout, domains),
        students[0].out_DxV.shape[-1],
        ([layout.fill_up(student) for student in students], layout.fill_up(teacher), labels_N, domain_N),
        (places, layout.place(teacher), layout.tokens, layout.tokens),
        ([P(*layout.lead(student)) for student in students], P()),
    )


def _on_one_device(layout: Layout, domains: int, vocab: Vocab, students, teacher, labels_N, domain_N):
    count = layout.chunks(len(labels_N))

    def one_chunk(piece):
        hiddens, teacher_hidden, labels, domain = piece
        seen = None if teacher is None else Output(teacher_hidden, teacher.out_DxV)
        seen_view = None if teacher is None else view(vocab, seen)

        def score(model, against):
            return score_batch(vocab, model, against, labels, domain, domains=domains)

        found = []
        for hidden, student in zip(hiddens, students, strict=True):
            of = jax.vmap(score, in_axes=(0, None)) if hidden.ndim == 3 else score
            found.append(of(Output(hidden, student.out_DxV), seen_view))
        return found, None if teacher is None else score(seen, None)

    pieces = (
        [split_tokens(s.hidden_NxD, count, axis=-2) for s in students],
        None if teacher is None else split_tokens(teacher.hidden_NxD, count),
        split_tokens(labels_N, count),
        split_tokens(domain_N, count),
    )
    return layout.sum(jax.tree.map(lambda part: jnp.sum(part, axis=0), jax.lax.map(one_chunk, pieces)))


def score_batch(
    vocab: Vocab, model: Output, teacher: TeacherReference | None, labels_N, domain_N, *, domains: int
) -> Scores:
    """Score one model on some tokens whose logits may all exist at once.

    Args: labels_N: the next tokens. teacher: see `view`. domain_N: each token's domain number, -1 for padding, which
      counts nowhere; domains: how many there are.
    """
    counts_N = (domain_N >= 0).astype(jnp.float32)
    logits = vocab.logits(model)
    q = vocab.softmax(logits)
    label_logit_N, top_N = vocab.label_logit(logits, labels_N), vocab.max(jnp.max(logits, axis=-1))
    ce_N, correct_N = q.log_normaliser - label_logit_N, label_logit_N == top_N
    kl_N = same_N = jnp.zeros(())
    if teacher is not None:
        p = teacher.targets
        kl_N = p.negative_entropy_N - vocab.expect(p.probs_NxV, logits) + q.log_normaliser
        same_N = vocab.label_logit(logits, teacher.choice_N) == top_N
    confidence_N = jnp.exp(top_N - q.log_normaliser)
    bin_N = jnp.clip((confidence_N * CALIBRATION_BINS).astype(jnp.int32), 0, CALIBRATION_BINS - 1)

    def per(index_N, count, value_N):
        mine_NxC = index_N[:, None] == jnp.arange(count)  # compared and summed: on a CPU, a scatter takes far longer
        return jnp.sum(jnp.where(mine_NxC, (counts_N * value_N)[:, None], 0.0), axis=0)

    return Scores(
        tokens_G=per(domain_N, domains, 1.0),
        ce_G=per(domain_N, domains, ce_N),
        kl=jnp.sum(counts_N * kl_N),
        agreement=jnp.sum(counts_N * same_N),
        bin_tokens_K=per(bin_N, CALIBRATION_BINS, 1.0),
        bin_confidence_K=per(bin_N, CALIBRATION_BINS, confidence_N),
        bin_correct_K=per(bin_N, CALIBRATION_BINS, correct_N),
    )


def summarise(scores: Scores) -> dict[str, object]:
    """Means in nats per token from summed scores: ce_nats, kl_nats, agreement, calibration_error, domain_ce_nats
    [G].
    """
    total = Scores(*(np.asarray(part, np.float64) for part in scores))
    tokens = total.tokens_G.sum()
    error = np.abs(total.bin_confidence_K - total.bin_correct_K).sum() / tokens
    return {
        "ce_nats": float(total.ce_G.sum() / tokens),
        "kl_nats": float(total.kl / tokens),
        "agreement": float(total.agreement / tokens),
        "calibration_error": float(error),
        "domain_ce_nats": total.ce_G / np.maximum(total.tokens_G, 1),
        "tokens": int(tokens),
    }
