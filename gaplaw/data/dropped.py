"""Which characters of a text does a tokenizer drop? Those that its symbols do not hold, and those that become the
unknown symbol.

A tokenizer without byte fallback knows the characters of its own corpus only; others vanish, or become one symbol for
all.
White space is not counted: many tokenizers cut at it and forget it.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np

# What changes or cuts a text without losing a character of it.
_LOSES_NOTHING = {
    *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "ByteLevel", "Metaspace", "Split", "Digits"),
    *("Sequence", "ByteFallback"),
}
_SPACE = "▁"  # how SentencePiece writes a space


class DroppedCharacters:
    """Counts for one tokenizer, its engine and the fields of its tokenizer.json; `possible` is False if it encodes any
    text.

    A model that merges (BPE) starts from single characters or bytes, so it drops a character wherever it stands: each
    is looked up once. Others look at whole words: `by_place` says that encodings are needed, to see what each symbol
    covers.
    """

    def __init__(self, engine, fields: dict):
        model = fields["model"]
        vocabulary = model.get("vocab") or {}
        listed = isinstance(vocabulary, list)  # a unigram model: pairs of symbol and score
        self._engine = engine
        self._known = {entry[0]: number for number, entry in enumerate(vocabulary)} if listed else vocabulary
        self._unknown = model.get("unk_id") if listed else self._known.get(model.get("unk_token"))
        self._prefix = model.get("continuing_subword_prefix") or ""
        steps = [*_steps(fields.get("normalizer")), *_steps(fields.get("pre_tokenizer"))]
        self._by_bytes = any(step["type"] == "ByteLevel" for step in steps)
        self._falls_back = model.get("byte_fallback") and all(f"<0x{byte:02X}>" in self._known for byte in range(256))
        all_bytes = self._by_bytes and all(symbol in self._known for symbol in _BYTE_LEVEL)
        merges = "merges" in model
        complete = (listed or merges) and not self._prefix and (all_bytes or self._falls_back)
        self.possible = not (complete and all(map(_loses_nothing, steps)))
        self.by_place = self.possible and not merges
        self._is_dropped = lru_cache(maxsize=None)(self._is_dropped)

    def of(self, text: str, encoding) -> Counter[str]:
        """The characters dropped from one text. encoding: what `tokenizers` made of it, with offsets if `by_place`."""
        if not self.by_place:
            return Counter({c: count for c, count in Counter(text).items() if not c.isspace() and self._is_dropped(c)})
        spans = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        if self._unknown is not None:
            spans = spans[np.asarray(encoding.ids) != self._unknown]
        change = np.bincount(spans[:, 0], minlength=len(text) + 1) - np.bincount(spans[:, 1], minlength=len(text) + 1)
        uncovered = np.flatnonzero(np.cumsum(change)[: len(text)] == 0).tolist()
        return Counter(text[place] for place in uncovered if not text[place].isspace())

    def _is_dropped(self, character: str) -> bool:
        normalizer = self._engine.normalizer
        parts = (normalizer.normalize_str(character) if normalizer else character).replace(_SPACE, "")
        if self._by_bytes:
            parts = [_BYTE_LEVEL[byte] for byte in parts.encode()]
        known = all(self._falls_back or part in self._known or self._prefix + part in self._known for part in parts)
        if not parts or not known:
            return character != _SPACE
        return not self._engine.encode(character, add_special_tokens=False).ids  # removed before it was cut in parts


def _steps(step: dict | None) -> list[dict]:
    """A normalizer or pre-tokenizer with all its parts."""
    if not step:
        return []
    parts = step.get("normalizers") or step.get("pretokenizers") or []
    return [step, *(inner for part in parts for inner in _steps(part))]


def _loses_nothing(step: dict) -> bool:
    removes = step.get("behavior") == "Removed" or (step["type"] == "Replace" and not step.get("content"))
    return step["type"] in _LOSES_NOTHING and not removes


def _byte_level() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary, as in GPT-2."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_BYTE_LEVEL = _byte_level()
