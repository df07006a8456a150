"""The verbs that ask a table or a law: fit, choose, predict, next, report, power. No JAX behind any of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from gaplaw.cli.options import (
    File,
    Flag,
    Folder,
    LawFile,
    Number,
    Size,
    Source,
    file_here,
    named,
    numbers,
    print_json,
    required,
    size,
)

REFUSED = 3

Columns = Annotated[str | None, named("NAME=COLUMN,...")]
Protocol = Annotated[str | None, named("PROTOCOL")]
TheStudent = Annotated[str, required("SIZE")]
Teachers = Annotated[str | None, named("SIZE,...")]
Counts = Annotated[str, arg(metavar="N,...")]
BudgetFlops = Annotated[float, required("FLOPS")]


def fit(
    source: Source,
    /,
    columns: Columns = None,
    protocol: Protocol = None,
    coordinate: Annotated[
        Literal["teacher_params", "teacher_loss"] | None, named("teacher_params|teacher_loss")
    ] = None,
    higher_is_better: Flag = False,
    out: File = None,
    json: Flag = False,
) -> int:
    """Fit the teacher law to a sweep folder, or to any parquet or CSV table, with its uncertainty.

    Example: gaplaw fit runs/quickstart

    Example: gaplaw fit table.csv --columns student_params=NS,teacher_loss=LT,student_loss=LS --out law.json

    Ends with 3 when the law is refused (too few teachers or students, no interior minimum, ...); the file is written
    anyway and carries the reasons.

    Args:
        source: what `gaplaw run` wrote, or a .parquet or .csv file with one row per student run.
        columns: which columns of the table mean what; canonical names need no entry.
        protocol: which protocol to fit, where the table holds several.
        coordinate: how teachers are measured, where the table has both.
        higher_is_better: the losses are scores, such as accuracies.
        out: where the law goes (DIR/law.json for a folder, law.json for a table).
        json: print the law as one JSON object (its draws are only in the file).
    """
    from gaplaw import law as laws
    from gaplaw.cli.law_text import law_text
    from gaplaw.objects import brought_here, is_url

    out = file_here(out, "--out")
    law = laws.fit(source, columns, protocol=protocol, higher_is_better=higher_is_better, coordinate=coordinate)
    with brought_here(source, "law.json") as (place, put):
        if is_url(source) and not place.suffix:
            place.mkdir(exist_ok=True)
        of_folder = place.is_dir()
        path = out or (place / "law.json" if of_folder else Path("law.json"))
        law.save(path)
        path = put(path) if of_folder and not out else path
    if json:
        print_json({"law_file": str(path)} | {k: v for k, v in law.to_dict().items() if k != "surface"})
    else:
        print(law_text(law))
        print(f"law written to {path}")
    return _verdict(law.flags)


def choose(
    law: LawFile,
    /,
    student: TheStudent,
    tokens: Size = None,
    teachers: Teachers = None,
    teachers_file: File = None,
    cost: Literal["best", "inference", "pretraining", "both"] = "best",
    price_per_flop: Number = None,
    json: Flag = False,
) -> int:
    """Choose a teacher for a new student: expected regret and compute of each, and how far to trust it.

    Example: gaplaw choose runs/quickstart/law.json --student 3B --tokens 100B --teachers 7B,13B,70B

    Ends with 3 when the law gives no answer, for instance far outside the measured sizes.

    Args:
        law: a file that `gaplaw fit` wrote.
        student: the student's parameters, such as 190M.
        tokens: tokens that the student will train on.
        teachers: parameters of the teachers at hand (losses, for a law in teacher loss), separated by commas.
        teachers_file: a .csv with columns name, params, tokens, loss instead.
        cost: which teacher FLOPs count against it.
        price_per_flop: nats that a FLOP is worth (what the student itself would gain from it, if not given).
        json: print one JSON object.
    """
    from gaplaw.errors import LawError
    from gaplaw.law import load_law

    listed = file_here(teachers_file, "--teachers-file")
    if (teachers is None) == (listed is None):
        raise LawError("choose: needs either --teachers 7B,13B,... or --teachers-file FILE")
    choice = load_law(law).choose(
        student_params=size(student, "--student"),
        student_tokens=size(tokens, "--tokens"),
        teachers=listed if teachers is None else [part.strip() for part in teachers.split(",") if part.strip()],
        cost=cost,
        price_per_flop=price_per_flop,
    )
    if json:
        print_json(choice.to_dict())
    else:
        print(choice.text())
    return _verdict(choice.flags)


def predict(law: LawFile, table: Source, /, columns: Columns = None, json: Flag = False) -> int:
    """Predict the student's loss for each row of a table, in order.

    Example: gaplaw predict law.json new_students.csv --json

    Args:
        law: a file that `gaplaw fit` wrote.
        table: a .csv or .parquet file with the columns that the law asks for.
        columns: which columns of the table mean what.
        json: print {"student_loss": [...]} instead of one number a line.
    """
    from gaplaw.law import load_law

    losses = load_law(law).predict(table, columns=columns)
    if json:
        print_json({"student_loss": losses})
    else:
        for loss in losses:
            print(f"{loss:.6f}")
    return 0


def next_cells(
    law: LawFile,
    /,
    budget_flops: BudgetFlops,
    target: TheStudent,
    tokens: Size = None,
    json: Flag = False,
) -> int:
    """Rank the cells worth running next, by expected drop in regret at a target student per FLOP; say when to stop.

    Example: gaplaw next law.json --budget-flops 1e18 --target 3B

    Args:
        law: a file that `gaplaw fit` wrote.
        budget_flops: FLOPs that may be spent.
        target: parameters of the student that the choice is for.
        tokens: tokens that it will train on.
        json: print one JSON object.
    """
    from gaplaw.law import load_law
    from gaplaw.law.decide.next_cell import next_cells as rank

    found = rank(
        load_law(law),
        budget_flops=budget_flops,
        target_student_params=size(target, "--target"),
        target_student_tokens=size(tokens, "--tokens"),
    )
    if json:
        print_json(found.to_dict())
    else:
        print(found.text())
    return 0


def report(folder: Folder, /, law: File = None, out: File = None) -> int:
    """Write the report page of a run folder: one self-contained HTML file.

    Example: gaplaw report runs/quickstart

    Args:
        folder: what `gaplaw run` wrote; may be unfinished.
        law: the law to show (DIR/law.json if it is there).
        out: the page (DIR/report.html if not given).
    """
    from gaplaw.law import load_law
    from gaplaw.objects import brought_here
    from gaplaw.report.page import write_report
    from gaplaw.report.run_folder import require_run

    out = file_here(out, "--out")
    with brought_here(folder, "cells", "curves", "sweep.json", "law.json", "forecast.json") as (place, put):
        require_run(place, folder)
        given = law or place / "law.json"
        page = write_report(place, law=load_law(given) if law or given.exists() else None, out=out, name=folder)
        print(f"report written to {page if out else put(page)}")
    return 0


def power(
    students: Counts = "4,6",
    teachers: Counts = "5,7",
    seeds: Counts = "1,3",
    smallest: Annotated[str, arg(metavar="SIZE")] = "50M",
    largest: Annotated[str, arg(metavar="SIZE")] = "1.6B",
    target: Size = None,
    noise: Annotated[float, arg(metavar="NATS")] = 0.003,
    ratio: Annotated[float, arg(metavar="X")] = 4.0,
    tolerance: Annotated[float, arg(metavar="NATS")] = 0.002,
    simulations: Annotated[int, arg(metavar="N")] = 20,
    json: Flag = False,
) -> int:
    """Tell from simulated tables how many teachers, students and seeds a question needs.

    Example: gaplaw power --students 4,6 --teachers 5,7,9 --seeds 1,3 --noise 0.003

    Args:
        students: counts of student sizes to try, separated by commas.
        teachers: counts of teachers to try.
        seeds: counts of seeds to try.
        smallest: smallest student of the grid.
        largest: largest student of the grid.
        target: the student that the question is about (twice the largest, if not given).
        noise: standard deviation of a loss, in nats.
        ratio: the best teacher's size over its student's, in the simulated truth.
        tolerance: regret that counts as an answer, in nats.
        simulations: tables per design.
        json: print one JSON object.
    """
    from gaplaw.law.simulation.power import power as simulate

    found = simulate(
        students=numbers(students, "--students"),
        teachers=numbers(teachers, "--teachers"),
        seeds=numbers(seeds, "--seeds"),
        smallest_student=size(smallest, "--smallest"),
        largest_student=size(largest, "--largest"),
        target_student_params=size(target, "--target"),
        tolerance_nats=tolerance,
        simulations=simulations,
        noise_nats=noise,
        k=ratio,
    )
    if json:
        print_json(found.to_dict())
    else:
        print(found.text())
    return 0


def _verdict(flags) -> int:
    """3 and one line when a flag is a refusal, else 0."""
    refusals = [flag for flag in flags if flag.severity == "refusal"]
    if not refusals:
        return 0
    print(f"gaplaw: refused: {' '.join(refusals[0].message.split())}", file=sys.stderr)
    return REFUSED
