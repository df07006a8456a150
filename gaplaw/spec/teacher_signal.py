"""How does a teacher's distribution reach its students? Live, or from a cache that one pass of the teacher filled.

A value of every distilled cell: it changes the numbers, so it is part of their identity. After canonical in the walk;
how a cache is made and read is `gaplaw.distill.targets` and `gaplaw.train.cache_files`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from gaplaw.canonical import check_fields, refuse_unless
from gaplaw.methods.protocol import Objective

SignalKind = Literal["live", "topk", "sampled"]
# Temperatures whose tail mass is kept as float16, as it always was: their numbers must stay.
HALF_TAILS = (1.0, 2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class TeacherSignal:
    """What students see of their teacher at each token.

    kind: "live" is everything, from a teacher that runs beside its students. "topk" is its `symbols` likeliest symbols
      and, as one bucket, the mass of all others: no noise, but students are not told how to share the bucket. "sampled"
      is
        `symbols`
      draws from it: unbiased in loss and gradient, with noise; at temperature 1 only, the temperature of the draws.
    """

    kind: SignalKind = "live"
    symbols: int = 0
    VERSION_1: ClassVar = "kind symbols".split()

    def __post_init__(self):
        check_fields(self)
        rule = "must be at least 1 in a cache" if self.cached else "must be 0 for a live teacher, which keeps nothing"
        refuse_unless((self.symbols >= 1) == self.cached, "TeacherSignal.symbols", self.symbols, rule)

    @property
    def cached(self) -> bool:
        return self.kind != "live"

    @property
    def label(self) -> str:
        """live, topk:16 or sampled:16."""
        return f"{self.kind}:{self.symbols}" if self.cached else self.kind

    def token_bytes(self, vocab_size: int, temperatures: tuple[float, ...]) -> int:
        """Bytes that a cache keeps for one token to serve some temperatures: see `gaplaw.distill.targets` for what they
        are.
        """
        id_bytes = next(size for size in (1, 2, 4) if vocab_size <= 2 ** (8 * size))
        tails = sum(2 if heat in HALF_TAILS else 4 for heat in temperatures)
        topk, sampled = self.symbols * (id_bytes + 2) + tails, self.symbols * id_bytes + 2
        return {"live": 0, "topk": topk, "sampled": sampled}[self.kind]

    def refuse_unless_usable(self, where: str, *, objective: Objective, vocab_size: int) -> None:
        """Raises: SpecError when an objective or a vocabulary cannot be served from such a cache."""
        if not self.cached:
            return
        rule = f"must have soft targets, which a {self.label} cache serves"
        refuse_unless(objective.cacheable and objective.needs_teacher, f"{where}: Cell.objective", objective, rule)
        if self.kind == "sampled":
            rule = "must be 1 under sampled teacher signals, which are drawn at temperature 1"
            for temperature in objective.temperatures:
                refuse_unless(temperature == 1, f"{where}: ObjectiveSpec.temperature", temperature, rule)
        else:
            rule = f"must not exceed the vocabulary of {vocab_size}"
            refuse_unless(self.symbols <= vocab_size, f"{where}: TeacherSignal.symbols", self.symbols, rule)


LIVE = TeacherSignal()
