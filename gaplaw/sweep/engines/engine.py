"""What is an engine? The small thing that starts a group's worker somewhere, and tells whether it lives and how it
ended.

`run` asks an executor only for `prepare` and `start`, and the handle that it gets only for `poll`, `ending` and `stop`.
Whatever the engine, a group is one process `python -m gaplaw.sweep.running.worker OUT GROUP` that ends when its
standard input closes; an engine on other machines has `run_worker` hold that input there, so that ending the engine's
task ends the group.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gaplaw.errors import SpecError, SweepError
from gaplaw.objects import is_url
from gaplaw.packages import install_with
from gaplaw.sweep.engines.kernel_memory import oom_kills

if TYPE_CHECKING:
    from gaplaw.spec import Execution
    from gaplaw.sweep.folder.run_folder import RunFolder

HOST_LOST = 1000  # in place of an exit code: the machine failed, not the group, which is worth starting again elsewhere
OUT_OF_MEMORY = 1001  # the same: killed, probably by the kernel for want of memory
KILLED = (-9, 128 + 9)  # SIGKILL, as a process's parent sees it and as a shell or a container hands it on
FOLLOWING = (1, -signal.SIGABRT)  # how a process ends because another of its group has ended
WORKER = "gaplaw.sweep.running.worker"
CARRIED = ("GAPLAW_", "JAX_", "XLA_", "LIBTPU_")  # variables that go along to other machines; credentials never do


class Handle(Protocol):
    """One group that an engine has started."""

    log: Path

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or HOST_LOST or OUT_OF_MEMORY in place of one; None while it waits or
        runs.
        """

    def ending(self) -> str:
        """How it ended, for people: "worker killed by SIGKILL (9)", "Ray node 10.0.0.3 died"."""

    def stop(self) -> None:
        """End it now and wait until it has ended."""


class Executor(Protocol):
    """An engine that runs groups."""

    def prepare(self, execution: Execution) -> str | None:
        """Reach the engine, before anything is started. Returns: a line for people about what was found, if any.

        Raises: SweepError in one line: its package is missing, it does not answer, it has no room for a group.
        """

    def start(self, folder: RunFolder, group_id: str, execution: Execution) -> Handle:
        """Have the group's worker run; the engine decides where and when."""


def start_worker(arguments: list[str], settings: dict[str, str], log: Path) -> subprocess.Popen:
    """Start Python here with the arguments, its words appended to the log, and our end of its standard input held
    open.
    """
    with log.open("ab") as sink:
        sink.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S')} {platform.node()} {' '.join(arguments)}\n".encode())
        sink.flush()
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | settings,
            start_new_session=True,  # the terminal's Ctrl-C is for the parent, which then stops its workers
        )


def carried() -> dict[str, str]:
    """The variables of this process that a worker on another machine should see as well."""
    return {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}


def worker_settings(execution: Execution, folder: RunFolder) -> dict[str, str]:
    """Variables that a worker's environment needs: thread counts must be set before JAX and BLAS load."""
    home = str(Path(__file__).resolve().parents[3])
    paths = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    found = folder.settings | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONUNBUFFERED": "1"}
    # several processes may share one GPU: none may reserve its memory beforehand; one may have all but what libraries
    # need
    name, value = ("PREALLOCATE", "false") if execution.workers > 1 else ("MEM_FRACTION", "0.93")
    found[f"XLA_PYTHON_CLIENT_{name}"] = os.environ.get(f"XLA_PYTHON_CLIENT_{name}", value)
    if execution.hosts.local_devices:
        found["JAX_NUM_CPU_DEVICES"] = str(execution.hosts.local_devices)
    if execution.single_thread:
        found |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        found["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    return found


def run_worker(arguments: list[str], settings: dict[str, str], log: str) -> int | str:
    """What an engine runs on another machine: the worker, for as long as this call lasts.

    Returns: its exit code, or a line that says why this machine cannot run it.
    """
    here = platform.node()
    if is_url(arguments[-2]):
        Path(log).parent.mkdir(parents=True, exist_ok=True)
    elif not Path(log).parent.is_dir():
        return (
            f"{Path(log).parent}: not seen from {here}; an engine's machines must share the run folder, or use "
            "an object store"
        )
    kills = oom_kills() or 0
    process = start_worker(arguments, settings, Path(log))
    try:
        code = process.wait()
        return OUT_OF_MEMORY if code in KILLED and (oom_kills() or 0) > kills else code
    finally:  # an engine that cancels may raise here
        process.kill()


def at_address(address: str, number: int) -> dict[str, str]:
    """Variables for process `number` of those that meet at an address."""
    return {"GAPLAW_COORDINATOR": address, "GAPLAW_PROCESS_ID": str(number)}


def log_of(folder: RunFolder, group_id: str, number: int) -> Path:
    """Where process `number` of a group writes its words."""
    return folder.part("logs") / f"{group_id}{f'.process-{number}' if number else ''}.log"


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def how_it_ended(code: int) -> str:
    """An exit code in words: -9 → "worker killed by SIGKILL (9)"."""
    code = -9 if code == OUT_OF_MEMORY else code
    if code < 0:
        try:
            return f"worker killed by {signal.Signals(-code).name} ({-code})"
        except ValueError:
            return f"worker killed by signal {-code}"
    return f"worker ended with exit code {code}"


def pairs(option: str, text: str, kind: Callable = str) -> dict:
    """NAME=VALUE,… as a mapping; kind reads a value.

    Raises: SpecError naming the option and the part that is not of this form.
    """
    found = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            found[name] = kind(value)
        except ValueError:
            value = ""
        if not name or not value:
            rule = "NAME=VALUE" if kind is str else "NAME=AMOUNT"
            raise SpecError(f"{option}: {part!r} is not of the form {rule}")
    return found


def missing(engine: str) -> SweepError:
    """The refusal when an engine's package is not installed; its extra has the engine's name."""
    package = {"slurm": "submitit"}.get(engine, engine)
    return SweepError(f"--executor {engine}: needs the package {package}; {install_with(engine)}")
