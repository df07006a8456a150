"""How do models survive the process? Orbax, behind this file (and a barrier in `hosts`): finished models, groups in
flight.

Orbax does not notice a byte that has changed, so every checkpoint holds the checksums of its files, compared when it is
opened. A finished model is its parameters and, as metadata, its shape. A group in flight is the parameters and
optimizer state of every stack, the step, and what has been read back so far (curves, broken cells, seconds spent): that
is all. The step is also the position in the data, because batches are functions of (batch_seed, step); and no random
number is drawn after initialisation, so there is no generator to save. Orbax writes whole folders or none, onto any
file system that it knows, and reads them onto any mesh. In a group of several processes each calls every function here
at the same point.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace

import jax
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from gaplaw import models
from gaplaw.canonical import from_dict, to_dict
from gaplaw.errors import CheckpointError
from gaplaw.files import SUMS, damage, with_sum, without_sum, write_sums
from gaplaw.spec import MeshSpec, ModelSpec
from gaplaw.train.hosts import in_any
from gaplaw.train.mesh import make_mesh, placed

METADATA = (
    "_CHECKPOINT_METADATA"  # Orbax writes its end after everything else; what is ours in it has a checksum of its own
)
_decide, _preserve = ocp.training.save_decision_policies, ocp.training.preservation_policies


def save(path: Path | str, params: dict, model: ModelSpec) -> None:
    """Write parameters and shape to `path`, whole or not at all; what was there is replaced."""
    path = Path(path).absolute()
    ocp.save(path, params, overwrite=True, custom_metadata={"model": to_dict(model)})
    if jax.process_index() == 0:  # every process has written its shards: Orbax waits for all
        write_sums(path)


def load(path: Path | str, mesh: Mesh | None = None) -> tuple[dict, ModelSpec]:
    """Read (params, ModelSpec), each array straight onto its place in the mesh (one device if None).

    Raises: CheckpointError when there is none, or naming the file that is damaged. Of several processes, each compares
    a part of the checksums. A checkpoint that has none is read after one line on standard error, and gets them if it
    can be written.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise CheckpointError(f"{path}: no checkpoint there")
    if not (path / SUMS).exists() and jax.process_index() == 0:
        print(f"warning: {path}: a checkpoint without checksums, taken as it is; they are written now", file=sys.stderr)
        with contextlib.suppress(OSError):
            write_sums(path)
    fault = damage(path, jax.process_index(), jax.process_count()) if (path / SUMS).exists() else None
    if fault is not None:
        raise CheckpointError(f"{fault}; delete {path} to make it again")
    try:
        model = from_dict(ModelSpec, ocp.metadata(path).custom_metadata["model"])
        shapes = jax.eval_shape(lambda key: models.init(key, model), jax.random.key(0))
        return ocp.load(path, placed(mesh or make_mesh(MeshSpec()), shapes, stacked=False)), model
    except Exception as fault:  # Orbax, tensorstore and json raise unrelated kinds for damaged files
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(fault).__name__}); delete the folder to train it again"
        ) from None


@dataclass(kw_only=True)
class Record:
    """What a group has come to by `step`, besides its states. By cell id: `curves`, `broken`, and `last_losses`, sums
    of nats over the steps of `outcome.last_steps` so far.
    """

    step: int
    seconds: float
    compile_seconds: float | None
    curves: dict[str, list[dict]]
    broken: dict[str, str]
    last_losses: dict[str, float]
    last_measured: dict[str, dict[str, float]] = field(default_factory=dict)


class InFlight:
    """The checkpoints of one group's training in one folder: the newest is kept, until `remove`.

    Args:
      cells: fingerprints of the group, and what names the training of its teacher; a checkpoint of others is ignored.
      every_seconds: at least so long between two writes, and before the first.
    """

    def __init__(self, folder: Path | str, cells: list[str], every_seconds: float):
        self.cells, self.folder = cells, Path(folder).absolute()
        policies = [_Every(every_seconds), _decide.PreemptionCheckpointingPolicy()]
        context = ocp.Context()
        context.asynchronous.post_finalization_callback = self._write_sums
        self.writer = ocp.training.Checkpointer(
            self.folder,
            context=context,
            save_decision_policy=_decide.AnySavePolicy(policies),
            preservation_policy=_preserve.LatestN(1),
            cleanup_tmp_directories=True,
        )

    def restore(self, like) -> tuple[object, Record] | None:
        """(states, record) of the newest checkpoint that can be used; one line on standard error for each that cannot,
        which goes.

        Args: like: the states as ShapeDtypeStructs with the shardings to read them onto, whatever mesh wrote them.
        Returns: None when there is none to use.
        """
        for left, one in reversed(list(enumerate(self.writer.checkpoints))):
            fault = damage(Path(one.path), jax.process_index(), jax.process_count())
            if in_any(fault is not None):
                found = fault or f"{one.path}: damaged, as another process found"
            else:
                found = self._read(one, like)
            if not isinstance(found, str):
                return found
            then = "an older one is looked at" if left else "the group starts from its beginning"
            print(f"warning: {found}; {then}", file=sys.stderr)
            self.writer.delete(one)
        return None

    def _read(self, one, like) -> tuple[object, Record] | str:
        """What a whole checkpoint holds, or why it cannot be used."""
        try:
            told = without_sum(self.writer.metadata(one).custom_metadata)
            if told is None:
                return f"{Path(one.path) / METADATA}: damaged (its checksum does not fit)"
            if told["cells"] != self.cells:
                return f"{one.path}: a checkpoint of other cells, or of another training of their teacher"
            differs = sorted({field.name for field in fields(Record)} ^ told["record"].keys())
            if differs:
                return (
                    f"{one.path}: a checkpoint of another version of gaplaw (its record differs in "
                    f"{', '.join(differs)})"
                )
            return self.writer.load(one, like), Record(**told["record"])
        except Exception as fault:  # as in `load`
            return f"{one.path}: not a readable checkpoint ({type(fault).__name__})"

    def _write_sums(self) -> None:
        """List the checksums of the checkpoint that is being written. Process 0's Orbax calls it when all its files are
        there.
        """
        for place in self.folder.glob("[0-9]*"):
            if not (place / SUMS).exists():  # the older ones have theirs
                write_sums(place, but=METADATA)

    def due(self, step: int) -> bool:
        """Whether to write after `step`: the interval has passed, or the cluster is taking a machine away.

        Process 0 decides and tells the others.
        """
        return self.writer.should_save(step)

    def save(self, states, record: Record) -> None:
        """Copy the states off the devices and write them while training goes on; a write still under way is waited
        for.
        """
        told = with_sum({"cells": self.cells, "record": asdict(record)})
        self.writer.save_async(record.step, states, force=True, custom_metadata=told)

    def close(self) -> None:
        """Wait for the last write."""
        self.writer.close()


class _Every:
    """Orbax's policy of a shortest time between writes, counted from the start for the first one."""

    def __init__(self, seconds: float):
        self.interval = _decide.ContinuousCheckpointingPolicy(minimum_interval_secs=seconds)
        self.began = SimpleNamespace(time=datetime.datetime.now(datetime.UTC))

    def should_save(self, step, previous_steps, *, context) -> bool:
        recent = [one for one in previous_steps if one.time > self.began.time]
        return self.interval.should_save(step, recent or [self.began], context=context)


def remove(folder: Path | str) -> None:
    """Forget a group in flight: its rows are written."""
    shutil.rmtree(folder, ignore_errors=True)
