"""What is the shape of one model? Every array size follows from these fields. No JAX, no file access."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from gaplaw.canonical import check_fields, refuse_unless

Block = Literal["gpt2", "llama"]
DEEPEST = 100_000


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The shape of one decoder-only transformer; every array size follows from these fields.

    `heads` and `hidden` hold one number for every layer, or one per layer (pruned models are uneven; 0 skips that half
    of the layer). `kv_group` is the number of query heads that share one key/value head (1 = multi-head attention).
    """

    block: Block = "llama"
    vocab_size: int
    width: int
    depth: int
    heads: int | tuple[int, ...]
    head_size: int
    hidden: int | tuple[int, ...]
    max_length: int
    kv_group: int = 1
    tied: bool = True
    VERSION_1: ClassVar = "block vocab_size width depth heads head_size hidden max_length kv_group tied".split()

    def __post_init__(self):
        check_fields(self)
        for name in ("vocab_size", "width", "depth", "head_size", "max_length", "kv_group"):
            refuse_unless(getattr(self, name) >= 1, f"ModelSpec.{name}", getattr(self, name), "must be at least 1")
        refuse_unless(self.depth <= DEEPEST, "ModelSpec.depth", self.depth, f"must be at most {DEEPEST}")
        for name in ("heads", "hidden"):
            value = getattr(self, name)
            refuse_unless(
                isinstance(value, int) or len(value) == self.depth,
                f"ModelSpec.{name}",
                value,
                f"must be one number or one per layer (depth = {self.depth})",
            )
            refuse_unless(min(self._per_layer(value)) >= 0, f"ModelSpec.{name}", value, "must not be negative")
        refuse_unless(
            all(heads % self.kv_group == 0 for heads in self.heads_by_layer),
            "ModelSpec.heads",
            self.heads,
            f"must be a multiple of kv_group = {self.kv_group} in every layer",
        )
        refuse_unless(
            self.block == "gpt2" or self.head_size % 2 == 0,
            "ModelSpec.head_size",
            self.head_size,
            "must be even under rotary positions (block llama)",
        )

    def _per_layer(self, value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value,) * self.depth if isinstance(value, int) else tuple(value)

    @property
    def heads_by_layer(self) -> tuple[int, ...]:
        return self._per_layer(self.heads)

    @property
    def hidden_by_layer(self) -> tuple[int, ...]:
        return self._per_layer(self.hidden)

    @property
    def uniform(self) -> bool:
        """True when every layer has the same shape, so that layers can be stacked and scanned."""
        return len(set(self.heads_by_layer)) == 1 and len(set(self.hidden_by_layer)) == 1
