"""Shared test set-up: a private data cache, virtual CPU devices, and the outside data that some tests read when it is
there.
"""

import os
import signal
import tempfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

_cache = os.environ.get("GAPLAW_CACHE")
_private = tempfile.mkdtemp(prefix="gaplaw-tests-")
os.environ["GAPLAW_CACHE"] = _private
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")  # virtual devices, so that sharding is tested on any machine
# The suite runs in several processes: a fit of small matrices is slower with threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Less optimisation of code that runs for milliseconds, and compiled programs shared with later runs: most of the
# suite's time is compilation.
_flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if Version(metadata.version("jaxlib")) < Version("0.12"):  # the older emitters compile in half the time; gone later
    _flags += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _flags)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(_cache or _private) / "xla-tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a suite started in the background has it ignored, and its children

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of outside tables kept beside the project; tests that need it skip without it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no outside data beside the project")
    return folder


def pytest_collection_modifyitems(items):
    """Files whose tests take long come first, so that no worker is left with one of them at the end."""
    long = (
        "tests/sweep/running/",
        "tests/train/",
        "tests/sweep/forecast/",
        "tests/test_cli.py",
        "tests/test_notebooks.py",
    )
    items.sort(key=lambda item: not item.nodeid.startswith(long))
