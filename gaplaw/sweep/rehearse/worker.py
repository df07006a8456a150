"""What does a worker do in a rehearsal? The real thing twice: killed at the end the first time, from its checkpoint the
second.

The first attempt trains without a break and writes its rows and teachers beside the run folder, in OUT/unbroken; then
process 0 kills itself as hard as can be. The checkpoint after the first step is still there, so the second attempt goes
on from it and writes the real rows.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.running import worker

UNBROKEN = "unbroken"
MOST_WAIT_SECONDS = 60.0  # for process 0 to end; whoever started the processes then ends the others


def rehearse(folder: RunFolder, task: dict) -> None:
    first_attempt = folder.checkpoint_step(task["group"]) == 0
    done = worker.train(folder, task)
    if first_attempt:
        worker.write(RunFolder(folder.out / UNBROKEN / "run"), task, done)
        if done.first:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(MOST_WAIT_SECONDS)
    worker.write(folder, task, done)
    worker.forget(folder, task, done)


if __name__ == "__main__":
    # Before JAX is loaded, which the functions of `worker` do: CPU devices, and less optimisation of code that runs
    # twice.
    os.environ["JAX_PLATFORMS"] = "cpu"
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
    worker.end(worker.main(*sys.argv[1:], run_task=rehearse))
