"""Objects are written whole, pulled when new, created by one writer only; whatever a store answers becomes one line."""

import sys
import threading
import uuid
from pathlib import Path

import pytest

import gaplaw
from gaplaw import results
from gaplaw.errors import SweepError, TableError
from gaplaw.objects import Mirror, brought_here, is_url
from gaplaw.spec import Execution
from tests import toy

pytest.importorskip("fsspec")


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path) -> str:
    return f"memory://{uuid.uuid4().hex}/runs" if request.param == "memory" else f"file://{tmp_path}/store/runs"


@pytest.fixture
def mirror(url, tmp_path):
    return Mirror(url, tmp_path / "one")


def write(mirror, name, text) -> Path:
    path = mirror.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_one_pushes_another_pulls_and_only_what_is_new(mirror, url, tmp_path):
    first, second = write(mirror, "a/cells/1", "one"), write(mirror, "a/logs/2", "two")
    mirror.push(first.parent.parent)
    other = Mirror(url, tmp_path / "other")
    other.pull("a", but=("logs",))
    assert (other.root / "a/cells/1").read_text() == "one" and not (other.root / "a/logs").exists()
    (other.root / "a/cells/1").write_text("mine")  # not looked at again while the object stays the same
    other.pull("a")
    assert (other.root / "a/cells/1").read_text() == "mine" and (other.root / "a/logs/2").read_text() == "two"
    first.write_text("changed")
    mirror.push(first)
    other.pull("a")
    assert (other.root / "a/cells/1").read_text() == "changed"
    mirror.remove(first, second, mirror.root / "never")
    assert mirror.names("a") == [] and mirror.text("a/cells/1") is None


def test_a_file_that_was_never_pushed_is_pushed_and_no_other(mirror):
    known, unknown = write(mirror, "a/1", "known"), write(mirror, "a/2", "unknown")
    mirror.push(known)
    mirror.pull("a")
    known.write_text("not again")
    mirror.push_missing(known, unknown, mirror.root / "a/3")
    assert (mirror.text("a/1"), mirror.text("a/2"), mirror.names("a")) == ("known", "unknown", ["1", "2"])


def test_of_many_writers_one_creates_an_object(mirror):
    made = []
    threads = [threading.Thread(target=lambda n=n: made.append(mirror.create("lock/1", str(n)))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    mirror.prove_writable("probe")
    assert mirror.names("") == ["lock/1"]


def test_a_store_that_cannot_refuse_a_second_writer_is_refused(tmp_path):
    mirror = Mirror("memory://lax", tmp_path)
    mirror.create = lambda name, text: True
    with pytest.raises(SweepError, match="cannot create an object only if it is absent") as caught:
        mirror.prove_writable("probe")
    assert "\n" not in str(caught.value)


def test_a_missing_package_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        SweepError, match=r"s3://bucket/runs: needs a package .*s3fs.*; install with: pip install -e '.*\[cloud\]'"
    ):
        Mirror("s3://bucket/runs", tmp_path)


def test_an_unknown_protocol_is_one_line(tmp_path):
    with pytest.raises(SweepError, match="nowhere://x: cannot be reached .*nowhere"):
        Mirror("nowhere://x", tmp_path)


def test_results_are_read_from_a_url(mirror, url):
    sweep = toy.sweep()
    for cell in sweep.cells:
        row = results.describe_cell(cell, sweep.role(cell)) | {"sweep": sweep.name, "status": "done"}
        results.write_cell(mirror.root / "toy", row, [{"tokens": 1, "training_loss_nats": 2.0}], Execution())
    mirror.push(mirror.root / "toy")
    there, here = gaplaw.read(f"{url}/toy"), gaplaw.read(mirror.root / "toy")
    assert there.equals(here) and len(gaplaw.read(f"{url}/toy", "curves")) == len(here)
    with pytest.raises(TableError, match=f"{url}/none: holds no cells"):
        gaplaw.read(f"{url}/none")


def test_what_is_brought_here_is_gone_afterwards_and_local_paths_stay_themselves(mirror, url, tmp_path):
    mirror.push(write(mirror, "a/law.json", "{}"))
    with brought_here(f"{url}/a", "law.json") as (place, put):
        assert (place / "law.json").read_text() == "{}"
        (place / "page.html").write_text("page")
        assert put(place / "page.html") == f"{url}/a/page.html"
    assert not place.exists() and mirror.text("a/page.html") == "page"
    with brought_here(tmp_path) as (place, put):
        assert place == tmp_path and put(place) == str(tmp_path) and not is_url(place)
