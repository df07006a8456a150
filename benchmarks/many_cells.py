"""How do the commands that only read grow with the number of cells? Seconds and peak memory of each, a process of its
own.

    python -m benchmarks.many_cells [--cells 500,5000] [--plan-cells 1000,10200] [--rounds 1] [--at FOLDER]

Makes run folders of synthetic finished rows (the columns of a real run, specification and loss curve included), one
file a cell and table as workers write them, and times whole commands, imports included: `gaplaw.read`, `gaplaw report`,
`gaplaw status`, and `gaplaw plan` of a sweep of which no cell has run. The last column is time's growth over the cells'
growth: 1 is linear.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gaplaw.results import describe_cell, write_cell
from gaplaw.spec import DataSpec, Execution, ModelSpec, ObjectiveSpec, Sweep, TrainSpec
from gaplaw.sweep.folder.run_folder import RunFolder

EXPERIMENT = "from benchmarks.many_cells import sweep_of\n\nsweep = sweep_of({cells})\n"
READ = "import gaplaw, sys; print(len(gaplaw.read(sys.argv[1])))"
CURVE_POINTS = 20


def model(width: int) -> ModelSpec:
    return ModelSpec(vocab_size=256, width=width, depth=2, heads=1, head_size=width, hidden=4 * width, max_length=64)


def sweep_of(cells: int) -> Sweep:
    """A sweep of about so many cells: many teachers, students and seeds, in the proportions of a large study."""
    seeds = 9 if cells < 1000 else 20
    shapes = 5 if cells < 1000 else 10
    teachers = max(2, round(cells / (seeds * shapes)) - 1)
    recipe = TrainSpec(tokens=2**20, batch_sequences=32, learning_rate=0.01)
    return Sweep.grid(
        name=f"many{cells}",
        question="Does time grow with the number of cells only?",
        data=DataSpec(sequence_tokens=64),
        teachers=[model(12 + 2 * number) for number in range(teachers)],
        students=[model(4 + 2 * number) for number in range(shapes)],
        teacher_train=recipe,
        student_train=recipe,
        objective=ObjectiveSpec(soft_weight=1.0, temperature=3.0),
        seeds=range(seeds),
    )


def fill(out: Path, sweep: Sweep) -> None:
    """A row and a curve of every cell, with losses of a capacity gap that has an optimum."""
    draw = np.random.default_rng(0)
    (out / "cells").mkdir(parents=True)
    RunFolder(out).adopt(sweep)
    for group in sweep.groups():
        for cell in group.cells:
            row = describe_cell(cell, sweep.role(cell))
            size, teacher = np.log(row["student_params"]), np.log(row.get("teacher_params") or 1.0)
            gap = 0.0 if cell.teacher is None else 0.02 * (teacher - 1.1 * size) ** 2
            loss = 5.0 - 0.25 * size + gap + draw.normal(0, 0.003)
            row |= {"sweep": sweep.name, "status": "done", "loss_student_ce_nats": loss, "validation_tokens": 65536}
            row |= {"agreement": 0.4, "calibration_error": 0.03, "training_loss_nats": loss + 0.1}
            row |= {f"domain_{name}_loss_nats": loss + shift for name, shift in (("code", -0.3), ("prose", 0.2))}
            row |= {"group_id": group.id, "group_cells": len(group.cells), "group_wall_seconds": 60.0}
            row |= {"compile_seconds": 5.0, "wall_seconds": 60.0 / len(group.cells), "device": "cpu"}
            row |= {"finished_at": "2026-01-01T00:00:00+00:00", "git_commit": "0" * 40, "git_dirty": False}
            if cell.teacher is not None:
                row |= {"loss_teacher_ce_nats": 5.0 - 0.25 * teacher, "kl_teacher_student_nats": 0.3 + gap}
            tokens = cell.steps * cell.batch_tokens // CURVE_POINTS
            curve = [
                {"tokens": tokens * at, "training_loss_nats": loss + 2 / at, "validation_loss_nats": loss + 1.9 / at}
                for at in range(1, CURVE_POINTS + 1)
            ]
            write_cell(out, row, curve, Execution())


def measured(command: list[str], environment: dict) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak memory in MB of a command. Ends the benchmark when the command fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    text = process.stderr.read()
    _, code, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if code:
        sys.exit(f"{' '.join(command)}: {text.decode()}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="500,5000")
    parser.add_argument("--plan-cells", default="1000,10200")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--at", help="where the folders are made or, being there, used again")
    given = parser.parse_args()
    home = Path(given.at or tempfile.mkdtemp(prefix="gaplaw-many-"))
    environment = os.environ | {"GAPLAW_CACHE": str(home / "cache")}
    start = [sys.executable, "-m", "gaplaw.cli"]
    cases: dict[str, list[tuple[int, list[str]]]] = {}
    for wanted in (int(text) for text in given.cells.split(",")):
        out, sweep = home / f"rows{wanted}", sweep_of(wanted)
        if not (out / "sweep.json").exists():
            fill(out, sweep)
        for name, command in (
            ("read", [sys.executable, "-c", READ, str(out)]),
            ("report", [*start, "report", str(out)]),
            ("status", [*start, "status", str(out)]),
        ):
            cases.setdefault(name, []).append((len(sweep.cells), command))
    for wanted in (int(text) for text in given.plan_cells.split(",")):
        file = home / f"many{wanted}.py"
        file.write_text(EXPERIMENT.format(cells=wanted))
        command = [*start, "plan", str(file), "--out", str(home / f"plan{wanted}")]
        cases.setdefault("plan", []).append((len(sweep_of(wanted).cells), command))
    print(f"{'command':8} {'cells':>7} {'seconds':>8} {'processor':>10} {'peak MB':>8} {'growth':>7}")
    for name, sizes in cases.items():
        before = None
        for cells, command in sizes:
            runs = [measured(command, environment) for _ in range(given.rounds)]
            seconds, busy, peak = (min(values) for values in zip(*runs, strict=True))
            growth = f"{seconds / before[1] / (cells / before[0]):.2f}" if before else ""
            print(f"{name:8} {cells:7} {seconds:8.1f} {busy:10.1f} {peak:8.0f} {growth:>7}", flush=True)
            before = (cells, seconds)


if __name__ == "__main__":
    main()
