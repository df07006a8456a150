"""What does the training step ask of an objective?

An objective says what one token loses, and nothing of chunks, meshes or other students: the engine (`gaplaw.distill`)
cuts tokens into chunks, spreads them and the vocabulary over devices, sums, and differentiates each chunk before the
next one starts. No gradient has to be written; an objective that knows a faster one may give it.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from gaplaw.canonical import refuse_unless


class TeacherView(Protocol):
    """What a chunk of tokens sees of its teacher, live or from a cache."""

    def logits(self):
        """The teacher's logits, [N, V] in float32. Raises: SignalError from a cache, which has none."""

    def log_probs(self, temperature: float = 1.0):
        """log softmax(logits / temperature), [N, V] in float32. Raises: SignalError from a cache, which has none."""

    def targets(self, temperature: float):
        """`gaplaw.distill.targets.Targets` at a temperature, made once for all students of the chunk."""


class Objective:
    """Base of every objective: a frozen dataclass with numbers as fields; only `token_losses` must be written.

    kind: the name that stands in JSON, tables and protocols; the first objective, `kd`, has none (`gaplaw.canonical`).
    measures: names of what `token_losses` measures beside the loss; columns `measure_NAME`.
    cacheable: whether a teacher cache (`TeacherSignal` other than live) can serve it: it then asks for `targets` only.
    cpu_path: whether the fast way through a step on one CPU core may run it: it then asks for `targets` at one
      temperature, measures nothing and has no state.
    """

    kind: ClassVar[str]
    measures: ClassVar[tuple[str, ...]] = ()
    cacheable: ClassVar[bool] = False
    cpu_path: ClassVar[bool] = False

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperatures at which it asks for `targets`; empty for one that reads logits or needs no teacher."""
        return ()

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher's forward pass, or what a cache holds of it, is read at all."""
        return True

    def initial_state(self) -> dict[str, float]:
        """Numbers that each student carries from step to step; they are checkpointed, never exported."""
        return {}

    def token_losses(self, vocab, logits_NxV, teacher: TeacherView, labels_N, state: dict):
        """What each token loses, in nats.

        Args:
          vocab: `gaplaw.distill.Vocab`: sums and softmaxes over the vocabulary, whole or spread over devices.
          logits_NxV: the student's, float32; under a spread vocabulary, the columns that are held here.
          teacher: what is seen of the teacher; None without one.
          labels_N: the next tokens.
          state: see `initial_state`; no gradient flows through it.
        Returns: (loss_N, {measure: value_N}), with the names of `measures`.
        """
        raise NotImplementedError

    def losses_and_grads(self, vocab, logits_SxNxV, teacher: TeacherView, labels_N):
        """A gradient written by hand, for logits with or without a stack's leading axis; None: it is derived.

        Returns: (loss summed over tokens [(S,)], its gradient with respect to the logits [(S,) N, V]).
        """
        return None

    def next_state(self, state: dict, means: dict, progress) -> dict:
        """The state after a step. means: of the loss ("loss") and of each measure. progress: in (0, 1]."""
        return state


def with_labels(soft_weight: float, divergence_N, vocab, logits_NxV, labels_N):
    """(1 - soft_weight) · CE(labels) + soft_weight · divergence, nats for each token."""
    if soft_weight == 1:
        return divergence_N
    hard_N = vocab.softmax(logits_NxV).log_normaliser - vocab.label_logit(logits_NxV, labels_N)
    return (1 - soft_weight) * hard_N + soft_weight * divergence_N


def check_soft_weight(objective) -> None:
    """Raises: SpecError unless the share of the divergence is above 0 and at most 1."""
    name, value = f"{type(objective).__name__}.soft_weight", objective.soft_weight
    refuse_unless(0 < value <= 1, name, value, "must be above 0 and at most 1")


def check_temperature(objective) -> None:
    """Raises: SpecError unless a temperature is one at which float32 keeps the gradient's digits."""
    name, value = f"{type(objective).__name__}.temperature", objective.temperature
    refuse_unless(value > 0, name, value, "must be above 0")
    rule = "must be at most 1e5: above, float32 keeps less than two digits of the gradient"
    refuse_unless(value <= 1e5, name, value, rule)
