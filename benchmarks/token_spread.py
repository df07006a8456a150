"""How widely does the loss of one token spread about its mean, and how alike are the tokens of one window?

    python benchmarks/token_spread.py

Interpolated n-gram models of bytes, trained on 7 MB of the Python library and measured on the next MB.
`gaplaw.law.data_flags` takes from it how many held-out tokens a mean loss needs: its standard error is (the last
column) × loss / sqrt(tokens).
"""

import sysconfig
from pathlib import Path

import numpy as np

TRAINING_BYTES, HELD_OUT_BYTES = 7_000_000, 1_000_000
LONGEST, WINDOW_TOKENS, PRIOR = 4, 64, 5.0


def text() -> np.ndarray:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts]
    np.random.default_rng(0).shuffle(files)
    return np.frombuffer(b"".join(path.read_bytes() for path in files), np.uint8).astype(np.int64)


def grams(symbols: np.ndarray, context: int) -> np.ndarray:
    """Each symbol with its context as one whole number."""
    found = np.zeros(len(symbols) - context, np.int64)
    for place in range(context + 1):
        found = found * 256 + symbols[place : len(symbols) - context + place]
    return found


def counts(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    values, times = np.unique(known, return_counts=True)
    place = np.minimum(np.searchsorted(values, asked), len(values) - 1)
    return np.where(values[place] == asked, times[place], 0)


def main() -> None:
    symbols = text()[: TRAINING_BYTES + HELD_OUT_BYTES]
    training, held_out = symbols[:TRAINING_BYTES], symbols[TRAINING_BYTES:]
    probability = np.full(len(held_out) - LONGEST, 1 / 256)
    print("context  mean loss, nats  spread of a token / mean  spread of a window × sqrt(tokens) / mean")
    for context in range(LONGEST + 1):
        known, asked = grams(training, context), grams(held_out, context)[LONGEST - context :]
        seen, before = counts(known, asked), counts(known // 256, asked // 256)
        probability = (seen + probability * PRIOR) / (before + PRIOR)
        loss = -np.log(probability)
        windows = loss[: len(loss) // WINDOW_TOKENS * WINDOW_TOKENS].reshape(-1, WINDOW_TOKENS).mean(1)
        alike = windows.std() * WINDOW_TOKENS**0.5 / loss.mean()
        print(f"{context:7d}  {loss.mean():15.3f}  {loss.std() / loss.mean():24.2f}  {alike:40.2f}")


if __name__ == "__main__":
    main()
