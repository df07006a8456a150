"""The toy corpus and teacher of the tests of training."""

from tests.train.conftest import corpus, teacher  # noqa: F401
