"""How sure is a law in teacher loss, and what does it refuse? Profile likelihoods and typed flags.

Between `fit`, whose averaged forms it looks at, and `summary`, which puts the answers into the law.
"""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri

from gaplaw.law.data_flags import text_flags
from gaplaw.law.flags import FEWEST_STUDENTS, FEWEST_TEACHERS, Flag
from gaplaw.law.numeric.minimise import minimise
from gaplaw.law.numeric.quantiles import transform
from gaplaw.law.teacher_loss.form_average import correction_inputs
from gaplaw.law.teacher_loss.forms import residual_functions, whitener
from gaplaw.law.teacher_loss.stacking import HUBER_TUNING, ridge_of

FEWEST_INSIDE = 0.1  # share of measured students with an optimum inside, when no rise past it is shown
NO_SLOPE = 1e-4  # d ln L_S / d ln L_T that counts as none


def profile(part, inputs, z, log_loss, weight, column: int) -> dict[float, tuple]:
    """Profile intervals of exp(theta[column]): one parameter pinned at a grid of values, everything else refitted.

    Args:
        part: the fitted form. inputs: its rows. z: (n, 4) where they sit for the correction.
        log_loss: (n,) ln L_S. weight: (n,) or None.
        column: of theta.

    Returns:
        Level (0.5, 0.9) → (low, high); a side that is never reached is None. See `pin_parameter` for the discount.
    """
    values, rise = pin_parameter(part, inputs, z, log_loss, weight, column, None)
    lowest = int(np.argmin(rise))
    out = {}
    for level in (0.5, 0.9):
        limit = chdtri(1, 1 - level)
        low, high = rise[: lowest + 1][::-1], rise[lowest:]
        ends = [np.interp(limit, low, values[: lowest + 1][::-1]) if low[-1] > limit else None,
                np.interp(limit, high, values[lowest:]) if high[-1] > limit else None]  # fmt: skip
        out[level] = transform((ends[0], ends[1]), np.exp)
    return out


def pin_parameter(part, inputs, z, log_loss, weight, column: int, values) -> tuple[np.ndarray, np.ndarray]:
    """2 Δ ln likelihood with theta[column] pinned at each value and everything else refitted.

    Rows share teachers and students, so the likelihood is divided by the median over parameters of (cluster
    bootstrap variance / independent-rows variance), where that exceeds 1.

    Args:
        part, inputs, z, log_loss, weight, column: as for `profile`.
        values: (g,) of theta[column]; None means 41 values over ± 4 sd.

    Returns:
        (values (g,), rise (g,) ≥ 0).
    """
    value, residuals = residual_functions(part.form, inputs, log_loss, whitener(part.correction.levels(z)))
    centre, precision = ridge_of(part.form, part.scale)
    at = residuals(part.theta[None]).jacobian[0]
    normal = (at.T @ at + np.diag(precision)) / part.scale**2
    plain = np.diag(np.linalg.pinv(normal))
    spread = part.theta_draws.var(0)
    estimable = (plain > 0) & (spread > 0)
    inflation = max(float(np.median(spread[estimable] / plain[estimable])), 1.0)
    if values is None:
        values = part.theta[column] + np.sqrt(plain[column] * inflation) * np.linspace(-4, 4, 41)
    centres = np.repeat(centre[None], len(values), axis=0)
    precisions = np.repeat(precision[None], len(values), axis=0)
    centres[:, column], precisions[:, column] = (
        values,
        1e8 * max(float(at[:, column] @ at[:, column]), 1e-12),
    )
    starts = np.repeat(part.theta[None], len(values), axis=0)
    starts[:, column] = values
    minima = minimise(
        value, residuals, starts, delta=HUBER_TUNING * part.scale, weights=None if weight is None else weight[None],
        penalty=(centres, precisions), tolerance=1e-8,
    )  # fmt: skip
    return values, 2 * (minima.objective - minima.objective.min()) / part.scale**2 / inflation


def fit_status(average) -> str:
    """'converged', or what is wrong with the first form that did not."""
    return next((part.status for part in average.components if part.status != "converged"), "converged")


def diagnostics(table, average) -> list[Flag]:
    """What the table's size, seeds, protocol and text say against the law, and which forms did not converge.

    Args:
        table: the `Table` that was fitted. average: the fitted forms.
    """
    frame, flags = table.frame, []
    students, teachers = frame["student_params"].nunique(), frame["teacher_loss"].round(3).nunique()
    if students < FEWEST_STUDENTS:
        flags.append(
            Flag("few_students", f"{students} student sizes; a law needs at least {FEWEST_STUDENTS}", "refusal")
        )
    if teachers < FEWEST_TEACHERS:
        flags.append(
            Flag("few_teachers", f"{teachers} teachers; an optimum needs at least {FEWEST_TEACHERS}", "refusal")
        )
    if "seed" not in frame or frame["seed"].nunique() < 2:
        flags.append(Flag("single_seed", "single seed: run-to-run noise is not measured", "note"))
    if table.protocol is not None and table.protocol.startswith("prune"):
        text = "students are initialised from their teacher: this law does not hold for students trained from scratch"
        flags.append(Flag("students_from_teacher", text, "warning"))
    if "no_teacher_loss" in frame:
        weak = int((frame["teacher_loss"] >= frame["no_teacher_loss"]).sum())
        if weak:
            text = f"{weak} rows have a teacher no better than the student alone"
            flags.append(Flag("teacher_no_better", text, "note"))
    flags += text_flags(frame)
    flags += [Flag("table_note", note, "note") for note in table.notes]
    for part in average.components:
        if part.status != "converged":
            flags.append(Flag(part.status.replace(" ", "_"), f"{part.form.name}: {part.status}", "warning"))
    return flags


def shape_flags(average, surface, inputs, log_loss, weight, frame) -> list[Flag]:
    """Is there a bowl at all, and is its bottom inside the measured teachers?

    Refused: a loss that does not rise significantly towards weaker teachers; no measured student with its optimum
    inside the measured losses, or almost none where the rise towards stronger teachers is not significant. A side's
    rise is significant when pinning its slope at nothing costs likelihood in the better fitting of the bowl forms.
    Optima past the strongest teacher are ordinary for large students: flagged, and an open side of the interval, but
    no refusal.

    Args:
        average, surface: the fitted forms and their answers.
        inputs, log_loss, weight: the rows that were fitted.
        frame: the table's.
    """
    rises, z = {}, correction_inputs(average.reach_theta, inputs)
    for name in ("p", "q"):
        forms = [part for part in average.components if name in part.form.names]
        gains = []
        for part in forms:
            column = part.form.names.index(name)
            _, rise = pin_parameter(
                part, inputs, z, log_loss, weight, column, np.array([np.log(NO_SLOPE), part.theta[column]])
            )
            gains.append(rise[0] - rise[1])
        rises[name] = max(gains) >= chdtri(1, 0.1)
    low, high = surface.span
    names = [name for name in ("student_params", "student_tokens") if name in frame]
    students = frame[names].drop_duplicates().itertuples(index=False)
    inside = [
        low <= surface.optimum_point(s.student_params, getattr(s, "student_tokens", None)) <= high for s in students
    ]
    share = float(np.mean(inside))
    if not rises["q"]:
        text = "student loss does not rise towards weaker teachers by more than the noise: no optimum can be named"
        return [Flag("curvature_not_significant", text, "refusal")]
    if share == 0 or (not rises["p"] and share < FEWEST_INSIDE):
        text = (
            f"{share:.0%} of the measured students have their best teacher inside the measured losses: no interior "
            "minimum"
        )
        return [Flag("no_interior_minimum", text, "refusal")]
    flags = []
    if not rises["p"]:
        text = (
            "the rise of student loss towards stronger teachers is not significant: how strong is too strong is not "
            "shown"
        )
        flags.append(Flag("strong_side_not_significant", text, "warning"))
    if share < 1:
        edge = len(inside) - sum(inside)
        text = f"{edge} of {len(inside)} measured students have their best teacher past the measured losses"
        flags.append(Flag("edge_optimum", text, "note"))
    return flags
