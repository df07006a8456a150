"""Reverse KL: the student avoids what its teacher thinks unlikely (Gu et al. 2024, MiniLLM, without its sampling)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gaplaw.canonical import check_fields
from gaplaw.methods.protocol import Objective, check_soft_weight, check_temperature, with_labels


@dataclass(frozen=True, kw_only=True)
class ReverseKL(Objective):
    """loss = (1 - soft_weight) · CE(labels) + soft_weight · KL(student_T || teacher_T), T = temperature.

    There is no factor T².
    """

    kind: ClassVar[str] = "reverse_kl"

    soft_weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self):
        check_fields(self)
        check_soft_weight(self)
        check_temperature(self)

    def token_losses(self, vocab, logits_NxV, teacher, labels_N, state):
        import jax.numpy as jnp

        log_q, log_p = vocab.log_softmax(logits_NxV / self.temperature), teacher.log_probs(self.temperature)
        divergence_N = vocab.expect(jnp.exp(log_q), log_q - log_p)
        return with_labels(self.soft_weight, divergence_N, vocab, logits_NxV, labels_N), {}
