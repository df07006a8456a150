"""How does a group become a process on this machine? Start it, see whether it lives, stop it, say how it ended.

The seam for other engines: `run` asks an executor only for `start(folder, group_id, execution)`, and the handle that it
returns only for `poll`, `stop` and `log`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gaplaw.execution import Execution
from gaplaw.sweep.folder import RunFolder


class Handle(Protocol):
    """One group that an engine has started."""

    log: Path

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""

    def stop(self) -> None:
        """End it now and wait until it has ended."""


class Executor(Protocol):
    """An engine that runs groups."""

    def start(self, folder: RunFolder, group_id: str, execution: Execution) -> Handle: ...


@dataclass(frozen=True, kw_only=True)
class LocalProcess:
    """One worker process. It ends by itself when this process does: its standard input closes then."""

    process: subprocess.Popen
    log: Path

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=3)
        except subprocess.TimeoutExpired:  # deep in a compilation, perhaps
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()


@dataclass(frozen=True, kw_only=True)
class LocalExecutor:
    """Worker processes on this machine, one per group; `module` is what Python runs in them."""

    module: str = "gaplaw.sweep.worker"

    def start(self, folder: RunFolder, group_id: str, execution: Execution) -> LocalProcess:
        log = folder.part("logs") / f"{group_id}.log"
        command = [sys.executable, "-m", self.module, str(folder.out.absolute()), group_id]
        with log.open("ab") as sink:
            sink.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command[1:])}\n".encode())
            sink.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=worker_environment(execution),
                start_new_session=True,  # the terminal's Ctrl-C is for the parent, which then stops its workers
            )
        return LocalProcess(process=process, log=log)


def worker_environment(execution: Execution) -> dict[str, str]:
    """The environment of a worker: thread counts must be set before JAX and BLAS load."""
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONUNBUFFERED": "1"}
    if execution.workers > 1:  # several processes may share one GPU: none may reserve most of its memory beforehand
        found.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if execution.single_thread:
        found |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        found["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    return found


def how_it_ended(code: int) -> str:
    """An exit code in words: -9 → "killed by SIGKILL (9)"."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name} ({-code})"
        except ValueError:
            return f"killed by signal {-code}"
    return f"ended with exit code {code}"
