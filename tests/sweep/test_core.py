"""Workers share out the cores of a machine: each to itself while there are enough, none left unlocked, freed at the end."""

import os
import subprocess
import sys

import pytest

from gaplaw.execution import Execution, MeshSpec
from gaplaw.sweep.core import stay_on_a_core

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
HOLD = """
import os, sys, threading
from gaplaw.execution import Execution
from gaplaw.sweep.core import stay_on_a_core
threading.Thread(target=sys.stdin.read, daemon=True).start()
core = stay_on_a_core(Execution(workers=1000))
same = {tuple(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task")}
print(core, len(same) == 1 and same == {(core,)}, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker(tmp_path):
    started = []

    def start():
        own = os.environ | {"TMPDIR": str(tmp_path)}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_each_worker_has_a_core_and_leaves_it_when_it_ends(worker):
    first, second = worker(), worker()
    taken = [process.stdout.readline().split() for process in (first, second)]
    assert len({core for core, _ in taken}) == 2 and all(pinned == "True" for _, pinned in taken)
    first.kill()
    first.wait()
    if len(CORES) == 2:
        assert worker().stdout.readline().split()[0] == taken[0][0]
        assert worker().stdout.readline().split()[0] == "None"  # more workers than cores: the scheduler shares


def test_fewer_workers_than_cores_and_meshes_stay_free():
    before = os.sched_getaffinity(0) if CORES else None
    assert stay_on_a_core(Execution(workers=1, single_thread=False)) is None
    assert stay_on_a_core(Execution(workers=1000, mesh=MeshSpec(data=2))) is None
    if len(CORES) > 1:
        assert stay_on_a_core(Execution(workers=1)) is None
        assert os.sched_getaffinity(0) == before
