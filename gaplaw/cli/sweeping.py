"""The verbs that deal with experiments: plan, run, status. JAX is imported only by the processes that `run` starts."""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from pathlib import Path

from gaplaw.cli.options import Experiment, Flag, Folder, HowToRun, OutFolder, print_json
from gaplaw.execution import Execution


def plan(
    experiment: Experiment,
    /,
    out: OutFolder = None,
    json: Flag = False,
    execution: HowToRun = Execution(),  # noqa: B008 (frozen)
) -> int:
    """Print every cell of an experiment with parameters, FLOPs, an estimate of time and disk. Trains nothing.

    Example: gaplaw plan quickstart

    Args:
        experiment: a Python file that builds a Sweep, or the bare name of one in experiments/.
        out: the run folder whose finished cells are marked (runs/NAME if not given).
        json: print one JSON list instead, one object per cell.
    """
    from rich.console import Console
    from rich.measure import Measurement

    from gaplaw import sweep
    from gaplaw.sweep.folder import RunFolder

    found = sweep.resolve(sweep.load_experiment(experiment))
    made = sweep.plan(found, execution, RunFolder(_out(out, found.name)))
    if json:
        print_json(made.to_rows())
        return 0
    table, console = made.table(), Console()
    wide = Measurement.get(console, console.options.update(max_width=500), table).maximum
    Console(width=max(console.width, wide)).print(table)  # long lines in a narrow window are better than lost digits
    for line in made.totals():
        print(line)
    return 0


def run(
    experiment: Experiment,
    /,
    out: OutFolder = None,
    json: Flag = False,
    execution: HowToRun = Execution(),  # noqa: B008 (frozen)
) -> int:
    """Run what an experiment still lacks in a folder; finished cells are kept, failed ones tried again.

    Example: gaplaw run quickstart --out runs/quickstart --workers 2

    May be stopped at any moment and started again, also several times at once on machines that share the folder. Ends with 1
    when cells failed: their rows say why.

    Args:
        experiment: a Python file that builds a Sweep, or the bare name of one in experiments/.
        out: the run folder (runs/NAME if not given).
        json: print the summary as one JSON object.
    """
    from gaplaw import sweep

    found = sweep.resolve(sweep.load_experiment(experiment))
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers are stopped on the way out
    try:
        summary = sweep.run(found, _out(out, found.name), execution)
    finally:
        signal.signal(signal.SIGTERM, before)
    if json:
        print_json(asdict(summary))
    else:
        for line in summary.lines():
            print(line)
    return 1 if summary.failed else 0


def status(folder: Folder, /, json: Flag = False) -> int:
    """Say where a sweep stands, from the files in its folder alone: also while it runs, also on another machine.

    Example: gaplaw status runs/quickstart

    Args:
        folder: what `gaplaw run --out` wrote.
        json: print one JSON object.
    """
    from gaplaw.sweep.status import status_of

    found = status_of(folder)
    if json:
        print_json(asdict(found))
    else:
        print(found.text())
    return 0


def _out(out: Path | None, name: str) -> Path:
    return out or Path("runs") / name
