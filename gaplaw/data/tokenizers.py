"""How does text become symbols? Bytes, a byte-level BPE trained on the corpus, or any Hugging Face tokenizer.json.

A tokenizer encodes many documents at once, counts the characters that its symbols do not hold, and names the symbol
that separates documents. Its identity is a hash of its content. Hugging Face `tokenizers` is imported on first use; the
byte tokenizer needs nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np

from gaplaw.data.dropped import DroppedCharacters
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

    def encode(self, texts: Sequence[str], dropped: Counter[str] | None = None) -> list[np.ndarray]:
        """Each text as symbols, without separators. dropped: gets the characters that the symbols do not hold."""

    def skip_at(self, before: str, after: str) -> int | None:
        """How many characters to leave out where a text is cut, so that the tokens stay; None if no number does."""


def symbol_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned integer that holds every symbol."""
    return np.dtype(np.uint8 if vocab_size <= 2**8 else np.uint16 if vocab_size <= 2**16 else np.uint32)


def vocab_size(tokenizer: str) -> int:
    """The number of symbols of `DataSpec.tokenizer`: 256, N of "bpe:N", or one above the largest id of a
    tokenizer.json.

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
    return max(_symbol_ids(_read_tokenizer_json(rest), f"file:{_absolute(rest)}")) + 1


def tokenizer_identity(tokenizer: str) -> str:
    """What a manifest must know of a tokenizer before it is trained: its name, or for a file the hash of its
    content.
    """
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

    def encode(self, texts: Sequence[str], dropped: Counter[str] | None = None) -> list[np.ndarray]:
        """Each text as uint8 symbols, without separators."""
        if dropped is not None and (count := sum(text.count("\0") for text in texts)):
            dropped["\0"] += count
        return [np.frombuffer(t.replace("\0", "").encode("utf-8", "replace"), np.uint8) for t in texts]

    def skip_at(self, before: str, after: str) -> int:
        return 0


class JsonTokenizer:
    """A Hugging Face tokenizer from the text of its tokenizer.json; text that spells a special token stays plain text.

    Args: separator: the special token that ends a document; if None, the first of `SEPARATORS_KNOWN` that it has.
    Raises: DataError when it cannot be used, or when its separator could come out of a text.
    """

    def __init__(self, content: str, name: str, separator: str | None = None):
        from tokenizers import Tokenizer as Engine

        self.name = name
        try:
            self._engine = Engine.from_str(content)
        except Exception as error:  # the Rust side raises plain Exception
            raise DataError(
                f"DataSpec.tokenizer = {name!r}: not a tokenizer.json: {str(error).splitlines()[0]}"
            ) from error
        self._engine.encode_special_tokens = True
        self._engine.no_truncation()
        self._engine.no_padding()
        fields = json.loads(content)
        self.vocab_size = max(_symbol_ids(fields, name)) + 1
        self.separator = self._separator(separator)
        self.identity = sha256(content.encode()).hexdigest()[:12]
        self.content = content
        self._dropped = DroppedCharacters(self._engine, fields)

    def encode(self, texts: Sequence[str], dropped: Counter[str] | None = None) -> list[np.ndarray]:
        """Each text as symbols, without separators and without the tokens a chat template would add."""
        counts = dropped is not None and self._dropped.possible
        encode = self._engine.encode_batch if counts and self._dropped.by_place else self._engine.encode_batch_fast
        try:
            encoded = encode(list(texts), add_special_tokens=False)
        except Exception as error:  # such as a word-level model whose unknown symbol is not in its vocabulary
            raise DataError(
                f"DataSpec.tokenizer = {self.name!r}: cannot encode this text: {str(error).splitlines()[0]}"
            ) from error
        if counts:
            for text, one in zip(texts, encoded, strict=True):
                dropped.update(self._dropped.of(text, one))
        return [np.asarray(e.ids, dtype=symbol_dtype(self.vocab_size)) for e in encoded]

    def decode(self, symbols: Sequence[int]) -> str:
        return self._engine.decode(list(symbols), skip_special_tokens=False)

    def skip_at(self, before: str, after: str) -> int | None:
        whole, first, *second = (ids.tolist() for ids in self.encode([before + after, before, after, after[1:]]))
        return next((skip for skip, rest in enumerate(second) if first + rest == whole), None)

    def _separator(self, wanted: str | None) -> int:
        """The symbol that ends a document, which no text may spell."""
        special = {token.content: number for number, token in self._engine.get_added_tokens_decoder().items()}
        has = f"{self.name} has {', '.join(sorted(special)) or 'none'}"
        if wanted is not None and wanted not in special:
            raise DataError(f"DataSpec.separator = {wanted!r}: there is no such special token; {has}")
        known = [s for s in SEPARATORS_KNOWN if s in special] if wanted is None else [wanted]
        if not known:
            raise DataError(
                f"DataSpec.tokenizer = {self.name!r}: needs a special token that ends a document: name one as "
                f"DataSpec.separator, or have one of {', '.join(SEPARATORS_KNOWN)}; {has}"
            )
        separator = known[0]
        for text in (separator, f"a {separator} b", f"a{separator}b"):
            if special[separator] in self.encode([text])[0]:
                raise DataError(
                    f"DataSpec.tokenizer = {self.name!r}: a text that spells {separator!r} becomes the symbol that "
                    "ends a "
                    "document; name another special token as DataSpec.separator, or use another tokenizer"
                )
        return special[separator]


def file_tokenizer(path: str, separator: str | None = None) -> JsonTokenizer:
    """The tokenizer in a tokenizer.json file."""
    return _json_tokenizer(_read_bytes(path).decode("utf-8", "replace"), f"file:{_absolute(path)}", separator)


_json_tokenizer = lru_cache(maxsize=2)(JsonTokenizer)


def train_bpe(texts: Iterable[str], symbols: int) -> JsonTokenizer:
    """A byte-level BPE of `symbols` symbols learned from texts; the same texts give the same merges.

    Symbol 0 separates documents, the 256 bytes follow, then merges in the order learned, so any text has an encoding.
    Long texts take much less memory in pieces (`gaplaw.data.pieces`).

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
    engine.train_from_iterator(texts, trainer)
    return JsonTokenizer(engine.to_str(), f"bpe:{symbols}")


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _read_bytes(path: str) -> bytes:
    try:
        return _absolute(path).read_bytes()
    except OSError as error:
        raise DataError(f"DataSpec.tokenizer = 'file:{_absolute(path)}': cannot be read: {error.strerror}") from error


def _read_tokenizer_json(path: str) -> dict:
    refused = f"DataSpec.tokenizer = 'file:{_absolute(path)}': not a tokenizer.json"
    try:
        content = json.loads(_read_bytes(path))
    except RecursionError as error:
        raise DataError(f"{refused}: its JSON is too deep to be read") from error
    except ValueError as error:
        raise DataError(f"{refused}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise DataError(f"{refused}: has no 'model'")
    return content


def _symbol_ids(content: dict, name: str) -> list[int]:
    """Every id in a tokenizer.json: of the model (a mapping, or the list of a unigram model) and of the added
    tokens.
    """
    vocabulary = content["model"].get("vocab") or {}
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
    added = content.get("added_tokens") or []
    ids += [token.get("id") if isinstance(token, dict) else None for token in added]
    if not ids:
        raise DataError(f"DataSpec.tokenizer = {name!r}: not a tokenizer.json: its vocabulary is empty")
    if not all(isinstance(number, int) for number in ids):
        raise DataError(f"DataSpec.tokenizer = {name!r}: not a tokenizer.json: a symbol has no whole number as its id")
    return ids
