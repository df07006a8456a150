"""The verbs that deal with experiments: plan, run, status. JAX is imported only by the processes that `run` starts."""

from __future__ import annotations

import contextlib
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from gaplaw.cli.execution_options import NO_OPTIONS, ExecutionOptions, load_with_options
from gaplaw.cli.options import (
    Experiment,
    Flag,
    Folder,
    Number,
    OutFolder,
    Size,
    named,
    print_json,
    print_wide,
    size,
)
from gaplaw.errors import SpecError
from gaplaw.packages import DATA, TRAINING, refuse_without
from gaplaw.spec import HostsSpec
from gaplaw.sweep.engines.ray import RayExecutor
from gaplaw.sweep.engines.slurm import SlurmExecutor


def plan(
    experiment: Experiment,
    /,
    out: OutFolder = None,
    json: Flag = False,
    target: Annotated[str | None, named("TARGET")] = None,
    price_per_chip_hour: Number = None,
    execution: ExecutionOptions = NO_OPTIONS,
) -> int:
    """Print every cell of an experiment with parameters, FLOPs, an estimate of time and disk. Trains nothing.

    Example: gaplaw plan quickstart

    Example: gaplaw plan minima_3b --target v5p:4x4x8 --price-per-chip-hour 2.5

    With --target every distinct program is compiled for a machine that need not be here: memory against the chip's,
    what bounds its speed, device-hours, and the smallest change for what does not fit. A mesh of one device then stands
    for all chips.

    Args:
        experiment: a Python file that builds a Sweep, or the bare name of one in experiments/. It is code that is run:
            give only files that you trust.
        out: the run folder whose finished cells are marked (runs/NAME if not given); with --target, where the forecast
            is kept for the report, if given.
        json: print one JSON list instead, one object per cell.
        target: cpu, v5e:4x4, v5p:4x4x8, v6e:16x16, gpu:h100x8 or another shape of these.
        price_per_chip_hour: in the currency of your choice; no price is built in.
    """
    from gaplaw import data, sweep
    from gaplaw.law.data_flags import flags_of_text, sweep_warnings
    from gaplaw.sweep.folder.object_store import folder_at
    from gaplaw.sweep.planning.checks import check_sweep
    from gaplaw.sweep.planning.load import home_of

    if target is not None:
        refuse_without("plan --target", TRAINING)
    absent: list[str] = []
    found, execution = load_with_options(experiment, execution)
    found = sweep.resolve(found, absent=absent, home=home_of(experiment))
    folder = folder_at(_out(out, found.name))
    folder.refresh(now=True)
    here = target is None and not absent
    corpora = check_sweep(found, execution, folder, corpus_of=data.counted, on_this_machine=here)
    corpora |= {
        spec: data.counted(spec) for spec in {cell.data for cell in found.cells} - set(corpora)
    }  # of finished cells
    made = sweep.plan(found, execution, folder, corpora)
    doubts = flags_of_text(made.training_epochs, made.validation_tokens, models=len(made.cells))
    warnings = [*sweep_warnings(found), *(flag.message for flag in doubts)]
    if target is not None:
        from gaplaw.cli.forecasting import forecast_with_progress

        made = forecast_with_progress(made, found, execution, target, price_per_chip_hour)
        if out is not None:
            made.write(folder)
    for line in warnings:
        print(f"gaplaw: warning: {line}", file=sys.stderr)
    for line in absent:
        print(f"gaplaw: not on this machine, so cells have provisional identities: {line}", file=sys.stderr)
    if json:
        print_json(made.to_rows())
        return 0
    print_wide(made.table())
    for line in made.totals():
        print(line)
    return 0


def run(
    experiment: Experiment,
    /,
    out: OutFolder = None,
    json: Flag = False,
    adaptive: Flag = False,
    target: Size = None,
    target_tokens: Size = None,
    tolerance: Annotated[float, arg(metavar="NATS")] = 0.002,
    budget_flops: Number = None,
    remove_junk: Flag = False,
    execution: ExecutionOptions = NO_OPTIONS,
    executor: Literal["local", "ray", "slurm"] = "local",
    ray: RayExecutor = RayExecutor(),  # noqa: B008 (frozen)
    slurm: SlurmExecutor = SlurmExecutor(),  # noqa: B008 (frozen)
) -> int:
    """Run what an experiment still lacks in a folder; finished cells are kept, failed ones tried again.

    Example: gaplaw run quickstart --out runs/quickstart --workers 2

    Example: gaplaw run quickstart --adaptive --target 10k --tolerance 0.005

    Example: gaplaw run quickstart --executor ray --workers 16 --ray.cpus 2

    Example, four nodes of eight GPUs for each group: gaplaw run quickstart --executor ray --ray.accelerator gpu
    --mesh.fsdp 32
    --hosts.processes 4

    Example, the same on every host of a pod: gaplaw run quickstart --out SHARED/quickstart --workers 1 --hosts.launch
      everywhere
    --hosts.processes 4 --mesh.data 4 --mesh.fsdp 4

    May be stopped at any moment and started again, also several times at once on machines that share the folder. Ends
    with 1
    when cells failed: their rows say why.

    Args:
        experiment: a Python file that builds a Sweep, or the bare name of one in experiments/. It is code that is run:
            give only files that you trust.
        out: the run folder (runs/NAME if not given).
        json: print the summary as one JSON object.
        adaptive: run a coarse part of the grid first, then only the cells that help to choose a teacher for --target.
        target: under --adaptive, parameters of the student that the choice is for.
        target_tokens: under --adaptive, the tokens that it will train on.
        tolerance: under --adaptive, the expected regret at the target at which to stop.
        budget_flops: under --adaptive, FLOPs that may be spent (the whole grid's, if not given).
        remove_junk: remove what stands in the place of a claim and is none, such as a file that was left there.
        executor: where groups run: processes on this machine, tasks of a Ray cluster, or batch jobs.
    """
    from gaplaw import sweep
    from gaplaw.law.data_flags import sweep_warnings
    from gaplaw.sweep.engines.local import LocalExecutor
    from gaplaw.sweep.folder.object_store import folder_at
    from gaplaw.sweep.planning.load import home_of

    if adaptive and target is None:
        raise SpecError("--adaptive: needs --target SIZE, the student that the choice is for")
    trains_here = executor == "local"  # engines train elsewhere; data are prepared here in any case
    refuse_without("run", TRAINING | DATA if trains_here else DATA)
    wanted, wanted_tokens = size(target, "--target"), size(target_tokens, "--target-tokens")
    found, execution = load_with_options(experiment, execution)
    found = sweep.resolve(found, home=home_of(experiment))
    place, summaries = folder_at(_out(out, found.name)), []
    engine = {"local": LocalExecutor(), "ray": ray, "slurm": slurm}[executor]
    _refuse_hosts(execution.hosts, executor)

    def run_part(some) -> None:
        doubts = [] if adaptive else sweep_warnings(some)
        done = sweep.run(some, place, execution, executor=engine, remove_junk=remove_junk, warnings=doubts)
        summaries.append(done)

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers are stopped on the way out
    ending = contextlib.ExitStack()
    try:
        if execution.hosts.launch == "everywhere":
            from gaplaw.sweep.engines.pod import joined

            engine = ending.enter_context(joined(place, execution))
            if engine is None:
                print(
                    f"the sweep has ended; this host followed another, which has the summary of {place.name}",
                    file=sys.stderr,
                )
                return 0
        if adaptive:
            from gaplaw.cli.adaptive import run_adaptive

            told = run_adaptive(
                found,
                place.out,
                run_part,
                target_student_params=wanted,
                target_student_tokens=wanted_tokens,
                tolerance_nats=tolerance,
                budget_flops=budget_flops,
            )
            lines = [
                f"{len(told.measured)} of {len(found.students)} student cells run, {told.rounds} rounds",
                told.statement,
            ]
            extra = {"rounds": told.rounds, "student_flops": told.flops, "statement": told.statement}
            extra["expected_regret_nats"] = told.expected_regret_nats
        else:
            run_part(found)
            lines, extra = [], {}
    finally:
        ending.close()
        signal.signal(signal.SIGTERM, before)
    summary = summaries[-1]
    if json:
        print_json(asdict(summary) | extra)
    else:
        print("\n".join([*summary.lines(), *lines]))
    return 1 if summary.done < summary.cells else 0


def status(folder: Folder, /, json: Flag = False) -> int:
    """Say where a sweep stands, from the files in its folder alone: also while it runs, also on another machine.

    Example: gaplaw status runs/quickstart

    Args:
        folder: what `gaplaw run --out` wrote.
        json: print one JSON object.
    """
    from gaplaw.sweep.running.status import status_of

    found = status_of(folder)
    if json:
        print_json(asdict(found))
    else:
        print(found.text())
    return 0


def compact(folder: Folder, /, json: Flag = False) -> int:
    """Put the rows of all finished cells into one file a table; a folder of thousands of files is then one of a few.

    Example: gaplaw compact runs/quickstart

    All verbs read the folder as before, and a run goes on where it was. Failed cells keep their own files.

    Args:
        folder: what `gaplaw run --out` wrote; not on an object store.
        json: print one JSON object.
    """
    from gaplaw.sweep.folder.compact import compact as compact_folder

    made = compact_folder(folder)
    if json:
        print_json(asdict(made))
    else:
        print(f"{made.folder}: {made.cells} finished cells in one file a table, {made.files_removed} files removed")
    return 0


def _refuse_hosts(hosts: HostsSpec, executor: str) -> None:
    if hosts.processes > 1 and executor == "slurm":
        raise SpecError(
            f"--hosts.processes {hosts.processes}: not under --executor slurm; start the same gaplaw run on every "
            "host instead, "
            "with srun, --executor local and --hosts.launch everywhere"
        )
    if hosts.launch == "everywhere" and executor == "ray":
        raise SpecError("--hosts.launch everywhere: not under --executor ray, which starts a group's processes itself")


def _out(out: str | None, name: str) -> str:
    return out or str(Path("runs") / name)
