"""A run folder on an object store: the same table, claims that hold, nothing finished lost; S3 through a server on this
machine.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pandas as pd
import pytest

import gaplaw
from gaplaw.errors import SweepError
from gaplaw.objects import Mirror, brought_here
from gaplaw.spec import HostsSpec
from gaplaw.sweep import resolve, run, status_of
from gaplaw.sweep.engines.local import LocalExecutor
from gaplaw.sweep.engines.pod import joined
from gaplaw.sweep.folder import object_store as bucket
from gaplaw.sweep.folder.object_claim import RELEASED, Leases
from gaplaw.sweep.folder.object_store import Bucket, folder_at
from tests.sweep.running.test_kill import LONG, OFTEN, REAL, STAND_IN, start, wait_until, workers_of
from tests.sweep.running.test_run import go
from tests.sweep.sweeps import QUICK, StandIn, one_teacher, ran, tiny_sweep

pytest.importorskip("fsspec")


@pytest.fixture
def url(tmp_path):
    """A folder behind fsspec: an object store that several processes see."""
    return f"file://{tmp_path}/bucket/runs/tiny"


@pytest.fixture
def mirror(tmp_path):
    return Mirror(f"file://{tmp_path}/bucket/runs", tmp_path / "mirror")


def losses(frame) -> pd.Series:
    return frame.set_index("cell_id").sort_index()["loss_student_ce_nats"]


def test_a_sweep_ends_with_the_same_table_as_in_a_folder_and_the_next_run_does_nothing(sweep, url, tmp_path):
    summary, _ = go(sweep, url)
    assert (summary.done, summary.failed, summary.out) == (len(sweep.cells), 0, url)
    go(sweep, tmp_path / "plain" / "tiny")
    pd.testing.assert_series_equal(losses(gaplaw.read(url)), losses(gaplaw.read(tmp_path / "plain" / "tiny")))
    assert go(sweep, url)[0].done_before == len(sweep.cells)
    assert status_of(url).done == len(sweep.cells)


def test_workers_on_machines_that_share_only_the_store_run_a_sweep(sweep, url, monkeypatch):
    monkeypatch.setattr(Bucket, "settings", {})  # each worker process makes a local copy of its own
    monkeypatch.setenv("GAPLAW_STAND_IN_SECONDS", "0")
    folder, small = folder_at(url), one_teacher(sweep)
    assert go(small, folder, LocalExecutor(module=STAND_IN))[0].done == len(small.cells)
    assert ran(folder.out) == []
    assert len(gaplaw.read(url)) == len(small.cells)


def test_hosts_that_train_together_need_a_folder(url):
    together = replace(QUICK, workers=1, hosts=HostsSpec(processes=2, launch="everywhere"))
    with (
        pytest.raises(SweepError, match=f"{url}: an object store; .* the hosts must share a folder"),
        joined(folder_at(url), together),
    ):
        pass


def test_a_lost_machine_loses_nothing_finished_and_a_deleted_row_is_run_again_alone(sweep, url, mirror):
    go(sweep, url)  # its local copy is not used again: the next run has one of its own, like another machine
    victim = sweep.students[0]
    mirror.remove(mirror.root / f"tiny/cells/{victim.id}.parquet")
    folder = folder_at(url)
    summary, _ = go(sweep, folder)
    assert (summary.done_before, summary.done) == (len(sweep.cells) - 1, len(sweep.cells))
    assert ran(folder.out) == [victim.name]
    assert len(gaplaw.read(url)) == len(sweep.cells)


def test_another_sweep_beside_it_reuses_its_teachers(sweep, url):
    go(sweep, url)
    folder = folder_at(url.replace("tiny", "other"))
    go(replace(sweep, name="other", baselines=()), folder)
    assert not set(ran(folder.out)) & {cell.name for cell in sweep.teachers}


def test_failures_reach_the_store_and_are_tried_again(sweep, url):
    culprit = sweep.students[-1]
    assert list(go(sweep, url, StandIn(crash=culprit.name))[0].failures) == [culprit.id]
    (said,) = status_of(url).failures.values()
    assert f"see {url}/logs/" in said
    with brought_here(said.partition("see ")[2]) as (log, _):
        assert log.is_file()
    assert go(sweep, url)[0].failed == 0


def test_two_runs_share_a_store_without_doing_anything_twice(sweep, url):
    folders = [folder_at(url) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        summaries = list(pool.map(lambda folder: go(sweep, folder, StandIn(seconds=0.3))[0], folders))
    assert [summary.done for summary in summaries] == [len(sweep.cells)] * 2
    assert sorted(name for folder in folders for name in ran(folder.out)) == sorted(cell.name for cell in sweep.cells)


def test_the_newest_whole_checkpoint_of_a_group_reaches_another_machine(url, monkeypatch):
    monkeypatch.setattr(bucket, "PUBLISH_SECONDS", 0.02)
    one, other = folder_at(url), folder_at(url)
    other.bring_checkpoint("group")
    assert other.checkpoint_step("group") == 0

    def reached(step) -> bool:
        return one.mirror.text("tiny/checkpoints/group/newest") == str(step)

    with one.publishing("group"):
        for step in (100, 200):
            made = one.part("checkpoints") / "group" / f"{step}.tmp"
            made.mkdir(parents=True)
            (made / "array").write_text(f"state at {step}")
            made.rename(made.with_suffix(""))
            assert wait_until(lambda step=step: reached(step), 20)
        assert wait_until(lambda: one.mirror.names("tiny/checkpoints/group") == ["200/array", "newest"], 20)
    other.bring_checkpoint("group")
    assert (other.part("checkpoints") / "group" / "200" / "array").read_text() == "state at 200"
    assert other.checkpoint_step("group") == 200
    other.forget_checkpoints("group")
    assert one.mirror.names("tiny/checkpoints") == []


def test_a_url_that_is_no_folder_of_a_bucket_is_refused(tmp_path):
    with pytest.raises(SweepError, match="s3://bucket: a run folder is a folder in a bucket"):
        folder_at("s3://bucket")
    with pytest.raises(SweepError, match="holds no sweep"):
        status_of(f"file://{tmp_path}/nothing/here")


# ---- claims


def test_a_lease_is_held_by_one_until_released_or_silent(mirror, monkeypatch):
    mine, other = Leases(mirror=mirror), Leases(mirror=mirror)
    held = mine.claim(mirror.root / "tiny/locks/a")
    assert held.beat() and other.claim(mirror.root / "tiny/locks/a", expiry_seconds=60) is None
    assert not other.clear(mirror.root / "tiny/locks", expiry_seconds=60)
    taken = other.claim(mirror.root / "tiny/locks/a", expiry_seconds=0)
    assert taken.number == 2 and not held.beat() and taken.beat()
    held.release()  # of a claim that was taken over: leaves the new one alone
    assert other.claim(mirror.root / "tiny/locks/a", expiry_seconds=60) is None
    taken.release()
    assert mine.claim(mirror.root / "tiny/locks/a", expiry_seconds=60).number == 3
    assert mirror.names("tiny/locks/a") == ["00000003"]


def test_a_lease_that_beats_never_expires_on_the_clock_of_whoever_looks(mirror):
    mine, other = Leases(mirror=mirror), Leases(mirror=mirror)
    held = mine.claim(mirror.root / "locks/a")
    for _ in range(4):
        time.sleep(0.1)
        assert held.beat() and other.claim(mirror.root / "locks/a", expiry_seconds=0.15) is None
    time.sleep(0.2)
    assert other.claim(mirror.root / "locks/a", expiry_seconds=0.15) is not None


def test_the_lease_of_a_process_of_this_machine_that_is_gone_is_free_at_once(mirror):
    code = (
        "import sys; from pathlib import Path; from gaplaw.objects import Mirror\n"
        "from gaplaw.sweep.folder.object_claim import Leases\n"
        "Leases(mirror=Mirror(sys.argv[1], Path(sys.argv[2]))).claim(Path(sys.argv[2], 'locks/a'))"
    )
    subprocess.run([sys.executable, "-c", code, mirror.url, str(mirror.root)], check=True)
    assert mirror.text("locks/a/00000001") != RELEASED
    assert Leases(mirror=mirror).claim(mirror.root / "locks/a", expiry_seconds=60).number == 2


# ---- S3, through a server on this machine


@pytest.fixture
def s3(monkeypatch, tmp_path):
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (settings | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
    yield "s3://bucket/runs/tiny"
    server.stop()


@pytest.mark.slow
def test_real_training_on_s3_survives_kill_9_and_hands_teachers_to_other_machines(source, s3, tmp_path, monkeypatch):
    process = start(REAL, s3, source)
    place = Mirror("s3://bucket/runs", tmp_path / "look")
    assert wait_until(lambda: len(place.names("tiny/cells")) >= 2 or process.poll() is not None, 300)
    process.kill()
    process.wait()
    assert wait_until(lambda: not workers_of(s3), 20), "workers outlived their parent"
    assert len(place.names("tiny/cells")) >= 2
    monkeypatch.setattr(Bucket, "settings", {})
    left = one_teacher(resolve(tiny_sweep(source, **LONG)))
    assert run(left, s3, OFTEN).done == len(left.cells)
    run(left, tmp_path / "plain" / "tiny", OFTEN)
    there, here = losses(gaplaw.read(s3)), losses(gaplaw.read(tmp_path / "plain" / "tiny"))
    pd.testing.assert_series_equal(there[here.index], here)
