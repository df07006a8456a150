"""What can this table identify? From a canonical table to the cells, offsets and location coefficients of the joint
fit.

Follows `table`, feeds `joint`. A coefficient enters only when the table can tell it apart from the others: the exponent
of tokens needs students whose tokens per parameter vary on their own, a teacher-tokens exponent needs teachers that do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.errors import LawError
from gaplaw.law.flags import Flag
from gaplaw.law.teacher_size.problem import Design
from gaplaw.law.teacher_size.surface import References

LEAST_SPREAD_LN = 0.05  # ln units by which a covariate must vary on its own to earn a coefficient


@dataclass(frozen=True, kw_only=True, slots=True)
class TableDesign:
    """The design of a table, and what its indices mean.

    Attributes:
        design: cells, rows and coefficients for the joint fit.
        references: where the logs are measured from.
        fixed: coefficients that the table cannot tell, at their assumed value.
        student_params, student_tokens: per student configuration, N_S and D_S (None without tokens).
        offset_student: offset → student configuration.
        has_pairs: whether offsets are per student and pairing group.
        flags: what was noticed on the way.
    """

    design: Design
    references: References
    fixed: dict[str, float]  # coefficients the table cannot tell
    student_params: np.ndarray  # per student configuration
    student_tokens: np.ndarray | None
    offset_student: np.ndarray  # offset → student configuration
    has_pairs: bool
    flags: tuple[Flag, ...]


def design_of_table(table) -> TableDesign:
    """Lay a table of teacher sizes out for the joint fit.

    Args:
        table: a `Table` in teacher_params.

    Raises:
        LawError: no student meets two teachers, so that nothing about teachers can be learnt.
    """
    frame, flags, fixed = table.frame, [], {}
    n, t = (frame[name].to_numpy(np.float64) for name in ("student_params", "teacher_params"))
    tokens = _column(frame, "student_tokens")
    teacher_tokens = _column(frame, "teacher_tokens")
    student, student_first = _label(n, tokens)
    teacher, _ = _label(t, teacher_tokens)
    cell, first = _label(student, teacher)
    offset, has_pairs = student, False
    if "group" in frame:
        group_label, _ = _label(student, np.unique(frame["group"].astype(str), return_inverse=True)[1])
        if group_label.max() > student.max() and np.mean(np.bincount(group_label)) >= 2:
            offset, has_pairs = group_label, True
        elif group_label.max() > student.max():
            flags.append(
                Flag("pairing_ignored", "the pairing groups hold one run each, so offsets are per student", "note")
            )
    if np.bincount(student).max() < 2:
        raise LawError(
            "no student in this table meets two teachers: nothing about the choice of a teacher can be learnt"
        )

    z = np.log(n)
    center_z = float(z[student_first].mean())
    z = z - center_z
    w = np.zeros_like(z) if tokens is None else np.log(tokens / n)
    center_w = float(w[student_first].mean())
    w = w - center_w
    x = np.log(t)
    v = np.zeros_like(z) if teacher_tokens is None else np.log(teacher_tokens / t)
    center_v = float(np.median(v[first]))
    v = v - center_v

    names, columns = ["kappa"], [np.ones_like(z)]
    if np.ptp(z[student_first]) > LEAST_SPREAD_LN:
        names.append("p")
        columns.append(z)
    else:
        fixed["p"] = 1.0
    if (
        tokens is not None
        and _own_spread(w[student_first], z[student_first]) > LEAST_SPREAD_LN
        and len(student_first) >= 3
    ):
        names.append("q")
        columns.append(w)
    elif tokens is not None and np.ptp(w[student_first]) > LEAST_SPREAD_LN:
        flags.append(
            Flag(
                "tokens_confounded",
                "students' tokens per parameter vary only with their size: p holds along this path, "
                "and the effect of tokens alone is unknown",
                "warning",
            )
        )
    if teacher_tokens is not None and _own_spread(v[first], x[first]) > LEAST_SPREAD_LN:
        names.append("r")
        columns.append(-v)
    design = Design(
        names=tuple(names),
        x=x[first],
        columns=np.stack(columns, axis=1)[first],
        cell=cell,
        offset=offset,
        student=student[first],
        teacher=teacher[first],
        y=frame["student_loss"].to_numpy(np.float64),
        weight=_weights(frame),
    )
    _, offset_first = np.unique(offset, return_index=True)
    return TableDesign(
        design=design,
        references=References(student=center_z, tokens_per_param=center_w, teacher_tokens_per_param=center_v),
        fixed=fixed,
        student_params=n[student_first],
        student_tokens=None if tokens is None else tokens[student_first],
        offset_student=student[offset_first],
        has_pairs=has_pairs,
        flags=tuple(flags),
    )


def _column(frame, name):
    return frame[name].to_numpy(np.float64) if name in frame else None


def _weights(frame) -> np.ndarray:
    if "weight" not in frame:
        return np.ones(len(frame))
    weight = frame["weight"].to_numpy(np.float64)
    return weight / weight[weight > 0].mean()


def _label(*columns) -> tuple[np.ndarray, np.ndarray]:
    """Dense labels of unique rows, (n,), and the first row of each."""
    rows = np.stack([np.asarray(c, np.float64) for c in columns if c is not None], axis=1)
    _, first, label = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return label.ravel(), first


def _own_spread(values: np.ndarray, other: np.ndarray) -> float:
    """sd of what is left of `values` after a line in `other`."""
    lines = np.stack([np.ones_like(other), other], axis=1)
    return float(np.std(values - lines @ np.linalg.lstsq(lines, values, rcond=None)[0]))
