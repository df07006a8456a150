"""Which Pythia-sized teacher is best for a small student, when the student is cut from it and when it starts from
scratch?

Question   The pilot study of the law of capacity gap (Zhang et al., ACL 2025) in Pythia's sizes: students pruned from
           their teachers, and the same sizes from scratch, which the pilot did not have.
Command    gaplaw run experiments/pythia_pilot.py --out runs/pythia_pilot --mesh.fsdp 16
Forecast   27 November 2026, jax 0.10.2, libtpu 0.0.42 (least effort), v5e:4x4, fsdp 16: 83 cells in 24 groups, each
           program compiled; 5.50e20 FLOPs, at least 100 h 02 min (1,600 chip-hours), students and small teachers bound
           by memory bandwidth, the teachers of 1B and more by compute. The largest program, nine students of the 1B
           teacher, takes 95 % of a chip's 17.2 GB, the 2.8B teacher 86 %. In four microbatches instead of eight, five
           programs did not fit, by up to 24 %. Compiled, never run.
Known      As reported second-hand: a Pythia family of "70M to 2.8B", students by structured pruning, OpenWebText, equal
           halves of labels and teacher at temperature 1. Not published, or not found: which checkpoints between the
           ends, student sizes, tokens, batch and learning rate. Those below are ours, and so is C4 in place of
           OpenWebText.
Teachers   are cells of the sweep, trained here from scratch. Widths, depths and heads are Pythia's, from general
           knowledge of its model cards, not re-checked; the block is gaplaw's gpt2 (no rotary positions, no parallel
           attention and feed-forward), so these are Pythia's sizes and not its architecture.
"""

from gaplaw.spec import DataSpec, Execution, ModelSpec, ObjectiveSpec, Sweep, TrainSpec
from gaplaw.spec.sizes import model_for

SEQUENCE_TOKENS, VOCAB = 2048, 50304


def pythia(width: int, depth: int, heads: int) -> ModelSpec:
    return ModelSpec(
        block="gpt2",
        vocab_size=VOCAB,
        width=width,
        depth=depth,
        heads=heads,
        head_size=width // heads,
        hidden=4 * width,
        max_length=SEQUENCE_TOKENS,
        tied=False,
    )


# 70M, 160M, 410M, 1B, 1.4B and 2.8B
TEACHERS = [
    pythia(512, 6, 8),
    pythia(768, 12, 12),
    pythia(1024, 24, 16),
    pythia(2048, 16, 8),
    pythia(2048, 24, 16),
    pythia(2560, 32, 32),
]


def recipe(tokens: int) -> TrainSpec:
    return TrainSpec(tokens=tokens, batch_sequences=512, learning_rate=6e-4, warmup_fraction=0.01, final_fraction=0.1)


def student(size: str) -> ModelSpec:
    return model_for(size, block="gpt2", vocab_size=VOCAB, max_length=SEQUENCE_TOKENS, tied=False)


sweep = Sweep.grid(
    name="pythia_pilot",
    question="Which teacher of Pythia's sizes is best for a student cut from it, and which for one from scratch?",
    data=DataSpec(source="tfds:c4/en", tokenizer="file:pythia/tokenizer.json", sequence_tokens=SEQUENCE_TOKENS),
    teachers=TEACHERS,
    students=[student(size) for size in ("15M", "40M", "80M")],
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
    accumulate=8,
    steps_per_dispatch=32,
    checkpoint_seconds=600,
)
