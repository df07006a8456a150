"""A long line gives what `json.loads` gives, whatever is in it; and a line is never cut inside a character or an
escape.
"""

import io
import json
import random

import pytest

from gaplaw.data import json_lines
from gaplaw.data.json_lines import text_and_domain, whole_line


@pytest.fixture(autouse=True)
def short_limits(monkeypatch):
    import re

    monkeypatch.setattr(json_lines, "LONG_LINE_BYTES", 40)
    monkeypatch.setattr(json_lines, "LONG_STRING_BYTES", 12)
    monkeypatch.setattr(
        json_lines,
        "_INSIDE",
        re.compile(json_lines._INSIDE.pattern.replace(b"65536", b"5").replace(b"{1,16}", b"{1,3}"), re.DOTALL),
    )


def test_any_line_gives_what_json_gives():
    draw = random.Random(0)
    alphabet = ["a", " ", '"', "\\", "\n", "\u2028", "é", "漢", "🙂", "\0", "/", "long-string-", "\ud83d", "\ude42"]
    for number in range(600):
        texts = ["".join(draw.choices(alphabet, k=draw.randint(0, 60))) for _ in range(4)]
        row = {texts[1]: texts[2], "text": texts[0], "domain": draw.choice([texts[3], 0, None, ["x"]])}
        row = dict(draw.sample(list(row.items()), len(row)))
        if number % 3 == 0:
            row["deep"] = {"text": texts[0][::-1] * 3}
        line = json.dumps(row, ensure_ascii=bool(number % 2)).encode("utf-8", "replace")
        wanted = json.loads(line)
        text, domain = text_and_domain(line)
        assert bytes(text) == wanted["text"].encode("utf-8", "replace")
        expected = wanted["domain"]
        assert domain == (expected.encode("utf-8", "replace").decode() if isinstance(expected, str) else expected)


@pytest.mark.parametrize(
    "line", ['{"text": "' + "a" * 50, '{"text": "' + "a" * 50 + '" "b"}', '{"text": "\\x' + "a" * 50 + '"}']
)
def test_a_long_line_that_is_not_json_is_refused(line):
    with pytest.raises(ValueError):
        text_and_domain(line.encode())


@pytest.mark.parametrize("line", ["[1]", '{"body": "a"}', '{"text": 3}', '{"text": ["' + "a" * 60 + '"]}'])
def test_a_line_without_a_text_is_refused(line):
    with pytest.raises(KeyError):
        text_and_domain(line.encode())


def test_lines_are_whole_whatever_their_length():
    lines = [b"x" * n + b"\n" for n in (0, 1, 38, 39, 40, 41, 79, 80, 81, 500)] + [b"no end"]
    file = io.BytesIO(b"".join(lines))
    assert [bytes(line) for line in iter(lambda: whole_line(file), b"")] == lines
