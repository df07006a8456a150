"""What is one cell, and what makes two cells the same science?

Frozen values only: a model shape, a corpus, an objective, a training recipe, a cell made of them, and a sweep of cells. A
cell's `fingerprint` hashes its science (sizes, data, tokenizer, objective, schedule, seed, teacher); how it is executed
(`gaplaw.execution`) is recorded in the results but is not identity. No JAX, no file access.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from gaplaw.canonical import refuse_unless, short_hash, to_dict
from gaplaw.signal import LIVE, TeacherSignal

Block = Literal["gpt2", "llama"]
Init = Literal["scratch", "prune"]
Role = Literal["teacher", "student", "baseline"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The shape of one decoder-only transformer; every array size follows from these fields.

    `heads` and `hidden` hold one number for every layer, or one per layer (pruned models are uneven; 0 skips that half of
    the layer). `kv_group` is the number of query heads that share one key/value head (1 = multi-head attention).
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

    def __post_init__(self):
        refuse_unless(self.block in typing.get_args(Block), "ModelSpec.block", self.block, "must be gpt2 or llama")
        for name in ("vocab_size", "width", "depth", "head_size", "max_length", "kv_group"):
            refuse_unless(getattr(self, name) >= 1, f"ModelSpec.{name}", getattr(self, name), "must be at least 1")
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


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A corpus, its tokenizer and its split; `manifest` is the content hash that `gaplaw.data.resolve` fills in.

    source: "stdlib" (embedded default), "tfds:NAME[/CONFIG]" or "folder:PATH" (.txt, .jsonl, .parquet).
    tokenizer: "bytes" (256 symbols), "bpe:VOCAB" (trained on this corpus) or "file:PATH" (a tokenizer.json).
    """

    source: str = "stdlib"
    tokenizer: str = "bytes"
    sequence_tokens: int = 64
    validation_fraction: float = 0.05
    teacher_fraction: float = 0.0
    validation_tokens: int = 262_144
    split_seed: int = 0
    manifest: str = ""

    def __post_init__(self):
        kinds = ("tfds:", "folder:")
        refuse_unless(
            self.source == "stdlib" or any(self.source.startswith(k) and len(self.source) > len(k) for k in kinds),
            "DataSpec.source",
            self.source,
            "must be 'stdlib', 'tfds:NAME' or 'folder:PATH'",
        )
        kind, _, rest = self.tokenizer.partition(":")
        refuse_unless(
            self.tokenizer == "bytes" or (kind == "bpe" and rest.isdigit()) or (kind == "file" and bool(rest)),
            "DataSpec.tokenizer",
            self.tokenizer,
            "must be 'bytes', 'bpe:VOCAB' or 'file:PATH'",
        )
        refuse_unless(self.sequence_tokens >= 2, "DataSpec.sequence_tokens", self.sequence_tokens, "must be at least 2")
        refuse_unless(self.validation_tokens >= 1, "DataSpec.validation_tokens", self.validation_tokens, "must be >= 1")
        for name in ("validation_fraction", "teacher_fraction"):
            refuse_unless(0 <= getattr(self, name) < 1, f"DataSpec.{name}", getattr(self, name), "must be in [0, 1)")
        refuse_unless(self.validation_fraction > 0, "DataSpec.validation_fraction", 0, "must be above 0")


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """loss = (1 - soft_weight) · CE(labels) + soft_weight · T^(2 if temperature_squared) · KL(teacher_T || student_T).

    Forward KL and soft cross-entropy differ by the teacher's entropy, a constant, so one value serves for both. The
    published 0.5/0.5 recipe (methods: MiniMA) is `ObjectiveSpec(soft_weight=0.5)`; no teacher is `soft_weight=0`.
    """

    soft_weight: float = 1.0
    temperature: float = 1.0
    temperature_squared: bool = True

    def __post_init__(self):
        refuse_unless(0 <= self.soft_weight <= 1, "ObjectiveSpec.soft_weight", self.soft_weight, "must be in [0, 1]")
        refuse_unless(self.temperature > 0, "ObjectiveSpec.temperature", self.temperature, "must be above 0")

    @property
    def soft_scale(self) -> float:
        """The factor in front of the KL term."""
        return self.soft_weight * (self.temperature**2 if self.temperature_squared else 1.0)


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """AdamW with linear warm-up and cosine decay over a token budget; `batch_seed` orders the batches.

    Batches are a function of (batch_seed, step) alone, so cells that share tokens, batch_sequences and batch_seed see the
    same batches whatever their teacher: that is the half of common random numbers which lives in the data.
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

    def __post_init__(self):
        for name in ("tokens", "batch_sequences", "learning_rate", "epsilon", "clip_norm"):
            refuse_unless(getattr(self, name) > 0, f"TrainSpec.{name}", getattr(self, name), "must be above 0")
        for name in ("warmup_fraction", "final_fraction", "beta1", "beta2"):
            refuse_unless(0 <= getattr(self, name) <= 1, f"TrainSpec.{name}", getattr(self, name), "must be in [0, 1]")
        refuse_unless(self.weight_decay >= 0, "TrainSpec.weight_decay", self.weight_decay, "must not be negative")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run: a model trained on data under an objective, with a teacher or (as a teacher or baseline) without.

    init = "prune" cuts the student out of its teacher down to `target_params` non-embedding parameters (within 5 %): `model`
    is then the even shape of that size, for the plan; the shape that the importance ranking found is in the results row.
    split "teacher" reads the documents set aside for teachers. signal: how the teacher's distribution arrives.
    """

    name: str
    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    objective: ObjectiveSpec = field(default_factory=lambda: ObjectiveSpec(soft_weight=0.0))
    teacher: Cell | None = None
    init: Init = "scratch"
    target_params: int | None = None
    seed: int = 0
    split: Literal["train", "teacher"] = "train"
    signal: TeacherSignal = LIVE

    def __post_init__(self):
        refuse_unless(self.init in typing.get_args(Init), "Cell.init", self.init, "must be scratch or prune")
        refuse_unless(
            self.split == "train" or self.data.teacher_fraction > 0,
            f"{self.name}: Cell.split",
            self.split,
            "needs DataSpec.teacher_fraction above 0",
        )
        refuse_unless(
            self.data.sequence_tokens <= self.model.max_length,
            f"{self.name}: DataSpec.sequence_tokens",
            self.data.sequence_tokens,
            f"must not exceed ModelSpec.max_length = {self.model.max_length}",
        )
        refuse_unless(
            self.steps >= 1,
            f"{self.name}: TrainSpec.tokens",
            self.train.tokens,
            f"must hold at least one batch of {self.batch_tokens} tokens",
        )
        soft = self.objective
        self.signal.refuse_unless_usable(
            self.name, temperature=soft.temperature, soft_weight=soft.soft_weight, vocab_size=self.model.vocab_size
        )
        if self.teacher is None:
            weight = soft.soft_weight
            refuse_unless(weight == 0, f"{self.name}: ObjectiveSpec.soft_weight", weight, "must be 0 without a teacher")
            refuse_unless(self.init == "scratch", f"{self.name}: Cell.init", self.init, "needs a teacher")
            return
        refuse_unless(
            self.teacher.model.vocab_size == self.model.vocab_size,
            f"{self.name}: ModelSpec.vocab_size",
            self.model.vocab_size,
            f"must equal its teacher's vocabulary, {self.teacher.model.vocab_size}",
        )
        refuse_unless(
            (self.teacher.data.tokenizer, self.teacher.data.source) == (self.data.tokenizer, self.data.source)
            or (self.teacher.data.tokenizer == self.data.tokenizer and not self.data.tokenizer.startswith("bpe")),
            f"{self.name}: DataSpec.tokenizer",
            self.data.tokenizer,
            f"must be its teacher's tokenizer, {self.teacher.data.tokenizer!r} trained on {self.teacher.data.source!r}",
        )
        refuse_unless(
            (self.init == "prune") == (self.target_params is not None),
            f"{self.name}: Cell.target_params",
            self.target_params,
            "must be given under init = 'prune', and only there",
        )
        if self.init == "prune":
            from gaplaw.sizes import count_params  # sizes follows spec in the walk; only this check looks ahead

            size = count_params(self.teacher.model).non_embedding
            refuse_unless(
                self.target_params < size,
                f"{self.name}: Cell.target_params",
                self.target_params,
                f"must be below the {size} non-embedding parameters of its teacher under init = 'prune'",
            )

    @property
    def batch_tokens(self) -> int:
        return self.train.batch_sequences * self.data.sequence_tokens

    @property
    def steps(self) -> int:
        return self.train.tokens // self.batch_tokens

    @property
    def pair(self) -> str:
        """The pairing key: cells that differ only in their teacher share it, hence initialisation and batches."""
        fields = science(self)
        size = fields["target_params"] or fields["model"]
        return short_hash([size, fields["data"], fields["train"], fields["split"], self.seed])

    @property
    def protocol(self) -> str:
        """How students are made, in words: rows of different protocols never share a fit."""
        soft = self.objective
        words = f"{self.init}|soft={soft.soft_weight:g}|T={soft.temperature:g}"
        words += "" if soft.temperature_squared or soft.temperature == 1 else "|no-T2"
        return words + (f"|{self.signal.label}" if self.signal.cached else "")

    @cached_property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the science fields in canonical JSON."""
        return short_hash(science(self))

    @cached_property
    def id(self) -> str:
        """The readable name of the cell's files: its name and the first half of its fingerprint."""
        return f"{self.name}-{self.fingerprint[:6]}"


def science(cell: Cell) -> dict:
    """The fields of a cell that change its numbers, as plain JSON values (the name and local paths are left out); read only."""
    if not hasattr(cell, "_science"):
        fields = to_dict(cell, without=("name", "teacher"))
        if not cell.signal.cached:  # so that cells from before there were caches keep their identity
            del fields["signal"]
        if cell.data.manifest:  # the content hash replaces the path, which may differ between machines
            fields["data"]["source"] = cell.data.source.partition(":")[0]
            fields["data"]["tokenizer"] = cell.data.tokenizer.partition("file:")[0] or "file"
        fields["teacher"] = science(cell.teacher) if cell.teacher else None
        object.__setattr__(cell, "_science", fields)
    return cell._science
