"""How does a group become a process on this machine? The default engine: start it, see whether it lives, stop it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from gaplaw.execution import Execution
from gaplaw.sweep.engine import WORKER, how_it_ended, start_worker, worker_settings
from gaplaw.sweep.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class LocalProcess:
    """One worker process. It ends by itself when this process does: its standard input closes then."""

    process: subprocess.Popen
    log: Path

    def poll(self) -> int | None:
        return self.process.poll()

    def ending(self) -> str:
        return how_it_ended(self.process.returncode)

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

    module: str = WORKER

    def prepare(self, execution: Execution) -> None:
        """Nothing to reach."""

    def start(self, folder: RunFolder, group_id: str, execution: Execution) -> LocalProcess:
        log = folder.part("logs") / f"{group_id}.log"
        arguments = ["-m", self.module, str(folder.out.absolute()), group_id]
        return LocalProcess(process=start_worker(arguments, worker_settings(execution), log), log=log)
