"""Where is the best teacher at temperatures 1, 2 and 3, for three students of the embedded corpus?

Question   Does the capacity gap depend on the temperature of the soft targets, and is each temperature's law
           identified?
Command    gaplaw run experiments/stdlib_gap.py --out runs/stdlib_gap gaplaw fit runs/stdlib_gap --protocol
           'scratch|soft=1|T=3' --out runs/stdlib_gap/law-T3.json     (and T=2, T=1)
Hardware   2 CPU cores, no accelerator
Cost       261 cells, 9.2e13 FLOPs; `gaplaw plan` estimates 23 minutes (the measured run shared its machine, so its 42
           say little)
Answer     It does. T = 1: no gap, the law is refused (every optimum at or past the largest teacher), and distilling
           helps by 0.015, 0.032 and 0.036 nats. T = 2: identified, T* = 1.9·S (90 %: 1.4 to 4.0) at the middle of the
           table, exponent 0.66 to 0.98. T = 3: identified, 1.4·S (1.1 to 1.8), exponent 0.71 to 1.01. At T = 2 and 3
           every student does better without a teacher. See LOG.md.
"""

from gaplaw.spec import DataSpec, ObjectiveSpec, Sweep
from quickstart import llama, recipe

sweep = Sweep.grid(
    name="stdlib_gap",
    question="Where is the best teacher at temperatures 1, 2 and 3?",
    data=DataSpec(sequence_tokens=64),
    teachers=[llama(width) for width in (4, 6, 8, 12, 16, 24, 32, 48, 64)],
    students=[llama(width) for width in (6, 8, 12)],
    teacher_train=lambda model: recipe(2048, 0.012 * (16 / model.width) ** 0.5),
    student_train=lambda model: recipe(1536, 0.02),
    objective=[ObjectiveSpec(soft_weight=1.0, temperature=heat) for heat in (1.0, 2.0, 3.0)],
    seeds=(0, 1, 2),
)
