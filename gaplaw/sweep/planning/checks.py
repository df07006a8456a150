"""Would this sweep run at all? What `run` refuses before it starts anything, `plan` refuses with the same line.

Follows folder and precedes planning in the walk. What only training can show stays a failed row: a loss that is not
finite, memory, a pruning target that the importance ranking cannot meet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from gaplaw.canonical import refuse_unless
from gaplaw.spec import Cell, DataSpec, Execution, ModelSpec, Sweep
from gaplaw.sweep.engines.engine import worker_settings
from gaplaw.sweep.folder.run_folder import RunFolder

CUDNN_HEAD_MULTIPLE = 8
_DEVICES = "import jax, json; print(json.dumps([jax.default_backend(), len(jax.devices())]))"


def check_sweep(
    sweep: Sweep,
    execution: Execution,
    folder: RunFolder,
    *,
    corpus_of: Callable[[DataSpec], object],
    on_this_machine: bool,
) -> dict[DataSpec, object]:
    """Hold what a folder still lacks of a sweep against its text, its execution and, if it runs here, this machine.

    Args: corpus_of: gives a spec's `gaplaw.data.Corpus`, None where its tokens are not counted.
    Returns: the corpora of the cells that are left, by spec.
    Raises: SpecError, DataError or SweepError, the first that applies, in one line.
    """
    if on_this_machine:
        folder.growth(sweep)
    teachers = {cell.id for cell in sweep.teachers}
    corpora: dict[DataSpec, object] = {}
    checked: set[tuple] = set()
    shapes: set[ModelSpec] = set()
    for cell in sweep.cells:
        key, new = (cell.data, cell.split, cell.train.batch_sequences), cell.model not in shapes
        if (key in checked and not new) or finished(folder, cell, teacher=cell.id in teachers):
            continue
        if new:
            shapes.add(cell.model)
            _check_attention(cell, execution)
        if key not in checked:
            checked.add(key)
            execution.check_batch(cell.train.batch_sequences)
            if cell.data not in corpora:
                corpora[cell.data] = corpus_of(cell.data)
            if corpora[cell.data] is not None:
                corpora[cell.data].check_batch(cell.split, cell.train.batch_sequences)
                corpora[cell.data].validation_tokens  # noqa: B018 (raises where there is no window)
    if checked and on_this_machine and (found := devices_of(execution, folder)):
        execution.check_devices(*found)
    return corpora


def check_before_run(
    sweep: Sweep, execution: Execution, folder: RunFolder, *, on_this_machine: bool, tell: Callable[[str], None]
) -> None:
    """Refuse what cannot run before any file is written there; packs each corpus once, so that workers find it in the
    cache.
    """
    from gaplaw import data

    def corpus_of(spec: DataSpec):
        tell(f"corpus: {spec.source}, tokenizer {spec.tokenizer}")
        return data.load(spec)

    folder.refresh(now=True)
    check_sweep(sweep, execution, folder, corpus_of=corpus_of, on_this_machine=on_this_machine)


def finished(folder: RunFolder, cell: Cell, *, teacher: bool) -> bool:
    """Whether a cell needs no training: its row is done, or an earlier sweep trained this teacher."""
    return folder.state(cell).status == "done" or (teacher and folder.teacher_entry(cell) is not None)


def _check_attention(cell: Cell, execution: Execution) -> None:
    if execution.attention != "cudnn":
        return
    dtype, size = execution.compute_dtype, cell.model.head_size
    rule = "must be bfloat16 under attention = 'cudnn'"
    refuse_unless(dtype == "bfloat16", "Execution.compute_dtype", dtype, rule)
    rule = f"must be a multiple of {CUDNN_HEAD_MULTIPLE} under Execution.attention = 'cudnn'"
    refuse_unless(size % CUDNN_HEAD_MULTIPLE == 0, f"{cell.name}: ModelSpec.head_size", size, rule)


def devices_of(execution: Execution, folder: RunFolder) -> tuple[str, int] | None:
    """(platform, number) of the devices that a group's workers will find here.

    Returns: None where it does not matter, or where only the workers can tell: several hosts, or no JAX here.
    """
    hosts = execution.hosts
    if hosts.processes > 1:
        return (
            ("cpu", hosts.processes * hosts.local_devices) if hosts.launch == "here" and hosts.local_devices else None
        )
    if execution.mesh.devices == 1 and execution.attention != "cudnn":
        return None
    return devices_here(execution, folder)


def devices_here(execution: Execution, folder: RunFolder) -> tuple[str, int] | None:
    """(platform, number) of this machine's devices, from a process of its own; None without JAX."""
    settings = os.environ | worker_settings(execution, folder)
    done = subprocess.run([sys.executable, "-c", _DEVICES], env=settings, capture_output=True, text=True)
    try:
        platform, number = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return platform, number
