"""What does the published 7B to 3B distillation cost, and on which slice does it fit?

Question   The extrapolation run of the law of capacity gap (MiniMA-3B, Zhang et al., ACL 2025): a 3B student of Llama-2
           7B. Does gaplaw's program fit a TPU slice, and what are its FLOPs, hours and memory?
Command    gaplaw plan experiments/minima_3b.py --target v5p:4x4x8
Forecast   27 November 2026, jax 0.10.2, libtpu 0.0.42 (least effort), 128 × v5p, fsdp 128: the student's program takes
           49.2 GB of 102 GB a chip and 4.52e21 FLOPs, at least 25 h 20 min (3,240 chip-hours), bound by compute;
           training the teacher would take 69.8 GB a chip and at least 578 h 33 min (74,100 chip-hours). Compiled, never
           run: docs/forecast.md.
Published  In the authors' code: student shape, 4,096-token sequences × 1,024, halves of labels and teacher at
           temperature 1, AdamW (0.9, 0.95, 1e-8), decay 0.1, rate 3e-4, cosine, warm-up 1 %, clipping at 1, seed 776,
           vocabulary of 32,000 for the size. As reported second-hand: 126B tokens of Pile, GitHub and WuDao, mixed in
           shares that are not published.
Ours       C4 stands in for the data. The student has the published shape but starts from scratch: the authors cut
           layers and widths of the teacher by rule, gaplaw's pruning ranks them. The teacher is a cell of the sweep: 2T
           tokens follow from its published compute; its batch and rate are the student's.
"""

from gaplaw.spec import DataSpec, Execution, ModelSpec, ObjectiveSpec, Sweep, TrainSpec
from gaplaw.spec.sizes import LLAMA2_7B

SEQUENCE_TOKENS, BATCH_SEQUENCES = 4096, 1024

MINIMA_3B = ModelSpec(
    vocab_size=32000,
    width=3072,
    depth=24,
    heads=24,
    head_size=128,
    hidden=8192,
    max_length=SEQUENCE_TOKENS,
    tied=False,
)


def recipe(tokens: int) -> TrainSpec:
    return TrainSpec(
        tokens=tokens,
        batch_sequences=BATCH_SEQUENCES,
        learning_rate=3e-4,
        warmup_fraction=0.01,
        weight_decay=0.1,
        beta1=0.9,
        beta2=0.95,
        epsilon=1e-8,
        clip_norm=1.0,
    )


sweep = Sweep.grid(
    name="minima_3b",
    question="What does the published 7B to 3B distillation cost, and where does it fit?",
    data=DataSpec(source="tfds:c4/en", tokenizer="file:llama2/tokenizer.json", sequence_tokens=SEQUENCE_TOKENS),
    teachers=[LLAMA2_7B],
    students=[MINIMA_3B],
    teacher_train=recipe(2_000_000_000_000),
    student_train=recipe(126_000_000_000),
    objective=ObjectiveSpec(soft_weight=0.5),
    seeds=(776,),
    baseline=False,
)

execution = Execution(
    compute_dtype="bfloat16",
    teacher_dtype="bfloat16",
    scan_layers=True,
    remat="full",
    steps_per_dispatch=8,
    checkpoint_seconds=1800,
)
