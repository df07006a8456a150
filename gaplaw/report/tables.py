"""Which tables stand on the page? Optima, parameters, noise, rivals, cells, failures, provenance, as plain rows of
text.

After summary in the walk of the report. A number that is missing is an empty text or says that it is missing; none is
filled in.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from gaplaw.law.text import interval_words
from gaplaw.report.figures import censored_text, teacher_text
from gaplaw.report.style import size_text
from gaplaw.report.view import View

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def flops_text(value) -> str:
    """7.2e9 → '7.20·10⁹'; a missing value is an empty text."""
    if value is None or pd.isna(value):
        return ""
    mantissa, exponent = f"{float(value):.2e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(_RAISED)}"


def optima_rows(law) -> list[dict]:
    """Per measured student: what the three methods say, and whether they disagree."""
    rows = []
    for found in law.students:
        row = dict.fromkeys(("joint", "quadratic", "akima"), ("not computed", "")) | {
            "student": size_text(found.student_params),
            "tokens": size_text(found.student_tokens),
            "teachers": found.teachers,
        }
        for method in found.methods:
            row[method.method] = _method_words(method, found.student_params, law.coordinate)
        row["disagree"] = "disagree" if found.disagree else "agree"
        row["spread"] = "" if found.spread is None else f"×{np.exp(found.spread):.2f}"
        rows.append(row)
    return rows


def _method_words(method, student_params: float, coordinate: str) -> tuple[str, str]:
    """A method's optimum and its interval, or why there is none."""
    if method.censored:
        return censored_text(method.censored, coordinate), method.note
    if method.point is None:
        return "none", method.note
    return teacher_text(method.point, coordinate, student_params), interval_words(method.interval90, coordinate)


def parameter_rows(law) -> list[dict]:
    """Every law parameter with its intervals and the bootstrap's independent check."""
    return [
        {
            "name": name,
            "point": _number(p.point),
            "interval50": _pair(p.interval50),
            "interval90": _pair(p.interval90),
            "bootstrap90": _pair(p.bootstrap90),
            "note": p.note,
        }
        for name, p in law.parameters.items()
    ]


def noise_rows(law) -> list[tuple[str, str]]:
    """Where the scatter comes from, in words and nats."""
    noise = law.noise
    named = [
        ("residual, one run", noise.residual_sd_nats, "nats"),
        ("between seeds, as measured", noise.seed_sd_nats, "nats"),
        ("between seeds, pairing removed", noise.paired_sd_nats, "nats"),
        ("a teacher's identity", noise.teacher_sd_nats, "nats"),
        ("optimum from student to student", noise.student_scatter_ln, "in ln T*"),
    ]
    return [(text, "not measurable here" if value is None else f"sd {value:.4f} {unit}") for text, value, unit in named]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _pair(interval) -> str:
    if interval is None:
        return "not computed"
    low, high = interval
    return f"{'−∞' if low is None else _number(low)} to {'∞' if high is None else _number(high)}"


def provenance(seen: View, folder_name: str) -> list[tuple[str, str]]:
    """Where the numbers come from: code, versions, seeds, data, machine, time. Several values mean that runs
    differed.
    """
    rows = seen.rows
    done = rows[rows["status"] == "done"]
    commits = [
        f"{c[:12]}{' with uncommitted changes' if dirty is True or dirty == 1 else ''}" for c, dirty in _pairs(done)
    ]
    seeds = sorted(int(v) for v in done["seed"].dropna().unique())
    finished = _texts(done, "finished_at")
    wall = (
        done.drop_duplicates("group_id")["group_wall_seconds"].sum()
        if "group_wall_seconds" in done and len(done)
        else None
    )
    named = [
        ("run folder", folder_name),
        ("sweep", ", ".join(_texts(rows, "sweep"))),
        ("code (git commit)", ", ".join(dict.fromkeys(commits))),
        ("versions", "; ".join(_versions(done))),
        ("protocols", "; ".join(_texts(rows[rows["role"] == "student"], "protocol"))),
        ("seeds", ", ".join(map(str, seeds)) if len(seeds) < 13 else f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}"),
        ("corpus", ", ".join(_texts(done, "data_source"))),
        ("corpus manifest", ", ".join(_texts(done, "data_manifest"))),
        ("tokenizer", ", ".join(_texts(done, "data_tokenizer"))),
        ("validation tokens", ", ".join(size_text(float(v)) for v in _texts(done, "validation_tokens"))),
        ("device", ", ".join(_texts(done, "device"))),
        ("time in groups, summed", "" if wall is None else f"{wall / 60:.1f} minutes"),
        ("finished", finished[-1] if finished else ""),
        ("schema version", ", ".join(_texts(rows, "schema_version"))),
    ]
    return [(name, value or "not recorded") for name, value in named]


def _texts(frame: pd.DataFrame, column: str) -> list[str]:
    return sorted(frame[column].dropna().astype(str).unique()) if column in frame else []


def _pairs(frame: pd.DataFrame) -> list[tuple[str, object]]:
    if "git_commit" not in frame or "git_dirty" not in frame:
        return []
    known = frame[frame["git_commit"].notna()]
    return sorted(set(zip(known["git_commit"].astype(str), known["git_dirty"].fillna(False).astype(bool), strict=True)))


def _versions(frame: pd.DataFrame) -> list[str]:
    out = []
    for text in _texts(frame, "versions"):
        try:
            out.append(", ".join(f"{name} {version}" for name, version in json.loads(text).items()))
        except (ValueError, AttributeError):
            out.append(text)
    return out


_RIVALS = (
    ("name", "rival", str),
    ("kind", "kind", str),
    ("loso_regret_nats", "regret, student left out", "{:.4f}".format),
    ("worst_regret_nats", "worst", "{:.4f}".format),
    ("largest_out_regret_nats", "regret, largest left out", "{:.4f}".format),
    ("loso_log_size", "error in ln T", "{:.2f}".format),
    ("aicc", "AICc", "{:.1f}".format),
    ("share_of_wins", "wins", lambda v: f"{100 * v:.0f} %"),
    ("note", "note", str),
)


def rivals_table(law) -> dict:
    """The law's rivals, best first: head, rows, and the verdict in a sentence; columns that nobody fills are left
    out.
    """
    shown = [
        (key, head, form) for key, head, form in _RIVALS if any(row.get(key) not in (None, "") for row in law.rivals)
    ]
    rows = [[_cell(row.get(key), form) for key, _, form in shown] for row in law.rivals]
    verdict = law.comparison.get("verdict")
    sentence = f"Verdict of the comparison: {verdict}." if verdict else ""
    winner, share = law.comparison.get("winner"), law.comparison.get("winner_share")
    if winner is not None and share is not None:
        sentence += (
            f" Lowest regret on students left out: {winner}, first in {100 * share:.0f} % of resamples of students."
        )
    return {"head": [(head, form is not str) for _, head, form in shown], "rows": rows, "sentence": sentence.strip()}


def _cell(value, form) -> str:
    if value is None or value == "" or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    return form(value)


def cell_text(name: str) -> str:
    """A cell's or group's name for people. Where students start in several ways, the name of a run without a teacher
    says whose batches it shares; it was never pruned itself, so this is said in words: s1k-alone-prune-r0-1a2b3c."""
    return _ALONE.sub(lambda m: f"-{m[2]}, no teacher, batches as for students {_STARTS[m[1]]}", name)


_ALONE = re.compile(r"-alone-(prune|scratch)-(\S+)$")
_STARTS = {"prune": "that are pruned", "scratch": "from scratch"}

_CELL_COLUMNS = (
    ("cell_id", "cell", cell_text),
    ("role", "role", str),
    ("student_params", "S", size_text),
    ("teacher_params", "T", size_text),
    ("seed", "seed", lambda v: f"{v:.0f}"),
    ("student_tokens", "tokens", size_text),
    ("student_loss", "loss, nats", lambda v: f"{v:.4f}"),
    ("teacher_loss", "teacher loss", lambda v: f"{v:.4f}"),
    ("kl_teacher_student_nats", "KL, nats", lambda v: f"{v:.4f}"),
    ("agreement", "agreement", lambda v: f"{v:.3f}"),
    ("calibration_error", "calibration", lambda v: f"{v:.4f}"),
    ("student_training_flops", "6SD", flops_text),
    ("teacher_forward_flops", "2TD", flops_text),
    ("wall_seconds", "seconds", lambda v: f"{v:.1f}"),
    ("status", "status", str),
)


_TEXTS = (str, cell_text)
_ROLES = {"teacher": 0, "assistant": 1, "baseline": 2, "student": 3}


def cells_table(seen: View) -> dict:
    """The table of cells: its head, how many rows it has, and those rows as HTML; a missing value is an empty text.

    The HTML is made column by column, each distinct value once: a template takes ten times as long for thousands of
    rows.
    """
    order = ["role", "student_params", "teacher_params", "seed"]
    frame = seen.rows.sort_values(order, key=lambda c: c.map(_ROLES.get) if c.name == "role" else c)
    shown = [(c, head, form) for c, head, form in _CELL_COLUMNS if c in frame and frame[c].notna().any()]
    columns = [_html(frame[c], form, first=number == 0) for number, (c, _, form) in enumerate(shown)]
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in zip(*columns, strict=True))
    return {"head": [(head, form not in _TEXTS) for _, head, form in shown], "count": len(frame), "body": Markup(body)}


def _html(values: pd.Series, form, *, first: bool) -> list[str]:
    """A column's cells, each with the key that it is sorted by; the first column names the row."""
    start, end = ('<th scope="row"', "</th>") if first else ("<td" if form in _TEXTS else '<td class="n"', "</td>")

    def element(text: str, key: object) -> str:
        return f'{start} data-key="{escape(key)}">{escape(text)}{end}'

    made = {v: element(form(v), form(v) if form in _TEXTS else float(v)) for v in values.dropna().unique()}
    missing = element("", "")
    return [made.get(value, missing) for value in values]


def failures(seen: View) -> list[dict]:
    return [
        {
            "cell": cell_text(row["cell_id"] or "a row without a name"),
            "status": row["status"] if row["status"] != "done" else "done, but without a loss",
            "error": row["error"] if isinstance(row["error"], str) and row["error"] else "no error text was recorded",
        }
        for _, row in seen.failed.iterrows()
    ]


FORETOLD = ("cell_id", "estimated_seconds", "flops")


def forecast_rows(seen: View, forecast: dict | None) -> list[dict]:
    """Per finished group that was foretold whole: seconds and FLOPs foretold and done (FLOPs in the law's
    accounting).
    """
    columns = {"group_id", "group_wall_seconds", "student_training_flops"}
    if forecast is None or not columns <= set(seen.rows):
        return []
    done = seen.rows[(seen.rows["status"] == "done") & seen.rows["group_id"].notna()]
    joined = done.merge(forecast["cells"], on="cell_id", how="left")
    rows = []
    for group, cells in joined.groupby("group_id", sort=True):
        foretold, taken = (
            cells["estimated_seconds"].astype(float).sum(skipna=False),
            cells["group_wall_seconds"].iloc[0],
        )
        if pd.isna(foretold) or pd.isna(taken):
            continue
        forward = cells["teacher_forward_flops"].fillna(0) if "teacher_forward_flops" in cells else 0
        rows.append(
            {
                "group": cell_text(group),
                "foretold": f"{foretold:.3g}",
                "taken": f"{taken:.3g}",
                "ratio": f"{taken / foretold:.2g}" if foretold else "",
                "flops_foretold": flops_text(cells["flops"].sum()),
                "flops": flops_text((cells["student_training_flops"] + forward).sum()),
            }
        )
    return rows
