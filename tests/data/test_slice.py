"""The start of a corpus is read like the whole: domains, tokenizer, whatever its size; what is absent is told apart."""

import json

import pytest

from gaplaw import data
from gaplaw.data.slice import DOCUMENT_CHARACTERS, SLICE_CHARACTERS, first_documents
from gaplaw.errors import AbsentDataError, DataError
from gaplaw.spec import DataSpec
from tests.sweep.sweeps import texts


def rows(spec):
    (file,) = __import__("pathlib").Path(spec.source.removeprefix("folder:")).iterdir()
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
def test_a_slice_is_a_corpus_with_the_texts_domains_and_tokenizer_of_the_whole(tmp_path, tokenizer):
    source = tmp_path / "source"
    for domain in ("news", "code"):
        texts(source / domain)
    whole = DataSpec(source=f"folder:{source}", tokenizer=tokenizer, sequence_tokens=16, validation_tokens=512)
    spec = first_documents(whole, tmp_path / "slices")
    assert (spec.tokenizer, spec.validation_fraction) == (tokenizer, whole.validation_fraction)
    wanted = [
        source / domain / f"{number}.txt" for number in sorted(map(str, range(12))) for domain in ("code", "news")
    ]
    assert "".join(row["text"] for row in rows(spec)) == "".join(path.read_text() for path in wanted)
    read = data.describe(spec, tmp_path / "cache")
    assert read["splits"]["train"]["domains"].keys() == {"code", "news"}
    assert read["vocab_size"] == data.vocab_size(whole)
    assert first_documents(whole, tmp_path / "slices") == spec


@pytest.mark.parametrize("place", ["{domain}/all.jsonl", "{domain}.jsonl", "{domain}/deep/{number}.txt"])
def test_domains_that_lie_apart_are_all_in_a_slice_however_large_the_first_is(tmp_path, place):
    text = "many words of one domain, " * 100
    for domain in ("code", "news", "web"):
        for number in range(300):
            path = tmp_path / "source" / place.format(domain=domain, number=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a") as file:
                row = json.dumps({"text": f"{number} {text}", "domain": domain}) + "\n"
                file.write(row if path.suffix == ".jsonl" else text)
    spec = first_documents(DataSpec(source=f"folder:{tmp_path}/source", sequence_tokens=16), tmp_path / "slices")
    found = [row["domain"] for row in rows(spec)]
    assert {domain for domain in found} == {"code", "news", "web"}
    assert min(found.count(domain) for domain in set(found)) > len(found) / 4
    assert sum(len(row["text"]) for row in rows(spec)) < SLICE_CHARACTERS + 20 * DOCUMENT_CHARACTERS


def test_one_huge_document_is_cut_and_can_be_split(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "long.txt").write_text("many words of one text, " * 50_000)
    spec = first_documents(DataSpec(source=f"folder:{tmp_path}/source", sequence_tokens=16), tmp_path / "slices")
    pieces = [row["text"] for row in rows(spec)]
    assert {len(piece) for piece in pieces} == {DOCUMENT_CHARACTERS} and len("".join(pieces)) == SLICE_CHARACTERS
    assert data.describe(spec, tmp_path / "cache")["splits"].keys() == {"train", "validation"}


def test_only_the_start_is_read(tmp_path, monkeypatch):
    from gaplaw.data import slice as module
    from gaplaw.data.documents import Document

    class Endless:
        def documents(self):
            number = 0
            while True:
                number += 1
                assert number < 100
                yield Document(content=f"{number} ".encode() * 4000, domain="d", group=str(number))

    monkeypatch.setattr(module, "open_source", lambda *_, **__: Endless())
    assert len(rows(first_documents(DataSpec(source="folder:x"), tmp_path))) > 10


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "folder:no/such/folder"},
        {"source": "tfds:no_such_dataset_of_gaplaw/x"},
        {"source": "HERE", "tokenizer": "file:no/such/tokenizer.json"},
    ],
)
def test_what_is_not_on_this_machine_is_told_apart(tmp_path, fields):
    here = f"folder:{texts(tmp_path / 'texts')}"
    fields = {name: here if value == "HERE" else value for name, value in fields.items()}
    with pytest.raises(AbsentDataError, match="no.such"):
        first_documents(DataSpec(**fields), tmp_path / "slices")


def test_what_is_here_and_damaged_is_refused_as_a_run_would(tmp_path):
    folder = texts(tmp_path / "texts")
    (folder / "00.txt").write_bytes(b"\xff\xfe bad")
    with pytest.raises(DataError, match="not UTF-8") as refused:
        first_documents(DataSpec(source=f"folder:{folder}"), tmp_path / "slices")
    assert not isinstance(refused.value, AbsentDataError)
