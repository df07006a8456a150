"""Which GPT-2 teacher is best for a small student, when the student is cut from it and when it starts from scratch?

Question   The pilot study of the law of capacity gap (Zhang et al., ACL 2025) in GPT-2: students pruned from their
           teachers, and the same sizes from scratch, which the pilot did not have.
Command    gaplaw run experiments/gpt2_pilot.py --out runs/gpt2_pilot --mesh.fsdp 16
Forecast   27 November 2026, jax 0.10.2, libtpu 0.0.42 (least effort), v5e:4x4, fsdp 16: 61 cells in 18 groups, each
           program compiled; 3.03e20 FLOPs, at least 60 h 06 min (962 chip-hours), every cell bound by memory bandwidth.
           The largest program, nine students of the 1.5B teacher, takes 89 % of a chip's 17.2 GB; the 1.5B teacher
           itself 51 %, at least 14 h 13 min (228 chip-hours). Compiled, never run.
Known      As reported second-hand: a GPT-2 family of "140M to 1.6B", students by structured pruning, OpenWebText, equal
           halves of labels and teacher at temperature 1. Not published, or not found: which checkpoints between the
           ends, student sizes, tokens, batch and learning rate. Those below are ours, and so is C4 in place of
           OpenWebText.
Teachers   are cells of the sweep, trained here from scratch: no published checkpoint is read.
"""

from gaplaw.spec import DataSpec, Execution, ModelSpec, ObjectiveSpec, Sweep, TrainSpec
from gaplaw.spec.sizes import GPT2_LARGE, GPT2_MEDIUM, GPT2_SMALL, GPT2_XL, model_for

SEQUENCE_TOKENS = 1024


def recipe(tokens: int) -> TrainSpec:
    return TrainSpec(tokens=tokens, batch_sequences=512, learning_rate=6e-4, warmup_fraction=0.01, final_fraction=0.1)


def student(size: str) -> ModelSpec:
    return model_for(size, block="gpt2", vocab_size=GPT2_SMALL.vocab_size, max_length=SEQUENCE_TOKENS)


sweep = Sweep.grid(
    name="gpt2_pilot",
    question="Which GPT-2 teacher is best for a student cut from it, and which for one from scratch?",
    data=DataSpec(source="tfds:c4/en", tokenizer="file:gpt2/tokenizer.json", sequence_tokens=SEQUENCE_TOKENS),
    teachers=(GPT2_SMALL, GPT2_MEDIUM, GPT2_LARGE, GPT2_XL),
    students=[student(size) for size in ("30M", "50M", "80M")],
    teacher_train=recipe(10_000_000_000),
    student_train=recipe(2_500_000_000),
    objective=ObjectiveSpec(soft_weight=0.5),
    seeds=(0, 1),
    init=("prune", "scratch"),
)

execution = Execution(
    compute_dtype="bfloat16",
    teacher_dtype="bfloat16",
    scan_layers=True,
    remat="full",
    accumulate=4,
    steps_per_dispatch=32,
    checkpoint_seconds=600,
)
