"""What of a teacher's outputs lies on disk? One folder per stream of sequences, in shards; any part can be read alone.

    FOLDER/manifest.json         what the cache is a function of (`Group.stream`), and the tokenizer's hash
    FOLDER/shards/000000.npz     what was kept of sequences 0, 1, …, a checksum of the tokens of each, and one of the
    whole FOLDER/fidelity-T1.json      how far it can be trusted at temperature 1 (`gaplaw.train.teacher_cache`)

Each file carries a checksum; what is damaged is made again. Every file is written under a temporary name and renamed,
so that filling a cache may stop at any moment and goes on at the first missing shard. Sequences are numbered as the
corpus streams them, whatever the batch size. NumPy only: no JAX in this file.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np

from gaplaw.canonical import short_hash
from gaplaw.errors import SignalError
from gaplaw.files import read_checked_json, renamed, write_checked_json
from gaplaw.spec import Group

SHARD_TOKENS = 2**18  # some 20 MB at 16 symbols a token
WHOLE = "sha256"  # of the other arrays of a shard


class SignalCache:
    """A folder of teacher outputs, opened for one group and one corpus.

    Args: folder: of all caches of one training of the teacher; this one lies in it under the hash of its stream.
    Raises: SignalError when what lies there was made from something else.
    """

    def __init__(self, folder: Path, group: Group, corpus):
        self.path = Path(folder) / short_hash(group.stream)
        self.group, self.corpus = group, corpus
        self.shard_sequences = max(1, SHARD_TOKENS // group.cells[0].data.sequence_tokens)
        self._held: dict[int, dict[str, np.ndarray]] = {}
        told = {"stream": group.stream, "tokenizer": corpus.tokenizer_hash, "shard_sequences": self.shard_sequences}
        found = made_or_damaged(self.path / "manifest.json")
        if found is None:
            write_checked_json(self.path / "manifest.json", told)
        elif found != told:
            first = next(name for name in told if found.get(name) != told[name])
            raise SignalError(
                f"{self.path}: a teacher cache of another {first} ({found.get(first)!r}, not {told[first]!r}); "
                "delete the folder to make it again"
            )

    def shard(self, number: int) -> Path:
        return self.path / "shards" / f"{number:06d}.npz"

    def missing(self, sequences: int, names: Iterable[str]) -> list[range]:
        """The ranges of sequences, one for each shard, that must be made before the arrays `names` of sequences 0 …
        `sequences` can be read. A shard that lacks an array is made again as long as it is.
        """
        found = []
        for number in range(-(-sequences // self.shard_sequences)):
            first = number * self.shard_sequences
            wanted = range(first, min(first + self.shard_sequences, sequences))
            if self._sequences_in(number, names) < len(wanted):
                found.append(range(first, max(wanted.stop, first + self._sequences_in(number))))
        return found

    def _sequences_in(self, number: int, names: Iterable[str] = ()) -> int:
        """Of a shard that is there and, as far as its directory tells, whole; else 0. Those without a checksum do not
        count.
        """
        try:
            with np.load(self.shard(number)) as shard:
                return len(shard["tokens_crc"]) if {WHOLE, *names} <= set(shard.files) else 0
        except Exception:  # numpy and zipfile raise unrelated kinds for damaged files
            return 0

    def temperatures(self) -> list[float]:
        """At which the first shard keeps the tail's mass; none when it is not there."""
        try:
            with np.load(self.shard(0)) as shard:
                return sorted(float(name.partition("-")[2]) for name in shard.files if "-" in name)
        except Exception:  # as in `_sequences_in`
            return []

    def tokens(self, wanted: range) -> np.ndarray:
        """The tokens of some sequences of the stream: int32 [n, L + 1]."""
        cell = self.group.cells[0]
        return self.corpus.batch(cell.split, 1, cell.train.batch_seed, wanted)[:, 0]

    def write(self, wanted: range, tokens_MxL1: np.ndarray, kept: dict[str, np.ndarray]) -> None:
        """Write one range of `missing`: arrays [M, L, …] by name. A longer shard that another group wrote meanwhile
        stays.
        """
        number = wanted.start // self.shard_sequences
        if self._sequences_in(number, kept) >= len(wanted):
            return
        path = self.shard(number)
        arrays = kept | {"tokens_crc": _checksums(tokens_MxL1)}
        with renamed(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays, **{WHOLE: _checksum(arrays)})

    def read(self, first: int, tokens_MxL1: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """What was kept of sequences first, first + 1, …: arrays [M, L, …] by name.

        Raises: SignalError when their tokens are not these, the shard has no such array, or it is damaged (it is then
        removed, to be made again).
        """
        parts, at = [], first
        while at < first + len(tokens_MxL1):
            number = at // self.shard_sequences
            shard, start = self._load(number), at - number * self.shard_sequences
            stop = min(start + first + len(tokens_MxL1) - at, self.shard_sequences)
            lacking = sorted(set(names) - set(shard))
            if lacking:
                raise SignalError(
                    f"{self.shard(number)}: lacks {lacking[0]}, as another sweep filled it; run again to add it"
                )
            parts.append({name: shard[name][start:stop] for name in ("tokens_crc", *names)})
            at += stop - start
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if not np.array_equal(found.pop("tokens_crc"), _checksums(tokens_MxL1)):
            raise SignalError(
                f"{self.path}: a teacher cache of other tokens from sequence {first} on; delete the folder to make "
                "it again"
            )
        return found

    def _load(self, number: int) -> dict[str, np.ndarray]:
        if number not in self._held:
            path = self.shard(number)
            try:
                with np.load(path) as shard:
                    whole = {name: shard[name] for name in shard.files}
                if not np.array_equal(whole.pop(WHOLE), _checksum(whole)):
                    raise ValueError
            except Exception as fault:  # as in `_sequences_in`
                path.unlink(missing_ok=True)
                raise SignalError(
                    f"{path}: not a readable part of a teacher cache ({type(fault).__name__}); run again to make it "
                    "again"
                ) from None
            last = list(self._held)[-1:]
            self._held = {place: self._held[place] for place in last} | {number: whole}  # a dispatch may span two
        return self._held[number]


def made_or_damaged(path: Path) -> dict | None:
    """A checked JSON file of a cache; None when it must be made, after a line on standard error when it is there but
    damaged.
    """
    found = read_checked_json(path)
    if found is None and path.exists():
        print(f"warning: {path}: damaged, or of a gaplaw without checksums; it is made again", file=sys.stderr)
    return found


def _checksum(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """SHA-256 over names, types, shapes and values: uint8 [32]."""
    total = sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.reshape(-1).view(np.uint8))
    return np.frombuffer(total.digest(), np.uint8)


def _checksums(tokens_MxL1: np.ndarray) -> np.ndarray:
    return np.array([zlib.crc32(row) for row in np.ascontiguousarray(tokens_MxL1, np.int32)], np.uint32)
