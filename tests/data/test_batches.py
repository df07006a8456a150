"""Batches: a pure function of (seed, step) that visits every window of an epoch once; validation that never moves."""

import json

import numpy as np
import pytest

from gaplaw.data.batches import Corpus, permuted, shares
from gaplaw.data.pack import INDEX
from gaplaw.errors import DataError
from gaplaw.spec import DataSpec

LENGTH, BATCH = 8, 5


def counting_corpus(folder, tokens=1003, validation=(("a", 200), ("b", 50), ("c", 3))):
    """A corpus whose token at position p is p, so that a batch says where it was read."""
    folder.mkdir(exist_ok=True)
    ends = np.cumsum([n for _, n in validation])
    domains = {
        name: {"documents": 1, "start": int(end - n), "end": int(end)}
        for (name, n), end in zip(validation, ends, strict=True)
    }
    splits = {
        "train": {"tokens": tokens, "domains": {"a": {"documents": 1, "start": 0, "end": tokens}}},
        "validation": {"tokens": int(ends[-1]), "domains": domains},
    }
    for name, split in splits.items():
        np.save(folder / f"{name}.npy", np.arange(split["tokens"], dtype=np.uint32))
    index = {"vocab_size": 10**6, "separator": 0, "tokenizer": "bytes", "splits": splits}
    (folder / INDEX).write_text(json.dumps(index))
    return Corpus(DataSpec(sequence_tokens=LENGTH, validation_tokens=80), folder)


@pytest.fixture
def corpus(tmp_path):
    return counting_corpus(tmp_path / "corpus")


def test_labels_are_the_next_tokens_and_every_window_is_whole(corpus):
    batch = corpus.batch("train", BATCH, 3, range(100))
    assert batch.shape == (100, BATCH, LENGTH + 1) and batch.dtype == np.int32
    assert (np.diff(batch, axis=-1) == 1).all()
    assert batch.min() >= 0 and batch.max() < 1003


def test_an_epoch_visits_each_window_once_and_the_next_one_differs(corpus):
    windows = corpus.windows_per_epoch("train")
    assert windows == 1003 // LENGTH - 1
    steps = 3 * windows  # BATCH = 5 epochs of whole windows in 3·windows·5 samples
    starts = corpus.batch("train", BATCH, 0, range(steps))[..., 0].ravel().reshape(3 * BATCH, windows)
    offsets = set()
    for epoch in starts:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(windows) * LENGTH + epoch.min())
        offsets.add(epoch.min())
    assert len(offsets) > 1 and max(offsets) < LENGTH
    orders = {tuple(np.argsort(epoch)) for epoch in starts}
    assert len(orders) == len(starts)


def test_a_batch_depends_on_seed_and_step_and_on_nothing_else(corpus, tmp_path):
    whole = corpus.batch("train", BATCH, 11, range(60))
    again = counting_corpus(tmp_path / "again")
    np.testing.assert_array_equal(again.batch("train", BATCH, 11, range(40, 60)), whole[40:])  # a resumed run
    np.testing.assert_array_equal(corpus.batch("train", BATCH, 11, range(7, 8))[0], whole[7])
    assert (corpus.batch("train", BATCH, 12, range(60)) != whole).any(axis=-1).mean() > 0.9
    assert corpus.batch("train", BATCH, 11, range(0)).shape == (0, BATCH, LENGTH + 1)


def test_hosts_that_take_their_rows_hold_the_whole_batch_together(corpus):
    whole = corpus.batch("train", BATCH, 2, range(9))
    parts = [corpus.batch("train", BATCH, 2, range(9), rows=slice(a, b)) for a, b in ((0, 2), (2, 4), (4, None))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 65_537])
def test_the_computed_permutation_is_one(size):
    position = np.arange(size, dtype=np.uint64)
    result = permuted(position, np.full(size, 42, np.uint64), size)
    np.testing.assert_array_equal(np.sort(result), position)


def test_the_permutation_is_uniform_over_seeds():
    size, seeds = 24, 24_000
    keys = np.random.default_rng(0).integers(2**63, size=seeds, dtype=np.uint64)
    for position in (0, 1, size - 1):
        counts = np.bincount(permuted(np.full(seeds, position, np.uint64), keys, size).astype(int), minlength=size)
        chi_squared = ((counts - seeds / size) ** 2 / (seeds / size)).sum()
        assert chi_squared < 60  # 23 degrees of freedom: P(chi² > 60) = 4e-5
    # and neighbours part: the distance between the images of 0 and 1 is that of two random positions
    first, second = (permuted(np.full(seeds, p, np.uint64), keys, size).astype(int) for p in (0, 1))
    assert np.abs(first - second).mean() == pytest.approx((size + 1) / 3, rel=0.03)


def test_far_positions_of_a_huge_corpus_cost_no_more():
    position = np.arange(4096, dtype=np.uint64) + np.uint64(10**12)
    result = permuted(position, np.full(4096, 5, np.uint64), 3 * 10**12)
    assert len(np.unique(result)) == 4096 and result.max() < 3 * 10**12
    assert np.corrcoef(position.astype(float), result.astype(float))[0, 1] == pytest.approx(0, abs=0.1)


def test_validation_windows_stay_in_their_domain_and_do_not_overlap(corpus):
    held = corpus.validation()
    assert held.domains == ("a", "b", "c") and held.tokens_NxL1.dtype == np.int32
    assert len(held.tokens_NxL1) == len(held.domain_N) == 80 // LENGTH
    for number, (low, high) in enumerate(((0, 200), (200, 250), (250, 253))):
        windows = held.tokens_NxL1[held.domain_N == number]
        if number == 2:  # three tokens hold no window of nine
            assert len(windows) == 0
            continue
        assert windows.min() >= low and windows.max() < high
        assert (np.diff(windows[:, 0]) >= LENGTH).all()
    np.testing.assert_array_equal(held.tokens_NxL1, corpus.validation().tokens_NxL1)


@pytest.mark.parametrize("total", [1, 7, 100, 999, 10**6])
def test_shares_are_proportional_with_a_floor(total):
    available_D = np.array([5000, 1000, 100, 30, 1, 0])
    wanted_D = shares(available_D, total)
    assert (wanted_D <= available_D).all() and (wanted_D[:5] >= 1).all()
    assert wanted_D.sum() == max(5, min(total, available_D.sum()))
    if total == 999:
        np.testing.assert_allclose(wanted_D[:2] / 999, available_D[:2] / 6131, atol=0.04)
        assert wanted_D[3] >= 0.02 * 999 - 1


def test_a_split_smaller_than_a_batch_and_an_absent_split_are_refused(corpus, tmp_path):
    with pytest.raises(DataError, match="holds 1003 tokens, fewer than one batch of 125 sequences of 8"):
        corpus.batch("train", 125, 0, range(1))
    corpus.batch("train", 124, 0, range(1))
    with pytest.raises(DataError, match="split = 'teacher'.*teacher_fraction"):
        corpus.batch("teacher", BATCH, 0, range(1))
    tiny = counting_corpus(tmp_path / "tiny", validation=(("a", 8),))
    with pytest.raises(DataError, match="holds 8 tokens, not one window of 9"):
        tiny.validation()
