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
    """Fit the teacher law T* = k N_S^p (D_S/N_S)^q to a table of student losses.

    Args:
        table_or_path: DataFrame, CSV, parquet file or sweep folder, or a `Table`.
        columns: canonical name → name in the table (mapping or 'student_params=NS,student_loss=LS').
        protocol: which protocol to fit when the table holds several.
        higher_is_better: losses are scores.
        coordinate: 'teacher_params' or 'teacher_loss' when the table has both.
        seed: of the draws. draws: how many, at least 20.
        compare: also fit the rival laws and rules (leave-one-student-out).

    Raises:
        TableError: the table cannot be read. LawError: nothing about teachers can be learnt from it, or too few draws.
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
