"""Which sweep does a folder hold, and may it hold another? A sweep may gain and lose cells, never change their
science.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from gaplaw import __version__
from gaplaw.canonical import from_dict, short_hash, to_dict
from gaplaw.errors import GaplawError, SweepError
from gaplaw.files import intact, write_checked_json
from gaplaw.spec import Cell, Sweep, science


def write_sweep(path: Path, sweep: Sweep) -> None:
    write_checked_json(path, {"gaplaw": __version__, "sweep": to_dict(sweep)})


def read_sweep(path: Path) -> Sweep:
    """The sweep that `write_sweep` wrote. Raises: SweepError when it is damaged, or refused."""
    try:
        return from_dict(Sweep, _fields(path))
    except GaplawError as fault:  # of an earlier gaplaw, perhaps, which allowed more
        raise SweepError(f"{path}: its sweep is refused: {fault}; use another run folder") from None
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        why = str(fault) if type(fault) is ValueError else type(fault).__name__
        raise SweepError(f"{path}: not a readable sweep ({why}); delete it and run again") from None


def _fields(path: Path) -> object:
    value = json.loads(path.read_text())
    if not intact(value):
        raise ValueError("its checksum does not fit")
    return value["sweep"]


def holds(path: Path, sweep: Sweep) -> bool:
    """Whether a file holds just this sweep, as it was written; quicker than to read it."""
    try:
        return _fields(path) == json.loads(json.dumps(to_dict(sweep)))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def refuse_other_rows(sweep: Sweep, ids: Iterable[str], place: str) -> None:
    """Refuse a folder with rows of other science under the names of a sweep's cells: `gaplaw.read` would mix both.

    Such rows are of an older gaplaw that made other numbers (see `gaplaw.spec.identity`), or of a sweep.json that is
    gone.

    Args: ids: of the cells that have rows there.
    Raises: SweepError naming the first of them.
    """
    ours = {cell.id: cell.name for cell in sweep.cells}
    names = set(ours.values())
    others = sorted(one for one in ids if one not in ours and (found := _ID.fullmatch(one)) and found[1] in names)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise SweepError(
            f"{place}: holds rows of other science under the names of this sweep's cells ({others[0]}{more}), of "
            "another "
            "experiment or of an older gaplaw, which made other numbers; give another --out folder, or remove them"
        )


_ID = re.compile(r"(.+)-[0-9a-f]{6}")


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
