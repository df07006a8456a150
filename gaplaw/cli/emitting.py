"""The verb that writes manifests for clusters: emit. It starts nothing and needs no cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional

from gaplaw.cli.execution_options import NO_OPTIONS, ExecutionOptions
from gaplaw.cli.options import Experiment, named, required
from gaplaw.errors import SpecError, SweepError
from gaplaw.packages import install_with


def emit(
    kind: Annotated[Literal["gke-jobset", "skypilot"], Positional, named("gke-jobset|skypilot")],
    experiment: Experiment,
    /,
    target: Annotated[str, required("TARGET")],
    out: Annotated[str, required("URL")],
    image: Annotated[str | None, named("IMAGE")] = None,
    execution: ExecutionOptions = NO_OPTIONS,
) -> int:
    """Print the manifest that runs an experiment on a TPU slice or a GPU host, for you to look at and submit.

    Example: gaplaw emit gke-jobset minima_3b --target v5p:4x4x8 --out gs://bucket/runs/minima_3b --image IMAGE |
      kubectl apply -f -

    Example: gaplaw emit skypilot minima_3b --target gpu:h100x8 --out s3://bucket/runs/minima_3b > task.yaml

    Every host runs the same `gaplaw run`; started again after a loss, it goes on from what is in the bucket.

    Args:
        kind: a JobSet for GKE (needs --image) or a task for SkyPilot (takes the working directory along).
        experiment: as on the hosts: a file's path from the working directory there, or the bare name of one in
            experiments/. It is code that is run, here and there: give only files that you trust.
        target: such as v5e:4x4, v5p:4x4x8, v6e:16x16 or gpu:h100x8.
        out: the run folder in a bucket, without credentials; several hosts mount the bucket, which then must be gs://.
        image: a container image with gaplaw, its extras train and cloud, JAX for the accelerator and the experiment;
            the Dockerfile of the clone makes one.
    """
    from gaplaw.sweep.engines.manifests import jobset, order, skypilot
    from gaplaw.sweep.forecast.targets import target as parse
    from gaplaw.sweep.planning.load import load

    try:
        import yaml
    except ImportError:
        raise SweepError(f"emit: needs the package PyYAML; {install_with('cloud')}") from None
    if kind == "gke-jobset" and not image:
        raise SpecError("emit gke-jobset: needs --image IMAGE, a container image that the cluster can pull")
    sweep, own = load(experiment)
    made = order(sweep, experiment, out, parse(target), own, execution)
    manifest = jobset(made, image) if kind == "gke-jobset" else skypilot(made, image)
    print(yaml.safe_dump(manifest, sort_keys=False, width=1000), end="")
    return 0
