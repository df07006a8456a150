"""Shared test set-up: a private cache folder, quiet CPU JAX, and the outside data that some tests read when it is there."""

import os
import tempfile
from pathlib import Path

import pytest

os.environ["GAPLAW_CACHE"] = os.environ.get("GAPLAW_TEST_CACHE") or tempfile.mkdtemp(prefix="gaplaw-tests-")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")  # virtual devices, so that sharding is tested on any machine

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of outside tables kept beside the project; tests that need it skip without it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no outside data beside the project")
    return folder
