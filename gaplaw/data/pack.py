"""How do documents become cached tokens? Split, encode, concatenate, and write once under the cache folder.

One folder per (content, tokenizer, split): `train.npy`, `teacher.npy`, `validation.npy` (domain after domain, each
document followed by the separator), `tokenizer.json` unless bytes, `corpus.json` that says what is where, and the
checksums of all these. A folder appears whole, by rename under a lock, or not at all, so processes that start together
prepare once and a killed one leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gaplaw.canonical import short_hash
from gaplaw.data.documents import Document, Source
from gaplaw.data.split import SPLITS, TRAIN, divide, group_hash
from gaplaw.data.tokenizers import ByteTokenizer, Tokenizer, file_tokenizer, symbol_dtype, train_bpe
from gaplaw.errors import DataError
from gaplaw.files import damage, write_sums
from gaplaw.spec import DataSpec

RECIPE = "pack-1"  # in every manifest: raise when the same documents would yield other tokens, splits or batches
INDEX = "corpus.json"
DOMAINS_AT_MOST = 256
STDLIB_DOMAINS_AT_LEAST = 4
ENCODE_AT_ONCE_CHARACTERS = 4 << 20
BPE_TRAINING_CHARACTERS = 256 << 20  # the trainer keeps its word counts in memory


def cache_folder() -> Path:
    """Where prepared data lives: $GAPLAW_CACHE, else ~/.cache/gaplaw."""
    return Path(os.environ.get("GAPLAW_CACHE") or "~/.cache/gaplaw").expanduser()


def packed_folder(spec: DataSpec, cache: Path) -> Path:
    """The folder of a resolved spec's tokens; sequence length and validation size are views, so they are not in it."""
    kind = spec.tokenizer.partition(":")
    tokenizer = kind[0] if kind[0] == "file" else spec.tokenizer
    shares = [spec.validation_fraction, spec.teacher_fraction]
    key = short_hash([spec.manifest, spec.source.partition(":")[0], tokenizer, spec.split_seed, shares])
    return cache / "data" / key


def prepare(spec: DataSpec, source: Source, folder: Path) -> None:
    """Write the packed tokens of a corpus into `folder`, unless another process has just done so.

    Raises: DataError when the corpus is too small to split, has too few or too many domains, or the cache is not
    writable.
    """
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if damage(folder) is None:
                return
            for stale in [folder, *folder.parent.glob(f"{folder.name}.tmp-*")]:  # ours alone while the lock is held
                shutil.rmtree(stale, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
            try:
                _write(spec, source, scratch)
                os.replace(scratch, folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"the cache folder {folder.parent} cannot be written ({error}); set GAPLAW_CACHE to one that can"
        ) from error


def _write(spec: DataSpec, source: Source, folder: Path) -> None:
    names, domains_N, splits_N = _plan(spec, source)
    tokenizer = _tokenizer(spec, source, splits_N)
    dtype = symbol_dtype(tokenizer.vocab_size)
    # One file per split and domain while streaming; then domain after domain into one array per split.
    with contextlib.ExitStack() as stack:
        parts = {}
        counts: dict[tuple[int, int], list[int]] = {}
        for batch in _in_batches(source, domains_N, splits_N):
            texts = [document.text for document, *_ in batch]
            for symbols, (_, domain, split) in zip(tokenizer.encode(texts), batch, strict=True):
                key = (split, domain)
                if key not in parts:
                    parts[key] = stack.enter_context(open(folder / f"{split}-{domain}.part", "wb"))
                    counts[key] = [0, 0]
                parts[key].write(
                    symbols.astype(dtype, copy=False).tobytes() + dtype.type(tokenizer.separator).tobytes()
                )
                counts[key][0] += 1
                counts[key][1] += len(symbols) + 1
    index = {
        "recipe": RECIPE,
        "manifest": spec.manifest,
        "tokenizer": tokenizer.identity,
        "vocab_size": tokenizer.vocab_size,
        "separator": tokenizer.separator,
        "splits": {},
    }
    for split, split_name in enumerate(SPLITS):
        held = sorted((names[d], d) for s, d in counts if s == split)
        if held:
            index["splits"][split_name] = _join(folder, split_name, split, held, counts, dtype)
    if isinstance(getattr(tokenizer, "content", None), str):
        (folder / "tokenizer.json").write_text(tokenizer.content)
    (folder / INDEX).write_text(json.dumps(index, indent=1))
    write_sums(folder)


def _plan(spec: DataSpec, source: Source) -> tuple[list[str], array, np.ndarray]:
    """First pass, no text kept: the domain names, and each document's domain and split."""
    hashes_N, bytes_N, domains_N = array("Q"), array("q"), array("i")
    numbers: dict[str, int] = {}
    for document in source.documents():
        domains_N.append(numbers.setdefault(document.domain, len(numbers)))
        hashes_N.append(group_hash(document.group, spec.split_seed))
        bytes_N.append(len(document.text.encode("utf-8", "replace")))
        if len(numbers) > DOMAINS_AT_MOST:
            raise DataError(
                f"DataSpec.source = {spec.source!r}: more than {DOMAINS_AT_MOST} distinct domains, the last "
                f"{document.domain[:60]!r}; a domain is a label with many documents"
            )
    if spec.source == "stdlib" and len(numbers) < STDLIB_DOMAINS_AT_LEAST:
        raise DataError(
            f"DataSpec.source = 'stdlib': this Python's library holds only {sorted(numbers)}, needs "
            f"{STDLIB_DOMAINS_AT_LEAST} domains; use 'folder:PATH' instead"
        )
    if spec.validation_fraction + spec.teacher_fraction >= 1:
        raise DataError(
            f"DataSpec.teacher_fraction = {spec.teacher_fraction}: with validation_fraction = {spec.validation_fraction} it "
            "must leave documents for training (their sum below 1)"
        )
    splits_N = divide(
        np.asarray(hashes_N, dtype=np.uint64),
        np.asarray(bytes_N, dtype=np.int64),
        np.asarray(domains_N, dtype=np.int64),
        validation_fraction=spec.validation_fraction,
        teacher_fraction=spec.teacher_fraction,
    )
    wanted = SPLITS if spec.teacher_fraction else ("train", "validation")
    missing = [name for name in wanted if SPLITS.index(name) not in splits_N]
    if missing:
        raise DataError(
            f"DataSpec.source = {spec.source!r}: {len(hashes_N)} documents are too few to split: nothing is left for "
            f"{' and '.join(missing)} (documents are never cut; a domain needs two, or three with teacher_fraction)"
        )
    return list(numbers), domains_N, splits_N


def _tokenizer(spec: DataSpec, source: Source, splits_N: np.ndarray) -> Tokenizer:
    kind, _, rest = spec.tokenizer.partition(":")
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "file":
        return file_tokenizer(rest)
    return train_bpe(_training_texts(source, splits_N), int(rest))


def _training_texts(source: Source, splits_N: np.ndarray) -> Iterator[str]:
    """The texts of the training split only, in order, up to a cap."""
    left = BPE_TRAINING_CHARACTERS
    for document, split in zip(source.documents(), splits_N, strict=True):
        if split == TRAIN and left > 0:
            left -= len(document.text)
            yield document.text


def _in_batches(source: Source, domains_N: array, splits_N: np.ndarray) -> Iterator[list[tuple[Document, int, int]]]:
    batch, characters = [], 0
    for document, domain, split in zip(source.documents(), domains_N, splits_N.tolist(), strict=True):
        batch.append((document, domain, split))
        characters += len(document.text)
        if characters > ENCODE_AT_ONCE_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _join(folder: Path, split_name: str, split: int, held: list, counts: dict, dtype: np.dtype) -> dict:
    total = sum(counts[split, d][1] for _, d in held)
    joined = np.lib.format.open_memmap(folder / f"{split_name}.npy", mode="w+", dtype=dtype, shape=(total,))
    start, domains = 0, {}
    for name, d in held:
        part = folder / f"{split}-{d}.part"
        documents, tokens = counts[split, d]
        joined[start : start + tokens] = np.memmap(part, dtype=dtype, mode="r")
        domains[name] = {"documents": documents, "start": start, "end": start + tokens}
        start += tokens
        part.unlink()
    joined.flush()
    return {"tokens": total, "domains": domains}
