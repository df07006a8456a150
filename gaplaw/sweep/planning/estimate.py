"""How long will a group of cells take? An estimate that says where it comes from, and corrects itself with what was
measured.

    seconds = start + steps · overhead + matrix FLOPs / (share · matrix rate) + elements / element rate

Both rates are measured on this machine: matrix products in the shapes that the group uses, and exponentials, since tiny
models spend more on softmax, norms and activations than on products. `start`, `overhead` and `share` are defaults until
groups have finished: then start becomes their mean and the rest is scaled by measured over estimated time.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import os
import subprocess
import sys
from dataclasses import dataclass, replace

from gaplaw import results
from gaplaw.canonical import from_dict
from gaplaw.errors import SpecError
from gaplaw.spec import Cell, Execution, Group, ModelSpec
from gaplaw.spec.sizes import count_params, forward_flops_per_token
from gaplaw.sweep.folder.run_folder import RunFolder

# Defaults before anything has been measured, from first runs of this project on a busy 2-core CPU: process start alone,
# that and compilation with a cold cache, host work per step, and the share of the matrix rate that products reach.
PROCESS_SECONDS = 3.0
START_SECONDS = 10.0
OVERHEAD_SECONDS = 2e-3
SHARE = 0.5
WIDTHS = (16, 64, 256, 1024)
_ROW_BYTES, _CHECKPOINT_BYTES = 40_000, 30_000  # two parquet files of a cell; files around the arrays of a checkpoint

_MEASURE = """
import json, time, numpy as np
def best(work):
    work()
    seconds, end = 1e9, time.perf_counter() + 0.03
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        seconds = min(seconds, time.perf_counter() - began)
    return seconds
rates = {}
for width in WIDTHS:
    a, b = np.ones((4096, width), np.float32), np.ones((width, width), np.float32)
    rates[width] = 2 * 4096 * width * width / best(lambda: a @ b)
x = np.linspace(-4, 4, 65536, dtype=np.float32)
big = np.ones(2**23, np.float32)
print(json.dumps([rates, x.size / best(lambda: np.exp(x)), 2 * big.nbytes / best(lambda: big.copy())]))
"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Measured rates of this machine: float32 FLOP/s of products by width, exponentials and copied bytes per second."""

    matrix_flops_per_second: dict[int, float]
    elements_per_second: float
    memory_bytes_per_second: float

    def seconds(self, width: int, flops: float, elements: float) -> float:
        near = min(self.matrix_flops_per_second, key=lambda w: abs(math.log(w / width)))
        return flops / (SHARE * self.matrix_flops_per_second[near]) + elements / self.elements_per_second


@functools.cache
def measure_machine(single_thread: bool) -> Machine:
    """Time NumPy products of 4,096 tokens with square matrices, exponentials and copies; takes about 0.3 s.

    In a process of its own, because a library's thread count is fixed when it loads.
    """
    limits = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = os.environ | (limits if single_thread else {})
    code = f"WIDTHS = {WIDTHS}\n{_MEASURE}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    rates, elements, memory = json.loads(done.stdout)
    return Machine(
        matrix_flops_per_second={int(width): rate for width, rate in rates.items()},
        elements_per_second=elements,
        memory_bytes_per_second=memory,
    )


def elements_per_token(model: ModelSpec, context_tokens: int) -> float:
    """Numbers that one forward pass touches outside of products, per token: softmaxes, norms, rotations,
    activations.
    """
    layers = zip(model.heads_by_layer, model.hidden_by_layer, strict=True)
    return (
        sum(2 * heads * context_tokens + 8 * model.width + 3 * hidden for heads, hidden in layers)
        + 2 * model.vocab_size
    )


def training_flops(group: Group) -> float:
    """FLOPs of a group's training: three forwards for each student, one shared forward of the teacher."""
    cell = group.cells[0]
    length = cell.data.sequence_tokens
    per_token = sum(3 * forward_flops_per_token(c.model, length) for c in group.cells)
    if group.teacher is not None:
        per_token += forward_flops_per_token(group.teacher.model, length)
    return float(per_token) * cell.steps * cell.batch_tokens


def evaluation_flops(group: Group, execution: Execution) -> float:
    """FLOPs of measuring every cell of a group (and its teacher) on the validation tokens, each time."""
    data = group.cells[0].data
    models = [c.model for c in group.cells] + ([group.teacher.model] if group.teacher else [])
    per_token = sum(forward_flops_per_token(model, data.sequence_tokens) for model in models)
    return float(per_token) * data.validation_tokens * execution.evaluations


def disk_bytes(cell: Cell, *, checkpoint: bool) -> int:
    """Bytes that a finished cell leaves: its rows, and four bytes per parameter of a teacher that is kept."""
    return _ROW_BYTES + (_CHECKPOINT_BYTES + 4 * count_params(cell.model).total if checkpoint else 0)


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Seconds of a group by what it does: start a process, compile, train, evaluate."""

    start_seconds: float = 0.0
    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0

    @property
    def total_seconds(self) -> float:
        return self.start_seconds + self.compile_seconds + self.train_seconds + self.evaluate_seconds


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a finished or running group took: until its first step had run, and (extrapolated to the end) after it."""

    group: Group
    start_seconds: float
    rest_seconds: float


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Predicts seconds for a group, corrected by what has been measured of groups like it (with a teacher, or
    without).
    """

    execution: Execution
    measured: tuple[Measured, ...] = ()

    @property
    def source(self) -> str:
        if not self.measured:
            return "rates just measured on this machine; no group has run yet"
        return f"{len(self.measured)} measured group{'s' if len(self.measured) > 1 else ''} of this folder"

    def seconds(self, group: Group) -> float:
        return self.phases(group).total_seconds

    def rest_seconds(self, group: Group) -> float:
        """Without start and compilation."""
        found = self.phases(group)
        return found.train_seconds + found.evaluate_seconds

    def phases(self, group: Group) -> Phases:
        """Where a group's time goes. Measured groups correct training and evaluation by one factor."""
        start, scale = self._correction(group.teacher is not None)
        train, evaluate = self._plain_seconds(group)
        return Phases(
            start_seconds=min(start, PROCESS_SECONDS),
            compile_seconds=max(0.0, start - PROCESS_SECONDS),
            train_seconds=scale * train,
            evaluate_seconds=scale * evaluate,
        )

    def knowing(self, *more: Measured) -> Clock:
        return replace(self, measured=(*self.measured, *more))

    def _correction(self, taught: bool) -> tuple[float, float]:
        """(start seconds, scale of the rest) from groups of the same kind, else from all, else the defaults."""
        alike = [m for m in self.measured if (m.group.teacher is not None) == taught] or self.measured
        plain = sum(sum(self._plain_seconds(m.group)) for m in alike)
        if not plain:
            return START_SECONDS, 1.0
        return sum(m.start_seconds for m in alike) / len(alike), sum(m.rest_seconds for m in alike) / plain

    def _plain_seconds(self, group: Group) -> tuple[float, float]:
        """Training and evaluation, before correction."""
        machine = measure_machine(self.execution.single_thread)
        models = [c.model for c in group.cells] + ([group.teacher.model] if group.teacher else [])
        cell = group.cells[0]
        held = cell.data.validation_tokens * self.execution.evaluations
        elements = [elements_per_token(model, cell.data.sequence_tokens) for model in models]
        passes = [1 if number == len(group.cells) else 3 for number in range(len(models))]  # of a teacher, of a student
        trained = cell.steps * cell.batch_tokens * sum(map(operator.mul, elements, passes))
        width = max(model.width for model in models)
        train = cell.steps * OVERHEAD_SECONDS + machine.seconds(width, training_flops(group), trained)
        return train, machine.seconds(width, evaluation_flops(group, self.execution), held * sum(elements))


def clock_for(folder: RunFolder, execution: Execution) -> Clock:
    """A clock that knows the groups which finished in this folder under the same threading, if there are any."""
    groups: dict[str, list[dict]] = {}
    wanted = ["status", "spec", "group_id", "group_cells", "group_wall_seconds", "compile_seconds", "execution"]
    found = results.read_table(folder.out, "cells", damaged=[])
    known = found is not None and set(wanted) <= set(found.column_names)
    for row in found.select(wanted).to_pylist() if known else ():
        ran = json.loads(row["execution"]) if row["execution"] else {}
        if (
            row["status"] == "done"
            and row["group_wall_seconds"]
            and ran.get("single_thread") == execution.single_thread
        ):
            groups.setdefault(row["group_id"], []).append(row)
    whole = (rows for rows in groups.values() if len(rows) == rows[0]["group_cells"])  # others would look too slow
    return Clock(execution=execution).knowing(*filter(None, map(_measured, whole)))


def _measured(rows: list[dict]) -> Measured | None:
    compiled = rows[0]["compile_seconds"] or 0.0
    try:
        cells = from_dict(tuple[Cell, ...], [json.loads(row["spec"]) for row in rows])
    except SpecError:  # of an earlier gaplaw, which allowed more
        return None
    return Measured(
        group=Group(cells=cells),
        start_seconds=PROCESS_SECONDS + compiled,
        rest_seconds=max(0.0, rows[0]["group_wall_seconds"] - compiled),
    )


def finish_seconds(tasks: list[tuple[str, float, str | None]], running: dict[str, float], workers: int) -> float:
    """Wall seconds until the last of many tasks ends, with at most `workers` at a time, first come first served.

    Args:
      tasks: (name, seconds, name of the task that must end first or None), in the order in which they would start.
      running: name → seconds left, of tasks that already run; each holds a worker.
    Returns: the make-span of a greedy schedule, which is how `run` hands out work.
    """
    ends = dict(running)
    free = sorted(list(running.values()) + [0.0] * max(0, workers - len(running)))
    waiting = list(tasks)
    while waiting:
        at = free.pop(0)
        ready = [t for t in waiting if t[2] not in {w[0] for w in waiting}]
        begin = {t[0]: max(at, ends.get(t[2], 0.0)) for t in ready}
        task = min(ready, key=lambda t: begin[t[0]])  # the first in order among those that can begin soonest
        waiting.remove(task)
        ends[task[0]] = begin[task[0]] + task[1]
        free = sorted([*free, ends[task[0]]])
    return max(ends.values(), default=0.0)
