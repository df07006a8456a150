"""Folders of text: what is read from each kind of file, which domain it gets, and what is refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gaplaw.data.folder import FolderSource
from gaplaw.errors import DataError


def read(folder):
    return [(d.text, d.domain) for d in FolderSource(str(folder)).documents()]


def test_each_kind_of_file_gives_its_documents_and_domains(tmp_path):
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "a.txt").write_text("one file, one document\nwith two lines")
    (tmp_path / "top.txt").write_bytes(b"\xef\xbb\xbfin the root")
    rows = [{"text": "first"}, {"text": "segundo ñ", "domain": "es"}, {"text": "  "}]
    (tmp_path / "rows.jsonl").write_text("\n\n".join(json.dumps(r) for r in rows) + "\n", encoding="utf-8")
    pq.write_table(
        pa.table({"text": ["p", None], "domain": pa.array(["d", "d"]).dictionary_encode()}), tmp_path / "t.parquet"
    )
    pq.write_table(pa.table({"content": ["q"], "n": [1]}), tmp_path / "news" / "u.parquet")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.txt").write_text("not read")
    (tmp_path / "README.md").write_text("not read")
    assert read(tmp_path) == [
        ("one file, one document\nwith two lines", "news"),
        ("q", "news"),
        ("first", "text"),
        ("segundo ñ", "es"),
        ("p", "d"),
        ("in the root", "text"),
    ]


def test_the_manifest_follows_content_and_not_the_place(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("same")
    here, there = FolderSource(str(tmp_path / "here")), FolderSource(str(tmp_path / "there"))
    assert here.manifest() == there.manifest()
    (tmp_path / "there" / "a.txt").write_text("not the same")
    assert here.manifest() != there.manifest()
    (tmp_path / "there" / "a.txt").rename(tmp_path / "there" / "b.txt")
    (tmp_path / "there" / "b.txt").write_text("same")
    assert here.manifest() != FolderSource(str(tmp_path / "there")).manifest()


def test_equal_texts_belong_to_one_group(tmp_path):
    (tmp_path / "a.txt").write_text("copied")
    (tmp_path / "b.jsonl").write_text('{"text": "copied"}\n{"text": "other"}\n')
    groups = [d.group for d in FolderSource(str(tmp_path)).documents()]
    assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("bad.txt", b"good \xff bad", "bad.txt is not UTF-8 at byte 5"),
        ("bom.txt", b"\xef\xbb\xbfgood \xff bad", "bom.txt is not UTF-8 at byte 8"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', "bad.jsonl is not UTF-8 at byte 24"),
        ("rows.jsonl", b'{"text": "a"}\nnot json\n', "rows.jsonl line 2 is not JSON"),
        ("rows.jsonl", b'{"body": "a"}\n', "rows.jsonl line 1 has no string field 'text'"),
        ("rows.jsonl", b'["a"]\n', "rows.jsonl line 1 has no string field 'text'"),
        ("rows.jsonl", b'{"text": 3}\n', "rows.jsonl line 1 has no string field 'text'"),
        ("t.parquet", b"PAR1 nothing like it", "t.parquet is not a readable parquet file"),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_parquet_without_a_text_column_is_refused(tmp_path):
    pq.write_table(pa.table({"a": ["x"], "b": ["y"], "domain": ["z"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet needs a string column 'text'.* has \['a', 'b', 'domain'\]"):
        read(tmp_path)


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path):
    lying = pa.Array.from_buffers(pa.string(), 1, pa.array([b"a\xff"]).buffers())
    pq.write_table(pa.table({"text": lying}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="t.parquet is not UTF-8"):
        read(tmp_path)


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        FolderSource(str(tmp_path / "absent"))
    (tmp_path / "notes.md").write_text("not a kind that is read")
    with pytest.raises(
        DataError, match=r"holds no .txt, .jsonl \(also .gz, .bz2, .zst\) or .parquet file; it holds 1 .md"
    ):
        FolderSource(str(tmp_path))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_numbers_are_labels_and_nothing_falls_back_to_the_folder(tmp_path, kind):
    (tmp_path / "top").mkdir()
    columns = [[0, 1, None], [False, True, None], [0.0, 2.5, None], ["C", " ", None]]
    for number, column in enumerate(columns):
        rows = {"text": [f"{number} {n}" for n in range(3)], "domain": column}
        if kind == "parquet":
            pq.write_table(pa.table(rows), tmp_path / "top" / f"{number}.parquet")
            continue
        lines = [json.dumps({"text": text, "domain": label}) for text, label in zip(*rows.values(), strict=True)]
        (tmp_path / "top" / f"{number}.jsonl").write_text("\n".join(lines))
    labels = [domain for _, domain in read(tmp_path)]
    assert labels == ["0", "1", "top", "false", "true", "top", "0", "2.5", "top", "C", " ", "top"]


def test_a_column_of_numbers_with_a_gap_reads_as_the_same_numbers(tmp_path):
    """pandas turns whole numbers beside a missing one into 0.0, 1.0 and NaN."""
    rows = {"text": ["a", "b", "c"], "domain": pa.array([0.0, 1.0, float("nan")])}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    pq.write_table(pa.table({"text": ["d"], "domain": pa.array([0]).dictionary_encode()}), tmp_path / "u.parquet")
    assert [domain for _, domain in read(tmp_path)] == ["0", "1", "text", "0"]


def test_a_label_that_is_a_structure_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "domain": "b"}\n{"text": "a", "domain": ["b"]}\n')
    with pytest.raises(DataError, match=r"a.jsonl line 2: its domain is \['b'\]: must be text, a number or true/false"):
        read(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    pq.write_table(pa.table({"text": ["a"], "domain": [["b"]]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="t.parquet: column domain is list"):
        read(tmp_path)


def test_deep_json_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": ' + "[" * 100_000 + "\n")
    with pytest.raises(DataError, match="a.jsonl line 2 is not JSON that can be read: too deep") as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_copies_in_other_kinds_of_files_share_a_group(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftwo\r\nlines\r\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": " two\nlines"}))
    pq.write_table(pa.table({"text": ["two\rlines\u00a0", "two lines"]}), tmp_path / "c.parquet")
    groups = [d.group for d in FolderSource(str(tmp_path)).documents()]
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_a_relative_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"'folder:{tmp_path}/absent': there is no such folder"):
        FolderSource("absent")
