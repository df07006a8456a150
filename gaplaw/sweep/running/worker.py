"""What does one worker process do? One group, or its part of one: load teacher and corpus, train, write rows. `python
-m` it.

    python -m gaplaw.sweep.running.worker OUT GROUP_ID

The task OUT/tasks/GROUP_ID.json says which cells. The process ends at once when its standard input closes, that is when
the `run` that started it is gone. Everything it leaves is written whole or not at all, so it may be killed at any
moment. Of the processes of a group, number 0 alone reports and writes; any of them says why it failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from gaplaw import __version__, results
from gaplaw.canonical import from_dict
from gaplaw.credentials import mask_credentials
from gaplaw.errors import CheckpointError, DataError, GaplawError, SignalError, SpecError, SweepError
from gaplaw.files import read_json, write_json
from gaplaw.spec import Cell, Execution, Group, ModelSpec
from gaplaw.sweep.folder.object_store import folder_at
from gaplaw.sweep.folder.run_folder import NOT_WRITABLE, RunFolder, seconds_now
from gaplaw.sweep.running.pin_core import stay_on_a_core

# Exit codes that tell the parent what to do next; any other failure is a crash, worth another try cell by cell.
DONE, CANNOT_WRITE, BAD_TEACHER, HOPELESS, BAD_SIGNAL = 0, 5, 6, 7, 8
REPORT_SECONDS = 0.5
NO_HOST_MEMORY = "no pinned host memory, so a teacher whose outputs are cached stays in the devices' memory"


def main(out: str, group_id: str, run_task: Callable[[RunFolder, dict], None] | None = None) -> int:
    """Run one group. Returns the exit code; the error's one line goes into the progress file, its traceback to the
    log.
    """
    folder = folder_at(out)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        task = folder.task(group_id)
        if task is None:
            raise DataError(f"{folder.name}/tasks/{group_id}.json: no such task")
        (run_task or _run_task)(folder, task)
    except Exception as fault:
        traceback.print_exc()
        return _tell_failure(folder, group_id, one_line(fault), _code(fault))
    return DONE


def _tell_failure(folder: RunFolder, group_id: str, error: str, code: int) -> int:
    """Leave the error where the parent looks, unless another process of the group failed first. Returns: the exit
    code.
    """
    path = folder.part("progress") / f"{group_id}.json"
    try:
        if (read_json(path) or {}).get("phase") != "failed":
            write_json(path, {"group": group_id, "phase": "failed", "error": error, "updated": seconds_now()})
            folder.publish(path)
    except (OSError, SweepError):
        return CANNOT_WRITE
    return code


def _code(fault: Exception) -> int:
    if isinstance(fault, CheckpointError):
        return BAD_TEACHER
    if isinstance(fault, SignalError):
        return BAD_SIGNAL
    if isinstance(fault, DataError | SpecError):
        return HOPELESS
    if isinstance(fault, SweepError) or (isinstance(fault, OSError) and fault.errno in NOT_WRITABLE):
        return CANNOT_WRITE
    return 1


def one_line(fault: BaseException) -> str:
    """An exception as one line for a row: our own messages as they are, others with their kind."""
    message = mask_credentials(" ".join(str(fault).split()))[:500]
    return message if isinstance(fault, GaplawError) else f"{type(fault).__name__}: {message}"


def _end_with_parent() -> None:
    """End the process when the parent's end of our standard input closes, however the parent ended."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def _run_task(folder: RunFolder, task: dict) -> None:
    done = train(folder, task)
    write(folder, task, done)
    forget(folder, task, done)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A group's outcomes as one of its processes holds them.

    teacher_model: the shape that its teacher has, in the store. first: whether this is the process that writes.
    """

    execution: Execution
    outcomes: list
    first: bool
    teacher_model: ModelSpec | None = None


def train(folder: RunFolder, task: dict) -> Trained:
    """Train the group of a task, from its checkpoint if there is one."""
    execution = from_dict(Execution, task["execution"])
    cells = tuple(from_dict(Cell, cell) for cell in task["cells"])
    group = Group(cells=cells, sweep_temperatures=tuple(task.get("sweep_temperatures", ())))
    from gaplaw import data

    corpus = data.load(group.cells[0].data)  # before the processes meet: packing may take longer than they wait
    folder.bring_checkpoint(task["group"])

    def give_up(error: str) -> None:
        os._exit(_tell_failure(folder, task["group"], error, HOPELESS))

    from gaplaw.train.hosts import connect

    first = connect(execution, give_up) == 0
    report = _Reporter(folder, task["group"], [cell.name for cell in group.cells]) if first else None
    if first:
        report.write(phase="start", step=0, steps=group.cells[0].steps, tokens=0, tokens_per_second=0.0, losses_nats={})
    _cache_compilations()

    import jax

    from gaplaw.train import checkpoint, run_group
    from gaplaw.train.mesh import aside, has_pinned_host_memory, make_mesh
    from gaplaw.train.teacher import stored_teacher

    if jax.default_backend() == "cpu":
        stay_on_a_core(execution)
    teacher, stored, signals = None, None, folder.store / "signals"
    if group.teacher is not None:
        entry = folder.teacher_entry(group.teacher)
        if entry is None:  # an object store's, not yet looked at by this machine
            folder.refresh(now=True)
            entry = folder.teacher_entry(group.teacher)
        row = entry and folder.teacher_row(entry, group.teacher)
        if not row:
            raise CheckpointError(f"{folder.store}: no finished teacher {group.teacher.id}")
        place = folder.checkpoint_of(entry)
        teacher = checkpoint.load(place, make_mesh(execution.mesh))
        stored = stored_teacher(group.cells[0], place, teacher[1], row, execution)
        signals /= stored.checkpoint  # a teacher that is trained again gets caches of its own
        if group.signal.cached:  # wanted to fill the cache and to evaluate, not while students train
            if has_pinned_host_memory():
                teacher = aside(teacher[0]), teacher[1]
            elif first:
                report.fixed["note"] = f"{jax.default_backend()} devices: {NO_HOST_MEMORY}"
    with folder.publishing(task["group"]) if first else contextlib.nullcontext():
        outcomes = run_group(
            group,
            corpus=corpus,
            execution=execution,
            teacher=teacher,
            stored=stored,
            progress=lambda now: report.write(**asdict(now)) if first else None,
            keep_params=bool(task["keeps"]) or execution.keep_students == "last",
            checkpoints=folder.part("checkpoints") / task["group"],
            signals=signals,
        )
    return Trained(execution=execution, outcomes=outcomes, first=first, teacher_model=teacher and teacher[1])


def write(folder: RunFolder, task: dict, done: Trained) -> None:
    """Write every cell's row and curve, and the models that are to be kept. Every process writes its shards of
    those.
    """
    from gaplaw.train import checkpoint

    stamp = provenance()
    for outcome in done.outcomes:
        cell = outcome.cell
        shapes = {"model": outcome.model, "teacher": done.teacher_model}
        row = results.describe_cell(cell, task["roles"][cell.id], **shapes) | outcome.metrics
        row |= {"sweep": task["sweep"], "status": outcome.status, "error": outcome.error} | stamp
        if cell.id in task["keeps"] and outcome.status == "done":
            entry = folder.store / "teachers" / cell.id
            checkpoint.save(entry / "checkpoint", outcome.params, outcome.model)
            if done.first:
                results.write_cell(entry, row, outcome.curve, done.execution)
                folder.publish(*(entry / part for part in ("checkpoint", "curves", "cells")))
        elif outcome.status == "done" and done.execution.keep_students != "none":
            kept = folder.out / "students" / cell.id
            best = done.execution.keep_students == "best"
            checkpoint.save(kept, outcome.best_params if best else outcome.params, outcome.model)
            if done.first:
                folder.publish(kept)
        if done.first:
            results.write_cell(folder.out, row, outcome.curve, done.execution)
            folder.publish(*(folder.part(part) / f"{cell.id}.parquet" for part in ("curves", "cells")))


def forget(folder: RunFolder, task: dict, done: Trained) -> None:
    """Drop the checkpoint of a group whose rows are written."""
    from gaplaw.train import checkpoint

    if done.first:
        checkpoint.remove(folder.part("checkpoints") / task["group"])
        folder.forget_checkpoints(task["group"])


def provenance() -> dict:
    """Columns that say which code made a row: versions, and the commit if the package lies in a git working copy."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {"python": platform.python_version(), "gaplaw": __version__}
    versions |= {name: metadata.version(name) for name in names}
    home = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(home), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    tracked = git("ls-files", "--error-unmatch", str(home / "worker.py"))  # not some other repository that holds a venv
    commit = git("rev-parse", "HEAD") if tracked else None
    changes = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "versions": json.dumps(versions),
        "git_commit": commit,
        "git_dirty": None if changes is None else bool(changes),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cache_compilations() -> None:
    """Keep every compiled program on disk, however small, for the next process of the same shapes."""
    import jax

    home = Path(os.environ.get("GAPLAW_CACHE") or Path.home() / ".cache" / "gaplaw")
    jax.config.update("jax_compilation_cache_dir", str(home / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class _Reporter:
    """Writes a group's progress file: at each new phase, and else at most twice a second."""

    def __init__(self, folder: RunFolder, group_id: str, cells: list[str]):
        self.path = folder.part("progress") / f"{group_id}.json"
        self.fixed = {"group": group_id, "cells": cells, "host": platform.node(), "pid": os.getpid()}
        self.fixed["started"] = seconds_now()
        self.phase, self.told = None, 0.0

    def write(self, *, phase: str, losses_nats: dict[str, float], **numbers) -> None:
        if phase == self.phase and time.monotonic() - self.told < REPORT_SECONDS:
            return
        self.phase, self.told = phase, time.monotonic()
        finite = {name: loss for name, loss in losses_nats.items() if loss == loss and abs(loss) != float("inf")}
        write_json(self.path, self.fixed | numbers | {"phase": phase, "losses_nats": finite, "updated": seconds_now()})


def end(code: int) -> NoReturn:
    """End the process, after a failure at once: an orderly exit would wait for the other processes of the group."""
    if code:
        sys.stderr.flush()
        os._exit(code)
    sys.exit()


if __name__ == "__main__":
    end(main(*sys.argv[1:]))
