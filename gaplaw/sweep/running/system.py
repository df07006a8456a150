"""Can a sweep run on this system? Linux and macOS; elsewhere the rest of the package works, and `run` says so in one
line.
"""

from __future__ import annotations

import importlib.util
import sys

from gaplaw.errors import SweepError


def refuse_system() -> None:
    """Raises: SweepError where the means by which runs share machines are missing, as on Windows."""
    if importlib.util.find_spec("fcntl") is None:
        raise SweepError(
            f"gaplaw run needs Linux or macOS (this system, {sys.platform}, has no module fcntl; on Windows use WSL); "
            "fit, choose, report, plan, status and read work here"
        )
