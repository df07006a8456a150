"""Does a capacity gap show up in minutes, on text that every Python machine has?

Question   Students of 0.9k, 1.5k and 3.5k non-embedding parameters, distilled at temperature 3: is there a best teacher
           size, and does it grow with the student?
Command    gaplaw run experiments/quickstart.py --out runs/quickstart      (or `make quickstart`, which also fits and
           reports)
Hardware   2 CPU cores, no accelerator
Cost       79 cells, 1.7e13 FLOPs, 9 min 25 s (single run, with four evaluations a group)
Answer     Yes, at temperature 3: best teachers 1.3k (90 %: 1.0k to 1.8k), 2.0k (1.6k to 2.7k) and 3.9k (3.0k to 5.4k),
           all inside the grid; T* = 5.7·S^0.80, exponent 0.66 to 0.97. Every student does better without a teacher (by
           0.06, 0.09 and 0.11 nats). The temperature was searched for (1, 2, 3, 4): it is the one whose bowl is
           clearest, and at 1 there is no gap. See LOG.md.
"""

from gaplaw.spec import DataSpec, Execution, ModelSpec, ObjectiveSpec, Sweep, TrainSpec

SEQUENCE_TOKENS, BATCH_SEQUENCES = 64, 32


def llama(width: int) -> ModelSpec:
    """Two layers, one head, SwiGLU at 8/3 of the width: 24·width² parameters or so outside the embeddings."""
    hidden = 4 * round(8 * width / 12)
    return ModelSpec(
        vocab_size=256,
        width=width,
        depth=2,
        heads=1,
        head_size=width,
        hidden=hidden,
        max_length=SEQUENCE_TOKENS,
        tied=False,
    )


def recipe(steps: int, learning_rate: float) -> TrainSpec:
    return TrainSpec(
        tokens=steps * BATCH_SEQUENCES * SEQUENCE_TOKENS,
        batch_sequences=BATCH_SEQUENCES,
        learning_rate=learning_rate,
        weight_decay=0.0,
        beta2=0.99,
    )


sweep = Sweep.grid(
    name="quickstart",
    question="Is there a best teacher size at temperature 3, and does it grow with the student?",
    data=DataSpec(sequence_tokens=SEQUENCE_TOKENS),
    teachers=[llama(width) for width in (4, 6, 8, 12, 16, 24, 32)],
    students=[llama(width) for width in (6, 8, 12)],
    teacher_train=lambda model: recipe(2048, 0.012 * (16 / model.width) ** 0.5),
    student_train=lambda model: recipe(1536, 0.02),
    objective=ObjectiveSpec(soft_weight=1.0, temperature=3.0),
    seeds=(0, 1, 2),
)

execution = Execution(evaluations=2)  # of the validation curve: halfway and at the end
