"""Which law does this table support? `fit`: table in, `Law` out, with its intervals and every reason to doubt it.

The one dispatcher of the law half, above both coordinates: table → fit → summary → comparison → **Law**. Which steps a
coordinate takes is said in `STEPS_OF_COORDINATE` and nowhere else.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from threadpoolctl import threadpool_limits

from gaplaw.errors import LawError
from gaplaw.law.compare.compare import compare_loss_law, compare_size_law
from gaplaw.law.fitted_law import FittedLaw
from gaplaw.law.law import Law
from gaplaw.law.table.read import Table, read_table
from gaplaw.law.teacher_loss.fit import fit_forms
from gaplaw.law.teacher_loss.summary import loss_law
from gaplaw.law.teacher_size.fit import fit_with_noise
from gaplaw.law.teacher_size.summary import size_law

FEWEST_DRAWS = 20  # an interval of 90 % is cut from them


def fit(
    table_or_path,
    columns=None,
    *,
    protocol: str | None = None,
    higher_is_better: bool = False,
    coordinate: str | None = None,
    seed: int = 0,
    draws: int = 1000,
    compare: bool = True,
) -> Law:
    """Fit the teacher law of a table of student losses, with intervals and every reason to doubt it.

    For teachers known by size, ln T* = ln k + p ln N_S + q ln(D_S / N_S) is the minimum of one bowl that all
    students share. For teachers known by loss, L_S(N_S, D_S, L_T) is a weighted mean of three closed forms with a
    smooth correction.

    Args:
        table_or_path: DataFrame, CSV or parquet file, sweep folder (path or URL), or a `Table`; one row per student.
        columns: canonical name → name in the table: a mapping, or 'student_params=NS,student_loss=LS'.
        protocol: which protocol to fit where the table holds several.
        higher_is_better: the losses are scores, such as accuracies.
        coordinate: 'teacher_params' or 'teacher_loss', where the table has both.
        seed: of the draws.
        draws: how many plausible laws to draw, at least 20; intervals are cut from them.
        compare: also score rival forms and rules of thumb on students left out (`Law.rivals`, `Law.comparison`).

    Returns:
        Law. One that cannot name an optimum is returned too: `refused` is true and `flags` say why.

    Raises:
        TableError: the table cannot be read, or a value is missing or impossible.
        MixedProtocolsError: rows of several protocols, and none chosen.
        LawError: nothing about teachers can be learnt from the table, or too few draws.
    """
    if draws < FEWEST_DRAWS:
        raise LawError(f"draws: {draws} must be at least {FEWEST_DRAWS}, for the intervals")
    if isinstance(table_or_path, Table):
        table = table_or_path
    else:
        table = read_table(
            table_or_path,
            columns=columns,
            protocol=protocol,
            higher_is_better=higher_is_better,
            coordinate=coordinate,
        )
    fit_law, compare_law = STEPS_OF_COORDINATE[table.coordinate]
    with threadpool_limits(1, user_api="blas"):  # the matrices are small: threads would wait for each other
        law = fit_law(table, seed, draws)
        law = compare_law(table, law) if compare else law
    return Law(**{field.name: getattr(law, field.name) for field in fields(law)})


def _fit_by_size(table: Table, seed: int, draws: int) -> FittedLaw:
    rng = np.random.default_rng(seed)
    return size_law(table, fit_with_noise(table, rng, draws), rng, seed=seed, draws=draws)


def _fit_by_loss(table: Table, seed: int, draws: int) -> FittedLaw:
    return loss_law(table, fit_forms(table, seed=seed, draws=draws), seed=seed)


STEPS_OF_COORDINATE = {
    "teacher_params": (_fit_by_size, compare_size_law),
    "teacher_loss": (_fit_by_loss, compare_loss_law),
}
