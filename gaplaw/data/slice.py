"""What is a small part of a corpus, read like the whole? Its first documents, cut short, as a folder of their own.

For a rehearsal: a corpus of terabytes, or one huge document, is as quick as a small one. Its own tokenizer reads it. Of
a folder it is the start of some twenty files, taken from its subfolders in turn, so that domains that lie apart are all
there; of one file that is ordered by domain it may be the first domain only.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gaplaw.canonical import short_hash
from gaplaw.data.documents import Document
from gaplaw.data.folder import FolderSource
from gaplaw.data.pack import cache_folder
from gaplaw.data.sources import open_source
from gaplaw.errors import AbsentDataError, DataError
from gaplaw.spec import DataSpec

SLICE_CHARACTERS, DOCUMENT_CHARACTERS, DOCUMENTS_AT_MOST, PARTS = 200_000, 4_000, 2_000, 20


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
        pieces = _pieces(_parts(spec.source))
        rows = [json.dumps({"text": text, "domain": document.domain}) for document, text in pieces]
        folder.mkdir(parents=True)
        (folder / "documents.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return replace(spec, source=f"folder:{folder}", manifest="")


def _parts(source: str) -> list[Iterator[Document]]:
    """The documents of a corpus, of a folder file by file, its subfolders in turn.

    Raises: AbsentDataError where it is not here; TFDS shows that at its first one.
    """
    try:
        opened = open_source(source, cache_folder(), fetch=False)
        if isinstance(opened, FolderSource):
            return [opened.documents([name]) for name in _in_turn(opened.files)]
        documents = iter(opened.documents())
        if source.startswith("tfds:"):
            documents = itertools.chain([next(documents)], documents)
    except DataError as fault:
        raise AbsentDataError(str(fault)) from None
    return [documents]


def _in_turn(files: list[str]) -> list[str]:
    """The first file of each subfolder (and of the folder itself), then the second of each, and so on."""
    of_folder: dict[str, list[str]] = {}
    for name in files:
        of_folder.setdefault(name.rpartition("/")[0].partition("/")[0], []).append(name)
    return [name for turn in itertools.zip_longest(*of_folder.values()) for name in turn if name is not None]


def _pieces(parts: list[Iterator[Document]]) -> Iterator[tuple[Document, str]]:
    """Documents in pieces, as many as a slice holds, shared by its parts; so a single long document can be split,
    too.
    """
    ways = min(len(parts), PARTS)
    left = SLICE_CHARACTERS
    for part in parts:
        left_of_part = min(left, SLICE_CHARACTERS // ways)
        for document in itertools.islice(part, DOCUMENTS_AT_MOST // ways):
            for start in range(0, len(document.text), DOCUMENT_CHARACTERS):
                if left_of_part <= 0:
                    break
                text = document.text[start : start + DOCUMENT_CHARACTERS]
                left, left_of_part = left - len(text), left_of_part - len(text)
                yield document, text
            if left_of_part <= 0:
                break
        if left <= 0:
            return
