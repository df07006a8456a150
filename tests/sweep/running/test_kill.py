"""Killed or interrupted at any moment, a sweep loses nothing finished, leaves no process behind, and ends with the same
table.
"""

import dataclasses
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from gaplaw import results
from gaplaw.files import read_json
from gaplaw.spec import TrainSpec
from gaplaw.sweep import run
from gaplaw.sweep.folder.run_folder import RunFolder
from tests.sweep.sweeps import QUICK, ROOT, checkpoint_steps

RUN = """
import signal, sys
from gaplaw.sweep import resolve, run
from gaplaw.sweep.engines.local import LocalExecutor
from tests.sweep.sweeps import tiny_sweep
from tests.sweep.running.test_kill import LONG, OFTEN, REAL
module, out, source = sys.argv[1:]
sweep = resolve(tiny_sweep(source, **(LONG if module == REAL else {})))
print(run(sweep, out, OFTEN, executor=LocalExecutor(module=module)).done)
"""
OFTEN = dataclasses.replace(
    QUICK, steps_per_dispatch=1, checkpoint_seconds=0
)  # a checkpoint after every step, if it can
LONG = {"student_tokens": 16 * 8 * 150, "teacher_tokens": 16 * 8 * 150}
STAND_IN, REAL = "tests.sweep.running.stand_in_worker", "gaplaw.sweep.running.worker"


def start(module: str, out: Path, source: str) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, module, str(out), source]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)


def finish(module: str, out: Path, source: str) -> pd.DataFrame:
    """Run to the end and return the part of the table that must not depend on how it was reached."""
    process = start(module, out, source)
    said, shown = process.communicate(timeout=300)
    assert process.returncode == 0 and said.strip() == "8", shown
    return table(out)


def table(out: Path) -> pd.DataFrame:
    frame = results.read(out)
    changing = ["finished_at", "group_id", "group_cells", "git_commit", "git_dirty"]
    changing += [name for name in frame if name.endswith("_seconds")]
    return frame.drop(columns=changing).sort_values("cell_id").reset_index(drop=True)


def workers_of(out: Path) -> list[int]:
    """Living worker processes of a run folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            ended = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            continue
        if not ended and str(out).encode() in words and b"-m" in words:
            found.append(int(entry.name))
    return found


def wait_until(true, seconds: float):
    """Ask again and again until the answer is true or the time is over. Returns: the last answer, never asked anew."""
    end = time.monotonic() + seconds
    while not (answer := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return answer


def resumes(out: Path) -> int:
    return sum(log.read_text().count("goes on from step") for log in (out / "logs").glob("*.log"))


def kill_somewhere(module: str, out: Path, source: str, after_progress: bool, seconds: float) -> None:
    """Start a run and kill it some seconds after it began, or after the first thing that it finished: a row or a
    checkpoint.
    """
    process = start(module, out, source)

    def stands():
        return (len(results.row_files(out)), checkpoint_steps(out))

    def ended():
        return process.poll() is not None

    wait_until(lambda: (out / "sweep.json").exists() or ended(), 60)
    before = stands()
    if after_progress:
        wait_until(lambda: stands() != before or ended(), 120)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)


def killed_and_finished(module, out, source, moments, reference):
    """Kill -9 at each moment in turn, finish, and compare with the uninterrupted table."""
    for moment in moments:
        before = dict.fromkeys(path.name for path in results.row_files(out)) if out.exists() else {}
        kill_somewhere(module, out, source, *moment)
        assert wait_until(lambda: not workers_of(out), 20), "workers outlived their parent"
        assert before.keys() <= {path.name for path in results.row_files(out)}
        for path in results.row_files(out):
            results.read_rows(path)  # every file that is there is whole
    pd.testing.assert_frame_equal(finish(module, out, source), reference)
    assert not list(RunFolder(out).part("locks").iterdir()) and not (out / "checkpoints").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_kill_9_of_the_parent_stops_the_workers_and_the_next_run_completes_the_same_table(tmp_path, source):
    reference = finish(STAND_IN, tmp_path / "whole" / "tiny", source)
    chance = random.Random(os.urandom(8))
    moments = [(False, chance.uniform(0, 3)) for _ in range(2)]
    killed_and_finished(STAND_IN, tmp_path / "killed" / "tiny", source, moments, reference)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ctrl_c_stops_the_workers_and_frees_the_claims(tmp_path, source, monkeypatch):
    monkeypatch.setenv("GAPLAW_STAND_IN_SECONDS", "60")
    out = tmp_path / "runs" / "tiny"
    process = start(STAND_IN, out, source)
    assert wait_until(lambda: (out / "ran.txt").exists(), 60)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) != 0
    assert not workers_of(out)
    assert not list(RunFolder(out).part("locks").iterdir()) and not list((RunFolder(out).store / "locks").iterdir())


@pytest.mark.slow
def test_a_worker_killed_in_training_goes_on_from_its_checkpoint_to_the_same_row(sweep, tmp_path):
    teacher = dataclasses.replace(sweep.teachers[0], train=TrainSpec(tokens=16 * 8 * 60, batch_sequences=8))
    alone = dataclasses.replace(sweep, teachers=(teacher,), students=(), baselines=())
    tables, shown = [], Console(file=io.StringIO(), width=200)
    for place, kills in ((tmp_path / "whole" / "tiny", False), (tmp_path / "killed" / "tiny", True)):

        def kill(out=place):
            assert wait_until(lambda: max(checkpoint_steps(out).values(), default=0) >= 3, 60)
            (progress,) = (read_json(path) for path in (out / "progress").glob("*.json"))
            os.kill(progress["pid"], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start() if kills else None
        summary = run(alone, place, OFTEN, shown)
        killer.join() if kills else None
        assert (summary.done, summary.failed, resumes(place)) == (1, 0, int(kills))
        tables.append(table(place))
        curve = results.read(place, "curves")
        assert curve.tokens.is_monotonic_increasing and len(curve) == 60
    pd.testing.assert_frame_equal(*tables)
    assert "killed by SIGKILL (9); see" in shown.file.getvalue()


@pytest.mark.slow
def test_kill_9_at_twenty_moments_with_the_real_trainer_ends_with_the_same_numbers(tmp_path, source):
    reference = finish(REAL, tmp_path / "whole" / "tiny", source)
    chance = random.Random(os.urandom(8))
    moments = [(chance.random() < 0.7, chance.uniform(0, 0.7)) for _ in range(20)]
    killed_and_finished(REAL, tmp_path / "killed" / "tiny", source, moments, reference)
    assert resumes(tmp_path / "killed" / "tiny") > 0
