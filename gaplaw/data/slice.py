"""What is a small part of a corpus, read like the whole? Its first documents, cut short, as a folder of their own.

For a rehearsal: a corpus of terabytes, or one huge document, is as quick as a small one. Its own tokenizer reads it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gaplaw.canonical import short_hash
from gaplaw.data.documents import Document
from gaplaw.data.pack import cache_folder
from gaplaw.data.sources import open_source
from gaplaw.errors import AbsentDataError, DataError
from gaplaw.spec import DataSpec

SLICE_CHARACTERS, DOCUMENT_CHARACTERS, DOCUMENTS_AT_MOST = 200_000, 4_000, 2_000


def first_documents(spec: DataSpec, place: Path) -> DataSpec:
    """The same corpus as a folder below `place` that holds only its start; nothing is downloaded.

    The split stays as it is; a BPE is to be trained on the slice, with as many symbols.

    Raises: AbsentDataError for a corpus or a tokenizer file that is not on this machine, DataError for one that is of
    no use.
    """
    kind, _, path = spec.tokenizer.partition(":")
    if kind == "file" and not Path(path).expanduser().exists():
        raise AbsentDataError(f"DataSpec.tokenizer = {spec.tokenizer!r}: there is no such file here")
    folder = place / short_hash(spec.source)
    if not folder.exists():
        pieces = _pieces(_documents(spec.source))
        rows = [json.dumps({"text": text, "domain": document.domain}) for document, text in pieces]
        folder.mkdir(parents=True)
        (folder / "documents.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return replace(spec, source=f"folder:{folder}", manifest="")


def _documents(source: str) -> Iterator[Document]:
    """The documents of a corpus. Raises: AbsentDataError where it is not here; TFDS shows that at its first one."""
    try:
        documents = iter(open_source(source, cache_folder(), fetch=False).documents())
        if source.startswith("tfds:"):
            documents = itertools.chain([next(documents)], documents)
    except DataError as fault:
        raise AbsentDataError(str(fault)) from None
    return documents


def _pieces(documents: Iterator[Document]) -> Iterator[tuple[Document, str]]:
    """Documents in pieces, as many as a slice holds; so a single long document can be split, too."""
    left = SLICE_CHARACTERS
    for number, document in enumerate(documents):
        for start in range(0, len(document.text), DOCUMENT_CHARACTERS):
            if left <= 0 or number >= DOCUMENTS_AT_MOST:
                return
            text = document.text[start : start + DOCUMENT_CHARACTERS]
            left -= len(text)
            yield document, text
