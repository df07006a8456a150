"""Which processor core does a single-threaded worker have to itself? The first that no other worker of this machine
holds.

A small program that moves between cores finds their caches cold. A core is held by a lock on a file, which ends with
the process. The files lie in a folder of this user alone: in a shared one, somebody else's link could point a lock at
any file.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

from gaplaw.spec import Execution
from gaplaw.sweep.folder.owner import machine_id

try:
    import fcntl
except ImportError:  # not a POSIX system; `run` refuses there, everything else works
    fcntl = None


def stay_on_a_core(execution: Execution) -> int | None:
    """Keep every thread of this process on one free core, when the workers are as many as the cores; see the module.

    With fewer workers than cores, the scheduler knows better where others leave room. Returns: the core, None if none
    was taken.
    """
    if not (fcntl and hasattr(os, "sched_setaffinity") and execution.single_thread and execution.mesh.devices == 1):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if execution.workers < len(cores):
        return None
    try:
        folder = private_folder()
    except OSError as fault:
        print(f"warning: no core of its own for this worker: {fault}", file=sys.stderr)
        return None
    for core in cores:
        if not _lock(folder / str(core)):
            continue
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(thread), {core})
        return core
    return None


def private_folder() -> Path:
    """The folder of this user's core locks on this machine; made if absent.

    Raises: OSError when it is not a folder, or not this user's alone.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    home = Path(os.environ.get("GAPLAW_CACHE") or Path.home() / ".cache" / "gaplaw")
    place = Path(runtime) / "gaplaw-cores" if runtime else home / "cores" / machine_id()
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{place}: must be a folder of this user alone (mode 0700); delete it")
    return place


def _lock(path: Path) -> bool:
    """Lock a file for as long as this process lasts: it is never closed. Returns: False when another process holds
    it.
    """
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # a link in its place
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return False
    return True
