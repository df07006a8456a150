"""Manifests say what the docs of JobSet and SkyPilot ask for, and their command is one that `gaplaw run`
understands.
"""

import shlex

import pytest
import tyro
import yaml

from gaplaw import cli
from gaplaw.cli.execution_options import options_of
from gaplaw.errors import SpecError
from gaplaw.spec import Execution, HostsSpec, MeshSpec
from gaplaw.spec.execution import with_options
from gaplaw.sweep.engines.manifests import NAMES, flags, jobset, order, skypilot
from gaplaw.sweep.forecast.targets import CHIPS, target
from tests.toy import sweep

OUT = "gs://bucket/runs/toy"
# Fields as in the API reference of jobset.x-k8s.io/v1alpha2 (with Kubernetes' Job and Pod) and in SkyPilot's YAML spec.
JOBSET_FIELDS = {"apiVersion", "kind", "metadata", "spec"}
SPEC_FIELDS = {"failurePolicy", "replicatedJobs", "network", "successPolicy", "startupPolicy", "suspend", "coordinator"}
JOB_FIELDS = {"parallelism", "completions", "backoffLimit", "template"}
SKY_FIELDS = {"name", "workdir", "num_nodes", "resources", "envs", "file_mounts", "setup", "run"}
SKY_RESOURCES = {"infra", "accelerators", "accelerator_args", "image_id", "job_recovery", "use_spot"}


def made(name, execution=Execution(), out=OUT):  # noqa: B008 (frozen)
    return order(sweep(), "toy.py", out, target(name), execution, {})


def test_a_slice_of_many_hosts_is_a_jobset_whose_pods_are_its_hosts():
    manifest = jobset(made("v5p:2x2x2"), "image:1")
    assert manifest.keys() == JOBSET_FIELDS and manifest["spec"].keys() <= SPEC_FIELDS
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job.keys() <= JOB_FIELDS and (job["parallelism"], job["completions"], job["backoffLimit"]) == (2, 2, 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "2x2x2",
    }
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4} and container["image"] == "image:1"
    assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]
    assert pod["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "bucket"
    assert container["command"][:5] == ["gaplaw", "run", "toy.py", "--out", "/mnt/gaplaw/runs/toy"]


def test_one_host_uses_the_url_and_mounts_nothing():
    for name, limit in (("v5e:2x4", {"google.com/tpu": 8}), ("gpu:h100x8", {"nvidia.com/gpu": 8})):
        one = made(name, out="s3://bucket/runs/toy")
        pod = jobset(one, "image")["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"] == limit and "volumes" not in pod
        assert "s3://bucket/runs/toy" in one.command and "everywhere" not in one.command
        assert "file_mounts" not in skypilot(one, None)


def test_a_skypilot_task_names_the_slice_as_skypilot_does():
    task = skypilot(made("v5p:2x2x2"), None)
    assert task.keys() <= SKY_FIELDS and task["resources"].keys() <= SKY_RESOURCES
    assert task["resources"]["accelerators"] == "tpu-v5p-16" and task["num_nodes"] == 1
    assert task["file_mounts"] == {"/mnt/gaplaw": {"source": "gs://bucket", "mode": "MOUNT"}}
    assert shlex.split(task["run"]) == made("v5p:2x2x2").command
    assert skypilot(made("gpu:h100x8"), "image:1")["resources"]["image_id"] == "docker:image:1"
    assert skypilot(made("v5e:4x4"), None)["resources"]["accelerators"] == "tpu-v5litepod-16"


PLAIN = Execution()
OTHER = Execution(mesh=MeshSpec(fsdp=4, tensor=2), single_thread=False, core_blocked=False, scan_layers=True)
MANY = Execution(workers=1, hosts=HostsSpec(processes=4, launch="everywhere"), compute_dtype="bfloat16")


@pytest.mark.parametrize("default", [PLAIN, OTHER, MANY])
@pytest.mark.parametrize("execution", [PLAIN, OTHER, MANY])
def test_flags_turn_what_the_hosts_start_from_into_what_was_asked_for(execution, default):
    words = flags(execution, default, {})
    assert with_options(default, tyro.cli(options_of(Execution), args=words)) == execution
    assert bool(words) == (execution != default)


def test_the_command_spreads_the_mesh_over_all_chips_of_all_hosts():
    read = made("v5e:4x4", Execution(compute_dtype="bfloat16")).execution
    assert (read.mesh.devices, read.hosts.processes, read.hosts.launch, read.workers) == (16, 4, "everywhere", 1)
    assert read.compute_dtype == "bfloat16" and not read.single_thread


def test_every_chip_that_can_be_forecast_has_names():
    assert {chip.name for chip in CHIPS} == NAMES.keys()


@pytest.mark.parametrize(
    ("name", "out", "said"),
    [
        ("v5p:2x2x2", "runs/toy", "--out runs/toy: must be a folder in a bucket"),
        ("v5p:2x2x2", "gs://bucket", "must be a folder in a bucket"),
        ("v5p:2x2x2", "s3://bucket/runs/toy", "must be gs://… for the 2 hosts"),
    ],
)
def test_a_folder_that_the_hosts_could_not_reach_is_refused(name, out, said):
    with pytest.raises(SpecError, match=said):
        made(name, out=out)


def test_the_verb_prints_one_yaml_document(capsys, tmp_path):
    (tmp_path / "toy.py").write_text("from tests.toy import sweep\n")
    words = ["emit", "gke-jobset", str(tmp_path / "toy.py"), "--target", "v5p:2x2x2", "--out", OUT]
    assert cli.main([*words, "--image", "image:1"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["kind"] == "JobSet"
    assert cli.main(words) == 2 and "needs --image" in capsys.readouterr().err
    assert cli.main(["emit", "skypilot", *words[2:]]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["resources"]["infra"] == "gcp"
    assert cli.main([*words[:4], "v9x:1", *words[5:], "--image", "i"]) == 2
    assert "must be one of" in capsys.readouterr().err
