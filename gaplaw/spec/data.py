"""What text is read, with which tokenizer, and how is it split? No file access: `gaplaw.data` opens it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gaplaw.canonical import check_fields, refuse_unless
from gaplaw.spec.train import check_seed


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A corpus, its tokenizer and its split; `manifest` is the content hash that `gaplaw.data.resolve` fills in.

    source: "stdlib" (embedded default), "tfds:NAME[/CONFIG]" or "folder:PATH" (.txt, .jsonl, .parquet; packed, too).
    tokenizer: "bytes" (256 symbols), "bpe:VOCAB" (trained on this corpus) or "file:PATH" (a tokenizer.json, in which
      `separator` names the special token that ends a document; if None, the first known one).
    """

    source: str = "stdlib"
    tokenizer: str = "bytes"
    sequence_tokens: int = 64
    validation_fraction: float = 0.05
    teacher_fraction: float = 0.0
    validation_tokens: int = 262_144
    split_seed: int = 0
    manifest: str = ""
    separator: str | None = None
    VERSION_1: ClassVar = (
        "source tokenizer sequence_tokens validation_fraction teacher_fraction validation_tokens split_seed manifest"
    ).split()

    def __post_init__(self):
        check_fields(self)
        check_seed("DataSpec.split_seed", self.split_seed)
        kinds = ("tfds:", "folder:")
        refuse_unless(
            self.source == "stdlib" or any(self.source.startswith(k) and len(self.source) > len(k) for k in kinds),
            "DataSpec.source",
            self.source,
            "must be 'stdlib', 'tfds:NAME' or 'folder:PATH'",
        )
        kind, _, rest = self.tokenizer.partition(":")
        refuse_unless(
            self.tokenizer == "bytes"
            or (kind == "bpe" and rest.isascii() and rest.isdigit())
            or (kind == "file" and bool(rest)),
            "DataSpec.tokenizer",
            self.tokenizer,
            "must be 'bytes', 'bpe:VOCAB' or 'file:PATH'",
        )
        refuse_unless(not self.separator or kind == "file", "DataSpec.separator", self.separator, "needs a file:PATH")
        refuse_unless(self.sequence_tokens >= 2, "DataSpec.sequence_tokens", self.sequence_tokens, "must be at least 2")
        refuse_unless(self.validation_tokens >= 1, "DataSpec.validation_tokens", self.validation_tokens, "must be >= 1")
        for name in ("validation_fraction", "teacher_fraction"):
            refuse_unless(0 <= getattr(self, name) < 1, f"DataSpec.{name}", getattr(self, name), "must be in [0, 1)")
        refuse_unless(self.validation_fraction > 0, "DataSpec.validation_fraction", 0, "must be above 0")
