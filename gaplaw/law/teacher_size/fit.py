"""Which bowl do all students share, and how sure is it? A table of teacher sizes in, the fit with its draws and flags
out.

After `design`, `joint`, `variance` and `intervals`, which it calls in this order; before `summary`, which makes the law
of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from gaplaw.law.flags import Flag
from gaplaw.law.table.read import Table
from gaplaw.law.teacher_size import intervals, variance
from gaplaw.law.teacher_size.checks import diagnostics
from gaplaw.law.teacher_size.design import TableDesign, design_of_table
from gaplaw.law.teacher_size.joint import JointFit, Solutions, fit_joint
from gaplaw.law.teacher_size.problem import fitted_rows
from gaplaw.law.teacher_size.surface import BowlSurface, Floor


@dataclass(frozen=True, kw_only=True, slots=True)
class FitState:
    """A joint fit and all that its answers need; what else a law shows is made from this.

    Attributes:
        table_design: the table's cells and coefficients.
        pilot: the fit with independent noise.
        components: where the scatter comes from.
        best: the fit with those effects in its covariance; the pilot where there are none.
        refits: draws, one refit to perturbed data each.
        surface: the law's answers about any student and teacher.
        flags: reasons to doubt or refuse.
    """

    table_design: TableDesign
    pilot: JointFit
    components: variance.VarianceComponents
    best: JointFit
    refits: Solutions
    surface: BowlSurface
    flags: tuple[Flag, ...]


def fit_with_noise(table: Table, rng: np.random.Generator, draws: int) -> FitState:
    """From a table of teacher sizes to its surface and flags: fit, noise, fit again with random effects, draws.

    Args:
        table: a `Table` in teacher_params.
        rng: of the draws.
        draws: how many.

    Raises:
        LawError: no student meets two teachers.
    """
    table_design = design_of_table(table)
    pilot = fit_joint(table_design.design)
    components = variance.variance_components(pilot)
    best = pilot
    if components.any:
        best = intervals.refit(
            table_design.design, pilot, variance.effect_columns(pilot, components), components.variance
        )
    refits = intervals.draw_refits(best, draws, rng)
    surface = _surface(table_design, best, refits, components, rng)
    flags = diagnostics(table, table_design, pilot, best, surface)
    return FitState(
        table_design=table_design,
        pilot=pilot,
        components=components,
        best=best,
        refits=refits,
        surface=surface,
        flags=flags,
    )


def _surface(table_design: TableDesign, best: JointFit, refits, components, rng) -> BowlSurface:
    design = table_design.design
    count = len(refits.amplitude)
    tau = rng.choice(np.array(variance.SCATTERS), size=count, p=np.array(components.tau_weights))
    m = design.columns.shape[1]
    _, offsets = fitted_rows(design, best.theta[None], best.amplitude, design.weight * best.robust)
    size = np.bincount(table_design.offset_student)
    c = np.bincount(table_design.offset_student, offsets) / size
    low, high = design.bounds
    return BowlSurface(
        names=design.names,
        fixed=dict(table_design.fixed),
        references=table_design.references,
        location=best.theta[:m],
        shape=best.theta[m:],
        amplitude=best.amplitude,
        draws_location=refits.location,
        draws_shape=refits.shape,
        draws_amplitude=refits.amplitude,
        draws_scatter=tau * rng.standard_normal(count),
        bounds=(float(low[0] + 1e-6), float(high[0] - 1e-6)),
        floor=fit_floor(table_design.student_params, table_design.student_tokens, c),
    )


def fit_floor(params: np.ndarray, tokens: np.ndarray | None, c: np.ndarray) -> Floor:
    """The student's loss under its best teacher, c(N, D) = E + A N^-a + B D^-b, fitted to the students' offsets.

    Exponents on a grid, the rest by non-negative least squares. With one student the floor is constant, with two a
    power law without E; the data term needs tokens that vary on their own.

    Args:
        params, tokens: (S,) N_S and D_S (None without tokens).
        c: (S,) offsets, nats.
    """
    reference = (
        float(np.exp(np.log(params).mean())),
        float(np.exp(np.log(tokens).mean())) if tokens is not None else 1.0,
    )
    n = params / reference[0]
    own = False
    if tokens is not None and len(c) >= 4:
        logs = np.stack([np.ones_like(n), np.log(n)], axis=1)
        d = np.log(tokens)
        own = np.std(d - logs @ np.linalg.lstsq(logs, d, rcond=None)[0]) > 0.05
    best = (np.inf, (float(c.mean()), 0.0, 0.0, 0.0, 0.0))
    exponents = np.linspace(0.02, 1.5, 38)
    for a in exponents if np.ptp(np.log(n)) > 1e-9 else ():
        for b in exponents[::3] if own else (0.0,):
            columns = (
                [n**-a] + ([(tokens / reference[1]) ** -b] if own else []) + ([np.ones_like(n)] if len(c) > 2 else [])
            )
            solution, residual = nnls(np.stack(columns, axis=1), c)
            if residual < best[0] - 1e-12:
                e = solution[-1] if len(c) > 2 else 0.0
                best = (
                    residual,
                    (float(e), float(solution[0]), float(a), float(solution[1]) if own else 0.0, float(b)),
                )
    known = tuple((float(p), None if tokens is None else float(tokens[i]), float(c[i])) for i, p in enumerate(params))
    return Floor(students=known, coefficients=best[1], reference=reference)
