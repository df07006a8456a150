"""Why might this law be wrong, or no law at all? Raises the flags of a joint fit: the refusals and the weaker doubts.

Follows `joint` and `intervals`, fills `Law.flags`. Flat, monotone or too small tables are refused here: a flag of
severity 'refusal' makes every optimum of the law None. Severities and kinds are listed in `flags`.
"""

from __future__ import annotations

import numpy as np

from gaplaw.law.data_flags import grid_flags, text_flags
from gaplaw.law.flags import Flag, worst_first
from gaplaw.law.teacher_size.design import TableDesign
from gaplaw.law.teacher_size.intervals import gains_over_no_bowl
from gaplaw.law.teacher_size.joint import JointFit

# Gains in 2 Δ ln likelihood that a bowl must bring over a flat line, and over a law without an interior optimum. Set by
# simulation: pure noise and monotone tables must be refused in at least 99 of 100 draws
# (tests/law/teacher_size/test_intervals.py).
OVER_FLAT = 14.0
OVER_MONOTONE = 8.0
OFF_GRID = 0.10  # share of draws whose optimum ran off the grid that turns a law into a refusal


def diagnostics(table, table_design: TableDesign, pilot: JointFit, best: JointFit, surface) -> tuple[Flag, ...]:
    """Every reason to doubt or refuse a law over teacher sizes, worst first.

    Args:
        table: the `Table` that was fitted.
        table_design: what it could identify.
        pilot: the fit before random effects; refusals rest on it.
        best: the fit with them.
        surface: the law's answers.
    """
    flags = [*table_design.flags]
    flags += _grid(table_design)
    flags += _bowl(table_design, pilot, surface)
    flags += _edges(table_design, surface)
    flags += _data(table, table_design)
    if pilot.share_of_starts < 0.05 and pilot.gap < 2.0:
        flags.append(
            Flag(
                "starts_disagree",
                f"only {pilot.share_of_starts:.0%} of starts reached the best fit and another optimum fits "
                f"nearly as well (2 ln L within {pilot.gap:.1f})",
                "warning",
            )
        )
    return worst_first(flags)


def _grid(table_design: TableDesign):
    design = table_design.design
    per_student = [len(np.unique(design.teacher[design.student == s])) for s in np.unique(design.student)]
    sizes = len(np.unique(np.round(np.log(table_design.student_params), 6)))
    yield from grid_flags(max(per_student), sizes)


def _bowl(table_design: TableDesign, pilot: JointFit, surface):
    over_flat, over_edge = gains_over_no_bowl(pilot) if pilot.amplitude > 0 else (0.0, 0.0)
    if over_flat < OVER_FLAT:
        yield Flag(
            "curvature_not_significant",
            "student loss does not change with the teacher by more than the noise: no optimum can be named",
            "refusal",
        )
        return
    optima = [surface.optimum_point(n, t) for n, t in _students(table_design)]
    design = table_design.design
    inside = [
        design.x[design.student == s].min() < o < design.x[design.student == s].max() for s, o in enumerate(optima)
    ]
    if not any(inside):
        side = "high" if optima[0] > np.median(design.x) else "low"
        word = "largest" if side == "high" else "smallest"
        yield Flag(
            f"edge_optimum_{side}",
            f"every student's optimum lies at or past the {word} teacher measured: extend the ladder",
            "refusal",
        )
    elif over_edge < OVER_MONOTONE:
        yield Flag(
            "no_interior_minimum",
            "a law whose loss only falls (or only rises) with the teacher fits as well: no interior minimum is shown",
            "refusal",
        )
    off = float(np.mean(~np.isfinite(surface.optimum_draws(*_students(table_design)[len(inside) // 2]))))
    if off > OFF_GRID and any(inside) and over_edge >= OVER_MONOTONE:
        yield Flag("weak_minimum", f"in {off:.0%} of draws the optimum runs off the teacher grid", "warning")


def _students(table_design: TableDesign):
    tokens = table_design.student_tokens
    return [(n, None if tokens is None else tokens[i]) for i, n in enumerate(table_design.student_params)]


def _edges(table_design: TableDesign, surface):
    design = table_design.design
    for s, (n, t) in enumerate(_students(table_design)):
        x, point = design.x[design.student == s], surface.optimum_point(n, t)
        side = "low" if point <= x.min() else "high" if point >= x.max() else None
        if side:
            yield Flag(
                f"edge_student_{side}",
                f"student of {n:.4g} parameters: optimum "
                f"{'above its largest' if side == 'high' else 'below its smallest'} "
                "teacher; it still informs the law",
                "note",
            )


def _data(table, table_design: TableDesign):
    frame, design = table.frame, table_design.design
    seeds = frame["seed"].nunique() if "seed" in frame else 1
    if seeds < 2 and len(design.y) == len(design.x):
        yield Flag("single_seed", "one run per cell: seed noise is not measured, only inferred from the fit", "warning")
    if table.protocol and "prune" in str(table.protocol).lower():
        yield Flag(
            "students_from_teacher",
            "students start from their teacher's weights (pruned), so the law mixes initialisation with distillation "
            "and does "
            "not hold for students trained from scratch",
            "warning",
        )
    if "no_teacher_loss" in frame and frame["no_teacher_loss"].notna().any():
        known = frame[frame["no_teacher_loss"].notna()]
        losers = []
        for params, rows in known.groupby("student_params"):
            best = rows.groupby("teacher_params")["student_loss"].mean().min()
            if best >= rows["no_teacher_loss"].mean():
                losers.append(f"{params:.4g}")
        if losers:
            yield Flag(
                "teacher_no_better",
                f"no teacher beats training without one for students of {', '.join(losers)} parameters",
                "warning",
            )
    yield from text_flags(frame)
    for note in table.notes:
        yield Flag("table_note", note, "note")
