"""Temporally adaptive interpolated distillation: a target that moves to the teacher (Shing et al. 2025, TAID)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gaplaw.canonical import check_fields, refuse_unless
from gaplaw.methods.protocol import Objective


@dataclass(frozen=True, kw_only=True)
class TAID(Objective):
    """loss = KL(p_t || student) with p_t = softmax((1 - t) · student's logits + t · teacher's logits), no gradient in
    p_t.

    After each step, with J the mean cross-entropy of p_t and the student, n of N steps done:
    d = (J_before - J) / (J_before + 1e-15), m ← momentum · m + (1 - momentum) · d,
    t ← min(end, max(start + (end - start) · n / N, t + rate · sigmoid(m) · (1 - t))); the first step only keeps J.
    The target moves, so the loss of two steps cannot be compared; validation measures the labels and the real teacher.
    """

    kind: ClassVar[str] = "taid"
    measures: ClassVar[tuple[str, ...]] = ("taid_cross_entropy_nats",)

    start: float = 0.4
    end: float = 1.0
    rate: float = 5e-4
    momentum: float = 0.99

    def __post_init__(self):
        check_fields(self)
        rule = "must satisfy 0 <= start <= end <= 1"
        refuse_unless(0 <= self.start <= self.end <= 1, "TAID.start, end", (self.start, self.end), rule)
        refuse_unless(self.rate >= 0, "TAID.rate", self.rate, "must not be negative")
        refuse_unless(0 <= self.momentum < 1, "TAID.momentum", self.momentum, "must be in [0, 1)")

    def initial_state(self) -> dict[str, float]:
        return {"t": self.start, "before_nats": float("inf"), "trend": 0.0}

    def token_losses(self, vocab, logits_NxV, teacher, labels_N, state):
        import jax
        import jax.numpy as jnp

        mixed_NxV = (1 - state["t"]) * jax.lax.stop_gradient(logits_NxV) + state["t"] * teacher.logits()
        log_p, log_q = vocab.log_softmax(mixed_NxV), vocab.log_softmax(logits_NxV)
        p = jnp.exp(log_p)
        return vocab.expect(p, log_p - log_q), {"taid_cross_entropy_nats": -vocab.expect(p, log_q)}

    def next_state(self, state: dict, means: dict, progress) -> dict:
        import jax
        import jax.numpy as jnp

        now, before = means["taid_cross_entropy_nats"], state["before_nats"]
        first = jnp.isinf(before)
        fall = jnp.where(first, 0.0, (before - now) / (jnp.where(first, 1.0, before) + 1e-15))
        trend = self.momentum * state["trend"] + (1 - self.momentum) * fall
        moved = state["t"] + self.rate * jax.nn.sigmoid(trend) * (1 - state["t"])
        line = self.start + (self.end - self.start) * progress
        t = jnp.where(first, state["t"], jnp.minimum(self.end, jnp.maximum(line, moved)))
        return {"t": t, "before_nats": now, "trend": jnp.where(first, state["trend"], trend)}
