"""Groups trained by several real processes over gloo, each with virtual devices, give the numbers of one process."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gaplaw import data, results
from gaplaw.canonical import to_dict
from gaplaw.errors import SpecError
from gaplaw.files import read_json
from gaplaw.spec import Group, HostsSpec, MeshSpec, TeacherSignal, TrainSpec
from gaplaw.sweep import resolve, run
from gaplaw.train import run_group
from gaplaw.train.checkpoint import load
from tests.sweep.running.test_kill import wait_until
from tests.sweep.sweeps import QUICK, ROOT, checkpoint_steps, tiny_sweep

TWO = dataclasses.replace(
    QUICK, workers=1, hosts=HostsSpec(processes=2, local_devices=2), mesh=MeshSpec(data=2, tensor=2), core_blocked=False
)
FOUR = dataclasses.replace(
    TWO,
    hosts=HostsSpec(processes=4, local_devices=2),
    mesh=MeshSpec(data=2, fsdp=2, student=2),
    evaluations=2,
    keep_students="best",
)


def go(sweep, out, execution):
    shown = Console(file=io.StringIO(), width=300)
    return run(sweep, out, execution, shown), shown.file.getvalue()


def alone(sweep):
    """Only the first teacher."""
    return dataclasses.replace(sweep, teachers=sweep.teachers[:1], students=(), baselines=())


def assert_same_numbers(found, expected, rtol=1e-4):
    columns = [name for name in expected if name.endswith("_nats") or name == "agreement"]
    found, expected = (frame.set_index("cell_id").sort_index()[columns].astype(float) for frame in (found, expected))
    assert found.index.equals(expected.index) and expected.loss_student_ce_nats.notna().all()
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=rtol, atol=2e-5)


def test_two_processes_of_two_devices_train_the_teacher_of_one(sweep, tmp_path):
    teacher = alone(sweep).teachers[0]
    summary, shown = go(alone(sweep), tmp_path / "runs" / "tiny", TWO)
    assert summary.failures == {}, shown
    row = results.read(tmp_path / "runs" / "tiny").iloc[0]
    assert (row.process_count, row.device_count) == (2, 4)
    (here,) = run_group(Group(cells=(teacher,)), corpus=data.load(teacher.data), execution=QUICK)
    assert row.loss_student_ce_nats == pytest.approx(here.metrics["loss_student_ce_nats"], rel=1e-4)
    curve = results.read(tmp_path / "runs" / "tiny", "curves")
    assert curve.training_loss_nats.tolist() == pytest.approx([r["training_loss_nats"] for r in here.curve], rel=1e-4)


def test_too_few_devices_for_the_mesh_are_refused_before_a_file_is_written(sweep, tmp_path):
    wide = dataclasses.replace(TWO, mesh=MeshSpec(data=8))
    rule = r"Execution\.mesh\.devices = 8: the product of the axes must be the 4 devices of the 2 processes$"
    with pytest.raises(SpecError, match=rule):
        go(alone(sweep), tmp_path / "runs" / "tiny", wide)
    assert not list((tmp_path / "runs").rglob("*.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("init", ["scratch", "prune"])
def test_four_processes_of_two_devices_run_the_sweep_of_one(source, tmp_path, init):
    fields = {"teachers": (16,), "students": (12,), "seeds": (0,), "baseline": False, "init": init}
    sweep = resolve(tiny_sweep(source, **fields))
    one, _ = go(sweep, tmp_path / "one" / "tiny", QUICK)
    four, shown = go(sweep, tmp_path / "four" / "tiny", FOUR)
    assert (one.failures, four.failures) == ({}, {}), shown
    tables = [results.read(tmp_path / name / "tiny") for name in ("four", "one")]
    assert set(tables[0].process_count) == {4} and set(tables[0].device_count) == {8}
    assert_same_numbers(*tables)
    kept = {path.name: load(path)[1] for path in (tmp_path / "four" / "tiny" / "students").iterdir()}
    shapes = results.read(tmp_path / "four" / "tiny").query("role != 'teacher'").set_index("cell_id").model
    assert {name: to_dict(model) for name, model in kept.items()} == shapes.map(json.loads).to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_two_processes_fill_and_read_the_cache_of_one(source, tmp_path, kind):
    signal = TeacherSignal(kind=kind, symbols=4)
    sweep = resolve(tiny_sweep(source, teachers=(16,), students=(12, 8), seeds=(0,), baseline=False, signal=signal))
    one, _ = go(sweep, tmp_path / "one" / "tiny", dataclasses.replace(QUICK, core_blocked=False))
    two, shown = go(sweep, tmp_path / "two" / "tiny", TWO)
    assert (one.failures, two.failures) == ({}, {}), shown
    tables = [results.read(tmp_path / name / "tiny") for name in ("two", "one")]
    assert set(tables[0].process_count) == {2}
    assert_same_numbers(*(table[table.role != "teacher"] for table in tables))
    shards = [sorted((tmp_path / name / "store" / "signals").glob("*/*/shards/*.npz")) for name in ("two", "one")]
    assert [path.name for path in shards[0]] == [path.name for path in shards[1]] != []
    before = {path: path.stat().st_mtime_ns for path in shards[0]}
    for row in (tmp_path / "two" / "tiny" / "cells").glob("s*.parquet"):
        row.unlink()  # run again, the students read the cache that is there
    again, shown = go(sweep, tmp_path / "two" / "tiny", TWO)
    assert again.failures == {} and {path: path.stat().st_mtime_ns for path in shards[0]} == before, shown


@pytest.mark.slow
def test_a_killed_process_costs_a_try_from_the_last_checkpoint_on_and_the_sweep_ends(source, tmp_path):
    sweep = resolve(tiny_sweep(source, students=()))
    long = TrainSpec(tokens=16 * 8 * 100, batch_sequences=8)
    teachers = tuple(dataclasses.replace(cell, train=long) for cell in sweep.teachers)
    sweep = dataclasses.replace(sweep, teachers=teachers)
    for every, follows in ((0, "it goes on from its checkpoint"), (3600, "its unfinished cell starts again")):
        out = tmp_path / str(every) / "tiny"
        execution = dataclasses.replace(TWO, steps_per_dispatch=1, checkpoint_seconds=every)

        def kill(out=out, every=every):
            def told():
                return [read_json(path) or {} for path in (out / "progress").glob("*.json")]

            wait_until(lambda: any(one.get("phase") == "train" and one["step"] > 3 for one in told()), 120)
            wait_until(lambda: every or max(checkpoint_steps(out).values(), default=0) > 0, 60)
            (log,) = (out / "logs").glob("*.process-1.log")
            group = log.name.split(".process")[0]
            os.kill(next(found for found in _processes(str(out), group) if _number(found) == 1), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        summary, shown = go(sweep, out, execution)
        killer.join()
        assert (summary.done, summary.failed) == (2, 0), shown
        assert "killed by SIGKILL (9); see" in shown and f".process-1.log; {follows}" in shown


EXPERIMENT = """
from tests.sweep.sweeps import tiny_sweep
sweep = tiny_sweep({source!r}, students=(), teacher_tokens=16 * 8 * 60)
"""


def host(number, out, experiment, wait_seconds=90, **variables):
    """`gaplaw run` as the scheduler of a cluster would start it on host `number` of two."""
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    slurm |= {"SLURM_PROCID": str(number), "SLURM_LOCALID": "0", "PYTHONPATH": str(ROOT)}
    options = "--workers 1 --hosts.launch everywhere --hosts.processes 2 --hosts.local-devices 2 --mesh.data 4 --json "
    options += "--steps-per-dispatch 1 --checkpoint-seconds 0 "
    options += f"--hosts.initialization-timeout-seconds {wait_seconds}"
    command = [sys.executable, "-m", "gaplaw.cli", "run", str(experiment), "--out", str(out), *options.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | slurm | variables, **pipes)


@pytest.fixture
def experiment(source, tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(EXPERIMENT.format(source=source))
    return path


@pytest.mark.slow
def test_one_command_on_every_host_is_one_sweep_that_outlives_a_killed_process(experiment, tmp_path):
    out = tmp_path / "runs" / "tiny"
    hosts = [host(number, out, experiment) for number in (0, 1)]
    assert wait_until(lambda: max(checkpoint_steps(out).values(), default=0) > 0, 120)
    (log,) = (out / "logs").glob("*.process-1.log")
    (group,) = checkpoint_steps(out)
    victim = next(number for number in _processes(str(out), group) if _parent(number) == hosts[1].pid)
    os.kill(victim, signal.SIGKILL)
    ends = [process.communicate(timeout=300) for process in hosts]
    assert [process.returncode for process in hosts] == [0, 0], ends
    summary = json.loads(ends[0][0])
    assert (summary["done"], summary["failed"]) == (2, 0)
    assert f"{group}: on host 1: worker killed by SIGKILL (9); see {log}; it goes on from its checkpoint" in ends[0][1]
    assert ends[1][0] == "" and "followed another" in ends[1][1]
    assert set(results.read(out).process_count) == {2} and not list((out / "pods").iterdir())


def test_a_host_that_does_not_come_is_told_in_one_line(experiment, tmp_path):
    alone = host(0, tmp_path / "runs" / "tiny", experiment, wait_seconds=2)
    said, shown = alone.communicate(timeout=120)
    assert alone.returncode == 2 and json.loads(said)["error"]["kind"] == "SweepError"
    assert (
        shown.strip()
        .splitlines()[-1]
        .startswith("gaplaw: error: Execution.hosts.processes = 2: not so many came within 2 s")
    )


@pytest.mark.slow
def test_a_host_too_many_is_told_in_one_line(experiment, tmp_path):
    hosts = [host(number, tmp_path / "runs" / "tiny", experiment, SLURM_NTASKS="3") for number in (0, 1, 2)]
    for process in hosts:
        shown = process.communicate(timeout=120)[1]
        assert process.returncode == 2 and "the plan's number, but 3 are here" in shown, shown


def _processes(out, group):
    """Living worker processes of a group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if out in words and group in words:
            found.append(int(entry.name))
    return found


def _parent(number):
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def _number(process):
    """The number of a worker among its group's processes."""
    settings = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return next(int(line.partition("=")[2]) for line in settings if line.startswith("GAPLAW_PROCESS_ID="))
