"""The engines: groups run, stop and survive lost machines, through submitit's local executor and on a real Ray
cluster.
"""

import os
import re
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gaplaw import results
from gaplaw.errors import SpecError, SweepError
from gaplaw.spec import Execution, HostsSpec, MeshSpec
from gaplaw.sweep import resolve, run
from gaplaw.sweep.engines.engine import run_worker
from gaplaw.sweep.engines.local import LocalExecutor
from gaplaw.sweep.engines.ray import RayExecutor
from gaplaw.sweep.engines.slurm import SlurmExecutor
from gaplaw.sweep.folder.object_store import Bucket
from gaplaw.sweep.folder.run_folder import RunFolder
from tests.sweep.running.test_hosts import TWO, assert_same_numbers
from tests.sweep.running.test_kill import STAND_IN, wait_until, workers_of
from tests.sweep.running.test_run import go, names
from tests.sweep.sweeps import QUICK, checkpoint_steps, one_teacher, ran, tiny_sweep


class Ray(RayExecutor):
    module = STAND_IN


class Slurm(SlurmExecutor):
    module = STAND_IN


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "tiny"


@pytest.mark.parametrize(
    ("engine", "package", "executor"), [("ray", "ray", RayExecutor()), ("slurm", "submitit", SlurmExecutor())]
)
def test_a_missing_package_names_the_extra_and_leaves_nothing(sweep, out, monkeypatch, engine, package, executor):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        SweepError,
        match=rf"--executor {engine}: needs the package {package}; install with: pip install -e .*\[{engine}\]",
    ):
        run(sweep, out, QUICK, executor=executor)
    assert not out.exists()


def test_slurm_without_sbatch_and_options_of_another_form_are_refused(monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SweepError, match="no sbatch on this machine"):
        SlurmExecutor().prepare(QUICK)
    with pytest.raises(SpecError, match="--slurm.options: 'qos' is not of the form NAME=VALUE"):
        SlurmExecutor(options="account=me,qos").prepare(QUICK)


def test_a_machine_that_does_not_see_the_run_folder_says_so(tmp_path):
    said = run_worker(["-c", "pass"], {}, str(tmp_path / "logs" / "group.log"))
    assert said.startswith(f"{tmp_path / 'logs'}: not seen from {os.uname().nodename}")
    log = tmp_path / "logs" / "group.log"  # with a folder on an object store it need not see anything
    assert run_worker(["-c", "print('here')", "s3://bucket/runs/tiny", "group"], {}, str(log)) == 0
    assert log.read_text().endswith("here\n")


def test_a_group_asks_ray_for_the_devices_of_its_mesh_in_equal_shares():
    four = MeshSpec(fsdp=2, tensor=2)
    assert RayExecutor(accelerator="tpu", cpus=8).needs(Execution(mesh=four)) == {"CPU": 8, "TPU": 4}
    slice_ = RayExecutor(accelerator="tpu", resources="my-slice=1,disk=0.5")
    assert slice_.needs(Execution(mesh=four, hosts=HostsSpec(processes=2))) == {
        "CPU": 1, "TPU": 2, "my-slice": 1, "disk": 0.5,
    }  # fmt: skip
    with pytest.raises(SpecError, match="--ray.resources: 'my-slice' is not of the form NAME=AMOUNT"):
        RayExecutor(resources="my-slice").prepare(QUICK)


# ---- Slurm through submitit, whose local stand-in runs the same jobs as processes


@pytest.fixture
def slurm():
    pytest.importorskip("submitit")
    return Slurm(cluster="local", minutes=20)


def test_slurm_jobs_run_a_sweep(sweep, out, slurm, monkeypatch):
    monkeypatch.setenv("GAPLAW_STAND_IN_SECONDS", "0")
    small = replace(one_teacher(sweep), students=())  # one job
    summary, _ = go(small, out, slurm)
    assert (summary.done, summary.failed) == (len(small.cells), 0)
    assert sorted(ran(out)) == sorted(names(small.cells))


def one_group(executor, folder):
    """A task that the stand-in works on for a minute, as `run` would start it."""
    folder.make()
    (folder.part("tasks") / "group.json").write_text('{"group": "group", "cells": [], "execution": {}, "keeps": []}')
    return executor.start(folder, "group", QUICK)


def test_a_preempted_slurm_job_is_queued_again_and_a_stopped_one_ends(out, slurm, monkeypatch):
    monkeypatch.setenv("GAPLAW_STAND_IN_SECONDS", "60")
    folder = RunFolder(out)
    handle = one_group(slurm, folder)
    first = wait_until(lambda: workers_of(out), 60)
    assert first
    holder = Path(f"/proc/{first[0]}/stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(holder), signal.SIGUSR2)  # what Slurm, told so by submitit, sends before it takes a node away
    assert wait_until(lambda: set(workers_of(out)) - set(first), 60)
    assert handle.poll() is None
    handle.stop()
    assert wait_until(lambda: not workers_of(out), 20)


# ---- Ray, on a real cluster of two nodes on this machine


def test_a_ray_cluster_that_does_not_answer_is_one_line():
    pytest.importorskip("ray")
    with pytest.raises(SweepError, match="--ray.address 127.0.0.1:1: no Ray cluster answers") as caught:
        RayExecutor(address="127.0.0.1:1").prepare(QUICK)
    assert "\n" not in str(caught.value)


SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=SMALL)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_ray_says_what_is_lacking_and_a_stopped_group_ends(out, cluster, monkeypatch):
    assert "no node has 1 CPU, 1 GPU now" in RayExecutor(address=cluster.address, accelerator="gpu").prepare(QUICK)
    executor, folder = Ray(address=cluster.address), RunFolder(out)
    assert executor.prepare(QUICK) == "Ray: 1 node; each group asks for 1 CPU"
    monkeypatch.setenv("GAPLAW_STAND_IN_SECONDS", "60")
    handle = one_group(executor, folder)
    assert wait_until(lambda: workers_of(out), 60) and handle.poll() is None
    handle.stop()
    assert wait_until(lambda: not workers_of(out), 20)


@pytest.mark.slow
def test_two_ray_nodes_train_the_groups_of_one_process_together(source, tmp_path, cluster):
    """Gangs: a node each, met at the first; one killed process costs an attempt, not the sweep."""
    away = cluster.add_node(**SMALL)
    sweep = one_teacher(resolve(tiny_sweep(source)))
    one, _ = go(
        sweep, tmp_path / "one" / "tiny", LocalExecutor(), replace(QUICK, core_blocked=False, steps_per_dispatch=1)
    )
    out, engine = tmp_path / "two" / "tiny", RayExecutor(address=cluster.address)
    spread = replace(TWO, steps_per_dispatch=1, checkpoint_seconds=0)
    assert engine.prepare(spread) == "Ray: 2 nodes; each group asks for 2 nodes with 1 CPU"
    killed = []

    def kill():
        wait_until(lambda: max(checkpoint_steps(out).values(), default=0) > 0, 120)
        killed.extend(workers_of(out)[-1:])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    two, shown = go(sweep, out, engine, spread)
    killer.join()
    assert (one.failures, two.failures) == ({}, {}) and two.done == len(sweep.cells), shown
    assert "killed by SIGKILL (9); see" in shown and "it goes on from its checkpoint" in shown
    tables = [results.read(tmp_path / name / "tiny") for name in ("two", "one")]
    assert set(tables[0].process_count) == {2} and set(tables[0].device_count) == {4}
    assert_same_numbers(*tables)
    cluster.remove_node(away)
    short = engine.prepare(spread)
    assert short.startswith("warning: Ray: only 1 of the 2 nodes that a group needs has 1 CPU now")


@pytest.mark.slow
def test_ray_nodes_that_share_only_an_object_store_run_a_sweep(sweep, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(Bucket, "settings", {})  # so that workers do not find the local copy of their `run`
    small, url = one_teacher(sweep), f"file://{tmp_path}/bucket/runs/tiny"
    summary, _ = go(small, url, Ray(address=cluster.address))
    assert (summary.done, len(results.read(url))) == (len(small.cells), len(small.cells))


@pytest.mark.slow
def test_a_sweep_on_two_ray_nodes_outlives_one_of_them(sweep, out, cluster, monkeypatch):
    monkeypatch.setenv("GAPLAW_STAND_IN_SECONDS", "4")  # long enough that the node is lost with its group at work
    away = cluster.add_node(**SMALL)
    executor, result = Ray(address=cluster.address), {}
    thread = threading.Thread(target=lambda: result.update(zip(("is", "shown"), go(sweep, out, executor), strict=True)))
    thread.start()
    assert wait_until(lambda: len(workers_of(out)) == 2, 120), "one group on each node"
    cluster.remove_node(away, allow_graceful=False)
    thread.join(timeout=240)
    assert (result["is"].done, result["is"].failed) == (len(sweep.cells), 0)
    assert "Ray: 2 nodes" in result["shown"]
    assert re.search(r"Ray node \S+ died; its \d unfinished cells start again", result["shown"])
    assert len(results.read(out)) == len(sweep.cells)
