"""The division of documents: groups whole, shares kept, order of files irrelevant."""

import numpy as np
import pytest

from gaplaw.data.split import TEACHER, TRAIN, VALIDATION, divide, group_hash


def corpus(documents=400, domains=5, groups=250, seed=0):
    rng = np.random.default_rng(seed)
    group_N = rng.integers(groups, size=documents)
    hashes_N = np.array([group_hash(f"g{g}", seed) for g in group_N], np.uint64)
    bytes_N = np.exp(rng.normal(8, 1.5, documents)).astype(np.int64) + 1
    return hashes_N, bytes_N, (group_N % domains).astype(np.int64)


@pytest.mark.parametrize("teacher_fraction", [0.0, 0.3])
def test_each_domain_gets_its_share_of_bytes_and_groups_stay_whole(teacher_fraction):
    hashes_N, bytes_N, domains_N = corpus()
    splits_N = divide(hashes_N, bytes_N, domains_N, validation_fraction=0.1, teacher_fraction=teacher_fraction)
    for domain in range(5):
        of_domain = domains_N == domain
        for split, share in ((VALIDATION, 0.1), (TEACHER, teacher_fraction)):
            got = bytes_N[of_domain & (splits_N == split)].sum() / bytes_N[of_domain].sum()
            assert got == pytest.approx(share, abs=0.02)
    for value in np.unique(hashes_N):
        assert len(set(splits_N[hashes_N == value])) == 1


def test_the_order_of_documents_does_not_matter_and_the_seed_does():
    hashes_N, bytes_N, domains_N = corpus()
    shares = {"validation_fraction": 0.2, "teacher_fraction": 0.2}
    order = np.random.default_rng(1).permutation(len(hashes_N))
    there = divide(hashes_N, bytes_N, domains_N, **shares)
    here = divide(hashes_N[order], bytes_N[order], domains_N[order], **shares)
    np.testing.assert_array_equal(here, there[order])
    other, *rest = corpus(seed=1)
    assert (divide(other, bytes_N, domains_N, **shares) != there).any()


def test_a_small_or_lumpy_domain_still_validates_and_still_trains():
    # domain 0: one huge and one small group; domain 1: a single group; domain 2: three equal groups
    hashes_N = np.arange(1, 7, dtype=np.uint64)
    bytes_N = np.array([1_000_000, 500, 800, 10, 10, 10])
    domains_N = np.array([0, 0, 1, 2, 2, 2])
    splits_N = divide(hashes_N, bytes_N, domains_N, validation_fraction=0.05, teacher_fraction=0.3)
    assert splits_N[0] == TRAIN and splits_N[1] == VALIDATION
    assert splits_N[2] == TRAIN
    assert sorted(splits_N[3:]) == [TRAIN, TEACHER, VALIDATION]
