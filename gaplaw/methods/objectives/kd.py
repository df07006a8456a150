"""Knowledge distillation: labels and the teacher's soft targets, mixed (Hinton, Vinyals, Dean 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gaplaw.canonical import check_fields, refuse_unless
from gaplaw.methods.protocol import Objective, check_temperature

# Above this temperature KL is summed from differences of p and q: entropies, which are nearly equal there, and T² would
# leave errors of 1e-5 at temperature 10, of 1e-1 at 1000. Up to it the entropies cost less, and the teacher's serves
# all students.
ALIKE_ABOVE = 4.0
SMALLEST = 1e-30  # of a kept symbol's probability and of a tail's: 0 in `probs_NxV` means "in the tail"


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec(Objective):
    """loss = (1 - soft_weight) · CE(labels) + soft_weight · T^(2 if temperature_squared) · KL(teacher_T || student_T).

    Forward KL and soft cross-entropy differ by the teacher's entropy, a constant, so one value serves for both. The
    published 0.5/0.5 recipe (methods: MiniMA) is `ObjectiveSpec(soft_weight=0.5)`; no teacher is `soft_weight=0`.
    """

    cacheable: ClassVar[bool] = True
    cpu_path: ClassVar[bool] = True

    soft_weight: float = 1.0
    temperature: float = 1.0
    temperature_squared: bool = True
    VERSION_1: ClassVar = "soft_weight temperature temperature_squared".split()

    def __post_init__(self):
        check_fields(self)
        refuse_unless(0 <= self.soft_weight <= 1, "ObjectiveSpec.soft_weight", self.soft_weight, "must be in [0, 1]")
        check_temperature(self)

    @property
    def soft_scale(self) -> float:
        """The factor in front of the KL term."""
        return self.soft_weight * (self.temperature**2 if self.temperature_squared else 1.0)

    @property
    def needs_teacher(self) -> bool:
        return self.soft_weight > 0

    @property
    def temperatures(self) -> tuple[float, ...]:
        return (float(self.temperature),) if self.needs_teacher else ()

    @property
    def label(self) -> str:
        """soft=0.5|T=2, and no-T2 where the factor is absent and matters."""
        unsquared = not self.temperature_squared and self.temperature != 1
        return f"soft={self.soft_weight:g}|T={self.temperature:g}" + ("|no-T2" if unsquared else "")

    def token_losses(self, vocab, logits_NxV, teacher, labels_N, state):
        """The definition; `losses_and_grads` gives the same numbers, and the property suite holds them together."""
        import jax.numpy as jnp

        loss_N = jnp.zeros(())
        if self.soft_weight < 1:
            q = vocab.softmax(logits_NxV)
            loss_N += (1 - self.soft_weight) * (q.log_normaliser - vocab.label_logit(logits_NxV, labels_N))
        if self.needs_teacher:
            kl_N, _ = _kl_and_grad(self.temperature, vocab, logits_NxV, teacher.targets(self.temperature))
            loss_N += self.soft_scale * kl_N
        return loss_N, {}

    def losses_and_grads(self, vocab, logits_SxNxV, teacher, labels_N):
        import jax.numpy as jnp

        logits = logits_SxNxV
        loss, grad = 0.0, 0.0
        if self.soft_weight < 1:
            q = vocab.softmax(logits)
            hard = 1 - self.soft_weight
            loss += hard * jnp.sum(q.log_normaliser - vocab.label_logit(logits, labels_N), axis=-1)
            grad += hard * (q.probs - vocab.is_label(logits, labels_N))
        if self.needs_teacher:
            kl_N, soft_grad = _kl_and_grad(self.temperature, vocab, logits, teacher.targets(self.temperature))
            loss += self.soft_scale * jnp.sum(kl_N, axis=-1)
            grad += self.soft_scale / self.temperature * soft_grad
        return loss, grad


def _kl_and_grad(temperature: float, vocab, logits, p):
    """KL(p || softmax(logits / T)) of every token [(S,) N], and its gradient with respect to logits / T."""
    import jax.numpy as jnp

    q = vocab.softmax(logits / temperature)
    target, alike = p.probs_NxV, temperature > ALIKE_ABOVE
    if alike:
        parts = _divergence(target, q.probs, logits / temperature - q.log_normaliser[..., None])
    else:  # KL = Σ p log p − Σ p z/T + log Σ exp z/T: the teacher's part was summed once for all students
        kl_N = p.negative_entropy_N - vocab.expect(p.probs_NxV, logits) / temperature + q.log_normaliser
    if p.tail_N is not None:  # one bucket of mass: the student learns its share, not how to divide it
        outside = target == 0
        tail_N = vocab.sum(jnp.sum(jnp.where(outside, q.probs, 0.0), axis=-1))
        tail_N = jnp.maximum(tail_N, SMALLEST)
        if alike:
            parts = jnp.where(outside, 0.0, parts)
        else:
            kl_N -= p.tail_N * (q.log_normaliser + jnp.log(tail_N))
        target = jnp.where(outside, q.probs * (p.tail_N / tail_N)[..., None], target)
    if alike:
        kl_N = vocab.sum(jnp.sum(parts, axis=-1))
        kl_N += 0.0 if p.tail_N is None else _divergence(p.tail_N, tail_N, jnp.log(tail_N))
    return kl_N, q.probs - target


def _divergence(p, q, log_q):
    """p log(p/q) + q − p: KL, summed over distributions. Never below 0, and keeps its digits where p and q are alike.

    With x = q/p − 1 it is p (x − log(1 + x)), a series where x is small.
    """
    import jax.numpy as jnp

    x = (q - p) / p
    series = 1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x * (1 / 6 - x * (1 / 7 - x / 8)))))
    far = p * (jnp.log(jnp.maximum(p, SMALLEST)) - log_q) + q - p
    return jnp.where(jnp.abs(q - p) < p / 8, p * x**2 * series, far)
