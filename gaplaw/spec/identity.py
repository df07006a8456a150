"""What makes two cells the same science? The fields that change their numbers, and nothing else.

A cell's fingerprint is a hash of them. Where the code comes to make other numbers of the same fields, a *mark* is added
for the
cells concerned, and for them alone: so rows and teachers of others keep their identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaplaw.canonical import to_dict
from gaplaw.spec.teacher_signal import HALF_TAILS

if TYPE_CHECKING:
    from gaplaw.spec.cell import Cell


def science(cell: Cell) -> dict:
    """The fields of a cell that change its numbers, as plain JSON values (the name and local paths are left out).

    Made once for each cell and shared: to be read, never changed.
    """
    if not hasattr(cell, "_science"):
        object.__setattr__(cell, "_science", _fields_of(cell))
    return cell._science


def _fields_of(cell: Cell) -> dict:
    fields = to_dict(cell, without=("name", "teacher"))
    if not cell.signal.cached:  # so that cells from before there were caches keep their identity
        del fields["signal"]
    # mark: the tail was interpolated once, is exact now
    if cell.signal.kind == "topk" and cell.objective.temperature not in HALF_TAILS:
        fields["signal"]["tail_temperature"] = cell.objective.temperature
    if cell.train.warmup_fraction == 0:  # mark: the first rate was 0 once, is the peak now
        fields["train"]["warmup_steps"] = 0
    if cell.data.manifest:  # the content hash replaces the path, which may differ between machines
        fields["data"]["source"] = cell.data.source.partition(":")[0]
        fields["data"]["tokenizer"] = cell.data.tokenizer.partition("file:")[0] or "file"
    fields["teacher"] = science(cell.teacher) if cell.teacher else None
    return fields
