"""Datasets by their TFDS name: the same path as the embedded corpus, with builders made here."""

import pytest

from gaplaw import data
from gaplaw.data import sources
from gaplaw.data.sources import TfdsSource
from gaplaw.errors import DataError
from gaplaw.spec import DataSpec
from tests.data import tiny_text


@pytest.fixture(autouse=True)
def tfds_folder(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    folder = tmp_path / "tfds"
    folder.mkdir()
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder))
    tfds.disable_progress_bar()
    return folder


def texts(start, end):
    return {tiny_text.LINE.format(n) for n in range(start, end)}


def test_the_train_split_is_read_with_its_class_labels_as_domains():
    documents = list(TfdsSource("tiny_labelled").documents())
    assert {d.text for d in documents} == texts(0, 40) and len(documents) == 40
    assert all(d.domain == ("odd" if int(d.text.split()[2]) % 2 else "even") for d in documents)


def test_the_only_text_feature_will_do_and_the_dataset_names_the_domain():
    documents = list(TfdsSource("tiny_plain").documents())
    assert {d.text for d in documents} == texts(0, 40)
    assert {d.domain for d in documents} == {"tiny_plain"}


def test_a_split_expression_chooses_documents_and_changes_the_manifest():
    whole, part = TfdsSource("tiny_plain"), TfdsSource("tiny_plain@train[:25%]+test")
    assert len(list(part.documents())) == 20
    assert whole.manifest() != part.manifest() == TfdsSource("tiny_plain@train[:25%]+test").manifest()


def test_a_dataset_by_name_becomes_a_corpus(tmp_path):
    corpus = data.load(DataSpec(source="tfds:tiny_labelled", validation_fraction=0.2), tmp_path / "cache")
    assert corpus.domains == ("even", "odd")
    stored = bytes(corpus.tokens("train")).split(b"\0") + bytes(corpus.tokens("validation")).split(b"\0")
    assert sorted(t.decode() for t in stored if t) == sorted(texts(0, 40))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tiny_ambiguous", r"exactly one text feature; its features: \['answer', 'question'\]"),
        ("no_such_dataset_anywhere", "could not open or prepare it: Dataset no_such_dataset_anywhere not found"),
        ("tiny_plain@nosuch", "split 'nosuch' cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name, says):
    with pytest.raises(DataError, match=says) as refusal:
        list(TfdsSource(name).documents())
    assert "\n" not in str(refusal.value) and f"tfds:{name.partition('@')[0]}" in str(refusal.value)


def test_copies_with_other_line_ends_share_a_group():
    lines = iter([b"two\nlines", b"\r\ntwo\r\nlines\r\n", "two\rlines\u00a0".encode(), b"other", b" \n"])

    class Rows(list):
        def __getitems__(self, places):
            return [self[place] for place in places]

    class Builder:
        name = "copies"
        info = type("Info", (), {"features": {"text": None}})

        def as_data_source(self, split):
            return Rows({"text": line} for line in lines)

    groups = [d.group for d in sources._read(Builder(), "train", "text", None, where="here")]
    assert len(groups) == 4 and groups[0] == groups[1] == groups[2] != groups[3]
