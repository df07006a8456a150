"""How does a group run under Slurm? One batch job per group, submitted through submitit, which holds the worker on its
node.

Started on a login node, with the run folder on a file system that all nodes see. A job that is preempted or reaches its
time limit is put in the queue again by submitit. Jobs outlive a `run` that was killed: they finish, and the next `run`
finds their rows.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from gaplaw.errors import SweepError
from gaplaw.objects import is_url
from gaplaw.sweep.engines.engine import (
    HOST_LOST,
    OUT_OF_MEMORY,
    WORKER,
    carried,
    how_it_ended,
    missing,
    pairs,
    run_worker,
    worker_settings,
)

if TYPE_CHECKING:
    from gaplaw.spec import Execution
    from gaplaw.sweep.folder.run_folder import RunFolder


class _AgainWhenPreempted:
    """`run_worker`, in the form that submitit queues again after a preemption or a time limit."""

    def __call__(self, *arguments):
        return run_worker(*arguments)

    def checkpoint(self, *arguments):
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


@dataclass(kw_only=True)
class SlurmJob:
    """One group's batch job."""

    job: object
    log: Path
    code: int | None = None
    lost: str = ""

    def poll(self) -> int | None:
        if self.code is None and self.job.done():
            self.code = self._outcome()
        return self.code

    def _outcome(self) -> int:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            found = self.job.result()
        except FailedJobError as fault:  # our own code, there: gaplaw not installed, log not writable
            trace = str(fault).split("-" * 22)[1].split("\n")
            raise SweepError(f"--executor slurm: job {self.job.job_id}: {' '.join(trace[-2:]).strip()}") from None
        except UncompletedJobError:
            self.lost = f"Slurm job {self.job.job_id} left no result (state {self.job.state})"
            return OUT_OF_MEMORY if "OUT_OF_ME" in str(self.job.state) else HOST_LOST
        if isinstance(found, str):
            raise SweepError(f"--executor slurm: {found}")
        return found

    def ending(self) -> str:
        return self.lost or how_it_ended(self.code)

    def stop(self) -> None:
        self.job.cancel(check=False)
        for _ in range(10):  # seconds that Slurm has for it; the group's claim is released all the same
            if self.job.done(force_check=True):
                return
            time.sleep(1)


@dataclass(frozen=True, kw_only=True)
class SlurmExecutor:
    """Groups as batch jobs.

    Args:
      partition: where jobs are queued; Slurm's own default if not given.
      minutes: time limit of one group.
      cpus: processor cores of one group.
      accelerator: what the devices of a group's mesh are; with gpu, a job asks for that many.
      options: further options of sbatch by their long names, such as account=me,qos=high.
      cluster: slurm, or local: the same through processes on this machine, to try it out.
    """

    partition: str = ""
    minutes: int = 24 * 60
    cpus: int = 1
    accelerator: Literal["cpu", "gpu"] = "cpu"
    options: str = ""
    cluster: Literal["slurm", "local"] = "slurm"
    module: ClassVar[str] = WORKER

    def prepare(self, execution: Execution) -> None:
        pairs("--slurm.options", self.options)
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise missing("slurm") from None
        if self.cluster == "slurm" and shutil.which("sbatch") is None:
            raise SweepError("--executor slurm: no sbatch on this machine; run it where jobs are submitted")

    def start(self, folder: RunFolder, group_id: str, execution: Execution) -> SlurmJob:
        import submitit

        if is_url(folder.address) and self.cluster == "slurm":
            raise SweepError(f"--executor slurm: needs a run folder that all nodes see, not {folder.address}")
        log = folder.part("logs").absolute() / f"{group_id}.log"
        queue = submitit.AutoExecutor(folder=log.parent / "slurm", cluster=self.cluster)
        queue.update_parameters(
            name=group_id,
            timeout_min=self.minutes,
            cpus_per_task=self.cpus,
            gpus_per_node=execution.mesh.devices if self.accelerator == "gpu" else 0,
            slurm_additional_parameters=pairs("--slurm.options", self.options),
            **({"slurm_partition": self.partition} if self.partition else {}),
        )
        arguments = ["-m", self.module, folder.address, group_id]
        job = queue.submit(_AgainWhenPreempted(), arguments, carried() | worker_settings(execution, folder), str(log))
        return SlurmJob(job=job, log=log)
