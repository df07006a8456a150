"""What is one cell?

A frozen value: a model's shape, a corpus, an objective, a training recipe and a teacher. Its `fingerprint` hashes its
science (`gaplaw.spec.identity`: sizes, data, tokenizer, objective, schedule, seed, teacher); how it is executed
(`gaplaw.spec.execution`) is recorded in the results but is not identity. No JAX, no file access.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from functools import cached_property

from gaplaw.canonical import check_fields, label, refuse_unless, short_hash, text_hash
from gaplaw.files import NAME_RULE, is_plain_name
from gaplaw.methods.objectives import AnyObjective, ObjectiveSpec
from gaplaw.spec.data import DataSpec
from gaplaw.spec.identity import science, science_json
from gaplaw.spec.model import ModelSpec
from gaplaw.spec.sizes import count_params
from gaplaw.spec.teacher_signal import LIVE, TeacherSignal
from gaplaw.spec.train import TrainSpec, check_seed

Init = typing.Literal["scratch", "prune"]
Role = typing.Literal["teacher", "assistant", "student", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run: a model trained on data under an objective, with a teacher or (as a teacher or baseline) without.

    init = "prune" cuts the student out of its teacher down to `target_params` non-embedding parameters (within 5 %):
    `model` is then the even shape of that size, for the plan; the shape that the importance ranking found is in the
    results row. split "teacher" reads the documents set aside for teachers. signal: how the teacher's distribution
    arrives.
    """

    name: str
    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    objective: AnyObjective = field(default_factory=lambda: ObjectiveSpec(soft_weight=0.0))
    teacher: Cell | None = None
    init: Init = "scratch"
    target_params: int | None = None
    seed: int = 0
    split: typing.Literal["train", "teacher"] = "train"
    signal: TeacherSignal = LIVE
    VERSION_1: typing.ClassVar = "name model data train objective teacher init target_params seed split".split()

    def __post_init__(self):
        check_fields(self)
        refuse_unless(is_plain_name(self.name), "Cell.name", self.name, NAME_RULE)
        check_seed(f"{self.name}: Cell.seed", self.seed)
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
        refuse_unless(
            self.train.warmup_steps(self.steps) < self.steps,
            f"{self.name}: TrainSpec.warmup_fraction",
            self.train.warmup_fraction,
            "must be 0 in a run of one step, whose rate would never leave 0",
        )
        self.signal.refuse_unless_usable(self.name, objective=self.objective, vocab_size=self.model.vocab_size)
        if self.teacher is None:
            rule = "needs a teacher; without one it must be ObjectiveSpec(soft_weight=0)"
            refuse_unless(not self.objective.needs_teacher, f"{self.name}: Cell.objective", self.objective, rule)
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
            refuse_unless(
                self.seed == self.train.batch_seed,
                f"{self.name}: Cell.seed",
                self.seed,
                f"must equal TrainSpec.batch_seed = {self.train.batch_seed} under init = 'prune': a seed then only "
                "orders batches",
            )
            size = count_params(self.teacher.model).non_embedding
            refuse_unless(
                self.target_params < size,
                f"{self.name}: Cell.target_params",
                self.target_params,
                f"must be below the {size} non-embedding parameters of its teacher under init = 'prune'",
            )

    @property
    def ancestors(self) -> tuple[Cell, ...]:
        """Its teacher, the teacher of that one (where it is an assistant), and so on."""
        return (self.teacher, *self.teacher.ancestors) if self.teacher else ()

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
        """How students are made, in words: rows of different protocols never share a fit.

        The label of the cell itself says what came after version 1: the teacher's signal.
        """
        return "|".join(filter(None, [self.init, label(self.objective), label(self), label(self.model)]))

    @cached_property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the science fields in canonical JSON."""
        return text_hash(science_json(self))

    @cached_property
    def id(self) -> str:
        """The readable name of the cell's files: its name and the first half of its fingerprint."""
        return f"{self.name}-{self.fingerprint[:6]}"
