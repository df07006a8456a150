"""What does the run say in words? The headline, what each student showed, and which teacher the law takes.

After the figures in the walk of the report; `report` puts these on the page. Plain strings only: every number is read
from the table, the law or the choice, and what is missing is said, never filled in.
"""

from __future__ import annotations

from dataclasses import dataclass

from gaplaw.law.text import interval_words
from gaplaw.report.figures import teacher_text
from gaplaw.report.style import size_text
from gaplaw.report.view import Student, View, indistinguishable, of_the_law, paired

FEWEST_INTERIOR = 3  # students with an optimum inside the ladder before a law is called identified


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """What was found in one sentence, its verdict ('identified', 'not identified', 'no law', 'no data'), and each
    student's.
    """

    verdict: str
    sentence: str
    details: tuple[str, ...]


def interior(law) -> list:
    """Measured students whose joint optimum has a 90 % interval inside the ladder at both ends."""
    found = []
    for student in law.students:
        joint = student.method("joint")
        low, high = joint.interval90
        if joint.point and not joint.censored and low and high and low > student.lowest and high < student.highest:
            found.append(student)
    return found


def headline(seen: View, law=None) -> Headline:
    """Is there a law, and which teacher for which student? What to do about it is said by `advice`."""
    if not seen.students:
        text = "No distilled student has finished yet, so there is nothing to conclude."
        return Headline(verdict="no data", sentence=text, details=())
    measured = tuple(_measured_sentence(student, seen.coordinate) for student in seen.students)
    if law is None:
        text = "No law was fitted to this run; what was measured stands below, student by student."
        return Headline(verdict="no law", sentence=text, details=measured)
    inside = interior(law)
    seeds = max(len(student.rows["seed"].dropna().unique()) for student in seen.students)
    if law.refused or len(inside) < FEWEST_INTERIOR or seeds < 2:
        sentence = (
            f"This run does not identify a teacher law: {_why_not(law, inside, seeds)}{_without_teacher(seen, law)}"
        )
        return Headline(verdict="not identified", sentence=sentence, details=measured)
    first, last = inside[0], inside[-1]
    parts = [
        f"the {size_text(s.student_params)} student learns best from {_teacher_with_interval(s, law.coordinate)}"
        for s in (first, last)
    ]
    sentence = f"The law is identified on {len(inside)} of {len(law.students)} students: {parts[0]}, and {parts[1]}."
    sentence += _without_teacher(seen, law)
    return Headline(verdict="identified", sentence=sentence, details=measured)


def _why_not(law, inside: list, seeds: int) -> str:
    refusals = [flag.message for flag in law.flags if flag.severity == "refusal"]
    if refusals:
        return refusals[0].rstrip(".") + "."
    if len(inside) < FEWEST_INTERIOR:
        bounded = "1 student has" if len(inside) == 1 else f"{len(inside) or 'no'} students have"
        return (
            f"{bounded} an optimum whose 90 % interval lies inside the tried teachers, and {FEWEST_INTERIOR} are "
            "needed."
        )
    return f"it has {seeds} seed a student, and 2 are needed to tell the gap from chance."


def _without_teacher(seen: View, law) -> str:
    """What a reader must know before distilling at all: how many students do better alone on the same tokens."""
    known, alone = better_alone(of_the_law(seen, law))
    if not alone:
        return ""
    if len(alone) == len(known):
        return " Every student does better still without a teacher on the same tokens."
    named = ", ".join(s.size_label for s in alone)
    return f" On the same tokens, {len(alone)} of {len(known)} students ({named}) do better without a teacher."


def better_alone(seen: View) -> tuple[list[Student], list[Student]]:
    """Students whose loss without a teacher is known, and those of them that no teacher of the run helps."""
    known = [s for s in seen.students if s.baseline_loss is not None]
    return known, [s for s in known if s.baseline_loss <= float(paired(s).means["value"].min())]


def _teacher_with_interval(student, coordinate: str) -> str:
    joint = student.method("joint")
    where = teacher_text(joint.point, coordinate, student.student_params)
    return f"a teacher of {where}, 90 % interval {interval_words(joint.interval90, coordinate)}"


def _measured_sentence(student: Student, coordinate: str) -> str:
    """One student's near-optimal set, straight from its paired means."""
    close, best, tolerance = indistinguishable(student)
    named = ", ".join(_value_text(value, coordinate) for value in close)
    place = teacher_text(best, coordinate, student.params)
    text = f"{student.label}: lowest mean loss from the teacher of {place}"
    if tolerance is None:
        text += "; a single run of each, so nothing separates the teachers from chance"
    elif len(close) > 1:
        text += f"; within {tolerance:.4f} nats of it, so not distinguishable: {named}"
    else:
        text += f"; every other teacher is worse by more than {tolerance:.4f} nats"
    alone = student.baseline_loss
    if alone is not None:
        gain = alone - float(paired(student).means["value"].min())
        text += f"; distilling {'gains' if gain > 0 else 'loses'} {abs(gain):.4f} nats against no teacher"
    return text + "."


def _value_text(value: float, coordinate: str) -> str:
    return size_text(value) if coordinate == "teacher_params" else f"{value:.4g}"


def value_name(value: float, coordinate: str) -> str:
    """A teacher as a command line takes it: whole parameters, or a loss."""
    return f"{value:.0f}" if coordinate == "teacher_params" else f"{value:.6g}"


def lowest_text(student: Student, coordinate: str) -> str:
    """The teacher of a student's lowest paired mean."""
    means = paired(student).means
    return teacher_text(float(means["teacher"][means["value"].idxmin()]), coordinate, student.params)


def measured_choices(law, seen: View) -> list[dict]:
    """For every measured student: which of the sweep's own teachers the law takes, and what the plain rules would
    cost.
    """
    ladder = [float(value) for value in seen.ladder]
    rows = []
    for student in law.students:
        if law.refused:
            break
        choice = law.choose(
            student_params=student.student_params,
            student_tokens=student.student_tokens,
            teachers=_offers(ladder, law.coordinate),
        )
        rows.append({"student": size_text(student.student_params), "choice": choice})
    return rows


def _offers(ladder: list[float], coordinate: str) -> list[dict]:
    key = "params" if coordinate == "teacher_params" else "loss"
    return [{"name": _value_text(value, coordinate), key: value} for value in ladder]
