"""What could an outside table of teacher losses look like? Simulated worlds of the published design, with six different
truths.

For `outside_table.py`. About 350 rows: seven students from 143M to 7.75B, teachers known by loss; fixed-ratio students
under ten teachers, IsoFLOP students under six, and fixed-ratio students under IsoFLOP teachers, each row kept with the
stated chance. The supervised law and one truth take the numbers printed in arXiv 2502.08606, as a world to be found
out, never as a default.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

STUDENTS = (143e6, 198e6, 546e6, 975e6, 1.82e9, 4.82e9, 7.75e9)
LADDER = (143e6, 198e6, 266e6, 546e6, 975e6, 1.82e9, 2.72e9, 4.82e9, 7.75e9, 12.6e9)
BUDGETS = (3e19, 1e20, 3e20, 1e21)
MOST_TOKENS = 5.2e11


def alone(params, tokens):
    """The no-teacher loss of every world, nats."""
    return 1.22 + (3355 / params**0.408 + 18186 / tokens**0.431) ** 0.452


def broken_power(n, d, teacher):
    strength = (11400 / n**0.412 + 15562 / d**0.388) ** 0.664
    return teacher + strength * teacher**-2.33 * np.exp(-((teacher / (0.918 * alone(n, d))) ** (1 / 0.102)))


def printed_power(n, d, teacher):
    strength = (2243 / n**0.321 + 24181 / d**0.637) ** 0.764
    broken = (1 + (teacher / (1.315 * alone(n, d))) ** (1 / 0.09)) ** (-522.6 * 0.09)
    return teacher + strength * teacher**-2.549 * broken


def beaten(n, d, teacher):
    """The broken power law whose weak teachers are beaten by their students, less so with more tokens."""
    weak = 1 / (1 + np.exp(-(teacher - 0.97 * alone(n, d)) / 0.04))
    return broken_power(n, d, teacher) - 0.03 * weak * np.sqrt(20 * n / d).clip(0.1, 2)


def _bowl(u):
    """Weak side: towards a slope of one; strong side: a shallow arc that straightens."""
    return np.where(u < 0, 0.12 * (np.sqrt(0.04 + u * u) - 0.2), 2 * (np.sqrt(0.01 + u * u) - 0.1))


def constant_share(n, d, teacher):
    """Additive bowl at L_T* = 0.843 of the student's own loss: the rule's own truth."""
    return 1.18 + (2900 / n**0.4 + 15500 / d**0.425) ** 0.45 + _bowl(np.log(teacher / (0.843 * alone(n, d))))


def drifting_share(n, d, teacher):
    """The same where the share falls with size and rises with tokens per parameter."""
    share = 0.85 * (n / 1e9) ** -0.012 * (d / 20 / n) ** 0.012
    return 1.15 + (3100 / n**0.4 + 14000 / d**0.42) ** 0.45 + _bowl(np.log(teacher / (share * alone(n, d))))


def size_bowl(n, d, teacher):
    """Four-to-one bowl in the teacher's size-equivalent at 20 tokens per parameter, T* ~ N^0.9 (D/N)^0.46."""
    best = np.exp(2.5) * n**0.9 * (d / n) ** 0.46
    u = np.log(size_of(teacher) / best)
    return alone(n, d) - 0.07 + 0.5 * (0.006 + 0.018 / (1 + np.exp(u / 0.4))) * u * u


TRUTHS = {
    "broken power": broken_power,
    "printed power": printed_power,
    "beaten teachers": beaten,
    "constant share": constant_share,
    "drifting share": drifting_share,
    "size bowl": size_bowl,
}


def size_of(loss):
    """Size whose no-teacher loss at 20 tokens per parameter is `loss`."""
    sizes = np.geomspace(1e6, 1e13, 4000)
    return np.exp(np.interp(-np.asarray(loss), -alone(sizes, 20 * sizes), np.log(sizes)))


def world(truth: str, *, seed: int, scatter: tuple[float, float, float], keep: float = 0.75) -> pd.DataFrame:
    """One table: student_params, student_tokens, teacher_loss, student_loss, and `truth` for the scorer alone.

    Args:
        truth: a name in TRUTHS. seed: of everything random.
        scatter: sd, in nats, of a run, of what a teacher does to all its students, and of a student size under all
          teachers.
        keep: chance of each row to be there.
    """
    noise, teacher_sd, student_sd = scatter
    rng = np.random.default_rng(seed)
    fixed = [(t, 20 * t) for t in LADDER]
    profiles = [(t, c / 6 / t) for c in BUDGETS for t in LADDER[1:9] if 2 < c / 6 / t / t < 600]
    teachers = fixed + profiles
    rows = [
        (n, m * n, i) for n in STUDENTS[:5] for m in (20, 40, 80, 160, 320) if m * n < MOST_TOKENS for i in range(10)
    ]
    rows += [(n, c / 6 / n, i) for n in STUDENTS for c in BUDGETS if 0.7 < c / 6 / n / n < 700 for i in range(3, 9)]
    rows += [(n, 20 * n, i) for n in STUDENTS[1:5] for i in range(10, len(teachers))]
    rows = [row for row in rows if rng.random() < keep]
    n, d, which = (np.array(column) for column in zip(*rows, strict=True))
    size, tokens = np.array(teachers).T
    # A teacher's measured loss scatters around the supervised law; that loss is what the student sees.
    loss = alone(size, tokens) * np.exp(0.002 * rng.standard_normal(len(teachers)))
    exact = TRUTHS[truth](n, d, loss[which])
    shared = teacher_sd * rng.standard_normal(len(teachers))[which]
    own = student_sd * rng.standard_normal(len(STUDENTS))[np.searchsorted(STUDENTS, n)]
    return pd.DataFrame(
        {
            "student_params": n,
            "student_tokens": d,
            "teacher_loss": loss[which],
            "student_loss": exact + shared + own + noise * rng.standard_normal(len(n)),
            "truth": exact + shared + own,
        }
    )
