"""A file is the old one or the new one, whole, whatever happens to its writer."""

import pytest

from gaplaw.files import read_json, renamed, write_json


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "new" / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), renamed(path) as temporary:
        temporary.write_text('{"a": ')
        assert read_json(path) == {"a": 1}
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["value.json"]


def test_what_is_absent_or_half_a_file_reads_as_none(tmp_path):
    assert read_json(tmp_path / "absent.json") is None
    (tmp_path / "half.json").write_text('{"a": ')
    assert read_json(tmp_path / "half.json") is None
