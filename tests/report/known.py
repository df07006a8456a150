"""A law that is known and not fitted, so that figures and page can be tested without the fitter.

The surface is the bowl that `simulated` draws its losses from, T* = ratio · S; draws scatter the ratio.
"""

from __future__ import annotations

import numpy as np

from gaplaw.law.answers import MethodOptimum, Noise, Parameter, StudentOptimum
from gaplaw.law.flags import Flag
from gaplaw.law.law import Law
from tests.report.simulated import TRUE_RATIO, asymmetric_bowl

REFUSAL = Flag("curvature not significant", "no student's loss bends enough to have a minimum.", "refusal")


class KnownSurface:
    kind = "known"

    def __init__(self, draws: int = 200, spread_ln: float = 0.25):
        self.shift = spread_ln * np.random.default_rng(1).standard_normal(draws)

    def optimum_point(self, student_params, student_tokens):
        return float(np.log(TRUE_RATIO * student_params))

    def optimum_draws(self, student_params, student_tokens):
        return np.log(TRUE_RATIO * student_params) + self.shift

    def regret_draws(self, student_params, student_tokens, teachers, teacher_tokens=None):
        best = self.optimum_draws(student_params, student_tokens)
        return asymmetric_bowl(np.log(teachers)[None, :] - best[:, None])

    loss_draws = regret_draws

    def teacher_draws(self, student_params, student_tokens, teachers):
        return np.zeros((len(self.shift), len(teachers)))  # a teacher is its size and nothing else

    def predict(self, frame):
        size = frame["student_params"].to_numpy()
        return (
            1.21 + 6.0 * size**-0.22 + asymmetric_bowl(np.log(frame["teacher_params"].to_numpy() / (TRUE_RATIO * size)))
        )

    def to_dict(self):
        return {"kind": self.kind}


def known_law(seen, *, flags=(), coordinate="teacher_params") -> Law:
    """The law behind `simulated.write_folder`, with a record for every student of a view; past the ladder it is
    censored.
    """
    ladder = seen.ladder
    students = tuple(_record(student, ladder) for student in seen.students)
    sizes = [s.params for s in seen.students]
    return Law(
        coordinate=coordinate,
        form="T* = k · S^p",
        status="converged",
        share_of_starts=0.9,
        parameters={
            "k": Parameter(name="k", point=9.0, interval50=(8.1, 9.9), interval90=(7.0, None), bootstrap90=(6.8, 11.0))
        },
        students=students,
        flags=tuple(flags),
        measured={"student_params": (min(sizes), max(sizes)), "teacher_params": (ladder[0], ladder[-1])},
        noise=Noise(residual_sd_nats=0.002, seed_sd_nats=0.02, paired_sd_nats=0.002, seeds=3),
        surface=KnownSurface(),
        provenance={},
        rivals=(
            {
                "name": "T = k S",
                "kind": "law",
                "loso_regret_nats": 0.0012,
                "aicc": 1.5,
                "share_of_wins": 0.7,
                "note": "",
            },
            {
                "name": "2.5 times",
                "kind": "rule",
                "loso_regret_nats": 0.0456,
                "aicc": None,
                "share_of_wins": 0.3,
                "note": "",
            },
        ),
        comparison={"verdict": "not distinguishable", "winner": "T = k S", "winner_share": 0.7, "constant_ratio": 9.0},
    )


def _record(student, ladder) -> StudentOptimum:
    best = TRUE_RATIO * student.params
    censored = "high" if best > ladder[-1] else "low" if best < ladder[0] else None
    point = None if censored else best
    bounds = (None, None) if censored else (best / 1.3, best * 1.3)
    joint = MethodOptimum(method="joint", point=point, interval50=bounds, interval90=bounds, censored=censored)
    local = MethodOptimum(method="quadratic", point=None if censored else 1.2 * best, interval90=(None, None))
    akima = MethodOptimum(method="akima", point=None if censored else 0.9 * best, censored=censored)
    return StudentOptimum(
        student_params=student.params,
        student_tokens=student.tokens,
        teachers=len(student.teachers),
        lowest=ladder[0],
        highest=ladder[-1],
        methods=(local, akima, joint),
        spread=None if censored else 0.29,
        disagree=False,
    )
