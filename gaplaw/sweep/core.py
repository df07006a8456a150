"""Which processor core does a single-threaded worker have to itself? The first that no other worker of this machine holds.

A small program that moves between cores finds their caches cold. A core is held by a lock on a file, which ends with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

from gaplaw.execution import Execution


def stay_on_a_core(execution: Execution) -> int | None:
    """Keep every thread of this process on one free core, when the workers are as many as the cores; see the module.

    With fewer workers than cores, the scheduler knows better where others leave room. Returns: the core, None if none was taken.
    """
    if not (hasattr(os, "sched_setaffinity") and execution.single_thread and execution.mesh.devices == 1):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if execution.workers < len(cores):
        return None
    folder = Path(tempfile.gettempdir()) / f"gaplaw-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for core in cores:
        held = os.open(
            folder / str(core), os.O_RDWR | os.O_CREAT
        )  # never closed: the lock is to last as long as the process
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            continue
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(thread), {core})
        return core
    return None
