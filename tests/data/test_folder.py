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
