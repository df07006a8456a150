"""One resolved tiny sweep for all sweep tests; its corpus is a folder of a few small files."""

import pytest

from gaplaw.sweep import resolve
from tests.sweep.sweeps import texts, tiny_sweep


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> str:
    return f"folder:{texts(tmp_path_factory.mktemp('corpus') / 'texts')}"


@pytest.fixture(scope="session")
def sweep(source):
    return resolve(tiny_sweep(source))
