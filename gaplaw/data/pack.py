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
from collections import Counter
from pathlib import Path

import numpy as np

from gaplaw.canonical import short_hash
from gaplaw.columns import domain_column
from gaplaw.data.documents import Source
from gaplaw.data.encode import encode, tokenizer_of
from gaplaw.data.progress import Preparation
from gaplaw.data.split import SPLITS, divide, group_hash
from gaplaw.data.tokenizers import symbol_dtype
from gaplaw.errors import DataError
from gaplaw.files import damage, write_sums
from gaplaw.spec import DataSpec

RECIPE = "pack-1"  # in every manifest: raise when the same documents would yield other tokens, splits or batches
INDEX = "corpus.json"
DOMAINS_AT_MOST = 256
STDLIB_DOMAINS_AT_LEAST = 4


def cache_folder() -> Path:
    """Where prepared data lives: $GAPLAW_CACHE, else ~/.cache/gaplaw."""
    return Path(os.environ.get("GAPLAW_CACHE") or "~/.cache/gaplaw").expanduser()


def packed_folder(spec: DataSpec, cache: Path) -> Path:
    """The folder of a resolved spec's tokens; sequence length and validation size are views, so they are not in it."""
    kind = spec.tokenizer.partition(":")
    tokenizer = kind[0] if kind[0] == "file" else spec.tokenizer
    shares = [spec.validation_fraction, spec.teacher_fraction]
    named = [spec.separator] if spec.separator else []
    key = short_hash([spec.manifest, spec.source.partition(":")[0], tokenizer, spec.split_seed, shares, *named])
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
    names, domains_N, splits_N, total_bytes = _plan(spec, source)
    tokenizer = tokenizer_of(spec, source, splits_N, total_bytes)
    dtype = symbol_dtype(tokenizer.vocab_size)
    separator = dtype.type(tokenizer.separator).tobytes()
    dropped: Counter[str] = Counter()
    # One file per split and domain while streaming; then domain after domain into one array per split.
    with contextlib.ExitStack() as stack:
        parts = {}
        counts: dict[tuple[int, int], list[int]] = {}
        for number, symbols, last in encode(spec, source, tokenizer, total_bytes, dropped):
            key = (int(splits_N[number]), domains_N[number])
            if key not in parts:
                parts[key] = stack.enter_context(open(folder / f"{key[0]}-{key[1]}.part", "wb"))
                counts[key] = [0, 0]
            parts[key].write(symbols.astype(dtype, copy=False).data)
            parts[key].write(separator if last else b"")
            counts[key][0] += last
            counts[key][1] += len(symbols) + last
    index = {
        "recipe": RECIPE,
        "manifest": spec.manifest,
        "tokenizer": tokenizer.identity,
        "vocab_size": tokenizer.vocab_size,
        "separator": tokenizer.separator,
        "dropped_characters": dropped.total(),
        "not_read": source.left_out,
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


def _plan(spec: DataSpec, source: Source) -> tuple[list[str], array, np.ndarray, int]:
    """First pass, no text kept: the domain names, each document's domain and split, and the bytes of all."""
    hashes_N, bytes_N, domains_N = array("Q"), array("q"), array("i")
    numbers: dict[str, int] = {}
    with Preparation(f"reading {spec.source}"):
        for document in source.documents():
            domains_N.append(numbers.setdefault(document.domain, len(numbers)))
            hashes_N.append(group_hash(document.group, spec.split_seed))
            bytes_N.append(len(document.content))
            del document  # a long one must not be kept while the next is read
            if len(numbers) > DOMAINS_AT_MOST:
                break
    _refuse_domains(spec, list(numbers))
    if spec.source == "stdlib" and len(numbers) < STDLIB_DOMAINS_AT_LEAST:
        raise DataError(
            f"DataSpec.source = 'stdlib': this Python's library holds only {sorted(numbers)}, needs "
            f"{STDLIB_DOMAINS_AT_LEAST} domains; use 'folder:PATH' instead"
        )
    if spec.validation_fraction + spec.teacher_fraction >= 1:
        raise DataError(
            f"DataSpec.teacher_fraction = {spec.teacher_fraction}: with validation_fraction = "
            f"{spec.validation_fraction} it "
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
    return list(numbers), domains_N, splits_N, sum(bytes_N)


def _refuse_domains(spec: DataSpec, labels: list[str]) -> None:
    """Too many labels, or two whose losses would stand in one column of the results."""
    if len(labels) > DOMAINS_AT_MOST:
        raise DataError(
            f"DataSpec.source = {spec.source!r}: more than {DOMAINS_AT_MOST} distinct domains, the last "
            f"{labels[-1][:60]!r}; a domain is a label with many documents"
        )
    column_of: dict[str, str] = {}
    for label in labels:
        other = column_of.setdefault(domain_column(label), label)
        if other != label:
            raise DataError(
                f"DataSpec.source = {spec.source!r}: the domains {other!r} and {label!r} would share the column "
                f"{domain_column(label)}; rename one"
            )


def _join(folder: Path, split_name: str, split: int, held: list, counts: dict, dtype: np.dtype) -> dict:
    total = sum(counts[split, d][1] for _, d in held)
    start, domains = 0, {}
    with open(folder / f"{split_name}.npy", "wb") as joined:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total,)}
        np.lib.format.write_array_header_1_0(joined, header)
        for name, d in held:
            documents, tokens = counts[split, d]
            with open(folder / f"{split}-{d}.part", "rb") as part:
                shutil.copyfileobj(part, joined, 1 << 20)
            domains[name] = {"documents": documents, "start": start, "end": start + tokens}
            start += tokens
            (folder / f"{split}-{d}.part").unlink()
    return {"tokens": total, "domains": domains}
