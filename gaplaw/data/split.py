"""Which documents train students, which train teachers, and which validate? Decided by hash, never by position.

Groups of documents (a file, a page and its copies) are ordered by a hash of their identity and the split seed, within
each domain, and dealt out until each split holds its share of that domain's bytes. So the split does not depend on the
order of files, every domain with two groups or more is in validation, and the shares hold even for a corpus of a few
dozen files.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

TRAIN, TEACHER, VALIDATION = 0, 1, 2
SPLITS = ("train", "teacher", "validation")


def group_hash(group: str, split_seed: int) -> int:
    """64 bits from a group's identity and the seed; the order of groups."""
    return int.from_bytes(blake2b(f"{split_seed}\0{group}".encode(), digest_size=8).digest())


def divide(
    hashes_N: np.ndarray,
    bytes_N: np.ndarray,
    domains_N: np.ndarray,
    *,
    validation_fraction: float,
    teacher_fraction: float,
) -> np.ndarray:
    """The split of each document: 0 train, 1 teacher, 2 validation.

    Args:
      hashes_N: uint64 group hashes; documents with equal hashes get equal splits.
      bytes_N: int64 sizes of the documents.
      domains_N: integer domain labels; a group counts for the domain of its largest document.
      validation_fraction, teacher_fraction: shares of each domain's bytes, teacher counted on the whole.

    Returns: uint8 [N].
    """
    groups_G, group_of_N = np.unique(hashes_N, return_inverse=True)  # sorted: index order is hash order
    sizes_G = np.bincount(group_of_N, weights=bytes_N).astype(np.int64)
    largest_last_N = np.lexsort((bytes_N, group_of_N))
    domain_G = np.empty(len(groups_G), np.int64)
    domain_G[group_of_N[largest_last_N]] = domains_N[largest_last_N]
    split_G = np.full(len(groups_G), TRAIN, np.uint8)
    for domain in np.unique(domain_G):
        members = np.flatnonzero(domain_G == domain)
        total = int(sizes_G[members].sum())
        if len(members) > 1:
            held = _deal(members, sizes_G, total * validation_fraction) or [members[np.argmin(sizes_G[members])]]
            split_G[held] = VALIDATION
            members = members[split_G[members] == TRAIN]
        split_G[_deal(members[:-1], sizes_G, total * teacher_fraction)] = TEACHER  # one at least stays for training
    return split_G[group_of_N]


def _deal(members: np.ndarray, sizes_G: np.ndarray, quota: float) -> list[int]:
    """Members in hash order, each taken if it fits in what is left of the quota; at last one that overshoots by
    less.
    """
    taken, left = [], quota
    for member in members.tolist():
        if sizes_G[member] <= left:
            taken.append(member)
            left -= int(sizes_G[member])
            if left <= quota / 1000:  # near enough: no need to look through the rest of a large corpus
                return taken
    rest = np.setdiff1d(members, taken)
    if len(rest):
        nearest = rest[np.argmin(np.abs(sizes_G[rest] - left))]
        if abs(sizes_G[nearest] - left) < left:
            taken.append(int(nearest))
    return taken
