"""How many teachers, students and seeds does the question need? A power check by simulation, before any compute is
spent.

Beside the simulator in the law half. For every design a number of tables with a known truth are simulated and fitted,
and the law is asked for a student that was not measured. A design is enough when the picked teacher's true regret is
within the tolerance in at least 90 % of the tables; refusals count as failures. The truth is the caller's assumption:
bowl, noise, ratio.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gaplaw.errors import LawError
from gaplaw.law.simulation.adaptive import cell_flops, expected_regret, fit_cells, true_regret
from gaplaw.law.simulation.simulate import simulate, true_optimum
from gaplaw.law.text import size_words

ENOUGH = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class DesignPower:
    """What one design achieves over its simulated tables; nats and ln units."""

    students: int
    teachers: int
    seeds: int
    simulations: int
    flops: float
    share_within: float  # tables answered with a true regret within the tolerance
    share_refused: float
    median_true_regret_nats: float | None
    median_expected_regret_nats: float | None
    interval_half_width_ln: float | None  # of the 90 % interval of ln T*, median; None when most are unbounded
    coverage90: float | None  # share of answered tables whose 90 % interval holds the truth

    def to_dict(self) -> dict:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True, slots=True)
class Power:
    """All designs, and the cheapest that is enough."""

    designs: tuple[DesignPower, ...]
    enough: DesignPower | None
    tolerance_nats: float
    target_student_params: float
    truth: dict

    @property
    def statement(self) -> str:
        if self.enough is None:
            goal = f"a regret within {self.tolerance_nats:g} nats in {ENOUGH:.0%} of the tables"
            return f"no design reaches {goal}: more seeds, more teachers or a wider range of students are needed"
        d = self.enough
        return (
            f"cheapest design that answers within {self.tolerance_nats:g} nats in {d.share_within:.0%} of "
            f"{d.simulations} tables: "
            f"{d.students} students, {d.teachers} teachers, {d.seeds} seed{'s' if d.seeds > 1 else ''} ({d.flops:.3g}"
            " FLOPs)"
        )

    def to_dict(self) -> dict:
        return {
            "designs": [design.to_dict() for design in self.designs],
            "enough": None if self.enough is None else self.enough.to_dict(),
            "tolerance_nats": self.tolerance_nats,
            "target_student_params": self.target_student_params,
            "truth": self.truth,
            "statement": self.statement,
        }

    def text(self) -> str:
        lines = [f"target student {size_words(self.target_student_params)}; truth assumed: "
                 + ", ".join(f"{name} {value}" for name, value in self.truth.items()),
                 f"{'students':>9}{'teachers':>9}{'seeds':>6}{'FLOPs':>10}{'within':>8}{'refused':>9}"
                 f"{'regret, nats':>14}"
                 f"{'± ln T*, 90%':>14}{'covers':>8}"]  # fmt: skip
        for d in self.designs:
            lines.append(
                f"{d.students:>9}{d.teachers:>9}{d.seeds:>6}{d.flops:>10.2g}{d.share_within:>8.0%}"
                f"{d.share_refused:>9.0%}"
                f"{_number(d.median_true_regret_nats, '.5f'):>14}{_number(d.interval_half_width_ln, '.2f'):>14}"
                f"{_number(d.coverage90, '.0%'):>8}"
            )
        return "\n".join([*lines, self.statement])


def power(
    *,
    students: int | Sequence[int] = (4, 6),
    teachers: int | Sequence[int] = (5, 7),
    seeds: int | Sequence[int] = (1, 3),
    noise: float = 0.003,
    smallest_student: float = 5e7,
    largest_student: float = 1.6e9,
    teacher_ratios: tuple[float, float] = (0.5, 4.0),
    target_student_params: float | None = None,
    tolerance_nats: float = 0.002,
    simulations: int = 20,
    draws: int = 200,
    rng: int = 0,
    **truth,
) -> Power:
    """Simulate every combination of students × teachers × seeds and say what each can answer.

    Args:
        students: counts of student sizes to try, one or several; spread in log between smallest and largest.
        teachers: counts of teachers to try; spread in log between teacher_ratios[0] × k × the smallest and
            teacher_ratios[1] × k × the largest student.
        seeds: counts of seeds to try.
        noise: standard deviation of one run's loss, nats.
        target_student_params: the unmeasured student that is asked about; default twice the largest.
        tolerance_nats: regret that counts as answered.
        simulations: tables per design.
        draws: law draws per fit.
        truth: passed to `simulate`: k, p, asymmetry, shape, depth, scatter_ln, ...

    Raises:
        LawError: a count or a simulation number below 1.
    """
    students, teachers, seeds = (_several(counts) for counts in (students, teachers, seeds))
    for name, values in (
        ("students", students),
        ("teachers", teachers),
        ("seeds", seeds),
        ("simulations", (simulations,)),
    ):
        if not len(values) or min(values) < 1:
            raise LawError(f"{name}: {values} must be at least 1")
    truth = {"k": 4.0, "asymmetry": 2.0, "depth": 0.03, "noise_nats": noise} | truth
    target = target_student_params or 2 * largest_student
    designs = []
    for n, m, s in itertools.product(students, teachers, seeds):
        sizes = np.geomspace(smallest_student, largest_student, n)
        ladder = np.geomspace(
            teacher_ratios[0] * truth["k"] * smallest_student, teacher_ratios[1] * truth["k"] * largest_student, m
        )
        designs.append(_design(sizes, ladder, s, target, tolerance_nats, simulations, draws, rng, truth))
    good = [design for design in designs if design.share_within >= ENOUGH]
    return Power(
        designs=tuple(designs),
        enough=min(good, key=lambda design: design.flops) if good else None,
        tolerance_nats=tolerance_nats,
        target_student_params=float(target),
        truth=truth,
    )


def _design(sizes, ladder, seeds, target, tolerance, simulations, draws, rng, truth) -> DesignPower:
    regrets, expected, widths, covered, refused, flops = [], [], [], [], 0, 0.0
    for number in range(simulations):
        frame = simulate(students=sizes, teachers=ladder, seeds=seeds, rng=[rng, number], **truth)
        flops = cell_flops(frame)
        law = fit_cells(frame, draws, number)
        if law.refused:
            refused += 1
            continue
        regrets.append(true_regret(frame, law, ladder, target, truth))
        expected.append(expected_regret(law, ladder, target))
        low, high = law.optimum(target).interval90
        best = true_optimum(frame, target)
        covered.append((low is None or low <= best) and (high is None or best <= high))
        widths.append(np.inf if low is None or high is None else 0.5 * np.log(high / low))
    width = float(np.median(widths)) if widths else np.inf
    return DesignPower(
        students=len(sizes),
        teachers=len(ladder),
        seeds=seeds,
        simulations=simulations,
        flops=flops,
        share_within=float(np.sum(np.array(regrets) <= tolerance)) / simulations,
        share_refused=refused / simulations,
        median_true_regret_nats=float(np.median(regrets)) if regrets else None,
        median_expected_regret_nats=float(np.median(expected)) if expected else None,
        interval_half_width_ln=width if np.isfinite(width) else None,
        coverage90=float(np.mean(covered)) if covered else None,
    )


def _several(counts) -> tuple[int, ...]:
    return (counts,) if isinstance(counts, int) else tuple(counts)


def _number(value, form: str) -> str:
    return "-" if value is None else format(value, form)
