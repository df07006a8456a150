"""May a folder that holds one sweep hold another? A sweep may gain and lose cells, never change their science."""

from __future__ import annotations

from gaplaw.canonical import short_hash
from gaplaw.errors import SweepError
from gaplaw.spec import Cell, Sweep, science


def grown(old: Sweep, sweep: Sweep, place: str) -> tuple[Sweep | None, str | None]:
    """What a folder that holds `old` should hold after a run of `sweep`.

    A cell's name means one science for ever; the folder must share cells with the sweep; and added cells must read
    a corpus that the folder already knows. Anything else belongs in another folder.

    Args: place: what people call the folder.
    Returns: (all cells of both under the new question, None when nothing changed; a line for people about what did).
    Raises: SweepError naming the two sciences.
    """
    if old.name != sweep.name:
        raise SweepError(f"{place}: holds the sweep {old.name!r}, not {sweep.name!r}; give another --out folder")
    before, now = ({cell.name: cell for cell in some.cells} for some in (old, sweep))
    for name in before.keys() & now.keys():
        if before[name].fingerprint != now[name].fingerprint:
            raise SweepError(
                f"{place}: holds a sweep {old.name!r} of different science ({_difference(before[name], now[name])}); "
                "give another --out folder or another Sweep.name"
            )
    if not before.keys() & now.keys():
        raise SweepError(
            f"{place}: holds another sweep named {old.name!r}, with no cell in common; give another --out folder"
        )
    known = {short_hash(science(cell)["data"]) for cell in old.cells}
    for cell in sweep.cells:
        if cell.name not in before and short_hash(science(cell)["data"]) not in known:
            raise SweepError(
                f"{place}: new cell {cell.name} reads another corpus than the cells there; give another --out folder"
            )
    added, gone = now.keys() - before.keys(), before.keys() - now.keys()
    notes = [f"{len(added)} cells added to the sweep"] if added else []
    notes += [f"{len(gone)} cells of the folder are not part of this run; their rows stay"] if gone else []
    notes += ["the sweep's question is now another"] if old.question != sweep.question else []
    changed = added or old.question != sweep.question
    return _union(old, sweep) if changed else None, "; ".join(notes) or None


def _union(old: Sweep, new: Sweep) -> Sweep:
    """All cells of both, the new sweep's order first; a cell of both stands where the new sweep has it."""
    names = {cell.name for cell in new.cells}

    def both(part: str) -> tuple[Cell, ...]:
        fresh = getattr(new, part)
        return fresh + tuple(cell for cell in getattr(old, part) if cell.name not in names)

    return Sweep(
        name=new.name,
        question=new.question,
        teachers=both("teachers"),
        students=both("students"),
        baselines=both("baselines"),
    )


def _difference(before: Cell, now: Cell) -> str:
    """The first science field in which two cells differ: `s2k-t10k-r0: train.tokens was 4096, is now 8192`."""

    def first(was: object, is_now: object, path: str) -> str | None:
        if isinstance(was, dict) and isinstance(is_now, dict):
            found = (first(was.get(k), is_now.get(k), f"{path}.{k}" if path else k) for k in {**was, **is_now})
            return next((line for line in found if line), None)
        return None if was == is_now else f"{path} was {was!r}, is now {is_now!r}"

    return f"{now.name}: {first(science(before), science(now), '')}"
