"""How do documents become symbols? Encoded a batch at a time, long ones piece by piece; what a tokenizer drops is
counted.

A document longer than `LONG_BYTES` is never encoded whole: its own size is nearly all the memory that it takes. Nothing
here keeps a document while the next is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from gaplaw.data.documents import Source
from gaplaw.data.pieces import Piece, pieces
from gaplaw.data.progress import Preparation
from gaplaw.data.split import TRAIN
from gaplaw.data.tokenizers import ByteTokenizer, Tokenizer, file_tokenizer, train_bpe
from gaplaw.errors import DataError
from gaplaw.spec import DataSpec

LONG_BYTES = 1 << 20  # a longer document is encoded in pieces, a shorter one always whole
PIECE_BYTES = 1 << 16  # of which the trainer of a BPE takes 256 at a time
AT_ONCE_CHARACTERS = 1 << 20
BPE_TRAINING_CHARACTERS = 256 << 20  # the trainer keeps its word counts in memory
BPE_UNBROKEN_BYTES = 8 << 20  # of long texts without white space, such as base64: words that are never seen twice
DROPPED_SHARE_AT_MOST = 0.001


def tokenizer_of(spec: DataSpec, source: Source, splits_N: np.ndarray, total_bytes: int) -> Tokenizer:
    """The tokenizer that a spec names; a BPE learns from the training documents."""
    kind, _, rest = spec.tokenizer.partition(":")
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "file":
        return file_tokenizer(rest, spec.separator)
    with Preparation(
        f"learning {spec.tokenizer} from {spec.source}", min(total_bytes, BPE_TRAINING_CHARACTERS)
    ) as shown:
        texts = _training_texts(source, splits_N, shown, spec.tokenizer)
        return train_bpe(texts, int(rest))


def encode(
    spec: DataSpec, source: Source, tokenizer: Tokenizer, total_bytes: int, dropped: Counter[str]
) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Every document's number and symbols, in one part or more, and whether the part is its last.

    Args: dropped: gets the characters that the symbols do not hold.
    Raises: DataError when too many characters are dropped, or when a document holds the separator.
    """
    characters = 0
    with Preparation(f"encoding {spec.source} with {spec.tokenizer}", total_bytes) as shown:
        for batch in _batches(source, tokenizer):
            texts = [piece.text for _, piece in batch]
            for symbols, (number, piece) in zip(tokenizer.encode(texts, dropped), batch, strict=True):
                if (symbols == tokenizer.separator).any():
                    raise DataError(
                        f"DataSpec.tokenizer = {spec.tokenizer!r}: document {number + 1} of {spec.source!r}, "
                        f"{piece.text[:40]!r}, "
                        f"holds symbol {tokenizer.separator}, which ends a document; name another as DataSpec.separator"
                    )
                yield number, symbols, piece.last
                shown.advance(_bytes_of(piece.text))
            characters += sum(map(len, texts))
            _refuse_if_dropped(spec, dropped, total_bytes)  # bytes are no fewer than characters: surely too many
    _refuse_if_dropped(spec, dropped, characters)


def _refuse_if_dropped(spec: DataSpec, dropped: Counter[str], characters: int) -> None:
    if dropped.total() > DROPPED_SHARE_AT_MOST * characters:
        often, times = dropped.most_common(1)[0]
        raise DataError(
            f"DataSpec.tokenizer = {spec.tokenizer!r}: drops at least {dropped.total() / characters:.2%} of the "
            "characters of "
            f"{spec.source!r}, most often {often!r} ({times} times); at most {DROPPED_SHARE_AT_MOST:.1%} may be "
            "dropped: use a "
            "tokenizer that knows these characters"
        )


def _training_texts(source: Source, splits_N: np.ndarray, shown: Preparation, tokenizer: str) -> Iterator[str]:
    """The texts of the training split only, in order, long ones in pieces, up to a cap."""
    left, unbroken_left, number = BPE_TRAINING_CHARACTERS, BPE_UNBROKEN_BYTES, 0
    for document in source.documents():
        if splits_N[number] == TRAIN:
            for piece in pieces(document.content, PIECE_BYTES):
                unbroken_left -= 0 if piece.at_edge else PIECE_BYTES
                if piece.at_edge or unbroken_left >= 0:
                    yield piece.text
                left -= len(piece.text)
                shown.advance(_bytes_of(piece.text))
        else:
            shown.advance(len(document.content))
        number += 1
        del document
        if left <= 0:
            break
    shown.what, shown.total = f"learning the merges of {tokenizer}", None  # how long that takes, nobody knows


def _batches(source: Source, tokenizer: Tokenizer) -> Iterator[list[tuple[int, Piece]]]:
    batch, characters, number = [], 0, 0
    for document in source.documents():
        most_bytes = PIECE_BYTES if len(document.content) > LONG_BYTES else LONG_BYTES
        for piece in pieces(document.content, most_bytes, tokenizer.skip_at):
            batch.append((number, piece))
            characters += len(piece.text)
            if characters > AT_ONCE_CHARACTERS:
                yield batch
                batch, characters = [], 0
        number += 1
        del document
    if batch:
        yield batch


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
