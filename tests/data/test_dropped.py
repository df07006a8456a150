"""What a tokenizer drops is counted, and no text may hold the symbol that ends a document: refused in one line each."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gaplaw import data
from gaplaw.data import tokenizers
from gaplaw.errors import DataError, SpecError
from gaplaw.spec import DataSpec
from tests.data.test_pieces import engines

LATIN, CYRILLIC = "the law of the teacher and the student ", "закон учителя и ученика "


def saved(path, model, pre_tokenizer=None, special=("</s>", "<unk>"), normalizer=None):
    from tokenizers import Tokenizer

    engine = Tokenizer(model)
    if pre_tokenizer:
        engine.pre_tokenizer = pre_tokenizer
    if normalizer:
        engine.normalizer = normalizer
    engine.add_special_tokens(list(special))
    path.write_text(engine.to_str())
    return path


def letters_bpe(path, unknown=None, letters="acdefhlnoruwst ", fallback=False):
    from tokenizers import models, pre_tokenizers

    names = [*("<unk>",) * bool(unknown), *(f"<0x{b:02X}>" for b in range(256) if fallback), *letters]
    vocabulary = {name: number for number, name in enumerate(names)}
    model = models.BPE(vocab=vocabulary, merges=[], unk_token=unknown, byte_fallback=fallback)
    return saved(path, model, pre_tokenizers.Split(" ", "isolated"))


def corpus(folder, *texts):
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return DataSpec(source=f"folder:{folder}", validation_fraction=0.3)


@pytest.mark.parametrize("unknown", [None, "<unk>"])
def test_a_bpe_without_byte_fallback_drops_what_it_does_not_know(tmp_path, unknown):
    path = letters_bpe(tmp_path / "t.json", unknown)
    spec = replace(
        corpus(tmp_path / "texts", *(f"{CYRILLIC * 5}{LATIN}{n}" for n in range(6))), tokenizer=f"file:{path}"
    )
    with pytest.raises(
        DataError, match=r"t.json': drops at least \d\d\.\d\d% of the characters.*most often '[а-я]'"
    ) as refusal:
        data.load(spec, tmp_path / "cache")
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "cache" / "data").glob("*/corpus.json"))


def test_a_few_dropped_characters_are_recorded(tmp_path):
    path = letters_bpe(tmp_path / "t.json")
    spec = replace(corpus(tmp_path / "texts", *(LATIN * 100 for _ in range(5)), LATIN + "щ"), tokenizer=f"file:{path}")
    assert data.describe(spec, tmp_path / "cache")["dropped_characters"] == 1
    whole = replace(spec, tokenizer=f"file:{letters_bpe(tmp_path / 'whole.json', fallback=True)}")
    assert data.describe(whole, tmp_path / "cache")["dropped_characters"] == 0


def test_bytes_drop_nul_and_say_so(tmp_path):
    spec = corpus(tmp_path / "texts", *(LATIN * 100 for _ in range(5)), LATIN + "\0\0")
    assert data.describe(spec, tmp_path / "cache")["dropped_characters"] == 2
    many = corpus(tmp_path / "many", *("\0 and a text" for _ in range(5)), "other")
    with pytest.raises(DataError, match=r"'bytes': drops at least .*most often '\\x00'"):
        data.load(many, tmp_path / "cache")


@pytest.mark.parametrize("content", list(engines())[:3])
def test_byte_level_tokenizers_drop_nothing_unless_a_byte_is_missing(content):
    assert not tokenizers.JsonTokenizer(content, "file:x")._dropped.possible
    fields = json.loads(content)
    vocabulary = {name: number for name, number in fields["model"]["vocab"].items() if "Ñ" not in name}
    merges = [pair for pair in fields["model"]["merges"] if "Ñ" not in "".join(pair)]
    fields["model"] |= {"vocab": vocabulary, "merges": merges, "unk_token": None}
    found = Counter()
    tokenizer = tokenizers.JsonTokenizer(json.dumps(fields), "file:x")
    tokenizer.encode(["word щщ word я", "漢字"], found)  # щ is D1 89, я is D1 8F
    assert found == {"щ": 2, "я": 1}


def test_what_is_dropped_is_what_does_not_come_back():
    """Fuzz: for a tokenizer of single letters, the characters counted are those that decoding lacks."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    draw = random.Random(0)
    for _ in range(30):
        letters = draw.sample("abcdefé漢🙂", 5)
        engine = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(letters)}, merges=[]))
        engine.pre_tokenizer = pre_tokenizers.Whitespace()
        engine.add_special_tokens(["</s>"])
        tokenizer = tokenizers.JsonTokenizer(engine.to_str(), "file:x")
        text = "".join(draw.choices("abcdefé漢🙂 \n", k=200))
        dropped = Counter()
        ids = tokenizer.encode([text], dropped)[0]
        back = Counter(letters[i] for i in ids)
        assert dropped == Counter(c for c in text if not c.isspace()) - back


def test_whole_words_that_are_unknown_count_with_all_their_letters():
    from tokenizers import Tokenizer, models, pre_tokenizers

    for model in (
        models.WordLevel({"<unk>": 0, "ab": 1}, "<unk>"),
        models.WordPiece({"<unk>": 0, "ab": 1}, unk_token="<unk>"),
    ):
        engine = Tokenizer(model)
        engine.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Whitespace(), pre_tokenizers.CharDelimiterSplit("-")]
        )
        engine.add_special_tokens(["</s>"])
        dropped = Counter()
        tokenizers.JsonTokenizer(engine.to_str(), "file:x").encode(["ab xyx - ab é"], dropped)
        assert dropped == {"x": 2, "y": 1, "é": 1, "-": 1}


def word_level(path, vocabulary, unknown="<unk>"):
    from tokenizers import models, pre_tokenizers

    return saved(path, models.WordLevel(vocabulary, unknown), pre_tokenizers.WhitespaceSplit(), special=("<eos>",))


def test_a_word_level_tokenizer_without_its_unknown_symbol_is_one_line(tmp_path):
    path = word_level(tmp_path / "t.json", {"the": 0})
    with pytest.raises(DataError, match="cannot encode .*UNK") as refusal:
        data.resolve(replace(corpus(tmp_path / "texts", "the other"), tokenizer=f"file:{path}"))
    assert "\n" not in str(refusal.value)


def test_a_separator_that_a_text_can_spell_is_refused(tmp_path):
    from tokenizers import models

    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<end>", 0.0), *((c, -2.0) for c in "abcdefghijklmnopqrstuvwxyz </>")]
    path = saved(tmp_path / "t.json", models.Unigram(pieces, unk_id=0), special=("</s>", "<pad>"))
    spec = replace(corpus(tmp_path / "texts", "a text", "b text"), tokenizer=f"file:{path}")
    with pytest.raises(DataError, match="spells '</s>' becomes the symbol that ends a document; name another"):
        data.resolve(spec)
    named = replace(spec, separator="<pad>")
    found = data.load(named, tmp_path / "cache")
    tokenizer = tokenizers.file_tokenizer(str(path), "<pad>")
    assert found.separator == tokenizer.separator and tokenizer.decode([found.separator]) == "<pad>"
    assert found.separator not in tokenizer.encode(["<pad> </s> <unk>"])[0]
    assert np.count_nonzero(found.tokens("train") == found.separator) == 1
    with pytest.raises(DataError, match="separator = '<no>': there is no such special token.* has </s>, <pad>"):
        data.resolve(replace(spec, separator="<no>"))


def test_a_document_that_holds_the_separator_is_named(tmp_path):
    """The unknown symbol is the separator here, so that every unknown word would end a document."""
    path = word_level(tmp_path / "t.json", {"a": 0, "<eos>": 1, "known": 2}, unknown="<eos>")
    text = json.loads(path.read_text())
    text["pre_tokenizer"] = {"type": "Whitespace"}
    text["model"]["vocab"] |= {"<": 3, "eos": 4, ">": 5, "b": 6, "aa": 7}
    path.write_text(json.dumps(text | {"added_tokens": text["added_tokens"]}))
    spec = replace(corpus(tmp_path / "texts", "known a", "a strange word", "known"), tokenizer=f"file:{path}")
    with pytest.raises(DataError) as refusal:
        data.load(spec, tmp_path / "cache")
    line = str(refusal.value)
    assert "becomes the symbol" in line or "document 2 of" in line, line


def test_the_separator_is_identity_only_when_it_is_named(tmp_path):
    from gaplaw.canonical import to_dict

    assert (
        "separator" not in to_dict(DataSpec())
        and to_dict(DataSpec(tokenizer="file:x", separator="a"))["separator"] == "a"
    )
    with pytest.raises(SpecError, match="DataSpec.separator = '</s>'"):
        DataSpec(separator="</s>")


STRANGE = {
    "deep": "[" * 100_000,
    "deep model": '{"model": {"vocab": ' + "[" * 100_000,
    "an id that is text": '{"model": {"vocab": {"a": "b"}}}',
    "an added token that is none": '{"model": {"vocab": {"a": 1}}, "added_tokens": [3]}',
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_tokenizer_file_is_one_line(tmp_path, kind):
    (tmp_path / "t.json").write_text(STRANGE[kind])
    with pytest.raises(DataError, match="t.json': not a tokenizer.json") as refusal:
        tokenizers.vocab_size(f"file:{tmp_path / 't.json'}")
    assert "\n" not in str(refusal.value)
