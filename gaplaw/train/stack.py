"""Which students of a group are one array program? Those that differ only in their seed: a stack.

A stack holds the parameters of S cells of one shape, objective and recipe along a leading axis; everything that is done
to one student is done to all of them under vmap. Parameters are made on the devices that will hold them, never whole
elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gaplaw import models
from gaplaw.distill import Kept, Output, TeacherInput
from gaplaw.models import features_first as narrow
from gaplaw.models.prune import importance, prune
from gaplaw.spec import Cell, Execution, ModelSpec
from gaplaw.train.mesh import attention_on, placed, put, shardings
from gaplaw.train.optimizer import optimizer

STEP = "step"  # in `State.method`: of a student's optimizer, beside what its objective carries
SAMPLE_TOKENS = 2**11  # of the importance sample that a device holds activations and logits of at one time


@dataclass(frozen=True)
class Stack:
    """S cells that share `model` (the shape really trained, after pruning), objective and recipe.

    scanned: whether their layers are held as one array with a leading depth axis.
    """

    cells: tuple[Cell, ...]
    model: ModelSpec
    scanned: bool = False

    @property
    def objective(self):
        return self.cells[0].objective

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optimizer(self.cells[0].train, self.cells[0].steps)


class State(NamedTuple):
    """What a training step changes, each with a leading axis over the stack's seeds.

    method: what the objective carries from step to step (`Objective.initial_state`), and the number of its step; empty
      for an objective without a state.
    """

    params: dict
    moments: optax.OptState
    method: dict


def scans(model: ModelSpec, cells: tuple[Cell, ...], execution: Execution) -> bool:
    """Whether a program of these cells holds and runs the layers of a model as `Execution.scan_layers` describes."""
    return execution.scan_layers and model.uniform and not runs_core_blocked(cells, execution)


def stacks_of(cells: tuple[Cell, ...], shapes: dict[str, ModelSpec], execution: Execution) -> list[Stack]:
    """Sort a group's cells into stacks. shapes: the shape to train by cell fingerprint (differs from cell.model when
    pruned).
    """
    by_key: dict[tuple, list[Cell]] = {}
    for cell in cells:
        key = (shapes[cell.fingerprint], cell.objective, cell.train, cell.init)
        by_key.setdefault(key, []).append(cell)
    return [Stack(tuple(members), key[0], scans(key[0], cells, execution)) for key, members in by_key.items()]


def abstract_state(stack: Stack) -> State:
    """Shapes and dtypes of a stack's state; nothing is allocated."""
    return jax.eval_shape(partial(_fresh, stack), keys_of(stack))


def start(stack: Stack, pruned: dict | None, mesh: jax.sharding.Mesh) -> State:
    """Initial state on the mesh: from each cell's seed alone, or the same pruned parameters for every seed."""
    if pruned is None:
        return start_program(stack, mesh)(keys_of(stack))
    count = len(stack.cells)

    def copies(params):
        return _with_moments(
            stack, jax.tree.map(lambda p: jnp.broadcast_to(p, (count, *p.shape)), _held(stack, params))
        )

    return jax.jit(copies, out_shardings=shardings(mesh, abstract_state(stack), stacked=True))(pruned)


def start_program(stack: Stack, mesh: jax.sharding.Mesh):
    """`program(keys_S)`: the initial state from the keys of a stack's seeds."""
    return jax.jit(partial(_fresh, stack), out_shardings=shardings(mesh, abstract_state(stack), stacked=True))


def keys_of(stack: Stack) -> jax.Array:
    """keys_S, one random key for each seed."""
    return jnp.stack([jax.random.key(cell.seed) for cell in stack.cells])


def _fresh(stack: Stack, keys_S: jax.Array) -> State:
    return _with_moments(stack, jax.vmap(lambda key: _held(stack, models.init(key, stack.model)))(keys_S))


def _held(stack: Stack, params: dict) -> dict:
    return models.stack_layers(params, stack.model) if stack.scanned else params


def params_of(stack: Stack, params: dict, place: int) -> dict:
    """The parameters of one cell of a stack, in the form that `models.init` gives."""
    params = jax.tree.map(lambda p: p[place], params)
    return models.unstack_layers(params, stack.model) if stack.scanned else params


def teacher_on(mesh: jax.sharding.Mesh, params: dict | None, model: ModelSpec | None, cells, execution: Execution):
    """A teacher's parameters as a group's programs hold them: on the mesh, in `teacher_dtype`, layers stacked if
    scanned.

    Args: params: arrays, or shapes: then shapes with shardings are returned and nothing is allocated.
    """
    if params is None:
        return None

    def held(params):
        params = models.stack_layers(params, model) if scans(model, cells, execution) else params
        return jax.tree.map(lambda p: p.astype(execution.teacher_dtype), params)

    shapes = placed(mesh, jax.eval_shape(held, params), stacked=False)
    if isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct):
        return shapes
    params = jax.device_put(params, shardings(mesh, params, stacked=False))
    return jax.jit(held, out_shardings=jax.tree.map(lambda shape: shape.sharding, shapes))(params)


def _with_moments(stack: Stack, params: dict) -> State:
    return State(params, jax.vmap(stack.optimizer.init)(params), _first_method_state(stack))


def _first_method_state(stack: Stack) -> dict:
    first, count = stack.objective.initial_state(), len(stack.cells)
    values = {name: jnp.full(count, value, jnp.float32) for name, value in first.items()}
    return values | {STEP: jnp.zeros(count, jnp.int32)} if values else {}


def apply_gradients(stack: Stack, state: State, grads, means: dict) -> State:
    """One student after one optimizer step. means: of its loss ("loss") and of what its objective measures."""
    change, moments = stack.optimizer.update(grads, state.moments, state.params)
    method = state.method
    if method:
        step = method[STEP] + 1
        after = stack.objective.next_state(objective_state(method), means, step / stack.cells[0].steps)
        method = {name: jnp.asarray(value, jnp.float32) for name, value in after.items()} | {STEP: step}
    return State(optax.apply_updates(state.params, change), moments, method)


def objective_state(method: dict) -> dict:
    """What of `State.method` is the objective's own."""
    return {name: value for name, value in method.items() if name != STEP}


def inputs_and_labels(batch_BxL1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """inputs_BxL and, flat, the next token at each position: labels_N."""
    return batch_BxL1[:, :-1], batch_BxL1[:, 1:].reshape(-1)


def runs_core_blocked(cells: tuple[Cell, ...], execution: Execution) -> bool:
    """Whether a group runs as `Execution.core_blocked` describes; an objective may decline."""
    tokens_by_vocab = cells[0].batch_tokens * cells[0].model.vocab_size
    tiny = execution.mesh.devices == 1 and execution.compute_dtype == "float32" and tokens_by_vocab <= 2**24
    tiny = tiny and execution.accumulate == 1 and all(cell.objective.cpu_path for cell in cells)
    return execution.core_blocked and tiny and jax.default_backend() == "cpu"


def output_of(
    model: ModelSpec, execution: Execution, mesh: jax.sharding.Mesh | None, params: dict, tokens_BxL: jax.Array
) -> Output:
    """hidden_NxD and out_DxV of one model on one batch, N = B·L, in the compute dtype.

    Args: mesh: what the batch is spread over; None where the group runs core-blocked, see `runs_core_blocked`.
    """
    dtype = jnp.dtype(execution.compute_dtype)
    if mesh is None:
        hidden_BxLxD = narrow.apply_hidden(params, tokens_BxL, model)
    else:
        hidden_BxLxD = models.apply_hidden(
            params,
            tokens_BxL,
            model,
            dtype=dtype,
            kernel=attention_on(mesh, execution.attention),
            scan=execution.scan_layers and model.uniform,
            remat=execution.remat,
        )
    return Output(hidden_BxLxD.reshape(-1, hidden_BxLxD.shape[-1]), models.output_matrix(params, model).astype(dtype))


def teacher_at_step(model: ModelSpec, execution: Execution, mesh, source, at, inputs_BxL) -> TeacherInput:
    """What step `at` of a dispatch sees of its teacher.

    mesh: see `output_of`. source: the teacher's parameters, or what a cache kept of the dispatch: arrays [K, B, L, …].
    """
    if isinstance(source, Kept):
        return jax.tree.map(lambda part: part[at].reshape(-1, *part.shape[3:]), source)
    return output_of(model, execution, mesh, source, inputs_BxL)


def cut_from_teacher(cells, teacher, batches, mesh: jax.sharding.Mesh) -> dict[int, tuple[dict, ModelSpec]]:
    """Prune the teacher once per target size: target → (parameters, shape). Empty without pruned cells.

    Args: teacher: (params, ModelSpec), on the mesh. batches: int32 [K, B, L+1], the importance sample.
    Returns: parameters spread over the mesh; no student is ever whole on one device of several.
    """
    targets = sorted({cell.target_params for cell in cells if cell.init == "prune"})
    if not targets:
        return {}
    params, model = teacher
    rows = batches.shape[1] // (mesh.shape["data"] * mesh.shape["fsdp"])  # of one device
    fits = max(1, SAMPLE_TOKENS // batches.shape[2])
    at_once = max(count for count in range(1, rows + 1) if rows % count == 0 and count <= fits)
    spread = (put(mesh, batches[at : at + 1]) for at in range(len(batches)))
    ranking = importance(params, model, spread, pieces=rows // at_once)
    place = partial(shardings, mesh, stacked=False)
    return {target: prune(params, model, ranking, target, place) for target in targets}
