"""Pieces join to the whole text, and have its tokens: for any tokenizer that cuts at words."""

import random

import numpy as np
import pytest

from gaplaw.data import tokenizers
from gaplaw.data.pieces import pieces


def some_text(seed, length=4000):
    draw = random.Random(seed)
    parts = [
        "word",
        "Wort",
        "don't",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "123",
        "é",
        "漢字",
        "。",
        "，",
        "🙂",
        "(x)",
        ".",
    ]
    return "".join(draw.choice(parts) for _ in range(length))


def test_pieces_join_to_the_whole_and_keep_to_the_size():
    for seed in range(20):
        content = some_text(seed).encode()
        found = list(pieces(content, 100 + 37 * seed))
        assert "".join(piece.text for piece in found).encode() == content
        assert all(len(piece.text.encode()) <= 100 + 37 * seed for piece in found)
        assert [piece.last for piece in found] == [False] * (len(found) - 1) + [True]
    assert [p.at_edge for p in pieces(b"x" * 250, 100)] == [False, False, True]
    assert list(pieces(b"", 10)) == [("", True, True)]


def engines():
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    texts = [some_text(seed, 1000) for seed in range(5)]
    alphabet = sorted(set("".join(texts)) | {"▁"})
    special = ["<eos>", "<unk>"]
    llama = pre_tokenizers.Split(
        Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"
    )
    ways = {
        "gpt2": (None, pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.ByteLevel.alphabet()),
        "prefix": (None, pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.ByteLevel.alphabet()),
        "llama3": (
            None,
            pre_tokenizers.Sequence([llama, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
            pre_tokenizers.ByteLevel.alphabet(),
        ),
        "sentencepiece": (
            normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
            pre_tokenizers.Split(Regex("▁"), "merged_with_next"),
            alphabet,
        ),
        "metaspace": (None, pre_tokenizers.Metaspace(), alphabet),
    }
    for name, (normalizer, pre_tokenizer, letters) in ways.items():
        engine = Tokenizer(models.BPE(unk_token="<unk>"))
        if normalizer:
            engine.normalizer = normalizer
        engine.pre_tokenizer = pre_tokenizer
        engine.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=letters, show_progress=False
        )
        engine.train_from_iterator(texts, trainer)
        yield pytest.param(engine.to_str(), id=name)


@pytest.mark.parametrize("content", list(engines()))
def test_pieces_have_the_tokens_of_the_whole(content):
    tokenizer = tokenizers.JsonTokenizer(content, "file:x")
    for seed in range(100, 108):
        text = some_text(seed)
        whole = tokenizer.encode([text])[0]
        parts = [piece.text for piece in pieces(text.encode(), 900, tokenizer.skip_at)]
        assert len(parts) > 10
        np.testing.assert_array_equal(np.concatenate(tokenizer.encode(parts)), whole)


def test_bytes_may_be_cut_anywhere():
    tokenizer, text = tokenizers.ByteTokenizer(), "ü漢🙂" * 300
    parts = [piece.text for piece in pieces(text.encode(), 100, tokenizer.skip_at)]
    assert bytes(np.concatenate(tokenizer.encode(parts))) == text.encode()
