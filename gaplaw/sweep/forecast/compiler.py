"""Who compiles programs ahead of time, and who remembers the answers? One process with JAX, asked by a process without.

Answers are kept by content in the cache folder: the program, the target, the execution, the versions of JAX and of the
compiler and this package's own code; the second plan of an experiment asks nobody.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import gaplaw
from gaplaw.canonical import short_hash, to_dict
from gaplaw.errors import SweepError
from gaplaw.files import read_json, write_json
from gaplaw.packages import install_with
from gaplaw.spec import Execution, Group
from gaplaw.sweep.engines.engine import how_it_ended
from gaplaw.sweep.forecast.targets import Target
from gaplaw.sweep.rehearse.shrink import program_key

_HOME = Path(gaplaw.__file__).parent
GPU_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")  # packages that hold XLA's GPU compiler


class Compiler:
    """Answers of `gaplaw.sweep.forecast.compile_worker` for one target. Use it as a context: the process ends with it.

    Raises: SweepError when JAX, or libtpu for a TPU target, is not installed, naming the extra.
    """

    def __init__(self, target: Target):
        self.target = target
        self.process: subprocess.Popen | None = None
        self.platform, self.package = target.chip.kind, None
        if self.platform == "tpu":
            self.package = "libtpu"
        elif self.platform == "gpu":
            self.package = next(filter(find_spec, GPU_PLUGINS), None)
            self.platform = "gpu" if self.package else "cpu"  # virtual devices stand in
        for package, extra in (("jax", "train"), (self.package, "tpu")):
            if package and find_spec(package) is None:
                raise SweepError(f"--target {target.name}: needs {package}; {install_with(extra)}")
        self.folder = Path(os.environ.get("GAPLAW_CACHE") or Path.home() / ".cache" / "gaplaw") / "forecasts"

    def __enter__(self) -> Compiler:
        return self

    def __exit__(self, *_) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.kill()  # it holds nothing
            self.process.wait()

    def known(self, group: Group, execution: Execution) -> dict | None:
        """An answer that needs no compilation."""
        return read_json(self._place(group, execution))

    def ask(self, group: Group, execution: Execution) -> dict:
        """See `gaplaw.sweep.forecast.compile_worker.answer`. An answer that is an error is not remembered."""
        if found := self.known(group, execution):
            return found
        task = {
            "cells": [to_dict(cell) for cell in group.cells],
            "execution": to_dict(execution),
            "platform": self.platform,
            "package": self.package,
            "target": self.target.name,
            "chips": self.target.chips,
            "memory_bytes": self.target.chip.memory_bytes,
            "memory_bytes_per_second": self.target.chip.memory_bytes_per_second,
        }
        given = self._send(task)
        if "error" not in given:
            write_json(self._place(group, execution), given)
        return given

    def _send(self, task: dict) -> dict:
        if self.process is None:
            self.noise = tempfile.TemporaryFile()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gaplaw.sweep.forecast.compile_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.noise,  # libtpu's warnings about the chips that are not here
                text=True,
                env=self._environment(),
                start_new_session=True,
            )
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        ended, self.process = how_it_ended(self.process.wait()), None
        self.noise.seek(0)
        last = self.noise.read().decode(errors="replace").strip().splitlines()[-1:]
        return {"error": f"while compiling, {ended}; {' '.join(last)[:200] or 'it said nothing'}"}

    def _environment(self) -> dict[str, str]:
        paths = [str(_HOME.parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",  # no metadata server knows a slice that does not exist
            # A third of the compile time or less; see `compiler` in gaplaw.sweep.forecast.compile_worker for what the
            # answers say about it.
            "JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1.0",
            "JAX_NUM_CPU_DEVICES": str(self.target.chips if self.platform == "cpu" else 1),
        }

    def _place(self, group: Group, execution: Execution) -> Path:
        versions = [(name, metadata.version(name)) for name in ("jax", "jaxlib", self.package) if name]
        key = [program_key(group), to_dict(execution), self.target.name, versions, _code()]
        return self.folder / f"{short_hash(key)}.json"


def _code() -> str:
    """A hash of the files that a program is made from."""
    parts = sorted(p for part in ("models", "distill", "train") for p in (_HOME / part).glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()[:12]
