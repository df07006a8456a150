"""What must a cluster be told to run an experiment on a pod? A JobSet for GKE or a task for SkyPilot, for the user to
submit.

Beside running in the sweep part of the walk: nothing is started here. Every host runs the one command of
`Order.command`; the hosts find each other (JAX on Cloud TPU), and the run folder is a bucket: by its URL on one host,
mounted where several hosts need to see the same files. Field names are those of jobset.x-k8s.io/v1alpha2 and of
SkyPilot's task YAML, read November 2026.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import PurePosixPath

from gaplaw.errors import SpecError
from gaplaw.objects import is_url, refuse_credentials
from gaplaw.spec import Execution, Sweep
from gaplaw.spec.execution import with_options
from gaplaw.sweep.forecast.targets import Target, fitted_to_all

RESTARTS = 10  # of a whole JobSet or task after lost hosts; finished cells are not run again
MOUNTED = "/mnt/gaplaw"
# GKE moves directories in a mounted bucket only up to this many objects; checkpoints and claims are directories that
# are renamed.
_MOUNT_OPTIONS = "implicit-dirs,rename-dir-limit=10000"


@dataclass(frozen=True, kw_only=True)
class Names:
    """What clouds call a chip. one_host: the most chips of a slice on one host; a larger slice has four on each.

    sky: SkyPilot's accelerator with {} for its number, which counts `sky_per_chip` for each chip.
    """

    gke: str
    one_host: int
    sky: str
    sky_per_chip: int = 1
    sky_runtime: str | None = None
    python: str = "jax[tpu]"

    def hosts(self, chips: int) -> int:
        return 1 if chips <= self.one_host else chips // 4


NAMES = {
    "v5e": Names(gke="tpu-v5-lite-podslice", one_host=8, sky="tpu-v5litepod-{}", sky_runtime="v2-alpha-tpuv5-lite"),
    "v5p": Names(gke="tpu-v5p-slice", one_host=4, sky="tpu-v5p-{}", sky_per_chip=2, sky_runtime="v2-alpha-tpuv5"),
    "v6e": Names(gke="tpu-v6e-slice", one_host=8, sky="tpu-v6e-{}", sky_runtime="v2-alpha-tpuv6e"),
    "h100": Names(gke="nvidia-h100-80gb", one_host=8, sky="H100:{}", python="jax[cuda12]"),
    "h200": Names(gke="nvidia-h200-141gb", one_host=8, sky="H200:{}", python="jax[cuda12]"),
}


@dataclass(frozen=True, kw_only=True)
class Order:
    """One experiment on one target: what both kinds of manifest say.

    Args:
      experiment: as given to `gaplaw run`; must be found from the working directory there.
      out: the run folder, a gs:// URL.
      execution: how to run, with a mesh over all chips. own: how `gaplaw run` would without options.
      options: what the user said about it, repeated in the command.
    """

    sweep: str
    experiment: str
    out: str
    target: Target
    execution: Execution
    own: Execution
    options: dict

    @property
    def names(self) -> Names:
        return NAMES[self.target.chip.name]

    @property
    def hosts(self) -> int:
        return self.names.hosts(self.target.chips)

    @property
    def bucket(self) -> str:
        return self.out.partition("://")[2].partition("/")[0]

    @property
    def folder(self) -> str:
        """The run folder as a host sees it."""
        if self.hosts == 1:
            return self.out
        return str(PurePosixPath(MOUNTED) / self.out.partition("://")[2].partition("/")[2])

    @property
    def command(self) -> list[str]:
        """What every host runs: the one place that says it."""
        return ["gaplaw", "run", self.experiment, "--out", self.folder, *flags(self.execution, self.own, self.options)]

    @property
    def job_name(self) -> str:
        return "gaplaw-" + "".join(c if c.isalnum() else "-" for c in self.sweep.lower())[:40].strip("-")


def order(sweep: Sweep, experiment: str, out: str, target: Target, own: Execution, options: dict) -> Order:
    """Put together what a manifest needs: the program that `gaplaw plan --target` compiles. Refuse what could not run.

    Beside the mesh, which is the plan's, a manifest sets what its hosts need: one group at a time (`workers`), all
    cores for it (`single_thread`), and one process on each host (`hosts.processes`, `hosts.launch`).

    Args: own: the experiment's own execution, which its hosts start from. options: what the user wants changed in it.
    Raises: SpecError for a target without manifests, a folder that is no bucket, options that contradict what a
    manifest sets, or a mesh that does not suit; SweepError for credentials in the folder's URL.
    """
    if target.chip.name not in NAMES:
        raise SpecError(f"--target {target.name}: no manifest for it; must be a TPU slice or a GPU host")
    if not is_url(out) or not out.partition("://")[2].partition("/")[2]:
        raise SpecError(
            f"--out {out}: must be a folder in a bucket that the hosts can reach, such as gs://bucket/runs/{sweep.name}"
        )
    refuse_credentials(
        out, "a manifest is read by many: give the hosts a role, or a secret of the cluster as variables"
    )
    hosts = NAMES[target.chip.name].hosts(target.chips)
    if hosts > 1 and not out.startswith("gs://"):
        raise SpecError(f"--out {out}: must be gs://… for the {hosts} hosts of {target.name}, which mount it")
    launch = "everywhere" if hosts > 1 else "here"
    fixed_by_hosts = {"workers": 1, "single_thread": False, "hosts": {"processes": hosts, "launch": launch}}
    _refuse_other(fixed_by_hosts, options, target, "--")
    wanted = with_options(own, options | fixed_by_hosts | {"hosts": options.get("hosts", {}) | fixed_by_hosts["hosts"]})
    mesh = fitted_to_all(target, wanted, sweep.groups()).mesh
    return Order(
        sweep=sweep.name,
        experiment=experiment,
        out=out,
        target=target,
        execution=replace(wanted, mesh=mesh),
        own=own,
        options=options,
    )


def _refuse_other(fixed_by_hosts: dict, options: dict, target: Target, above: str) -> None:
    """Refuse options that contradict what every manifest for the target sets."""
    for name, value in fixed_by_hosts.items():
        given, option = options.get(name, value), f"{above}{name.replace('_', '-')}"
        if isinstance(value, dict):
            _refuse_other(value, options.get(name, {}), target, f"{option}.")
        elif given != value:
            raise SpecError(f"{option} = {given}: a manifest for {target.name} sets {value}; leave it out")


def flags(execution: Execution, own: Execution, options: dict) -> list[str]:
    """The options of `gaplaw run` that turn one Execution into another; `options` even where they change nothing."""
    return _flags(execution, own, options, "")


def _flags(value: object, own: object, options: dict, above: str) -> list[str]:
    found: list[str] = []
    for field in fields(value):
        new, old, name = getattr(value, field.name), getattr(own, field.name), field.name.replace("_", "-")
        if is_dataclass(new):
            found += _flags(new, old, options.get(field.name, {}), f"{above}{name}.")
        elif new == old and field.name not in options:
            continue
        elif isinstance(new, bool):
            found.append(f"--{above}{name}" if new else f"--{above}no-{name}")
        else:
            found += [f"--{above}{name}", str(new)]
    return found


def jobset(order: Order, image: str) -> dict:
    """A JobSet of one slice: one pod per host, all of them started again together when one is lost.

    Several hosts mount the bucket, so the pods' service account must be allowed to read and write it.

    Args: image: a container image with gaplaw, its extras, JAX for the accelerator and the experiment's file.
    """
    tpu, hosts = order.target.chip.kind == "tpu", order.hosts
    selector = {"cloud.google.com/gke-accelerator": order.names.gke}
    if tpu:
        selector = {
            "cloud.google.com/gke-tpu-accelerator": order.names.gke,
            "cloud.google.com/gke-tpu-topology": order.target.shape,
        }
    container = {
        "name": "gaplaw",
        "image": image,
        "command": order.command,
        "resources": {"limits": {"google.com/tpu" if tpu else "nvidia.com/gpu": order.target.chips // hosts}},
    }
    pod = {"restartPolicy": "Never", "nodeSelector": selector, "containers": [container]}
    template: dict = {"spec": pod}
    if hosts > 1:
        container["volumeMounts"] = [{"name": "runs", "mountPath": MOUNTED}]
        attributes = {"bucketName": order.bucket, "mountOptions": _MOUNT_OPTIONS}
        pod["volumes"] = [
            {"name": "runs", "csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}
        ]
        template = {"metadata": {"annotations": {"gke-gcsfuse/volumes": "true"}}} | template
    job = {"parallelism": hosts, "completions": hosts, "backoffLimit": 0, "template": template}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": order.job_name,
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": RESTARTS},
            "replicatedJobs": [{"name": "slice", "replicas": 1, "template": {"spec": job}}],
        },
    }


def skypilot(order: Order, image: str | None) -> dict:
    """A SkyPilot task from the working directory: a TPU slice is one node whose hosts all run the command.

    Args: image: a container image to run in, else SkyPilot's default machine image.
    """
    resources: dict = {"accelerators": order.names.sky.format(order.target.chips * order.names.sky_per_chip)}
    if order.names.sky_runtime:
        resources = {"infra": "gcp"} | resources | {"accelerator_args": {"runtime_version": order.names.sky_runtime}}
    if image:
        resources["image_id"] = f"docker:{image}"
    resources["job_recovery"] = {"strategy": "FAILOVER", "max_restarts_on_errors": RESTARTS}
    task = {
        "name": order.job_name,
        "workdir": ".",
        "num_nodes": 1,
        "resources": resources,
        "setup": f"pip install -e '.[train,cloud]' '{order.names.python}'",
        "run": shlex.join(order.command),
    }
    if order.hosts > 1:
        task["file_mounts"] = {MOUNTED: {"source": f"gs://{order.bucket}", "mode": "MOUNT"}}
    return task
