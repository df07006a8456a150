"""The verb that tries a sweep's programs before a machine is booked. JAX is imported only by the processes that it
starts.
"""

from __future__ import annotations

import sys
from dataclasses import asdict

from gaplaw.cli.execution_options import NO_OPTIONS, ExecutionOptions, load_with_options
from gaplaw.cli.options import Experiment, Flag, print_json
from gaplaw.packages import DATA, TRAINING, refuse_without


def rehearse(
    experiment: Experiment,
    /,
    processes: int = 4,
    devices: int = 8,
    json: Flag = False,
    execution: ExecutionOptions = NO_OPTIONS,
) -> int:
    """Run two steps of every distinct program of an experiment here, in real processes on virtual CPU devices.

    Example: gaplaw rehearse quickstart --processes 4 --devices 8 --mesh.data 64 --mesh.fsdp 4

    Give the execution options of the real run. Groups that differ in seeds, sizes and other numbers only are one
    program. The mesh is shrunk axis by axis, models above 4M parameters are scaled down, and batches are small. Of the
    experiment's own data the start is read; where they are not on this machine, the embedded corpus. Then each program
    is compiled, trained, checkpointed, killed on purpose, resumed, and its rows are written.
    Ends with 1 when something failed. Says nothing of memory and speed: `gaplaw plan` does.

    Args:
        experiment: a Python file that builds a Sweep, or the bare name of one in experiments/. It is code that is run:
            give only files that you trust.
        processes: processes that stand for hosts, at most; each gets an equal share of the devices.
        devices: virtual CPU devices in all, at most.
        json: print one JSON list, one object per program.
    """
    from gaplaw.sweep.planning.load import home_of
    from gaplaw.sweep.rehearse.rehearsal import rehearse

    refuse_without("rehearse", TRAINING | DATA)
    found = rehearse(
        *load_with_options(experiment, execution),
        processes=processes,
        devices=devices,
        tell=lambda line: print(line, file=sys.stderr),
        home=home_of(experiment),
    )
    if json:
        print_json([asdict(one) for one in found])
    else:
        print("\n".join(one.line() for one in found))
        failed = sum(not one.passed for one in found)
        print(f"{len(found) - failed} of {len(found)} programs rehearsed without fault")
    return int(any(not one.passed for one in found))
