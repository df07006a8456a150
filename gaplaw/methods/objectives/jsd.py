"""Generalised Jensen-Shannon divergence: between forward and reverse KL (Agarwal et al. 2024, GKD, on fixed text)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from gaplaw.canonical import check_fields, refuse_unless
from gaplaw.methods.protocol import Objective, check_soft_weight, check_temperature, with_labels


@dataclass(frozen=True, kw_only=True)
class GeneralizedJSD(Objective):
    """loss = (1 - soft_weight) · CE(labels) + soft_weight · JSD_β(teacher_T, student_T), T = temperature.

    JSD_β(p, q) = β KL(p || m) + (1 - β) KL(q || m) with m = β p + (1 - β) q and 0 < β < 1. It goes to 0 at both ends:
    JSD_β / β → KL(p || q) as β → 0, and JSD_β / (1 - β) → KL(q || p) as β → 1. There is no factor T².
    """

    kind: ClassVar[str] = "jsd"

    beta: float = 0.5
    soft_weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self):
        check_fields(self)
        rule = "must be above 0 and below 1; the ends are ObjectiveSpec (forward KL) and ReverseKL"
        refuse_unless(0 < self.beta < 1, "GeneralizedJSD.beta", self.beta, rule)
        check_soft_weight(self)
        check_temperature(self)

    def token_losses(self, vocab, logits_NxV, teacher, labels_N, state):
        import jax.numpy as jnp

        log_q, log_p = vocab.log_softmax(logits_NxV / self.temperature), teacher.log_probs(self.temperature)
        log_m = jnp.logaddexp(log_p + math.log(self.beta), log_q + math.log1p(-self.beta))
        from_teacher_N = vocab.expect(jnp.exp(log_p), log_p - log_m)
        from_student_N = vocab.expect(jnp.exp(log_q), log_q - log_m)
        divergence_N = self.beta * from_teacher_N + (1 - self.beta) * from_student_N
        return with_labels(self.soft_weight, divergence_N, vocab, logits_NxV, labels_N), {}
