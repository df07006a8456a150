"""Who fills a teacher cache, how do students read it, and how far can it be trusted?

One pass of the teacher over the stream of sequences fills what is missing; every group that needs the same stream then
trains without the teacher's forward pass (evaluation still runs it, on all its logits). The fidelity of a cache is
measured at each temperature that a group uses, on held-out text, for a reference student that any teacher has: itself
with its logits halved, flatter than the teacher as a student in training is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gaplaw.canonical import short_hash
from gaplaw.distill import Kept, Output, objective_losses
from gaplaw.distill.targets import by_chunks, keep, kept_mass, kept_shapes
from gaplaw.files import write_checked_json
from gaplaw.spec import Execution, Group, ModelSpec, ObjectiveSpec
from gaplaw.train.cache_files import SignalCache, made_or_damaged
from gaplaw.train.hosts import agree
from gaplaw.train.mesh import layout, put, put_rows
from gaplaw.train.stack import output_of, runs_core_blocked, teacher_on

Teacher = tuple[dict, ModelSpec]
FIDELITY_TOKENS = 2**13
REFERENCE_SCALE = 0.5  # the reference student's logits, in units of the teacher's


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How far a cache can be trusted at one temperature, on `tokens` held-out tokens; KL and gradient are the reference
    student's.

    kept_mass: the teacher's mass on the symbols kept, each counted once. kl_error_nats: KL from the cache minus KL from
    all logits, per token. gradient_agreement: cosine of the two gradients with respect to the output matrix.
    """

    temperature: float
    tokens: int
    kept_mass: float
    kl_nats: float
    kl_error_nats: float
    gradient_agreement: float


class LiveSignal:
    """Students read the teacher itself, on the mesh, or nothing when there is none."""

    def __init__(self, group: Group, execution: Execution, mesh, teacher: Teacher | None):
        params, self.model = teacher or (None, None)
        self.params = teacher_on(mesh, params, self.model, group.cells, execution)

    def read(self, steps: range) -> dict | None:
        return self.params

    def columns(self, temperatures: tuple[float, ...]) -> dict:
        return {}


def signal_of(
    group: Group, corpus, execution: Execution, mesh, folder: Path | None, teacher: Teacher | None, told: Callable
) -> LiveSignal | CachedSignal:
    """What the students of a group read at each dispatch, and where the teacher's parameters are. See
    `CachedSignal`.
    """
    if not group.signal.cached:
        return LiveSignal(group, execution, mesh, teacher)
    return CachedSignal(group, corpus, execution, mesh, folder, teacher, told)


class CachedSignal:
    """The teacher's cache of one group, filled and with its fidelity known: what its students read instead of the
    teacher.

    Args:
      folder: of all caches.
      teacher: its parameters may wait in the hosts' memory (`mesh.aside`).
      told: called after each batch of the teacher.
    Raises: SignalError when the cache that lies there was made from something else.
    """

    def __init__(
        self, group: Group, corpus, execution: Execution, mesh, folder: Path, teacher: Teacher, told: Callable
    ):
        self.group, self.execution, self.mesh = group, execution, mesh
        self.cell, self.corpus = group.cells[0], corpus
        self.cache = SignalCache(folder, group, corpus)
        self.waiting, self.model = teacher
        self._fill(told)
        self.fidelity = {heat: self._fidelity(heat) for heat in group.own_temperatures}

    @property
    def params(self) -> dict:
        """The teacher's parameters, brought to the mesh for as long as the caller holds them."""
        return teacher_on(self.mesh, self.waiting, self.model, self.group.cells, self.execution)

    def read(self, steps: range) -> Kept:
        """What was kept of the batches of some steps: [K, B, L, …] on the mesh; each process reads its own rows.

        Steps past the last repeat it. Raises: SignalError when the cache holds other tokens, or is damaged.
        """
        cell, train = self.cell, self.cell.train

        of_token = kept_shapes(self.group.signal, self.group.own_temperatures, cell.model.vocab_size)
        names = arrays_of(of_token)

        @cache
        def made(start: int, stop: int) -> dict[str, np.ndarray]:
            parts = []
            for step in np.minimum(steps, cell.steps - 1).tolist():
                at, rows = range(step, step + 1), slice(start, stop)
                tokens_1xRxL1 = self.corpus.batch(cell.split, train.batch_sequences, train.batch_seed, at, rows=rows)
                parts.append(self.cache.read(step * train.batch_sequences + start, tokens_1xRxL1[0], names))
            return {name: np.stack([part[name] for part in parts]) for name in names}

        lead = len(steps), train.batch_sequences, cell.data.sequence_tokens
        arrays = [
            put_rows(self.mesh, lead + shape.shape[1:], lambda rows, name=name: made(rows.start, rows.stop)[name])
            for name, shape in names.items()
        ]
        return jax.tree.unflatten(jax.tree.structure(of_token), arrays)

    def columns(self, temperatures: tuple[float, ...]) -> dict:
        """The fidelity columns of a cells row: at the one temperature of an objective that a cache serves."""
        known = self.fidelity[temperatures[0]]
        return {
            "teacher_cache_bytes_per_token": self.group.signal.token_bytes(
                self.model.vocab_size, self.group.temperatures
            ),
            "teacher_cache_kept_mass": known.kept_mass,
            "teacher_cache_kl_error_nats": known.kl_error_nats,
            "teacher_cache_gradient_agreement": known.gradient_agreement,
        }

    def _fill(self, told: Callable) -> None:
        """Run the teacher over every sequence that the cache lacks, or whose tail it lacks at a temperature of the
        sweep.

        All processes compute, the first one decides and writes. What is filled again keeps the temperatures that it
        had.
        """
        wanted = self.cell.steps * self.cell.train.batch_sequences
        rows = self.cell.train.batch_sequences // self.execution.accumulate  # as many as train at one time
        # Another group may be filling it too, so every process must hear the same answer.
        names = arrays_of(kept_shapes(self.group.signal, self.group.temperatures, self.model.vocab_size))
        lacking = [[part.start, part.stop] for part in self.cache.missing(wanted, names)]
        lacking, before = json.loads(agree(json.dumps([lacking, self.cache.temperatures() if lacking else []])))
        heats = tuple(sorted({*before, *self.group.temperatures}))
        again = lacking and self.group.signal.kind == "topk" and self.cache.shard(0).exists() and heats != tuple(before)
        if again and jax.process_index() == 0:
            print(f"{self.cache.path}: {_filled_again(before, heats)}", file=sys.stderr)
        ranges = [range(*part) for part in lacking]
        params = self.params if ranges else None
        program = keeping_program(self.group, heats, self.model, self.execution, self.mesh)
        for missing in ranges:
            tokens_MxL1, count, parts = self.cache.tokens(missing), len(missing), []
            for first in range(0, count, rows):
                at = np.minimum(np.arange(first, first + rows), count - 1)  # the last batch is filled up
                kept = program(params, put(self.mesh, tokens_MxL1[None, at]), missing.start + at)
                parts.append(jax.tree.map(np.asarray, kept))
                told()
            if jax.process_index() == 0:
                whole = jax.tree.map(lambda *pieces, n=count: np.concatenate(pieces)[:n], *parts)
                self.cache.write(missing, tokens_MxL1, arrays_of(whole))
            _wait_for_all(self.cache.path)

    def _fidelity(self, temperature: float) -> Fidelity:
        """From the cache's folder, or measured and left there."""
        place = self.cache.path / f"fidelity-T{temperature!r}.json"
        known = json.loads(agree(json.dumps(made_or_damaged(place))))
        if known is not None and set(known) == set(Fidelity.__dataclass_fields__):
            return Fidelity(**known)
        found = measure_fidelity(
            self.group, self.corpus, self.execution, self.mesh, self.params, self.model, temperature
        )
        if jax.process_index() == 0:
            write_checked_json(place, asdict(found))
        _wait_for_all(self.cache.path)
        return found


def arrays_of(kept: Kept) -> dict[str, np.ndarray]:
    """The arrays of what is kept by the names that they have in a shard: ids_NxT, …, log_tails_N-3.0."""
    leaves = jax.tree_util.tree_leaves_with_path(kept)
    return {"-".join(str(getattr(key, "name", getattr(key, "key", ""))) for key in path): leaf for path, leaf in leaves}


def _filled_again(before: list[float], heats: tuple[float, ...]) -> str:
    had, has = (", ".join(f"{heat:g}" for heat in some) for some in (before, heats))
    return (
        f"the teacher cache keeps the tail's mass at temperatures {had or 'of an older gaplaw'}; filled again for {has}"
    )


def keeping_program(group: Group, temperatures: tuple[float, ...], model: ModelSpec, execution: Execution, mesh):
    """Compile-ready `keep(params, batch_1xBxL1, numbers_B) -> Kept` of [B, L, …] on every device; numbers are the
    sequences' own.

    Draws depend on the cache and a sequence's number alone, so a cache that is made again is the same.
    """
    spread = None if runs_core_blocked(group.cells, execution) else mesh
    seed = int(short_hash(group.stream)[:7], 16)

    @partial(jax.jit, out_shardings=NamedSharding(mesh, P()))
    def keep_batch(params, batch_1xBxL1, numbers_B):
        inputs_BxL = batch_1xBxL1[0, :, :-1]
        keys_B = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(numbers_B)
        uniform_BxL = jax.vmap(lambda key: jax.random.uniform(key, inputs_BxL.shape[1:]))(keys_B)
        teacher = output_of(model, execution, spread, params, inputs_BxL)
        kept = keep(group.signal, temperatures, layout(spread, execution), teacher, uniform_BxL.reshape(-1))
        return jax.tree.map(lambda part: part.reshape(*inputs_BxL.shape, *part.shape[1:]), kept)

    return keep_batch


def measure_fidelity(
    group: Group, corpus, execution, mesh, params: dict, model: ModelSpec, temperature: float
) -> Fidelity:
    """Compare what the signal keeps with all logits of the teacher, on held-out windows spread over the domains."""
    held_NxL1, length = corpus.validation().tokens_NxL1, group.cells[0].data.sequence_tokens
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = ways * max(1, min(len(held_NxL1), FIDELITY_TOKENS // length) // ways)
    chosen = np.linspace(0, len(held_NxL1) - 1, rows).astype(int)
    spread = None if runs_core_blocked(group.cells, execution) else mesh
    place = layout(spread, execution)
    specs = (ObjectiveSpec(temperature=temperature, temperature_squared=False),)

    @partial(jax.jit, out_shardings=NamedSharding(mesh, P()))
    def compare(params, batch_1xBxL1):
        batch_BxL1 = batch_1xBxL1[0]
        labels_N = batch_BxL1[:, 1:].reshape(-1)
        teacher = output_of(model, execution, spread, params, batch_BxL1[:, :-1])
        kept = keep(group.signal, (temperature,), place, teacher, jax.random.uniform(jax.random.key(0), labels_N.shape))
        mass_N = by_chunks(lambda log_probs, ids: kept_mass(ids, log_probs, temperature), place, teacher, kept.ids_NxT)

        def loss(out_DxV, seen):
            return objective_losses(specs, place, [Output(teacher.hidden_NxD, out_DxV)], seen, labels_N)[0]

        student = teacher.out_DxV * REFERENCE_SCALE
        whole, whole_slope = jax.value_and_grad(loss)(student, teacher)
        found, found_slope = jax.value_and_grad(loss)(student, kept)
        products = [jnp.vdot(a, b) for a in (whole_slope, found_slope) for b in (whole_slope, found_slope)]
        return jnp.mean(mass_N), whole, found, products[1] / jnp.sqrt(products[0] * products[3])

    mass, whole, found, agreement = compare(params, put(mesh, held_NxL1[None, chosen]))
    return Fidelity(
        temperature=temperature,
        tokens=rows * length,
        kept_mass=float(mass),
        kl_nats=float(whole),
        kl_error_nats=float(found - whole),
        gradient_agreement=float(agreement),
    )


def _wait_for_all(path: Path) -> None:
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(str(path))
