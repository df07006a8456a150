"""What is cached of a corpus is compared with its checksums: damaged, it is made again with the same tokens, after one
line.
"""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from gaplaw import data
from gaplaw.data import sources
from gaplaw.data.sources import StdlibSource, TfdsSource
from gaplaw.data.stdlib_corpus import builder as stdlib_builder
from gaplaw.errors import DataError
from gaplaw.files import SUMS
from gaplaw.spec import DataSpec
from tests.data import tiny_text
from tests.flips import files, flip


@pytest.fixture
def spec(tmp_path):
    chance = random.Random(5)
    for domain in ("poems", "prose"):
        (tmp_path / "texts" / domain).mkdir(parents=True)
        for number in range(20):
            words = " ".join(chance.choice(("law", "gap", "teacher", "student", "token")) for _ in range(30))
            (tmp_path / "texts" / domain / f"{number}.txt").write_text(f"{number} {words}")
    source = f"folder:{tmp_path / 'texts'}"
    return data.resolve(
        DataSpec(source=source, tokenizer="bpe:270", sequence_tokens=8, validation_fraction=0.2, teacher_fraction=0.2)
    )


def tokens_of(corpus):
    return {split: np.array(corpus.tokens(split)) for split in ("train", "teacher", "validation")}


def test_any_change_in_any_packed_file_is_named_and_packed_again(spec, tmp_path, capsys):
    corpus = data.load(spec, tmp_path / "cache")
    before, names = tokens_of(corpus), {path.name for path in files(corpus.folder)}
    assert names == {"corpus.json", "tokenizer.json", "train.npy", "teacher.npy", "validation.npy", SUMS}
    for name in sorted(names):
        for seed in range(3):
            flip(corpus.folder / name, seed)
            again = data.load(spec, tmp_path / "cache")
            said = capsys.readouterr().err
            named = str(corpus.folder if name == SUMS else corpus.folder / name)
            assert said.count("\n") == 1 and named in said and "packed again" in said, (name, seed, said)
            assert again.index == corpus.index
            for split, tokens in tokens_of(again).items():
                np.testing.assert_array_equal(tokens, before[split])
    data.load(spec, tmp_path / "cache")
    assert capsys.readouterr().err == ""


def test_tokens_without_checksums_are_packed_again(spec, tmp_path, capsys):
    corpus = data.load(spec, tmp_path / "cache")
    (corpus.folder / SUMS).unlink()
    flip(corpus.folder / "train.npy")  # nobody could tell
    np.testing.assert_array_equal(data.load(spec, tmp_path / "cache").tokens("train"), corpus.tokens("train"))
    assert f"has no checksums (no file {SUMS}); {spec.source} is packed again" in capsys.readouterr().err


def test_a_damaged_file_is_named_when_its_source_is_gone_too(spec, tmp_path, capsys):
    corpus = data.load(spec, tmp_path / "cache")
    flip(corpus.folder / "train.npy")
    shutil.rmtree(tmp_path / "texts")
    with pytest.raises(DataError, match="there is no such folder"):
        data.load(spec, tmp_path / "cache")
    assert str(corpus.folder / "train.npy") in capsys.readouterr().err


@pytest.fixture
def tfds_at(monkeypatch):
    import tensorflow_datasets as tfds

    def use(folder):
        folder.mkdir()
        monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
        monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder))

    tfds.disable_progress_bar()
    return use


@pytest.mark.parametrize("name", ["tiny_labelled", "tiny_plain@train[:25%]+test"])
def test_the_manifest_of_a_dataset_follows_its_texts_not_their_counts_and_lengths(name, tmp_path, tfds_at, monkeypatch):
    tfds_at(tmp_path / "one")
    one = TfdsSource(name)
    before = one.manifest()
    tfds_at(tmp_path / "two")
    assert TfdsSource(name).manifest() == before  # prepared elsewhere from the same texts
    tfds_at(tmp_path / "three")
    monkeypatch.setattr(tiny_text, "LINE", tiny_text.LINE.replace("little", "lettil"))
    other = TfdsSource(name)
    for source in (one, other):
        source.splits = {s: (i.num_examples, i.num_bytes) for s, i in source._builder.info.splits.items()}
    assert one.splits == other.splits and before != other.manifest()


def test_a_changed_file_of_a_dataset_changes_the_manifest_only_if_it_is_read(tmp_path, tfds_at):
    tfds_at(tmp_path / "one")
    train, test = TfdsSource("tiny_labelled@train"), TfdsSource("tiny_labelled@test")
    before = train.manifest(), test.manifest()
    home = Path(train._builder.data_dir)
    flip(next(home.glob("*-train.*")))
    assert train.manifest() != before[0] and test.manifest() == before[1]
    flip(home / "label.labels.txt")  # the domains' names
    assert test.manifest() != before[1]


def test_the_prepared_standard_library_is_prepared_again_when_it_is_damaged(tmp_path, monkeypatch, capsys):
    library = tmp_path / "library"
    library.mkdir()
    for number in range(5):
        (library / f"m{number}.py").write_text(f'"""Doc {number}."""\nx = {number}\n')
    for module in (sources, stdlib_builder):
        monkeypatch.setattr(module, "library_folder", lambda: library)
    source = StdlibSource(tmp_path / "cache")
    before, manifest = list(source.documents()), source.manifest()
    assert len(before) == 10 and capsys.readouterr().err.count("warning") == 0
    (place,) = (tmp_path / "cache" / "tfds" / manifest).glob("stdlib_corpus/*")
    for path in files(place):
        flip(path)
        assert list(source.documents()) == before
        said = capsys.readouterr().err
        assert said.count("warning") == 1 and str(place) in said and "prepared again" in said
    (place / SUMS).unlink()  # prepared before there were checksums
    assert list(source.documents()) == before and "has no checksums" in capsys.readouterr().err
