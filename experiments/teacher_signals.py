"""Do students learn the same from a teacher's cache as from the teacher?

Question   A student of 1.5k parameters, a teacher of 14k, temperature 1: how far are students of top-k and of sampled
           caches from those of the live teacher, and does the fidelity that a cache states foretell it?
Command    gaplaw run experiments/teacher_signals.py --out runs/teacher_signals
Hardware   2 CPU cores, no accelerator
Cost       13 cells in 7 groups
Answer     Run on 27 November 2026 in 40 s. Students of draws are those of the live teacher within the scatter of seeds;
           top-k costs 0.05 nats with 16 symbols and 0.31 with 4. The stated KL error ranks the four caches as the
           students do; the gradient agreement (0.997 and more everywhere) does not warn. LOG.md has the table.
"""

from gaplaw.spec import DataSpec, ObjectiveSpec, Sweep, TeacherSignal
from gaplaw.spec.teacher_signal import LIVE
from quickstart import SEQUENCE_TOKENS, llama, recipe

sweep = Sweep.grid(
    name="teacher_signals",
    question="Do students learn the same from a teacher's cache as from the teacher?",
    data=DataSpec(sequence_tokens=SEQUENCE_TOKENS, validation_tokens=65_536),
    teachers=[llama(24)],
    students=[llama(8)],
    teacher_train=lambda model: recipe(768, 0.012 * (16 / model.width) ** 0.5),
    student_train=lambda model: recipe(512, 0.02),
    objective=ObjectiveSpec(soft_weight=1.0),
    signal=[LIVE, *(TeacherSignal(kind=kind, symbols=symbols) for kind in ("topk", "sampled") for symbols in (4, 16))],
    seeds=(0, 1),
)
