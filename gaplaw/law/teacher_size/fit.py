"""Which bowl do all students share, and how sure is it? A table of teacher sizes in, the fit with its draws and flags
out.

After `design`, `joint`, `variance` and `intervals`, which it calls in this order; before `summary`, which makes the law
of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.law.flags import Flag
from gaplaw.law.table.read import Table
from gaplaw.law.teacher_size import intervals, variance
from gaplaw.law.teacher_size.checks import diagnostics
from gaplaw.law.teacher_size.design import Layout, lay_out
from gaplaw.law.teacher_size.joint import JointFit, Points, fit_joint
from gaplaw.law.teacher_size.problem import fitted_rows
from gaplaw.law.teacher_size.surface import BowlSurface, fit_floor


@dataclass(frozen=True, kw_only=True, slots=True)
class FitState:
    """A joint fit and all that its answers need: draws, surface and flags; what else a `Law` shows is made from
    these.
    """

    layout: Layout
    pilot: JointFit
    parts: variance.Components
    best: JointFit
    points: Points
    surface: BowlSurface
    flags: tuple[Flag, ...]


def fit_with_noise(table: Table, rng: np.random.Generator, draws: int) -> FitState:
    """From a teacher_params table to its surface and flags: fit, noise, fit again with random effects, draws."""
    layout = lay_out(table)
    pilot = fit_joint(layout.design)
    parts = variance.components(pilot)
    best = pilot
    if parts.any:
        best = intervals.refit(layout.design, pilot, variance.effect_columns(pilot, parts), parts.variance)
    points = intervals.draw(best, draws, rng)
    surface = _surface(layout, best, points, parts, rng)
    flags = diagnostics(table, layout, pilot, best, surface)
    return FitState(layout=layout, pilot=pilot, parts=parts, best=best, points=points, surface=surface, flags=flags)


def _surface(layout: Layout, best: JointFit, points, parts, rng) -> BowlSurface:
    design = layout.design
    count = len(points.amplitude)
    tau = rng.choice(np.array(variance.SCATTERS), size=count, p=np.array(parts.tau_weights))
    m = design.columns.shape[1]
    _, offsets = fitted_rows(design, best.theta[None], best.amplitude, design.weight * best.robust)
    size = np.bincount(layout.offset_student)
    c = np.bincount(layout.offset_student, offsets) / size
    low, high = design.bounds
    return BowlSurface(
        names=design.names,
        fixed=dict(layout.fixed),
        references=layout.references,
        location=best.theta[:m],
        shape=best.theta[m:],
        amplitude=best.amplitude,
        draws_location=points.location,
        draws_shape=points.shape,
        draws_amplitude=points.amplitude,
        draws_scatter=tau * rng.standard_normal(count),
        bounds=(float(low[0] + 1e-6), float(high[0] - 1e-6)),
        floor=fit_floor(layout.student_params, layout.student_tokens, c),
    )
