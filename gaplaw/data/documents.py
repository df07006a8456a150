"""What does every source of text hand on? A stream of documents, and a hash of the content that they come from.

First in the data walk: sources yield `Document`s, `split` divides them, `tokenizers` encode them, `pack` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from gaplaw.canonical import short_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text, its domain label, and the group that it must not be separated from.

    Documents of one group (the code and the docstrings of one file, two copies of one page) land in the same split, so
    nothing in validation was seen in training. Where a source knows no better the group is the text's own hash.
    """

    text: str
    domain: str
    group: str


class Source(Protocol):
    """A corpus before tokenization: `manifest` is cheap and hashes the content, `documents` always streams in one order.

    size_bytes: about what there is to read, known without reading it.
    """

    def manifest(self) -> str: ...

    def size_bytes(self) -> int: ...

    def documents(self) -> Iterator[Document]: ...


def text_group(text: str) -> str:
    """The identity of a document that has no name: equal texts share it, hence a split."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def files_manifest(recipe: str, files: list[tuple[str, str]]) -> str:
    """One hash over (relative path, sha256) pairs in path order and the recipe that turns them into documents."""
    return short_hash([recipe, sorted(files)])
