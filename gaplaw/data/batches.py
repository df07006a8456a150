"""Which tokens are in batch number n? A pure function of (seed, step), so a resumed run sees the identical next batch.

An epoch cuts the packed tokens of a split into windows of `sequence_tokens` inputs (each with one more token, the last
label) at an offset drawn for that epoch, and visits every window once in the order of a seeded permutation. The
permutation is computed, not stored: a mixed-radix Feistel network, so a billion windows cost no memory and any step can
be had at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gaplaw.data.pack import INDEX
from gaplaw.errors import DataError
from gaplaw.spec import DataSpec

FEISTEL_ROUNDS = 6
VALIDATION_SHARE_AT_LEAST = 0.02  # of the validation windows, for each domain, as far as it has them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Validation:
    """The validation windows, the same for every cell of the corpus: tokens int32 [N, L+1], the domain number of
    each.
    """

    tokens_NxL1: np.ndarray
    domain_N: np.ndarray
    domains: tuple[str, ...]


class Corpus:
    """Packed tokens of one resolved `DataSpec`, memory-mapped; made by `gaplaw.data.load`."""

    def __init__(self, spec: DataSpec, folder: Path):
        self.spec = spec
        self.folder = folder
        self.index = json.loads((folder / INDEX).read_text())
        self.vocab_size: int = self.index["vocab_size"]
        self.separator: int = self.index["separator"]
        self.tokenizer_hash: str = self.index["tokenizer"]
        self._tokens: dict[str, np.ndarray] = {}

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Every domain of any split, in alphabetical order."""
        return tuple(sorted({name for split in self.index["splits"].values() for name in split["domains"]}))

    def tokens_in(self, split: str) -> int:
        """Tokens of "train", "teacher" or "validation", separators included."""
        return self._entry(split)["tokens"]

    def tokens(self, split: str) -> np.ndarray:
        """The packed tokens of a split, one dimension, memory-mapped."""
        if split not in self._tokens:
            self._entry(split)
            # a plain array over the mapping: the memmap subclass would cost a Python call at every slice
            self._tokens[split] = np.asarray(np.load(self.folder / f"{split}.npy", mmap_mode="r"))
        return self._tokens[split]

    def windows_per_epoch(self, split: str) -> int:
        """Windows that one epoch visits: all that fit whatever the epoch's offset, so one fewer than the quotient."""
        return self.tokens_in(split) // self.spec.sequence_tokens - 1

    def check_batch(self, split: str, batch_sequences: int) -> None:
        """Raises: DataError when the split holds less than one batch."""
        if self.windows_per_epoch(split) < batch_sequences:
            raise DataError(
                f"DataSpec.source = {self.spec.source!r}: the {split} split holds {self.tokens_in(split)} tokens, "
                "fewer than one "
                f"batch of {batch_sequences} sequences of {self.spec.sequence_tokens} (and one to spare); use more "
                "text or "
                "smaller batches"
            )

    def batch(
        self, split: str, batch_sequences: int, seed: int, steps: range, *, rows: slice = slice(None)
    ) -> np.ndarray:
        """The batches of `steps`; inputs are [..., :-1] and labels [..., 1:].

        Sample number step·B + row is window number π_{seed, epoch}(sample mod W) of epoch sample // W, at the epoch's
        offset.

        Args:
          split: "train", "teacher" or "validation".
          batch_sequences: sequences in a whole batch, B.
          seed: orders the windows and draws the offsets.
          steps: which steps; past the end of an epoch the next one begins.
          rows: the rows of each batch wanted here (a host's share); all by default.

        Returns: int32 [len(steps), rows, L+1].
        Raises: DataError when the split holds less than one batch.
        """
        self.check_batch(split, batch_sequences)
        windows, length = self.windows_per_epoch(split), self.spec.sequence_tokens
        in_batch = np.arange(batch_sequences, dtype=np.uint64)[rows]
        step_S = np.asarray(steps, dtype=np.uint64)
        sample = step_S[:, None] * np.uint64(batch_sequences) + in_batch[None, :]
        epoch, position = sample // np.uint64(windows), sample % np.uint64(windows)
        keys = _mix(_mix(np.uint64(seed % 2**64)) + epoch)
        start = permuted(position, keys, windows) * np.uint64(length) + keys % np.uint64(length)
        views = sliding_window_view(self.tokens(split), length + 1)
        return views[start.astype(np.int64)].astype(np.int32)

    def validation(self) -> Validation:
        """Windows of L+1 tokens spread evenly over each domain's validation documents, about `validation_tokens` in
        all.

        Raises: DataError when no domain holds one window.
        """
        length, (ranges, available_D, wanted_D) = self.spec.sequence_tokens, self._validation_windows
        views = sliding_window_view(self.tokens("validation"), length + 1)
        parts = []
        for r, available, wanted in zip(ranges, available_D.tolist(), wanted_D.tolist(), strict=True):
            chosen = np.arange(wanted) * available // max(wanted, 1)
            parts.append(views[r["start"] + chosen * length] if wanted else np.empty((0, length + 1)))
        return Validation(
            tokens_NxL1=np.concatenate(parts).astype(np.int32),
            domain_N=np.repeat(np.arange(len(self.domains), dtype=np.int32), wanted_D),
            domains=self.domains,
        )

    @property
    def validation_tokens(self) -> int:
        """Tokens that an evaluation predicts. Raises: DataError as `validation`."""
        return int(self._validation_windows[2].sum()) * self.spec.sequence_tokens

    @cached_property
    def _validation_windows(self) -> tuple[list[dict], np.ndarray, np.ndarray]:
        """By domain: where its validation tokens lie, the windows there, and how many of them are used.

        Domains share the windows in proportion to their validation tokens, each getting at least 2 % as far as it has
        them.
        """
        length, entry = self.spec.sequence_tokens, self._entry("validation")
        ranges = [entry["domains"].get(name, {"start": 0, "end": 0}) for name in self.domains]
        available_D = np.array([max(0, (r["end"] - r["start"] - 1) // length) for r in ranges])
        if not available_D.any():
            raise DataError(
                f"DataSpec.validation_fraction = {self.spec.validation_fraction}: the validation split of "
                f"{self.spec.source!r} holds {entry['tokens']} tokens, not one window of {length + 1} in any domain"
            )
        return ranges, available_D, shares(available_D, max(1, self.spec.validation_tokens // length))

    def _entry(self, split: str) -> dict:
        if split not in self.index["splits"]:
            rule = "set DataSpec.teacher_fraction above 0" if split == "teacher" else "there is no such split"
            raise DataError(f"split = {split!r}: not in this corpus ({', '.join(self.index['splits'])}); {rule}")
        return self.index["splits"][split]


def shares(available_D: np.ndarray, total: int) -> np.ndarray:
    """Windows per domain: proportional to what is available, a floor for each, never more than available.

    Returns: int64 [D] summing to min(total, available), or a little more where floors of one window exceed the total.
    """
    total = min(total, int(available_D.sum()))
    floor_D = np.minimum(available_D, max(1, int(total * VALIDATION_SHARE_AT_LEAST)))
    left = max(0, total - int(floor_D.sum()))
    room_D = available_D - floor_D
    exact_D = room_D * (left / max(1, int(room_D.sum())))
    extra_D = np.floor(exact_D).astype(np.int64)
    remainder_order = np.argsort(extra_D - exact_D, kind="stable")
    for d in remainder_order[: left - int(extra_D.sum())]:
        extra_D[d] += 1
    return floor_D + np.minimum(extra_D, room_D)


def permuted(position: np.ndarray, keys: np.ndarray, size: int) -> np.ndarray:
    """Positions 0..size-1 under the keyed permutation of that range; one key per position, the same key the same
    permutation.

    A position is split into two digits of radices a, b with a·b ≥ size; rounds add a hash of one digit to the other,
    modulo its radix, which is invertible; results of `size` or more are passed through again until they fall inside.

    Reference: Black, Rogaway (2002), Ciphers with arbitrary finite domains, methods 2 (cycle walking) and 3
    (generalised Feistel).
    """
    a = np.uint64(max(1, int(np.ceil(np.sqrt(size)))))
    b = np.uint64(-(-size // int(a)))
    result = position.copy()
    walking = np.ones(position.shape, dtype=bool)
    while walking.any():
        value, key = result[walking], keys[walking]
        high, low = value // b, value % b
        for number in range(FEISTEL_ROUNDS):
            # digit and round number side by side: within one key no two rounds hash the same input
            if number % 2:
                low = (low + _mix(key ^ (high * np.uint64(8) + np.uint64(number))) % b) % b
            else:
                high = (high + _mix(key ^ (low * np.uint64(8) + np.uint64(number))) % a) % a
        result[walking] = high * b + low
        walking &= result >= size
    return result


def _mix(value: np.ndarray) -> np.ndarray:
    """The SplitMix64 step: add the golden gamma, then scramble; wraps modulo 2^64. Steele, Lea, Flood (2014), figure
    17.
    """
    with np.errstate(over="ignore"):
        z = value + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
