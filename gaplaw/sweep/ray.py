"""How does a group run on a Ray cluster? One remote task per group, which holds the group's worker process on its node.

Ray decides where and when, from what a group asks for: processor cores, and one accelerator per device of its mesh. Its nodes
share the run folder and have gaplaw installed. When a node dies its groups start again on others; when this process dies Ray
ends its tasks, and they their workers.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from gaplaw.errors import SweepError
from gaplaw.sweep.engine import HOST_LOST, WORKER, carried, how_it_ended, missing, run_worker, worker_settings

if TYPE_CHECKING:
    from gaplaw.execution import Execution
    from gaplaw.sweep.folder import RunFolder


@dataclass(kw_only=True)
class RayTask:
    """One group's remote task."""

    ref: object
    log: Path
    code: int | None = None
    lost: str = ""

    def poll(self) -> int | None:
        import ray

        if self.code is None and ray.wait([self.ref], timeout=0)[0]:
            self.code = self._outcome()
        return self.code

    def _outcome(self) -> int:
        import ray

        try:
            found = ray.get(self.ref)
        except ray.exceptions.RayTaskError as fault:  # our own code, there: gaplaw not installed, log not writable
            raise SweepError(f"--executor ray: {' '.join(str(fault.cause).split())}") from None
        except ray.exceptions.OutOfMemoryError:
            self.lost = "worker killed by Ray: its node was out of memory"
            return 1
        except ray.exceptions.NodeDiedError as fault:
            self.lost = f"Ray node {_between(str(fault), 'Node IP: ', ',')} died"
        except ray.exceptions.RayError as fault:
            self.lost = f"Ray lost the task ({type(fault).__name__})"
        else:
            if isinstance(found, str):
                raise SweepError(f"--executor ray: {found}")
            return found
        return HOST_LOST

    def ending(self) -> str:
        return self.lost or how_it_ended(self.code)

    def stop(self) -> None:
        import ray

        ray.cancel(self.ref, force=True)
        ray.wait([self.ref], timeout=10)


@dataclass(frozen=True, kw_only=True)
class RayExecutor:
    """Groups as tasks of a Ray cluster.

    Args:
      address: of the cluster's head, HOST:PORT; auto finds the one that this machine belongs to.
      cpus: processor cores that each group asks for.
      accelerator: what the devices of a group's mesh are; each group asks for that many.
    """

    address: str = "auto"
    cpus: float = 1.0
    accelerator: Literal["cpu", "gpu", "tpu"] = "cpu"
    module: ClassVar[str] = WORKER

    def needs(self, execution: Execution) -> dict[str, float]:
        """What one group asks for, under Ray's own names."""
        devices = {} if self.accelerator == "cpu" else {self.accelerator.upper(): float(execution.mesh.devices)}
        return {"CPU": self.cpus} | devices

    def prepare(self, execution: Execution) -> str:
        try:
            import ray
        except ImportError:
            raise missing("ray") from None
        try:
            host, _, port = self.address.removeprefix("ray://").rpartition(":")
            if port.isdigit():  # asked first because Ray itself would try for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
        except (OSError, ValueError, RuntimeError) as fault:
            raise SweepError(
                f"--ray.address {self.address}: no Ray cluster answers ({type(fault).__name__}); `ray start --head` starts one"
            ) from None
        nodes, needs = [node["Resources"] for node in ray.nodes() if node["Alive"]], self.needs(execution)
        wanted = ", ".join(f"{amount:g} {name}" for name, amount in needs.items())
        if not any(all(node.get(name, 0) >= amount for name, amount in needs.items()) for node in nodes):
            return f"warning: Ray: no node has {wanted} now, which each group asks for; groups wait until one does"
        return f"Ray: {len(nodes)} node{'s' if len(nodes) > 1 else ''}; each group asks for {wanted}"

    def start(self, folder: RunFolder, group_id: str, execution: Execution) -> RayTask:
        import ray

        needs, log = self.needs(execution), folder.part("logs").absolute() / f"{group_id}.log"
        task = ray.remote(run_worker).options(
            num_cpus=needs.pop("CPU"),
            num_gpus=needs.pop("GPU", 0),
            resources=needs,
            max_retries=0,  # `run` decides what is tried again
            name=group_id,
        )
        arguments = ["-m", self.module, folder.address, group_id]
        return RayTask(ref=task.remote(arguments, carried() | worker_settings(execution, folder), str(log)), log=log)


def _between(text: str, before: str, after: str) -> str:
    return text.partition(before)[2].partition(after)[0]
