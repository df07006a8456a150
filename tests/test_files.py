"""Checksums: whatever bit of a checked file changes, it is noticed; what is written is read again."""

import random

import pytest

from gaplaw.files import (
    SUMS,
    UNMARKED,
    damage,
    mark_fits,
    marked,
    read_checked_json,
    write_checked_json,
    write_sums,
)
from tests.flips import files, flip, flipped, later


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("a/one.bin", "a/deep/two words.bin", "three.json"):
        (tmp_path / name).write_bytes(random.Random(name).randbytes(300))
    write_sums(tmp_path)
    return tmp_path


def test_any_change_in_a_folder_is_one_line_naming_the_file(folder):
    assert damage(folder) is None
    for path in files(folder):
        for seed in range(40):
            whole = flip(path, seed)
            fault = damage(folder)
            listed = path.name == SUMS  # there, a name that has changed is named
            assert fault is not None and "\n" not in fault and (listed or str(path) in fault), (path, seed)
            path.write_bytes(whole)
            later(path)
    assert damage(folder) is None


def test_a_missing_file_and_a_missing_list_are_named_and_other_files_are_no_matter(folder):
    (folder / "new").write_text("x")
    assert damage(folder) is None
    (folder / "three.json").unlink()
    assert f"{folder / 'three.json'}: cannot be read" in damage(folder)
    (folder / SUMS).unlink()
    assert damage(folder) == f"{folder}: has no checksums (no file {SUMS})"


def test_several_processes_divide_the_files_among_them(folder):
    flip(folder / "three.json")
    assert sorted(damage(folder, part, 3) is None for part in range(3)) == [False, True, True]


def test_a_list_that_names_a_file_twice_is_refused(folder):
    first = (folder / SUMS).read_text().splitlines()[0]
    with open(folder / SUMS, "a") as file:
        file.write(first + "\n")
    assert "not a readable list of checksums" in damage(folder)


def test_a_checked_json_file_gives_its_value_or_nothing(tmp_path):
    path, value = tmp_path / "x.json", {"loss_nats": 3.25, "name": "é", "none": None}
    write_checked_json(path, value)
    assert read_checked_json(path) == value
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(200):
        path.write_bytes(flipped(whole, chance))
        assert read_checked_json(path) in (None, value)
    path.write_text('{"loss_nats": 3.25}')
    assert read_checked_json(path) is None  # of before there were checksums


def test_a_mark_fits_its_own_content_only():
    content = marked(b"numbers " * 50 + UNMARKED.encode() + b" and an end")
    assert mark_fits(content) and mark_fits(b"no mark in here")
    name = content.rindex(b"gaplaw-sha256:")
    for at in range(len(content)):
        if not name <= at < name + len(b"gaplaw-sha256:"):
            assert not mark_fits(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]), at
