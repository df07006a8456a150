"""How does a forecast look while it is made? A progress bar on standard error, or a line for each program; compilations
take seconds to minutes each."""

from __future__ import annotations

from gaplaw.spec import Execution, Sweep
from gaplaw.sweep.forecast.forecast import Forecast, forecast
from gaplaw.sweep.forecast.targets import target
from gaplaw.sweep.planning.plan import Plan


def forecast_with_progress(
    plan: Plan, sweep: Sweep, execution: Execution, name: str, price_per_chip_hour: float | None
) -> Forecast:
    """`gaplaw.sweep.forecast.forecast` for the target of that name, showing which program is being compiled."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("compiling"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    where = target(name, single_thread=execution.single_thread)
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)
            if what and not console.is_terminal:
                console.print(f"compiling {done + 1}/{total}: {what}", soft_wrap=True)

        return forecast(plan, sweep, execution, where, price_per_chip_hour, tell)
