"""How do models survive the process? Orbax, behind this file (and a barrier in `hosts`): finished models, groups in flight.

A finished model is its parameters and, as metadata, its shape. A group in flight is the parameters and optimizer state of every
stack, the step, and what has been read back so far (curves, broken cells, seconds spent): that is all. The step is also the
position in the data, because batches are functions of (batch_seed, step); and no random number is drawn after initialisation, so
there is no generator to save. Orbax writes whole folders or none, onto any file system that it knows, and reads them onto any mesh.
In a group of several processes each calls every function here at the same point.
"""

from __future__ import annotations

import datetime
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import jax
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from gaplaw import models
from gaplaw.canonical import from_dict, to_dict
from gaplaw.errors import CheckpointError
from gaplaw.execution import MeshSpec
from gaplaw.spec import ModelSpec
from gaplaw.train.mesh import make_mesh, placed

_decide, _preserve = ocp.training.save_decision_policies, ocp.training.preservation_policies


def save(path: Path | str, params: dict, model: ModelSpec) -> None:
    """Write parameters and shape to `path`, whole or not at all; what was there is replaced."""
    ocp.save(Path(path).absolute(), params, overwrite=True, custom_metadata={"model": to_dict(model)})


def load(path: Path | str, mesh: Mesh | None = None) -> tuple[dict, ModelSpec]:
    """Read (params, ModelSpec), each array straight onto its place in the mesh (one device if None).

    Raises: CheckpointError when there is none, or it is damaged.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise CheckpointError(f"{path}: no checkpoint there")
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
    """What a group has come to by `step`, besides its states. By cell id: `curves`, `broken`, and `last_losses`, sums of nats over
    the steps of `outcome.last_steps` so far.
    """

    step: int
    seconds: float
    compile_seconds: float | None
    curves: dict[str, list[dict]]
    broken: dict[str, str]
    last_losses: dict[str, float]


class InFlight:
    """The checkpoints of one group's training in one folder: the newest is kept, until `remove`.

    Args:
      cells: fingerprints; a checkpoint of others is ignored.
      every_seconds: at least so long between two writes, and before the first.
    """

    def __init__(self, folder: Path | str, cells: list[str], every_seconds: float):
        self.cells = cells
        policies = [_Every(every_seconds), _decide.PreemptionCheckpointingPolicy()]
        self.writer = ocp.training.Checkpointer(
            Path(folder).absolute(),
            save_decision_policy=_decide.AnySavePolicy(policies),
            preservation_policy=_preserve.LatestN(1),
            cleanup_tmp_directories=True,
        )

    def restore(self, like) -> tuple[object, Record] | None:
        """(states, record) of the newest checkpoint; None, after one line on standard error, when there is none to use.

        Args: like: the states as ShapeDtypeStructs with the shardings to read them onto, whatever mesh wrote them.
        """
        newest = self.writer.latest
        if newest is None:
            return None
        try:
            told = self.writer.metadata(newest).custom_metadata
            if told["cells"] != self.cells:
                return self._ignore(f"{newest.path}: a checkpoint of other cells")
            return self.writer.load(newest, like), Record(**told["record"])
        except Exception as fault:  # as in `load`
            return self._ignore(f"{newest.path}: not a readable checkpoint ({type(fault).__name__})")

    def _ignore(self, why: str) -> None:
        print(f"warning: {why}; the group starts from its beginning", file=sys.stderr)
        for kept in self.writer.checkpoints:
            self.writer.delete(kept)

    def due(self, step: int) -> bool:
        """Whether to write after `step`: the interval has passed, or the cluster is taking a machine away.

        Process 0 decides and tells the others.
        """
        return self.writer.should_save(step)

    def save(self, states, record: Record) -> None:
        """Copy the states off the devices and write them while training goes on; a write still under way is waited for."""
        told = {"cells": self.cells, "record": asdict(record)}
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
