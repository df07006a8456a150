"""Which rows are teachers, students and baselines, and which differences between them are paired?

After style in the walk of analysis. Takes the frame that `gaplaw.read` returns, or any outside table under the canonical names
(student_params, teacher_params, student_loss, …), and sorts it for drawing. Means and error bars here describe what was measured; whatever
a decision rests on comes from `gaplaw.law`.

Pairing: one student seed means the same initialisation and batches under every teacher, so a student's losses are read as
L[seed, teacher] = seed effect + teacher effect + residual. The seed effect cancels between teachers; drawn seeds have it
removed, and error bars rest on the residual alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.style import size_text

_ALIASES = {"loss_student_ce_nats": "student_loss", "loss_teacher_ce_nats": "teacher_loss"}
_NUMBERS = (
    "student_params", "student_tokens", "teacher_params", "teacher_tokens", "student_loss", "teacher_loss", "no_teacher_loss",
    "seed",
)  # fmt: skip
_DOMAIN = re.compile(r"domain_(\w+)_loss_nats")
DONE = "done"


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """One student size under one protocol and token budget: the unit that has an optimal teacher.

    rows: finished distilled rows. baseline: finished rows of the same student without a teacher (may be empty).
    """

    params: float
    tokens: float | None
    protocol: str | None
    label: str
    rows: pd.DataFrame
    baseline: pd.DataFrame

    @property
    def teachers(self) -> np.ndarray:
        """Teacher sizes that this student was distilled from, in ascending order, in parameters."""
        return np.unique(self.rows["teacher_params"].to_numpy(float))

    @property
    def baseline_loss(self) -> float | None:
        """Mean loss without a teacher, nats; None when it was not measured."""
        if len(self.baseline):
            return float(self.baseline["student_loss"].mean())
        column = self.rows.get("no_teacher_loss")
        return None if column is None or column.isna().all() else float(column.mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A results table sorted by role; `failed` holds every row that is not done, whatever its role."""

    students: tuple[Student, ...]
    teachers: pd.DataFrame
    failed: pd.DataFrame
    rows: pd.DataFrame

    @property
    def protocols(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s.protocol for s in self.students if s.protocol))

    @property
    def teacher_sizes(self) -> np.ndarray:
        """Every teacher size on the axis, in ascending order, in parameters."""
        return np.unique(np.concatenate([s.teachers for s in self.students])) if self.students else np.array([])


def view(cells: pd.DataFrame | None) -> View:
    """Sort a results table by role. An empty or missing table gives an empty view; nothing is dropped unseen."""
    frame = _canonical(pd.DataFrame() if cells is None else cells)
    finished = (frame["status"] == DONE) & frame["student_loss"].notna()
    done, failed = frame[finished], frame[~finished]
    distilled = done[(done["role"] == "student") & done["teacher_params"].notna()]
    baselines = done[done["role"] == "baseline"]
    many_protocols = distilled["protocol"].nunique() > 1
    students = []
    keys = ["protocol", "student_params", "student_tokens"]
    for (protocol, params, tokens), rows in distilled.groupby(keys, dropna=False, sort=True):
        many_budgets = distilled.loc[distilled["student_params"] == params, "student_tokens"].nunique() > 1
        label = size_text(params)
        label += f", {size_text(tokens)} tokens" if many_budgets else ""
        label += f" ({protocol})" if many_protocols else ""
        own = baselines[(baselines["student_params"] == params) & _same(baselines["student_tokens"], tokens)]
        students.append(
            Student(
                params=float(params),
                tokens=None if pd.isna(tokens) else float(tokens),
                protocol=None if pd.isna(protocol) else str(protocol),
                label=label,
                rows=rows,
                baseline=own,
            )
        )
    students.sort(key=lambda s: (s.protocol or "", s.params, s.tokens or 0.0))
    return View(students=tuple(students), teachers=done[done["role"] == "teacher"], failed=failed, rows=frame)


def _canonical(cells: pd.DataFrame) -> pd.DataFrame:
    frame = cells.copy()
    for column, name in _ALIASES.items():
        if column in frame and name not in frame:
            frame[name] = frame[column]
    for name in _NUMBERS:
        frame[name] = pd.to_numeric(frame[name]).astype(float) if name in frame else np.nan
    if "role" not in frame:  # an outside table: every row is a distilled student
        frame["role"] = "student"
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


def _same(column: pd.Series, value) -> pd.Series:
    return column.isna() if pd.isna(value) else column == value


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """A student's losses with the seed effects taken out.

    means: teacher_params, loss_nats, half_width_nats (90 % interval of the teacher's effect; NaN when it cannot be known), seeds.
    points: teacher_params, seed, loss_nats, one per measured row.
    paired_sd_nats, unpaired_sd_nats: spread of one run around its teacher's mean, with and without removing the seed effect
    (NaN for a single seed).
    """

    means: pd.DataFrame
    points: pd.DataFrame
    paired_sd_nats: float
    unpaired_sd_nats: float


def paired(student: Student) -> Paired:
    """Split L[seed, teacher] into a seed effect, a teacher effect and a residual by least squares.

    half width = t(0.95, dof) · s · sqrt((1 − 1/J) / R_j), s² = RSS / dof, for J teachers and R_j runs of teacher j: the
    interval of a teacher's distance from the student's mean, pooled over teachers (Cousineau 2005; Morey 2008 for the factor).
    """
    rows = student.rows
    teachers, column = np.unique(rows["teacher_params"].to_numpy(float), return_inverse=True)
    key = rows["pair"] if rows["pair"].notna().all() else rows["seed"].fillna(0)
    seeds, line = np.unique(key.to_numpy(), return_inverse=True)
    loss = rows["student_loss"].to_numpy(float)
    count, repeats = len(loss), np.bincount(column)
    design = np.zeros((count, len(teachers) + len(seeds)))
    design[np.arange(count), column] = 1.0
    design[np.arange(count), len(teachers) + line] = 1.0
    effect, _, rank, _ = np.linalg.lstsq(design, loss, rcond=None)
    seed_effect = effect[len(teachers) :]
    seed_effect = seed_effect - seed_effect[line].mean()  # the mean over runs keeps the level of the losses
    adjusted = loss - seed_effect[line]
    mean = np.bincount(column, adjusted) / repeats
    freedom = count - rank
    spread = float(np.sqrt(np.sum((adjusted - mean[column]) ** 2) / freedom)) if freedom > 0 else np.nan
    raw_mean = np.bincount(column, loss) / repeats
    raw_freedom = count - len(teachers)
    raw = float(np.sqrt(np.sum((loss - raw_mean[column]) ** 2) / raw_freedom)) if raw_freedom > 0 else np.nan
    factor = stats.t.ppf(0.95, freedom) * np.sqrt((1 - 1 / len(teachers)) / repeats) if freedom > 0 else np.nan
    return Paired(
        means=pd.DataFrame(
            {"teacher_params": teachers, "loss_nats": mean, "half_width_nats": spread * factor, "seeds": repeats}
        ),
        points=pd.DataFrame(
            {"teacher_params": teachers[column], "seed": rows["seed"].to_numpy(), "loss_nats": adjusted}
        ),
        paired_sd_nats=spread,
        unpaired_sd_nats=raw,
    )


def domains(frame: pd.DataFrame) -> dict[str, str]:
    """Domain → its loss column, for every domain that has a value."""
    found = {m.group(1): c for c in frame.columns if (m := _DOMAIN.fullmatch(str(c)))}
    return {domain: column for domain, column in sorted(found.items()) if frame[column].notna().any()}


def by_teacher(student: Student, column: str) -> pd.Series:
    """Mean of one column over seeds, indexed by teacher size in ascending order."""
    return student.rows.groupby("teacher_params")[column].mean().dropna().sort_index()


def averaged_curves(curves: pd.DataFrame, rows: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """Validation-loss curves averaged over seeds: pairs of (key values, frame of tokens and loss_nats)."""
    seen = curves.dropna(subset=["validation_loss_nats"]).merge(rows[["cell_id", *keys]], on="cell_id", how="inner")
    for key, part in seen.groupby(keys, sort=True):
        loss = part.groupby("tokens")["validation_loss_nats"].mean().sort_index()
        yield key, pd.DataFrame({"tokens": loss.index.to_numpy(float), "loss_nats": loss.to_numpy(float)})
