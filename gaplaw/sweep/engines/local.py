"""How does a group become processes on this machine? The default engine: start them, see whether they live, stop
them.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from gaplaw.spec import Execution
from gaplaw.sweep.engines.engine import (
    FOLLOWING,
    KILLED,
    OUT_OF_MEMORY,
    WORKER,
    at_address,
    free_port,
    how_it_ended,
    log_of,
    start_worker,
    worker_settings,
)
from gaplaw.sweep.engines.kernel_memory import KernelKills
from gaplaw.sweep.folder.run_folder import RunFolder

_KERNEL = KernelKills()
PATIENCE_SECONDS = 3.0  # from asking a process to end to ending it


@dataclass(kw_only=True)
class LocalProcesses:
    """The worker processes of one group. They end by themselves when this process does: their standard input closes
    then.
    """

    processes: list[subprocess.Popen]
    logs: list[Path]
    culprit: int = 0  # the process to look at: the one whose end was the cause
    kills_before: int = 0  # by the kernel, before these started
    code: int | None = None

    @property
    def log(self) -> Path:
        return self.logs[self.culprit]

    def poll(self) -> int | None:
        if self.code is not None:
            return self.code
        codes = [process.poll() for process in self.processes]
        failed = [number for number, code in enumerate(codes) if code]
        if not failed:
            return 0 if codes.count(0) == len(codes) else None
        self.culprit = min(failed, key=lambda number: codes[number] in FOLLOWING)
        self.stop()
        code = codes[self.culprit]
        self.code = OUT_OF_MEMORY if code in KILLED and _KERNEL.explain(self.kills_before) else code
        return self.code

    def ending(self) -> str:
        return how_it_ended(self.processes[self.culprit].returncode)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        end = time.monotonic() + PATIENCE_SECONDS
        for process in self.processes:
            try:
                process.wait(timeout=max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:  # deep in a compilation, perhaps
                process.kill()
                process.wait()
            process.stdin.close()


@dataclass(frozen=True, kw_only=True)
class LocalExecutor:
    """Worker processes on this machine, usually one per group.

    module: what Python runs in them. first: the number of the first, where a group's processes are on several hosts.
    """

    module: str = WORKER
    first: int = 0

    def prepare(self, execution: Execution) -> None:
        """Nothing to reach."""

    def start(self, folder: RunFolder, group_id: str, execution: Execution) -> LocalProcesses:
        arguments = ["-m", self.module, folder.address, group_id]
        here = execution.hosts.processes if execution.hosts.launch == "here" else 1
        port, processes, logs, kills = free_port(), [], [], _KERNEL.so_far()
        for number in range(self.first, self.first + here):
            logs.append(log_of(folder, group_id, number))
            settings = worker_settings(execution, folder) | meeting(execution, number, port)
            processes.append(start_worker(arguments, settings, logs[-1]))
        return LocalProcesses(processes=processes, logs=logs, kills_before=kills)


def meeting(execution: Execution, number: int, port: int = 0) -> dict[str, str]:
    """Variables that tell a process where it meets the others and which it is; none where it can find that by
    itself.
    """
    hosts = execution.hosts
    if hosts.processes == 1 or (hosts.launch == "everywhere" and not hosts.coordinator):
        return {}
    if hosts.launch == "here":
        return at_address(f"127.0.0.1:{port}", number)
    return at_address(hosts.coordinator, hosts.process_id)
