"""What do models read? A corpus: documents with domain labels, split, tokenized once, served as batches = f(seed,
step).

In reading order: documents → sources (folder: listing, json_lines; stdlib_corpus) → split → tokenizers (dropped) →
encode (pieces, progress) → pack → batches. Nothing here imports JAX or TensorFlow, and a corpus whose tokens are cached
imports neither TFDS nor a tokenizer.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from gaplaw.canonical import short_hash
from gaplaw.data import tokenizers
from gaplaw.data.batches import Corpus, Validation
from gaplaw.data.listing import in_words
from gaplaw.data.pack import RECIPE, cache_folder, packed_folder, prepare
from gaplaw.data.sources import open_source
from gaplaw.errors import DataError
from gaplaw.files import damage
from gaplaw.packages import DATA, missing, refuse_without
from gaplaw.spec import DataSpec

__all__ = ["Corpus", "Validation", "cache_folder", "counted", "describe", "load", "resolve", "vocab_size"]

PREPARED_AT_ONCE_BYTES = 64 << 20  # seconds of work; a plan does not wait for more


def resolve(spec: DataSpec, *, fetch: bool = True) -> DataSpec:
    """The spec with its manifest: a hash of the corpus' content and of the tokenizer file; files are read once.

    fetch: whether a TFDS dataset that is not here may be downloaded; if not, it is missing.

    Raises: DataError when the content is missing, or is not what the spec's own manifest says.
    """
    manifest = _manifest(spec, fetch)
    if spec.manifest not in ("", manifest):
        raise DataError(
            f"DataSpec.manifest = {spec.manifest!r}: the content of {spec.source!r} with {spec.tokenizer!r} here "
            "hashes to "
            f"{manifest!r}; it has changed, or this is another Python"
        )
    return replace(spec, manifest=manifest)


def load(spec: DataSpec, cache_dir: Path | None = None) -> Corpus:
    """The corpus of a spec, prepared on first use and memory-mapped from the cache ever after.

    A spec that carries a manifest is served from the cache without reading its source again. On the embedded default
    the first call took 4.6 s (5.0 s of CPU) and a second process 0.22 s, imports included (CPython 3.11.7, single run).
    Each process reads the cached files once to compare their checksums; damaged ones are packed again, with one line on
    standard error.

    Args:
      spec: resolved or not.
      cache_dir: instead of $GAPLAW_CACHE or ~/.cache/gaplaw.

    Raises: DataError in one line when the source, the tokenizer or the cache cannot be used; SweepError naming packages
    that are missing.
    """
    cache = Path(cache_dir) if cache_dir else cache_folder()
    spec = spec if spec.manifest else resolve(spec)
    folder = packed_folder(spec, cache)
    fault = damage(folder)
    if fault is not None:
        if folder.exists():
            print(f"warning: {fault}; {spec.source} is packed again", file=sys.stderr)
        refuse_without(f"preparing {spec.source}", DATA)
        resolve(spec)  # the source must still be what the manifest says before its tokens go under that name
        prepare(spec, open_source(spec.source, cache), folder)
    return Corpus(spec, folder)


def counted(spec: DataSpec) -> Corpus | None:
    """The corpus of a spec if its tokens can be counted now: it lies in the cache, or is small enough to be prepared at
    once.

    Returns: None for a source of more than PREPARED_AT_ONCE_BYTES that was never prepared, for one that is not here,
    and where the packages that prepare text are missing.
    Raises: DataError as `load`.
    """
    if not spec.manifest:
        return None
    cache = cache_folder()
    here = damage(packed_folder(spec, cache)) is None
    if not here and missing(DATA):
        return None
    small = here or open_source(spec.source, cache, fetch=False).size_bytes() <= PREPARED_AT_ONCE_BYTES
    return load(spec) if small else None


def vocab_size(spec: DataSpec) -> int:
    """The number of symbols of the spec's tokenizer: what `ModelSpec.vocab_size` must be. Raises: DataError."""
    return tokenizers.vocab_size(spec.tokenizer)


def describe(spec: DataSpec, cache_dir: Path | None = None) -> dict:
    """What a corpus holds, in plain values: manifest, tokenizer, vocabulary, documents and tokens by split and domain.

    Returns: {"source", "manifest", "tokenizer", "tokenizer_hash", "vocab_size", "splits": {split: {"tokens",
    "documents", "domains": {domain: {"tokens", "documents"}}}}, "dropped_characters", "not_read"}. The last two say how
    many characters the tokenizer could not encode, and what files of a folder were not read. Prepares the corpus where
    it is not cached.
    """
    corpus = load(spec, cache_dir)
    splits = {}
    for split, entry in corpus.index["splits"].items():
        domains = {
            name: {"tokens": d["end"] - d["start"], "documents": d["documents"]} for name, d in entry["domains"].items()
        }
        documents = sum(d["documents"] for d in domains.values())
        splits[split] = {"tokens": entry["tokens"], "documents": documents, "domains": domains}
    return {
        "source": spec.source,
        "manifest": corpus.spec.manifest,
        "tokenizer": spec.tokenizer,
        "tokenizer_hash": corpus.tokenizer_hash,
        "vocab_size": corpus.vocab_size,
        "splits": splits,
        "dropped_characters": corpus.index.get("dropped_characters"),  # absent in caches of older versions
        "not_read": corpus.index.get("not_read"),
    }


def _manifest(spec: DataSpec, fetch: bool) -> str:
    source = open_source(spec.source, cache_folder(), fetch=fetch)
    if source.left_out:
        _say_once(f"DataSpec.source = {spec.source!r}: not read: {in_words(source.left_out)}")
    content, identity = source.manifest(), tokenizers.tokenizer_identity(spec.tokenizer)
    if spec.tokenizer.startswith("file:") and not missing(DATA):
        tokenizers.file_tokenizer(spec.tokenizer.partition(":")[2], spec.separator)  # refuses what cannot be used
    return short_hash([RECIPE, content, identity])


@lru_cache(maxsize=1000)
def _say_once(line: str) -> None:
    print(f"gaplaw: {line}", file=sys.stderr, flush=True)
