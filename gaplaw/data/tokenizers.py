"""How does text become symbols? Bytes, a byte-level BPE trained on the corpus, or any Hugging Face tokenizer.json.

A tokenizer encodes many documents at once and names the symbol that separates documents. Its identity is a hash of its
content. Hugging Face `tokenizers` is imported on first use; the byte tokenizer needs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np

from gaplaw.errors import DataError

BYTE_SYMBOLS = 256
SEPARATOR = "<|document|>"
SEPARATORS_KNOWN = (
    SEPARATOR,
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "</s>",
    "<eos>",
    "<|im_end|>",
    "[SEP]",
    "[EOS]",
)


class Tokenizer(Protocol):
    vocab_size: int
    separator: int
    identity: str

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]: ...


def symbol_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned integer that holds every symbol."""
    return np.dtype(np.uint8 if vocab_size <= 2**8 else np.uint16 if vocab_size <= 2**16 else np.uint32)


def vocab_size(tokenizer: str) -> int:
    """The number of symbols of `DataSpec.tokenizer`: 256, N of "bpe:N", or one above the largest id of a tokenizer.json.

    A corpus too small for N - 257 merges leaves the last symbols of "bpe:N" unused; the vocabulary is still N.

    Raises: DataError when N is below 257 (the 256 bytes and the separator), or the file is missing or no tokenizer.
    """
    kind, _, rest = tokenizer.partition(":")
    if kind == "bytes":
        return BYTE_SYMBOLS
    if kind == "bpe":
        if int(rest) < BYTE_SYMBOLS + 1:
            raise DataError(
                f"DataSpec.tokenizer = {tokenizer!r}: VOCAB must be at least 257 (256 bytes and a separator)"
            )
        return int(rest)
    return max(_symbol_ids(_read_tokenizer_json(rest), rest)) + 1


def tokenizer_identity(tokenizer: str) -> str:
    """What a manifest must know of a tokenizer before it is trained: its name, or for a file the hash of its content."""
    kind, _, path = tokenizer.partition(":")
    if kind == "file":
        return sha256(_read_bytes(path)).hexdigest()
    vocab_size(tokenizer)  # refuses a vocabulary that cannot be
    return tokenizer


class ByteTokenizer:
    """UTF-8 bytes; byte 0 separates documents, so the rare NUL characters of a text are dropped."""

    vocab_size = BYTE_SYMBOLS
    separator = 0
    identity = "bytes"

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Each text as uint8 symbols, without separators."""
        return [np.frombuffer(t.replace("\0", "").encode("utf-8", "replace"), np.uint8) for t in texts]


class JsonTokenizer:
    """A Hugging Face tokenizer from the text of its tokenizer.json; text that spells a special token stays plain text."""

    def __init__(self, content: str, name: str):
        from tokenizers import Tokenizer as Engine

        try:
            self._engine = Engine.from_str(content)
        except Exception as error:  # the Rust side raises plain Exception
            raise DataError(
                f"DataSpec.tokenizer = {name!r}: not a tokenizer.json: {str(error).splitlines()[0]}"
            ) from error
        self._engine.encode_special_tokens = True
        self._engine.no_truncation()
        self._engine.no_padding()
        special = {token.content: number for number, token in self._engine.get_added_tokens_decoder().items()}
        known = [special[s] for s in SEPARATORS_KNOWN if s in special]
        if not known:
            raise DataError(
                f"DataSpec.tokenizer = {name!r}: needs a special token that ends a document, one of "
                f"{', '.join(SEPARATORS_KNOWN)}; has {', '.join(sorted(special)) or 'none'}"
            )
        self.separator: int = known[0]
        self.vocab_size = max(_symbol_ids(json.loads(content), name)) + 1
        self.identity = sha256(content.encode()).hexdigest()[:12]
        self.content = content

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Each text as symbols, without separators and without the tokens a chat template would add."""
        encoded = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(e.ids, dtype=symbol_dtype(self.vocab_size)) for e in encoded]

    def decode(self, symbols: Sequence[int]) -> str:
        return self._engine.decode(list(symbols), skip_special_tokens=False)


def file_tokenizer(path: str) -> JsonTokenizer:
    """The tokenizer in a tokenizer.json file."""
    return JsonTokenizer(_read_bytes(path).decode("utf-8", "replace"), f"file:{path}")


def train_bpe(texts: Iterable[str], symbols: int) -> JsonTokenizer:
    """A byte-level BPE of `symbols` symbols learned from texts; the same texts give the same merges.

    Symbol 0 separates documents, the 256 bytes follow, then merges in the order learned, so any text has an encoding.

    Reference: Sennrich, Haddow, Birch (2016), algorithm 1, over bytes.
    """
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, pre_tokenizers, trainers

    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=symbols,
        special_tokens=[SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(_pieces(texts), trainer)
    return JsonTokenizer(engine.to_str(), f"bpe:{symbols}")


def _pieces(texts: Iterable[str], characters: int = 1 << 20) -> Iterator[str]:
    """Long texts in pieces, so that the trainer never holds one huge string twice."""
    for text in texts:
        for start in range(0, len(text), characters):
            yield text[start : start + characters]


def _read_bytes(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"DataSpec.tokenizer = 'file:{path}': cannot be read: {error.strerror}") from error


def _read_tokenizer_json(path: str) -> dict:
    try:
        content = json.loads(_read_bytes(path))
    except ValueError as error:
        raise DataError(f"DataSpec.tokenizer = 'file:{path}': not a tokenizer.json: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise DataError(f"DataSpec.tokenizer = 'file:{path}': not a tokenizer.json: has no 'model'")
    return content


def _symbol_ids(content: dict, name: str) -> list[int]:
    """Every id in a tokenizer.json: of the model (a mapping, or the list of a unigram model) and of the added tokens."""
    vocabulary = content["model"].get("vocab", {})
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
    ids += [token["id"] for token in content.get("added_tokens") or []]
    if not ids:
        raise DataError(f"DataSpec.tokenizer = {name!r}: not a tokenizer.json: its vocabulary is empty")
    return ids
