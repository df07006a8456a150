"""Worlds with a known truth for the loss-coordinate tests: teachers known by loss, seven students, many token budgets.

Three truths that no fitted form contains exactly: a broken power law, one whose weak teachers are beaten by their
students, and a bowl of another shape at a constant share of the student's own loss. The constants are made up, of the
published order.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

STUDENTS = (1.5e8, 2.5e8, 5e8, 1e9, 2e9, 4.5e9, 8e9)
TEACHERS = (2e8, 3e8, 5e8, 1e9, 2e9, 3e9, 5e9, 8e9, 1.3e10)


def alone(params, tokens):
    """The no-teacher loss of these worlds, nats."""
    return 1.25 + (3000 / params**0.4 + 16000 / tokens**0.43) ** 0.46


def truth(kind: str, params, tokens, teacher_loss):
    """Student loss without noise."""
    own = alone(params, tokens)
    if kind == "bowl":
        u = np.log(teacher_loss / (0.85 * own))
        return own - 0.06 + np.where(u < 0, 0.3 * u * u, 0.06 * np.logaddexp(0, (u - 0.12) / 0.03) + 0.1 * u * u)
    strength = (13000 / params**0.4 + 20000 / tokens**0.39) ** 0.66
    loss = teacher_loss + strength * teacher_loss**-2.3 * np.exp(-((teacher_loss / (0.92 * own)) ** 10))
    if kind == "beaten":
        weak = 1 / (1 + np.exp(-(teacher_loss - 0.97 * own) / 0.04))
        loss = loss - 0.03 * weak * (teacher_loss / own) * np.sqrt(20 * params / tokens)
    return loss


def world(kind: str, seed: int = 0, noise: float = 0.004, teacher_sd: float = 0.002) -> pd.DataFrame:
    """About 250 rows: student_params, student_tokens, teacher_loss, student_loss (and the truth, for the test
    alone).
    """
    rng = np.random.default_rng(seed)
    rows = []
    for params in STUDENTS:
        for ratio in (20, 80, 320) if params < 4e9 else (20, 80):
            rows += [(params, ratio * params, i) for i in range(len(TEACHERS)) if rng.random() < 0.9]
        for flops in (3e19, 1.1e20, 3e20, 1e21):
            tokens = flops / 6 / params
            if 2 < tokens / params < 600:
                rows += [(params, tokens, i) for i in range(2, 8) if rng.random() < 0.7]
    params, tokens, teacher = np.array(rows).T
    size = np.array(TEACHERS)[teacher.astype(int)]
    loss = alone(size, 20 * size)
    exact = truth(kind, params, tokens, loss)
    shared = teacher_sd * rng.standard_normal(len(TEACHERS))[teacher.astype(int)]
    return pd.DataFrame(
        {
            "student_params": params,
            "student_tokens": tokens,
            "teacher_loss": loss,
            "student_loss": exact + shared + noise * rng.standard_normal(len(params)),
            "truth": exact,
        }
    )
