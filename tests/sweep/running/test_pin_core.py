"""Workers share out the cores of a machine: each to itself while there are enough, none left unlocked, freed at the
end.
"""

import os
import subprocess
import sys

import pytest

from gaplaw.spec import Execution, MeshSpec
from gaplaw.sweep.running.pin_core import private_folder, stay_on_a_core

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
HOLD = """
import os, sys, threading
from gaplaw.spec.execution import Execution
from gaplaw.sweep.running.pin_core import stay_on_a_core
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
        own = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are held on Linux only")
@pytest.mark.parametrize("planted", ["a link to a folder", "a file", "a folder that others may write"])
def test_a_planted_place_of_locks_is_refused_and_left_as_it_was(tmp_path, monkeypatch, capsys, planted):
    elsewhere, runtime = tmp_path / "elsewhere", tmp_path / "runtime"
    for folder in (elsewhere, runtime):
        folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    place = runtime / "gaplaw-cores"
    if planted == "a file":
        place.touch()
    elif planted == "a link to a folder":
        place.symlink_to(elsewhere)
    else:
        place.mkdir()
        place.chmod(0o777)
    before = os.sched_getaffinity(0)
    assert stay_on_a_core(Execution(workers=1000)) is None and os.sched_getaffinity(0) == before
    assert f"{place}: must be a folder of this user alone" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are held on Linux only")
def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for core in CORES:
        (private_folder() / str(core)).symlink_to(tmp_path / f"victim-{core}")
    assert stay_on_a_core(Execution(workers=1000)) is None
    assert not list(tmp_path.glob("victim-*"))


@pytest.mark.parametrize("runtime", [True, False])
def test_the_folder_of_locks_is_this_users_alone_whatever_the_environment_says(tmp_path, monkeypatch, runtime):
    if runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    else:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setenv("GAPLAW_CACHE", str(tmp_path))
    made = private_folder()
    assert tmp_path in made.parents and made.stat().st_mode & 0o777 == 0o700 and private_folder() == made
