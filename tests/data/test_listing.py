"""A folder is read whole, and what is not read is counted: suffixes in any case, compressed files, links, the rest by
name.
"""

import bz2
import gzip
import json
import os
import random

import pyarrow as pa
import pytest

from gaplaw import data
from gaplaw.data import listing
from gaplaw.data.folder import FolderSource
from gaplaw.errors import DataError
from gaplaw.spec import DataSpec


def zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


def read(folder):
    return sorted(d.text for d in FolderSource(str(folder)).documents())


def test_suffixes_in_any_case_and_compressed_files_are_read(tmp_path):
    (tmp_path / "a.TXT").write_text("upper case")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfpacked ") + gzip.compress(b"in two members"))
    (tmp_path / "c.JsonL.GZ").write_bytes(gzip.compress(b'{"text": "row one"}\n{"text": "row two"}\n'))
    (tmp_path / "d.jsonl.zst").write_bytes(zstd(b'{"text": "row three"}'))
    (tmp_path / "e.txt.bz2").write_bytes(bz2.compress(b"bz"))
    (tmp_path / "f.parquet.gz").write_bytes(b"not a thing that is read")
    source = FolderSource(str(tmp_path))
    assert read(tmp_path) == ["bz", "packed in two members", "row one", "row three", "row two", "upper case"]
    assert source.left_out == {".parquet.gz": 1}


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.zst", "a.txt.bz2"])
def test_a_damaged_compressed_file_is_named_in_one_line(tmp_path, name):
    pack = {"gz": gzip.compress, "zst": zstd, "bz2": bz2.compress}[name.rpartition(".")[2]]
    whole = pack(json.dumps({"text": random.Random(0).randbytes(9999).hex()}).encode())
    for content in (b"nothing of the kind", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} ") as refusal:
            read(tmp_path)
        assert "\n" not in str(refusal.value)


def test_everything_that_is_not_read_is_counted_by_kind(tmp_path):
    """Fuzz: each file is either read or counted, whatever its name."""
    draw = random.Random(1)
    endings = [".txt", ".TXT", ".json", ".jsonl", ".md", ".gz", ".txt.gz", ".csv.gz", "", ".", ".txt~", ".tar.zst"]
    for number in range(120):
        folder = tmp_path / "abc"[draw.randint(0, 2)]
        folder.mkdir(exist_ok=True)
        (folder / f"{draw.choice(['', '', '', '.'])}f{number}{draw.choice(endings)}").write_text("x")
    files, left_out = listing.list_folder(tmp_path, "here")
    assert len(files) + sum(left_out.values()) == 120 and files == sorted(files)
    assert {".json", ".md", ".gz", ".csv.gz", ".txt~", ".tar.zst", "hidden", "without a suffix"} <= set(left_out)
    assert {listing.kind_of(name)[0] for name in files} == {".txt", ".jsonl"}


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "linked.txt").write_text("linked")
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / "sub" / "own.txt").write_text("own")
    (home / "aaa").symlink_to(tmp_path / "far")
    (home / "again").symlink_to(tmp_path / "far")
    (home / "before").symlink_to(home / "sub")  # sorts before the folder itself, which is read all the same
    (home / "sub" / "loop").symlink_to(home)
    (home / "gone.txt").symlink_to(tmp_path / "nothing")
    source = FolderSource(str(home))
    assert source.files == ["aaa/linked.txt", "sub/own.txt"]
    assert source.left_out == {"broken links": 1, "linked folders that were read already": 3}


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="locked cannot be read: Permission denied"):
        FolderSource(str(tmp_path))


def test_what_is_left_out_is_said_once_and_described(tmp_path, capsys):
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"text number {number}")
    (tmp_path / "more.json").write_text("{}")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / ".hidden").write_text("")
    spec = DataSpec(source=f"folder:{tmp_path}", validation_fraction=0.3)
    data.resolve(spec), data.resolve(spec)
    told = capsys.readouterr().err
    assert told == f"gaplaw: DataSpec.source = 'folder:{tmp_path}': not read: 2 .json, 1 hidden\n"
    assert data.describe(spec, tmp_path / "cache")["not_read"] == {".json": 2, "hidden": 1}
