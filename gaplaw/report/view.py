"""Which rows are teachers, students and baselines, and which differences between them are paired?

After style and protocols in the walk of the report. Takes the frame that `gaplaw.read` returns, or any outside table
under the canonical names (student_params, teacher_params, student_loss, …), and sorts it for drawing. Means and error
bars here describe what was measured; whatever a decision rests on comes from `gaplaw.law`.

Pairing: one student seed means the same initialisation and batches under every teacher, so a student's losses are read
as L[seed, teacher] = seed effect + teacher effect + residual. The seed effect cancels between teachers; drawn seeds
have it removed, and error bars rest on the residual alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from gaplaw.law.table.read import roles_of
from gaplaw.report.protocols import protocol_labels
from gaplaw.report.style import size_text

_ALIASES = {"loss_student_ce_nats": "student_loss", "loss_teacher_ce_nats": "teacher_loss"}
_NUMBERS = (
    "student_params",
    "student_tokens",
    "teacher_params",
    "teacher_tokens",
    "student_loss",
    "teacher_loss",
    "no_teacher_loss",
    "seed",
)
_DOMAIN = re.compile(r"domain_(\w+)_loss_nats")
DONE = "done"


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """One student size under one protocol and token budget: the unit that has an optimal teacher.

    size_label: its size, and its tokens where sizes have several budgets. protocol_label: what tells its protocol from
    the others of the table, empty when there is one. rows: finished distilled rows, with the teacher's coordinate
    (parameters, or loss in nats) as column `teacher`. baseline: finished rows of the same student without a teacher
    (may be empty).
    """

    params: float
    tokens: float | None
    protocol: str | None
    size_label: str
    protocol_label: str
    rows: pd.DataFrame
    baseline: pd.DataFrame

    @property
    def label(self) -> str:
        """Its name in a sentence: '894 student', or '894 student, temperature 2' where a table has several
        protocols.
        """
        return f"{self.size_label} student" + (f", {self.protocol_label}" if self.protocol_label else "")

    @property
    def teachers(self) -> np.ndarray:
        """The teachers that this student was distilled from, in ascending order of the coordinate."""
        return np.unique(self.rows["teacher"].to_numpy(float))

    @property
    def baseline_loss(self) -> float | None:
        """Mean loss without a teacher, nats; None when it was not measured."""
        if len(self.baseline):
            return float(self.baseline["student_loss"].mean())
        column = self.rows.get("no_teacher_loss")
        return None if column is None or column.isna().all() else float(column.mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A results table sorted by role. teachers: with assistants, which are no students. failed: rows that are not
    done.
    """

    coordinate: str  # what a teacher is known by: 'teacher_params' or 'teacher_loss'
    students: tuple[Student, ...]
    teachers: pd.DataFrame
    failed: pd.DataFrame
    rows: pd.DataFrame

    @property
    def protocols(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s.protocol for s in self.students if s.protocol))

    @property
    def by_protocol(self) -> dict[str, tuple[Student, ...]]:
        """Protocol label → its students, in the order of `students`; one entry, under an empty label, for a single
        protocol.
        """
        labels = dict.fromkeys(s.protocol_label for s in self.students)
        return {label: tuple(s for s in self.students if s.protocol_label == label) for label in labels}

    @property
    def ladder(self) -> np.ndarray:
        """Every teacher on the axis, in ascending order of the coordinate."""
        return np.unique(np.concatenate([s.teachers for s in self.students])) if self.students else np.array([])


def view(cells: pd.DataFrame | View | None, coordinate: str | None = None) -> View:
    """Sort a results table by role. An empty or missing table gives an empty view; nothing is dropped unseen.

    Args:
        cells: a table, or a view, which is returned as it is while its coordinate is the one asked for.
        coordinate: 'teacher_params' or 'teacher_loss'; without it, parameters wherever any are known.
    """
    if isinstance(cells, View):
        if coordinate in (None, cells.coordinate):
            return cells
        cells = cells.rows
    frame = _canonical(pd.DataFrame() if cells is None else cells)
    if coordinate is None:
        known = frame["teacher_params"].notna().any() or not frame["teacher_loss"].notna().any()
        coordinate = "teacher_params" if known else "teacher_loss"
    frame["teacher"] = frame[coordinate]
    finished = (frame["status"] == DONE) & frame["student_loss"].notna()
    done, failed = frame[finished], frame[~finished]
    distilled = done[(done["role"] == "student") & done["teacher"].notna()]
    baselines = done[done["role"] == "baseline"]
    students = []
    keys = ["protocol", "student_params", "student_tokens"]
    protocols = distilled["protocol"]
    short = protocol_labels(sorted(protocols.dropna().unique()) + ([None] if protocols.isna().any() else []))
    for (protocol, params, tokens), rows in distilled.groupby(keys, dropna=False, sort=True):
        many_budgets = distilled.loc[distilled["student_params"] == params, "student_tokens"].nunique() > 1
        own = baselines[(baselines["student_params"] == params) & _same(baselines["student_tokens"], tokens)]
        protocol = None if pd.isna(protocol) else protocol
        students.append(
            Student(
                params=float(params),
                tokens=None if pd.isna(tokens) else float(tokens),
                protocol=None if protocol is None else str(protocol),
                size_label=size_text(params) + (f", {size_text(tokens)} tokens" if many_budgets else ""),
                protocol_label=short[protocol],
                rows=rows,
                baseline=_of_the_same_batches(own, rows),
            )
        )
    students.sort(key=lambda s: (s.protocol or "", s.params, s.tokens or 0.0))
    ladder = done[done["role"].isin(["teacher", "assistant"])]
    return View(coordinate=coordinate, students=tuple(students), teachers=ladder, failed=failed, rows=frame)


def of_the_law(seen: View, law) -> View:
    """The same view with the students of the law's own protocol only; all of them where the law does not name one."""
    named = law.provenance.get("protocol") if law is not None else None
    own = tuple(s for s in seen.students if named is None or s.protocol in (None, named))
    return replace(seen, students=own)


def _canonical(cells: pd.DataFrame) -> pd.DataFrame:
    frame = cells.copy()
    for column, name in _ALIASES.items():
        if column in frame and name not in frame:
            frame[name] = frame[column]
    for name in _NUMBERS:
        frame[name] = pd.to_numeric(frame[name]).astype(float) if name in frame else np.nan
    if "role" not in frame:  # an outside table: every row is a distilled student
        frame["role"] = "student"
    frame["role"] = roles_of(frame)
    if "status" not in frame:
        frame["status"] = DONE
    for name in ("protocol", "pair", "cell_id", "error"):
        if name not in frame:
            frame[name] = None
    if "spec" in frame and "init" in frame:
        # Pruned students meet their target within 5 %, each a little differently: the target is the student's size.
        pruned = frame.index[(frame["init"] == "prune") & frame["spec"].notna()]
        frame.loc[pruned, "student_params"] = [
            json.loads(frame.at[i, "spec"]).get("target_params") or frame.at[i, "student_params"] for i in pruned
        ]
    return frame.reset_index(drop=True)


def _of_the_same_batches(baselines: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Baselines whose seed and batch order are those of the students; all of them where a table does not tell."""
    keys = ["seed", "batch_seed"]
    if not set(keys) <= set(baselines) or baselines.empty:
        return baselines
    ours, theirs = (map(tuple, frame[keys].astype(float).to_numpy().tolist()) for frame in (rows, baselines))
    ours = set(ours)
    same = [pair in ours for pair in theirs]
    return baselines[same] if any(same) else baselines


def _same(column: pd.Series, value) -> pd.Series:
    return column.isna() if pd.isna(value) else column == value


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """A student's losses with the seed effects taken out.

    means: teacher, value, half_width (90 % interval of the teacher's effect; NaN when it cannot be known), runs.
    points: teacher, value, one per measured row, in the order of the rows.
    paired_sd, unpaired_sd: spread of one run around its teacher's mean, with and without removing the seed effect (NaN
    for a single seed). All in the unit of the column.
    """

    means: pd.DataFrame
    points: pd.DataFrame
    paired_sd: float
    unpaired_sd: float


def paired(student: Student, column: str = "student_loss") -> Paired:
    """Split value[seed, teacher] into a seed effect, a teacher effect and a residual by least squares.

    half width = t(0.95, dof) · s · sqrt((1 − 1/J) / R_j), s² = RSS / dof, for J teachers and R_j runs of teacher j: the
    interval of a teacher's distance from the student's mean, pooled over teachers (Cousineau 2005; Morey 2008 for the
    factor).
    """
    rows = student.rows[student.rows[column].notna()]
    teachers, line = np.unique(rows["teacher"].to_numpy(float), return_inverse=True)
    key = rows["pair"] if rows["pair"].notna().all() else rows["seed"].fillna(0)
    seeds, seed = np.unique(key.to_numpy(), return_inverse=True)
    value = rows[column].to_numpy(float)
    count, runs = len(value), np.bincount(line)
    both = np.zeros((len(teachers), len(seeds)))
    np.add.at(both, (line, seed), 1.0)
    # Normal equations, from counts and sums of the values less their mean: rows are many, teachers and seeds are few.
    counts = np.block([[np.diag(both.sum(axis=1)), both], [both.T, np.diag(both.sum(axis=0))]])
    rest = value - value.mean()
    effects, _, rank, _ = np.linalg.lstsq(counts, np.r_[np.bincount(line, rest), np.bincount(seed, rest)], rcond=1e-9)
    of_seed = effects[len(teachers) :][seed]
    adjusted = value - (of_seed - of_seed.mean())  # the mean over runs keeps the level
    mean = np.bincount(line, adjusted) / runs
    freedom = count - rank
    spread = _sd(adjusted - mean[line], freedom)
    raw = _sd(value - (np.bincount(line, value) / runs)[line], count - len(teachers))
    factor = special.stdtrit(freedom, 0.95) * np.sqrt((1 - 1 / len(teachers)) / runs) if freedom > 0 else np.nan
    return Paired(
        means=pd.DataFrame({"teacher": teachers, "value": mean, "half_width": spread * factor, "runs": runs}),
        points=pd.DataFrame({"teacher": teachers[line], "value": adjusted}),
        paired_sd=spread,
        unpaired_sd=raw,
    )


def _sd(residual: np.ndarray, freedom: int) -> float:
    return float(np.sqrt(np.sum(residual**2) / freedom)) if freedom > 0 else np.nan


def indistinguishable(student: Student) -> tuple[np.ndarray, float, float | None]:
    """Teachers whose paired mean is not significantly above the lowest, the teacher of the lowest, and the tolerance in
    nats.

    The tolerance is t(0.95, dof) · s · sqrt(2 / R), one-sided 95 % for a paired difference of two means of R runs; None
    for a single run of each, and then only the lowest is returned.
    """
    split = paired(student)
    means = split.means
    excess = (means["value"] - means["value"].min()).to_numpy()
    best = float(means["teacher"].iloc[int(np.argmin(excess))])
    share = np.sqrt(1 - 1 / len(means))
    widest = float((means["half_width"] / share * np.sqrt(2)).max()) if share > 0 else np.nan
    if not np.isfinite(widest):
        return np.array([best]), best, None
    return means["teacher"].to_numpy()[excess <= widest], best, widest


def domains(frame: pd.DataFrame) -> dict[str, str]:
    """Domain → its loss column, for every domain that has a value."""
    labels: dict[str, str] = {}
    for told in frame.get("domain_labels", pd.Series(dtype=str)).dropna().unique():
        labels |= json.loads(told)
    found = {labels.get(c, m.group(1)): c for c in frame.columns if (m := _DOMAIN.fullmatch(str(c)))}
    return {domain: column for domain, column in sorted(found.items()) if frame[column].notna().any()}


def averaged_curves(curves: pd.DataFrame, rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """Validation loss averaged over seeds: one line per token count, one column per value of `key` in the rows."""
    own = curves[curves["cell_id"].isin(rows["cell_id"])]
    seen = own.dropna(subset=["validation_loss_nats"]).merge(rows[["cell_id", key]], on="cell_id", how="inner")
    table = seen.pivot_table(index="tokens", columns=key, values="validation_loss_nats", aggfunc="mean")
    return table.astype(float).rename_axis(columns=None)
