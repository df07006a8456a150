"""Which texts are copies, which labels are told apart: right whatever the characters."""

import random

import pytest

from gaplaw.data.documents import character_start, first_bad_byte, label_of, text_group

EDGES = ["", " ", "\n", "\r\n", "\t\r", "\u00a0", "\u2003\u3000", "\ufeff", "\u2029 \x1f", " \n" * 50]
TEXTS = ["a", "two\nlines", "ende ñ", "漢字 🙂", "a  b\tc", "\u0301combining"]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_differ_in_line_ends_and_edges_only_are_copies(text):
    group = text_group(text.encode())
    for before in EDGES:
        for after in EDGES:
            for end in ("\n", "\r\n", "\r"):
                assert text_group((before + text.replace("\n", end) + after).encode()) == group


def test_other_differences_make_other_documents():
    groups = [text_group(t.encode()) for t in (*TEXTS, "A", "two\n\nlines", "two lines", "two \nlines", "a b\tc", "a.")]
    assert len(set(groups)) == len(groups) and None not in groups


def test_edges_are_what_python_calls_white_space():
    """Every character of Unicode's first planes, at both ends: a group of its own unless it is white space."""
    plain = text_group(b"x")
    for code in [*range(0xD800), *range(0xE000, 0x10000, 7), 0xFEFF, 0x1F642]:
        edge = chr(code).isspace() or code == 0xFEFF
        assert (text_group(f"{chr(code)}x{chr(code)}".encode()) == plain) == edge, hex(code)
        assert (text_group(chr(code).encode()) is None) == edge, hex(code)


def test_the_group_of_a_plain_text_is_the_hash_of_its_bytes():
    from hashlib import sha256

    assert text_group("naïve 🙂".encode()) == sha256("naïve 🙂".encode()).hexdigest()[:24]
    assert text_group(bytearray(b"\r\nx\r\ny ")) == text_group(b"x\ny")


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, "0"), (False, "false"), (True, "true"), (-3, "-3"), (2.0, "2"), (-0.0, "0"), (0.5, "0.5"), (1e300, "1e+300")]
    + [(10**30, str(10**30)), ("", ""), (None, ""), (float("nan"), ""), ("0", "0"), (" ", " "), ("C++", "C++")],
)  # fmt: skip
def test_labels_keep_their_value(value, label):
    assert label_of(value) == label


@pytest.mark.parametrize("value", [[], {}, ["a"], {"a": 1}, b"a", object()])
def test_what_is_no_label_is_refused(value):
    with pytest.raises(ValueError, match="no label"):
        label_of(value)


def test_the_first_bad_byte_is_found_wherever_a_long_text_is_cut(monkeypatch):
    from gaplaw.data import documents

    monkeypatch.setattr(documents, "CHECK_AT_ONCE_BYTES", 7)
    draw = random.Random(0)
    for _ in range(200):
        good = "".join(draw.choice("ab é漢🙂") for _ in range(draw.randint(0, 20))).encode()
        assert first_bad_byte(good) is None
        bad = good + draw.choice([b"\xff", b"\xe6\xbc", b"\x80"]) + b" rest of it"
        with pytest.raises(UnicodeDecodeError) as fault:
            bad.decode()
        assert first_bad_byte(bad) == fault.value.start
        at = character_start(good, draw.randint(0, len(good)))
        assert good[:at].decode() + good[at:].decode() == good.decode()
