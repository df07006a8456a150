"""What would XLA make of a group's program on a machine that is not here? Compiled ahead of time; nothing is allocated
or run.

    python -m gaplaw.sweep.forecast.compile_worker < tasks > answers        one JSON object a line, both ways

States and parameters are shapes with shardings from the mesh rules. TPU programs are made by the real TPU compiler, for
which a machine with a CPU and the libtpu package is enough, and GPU programs by the real GPU compiler where JAX's CUDA
plugin is installed. Without it they are partitioned for the same mesh of virtual CPU devices and compiled by XLA's CPU
back end, and the answer says so.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from importlib import metadata

from gaplaw.canonical import from_dict
from gaplaw.spec import Cell, Execution, Group
from gaplaw.sweep.forecast.gpu_topology import assume_cudnn, gpus

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_TOO_MUCH = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
DOMAINS = 8  # of the validation text; their number hardly matters


class Ahead:
    """A group's large programs on a mesh of `devices`, as shapes with shardings; pruned students in even shapes.

    All students together: `Execution.core_blocked` must be off.
    """

    def __init__(self, group: Group, execution: Execution, devices: list):
        import jax

        from gaplaw import models
        from gaplaw.train.mesh import make_mesh, placed
        from gaplaw.train.stack import abstract_state, stacks_of, teacher_on

        self.group, self.execution = group, execution
        self.first, self.mesh = group.cells[0], make_mesh(execution.mesh, devices)
        execution.check_batch(self.first.train.batch_sequences)
        self.stacks = stacks_of(group.cells, {cell.fingerprint: cell.model for cell in group.cells}, execution)
        self.states = [placed(self.mesh, abstract_state(stack), stacked=True) for stack in self.stacks]
        self.model = group.teacher.model if group.teacher else None
        self.teacher = None
        if self.model:
            params = jax.eval_shape(lambda key: models.init(key, self.model), jax.random.key(0))
            self.teacher = teacher_on(self.mesh, params, self.model, group.cells, execution)

    def by_batch(self, shape, dtype):
        """An array whose second dimension is rows of a batch."""
        import jax

        from gaplaw.train.mesh import batch_sharding

        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(self.mesh, len(shape)))

    def start(self, stack):
        """The program that makes the initial state of a stack from scratch, lowered."""
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        from gaplaw.train.stack import keys_of, start_program

        keys = jax.eval_shape(lambda: keys_of(stack))
        keys = jax.ShapeDtypeStruct(keys.shape, keys.dtype, sharding=NamedSharding(self.mesh, PartitionSpec()))
        return start_program(stack, self.mesh).lower(keys)

    def training(self):
        """The training program, lowered (`jax.stages.Lowered`)."""
        import jax
        import jax.numpy as jnp

        from gaplaw.distill.targets import kept_shapes
        from gaplaw.train.step import batches_at_once, train_program

        dispatches = -(-self.first.steps // batches_at_once(self.stacks, self.execution))
        steps = -(-self.first.steps // dispatches)  # of one dispatch, as the loop cuts them
        rows, length, taught = self.first.train.batch_sequences, self.first.data.sequence_tokens, self.teacher
        if self.group.signal.cached:
            kept = kept_shapes(self.group.signal, self.group.own_temperatures, self.model.vocab_size)
            taught = jax.tree.map(lambda leaf: self.by_batch((steps, rows, length, *leaf.shape[1:]), leaf.dtype), kept)
        batches = self.by_batch((steps, rows, length + 1), jnp.int32)
        program = train_program(self.stacks, self.model, self.execution, self.mesh)
        return program.lower(self.states, taught, batches, 0, steps)

    def evaluation(self):
        """The program that measures every student and the teacher on validation text, lowered."""
        import jax.numpy as jnp

        from gaplaw.train.step import evaluate_program, held_shape

        length = self.first.data.sequence_tokens
        _, batches, rows = held_shape(self.stacks, self.execution, -(-self.first.data.validation_tokens // length))
        tokens, domain = (
            self.by_batch((batches, rows, length + 1), jnp.int32),
            self.by_batch((batches, rows), jnp.int32),
        )
        program = evaluate_program(self.stacks, self.model, self.execution, DOMAINS, self.mesh)
        return program.lower([state.params for state in self.states], self.teacher, tokens, domain)

    @property
    def idle_bytes(self) -> float:
        """What one chip holds of the optimizers' moments while they wait for an evaluation to end."""
        return _chip_bytes([state.moments for state in self.states])

    def around(self) -> list[tuple[str, dict]]:
        """Phases before and after training, and what `measure` says of their programs beside what a chip holds
        meanwhile.
        """
        found = [("evaluation", _beside(_compiled(self.evaluation), self.idle_bytes))]
        for stack, state in zip(self.stacks, self.states, strict=True):
            if stack.cells[0].init == "scratch":
                key = (stack.model, len(stack.cells), stack.scanned, self.execution.mesh)
                if key not in _STARTS:
                    _STARTS[key] = _compiled(lambda stack=stack: self.start(stack))
                found.append(("start", _beside(_STARTS[key], _chip_bytes(self.states) - _chip_bytes(state))))
        return found


_STARTS: dict[tuple, dict] = {}  # answers of this process, which groups share


def _chip_bytes(tree) -> float:
    """What one chip holds of a tree of shapes with shardings."""
    import jax
    import numpy as np

    leaves = jax.tree.leaves(tree)
    return float(sum(np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves))


def measure(compiled) -> dict:
    """Bytes of one chip's memory while a compiled program runs, and the bytes that the chip sends in one step."""
    from gaplaw.sweep.forecast.collectives import sent_bytes

    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "bytes_per_chip": held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        "temporary_bytes_per_chip": memory.temp_size_in_bytes,
        "sent_bytes_per_step": sent_bytes(compiled.as_text()),  # the loop over steps has no fixed trips: counted once
    }


def devices_of(task: dict) -> list:
    """The devices of a TPU slice or of a host of GPUs that need not exist, or virtual CPU devices."""
    import jax
    from jax.experimental import topologies

    platform, name, chips = task["platform"], task["target"], task["chips"]
    if platform == "cpu":
        return jax.devices("cpu")[:chips]
    if platform == "gpu":
        if task["execution"]["attention"] == "cudnn":
            assume_cudnn()
        return gpus(name, chips, task["memory_bytes"], task["memory_bytes_per_second"])
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # a lock for chips; several processes may compile at once
    host = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}
    return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **host).devices)


def answer(task: dict) -> dict:
    """What `measure` says of one task, or "out_of_memory_bytes", or "error" in one line. Memory is that of training,
    evaluation or initialisation, whichever needs most.

    Args: task: {"cells", "execution", "platform": "tpu", "gpu" or "cpu", "package" that holds its compiler or None,
      "target", "chips"}; for GPUs also "memory_bytes" and "memory_bytes_per_second".
    """
    group = Group(cells=tuple(from_dict(Cell, cell) for cell in task["cells"]))
    began = time.process_time()
    try:
        programs = Ahead(group, from_dict(Execution, task["execution"]), devices_of(task))
        found = _compiled(programs.training)
        if "out_of_memory_bytes" not in found:
            for phase, held in programs.around():
                for name in (f"{phase}_bytes_per_chip", "bytes_per_chip", *(held.keys() & {"out_of_memory_bytes"})):
                    found[name] = max(found.get(name, 0.0), *held.values())
    except Exception as fault:  # XLA's own kinds of error, and our refusals
        return {"error": " ".join(str(fault).split())[:300]}
    return found | {"compile_seconds": _since(began), "compiler": compiler(task["platform"], task["package"])}


def _compiled(lowered) -> dict:
    """What `measure` says of a program, or how many bytes a chip would need that has not so many."""
    try:
        return measure(lowered().compile())
    except Exception as fault:
        used = _TOO_MUCH.search(" ".join(str(fault).split()))
        if used is None:
            raise
        return {"out_of_memory_bytes": float(used[1]) * _UNITS[used[2]]}


def _beside(found: dict, held_bytes: float) -> dict:
    """What a chip needs for a program while it holds something else as well, under the name that says whether it has so
    much.
    """
    name = "out_of_memory_bytes" if "out_of_memory_bytes" in found else "bytes_per_chip"
    return {name: found[name] + held_bytes}


def _since(began: float) -> float:
    return round(time.process_time() - began, 1)


def compiler(platform: str, package: str | None) -> str:
    """Which compiler gives the answers, with versions."""
    made = {"tpu": "the TPU compiler, least effort", "gpu": "XLA's GPU compiler", "cpu": "XLA's CPU compiler"}[platform]
    return ", ".join([made, *(f"{name} {metadata.version(name)}" for name in ("jax", package) if name)])


def main() -> int:
    """Answer tasks until standard input closes. Whatever a compiler prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
