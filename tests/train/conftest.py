"""What the tests of training share: a toy corpus and a teacher trained on it, once a session."""

import pytest

from gaplaw.spec import Group
from gaplaw.train import run_group
from tests import toy


@pytest.fixture(scope="session")
def corpus():
    return toy.MarkovCorpus()


@pytest.fixture(scope="session")
def teacher(corpus):
    cell = toy.sweep().teachers[0]
    (outcome,) = run_group(Group(cells=(cell,)), corpus=corpus, execution=toy.EXECUTION, keep_params=True)
    return outcome
