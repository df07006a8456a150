"""What does a bowl fit say to people? Its parameters, each student's optimum and the noise: a `FittedLaw`.

Follows `fit`, which computes; everything that a person reads about a law over teacher sizes is made here.
"""

from __future__ import annotations

import numpy as np

import gaplaw
from gaplaw.law import one_student
from gaplaw.law.answers import Noise, Parameter
from gaplaw.law.fitted_law import FittedLaw
from gaplaw.law.no_teacher.baseline import fit_baseline
from gaplaw.law.numeric.quantiles import Interval, interval, transform
from gaplaw.law.table.read import Table
from gaplaw.law.teacher_size import intervals
from gaplaw.law.teacher_size.design import TableDesign
from gaplaw.law.teacher_size.fit import FitState
from gaplaw.law.teacher_size.joint import JointFit
from gaplaw.law.teacher_size.problem import fitted_rows
from gaplaw.law.teacher_size.surface import BowlSurface
from gaplaw.law.teacher_size.variance import SCATTERS

MOST_PROFILED = 12  # students whose T* gets its own profile; beyond it, intervals come from the draws


def size_law(table: Table, fit: FitState, rng: np.random.Generator, *, seed: int, draws: int) -> FittedLaw:
    """The law of a fitted table of teacher sizes, not yet compared with rivals.

    Args:
        table: what was fitted.
        fit: from `fit_with_noise`.
        rng: the generator that the fit has used so far; the bootstrap and the curves draw on from there.
        seed, draws: for the record.
    """
    design, best, components = fit.table_design.design, fit.best, fit.components
    parameters = _parameters(best, fit.refits, intervals.wild_bootstrap(best, draws, rng), fit.table_design)
    return FittedLaw(
        coordinate="teacher_params",
        form=_form(design.names),
        status=_status(fit.pilot, parameters, design),
        share_of_starts=fit.pilot.share_of_starts,
        parameters=parameters,
        students=_students(fit.table_design, best, fit.surface, rng),
        flags=fit.flags,
        measured=_measured_ranges(table.frame),
        noise=Noise(
            residual_sd_nats=float(np.sqrt(best.variance)),
            seed_sd_nats=components.seed_sd_nats,
            paired_sd_nats=components.paired_sd_nats,
            teacher_sd_nats=float(components.teacher * np.sqrt(best.variance)),
            student_scatter_ln=float(np.sqrt(np.dot(components.tau_weights, np.square(SCATTERS)))),
            seeds=int(table.frame["seed"].nunique()) if "seed" in table.frame else 1,
        ),
        surface=fit.surface,
        baseline=fit_baseline(table),
        provenance={
            "source": table.source,
            "rows": len(table.frame),
            "protocol": table.protocol,
            "notes": list(table.notes),
            "gaplaw": gaplaw.__version__,
            "draws": draws,
            "seed": seed,
        },
    )


def _form(names) -> str:
    text = "T = k S"
    text += "^p" if "p" in names else ""
    text += " (D/S)^q" if "q" in names else ""
    return text + (" at teacher tokens (D_T/T)^-r" if "r" in names else "")


def _status(pilot: JointFit, parameters, design) -> str:
    low, high = design.bounds
    location = pilot.best.location[0]
    if pilot.amplitude <= 0:
        return "unidentified parameter"
    if np.any((location <= low + 1e-9) | (location >= high - 1e-9)):
        return "bound hit"
    if pilot.share_of_starts < 0.05 and pilot.gap < 2.0:
        return "starts disagree"
    if any(p.interval90 == (None, None) for p in parameters.values()):
        return "unidentified parameter"
    return "converged"


def _parameters(best: JointFit, refits, bootstrap, table_design: TableDesign) -> dict[str, Parameter]:
    """ratio (T*/N_S at the reference student), k (the same extrapolated to N_S = 1), and the exponents."""
    names, refs = best.problem.design.names, table_design.references
    out = {}
    for i, name in enumerate(names):
        column = refits.location[:, i]
        sd = float(0.5 * np.subtract(*np.quantile(column, [0.84, 0.16])))
        spans = intervals.profile(best, name, sd)
        clusters = [np.quantile(draws[:, i], [0.05, 0.95]) for draws in bootstrap.values()]
        check = max(clusters, key=lambda span: span[1] - span[0])
        if name == "kappa":
            out["ratio"] = Parameter(
                name="ratio",
                point=float(np.exp(best.theta[i] - refs.student)),
                interval50=_exp(spans[0], -refs.student),
                interval90=_exp(spans[1], -refs.student),
                bootstrap90=_exp(check, -refs.student),
                note=f"T*/S for a student of {np.exp(refs.student):.4g} parameters (geometric mean of the table)",
            )
        else:
            out[name] = Parameter(
                name=name,
                point=float(best.theta[i]),
                interval50=spans[0],
                interval90=spans[1],
                bootstrap90=(float(check[0]), float(check[1])),
            )
    to_k = np.zeros(len(names))
    for name, centre in (("p", refs.student), ("q", refs.tokens_per_param)):
        if name in names:
            to_k[names.index(name)] = -centre
    to_k[0] = 1.0
    shift = -table_design.fixed.get("p", 0.0) * refs.student
    k = refits.location @ to_k + shift
    out["k"] = Parameter(
        name="k",
        point=float(np.exp(best.theta[: len(names)] @ to_k + shift)),
        interval50=interval(k, 0.5),
        interval90=interval(k, 0.9),
        note="from the draws; prefactor at S = 1, D/S = 1, so it moves with p and q",
    )
    return out


def _students(table_design: TableDesign, best: JointFit, surface: BowlSurface, rng):
    design = table_design.design
    fitted, c = fitted_rows(design, best.theta[None], best.amplitude, design.weight * best.robust)
    level = np.bincount(table_design.offset_student, c) / np.bincount(table_design.offset_student)
    # Each run's loss with its pairing offset replaced by the student's mean offset.
    y = design.y - c[design.offset] + level[table_design.offset_student[design.offset]]
    sd = float(np.sqrt(best.variance))
    out = []
    for s in range(len(table_design.student_params)):
        cells = np.flatnonzero(design.student == s)
        cells = cells[np.argsort(design.x[cells])]
        weight = np.bincount(design.cell, design.weight, minlength=len(design.x))[cells]
        mean = np.bincount(design.cell, design.weight * y, minlength=len(design.x))[cells] / weight
        x, mean, weight = _merge(design.x[cells], mean, weight)
        data = one_student.Profile(x=x, y=mean, sd=sd / np.sqrt(weight), freedom=best.freedom)
        params = table_design.student_params[s]
        tokens = None if table_design.student_tokens is None else float(table_design.student_tokens[s])
        point = surface.optimum_point(params, tokens)
        spans = ((None, None), (None, None))
        if np.isfinite(point) and len(table_design.student_params) <= MOST_PROFILED:
            student_fit = intervals.recentre(best, design.columns[cells[0]] * (np.array(design.names) != "r"))
            own = surface.optimum_draws(params, tokens) - surface.draws_scatter
            spread = (
                0.5 * np.subtract(*np.quantile(own[np.isfinite(own)], [0.84, 0.16]))
                if np.isfinite(own).any()
                else np.nan
            )
            spans = intervals.profile(student_fit, "kappa", spread if np.isfinite(spread) else 1.0)
            fixed = _fixed_part(table_design, params)
            spans = [transform(span, lambda end, by=fixed: end + by) for span in spans]
        elif np.isfinite(point):
            own = surface.optimum_draws(params, tokens)
            spans = [transform(interval(own, level_), np.log) for level_ in (0.5, 0.9)]
        methods = [one_student.quadratic(data), one_student.akima(data, rng), one_student.joint(point, spans, data)]
        out.append(one_student.compare_methods(params, tokens, data, methods, float(level[s])))
    return tuple(out)


def _fixed_part(table_design: TableDesign, params: float) -> float:
    return table_design.fixed.get("p", 0.0) * (np.log(params) - table_design.references.student)


def _merge(x, y, weight):
    """Cells of one teacher size (teachers that differ in tokens only) become one point."""
    _, label = np.unique(np.round(x, 9), return_inverse=True)
    total = np.bincount(label, weight)
    return np.bincount(label, weight * x) / total, np.bincount(label, weight * y) / total, total


def _measured_ranges(frame) -> dict[str, tuple[float, float]]:
    names = ("student_params", "student_tokens", "teacher_params", "teacher_tokens", "teacher_loss", "student_loss")
    return {n: (float(frame[n].min()), float(frame[n].max())) for n in names if n in frame and frame[n].notna().any()}


def _exp(span, shift: float) -> Interval:
    return transform(span, lambda end: np.exp(end + shift))
