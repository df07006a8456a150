"""How good is a student, and how close to its teacher? Sums over tokens, so that batches, domains and hosts simply add.

Uses the softmax and label pieces of the objective that trained it, so what is optimised and what is reported cannot drift.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gaplaw.distill.objective import Output, label_logit, logits_of, softmax

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


def score_batch(model: Output, teacher: Output | None, labels_N, domain_N, *, domains: int) -> Scores:
    """Score one batch. Args: as in `objective_losses`; domain_N holds each token's domain number below `domains`."""
    logits = logits_of(model)
    q = softmax(logits)
    ce_N = q.log_normaliser - label_logit(logits, labels_N)
    choice_N = jnp.argmax(logits, axis=-1)
    kl = agreement = jnp.zeros(())
    if teacher is not None:
        teacher_logits = logits_of(teacher)
        p = softmax(teacher_logits)
        kl_N = jnp.sum(p.probs * (teacher_logits - logits), axis=-1) - p.log_normaliser + q.log_normaliser
        kl, agreement = jnp.sum(kl_N), jnp.sum(choice_N == jnp.argmax(teacher_logits, axis=-1), dtype=jnp.float32)
    confidence_N = jnp.max(q.probs, axis=-1)
    bin_N = jnp.clip((confidence_N * CALIBRATION_BINS).astype(jnp.int32), 0, CALIBRATION_BINS - 1)

    def per(index_N, count, value_N):
        return jnp.zeros(count, jnp.float32).at[index_N].add(value_N)

    return Scores(
        tokens_G=per(domain_N, domains, 1.0),
        ce_G=per(domain_N, domains, ce_N),
        kl=kl,
        agreement=agreement,
        bin_tokens_K=per(bin_N, CALIBRATION_BINS, 1.0),
        bin_confidence_K=per(bin_N, CALIBRATION_BINS, confidence_N),
        bin_correct_K=per(bin_N, CALIBRATION_BINS, (choice_N == labels_N).astype(jnp.float32)),
    )


def summarise(scores: Scores) -> dict[str, object]:
    """Means in nats per token from summed scores: ce_nats, kl_nats, agreement, calibration_error, domain_ce_nats [G]."""
    import numpy as np

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
