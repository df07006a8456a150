"""What makes two cells the same science? The fields that change their numbers, and nothing else.

A cell's fingerprint is a hash of them, by the one rule of `gaplaw.canonical`: a field at its default is left out. Where
the code comes to make other numbers of the same fields, a *mark* is added for the cells concerned, and for them alone:
so rows and teachers of others keep their identity.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gaplaw.canonical import canonical_json, stated_fields, to_dict
from gaplaw.spec.teacher_signal import HALF_TAILS

if TYPE_CHECKING:
    from gaplaw.spec.cell import Cell, DataSpec
    from gaplaw.spec.train import TrainSpec


def science(cell: Cell) -> dict:
    """The fields of a cell that change its numbers, as plain JSON values (the name and local paths are left out)."""
    return {name: json.loads(text) for name, text in _texts(cell).items()}


def science_json(cell: Cell) -> str:
    """The same as one canonical JSON text, made once for each cell: what its fingerprint hashes."""
    if not hasattr(cell, "_science_json"):
        fields = ",".join(f'"{name}":{text}' for name, text in sorted(_texts(cell).items()))
        object.__setattr__(cell, "_science_json", f"{{{fields}}}")
    return cell._science_json


def _texts(cell: Cell) -> dict[str, str]:
    """Each of these fields in canonical JSON."""
    texts = {name: _text(name, value) for name, value in stated_fields(cell) if name not in ("name", "teacher")}
    # mark: the tail was interpolated once, is exact now
    if cell.signal.kind == "topk" and cell.objective.temperature not in HALF_TAILS:
        texts["signal"] = canonical_json(to_dict(cell.signal) | {"tail_temperature": cell.objective.temperature})
    texts["teacher"] = science_json(cell.teacher) if cell.teacher else "null"
    return texts


def _text(name: str, value: object) -> str:
    """A field in canonical JSON: made once for each part of a cell, because the cells of a grid share theirs."""
    if not hasattr(value, "__dataclass_fields__"):
        return canonical_json(value)
    if not hasattr(value, "_science_json"):
        fields = {"data": _data_science, "train": _train_science}.get(name, to_dict)(value)
        object.__setattr__(value, "_science_json", canonical_json(fields))
    return value._science_json


def _train_science(train: TrainSpec) -> dict:
    fields = to_dict(train)
    if train.warmup_fraction == 0:  # mark: the first rate was 0 once, is the peak now
        fields["warmup_steps"] = 0
    return fields


def _data_science(data: DataSpec) -> dict:
    fields = to_dict(data)
    if data.manifest:  # the content hash replaces the path, which may differ between machines
        fields["source"] = data.source.partition(":")[0]
        fields["tokenizer"] = data.tokenizer.partition("file:")[0] or "file"
    return fields
