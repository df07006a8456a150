"""Preparation: every document is stored once and whole, splits are disjoint, the cache appears complete or not at
all.
"""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gaplaw import data
from gaplaw.data import encode, tokenizers
from gaplaw.data import pack as pack_module
from gaplaw.errors import DataError
from gaplaw.spec import DataSpec

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = ("poems", "prose", "recipes")


def write_corpus(folder, documents_per_domain=40):
    rng = np.random.default_rng(7)
    for domain in DOMAINS:
        (folder / domain).mkdir(parents=True)
        for number in range(documents_per_domain):
            words = " ".join(
                "".join(chr(97 + c) for c in rng.integers(26, size=5)) for _ in range(rng.integers(20, 90))
            )
            (folder / domain / f"{number}.txt").write_text(f"{domain} {number}: {words} é")
    return DataSpec(source=f"folder:{folder}", sequence_tokens=16, validation_fraction=0.1)


@pytest.fixture
def spec(tmp_path):
    return write_corpus(tmp_path / "texts")


def stored_documents(corpus, split):
    """Counter of (domain, bytes) in a split of a byte corpus, by the separators and the domain ranges of the index."""
    tokens, found = corpus.tokens(split), Counter()
    for domain, held in corpus.index["splits"][split]["domains"].items():
        pieces = bytes(tokens[held["start"] : held["end"]]).split(b"\0")
        assert pieces.pop() == b"" and len(pieces) == held["documents"]
        found.update((domain, piece) for piece in pieces)
    return found


def test_every_document_is_stored_once_and_whole_in_one_of_the_disjoint_splits(spec, tmp_path):
    corpus = data.load(replace(spec, teacher_fraction=0.3), tmp_path / "cache")
    source = Path(spec.source.partition(":")[2])
    wanted = Counter((p.parent.name, p.read_bytes()) for p in source.rglob("*.txt"))
    held = [stored_documents(corpus, split) for split in ("train", "teacher", "validation")]
    assert held[0] + held[1] + held[2] == wanted and max(wanted.values()) == 1
    assert corpus.domains == DOMAINS
    for split, share in (("teacher", 0.3), ("validation", 0.1)):
        total = sum(corpus.tokens_in(s) for s in ("train", "teacher", "validation"))
        assert corpus.tokens_in(split) / total == pytest.approx(share, abs=0.01)


def test_describe_counts_what_is_stored(spec, tmp_path):
    report = data.describe(spec, tmp_path / "cache")
    corpus = data.load(spec, tmp_path / "cache")
    for split, held in report["splits"].items():
        assert held["tokens"] == len(corpus.tokens(split)) == sum(d["tokens"] for d in held["domains"].values())
        assert held["documents"] == sum(stored_documents(corpus, split).values())
    assert report["manifest"] == data.resolve(spec).manifest
    json.dumps(report)


@pytest.mark.parametrize("kind", ["bpe", "file"])
def test_subword_tokens_decode_to_the_same_documents_in_the_same_splits(spec, tmp_path, kind):
    by_bytes = data.load(spec, tmp_path / "cache")
    name = "bpe:400"
    if kind == "file":
        (tmp_path / "tokenizer.json").write_text(tokenizers.train_bpe(["some text to learn from"] * 9, 270).content)
        name = f"file:{tmp_path / 'tokenizer.json'}"
    corpus = data.load(replace(spec, tokenizer=name), tmp_path / "cache")
    assert corpus.vocab_size == data.vocab_size(corpus.spec)
    tokenizer = tokenizers.file_tokenizer(str(corpus.folder / "tokenizer.json"))
    assert tokenizer.identity == corpus.tokenizer_hash
    for split in ("train", "validation"):
        tokens = corpus.tokens(split)
        ends = np.flatnonzero(tokens == corpus.separator)
        texts = [tokenizer.decode(piece[:-1].tolist()) for piece in np.split(tokens, ends + 1)[:-1]]
        assert Counter(t.encode() for t in texts) == Counter(t for _, t in stored_documents(by_bytes, split).elements())


def test_a_bpe_learns_from_training_documents_only(spec, tmp_path, monkeypatch):
    seen = []
    real = encode.train_bpe
    monkeypatch.setattr(encode, "train_bpe", lambda texts, n: real(seen.extend(texts) or seen, n))
    corpus = data.load(replace(spec, tokenizer="bpe:300"), tmp_path / "cache")
    by_bytes = data.load(spec, tmp_path / "cache")
    assert Counter(t.encode() for t in seen) == Counter(t for _, t in stored_documents(by_bytes, "train").elements())
    assert corpus.tokens("train").dtype == np.uint16


def test_the_second_start_reads_neither_the_source_nor_writes(spec, tmp_path, monkeypatch):
    resolved = data.resolve(spec)
    first = data.load(resolved, tmp_path / "cache")
    Path(spec.source.partition(":")[2]).rename(tmp_path / "moved")
    monkeypatch.setattr(data, "prepare", None)  # would fail if called
    second = data.load(resolved, tmp_path / "cache")
    np.testing.assert_array_equal(first.tokens("train"), second.tokens("train"))


def test_identity_follows_content_split_and_tokenizer_only(spec, tmp_path):
    folders = {
        data.load(s, tmp_path / "cache").folder
        for s in (
            spec,
            replace(spec, sequence_tokens=32, validation_tokens=99),
            replace(spec, split_seed=1),
            replace(spec, validation_fraction=0.2),
            replace(spec, tokenizer="bpe:300"),
        )
    }
    assert len(folders) == 4


def test_content_that_is_not_what_the_manifest_says_is_refused(spec, tmp_path):
    resolved = data.resolve(spec)
    (Path(spec.source.partition(":")[2]) / "poems" / "0.txt").write_text("changed")
    with pytest.raises(DataError, match=f"{resolved.manifest}.*it has changed"):
        data.load(resolved, tmp_path / "cache")
    assert data.resolve(spec).manifest != resolved.manifest


def test_two_processes_that_start_together_prepare_once_and_agree(spec, tmp_path):
    code = (
        "import sys; from gaplaw import data; from gaplaw.spec import DataSpec\n"
        "c = data.load(DataSpec(source=sys.argv[1], validation_fraction=0.1), sys.argv[2])\n"
        "print(c.tokens('train').sum(), c.folder.stat().st_ino)"
    )
    command = [sys.executable, "-c", code, spec.source, str(tmp_path / "cache")]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert said[0] == said[1] != ""
    assert [p.name for p in (tmp_path / "cache" / "data").iterdir() if "tmp" in p.name] == []


def test_an_interrupted_preparation_leaves_nothing_and_the_next_one_cleans_up(spec, tmp_path, monkeypatch):
    resolved = data.resolve(spec)
    folder = pack_module.packed_folder(resolved, tmp_path / "cache")
    stale = folder.parent / f"{folder.name}.tmp-killed"  # what kill -9 would leave
    stale.mkdir(parents=True)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pack_module, "_join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data.load(resolved, tmp_path / "cache")
    assert not folder.exists()
    data.load(resolved, tmp_path / "cache")
    assert folder.exists() and not stale.exists()


def test_a_truncated_token_file_is_prepared_again(spec, tmp_path):
    corpus = data.load(spec, tmp_path / "cache")
    whole = (corpus.folder / "train.npy").read_bytes()
    (corpus.folder / "train.npy").write_bytes(whole[:1000])
    assert (data.load(spec, tmp_path / "cache").folder / "train.npy").read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_one_clear_line(spec, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cache folder .* cannot be written .*set GAPLAW_CACHE"):
        data.load(spec, tmp_path / "cache")


@pytest.mark.parametrize(
    ("rows", "change", "says"),
    [
        ([{"text": "only one"}], {}, "1 documents are too few to split: nothing is left for validation"),
        ([{"text": "a"}, {"text": "b"}], {"teacher_fraction": 0.5}, "nothing is left for teacher"),
        ([{"text": "a"}], {"teacher_fraction": 0.5, "validation_fraction": 0.5}, "must leave documents for training"),
        ([{"text": "a", "domain": f"d{n}"} for n in range(300)], {}, "more than 256 distinct domains"),
        ([{"text": "a"}], {"tokenizer": "bpe:100"}, "at least 257"),
        ([{"text": " "}], {}, "0 documents are too few"),
    ],
)
def test_a_corpus_that_cannot_be_split_is_refused(tmp_path, rows, change, says):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=says):
        data.load(DataSpec(source=f"folder:{tmp_path / 'texts'}", **change), tmp_path / "cache")


def test_domains_that_would_share_a_column_are_refused(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_module, "domain_column", lambda label: f"domain_{label[0]}_loss_nats")
    with pytest.raises(DataError, match="'poems' and 'prose' would share the column domain_p_loss_nats; rename one"):
        data.load(spec, tmp_path / "cache")


def test_copies_never_stand_on_both_sides_of_the_split(tmp_path):
    """Eight texts, each saved by two machines with their own line ends: the right split puts both copies on one
    side.
    """
    (tmp_path / "texts").mkdir()
    for number in range(8):
        lines = [f"line {number} {line}" for line in range(20)]
        (tmp_path / "texts" / f"{number}.txt").write_bytes("\n".join(lines).encode())
        (tmp_path / "texts" / f"{number}-copy.txt").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    spec = DataSpec(source=f"folder:{tmp_path / 'texts'}", sequence_tokens=16, validation_fraction=0.4)
    corpus = data.load(spec, tmp_path / "cache")
    held = [
        {text.replace(b"\r\n", b"\n").strip() for _, text in stored_documents(corpus, split)}
        for split in ("train", "validation")
    ]
    assert held[0] and held[1] and not held[0] & held[1]


def test_a_long_document_has_the_tokens_of_the_whole(tmp_path, monkeypatch):
    """A document above the limit is encoded, and learned from, in pieces: the same tokenizer and the same tokens."""
    (tmp_path / "texts").mkdir()
    rng = np.random.default_rng(3)
    words = ["".join(chr(97 + c) for c in rng.integers(26, size=rng.integers(1, 8))) for _ in range(300)]
    for number in range(3):
        text = " ".join(rng.choice(words, size=3000)) + " é漢🙂\n\n  end"
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    spec = DataSpec(source=f"folder:{tmp_path / 'texts'}", tokenizer="bpe:400", sequence_tokens=16)
    whole = data.load(spec, tmp_path / "whole")
    monkeypatch.setattr(encode, "LONG_BYTES", 2000)
    monkeypatch.setattr(encode, "PIECE_BYTES", 700)
    pieces = data.load(spec, tmp_path / "pieces")
    assert pieces.tokenizer_hash == whole.tokenizer_hash
    for split in ("train", "validation"):
        np.testing.assert_array_equal(pieces.tokens(split), whole.tokens(split))
