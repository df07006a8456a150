"""What does one run amount to, on one page? A self-contained HTML report of a run folder.

Last file of the report. Reads the folder that it is given and nothing else, fits nothing, and says plainly what is
missing: no law, a law that refused, failed cells, damaged files, an empty sweep. The page carries its figures, styles
and one small script for sorting inside itself and stays readable on a phone, on paper and to a screen reader.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from gaplaw.errors import TableError
from gaplaw.files import renamed
from gaplaw.packages import shipped_experiments
from gaplaw.report import curve_figures, detail_figures, figures, law_figures, summary, tables
from gaplaw.report.advice import advice
from gaplaw.report.panels import representative
from gaplaw.report.protocols import protocol_labels
from gaplaw.report.run_folder import Run, read_run
from gaplaw.report.style import FEWEST_FOR_A_CURVE, NARROW, WIDE, missing, size_text, svg
from gaplaw.report.view import View, view

_FOLDER = Path(__file__).resolve().parent


def write_report(
    folder: Path | str, law=None, choice=None, out: Path | str | None = None, name: str | None = None
) -> Path:
    """Write the report page of a run folder and return its path.

    Args:
        folder: what `gaplaw run --out` wrote; may be unfinished or empty.
        law: a fitted `gaplaw.law.Law` of this run, or None: the page then says that none was fitted.
        choice: a `gaplaw.law.decide.choose.Choice` to put first, or None: then only the measured students are asked
            about.
        out: the page; by default FOLDER/report.html.
        name: what the commands on the page call the folder, where that is no local path.
    Raises: TableError when the folder is missing or the page cannot be written.
    """
    page = render(read_run(folder, name), law, choice)
    path = Path(out) if out is not None else Path(folder) / "report.html"
    try:
        with renamed(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as fault:
        raise TableError(f"{path}: the report cannot be written ({fault.strerror or fault})") from None
    return path


def render(run: Run, law=None, choice=None) -> str:
    """The page of a run as one HTML string."""
    seen = view(run.cells, law.coordinate if law else None)
    found = summary.headline(seen, law)
    loader = jinja2.FileSystemLoader(_FOLDER)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["size"] = size_text
    environment.filters["raised"] = lambda text: Markup(re.sub(r"\^([\w.]+)", r"<sup>\1</sup>", str(escape(text))))
    environment.filters["cell"] = tables.cell_text
    environment.filters["flops"] = tables.flops_text
    asked = summary.measured_choices(law, seen) if law is not None else []
    page = environment.get_template("report.html.j2").render(
        run=run,
        seen=seen,
        law=law,
        choice=choice,
        asked=asked,
        headline=found,
        advice=advice(found, seen, law, choice, **_names(run), unfinished=_unfinished(run, seen)),
        law_protocol=_law_protocol(seen, law),
        points_only=any(len(student.teachers) < FEWEST_FOR_A_CURVE for student in seen.students),
        facts=_facts(run, seen),
        pictures=_pictures(run, seen, law, choice, asked),
        not_drawn=_not_drawn(seen),
        optima=tables.optima_rows(law) if law else [],
        parameters=tables.parameter_rows(law) if law else [],
        rivals=tables.rivals_table(law) if law else {"head": [], "rows": [], "sentence": ""},
        noise=tables.noise_rows(law) if law else [],
        table=tables.cells_table(seen),
        failures=tables.failures(seen),
        forecast=tables.forecast_rows(seen, run.forecast),
        provenance=tables.provenance(seen, run.name),
        commands=_commands(run, seen, law),
        question=run.sweep.question if run.sweep else None,
        title=run.sweep.name if run.sweep else run.name,
    )
    return page.replace(" %", "\u00a0%")  # a number and its sign stay on one line


def _names(run: Run) -> dict[str, str]:
    """What commands on the page call this run. An experiment that is none of the project's own may be any file."""
    own = run.sweep is not None and (shipped_experiments() / f"{run.sweep.name}.py").is_file()
    return {"folder": run.folder, "experiment": run.sweep.name if own else "EXPERIMENT"}


def _unfinished(run: Run, seen: View) -> int:
    return len(seen.failed) + (len(run.sweep.missing) if run.sweep else 0)


def _law_protocol(seen: View, law) -> str:
    """The short name of the law's protocol, where the run has several."""
    named = law.provenance.get("protocol") if law is not None else None
    return protocol_labels(seen.protocols).get(named, "") if named else ""


def _facts(run: Run, seen: View) -> list[tuple[str, str]]:
    rows = seen.rows
    done = int((rows["status"] == "done").sum())
    planned = run.sweep.count if run.sweep else None
    seeds = sorted({int(v) for s in seen.students for v in s.rows["seed"].dropna()})
    return [
        ("teachers", str(len(seen.ladder))),
        ("student sizes", str(len({student.params for student in seen.students}))),
        *([("protocols", str(len(seen.by_protocol)))] if len(seen.by_protocol) > 1 else []),
        ("seeds a student", str(len(seeds)) if seeds else "none stated"),
        ("cells done", f"{done} of {planned}" if planned else str(done)),
        ("failed", str(len(seen.failed) + len(run.damaged))),
    ]


def _pictures(run: Run, seen: View, law, choice, asked) -> dict[str, Markup]:
    """Every figure of the page, at both widths, with its text alternative."""
    drawn = representative(seen)
    measured = representative(view(run.cells)) if seen.coordinate == "teacher_loss" else drawn
    labels = "; ".join(student.label for student in drawn.students) or "no student yet"
    draw: dict[str, tuple[Callable, str]] = {
        "student_loss": (lambda width: figures.student_loss(drawn, law, width=width), _describe(drawn)),
        "pairing": (
            lambda width: detail_figures.seed_pairing(measured, width=width),
            f"Spread of the difference between two teachers with seeds unpaired and paired, for: {labels}.",
        ),
        "curves": (
            lambda width: curve_figures.loss_curves(measured, run.curves, width=width),
            f"Validation loss against training tokens for the teachers and for: {labels}.",
        ),
        "domains": (
            lambda width: detail_figures.domain_losses(measured, width=width),
            f"Loss above each domain's best teacher against teacher size, for: {labels}.",
        ),
        "fidelity": (
            lambda width: detail_figures.fidelity(measured, width=width),
            f"KL divergence from the teacher, agreement and calibration error against teacher size, for: {labels}.",
        ),
    }
    if law is not None:
        draw["optimal_teacher"] = (
            lambda width: law_figures.optimal_teacher(law, teachers=seen.ladder, width=width),
            "Optimal teacher against student size: each student's optimum with its interval, and the law with its "
            "bands.",
        )
        if seen.students and not law.refused:
            draw["residuals"] = (
                lambda width: law_figures.residuals(seen, law, width=width),
                "Residuals of the law against teacher size and against student size.",
            )
        main = choice or (asked[-1]["choice"] if asked else None)
        if main is not None and not law.refused:
            draw["regret"] = (
                lambda width: law_figures.regret(law, main, teachers=seen.ladder, width=width),
                f"Expected regret against teacher for a student of {size_text(main.student_params)} parameters.",
            )
    return {name: picture(function, text) for name, (function, text) in draw.items()}


def _not_drawn(seen: View) -> str:
    """Which students have no panel, and where their numbers stand; an empty text when all have one."""
    drawn = {student.label for student in representative(seen).students}
    rest = [student.label for student in seen.students if student.label not in drawn]
    if not rest:
        return ""
    return (
        f"The figures of single students show {len(drawn)} of {len(seen.students)} students, evenly spaced by size. "
        f"Not drawn: {'; '.join(rest)}. Their results stand in the list below and in the table of cells."
    )


def _describe(seen: View) -> str:
    best = "; ".join(f"{s.label}: lowest at teacher {summary.lowest_text(s, seen.coordinate)}" for s in seen.students)
    return f"Validation loss of each student against its teacher. {best or 'Nothing was measured yet'}."


def picture(draw: Callable, text: str) -> Markup:
    """A figure for wide screens and paper, and the same drawn again for phones, as one picture element."""
    figure = draw(WIDE)
    if missing(figure):
        return Markup(f'<p class="missing">{escape(missing(figure))}</p>')
    wide, narrow = svg(figure), svg(draw(NARROW))
    source, image = (
        "data:image/svg+xml;base64," + base64.b64encode(drawn.encode()).decode() for drawn in (narrow, wide)
    )
    alt = escape(text)
    return Markup(
        f'<picture><source media="screen and (max-width: 640px)" srcset="{source}">'
        f'<img src="{image}" alt="{alt}"></picture>'
    )


def _commands(run: Run, seen: View, law) -> list[str]:
    folder, name = _names(run).values()
    protocol = f" --protocol '{seen.protocols[0]}'" if len(seen.protocols) > 1 else ""
    question = ""
    if law is not None and law.students:
        teachers = ",".join(summary.value_name(value, seen.coordinate) for value in seen.ladder)
        question = f" --student {law.students[-1].student_params:.0f} --teachers {teachers}"
    return [
        f"gaplaw run {name} --out {folder}",
        f"gaplaw fit {folder}{protocol} --out {folder}/law.json",
        f"gaplaw choose {folder}/law.json{question or ' --student SIZE --teachers SIZE,SIZE'}",
        f"gaplaw report {folder}",
    ]
