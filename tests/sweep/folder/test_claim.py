"""Claims hold one owner at a time: checked with many real processes, with expiry, death and take-over."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from gaplaw.sweep.folder.claim import Claims, Heartbeat
from gaplaw.sweep.folder.owner import Owner

RACER = """
import sys, time
from pathlib import Path
from gaplaw.sweep.folder.claim import Claims
folder, rounds, silence = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
claims = Claims()
for holder in claims.holders(folder):
    claims.observer.silent_seconds(holder)
time.sleep(silence * 1.1)
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    if claims.claim(folder / f"group-{number}", expiry_seconds=silence or 30):
        print(number, flush=True)
print("end", flush=True)
sys.stdin.read()  # live on until the others are through: a dead owner's claims are free again
"""
HOLDER = """
import sys, time
from pathlib import Path
from gaplaw.sweep.folder.claim import Claims
assert Claims().claim(Path(sys.argv[1]) / "group")
print("held", flush=True)
time.sleep(60)
"""


def race(folder, rounds, silence=0.0):
    """Four processes claim the same keys at the same time; returns how often each key was won."""
    command = [sys.executable, "-c", RACER, str(folder), str(rounds), str(silence)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(4)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 4
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
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
        assert Claims().claim(tmp_path / f"group-{number}")  # the owner, this process, lives and is silent
    assert race(tmp_path, rounds, silence=1.0) == [1] * rounds


def test_a_held_group_is_refused_and_a_released_one_is_free(tmp_path):
    claims, place = Claims(), tmp_path / "group"
    held = claims.claim(place)
    assert claims.claim(place) is None
    assert claims.look(place).owner == held.owner == Owner.parse(held.owner.file_name)
    held.release()
    assert claims.look(place) is None
    assert claims.claim(place) is not None


def test_a_killed_owner_on_this_machine_is_replaced_at_once(tmp_path):
    if not os.path.exists("/proc/self/stat"):
        pytest.skip("needs /proc to know that a process has ended")
    claims = Claims()
    owner = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline() == "held\n"
        assert claims.claim(tmp_path / "group") is None
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert claims.claim(tmp_path / "group") is not None


def test_a_heartbeat_keeps_a_claim_and_the_loser_of_a_take_over_learns_of_it(tmp_path):
    claims = Claims()
    with Heartbeat(seconds=0.05) as heartbeat:
        held = claims.claim(tmp_path / "group")
        heartbeat.keep(held)
        for _ in range(8):
            time.sleep(0.1)
            assert claims.claim(tmp_path / "group", expiry_seconds=0.5) is None
        assert not heartbeat.lost(held)
    silent = claims.claim(tmp_path / "group")
    assert (
        claims.claim(tmp_path / "group", expiry_seconds=0.1) is None
    )  # the first look: nothing is known of its silence
    time.sleep(0.15)
    taken = claims.claim(tmp_path / "group", expiry_seconds=0.1)
    assert taken is not None and not silent.beat() and taken.beat()
    silent.release()  # must not free what is no longer its own
    assert claims.look(tmp_path / "group").owner == taken.owner


def test_an_owner_of_another_machine_is_never_thought_gone():
    here = Owner.here()
    assert not here.gone
    ended = Owner(host=here.host, machine=here.machine, pid=here.pid, started="1", token="x")
    assert ended.gone or here.started == "0"
    elsewhere = Owner(host=here.host, machine="another", pid=here.pid, started="1", token="x")
    assert not elsewhere.gone


def test_dead_claims_are_cleared_and_living_ones_stay(tmp_path):
    claims = Claims()
    gone = replace(Owner.here(), started="1")  # a process that this machine knows to have ended
    (tmp_path / "dead" / gone.file_name).parent.mkdir()
    (tmp_path / "dead" / gone.file_name).touch()
    living = claims.claim(tmp_path / "living")
    (tmp_path / ".half-made").mkdir()
    os.utime(tmp_path / ".half-made", (1, 1))
    assert claims.clear(tmp_path) is False
    assert [entry.name for entry in tmp_path.iterdir()] == ["living"] and living.beat()
    living.release()
    assert claims.clear(tmp_path) is True and claims.clear(tmp_path / "nowhere") is True


def test_a_folder_that_cannot_be_written_is_an_error_not_a_refusal(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError):
        Claims().claim(blocked / "group")


@pytest.mark.parametrize("ahead_seconds", [-3600, 0, 3600])
def test_a_silent_claim_expires_by_what_is_seen_of_its_heartbeat_whatever_its_date(tmp_path, ahead_seconds):
    place = tmp_path / "group"
    elsewhere = replace(Owner.here(), machine="another", host="far")  # never known to be gone
    place.mkdir()
    theirs = place / elsewhere.file_name
    theirs.touch()
    claims, date = Claims(), time.time() + ahead_seconds
    for beat in range(4):  # seconds of another clock, as long as it moves
        os.utime(theirs, (date + beat, date + beat))
        assert claims.claim(place, expiry_seconds=0.3) is None
        time.sleep(0.12)
    time.sleep(0.25)
    assert claims.observer.silent_seconds(claims.look(place)) > 0.3
    assert claims.claim(place, expiry_seconds=0.3).owner.pid == os.getpid()


def junk(place, kind):
    if kind == "a file":
        place.write_text("")
    elif kind == "a link":
        place.symlink_to(place.parent / "nowhere")
    else:
        place.mkdir()
        (place / "notes.txt").touch()


@pytest.mark.parametrize("kind", ["a file", "a link", "a folder with 'notes.txt'"])
def test_what_is_no_claim_is_named_never_taken_over_and_removed_on_request_alone(tmp_path, kind):
    claims, place = Claims(), tmp_path / "group"
    junk(place, kind)
    living = claims.claim(tmp_path / "other")
    for _ in range(2):
        assert claims.claim(place, expiry_seconds=0) is None
    assert claims.look(place).describe() == (
        f"{place}: {kind}, not a claim; delete it, or add --remove-junk to gaplaw run"
    )
    assert claims.remove_junk(tmp_path) == [str(place)] and living.beat()
    assert claims.claim(place) is not None


def test_a_holder_is_described_by_host_process_and_date(tmp_path):
    held = Claims().claim(tmp_path / "group")
    said = Claims().look(tmp_path / "group").describe()
    assert said.startswith(f"{held.owner.host} (pid {os.getpid()}) since 20") and "ended" not in said
