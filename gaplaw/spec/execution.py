"""How is a sweep run? Workers, mesh, chunk sizes, compute type: recorded in every row, never part of a cell's
identity.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, Literal

from gaplaw.canonical import check_fields, refuse_unless


@dataclass(frozen=True, kw_only=True)
class MeshSpec:
    """Devices by axis: batch rows over data × fsdp, parameters over fsdp × tensor, stacked students over student."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    student: int = 1
    VERSION_1: ClassVar = "data fsdp tensor student".split()

    def __post_init__(self):
        check_fields(self)
        for name in ("data", "fsdp", "tensor", "student"):
            refuse_unless(getattr(self, name) >= 1, f"MeshSpec.{name}", getattr(self, name), "must be at least 1")

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor * self.student

    def check_devices(self, devices: int) -> None:
        """Raises: SpecError when there are fewer devices than the axes ask for."""
        rule = f"the product of the axes, {self.devices}, must not exceed the {devices} devices here"
        refuse_unless(self.devices <= devices, "Execution.mesh", asdict(self), rule)


@dataclass(frozen=True, kw_only=True)
class HostsSpec:
    """Processes that train a group together, over one mesh of all their devices.

    Args:
      processes: how many in all.
      launch: here: one `gaplaw run` starts them all, on this machine or, under Ray, each on a node of its own.
        everywhere: `gaplaw run` is started on every host, each with one process of the group (needs --workers 1 and a
          shared run folder).
      coordinator: under everywhere, host:port of process 0; empty where JAX finds it by itself (Cloud TPU, Slurm,
        Kubernetes).
      process_id: under everywhere with a coordinator, the number of this host, from 0.
      initialization_timeout_seconds: how long to wait for all processes.
      heartbeat_timeout_seconds: after how long a silent process counts as dead, which ends the others.
      local_devices: virtual CPU devices of each process; 0 = the devices that are there.
    """

    processes: int = 1
    launch: Literal["here", "everywhere"] = "here"
    coordinator: str = ""
    process_id: int = 0
    initialization_timeout_seconds: int = 300
    heartbeat_timeout_seconds: int = 100
    local_devices: int = 0
    VERSION_1: ClassVar = (
        "processes launch coordinator process_id initialization_timeout_seconds heartbeat_timeout_seconds local_devices"
    ).split()

    def __post_init__(self):
        check_fields(self)
        for name in ("processes", "initialization_timeout_seconds", "heartbeat_timeout_seconds"):
            refuse_unless(getattr(self, name) >= 1, f"HostsSpec.{name}", getattr(self, name), "must be at least 1")
        refuse_unless(self.local_devices >= 0, "HostsSpec.local_devices", self.local_devices, "must not be negative")
        own = 0 <= self.process_id < self.processes
        refuse_unless(own, "HostsSpec.process_id", self.process_id, f"must be below processes = {self.processes}")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How to run, not what: recorded in every row, never part of a fingerprint.

    Args:
      workers: groups in flight: processes on this machine, or tasks handed to the engine.
      single_thread: give each worker one core (fastest for tiny models).
      mesh: devices by axis.
      hosts: processes that train one group together.
      core_blocked: on one CPU device, run students one after the other with features before tokens, so that a tiny
        model's step stays in its core's cache; ignored on accelerators, on meshes, under accumulate and for large
        vocabularies.
      chunk_tokens: tokens per device whose logits exist at one time.
      steps_per_dispatch: steps of one compiled call, at most.
      evaluations: points of the validation curve, the last one at the end.
      compute_dtype: of matrix products and activations; parameters, norms, softmax and losses stay float32.
      attention: plain, or jax.nn.dot_product_attention's xla or cudnn.
      scan_layers: hold the layers of even models as one array and run them as one scanned body, so that compile time
        does not grow with depth.
      remat: what the backward pass computes again: none, full (each layer from its input), or dots (all but the outputs
        of products with weights and of cuDNN's attention).
      teacher_dtype: of the teacher's parameters on the devices.
      accumulate: microbatches of a step, one after the other; the gradient is their mean. Evaluation takes as many rows
        at a time.
      checkpoint_seconds: how often a group in training is written to disk, so that a killed one goes on from there; at
        most once a dispatch (0 = at every one).
      keep_students: parameters of students and baselines to leave in OUT/students: none, the last, or each student's
        best by validation loss over the `evaluations` (rows describe the last in any case).
    """

    workers: int = 2
    single_thread: bool = True
    mesh: MeshSpec = field(default_factory=MeshSpec)
    hosts: HostsSpec = field(default_factory=HostsSpec)
    core_blocked: bool = True
    chunk_tokens: int = 512
    steps_per_dispatch: int = 64
    evaluations: int = 4
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["plain", "xla", "cudnn"] = "plain"
    scan_layers: bool = False
    remat: Literal["none", "full", "dots"] = "none"
    teacher_dtype: Literal["float32", "bfloat16"] = "float32"
    accumulate: int = 1
    checkpoint_seconds: float = 120.0
    keep_students: Literal["none", "last", "best"] = "none"
    VERSION_1: ClassVar = (
        "workers single_thread mesh hosts core_blocked chunk_tokens steps_per_dispatch evaluations compute_dtype "
        "attention "
        "scan_layers remat teacher_dtype accumulate checkpoint_seconds keep_students"
    ).split()

    def __post_init__(self):
        check_fields(self)
        for name in ("workers", "chunk_tokens", "steps_per_dispatch", "evaluations", "accumulate"):
            refuse_unless(getattr(self, name) >= 1, f"Execution.{name}", getattr(self, name), "must be at least 1")
        every = self.checkpoint_seconds
        refuse_unless(every >= 0, "Execution.checkpoint_seconds", every, "must not be negative")
        devices, processes = self.mesh.devices, self.hosts.processes
        equal = devices % processes == 0 or devices == 1  # of one device: all that there are, for a forecast
        refuse_unless(equal, "Execution.mesh.devices", devices, f"must be a multiple of hosts.processes = {processes}")
        everywhere = self.hosts.launch == "everywhere"
        refuse_unless(
            self.workers == 1 or not everywhere,
            "Execution.workers",
            self.workers,
            "must be 1 under hosts.launch = everywhere",
        )

    def check_batch(self, sequences: int) -> None:
        """Raises: SpecError unless the batch axes divide a batch, and every microbatch of it."""
        ways = self.mesh.data * self.mesh.fsdp * self.accumulate
        words = "data × fsdp" if self.accumulate == 1 else "data × fsdp × accumulate"
        rule = f"must be a multiple of {words} = {ways}"
        refuse_unless(sequences % ways == 0, "TrainSpec.batch_sequences", sequences, rule)

    def check_devices(self, platform: str, devices: int) -> None:
        """Raises: SpecError unless a machine's devices (of all processes together) are those that the plan says."""
        if self.hosts.processes == 1:
            self.mesh.check_devices(devices)
        else:
            rule = f"the product of the axes must be the {devices} devices of the {self.hosts.processes} processes"
            refuse_unless(self.mesh.devices == devices, "Execution.mesh.devices", self.mesh.devices, rule)
        if self.attention == "cudnn":
            refuse_unless(platform == "gpu", "Execution.attention", "cudnn", f"needs an NVIDIA GPU, not a {platform}")


def with_options(value, options: dict):
    """A dataclass with the options that a person gave in place of its own values.

    Args: options: by field; those of a field that is a dataclass are a dict again.

    Raises: SpecError for what cannot be.
    """
    new = {
        name: with_options(getattr(value, name), option) if isinstance(option, dict) else option
        for name, option in options.items()
    }
    return replace(value, **new)
