"""What would XLA make of a group's program on a machine that is not here? Compiled ahead of time; nothing is allocated or run.

    python -m gaplaw.train.ahead < tasks > answers        one JSON object a line, both ways

States and parameters are shapes with shardings from the mesh rules. TPU programs are made by the real TPU compiler, for which a
machine with a CPU and the libtpu package is enough. There is no such compiler for GPUs: their programs are partitioned for the
same mesh of virtual CPU devices and compiled by XLA's CPU back end, and the answer says so.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from importlib import metadata

from gaplaw.canonical import from_dict
from gaplaw.execution import Execution
from gaplaw.grid import Group
from gaplaw.spec import Cell

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_TOO_MUCH = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")


def lower(group: Group, execution: Execution, devices: list):
    """The training program of a group on a mesh of `devices`, lowered (`jax.stages.Lowered`); pruned students in even shapes.

    All students together: `Execution.core_blocked` must be off.
    """
    import jax
    import jax.numpy as jnp

    from gaplaw import models
    from gaplaw.distill.targets import kept_shapes
    from gaplaw.train.mesh import batch_sharding, check_batch, make_mesh, placed
    from gaplaw.train.stack import abstract_state, stacks_of, teacher_on
    from gaplaw.train.step import batches_at_once, train_program

    first, mesh = group.cells[0], make_mesh(execution.mesh, devices)
    check_batch(mesh, first.train.batch_sequences, "TrainSpec.batch_sequences", execution.accumulate)
    stacks = stacks_of(group.cells, {cell.fingerprint: cell.model for cell in group.cells}, execution)
    states = [placed(mesh, abstract_state(stack), stacked=True) for stack in stacks]
    dispatches = -(-first.steps // batches_at_once(stacks, execution))
    steps = -(-first.steps // dispatches)  # of one dispatch, as the loop cuts them
    rows, length = first.train.batch_sequences, first.data.sequence_tokens

    def by_batch(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh, len(shape)))

    taught, model = None, group.teacher.model if group.teacher else None
    if group.signal.cached:
        kept = kept_shapes(group.signal, model.vocab_size)
        taught = jax.tree.map(lambda leaf: by_batch((steps, rows, length, *leaf.shape[1:]), leaf.dtype), kept)
    elif model:
        params = jax.eval_shape(lambda key: models.init(key, model), jax.random.key(0))
        taught = teacher_on(mesh, params, model, group.cells, execution)
    batches = by_batch((steps, rows, length + 1), jnp.int32)
    return train_program(stacks, model, execution, mesh).lower(states, taught, batches, 0, steps)


def measure(compiled) -> dict:
    """Bytes of one chip's memory while a compiled program runs, and the bytes that the chip sends in one step."""
    from gaplaw.train.hlo import sent_bytes

    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "bytes_per_chip": held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        "temporary_bytes_per_chip": memory.temp_size_in_bytes,
        "sent_bytes_per_step": sent_bytes(compiled.as_text()),  # the loop over steps has no fixed trips: counted once
    }


def devices_of(platform: str, name: str, chips: int) -> list:
    """The devices of a TPU slice that need not exist, or virtual CPU devices."""
    import jax
    from jax.experimental import topologies

    if platform != "tpu":
        return jax.devices("cpu")[:chips]
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # a lock for chips; several processes may compile at once
    host = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}
    return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **host).devices)


def answer(task: dict) -> dict:
    """What `measure` says of one task, or "out_of_memory_bytes", or "error" in one line.

    Args: task: {"cells", "execution", "platform": "tpu" or "cpu", "target", "chips"}.
    """
    group = Group(cells=tuple(from_dict(Cell, cell) for cell in task["cells"]))
    began = time.process_time()
    try:
        devices = devices_of(task["platform"], task["target"], task["chips"])
        found = measure(lower(group, from_dict(Execution, task["execution"]), devices).compile())
    except Exception as fault:  # XLA's own kinds of error, and our refusals
        message = " ".join(str(fault).split())
        used = _TOO_MUCH.search(message)
        if used is None:
            return {"error": message[:300]}
        found = {"out_of_memory_bytes": float(used[1]) * _UNITS[used[2]]}
    return found | {"compile_seconds": _since(began), "compiler": compiler(task["platform"])}


def _since(began: float) -> float:
    return round(time.process_time() - began, 1)


def compiler(platform: str) -> str:
    """Which compiler gives the answers, with versions."""
    name = f"libtpu {metadata.version('libtpu')}, least effort" if platform == "tpu" else "XLA's CPU compiler"
    return f"{name}, jax {metadata.version('jax')}"


def main() -> int:
    """Answer tasks until standard input closes. Whatever a compiler prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
