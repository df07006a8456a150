"""Is the teacher that students learn from the one that its row describes? Its loss on the same tokens says so, at no
cost.

Every student's evaluation measures the teacher too. A teacher whose stored numbers have changed since it was trained,
by whatever way the checksums do not see, has another loss than its own row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import jax

from gaplaw.canonical import from_dict
from gaplaw.errors import CheckpointError
from gaplaw.files import SUMS
from gaplaw.spec import Cell, Execution, ModelSpec
from gaplaw.train.hosts import agree

# Of the loss. Measured on a CPU with a small teacher: the same float32 numbers in another order (mesh, chunks,
# attention, core-blocked or not) 2e-8, bfloat16 parameters or products 2e-4. Large models and other devices get room of
# some thousand and of a hundred times that; devices of two kinds may round products of float32 differently.
CLOSE, ROUGH = 1e-4, 2e-2


@dataclass(frozen=True, kw_only=True)
class StoredTeacher:
    """What the store says of a teacher besides its parameters.

    checkpoint: names the training that they come from; a teacher that is trained again has another. loss_nats: of its
    own row, None when students are evaluated on other tokens. tolerance: of the comparison, in units of that loss.
    """

    name: str
    checkpoint: str
    loss_nats: float | None = None
    tolerance: float = CLOSE

    def check(self, found_nats: float) -> None:
        """Raises: CheckpointError when the loss that was found for it is not that of its row."""
        wanted = self.loss_nats
        if wanted is not None and not abs(found_nats - wanted) <= self.tolerance * max(1.0, abs(wanted)):
            raise CheckpointError(
                f"{self.name}: its checkpoint has a loss of {found_nats:.6g} nats on the validation tokens, its own "
                "row says "
                f"{wanted:.6g}; one of them is damaged"
            )


def stored_teacher(student: Cell, checkpoint: Path, model: ModelSpec, row: dict, execution: Execution) -> StoredTeacher:
    """The teacher of a student that is trained under `execution`; all processes of a group call it together.

    Args: checkpoint: of the teacher, just loaded; it held a `model`. row: of the teacher, in the store.
    Raises: CheckpointError when the row says another shape than the checkpoint. The plan says only the even shape of a
      pruned teacher (an assistant), so it is not asked.
    """
    teacher, sums = student.teacher, checkpoint / SUMS
    if model != from_dict(ModelSpec, json.loads(row["model"])):
        raise CheckpointError(f"{checkpoint}: holds a model of another shape than the row of {teacher.id} says")
    name = agree(sha256(sums.read_bytes()).hexdigest()[:12] if sums.exists() else "")
    then = json.loads(row.get("execution") or "{}")
    kinds = {then.get("compute_dtype"), execution.compute_dtype, execution.teacher_dtype}
    alike = kinds == {"float32"} and row.get("device") == jax.devices()[0].device_kind
    return StoredTeacher(
        name=f"teacher {teacher.id}",
        checkpoint=name,
        loss_nats=row.get("loss_student_ce_nats") if teacher.data == student.data else None,
        tolerance=CLOSE if alike else ROUGH,
    )
