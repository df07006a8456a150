"""A small simulated sweep under the real column names, for the tests of the report and of the notebooks.

The rows are described by `gaplaw.results.describe_cell` from real specifications; only the losses come from a known
bowl, so that the figures and the page meet exactly the columns that a run writes.
"""

from __future__ import annotations

import json

import numpy as np

from gaplaw.columns import domain_column
from gaplaw.results import describe_cell, write_cell, write_rows
from gaplaw.spec import DataSpec, Execution, ModelSpec, Sweep, TrainSpec
from gaplaw.spec.sizes import count_params

DOMAINS = ("code", "docstrings", "reference", "tests")
TRUE_RATIO = 9.0
STUDENT_WIDTHS, TEACHER_WIDTHS = (8, 12, 16, 24), (16, 24, 32, 48, 64, 96, 128)


def shape(width: int) -> ModelSpec:
    return ModelSpec(
        vocab_size=256, width=width, depth=2, heads=2, head_size=width // 2, hidden=2 * width, max_length=64
    )


def sweep(students=STUDENT_WIDTHS, teachers=TEACHER_WIDTHS, seeds=(0, 1, 2)) -> Sweep:
    return Sweep.grid(
        name="simulated",
        question="Does the page show what a known bowl holds?",
        data=DataSpec(manifest="0" * 12),
        teachers=[shape(width) for width in teachers],
        students=[shape(width) for width in students],
        teacher_train=TrainSpec(tokens=12_000_000),
        student_train=TrainSpec(tokens=8_000_000),
        seeds=seeds,
    )


def write_folder(folder, *, noise_nats=0.002, seed_nats=0.02, fail=(), curves=True, bowl=None, grid=None, **sizes):
    """Write a sweep folder with simulated losses. `fail`: numbers of the student cells that failed. Returns the
    folder.
    """
    rng = np.random.default_rng(0)
    grid = grid or sweep(**sizes)
    bowl = bowl or asymmetric_bowl
    of_pair: dict = {}
    for number, cell in enumerate(grid.cells):
        role = grid.role(cell)
        row = describe_cell(cell, role)
        size = row["student_params"]
        offset = of_pair.setdefault(cell.seed, rng.normal(0, seed_nats)) if role != "teacher" else 0.0
        loss = 1.2 + 6.0 * size**-0.22 + offset
        if role == "student":
            loss += 0.01 + bowl(np.log(row["teacher_params"] / (TRUE_RATIO * size))) + rng.normal(0, noise_nats)
        row |= (
            _outcome(row, cell, role, loss, rng)
            if number - len(grid.teachers) - len(grid.baselines) not in fail
            else {
                "status": "failed",
                "error": "FloatingPointError: the loss became NaN at step 512",
            }
        )
        execution = Execution()
        if curves and row["status"] == "done":
            write_cell(folder, row, _curve(row, loss), execution)
        else:
            write_rows(folder, "cells", cell.id, [row])
    return folder


def asymmetric_bowl(u):
    """Nats above the optimum at ln-distance u: steep on the side of weak teachers, four times flatter on the other."""
    return 0.08 * (np.sqrt(1 + (u * np.where(u < 0, 1.0, 0.5)) ** 2) - 1)


def _outcome(row, cell, role, loss, rng) -> dict:
    outcome = {
        "sweep": "simulated",
        "status": "done",
        "loss_student_ce_nats": loss,
        "calibration_error": 0.01 + 0.02 * rng.random(),
        "validation_tokens": 262_144,
        "training_loss_nats": loss - 0.01,
        "wall_seconds": 3.0,
        "group_wall_seconds": 36.0,
        "group_cells": 12,
        "compile_seconds": 8.0,
        "group_id": f"group-{cell.teacher.name if cell.teacher else cell.name}",
        "device": "cpu",
        "device_count": 1,
        "process_count": 1,
        "versions": json.dumps({"python": "3.11.7", "gaplaw": "0.1.0", "jax": "0.10.2"}),
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": False,
        "finished_at": "2026-11-22T12:00:00+00:00",
    }
    for shift, domain in enumerate(DOMAINS):
        outcome[domain_column(domain)] = loss + 0.1 * shift + rng.normal(0, 0.002)
    if role == "student":
        size = count_params(cell.teacher.model).non_embedding
        outcome["loss_teacher_ce_nats"] = 1.2 + 6.0 * size**-0.22
        outcome["kl_teacher_student_nats"] = 0.1 + 0.03 * np.log(size / row["student_params"])
        outcome["agreement"] = 0.8 - 0.03 * np.log(size / row["student_params"])
        outcome["teacher_calibration_error"] = 0.012
    return outcome


def _curve(row, loss) -> list[dict]:
    tokens = np.unique(np.geomspace(2e5, row["student_tokens"], 8).astype(int))
    values = loss + 2.0 * ((tokens / tokens[-1]) ** -0.3 - 1)
    return [
        {"tokens": int(t), "training_loss_nats": float(v), "validation_loss_nats": float(v)}
        for t, v in zip(tokens, values, strict=True)
    ]
