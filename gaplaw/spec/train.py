"""How is a model trained? An optimizer with its schedule, budget and order of batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gaplaw.canonical import check_fields, refuse_unless


def check_seed(where: str, seed: int) -> None:
    """Raises: SpecError unless random keys tell this seed from every other: they read 32 bits."""
    refuse_unless(0 <= seed < 2**32, where, seed, "must be from 0 to 4294967295 (2^32 - 1)")


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """AdamW with linear warm-up and cosine decay over a token budget; `batch_seed` orders the batches.

    A warm-up starts at rate 0 and takes at least one step; at warmup_fraction = 0 the first rate is the peak.
    Batches are a function of (batch_seed, step) alone, so cells that share tokens, batch_sequences and batch_seed see
    the same batches whatever their teacher: that is the half of common random numbers which lives in the data.
    """

    tokens: int
    batch_sequences: int = 64
    learning_rate: float = 3e-3
    warmup_fraction: float = 0.05
    final_fraction: float = 0.0
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float = 1.0
    batch_seed: int = 0
    VERSION_1: ClassVar = (
        "tokens batch_sequences learning_rate warmup_fraction final_fraction weight_decay beta1 beta2 epsilon "
        "clip_norm batch_seed"
    ).split()

    def __post_init__(self):
        check_fields(self)
        check_seed("TrainSpec.batch_seed", self.batch_seed)
        for name in ("tokens", "batch_sequences", "learning_rate", "epsilon", "clip_norm"):
            refuse_unless(getattr(self, name) > 0, f"TrainSpec.{name}", getattr(self, name), "must be above 0")
        for name in ("warmup_fraction", "final_fraction", "beta1", "beta2"):
            refuse_unless(0 <= getattr(self, name) <= 1, f"TrainSpec.{name}", getattr(self, name), "must be in [0, 1]")
        refuse_unless(self.weight_decay >= 0, "TrainSpec.weight_decay", self.weight_decay, "must not be negative")
        rule = "must be at least 2^-126 = 1.2e-38: below, it is 0 in float32"
        refuse_unless(self.learning_rate >= 2**-126, "TrainSpec.learning_rate", self.learning_rate, rule)

    def warmup_steps(self, steps: int) -> int:
        """Steps before the first at the peak: leaves at least one at the peak, where there are two."""
        if self.warmup_fraction == 0:
            return 0
        return min(max(1, round(self.warmup_fraction * steps)), max(1, steps - 1))
