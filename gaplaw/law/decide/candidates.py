"""Which cells could be run next, and what would each cost? Given ones read, or the measured grid filled in.

Helper of `next_cell`, in the law half. FLOPs: 6·S·D + 2·T·D, and 6·T·D_T where the teacher must be trained first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gaplaw.errors import LawError
from gaplaw.law.decide.cost import DEFAULT_TOKENS_PER_PARAM
from gaplaw.law.fitted_law import FittedLaw
from gaplaw.law.table.values import to_positive

TEACHER_POINTS = 9  # candidate teachers over the measured range when none are named


def candidate_cells(law: FittedLaw, given: Sequence[Mapping] | None, tokens_per_param: float) -> list[dict]:
    """The cells in `given`, or the measured students × teachers over the measured range, each with its FLOPs.

    Args:
        law: a fitted law.
        given: mappings with student_params, student_tokens, the law's coordinate, and optionally seed, flops,
            new_teacher.
        tokens_per_param: D_T / T of a teacher that must be trained first.

    Returns:
        One dict per cell: student_params, student_tokens, teacher_params, teacher_loss, seed, flops, new_teacher.

    Raises:
        LawError: a candidate without its student or its teacher, or a value that is not positive.
    """
    if given is not None:
        return [_candidate(law, cell, tokens_per_param, position) for position, cell in enumerate(given)]
    low, high = law.measured[law.coordinate]
    out = []
    seeds = law.noise.seeds
    for student in law.students:
        tokens = student.student_tokens or DEFAULT_TOKENS_PER_PARAM * student.student_params
        for teacher in np.geomspace(low, high, TEACHER_POINTS):
            cell = {"student_params": student.student_params, "student_tokens": tokens, law.coordinate: float(teacher)}
            cell |= {"seed": seeds, "new_teacher": law.coordinate == "teacher_params"}
            out.append(_candidate(law, cell, tokens_per_param, len(out)))
    return out


def _candidate(law: FittedLaw, cell: Mapping, tokens_per_param: float, position: int) -> dict:
    known = {name: cell.get(name) for name in ("student_params", "student_tokens", "teacher_params", "teacher_loss")}
    numbers = {
        name: None if value is None else to_positive(f"candidate {position}, {name}", value)
        for name, value in known.items()
    }
    for name in ("student_params", law.coordinate):
        if numbers[name] is None:
            raise LawError(f"candidate {position}: {name} is needed")
    tokens = numbers["student_tokens"] or DEFAULT_TOKENS_PER_PARAM * numbers["student_params"]
    teacher = numbers["teacher_params"]
    new = bool(cell.get("new_teacher", False)) and teacher is not None
    flops = cell.get("flops")
    if flops is None:
        flops = 6.0 * numbers["student_params"] * tokens + (0.0 if teacher is None else 2.0 * teacher * tokens)
        flops += 6.0 * teacher * tokens_per_param * teacher if new else 0.0
    return {
        **numbers,
        "student_tokens": tokens,
        "seed": int(cell.get("seed", 0)),
        "flops": float(flops),
        "new_teacher": new,
    }


def with_trained_teacher(flops, cells, pick):
    """Once a cell trains a teacher, the other cells of that teacher no longer pay for it."""
    flops, cells = flops.copy(), list(cells)
    for index, cell in enumerate(cells):
        if cell["new_teacher"] and cell["teacher_params"] == pick["teacher_params"]:
            forward = (
                2.0 * cell["teacher_params"] * cell["student_tokens"]
                + 6.0 * cell["student_params"] * cell["student_tokens"]
            )
            cells[index] = cell | {"new_teacher": False, "flops": forward}
            flops[index] = forward
    return flops, cells
