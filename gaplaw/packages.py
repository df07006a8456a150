"""Which packages does a command need beyond the light half, and how are missing ones installed? Said before it begins.

gaplaw is used from a clone: its extras (see setup.cfg) are installed from there, never from a package index.
"""

from __future__ import annotations

import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from gaplaw.errors import SweepError

# Modules by the names of their packages: what trains, and what prepares data. Together they are the extra `train`.
TRAINING = {"jax": "jax", "flax": "flax", "optax": "optax", "orbax-checkpoint": "orbax.checkpoint"}
DATA = {
    "tensorflow-datasets": "tensorflow_datasets",
    "array_record": "array_record",
    "importlib_resources": "importlib_resources",
    "tokenizers": "tokenizers",
    "filelock": "filelock",
}


class Later:
    """A module that is imported when something of it is first used: for heavy ones that many commands do not need."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, what: str) -> object:
        return getattr(import_module(self._name), what)


def refuse_without(command: str, packages: dict[str, str]) -> None:
    """Raises: SweepError naming which of these packages (of the extra `train`) are missing, and how to install them."""
    if absent := missing(packages):
        raise SweepError(f"{command}: needs {', '.join(absent)}; {install_with('train')}")


def missing(packages: dict[str, str]) -> list[str]:
    """Which of these packages are not installed."""
    return [package for package, module in packages.items() if not _is_here(module)]


def install_with(extra: str) -> str:
    """How to install an extra, for the end of a message: "install with: pip install -e '.[train]'"."""
    home = Path(__file__).resolve().parents[1]
    cloned = (home / "setup.cfg").is_file()
    what = shlex.quote(f"{home if cloned else '.'}[{extra}]")
    return f"install with: pip install -e {what}" + ("" if cloned else " in a clone of gaplaw")


def _is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def shipped_experiments() -> Path:
    """The folder of the experiments that come with gaplaw: inside the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"
