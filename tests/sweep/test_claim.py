"""Claims hold one owner at a time: checked with many real processes, with expiry, death and take-over."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gaplaw.sweep.claim import Heartbeat, Owner, claim, clear_dead, holder

RACER = """
import sys, time
from pathlib import Path
from gaplaw.sweep.claim import claim
folder, start, rounds = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
while time.time() < start:
    pass
for number in range(rounds):
    held = claim(folder, f"group-{number}", expiry_seconds=30)
    if held:
        print(number, flush=True)
print("end", flush=True)
sys.stdin.read()  # live on until the others are through: a dead owner's claims are free again
"""
HOLDER = """
import sys, time
from pathlib import Path
from gaplaw.sweep.claim import claim
assert claim(Path(sys.argv[1]), "group")
print("held", flush=True)
time.sleep(60)
"""


def race(folder, rounds):
    """Four processes claim the same keys at the same time; returns how often each key was won."""
    start = str(time.time() + 0.6)
    command = [sys.executable, "-c", RACER, str(folder), start, str(rounds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(4)]
    won = [int(line) for racer in racers for line in iter(racer.stdout.readline, "end\n")]
    for racer in racers:
        racer.communicate(timeout=60)
    assert all(racer.returncode == 0 for racer in racers)
    return [won.count(number) for number in range(rounds)]


def test_of_many_processes_exactly_one_claims_each_free_group(tmp_path):
    assert race(tmp_path, 60) == [1] * 60


def test_of_many_processes_exactly_one_takes_over_each_expired_group(tmp_path):
    rounds = 60
    for number in range(rounds):
        held = claim(tmp_path, f"group-{number}")
        os.utime(held.place / held.owner.file_name, (1, 1))  # last heartbeat long ago; the owner, this process, lives
    assert race(tmp_path, rounds) == [1] * rounds


def test_a_held_group_is_refused_and_a_released_one_is_free(tmp_path):
    held = claim(tmp_path, "group")
    assert claim(tmp_path, "group") is None
    assert holder(tmp_path, "group")[0] == held.owner == Owner.parse(held.owner.file_name)
    held.release()
    assert holder(tmp_path, "group") is None
    assert claim(tmp_path, "group") is not None


def test_a_killed_owner_on_this_machine_is_replaced_at_once(tmp_path):
    if not os.path.exists("/proc/self/stat"):
        pytest.skip("needs /proc to know that a process has ended")
    owner = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline() == "held\n"
        assert claim(tmp_path, "group") is None
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert claim(tmp_path, "group") is not None


def test_a_heartbeat_keeps_a_claim_and_the_loser_of_a_take_over_learns_of_it(tmp_path):
    with Heartbeat(seconds=0.05) as heartbeat:
        held = claim(tmp_path, "group")
        heartbeat.keep(held)
        for _ in range(8):
            time.sleep(0.1)
            assert claim(tmp_path, "group", expiry_seconds=0.5) is None
        assert not heartbeat.lost(held)
    silent = claim(tmp_path, "group")
    time.sleep(0.15)
    taken = claim(tmp_path, "group", expiry_seconds=0.1)
    assert taken is not None and not silent.beat() and taken.beat()
    silent.release()  # must not free what is no longer its own
    assert holder(tmp_path, "group")[0] == taken.owner


def test_an_owner_of_another_machine_is_never_thought_gone():
    here = Owner.here()
    assert not here.gone
    ended = Owner(host=here.host, machine=here.machine, pid=here.pid, started="1", token="x")
    assert ended.gone or here.started == "0"
    elsewhere = Owner(host=here.host, machine="another", pid=here.pid, started="1", token="x")
    assert not elsewhere.gone


def test_dead_claims_are_cleared_and_living_ones_stay(tmp_path):
    dead, living = claim(tmp_path, "dead"), claim(tmp_path, "living")
    os.utime(dead._file, (1, 1))
    (tmp_path / ".half-made").mkdir()
    os.utime(tmp_path / ".half-made", (1, 1))
    assert clear_dead(tmp_path) is False
    assert [entry.name for entry in tmp_path.iterdir()] == ["living"] and living.beat()
    living.release()
    assert clear_dead(tmp_path) is True and clear_dead(tmp_path / "nowhere") is True


def test_a_folder_that_cannot_be_written_is_an_error_not_a_refusal(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError):
        claim(blocked, "group")
