"""Which characters of a text does a tokenizer drop? Those that no symbol covers, and those covered by the unknown symbol.

A tokenizer without byte fallback knows the characters of its own corpus only; others vanish, or become one symbol for all.
White space is not counted: many tokenizers cut at it and forget it.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

# What changes or cuts a text without losing a character of it.
_LOSES_NOTHING = {
    *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "ByteLevel", "Metaspace", "Split", "Digits"),
    *("Sequence", "ByteFallback"),
}


class DroppedCharacters:
    """Counts for one tokenizer, from the fields of its tokenizer.json; `possible` is False if it can encode any text."""

    def __init__(self, fields: dict):
        model = fields["model"]
        vocabulary = model.get("vocab") or {}
        listed = isinstance(vocabulary, list)  # a unigram model: pairs of symbol and score
        known = {entry[0]: number for number, entry in enumerate(vocabulary)} if listed else vocabulary
        steps = [*_steps(fields.get("normalizer")), *_steps(fields.get("pre_tokenizer"))]
        by_bytes = any(step["type"] == "ByteLevel" for step in steps)
        self.unknown = model.get("unk_id") if listed else known.get(model.get("unk_token"))
        self.bytes_missing = (
            {byte for byte, symbol in _byte_level().items() if symbol not in known} if by_bytes else set()
        )
        falls_back = model.get("byte_fallback") and all(f"<0x{byte:02X}>" in known for byte in range(256))
        of_parts = (listed or "merges" in model) and not model.get("continuing_subword_prefix")  # not whole words
        complete = of_parts and ((by_bytes and not self.bytes_missing) or falls_back)
        self.possible = not (complete and all(map(_loses_nothing, steps)))

    def of(self, text: str, encoding) -> Counter[str]:
        """The characters dropped from one text. encoding: what `tokenizers` made of it, with offsets."""
        spans = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        if self.unknown is not None:
            spans = spans[np.asarray(encoding.ids) != self.unknown]
        change = np.bincount(spans[:, 0], minlength=len(text) + 1) - np.bincount(spans[:, 1], minlength=len(text) + 1)
        uncovered = np.flatnonzero(np.cumsum(change)[: len(text)] == 0).tolist()
        found = Counter(text[place] for place in uncovered if not text[place].isspace())
        if self.bytes_missing:
            counts = Counter(text)
            found |= {c: n for c, n in counts.items() if not c.isspace() and self.bytes_missing & set(c.encode())}
        return found


def _steps(step: dict | None) -> list[dict]:
    """A normalizer or pre-tokenizer with all its parts."""
    if not step:
        return []
    parts = step.get("normalizers") or step.get("pretokenizers") or []
    return [step, *(inner for part in parts for inner in _steps(part))]


def _loses_nothing(step: dict) -> bool:
    removes = step.get("behavior") == "Removed" or (step["type"] == "Replace" and not step.get("content"))
    return step["type"] in _LOSES_NOTHING and not removes


def _byte_level() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level vocabulary (as in GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
