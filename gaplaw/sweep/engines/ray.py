"""How does a group run on a Ray cluster? One remote task per process of the group, which holds the process on its node.

Ray decides where and when, from what a group asks for: processor cores, and one accelerator per device of its mesh.
Several processes of a group (the hosts of a TPU slice, or machines with GPUs) get a node each, all at once or none, and
meet where the first one is. Nodes share the run folder and have gaplaw installed. When a node dies its groups start
again on others; when this process dies Ray ends its tasks, and they their workers.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from gaplaw.errors import SweepError
from gaplaw.objects import is_url
from gaplaw.sweep.engines.engine import (
    FOLLOWING,
    HOST_LOST,
    OUT_OF_MEMORY,
    WORKER,
    at_address,
    carried,
    free_port,
    how_it_ended,
    log_of,
    missing,
    pairs,
    run_worker,
    worker_settings,
)

if TYPE_CHECKING:
    from gaplaw.spec import Execution
    from gaplaw.sweep.folder.run_folder import RunFolder


CAUSE_SECONDS = 60.0  # JAX ends the processes that are left at once; that a node died, Ray says up to a minute later


@dataclass(kw_only=True)
class RayTasks:
    """The remote tasks of one group, one for each of its processes; `room` is what Ray set aside for several."""

    refs: list
    logs: list[Path]
    room: object = None
    code: int | None = None
    culprit: int = 0  # the process to look at: the one whose end was the cause
    lost: str = ""
    failed_at: float = 0.0

    @property
    def log(self) -> Path:
        return self.logs[self.culprit]

    def poll(self) -> int | None:
        import ray

        if self.code is not None:
            return self.code
        ended, running = ray.wait(self.refs, num_returns=len(self.refs), timeout=0)
        codes = {number: self._outcome(ref) for number, ref in enumerate(self.refs) if ref in ended}
        failed = [number for number, (code, _) in codes.items() if code]
        if failed:
            self.failed_at = self.failed_at or time.monotonic()
            self.culprit = min(failed, key=lambda number: codes[number][0] in FOLLOWING)
            following = codes[self.culprit][0] in FOLLOWING
            if running and following and time.monotonic() - self.failed_at < CAUSE_SECONDS:
                return None
        elif running:
            return None
        self.code, self.lost = codes[self.culprit]
        self.stop()
        return self.code

    @staticmethod
    def _outcome(ref) -> tuple[int, str]:
        """(exit code, what Ray says of a task that has none)."""
        import ray

        try:
            found = ray.get(ref)
        except ray.exceptions.RayTaskError as fault:  # our own code, there: gaplaw not installed, log not writable
            raise SweepError(f"--executor ray: {' '.join(str(fault.cause).split())}") from None
        except ray.exceptions.OutOfMemoryError:
            return OUT_OF_MEMORY, "worker killed by Ray: its node was out of memory"
        except ray.exceptions.NodeDiedError as fault:
            return HOST_LOST, f"Ray node {_between(str(fault), 'Node IP: ', ',')} died"
        except ray.exceptions.RayError as fault:
            return HOST_LOST, f"Ray lost the task ({type(fault).__name__})"
        if isinstance(found, str):
            raise SweepError(f"--executor ray: {found}")
        return found, ""

    def ending(self) -> str:
        return self.lost or how_it_ended(self.code)

    def stop(self) -> None:
        import ray

        _, running = ray.wait(self.refs, num_returns=len(self.refs), timeout=0)
        for ref in running:
            ray.cancel(ref, force=True)
        ray.wait(self.refs, num_returns=len(self.refs), timeout=10)
        if self.room is not None:
            ray.util.remove_placement_group(self.room)
            self.room = None


@dataclass(frozen=True, kw_only=True)
class RayExecutor:
    """Groups as tasks of a Ray cluster.

    Args:
      address: of the cluster's head, HOST:PORT; auto finds the one that this machine belongs to.
      cpus: processor cores that each process of a group asks for.
      accelerator: what the devices of a group's mesh are; its processes ask for equal shares of that many.
      resources: further resources that each process asks for, as NAME=AMOUNT,…, such as the name of a TPU slice.
    """

    address: str = "auto"
    cpus: float = 1.0
    accelerator: Literal["cpu", "gpu", "tpu"] = "cpu"
    resources: str = ""
    module: ClassVar[str] = WORKER

    def needs(self, execution: Execution) -> dict[str, float]:
        """What each process of a group asks for, under Ray's own names."""
        share = execution.mesh.devices / execution.hosts.processes
        devices = {} if self.accelerator == "cpu" else {self.accelerator.upper(): share}
        return {"CPU": self.cpus} | devices | pairs("--ray.resources", self.resources, float)

    def prepare(self, execution: Execution) -> str:
        needs = self.needs(execution)
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
                f"--ray.address {self.address}: no Ray cluster answers ({type(fault).__name__}); `ray start --head` "
                "starts one"
            ) from None
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        wanted, count = ", ".join(f"{amount:g} {name}" for name, amount in needs.items()), execution.hosts.processes
        fit = sum(all(node.get(name, 0) >= amount for name, amount in needs.items()) for node in nodes)
        if fit < count:
            few = "no node has" if fit == 0 else f"only {fit} of the {count} nodes that a group needs has"
            asks = "each group asks" if count == 1 else "each of its processes asks"
            return (
                f"warning: Ray: {few} {wanted} now, which {asks} for; groups wait until "
                f"{'one does' if count == 1 else 'all do'}"
            )
        asks = "each group asks for" if count == 1 else f"each group asks for {count} nodes with"
        return f"Ray: {len(nodes)} node{'s' if len(nodes) > 1 else ''}; {asks} {wanted}"

    def start(self, folder: RunFolder, group_id: str, execution: Execution) -> RayTasks:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        count, needs = execution.hosts.processes, self.needs(execution)
        if count > 1 and is_url(folder.address):
            raise SweepError(f"--hosts.processes {count}: needs a run folder that all nodes see, not {folder.address}")
        room = ray.util.placement_group([needs] * count, strategy="STRICT_SPREAD") if count > 1 else None
        refs, logs, place = [], [], ""
        for number in range(count):
            where = PlacementGroupSchedulingStrategy(room, placement_group_bundle_index=number) if room else "DEFAULT"
            if room and not number:
                place = ray.remote(_free_address).options(num_cpus=0, scheduling_strategy=where).remote()
            others = {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU")}
            task = ray.remote(_run_process).options(
                num_cpus=needs["CPU"],
                num_gpus=needs.get("GPU", 0),
                resources=others,
                max_retries=0,  # `run` decides what is tried again
                name=group_id,
                scheduling_strategy=where,
            )
            logs.append(log_of(folder, group_id, number).absolute())
            arguments = ["-m", self.module, folder.address, group_id]
            settings = carried() | worker_settings(execution, folder)
            refs.append(task.remote(place, number, arguments, settings, str(logs[-1])))
        return RayTasks(refs=refs, logs=logs, room=room)


def _free_address() -> str:
    """Where the processes of a group may meet on this node."""
    import ray

    return f"{ray.util.get_node_ip_address()}:{free_port()}"


def _run_process(place: str, number: int, arguments: list[str], settings: dict[str, str], log: str) -> int | str:
    """One process of a group, on a node of the cluster; `place`: where it meets the others, if there are any."""
    return run_worker(arguments, settings | (at_address(place, number) if place else {}), log)


def _between(text: str, before: str, after: str) -> str:
    return text.partition(before)[2].partition(after)[0]
