"""Small sweeps and stand-in workers that the sweep tests share. The stand-in is a real process without JAX: it trains
nothing and writes numbers that depend on the cell alone, so that everything around the trainer can be tested in
seconds."""

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from gaplaw import DataSpec, ModelSpec, Sweep, TrainSpec, results
from gaplaw.canonical import from_dict
from gaplaw.errors import SignalError
from gaplaw.spec import Cell, Execution
from gaplaw.spec.teacher_signal import LIVE
from gaplaw.sweep.engines.engine import how_it_ended
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.running import worker

ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("forkserver")  # pays for imports once
FORK.set_forkserver_preload(["gaplaw.sweep", "tests.sweep.sweeps"])


@dataclass(frozen=True)
class StandIn:
    """An executor whose workers take `seconds` and misbehave on the cells whose names hold the given text."""

    seconds: float = 0.0
    crash: str = ""
    error: str = ""
    not_finite: str = ""
    crash_twice: str = ""  # each time after it has got further
    damaged_once: str = ""  # a teacher cache is found damaged

    def prepare(self, execution):
        pass

    def start(self, folder, group_id, execution):
        log = folder.part("logs") / f"{group_id}.log"
        process = FORK.Process(target=_work, args=(self, folder.address, folder.settings, group_id, str(log)))
        process.start()
        return StandInHandle(process=process, log=log)

    def task(self, folder, task):
        """What takes the place of training: rows whose loss is a function of the cell."""
        cells = [from_dict(Cell, cell) for cell in task["cells"]]
        execution = from_dict(Execution, task["execution"])
        with open(folder.out / "ran.txt", "a") as log:
            log.write("".join(f"{cell.name}\n" for cell in cells))
        time.sleep(self.seconds)
        for cell in cells:
            if self.crash and self.crash in cell.name:
                os.kill(os.getpid(), signal.SIGKILL)
            step = folder.checkpoint_step(task["group"])
            if self.crash_twice and self.crash_twice in cell.name and step < 2:
                (folder.part("checkpoints") / task["group"] / str(step + 1)).mkdir(parents=True)
                os.kill(os.getpid(), signal.SIGKILL)
            if self.damaged_once and self.damaged_once in cell.name and ran(folder.out).count(cell.name) == 1:
                raise SignalError("000000.npz: not a readable part of a teacher cache")
            if self.error and self.error in cell.name:
                raise ValueError(f"cannot train {cell.name}")
            loss = 2 + int(cell.fingerprint, 16) / 16**12
            row = results.describe_cell(cell, task["roles"][cell.id])
            row |= {"sweep": task["sweep"], "group_id": task["group"], "group_cells": len(cells)}
            if self.not_finite and self.not_finite in cell.name:
                row |= {"status": "failed", "error": "training loss became nan"}
            else:
                row |= {"status": "done", "loss_student_ce_nats": loss}
            curve = [{"tokens": 1, "training_loss_nats": loss}]
            if cell.id in task["keeps"] and row["status"] == "done":
                entry = folder.store / "teachers" / cell.id
                (entry / "checkpoint").mkdir(parents=True, exist_ok=True)
                results.write_cell(entry, row, curve, execution)
                folder.publish(entry)
            results.write_cell(folder.out, row, curve, execution)
            folder.publish(*(folder.part(part) / f"{cell.id}.parquet" for part in ("curves", "cells")))


def _work(stand_in: StandIn, out: str, settings: dict[str, str], group_id: str, log: str) -> None:
    os.environ.update(settings)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    worker._end_with_parent = lambda: (
        None
    )  # no pipe from the parent here; the real thing is tested with the real worker
    worker._run_task = stand_in.task
    sys.exit(worker.main(out, group_id))


@dataclass(frozen=True, kw_only=True)
class StandInHandle:
    process: object
    log: Path

    def poll(self):
        return self.process.exitcode

    def ending(self):
        return how_it_ended(self.process.exitcode)

    def stop(self):
        self.process.kill()
        self.process.join()


def ran(out: Path) -> list[str]:
    """The names of the cells that stand-in workers have begun, in order, repeats included."""
    log = out / "ran.txt"
    return log.read_text().split() if log.exists() else []


def shape(width: int) -> ModelSpec:
    return ModelSpec(vocab_size=256, width=width, depth=1, heads=1, head_size=width, hidden=2 * width, max_length=16)


def texts(folder: Path) -> Path:
    """A folder of small English-like documents; made once."""
    folder.mkdir(parents=True, exist_ok=True)
    words = (
        "the",
        "law",
        "of",
        "a",
        "teacher",
        "and",
        "its",
        "student",
        "holds",
        "when",
        "both",
        "read",
        "same",
        "text",
    )
    for number in range(12):
        chosen = (words[(number * 7 + i * i + i // 5) % len(words)] for i in range(900))
        (folder / f"{number}.txt").write_text(" ".join(chosen))
    return folder


def tiny_sweep(
    source: str,
    *,
    name="tiny",
    student_tokens=16 * 8 * 12,
    teacher_tokens=16 * 8 * 16,
    teachers=(6, 8),
    students=(4,),
    seeds=(0, 1),
    baseline=True,
    init="scratch",
    signal=LIVE,
):
    """Two teachers, one student shape, two seeds: 8 cells in 5 groups, a few thousand tokens each."""
    data = DataSpec(source=source, sequence_tokens=16, validation_tokens=512)
    return Sweep.grid(
        name=name,
        question="Does it run?",
        data=data,
        teachers=[shape(width) for width in teachers],
        students=[shape(width) for width in students],
        teacher_train=TrainSpec(tokens=teacher_tokens, batch_sequences=8),
        student_train=TrainSpec(tokens=student_tokens, batch_sequences=8),
        seeds=seeds,
        baseline=baseline,
        init=init,
        signal=signal,
    )


def checkpoint_steps(out: Path) -> dict[str, int]:
    """The newest checkpoint of every group in training."""
    return {entry.name: RunFolder(out).checkpoint_step(entry.name) for entry in (out / "checkpoints").glob("*")}


QUICK = Execution(workers=2, chunk_tokens=128, steps_per_dispatch=8, evaluations=1)


def one_teacher(sweep: Sweep) -> Sweep:
    """The first teacher of a sweep and its students: two groups, for workers that take long to start."""
    first = sweep.teachers[0]
    students = tuple(cell for cell in sweep.students if cell.teacher.fingerprint == first.fingerprint)
    return replace(sweep, teachers=(first,), students=students, baselines=())
