"""Tokenizers: text survives a round trip, training is repeatable, separators never come from text, bad files are
refused.
"""

import json

import numpy as np
import pytest

from gaplaw.data import tokenizers
from gaplaw.errors import DataError

TEXTS = [
    "the law of the teacher and the student, the student and the teacher",
    "naïve café: ünïcödé, 漢字, 🙂\n\ttabs and\r\nlines",
    f"a text that spells {tokenizers.SEPARATOR} and <|endoftext|> out",
    "x" * 3000,
]


@pytest.fixture(scope="module")
def bpe():
    return tokenizers.train_bpe(TEXTS * 3, 300)


def test_bytes_are_utf8_and_the_separator_cannot_occur():
    tokenizer = tokenizers.ByteTokenizer()
    for text, symbols in zip(TEXTS, tokenizer.encode(TEXTS), strict=True):
        assert symbols.dtype == np.uint8 and bytes(symbols).decode() == text
    assert bytes(tokenizer.encode(["a\0b"])[0]) == b"ab"


def test_bpe_round_trips_any_text_within_its_vocabulary(bpe):
    for text, symbols in zip(TEXTS, bpe.encode(TEXTS), strict=True):
        assert bpe.decode(symbols.tolist()) == text
        assert symbols.dtype == np.uint16 and symbols.max() < 300
        assert bpe.separator not in symbols
    assert len(bpe.encode(TEXTS[:1])[0]) < len(TEXTS[0]) / 2  # it learned to merge


def test_bpe_training_is_repeatable_and_its_identity_is_its_content(bpe):
    again, other = tokenizers.train_bpe(TEXTS * 3, 300), tokenizers.train_bpe(TEXTS[:1], 300)
    assert again.content == bpe.content and again.identity == bpe.identity != other.identity


def test_a_tokenizer_file_encodes_as_the_tokenizer_it_was_saved_from(bpe, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(bpe.content)
    loaded = tokenizers.file_tokenizer(str(path))
    for ours, theirs in zip(bpe.encode(TEXTS), loaded.encode(TEXTS), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.separator == bpe.separator and loaded.identity == bpe.identity
    assert tokenizers.vocab_size(f"file:{path}") == 300 == loaded.vocab_size


def test_vocabulary_sizes_and_the_dtype_that_holds_them(tmp_path):
    assert tokenizers.vocab_size("bytes") == 256 and tokenizers.vocab_size("bpe:4096") == 4096
    sizes = (256, 257, 65_536, 65_537)
    assert [tokenizers.symbol_dtype(n).itemsize for n in sizes] == [1, 2, 2, 4]
    path = tmp_path / "holes.json"  # ids need not be dense: the largest decides
    path.write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 9}}, "added_tokens": [{"id": 40, "content": "</s>"}]}))
    assert tokenizers.vocab_size(f"file:{path}") == 41


@pytest.mark.parametrize("symbols", [0, 256])
def test_a_bpe_smaller_than_the_bytes_is_refused(symbols):
    with pytest.raises(DataError, match="at least 257"):
        tokenizers.vocab_size(f"bpe:{symbols}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        ("{", "not a tokenizer.json"),
        ("[1]", "has no 'model'"),
        ('{"model": {"vocab": {}}}', "vocabulary is empty"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content, says):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=says):
        tokenizers.vocab_size(f"file:{path}")


def test_a_tokenizer_without_an_end_of_document_is_refused(bpe, tmp_path):
    content = json.loads(bpe.content)
    content["added_tokens"] = []
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="needs a special token that ends a document"):
        tokenizers.file_tokenizer(str(path))
