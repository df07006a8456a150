"""What is the smallest change with which a program fits a target? A short ladder of changes, each of them compiled.

The rungs stand in the order of what they cost: nothing but precision, then time, then machines. A rung whose parameters
and moments alone exceed the memory is left out without compiling it.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from gaplaw.errors import SpecError
from gaplaw.spec import Cell, Execution, Group, MeshSpec
from gaplaw.spec.sizes import count_params
from gaplaw.sweep.forecast.compiler import Compiler
from gaplaw.sweep.forecast.targets import Target, check_mesh, default_mesh

MOST_TRIES = 8  # compilations that a program which does not fit may cost


def change_that_fits(compiler: Compiler, group: Group, execution: Execution, progress) -> str | None:
    """Climb the ladder, one compilation a rung, until something fits."""
    for words, target, changed in ladder(compiler.target, group, execution):
        progress(f"{group.id} with {words}")
        if target == compiler.target:
            found = compiler.ask(group, changed)
        else:
            with Compiler(target) as other:
                found = other.ask(group, changed)
        if found.get("bytes_per_chip", float("inf")) <= target.chip.memory_bytes:
            return words
    return None


def ladder(target: Target, group: Group, execution: Execution) -> list[tuple[str, Target, Execution]]:
    """At most MOST_TRIES changes in the order of what they cost, each as (options, target, execution)."""
    rungs: list[tuple[str, Target, Execution]] = []

    def rung(where: Target = target, **changes) -> None:
        changed = replace(execution, **changes)
        if changed == execution and where == target:
            return
        if resident_bytes(group, changed) <= where.chip.memory_bytes:
            rungs.append((_words(execution, changed, target, where), where, changed))

    rows = group.cells[0].train.batch_sequences
    half = {"teacher_dtype": "bfloat16"} if group.teacher else {}
    most = rows // (execution.mesh.data * execution.mesh.fsdp)
    counts = [n for n in (2, 4, 8, 16, 32, 64) if most % n == 0 and n > execution.accumulate]
    rung(**half)
    if execution.remat == "none":
        rung(remat="dots")
    rung(remat="full")
    for count in counts[:2]:
        rung(accumulate=count)
    if spread := _spread(target, group):
        rung(mesh=spread)
    rung(remat="full", **half, **({"accumulate": counts[-1]} if counts else {}))
    bigger = target.bigger
    while bigger and len(rungs) < MOST_TRIES and (spread := _spread(bigger, group)):
        rung(bigger, mesh=spread)
        bigger = bigger.bigger
    return rungs


def _spread(target: Target, group: Group) -> MeshSpec | None:
    """The default mesh of a target, if the group's batch and heads allow it."""
    try:
        mesh = default_mesh(target, group.cells)
        check_mesh(target, mesh, group)
    except SpecError:
        return None
    return mesh


def _words(before: Execution, after: Execution, here: Target, there: Target) -> str:
    """A change as the options that make it."""
    words = [f"--target {there.name}"] if there != here else []
    for name in ("teacher_dtype", "remat", "accumulate"):
        if getattr(before, name) != getattr(after, name):
            words.append(f"--{name.replace('_', '-')} {getattr(after, name)}")
    if before.mesh != after.mesh:
        words += [
            f"--mesh.{axis} {size}" for axis, size in asdict(after.mesh).items() if getattr(before.mesh, axis) != size
        ]
    return " ".join(words)


def resident_bytes(group: Group, execution: Execution) -> float:
    """Bytes per chip that must be there at any time: parameters and two moments of each student, and the teacher."""
    mesh, half = execution.mesh, execution.teacher_dtype == "bfloat16"

    def share(cell: Cell) -> float:
        return count_params(cell.model).unique / (mesh.fsdp * mesh.tensor)

    students = sum(12 * share(cell) for cell in group.cells) / mesh.student
    return students + ((2 if half else 4) * share(group.teacher) if group.teacher else 0)
