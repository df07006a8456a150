"""What should a reader of the page do first? One sentence with one thing to do, and its command.

After summary in the walk of the report. The first of these that holds: run the sweep, finish it, measure more, fit,
choose. What was found is said by `summary`; this only says what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass

from gaplaw.law.flags import FEWEST_STUDENTS, FEWEST_TEACHERS
from gaplaw.report.style import size_text
from gaplaw.report.summary import Headline, better_alone
from gaplaw.report.view import View, of_the_law


@dataclass(frozen=True, slots=True)
class Advice:
    """A sentence, and the command that does what it says (empty when no command does)."""

    sentence: str
    command: str = ""


def advice(
    headline: Headline, seen: View, law=None, choice=None, *, folder: str, experiment: str, unfinished: int = 0
) -> Advice:
    """The one thing to do first.

    Args: unfinished: cells of the sweep that have no result, failed ones among them. folder, experiment: names for the
      commands.
    """
    again = f"gaplaw run {experiment} --out {folder}"
    if headline.verdict == "no data":
        return Advice("Run the sweep.", again)
    if headline.verdict != "identified" and unfinished:
        cells = "1 cell has" if unfinished == 1 else f"{unfinished} cells have"
        return Advice(f"Finish the sweep: {cells} no result.", again)
    if headline.verdict == "no law":
        return _before_a_law(seen, folder)
    if headline.verdict == "not identified":
        return Advice(_after_a_refusal(seen, law))
    if choice is not None:
        return Advice(_chosen(choice))
    known, alone = better_alone(of_the_law(seen, law))
    if alone and len(alone) == len(known):
        return Advice("Train such students without a teacher: on the same tokens, no teacher tried here was better.")
    ask = f"gaplaw choose {folder}/law.json --student SIZE --teachers SIZE,SIZE"
    return Advice("Choose a teacher for your own student by this law.", ask)


def _before_a_law(seen: View, folder: str) -> Advice:
    blocks = seen.by_protocol
    most = max(blocks.values(), key=lambda own: (len({s.params for s in own}), max(len(s.teachers) for s in own)))
    sizes, teachers = len({s.params for s in most}), max(len(s.teachers) for s in most)
    if sizes < FEWEST_STUDENTS or teachers < FEWEST_TEACHERS:
        there = f"{sizes} student size{'s' * (sizes > 1)} and {teachers} teacher{'s' * (teachers > 1)}"
        return Advice(
            f"Measure more before a fit: it needs at least {FEWEST_STUDENTS} student sizes and {FEWEST_TEACHERS} "
            "teachers "
            f"under one protocol, and this run has {there}."
        )
    if len(blocks) > 1:
        return Advice("Fit one protocol at a time.", f"gaplaw fit {folder} --protocol '{most[0].protocol}'")
    return Advice("Fit the law.", f"gaplaw fit {folder}")


_MORE = {
    "few_students": f"Add student sizes to the sweep: a law needs at least {FEWEST_STUDENTS}.",
    "few_teachers": f"Add teachers to the sweep: an optimum needs at least {FEWEST_TEACHERS} for each student.",
    "edge_optimum_high": "Add teachers above the largest tried: the best ones lie beyond it.",
    "edge_optimum_low": "Add teachers below the smallest tried: the best ones lie beyond it.",
}


def _after_a_refusal(seen: View, law) -> str:
    refusals = [flag.kind for flag in law.flags if flag.severity == "refusal"]
    for kind in refusals:
        if kind in _MORE:
            return _MORE[kind]
    if max(s.rows["seed"].nunique() for s in seen.students) < 2:
        return "Run every student with a second seed: without one the gap cannot be told from chance."
    sides = {m.censored for s in law.students if (m := s.method("joint")).censored}
    if len(sides) == 1 and law.coordinate == "teacher_params":
        return _MORE[f"edge_optimum_{sides.pop()}"]
    return "Add seeds or teachers before choosing: this table cannot tell the best teacher from its neighbours."


def _chosen(choice) -> str:
    student = size_text(choice.student_params)
    if choice.recommended is None:
        refusal = next((flag.message for flag in choice.flags if flag.severity == "refusal"), None)
        if refusal is not None:
            return f"Do not take a teacher for a {student} student from this law: {refusal.rstrip('.')}."
        return f"Train the {student} student without a teacher: at equal compute it does better than with any of these."
    chosen = choice.teacher(choice.recommended)
    return (
        f"For a {student} student, of {len(choice.teachers)} teachers, take {chosen.name} "
        f"(expected regret {chosen.expected_regret_nats:.4f} nats, best of them with probability "
        f"{100 * chosen.p_best:.0f} %)."
    )
