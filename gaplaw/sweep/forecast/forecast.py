"""Does a sweep fit a machine that is not here, and what will it cost there? One row per cell; compiled, not run.

The reading order is targets → compiler → roofline → ladder → this file, which puts their answers together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from rich.table import Table

from gaplaw.packages import install_with
from gaplaw.spec import Execution, Group, MeshSpec, Sweep
from gaplaw.spec.sizes import size_name
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.forecast.changes_that_fit import change_that_fits
from gaplaw.sweep.forecast.compiler import Compiler
from gaplaw.sweep.forecast.roofline import Program, roofline
from gaplaw.sweep.forecast.targets import Target, fitted_to_all
from gaplaw.sweep.planning.make_plan import write_forecast
from gaplaw.sweep.planning.plan import FINISHED, Plan, amount, duration
from gaplaw.sweep.rehearse.shrink import program_key

_ON_TRUST = {
    "tpu": "a roofline is the least time; real kernels take longer. Compiled without a TPU, and not run on one",
    "gpu": "a roofline is the least time; real kernels take longer. Compiled without a GPU, its kernels not chosen "
    "by timing",
    "stand-in": "no GPU compiler here ({install}): the same sharded program compiled for virtual CPU devices "
    "stands in for its memory and traffic",
    "cpu": "times of the table are rooflines; device-hours and the total use rates measured here, as gaplaw plan "
    "without --target",
}


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A plan with a program for every group. platform: whose compiler was asked. price_per_chip_hour: None when nobody
    said.
    """

    plan: Plan
    target: Target
    platform: str
    mesh: MeshSpec
    programs: dict[str, Program]
    price_per_chip_hour: float | None

    def seconds(self, cell) -> float:
        """A planned cell's share of its group's time: measured rates on this machine, the roofline elsewhere."""
        if self.target.chip.kind == "cpu" and cell.estimated_seconds is not None:
            return cell.estimated_seconds
        return self.programs[cell.group_id].roofline_seconds / self._members(cell)

    def _members(self, cell) -> int:
        return sum(other.group_id == cell.group_id for other in self.plan.cells)

    def to_rows(self) -> list[dict]:
        """One plain object per cell: the plan's columns and the forecast's. Costs are a cell's share of its group's."""
        rows = []
        for cell in self.plan.cells:
            program, members = self.programs[cell.group_id], self._members(cell)
            hours = self.seconds(cell) * self.target.chips / 3600
            rows.append(
                asdict(cell)
                | {
                    "estimated_seconds": self.seconds(cell),
                    "target": self.target.name,
                    "chips": self.target.chips,
                    "mesh": asdict(self.mesh),
                    "compiler": program.compiler,
                    "bytes_per_chip": program.bytes_per_chip,
                    "evaluation_bytes_per_chip": program.evaluation_bytes_per_chip,
                    "start_bytes_per_chip": program.start_bytes_per_chip,
                    "memory_bytes_per_chip": self.target.chip.memory_bytes,
                    "fits": program.fits,
                    "change_that_fits": program.change,
                    "error": program.error,
                    "program_flops": program.flops / members,
                    "recomputed_flops": program.recomputed_flops / members,
                    "moved_bytes_per_chip_and_step": program.moved_bytes_per_step,
                    "sent_bytes_per_chip_and_step": program.sent_bytes_per_step,
                    "roofline_seconds": program.roofline_seconds / members,
                    "limit": program.limit,
                    "device_hours": hours,
                    "price": None if self.price_per_chip_hour is None else hours * self.price_per_chip_hour,
                    "checkpoint_bytes": 12 * cell.student_params_unique,
                }
            )
        return rows

    @property
    def seconds_left(self) -> float:
        """Of what is left to do, one group after the other on the whole target."""
        return sum(self.seconds(cell) for cell in self.plan.left)

    def table(self) -> Table:
        """One line per cell for the terminal; `to_rows` has the exact numbers."""
        table = Table(
            title=f"{self.plan.sweep} on {self.target.name}", title_justify="left", title_style="bold", box=None
        )
        table.add_column("cell", no_wrap=True)
        for name in ("params", "memory/chip", "FLOPs", "moved/step", "sent/step", "roofline", "device-hours", "price"):
            table.add_column(name, justify="right", no_wrap=True)
        for name in ("bound by", "fits"):
            table.add_column(name, no_wrap=True)
        for row in self.to_rows():
            used = row["bytes_per_chip"]
            table.add_row(
                row["cell_id"],
                size_name(row["student_params_total"]),
                "?" if used is None else f"{used / row['memory_bytes_per_chip']:.0%}",
                f"{row['program_flops']:.2e}",
                amount(row["moved_bytes_per_chip_and_step"]),
                amount(row["sent_bytes_per_chip_and_step"]),
                duration(row["roofline_seconds"]),
                f"{row['device_hours']:.3g}",
                "-" if row["price"] is None else f"{row['price']:.2f}",
                row["limit"],
                {True: "yes", False: "NO", None: "?"}[row["fits"]],
            )
        return table

    def totals(self) -> list[str]:
        """Sums, what does not fit, and what the numbers rest on."""
        rows = [row for row in self.to_rows() if row["status"] not in FINISHED]
        hours, chip = sum(row["device_hours"] for row in rows), self.target.chip
        kept = sum(row["disk_bytes"] for row in rows)
        flight = max((row["checkpoint_bytes"] for row in rows), default=0)
        rate = self.price_per_chip_hour
        price = "" if rate is None else f", {hours * rate:.2f} at {rate:g} a chip-hour"
        axes = " × ".join(f"{axis} {size}" for axis, size in asdict(self.mesh).items() if size > 1) or "one device"
        lines = [
            f"{len(rows)} cells left: {sum(row['program_flops'] for row in rows):.2e} FLOPs, "
            f"{duration(self.seconds_left)} on "
            f"{self.target.name} ({self.target.chips} × {chip.name}; mesh {axes}), {hours:.3g} device-hours{price}",
            f"disk: {amount(kept)} at the end; up to {amount(flight)} for the largest cell's checkpoint while it "
            "trains",
        ]
        for program, names in self._troubles().items():
            phases = {
                program.start_bytes_per_chip: " while it starts",
                program.evaluation_bytes_per_chip: " while it evaluates",
            }
            when = phases.get(program.bytes_per_chip, "")
            used = f"{amount(program.bytes_per_chip or 0)} of {amount(chip.memory_bytes)} a chip{when}"
            what = program.error or used
            remedy = f"fits with {program.change}" if program.change else "nothing on the ladder that was tried fits"
            remedy = "not compiled" if program.error else f"does not fit; {remedy}"
            lines.append(f"{', '.join(names)}: {remedy} ({what})")
        compilers = ", ".join(sorted({p.compiler for p in self.programs.values() if p.compiler})) or "none"
        lines.append(
            f"memory and sent bytes from {compilers}; FLOPs and moved bytes in closed form; chip: {chip.source}"
        )
        trust = _ON_TRUST[chip.kind if chip.kind == self.platform else "stand-in"]
        lines.append(trust.format(install=install_with("gpu")))
        return lines

    def _troubles(self) -> dict[Program, list[str]]:
        """Programs that do not fit or could not be compiled, each with the groups that need it."""
        found: dict[Program, list[str]] = {}
        for name, program in self.programs.items():
            if not program.fits:
                found.setdefault(program, []).append(name)
        return found

    def write(self, folder: RunFolder) -> None:
        """Keep the forecast in a run folder, where the report sets it beside what was measured."""
        folder.make()
        write_forecast(folder, self.target.name, self.to_rows())


def forecast(
    plan: Plan,
    sweep: Sweep,
    execution: Execution,
    target: Target,
    price_per_chip_hour: float | None = None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Forecast:
    """Compile every distinct program of a sweep for a target, and work out what each cell costs there.

    Args:
      plan: of the same sweep and execution.
      execution: a mesh of one device stands for "all chips", see `default_mesh`.
      progress: called with (programs done, programs, group id) before each compilation.
    Raises: SpecError for a mesh that the target, the batch or the heads do not allow; SweepError for a missing package.
    """
    groups = {group.id: group for group in sweep.groups()}
    execution = fitted_to_all(target, execution, sweep.groups())
    distinct = {program_key(group): group for group in groups.values()}
    known: dict[str, Program] = {}
    with Compiler(target) as compiler:
        for number, (key, group) in enumerate(distinct.items()):
            progress(number, len(distinct), group.id)
            known[key] = _program(
                compiler, group, execution, progress=lambda what, n=number: progress(n, len(distinct), what)
            )
    progress(len(distinct), len(distinct), "")
    return Forecast(
        plan=plan,
        target=target,
        platform=compiler.platform,
        mesh=execution.mesh,
        programs={name: known[program_key(group)] for name, group in groups.items()},
        price_per_chip_hour=price_per_chip_hour,
    )


def _program(compiler: Compiler, group: Group, execution: Execution, progress) -> Program:
    target = compiler.target
    found = compiler.ask(group, execution)
    made = roofline(group, execution, target, found)
    if made.fits is False:
        made = replace(made, change=change_that_fits(compiler, group, execution, progress))
    return made
