"""A corpus small enough for tests: a seeded first-order Markov source over a few symbols, with a known entropy rate."""

from __future__ import annotations

import dataclasses

import numpy as np

from gaplaw.spec import DataSpec, Execution, ModelSpec, ObjectiveSpec, Sweep, TrainSpec

VOCAB, LENGTH = 16, 8
EXECUTION = Execution(workers=1, chunk_tokens=256, steps_per_dispatch=5, evaluations=2)


@dataclasses.dataclass(frozen=True)
class Validation:
    tokens_NxL1: np.ndarray
    domain_N: np.ndarray
    domains: tuple[str, ...]


class MarkovCorpus:
    """The interface of gaplaw.data.Corpus over random text; a sequence is a function of (seed, its number) only."""

    tokenizer_hash = "markov"

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.moves = np.cumsum(rng.dirichlet(np.full(VOCAB, 0.2), size=VOCAB), axis=1)
        self.held = Validation(self.walk(rng, 50), rng.integers(0, 2, 50).astype(np.int32), ("even", "odd"))

    def walk(self, rng, rows):
        tokens = np.zeros((rows, LENGTH + 1), np.int32)
        tokens[:, 0] = rng.integers(0, VOCAB, rows)
        for at in range(LENGTH):
            draws = rng.random(rows)[:, None]
            tokens[:, at + 1] = np.minimum((self.moves[tokens[:, at]] < draws).sum(axis=1), VOCAB - 1)
        return tokens

    def batch(self, split, batch_sequences, seed, steps, rows=slice(None)):
        numbers = np.asarray(steps)[:, None] * batch_sequences + np.arange(batch_sequences)[rows]
        walks = [self.walk(np.random.default_rng((seed, number)), 1) for number in numbers.reshape(-1).tolist()]
        return np.stack(walks).reshape(*numbers.shape, LENGTH + 1)

    def windows_per_epoch(self, split):
        return 2**40  # no text comes twice

    def validation(self):
        return self.held


def model(width=8, depth=1, **fields):
    shape = dict(vocab_size=VOCAB, width=width, depth=depth, heads=2, head_size=4, hidden=2 * width, max_length=LENGTH)
    return ModelSpec(**shape | fields)


def sweep(**fields) -> Sweep:
    """Two teachers, two student shapes, two seeds: seconds to run."""
    recipe = TrainSpec(tokens=12 * 16 * LENGTH, batch_sequences=16, learning_rate=1e-2)
    grid = dict(
        name="toy",
        question="does it run?",
        data=DataSpec(sequence_tokens=LENGTH),
        teachers=[model(16), model(24, 2)],
        students=[model(8), model(12)],
        teacher_train=recipe,
        student_train=recipe,
        objective=ObjectiveSpec(soft_weight=0.5),
        seeds=(0, 1),
    )
    return Sweep.grid(**grid | fields)
