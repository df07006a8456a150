"""What does a chunk of tokens see of its teacher? Its logits, what a cache kept of it, or targets made beforehand.

Whatever is computed of a teacher is computed once in a chunk, for all students (`gaplaw.methods.protocol.TeacherView`).
"""

from __future__ import annotations

from functools import cache, cached_property

import jax

from gaplaw.distill.targets import Kept, Targets, targets_of, unpacked
from gaplaw.distill.vocab import Output, Vocab
from gaplaw.errors import SignalError

TeacherInput = Output | Kept | Targets | None  # of a teacher itself, of a cache, made beforehand, or without a teacher


class LiveView:
    """A teacher's own outputs on some tokens."""

    def __init__(self, vocab: Vocab, teacher: Output):
        self._vocab, self._teacher = vocab, teacher
        self.log_probs = cache(self._log_probs)
        self.targets = cache(self._targets)

    @cached_property
    def _logits(self) -> jax.Array:
        return self._vocab.logits(self._teacher)

    def logits(self) -> jax.Array:
        return self._logits

    def _log_probs(self, temperature: float = 1.0) -> jax.Array:
        return self._vocab.log_softmax(self._logits / temperature)

    def _targets(self, temperature: float) -> Targets:
        return targets_of(self._vocab, self._logits, temperature)


class TargetsView:
    """Targets alone: from a cache, or made beforehand. There are no logits."""

    def __init__(self, targets):
        self.targets = targets

    def logits(self):
        raise SignalError("a teacher cache keeps no logits; the objective needs a live teacher")

    def log_probs(self, temperature: float = 1.0):
        return self.logits()


def view_of(vocab: Vocab, teacher: TeacherInput, columns: int) -> LiveView | TargetsView | None:
    """What students see of a teacher on some tokens; `columns` symbols of the vocabulary are held here."""
    if teacher is None:
        return None
    if isinstance(teacher, Output):
        return LiveView(vocab, teacher)
    if isinstance(teacher, Targets):
        return TargetsView(lambda temperature: teacher)
    return TargetsView(cache(lambda temperature: unpacked(vocab, teacher, columns, temperature)))
