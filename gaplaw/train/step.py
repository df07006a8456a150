"""What happens in one dispatch? Some steps of every student of a group over shared batches and one shared teacher pass.

Two ways. *Together* (here; accelerators and meshes): all students at once in one compiled program, one chunk of the
joint objective at a time. *In turn* (in_turn.py; one CPU core): a program of the teacher, then one per stack of
students. Both are used through the two functions below and give equal numbers.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from gaplaw.distill import Kept, Output, objective_losses, score_group
from gaplaw.spec import Execution, ModelSpec
from gaplaw.train import cpu_path as in_turn
from gaplaw.train.mesh import layout, microbatches, student_axis
from gaplaw.train.stack import Stack, inputs_and_labels, moved, output_of, runs_core_blocked, seen_of_teacher

HELD_LOGITS = 2**24  # 64 MiB: what the teacher makes for all batches of a dispatch, in turn


def batches_at_once(stacks: list[Stack], execution: Execution) -> int:
    """Batches of one dispatch: as `execution` says, fewer where a teacher's probabilities for them would take too much
    memory.
    """
    cell = stacks[0].cells[0]
    if not runs_core_blocked(stacks[0].cells, execution):
        return execution.steps_per_dispatch
    return max(1, min(execution.steps_per_dispatch, HELD_LOGITS // (cell.batch_tokens * cell.model.vocab_size)))


def held_shape(stacks: list[Stack], execution: Execution, sequences: int) -> tuple[int, int, int]:
    """How the validation sequences are dealt out: (dispatches, batches of one, rows of one), at least `sequences` in
    all.

    As many rows at a time as a microbatch of training has, so that evaluation fits where training does.
    """
    ways = execution.mesh.data * execution.mesh.fsdp
    most = stacks[0].cells[0].train.batch_sequences // (ways * execution.accumulate)
    rows = ways * min(most, -(-sequences // ways))
    batches = -(-sequences // rows)
    dispatches = -(-batches // batches_at_once(stacks, execution))
    return dispatches, -(-batches // dispatches), rows


def train_program(stacks: list[Stack], teacher_model: ModelSpec | None, execution: Execution, mesh: jax.sharding.Mesh):
    """`train(states, taught, batches_KxBxL1, first, stop) -> (states, losses)`: steps first to stop - 1 of the K.

    taught: the teacher's parameters, or what a cache kept of these batches: [K, B, L, …].
    `states` is donated. losses: one array [K, S] per stack, the objective in nats per token at each step taken.
    """
    specs = tuple(stack.objective for stack in stacks)
    soft = any(spec.soft_weight > 0 for spec in specs)
    if not runs_core_blocked(stacks[0].cells, execution):
        return _together(stacks, teacher_model if soft else None, execution, mesh)
    teach = in_turn.targets_program(specs, teacher_model, execution) if soft else lambda taught, batches: {}
    programs = [in_turn.stack_program(stack, execution) for stack in stacks]

    def train(states, taught, batches_KxBxL1, first, stop):
        by_heat = teach(taught, batches_KxBxL1)
        done = []
        for stack, program, state in zip(stacks, programs, states, strict=True):
            heat = stack.objective.temperature
            mine = {heat: by_heat[heat]} if stack.objective.soft_weight > 0 else None
            done.append(program(state, batches_KxBxL1, mine, first, stop))
        return [state for state, _ in done], [losses_KxS for _, losses_KxS in done]

    return train


def evaluate_program(
    stacks: list[Stack], teacher_model: ModelSpec | None, execution: Execution, domains: int, mesh: jax.sharding.Mesh
):
    """`evaluate(params, teacher_params, tokens_KxBxL1, domain_KxB)`.

    Returns (student scores: one `Scores` of [parts, S, …] per stack, teacher scores [parts, …] or None); sum parts in
    float64.
    """
    if not runs_core_blocked(stacks[0].cells, execution):
        return _evaluate_together(stacks, teacher_model, execution, domains, mesh)
    look = in_turn.view_program(teacher_model, execution, domains) if teacher_model else lambda *_: (None, None)
    programs = [in_turn.score_program(stack, execution, domains) for stack in stacks]

    def evaluate(params, teacher_params, tokens_KxBxL1, domain_KxB):
        views, teacher = look(teacher_params, tokens_KxBxL1, domain_KxB)
        return [
            score(of, tokens_KxBxL1, domain_KxB, views) for score, of in zip(programs, params, strict=True)
        ], teacher

    return evaluate


def outputs_of(stacks: list[Stack], execution: Execution, mesh, params: list, inputs_BxL) -> list[Output]:
    """hidden_SxNxD and out_SxDxV of every stack, on the same inputs."""

    def outputs(stack: Stack, mine) -> Output:
        def one(student):
            return output_of(stack.model, execution, mesh, student, inputs_BxL)

        return jax.vmap(one, spmd_axis_name=student_axis(mesh, len(stack.cells)))(mine)

    return [outputs(stack, mine) for stack, mine in zip(stacks, params, strict=True)]


def _together(stacks: list[Stack], teacher_model: ModelSpec | None, execution: Execution, mesh: jax.sharding.Mesh):
    specs = tuple(stack.objective for stack in stacks)

    def slopes_and_losses(params, taught, at, batch_BxL1):
        inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)
        teacher = None
        if teacher_model is not None:
            teacher = seen_of_teacher(teacher_model, execution, mesh, taught, at, inputs_BxL)

        def total(params):
            students = outputs_of(stacks, execution, mesh, params, inputs_BxL)
            losses = objective_losses(specs, layout(mesh, execution), students, teacher, labels_N)
            return sum(jnp.sum(loss) for loss in losses), losses  # a sum: each student's gradient is its own

        return jax.grad(total, has_aux=True)(params)

    def mean_of_microbatches(params, taught, at, batch_BxL1):
        count = execution.accumulate
        pieces_AxBxL1 = microbatches(mesh, batch_BxL1, count)
        if isinstance(taught, Kept):
            taught = microbatches(mesh, jax.tree.map(lambda part: part[at], taught), count)

        def add(so_far, piece):
            return jax.tree.map(jnp.add, so_far, slopes_and_losses(params, taught, *piece)), None

        shapes = jax.eval_shape(slopes_and_losses, params, taught, 0, pieces_AxBxL1[0])
        nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        whole, _ = jax.lax.scan(add, nothing, (jnp.arange(count), pieces_AxBxL1))
        return jax.tree.map(lambda part: part / count, whole)

    def step(at, carried, taught, batches_KxBxL1):
        states, history = carried
        of_batch = slopes_and_losses if execution.accumulate == 1 else mean_of_microbatches
        slopes, losses = of_batch([state.params for state in states], taught, at, batches_KxBxL1[at])
        states = [
            jax.vmap(partial(moved, stack))(state, slope)
            for stack, state, slope in zip(stacks, states, slopes, strict=True)
        ]
        return states, [kept_KxS.at[at].set(loss) for kept_KxS, loss in zip(history, losses, strict=True)]

    @partial(jax.jit, donate_argnums=0)
    def train(states, taught, batches_KxBxL1, first, stop):
        history = [jnp.zeros((len(batches_KxBxL1), len(stack.cells)), jnp.float32) for stack in stacks]
        one = partial(step, taught=taught, batches_KxBxL1=batches_KxBxL1)
        return jax.lax.fori_loop(first, stop, one, (states, history))

    return train


def _evaluate_together(stacks: list[Stack], teacher_model, execution: Execution, domains: int, mesh):
    @jax.jit
    def evaluate(params, teacher_params, tokens_KxBxL1, domain_KxB):
        def one(piece):
            batch_BxL1, domain_B = piece
            inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)
            domain_N = jnp.repeat(domain_B, inputs_BxL.shape[1])

            teacher = None
            if teacher_model is not None:
                teacher = output_of(teacher_model, execution, mesh, teacher_params, inputs_BxL)
            students = outputs_of(stacks, execution, mesh, params, inputs_BxL)
            return score_group(layout(mesh, execution), students, teacher, labels_N, domain_N, domains=domains)

        return jax.lax.map(one, (tokens_KxBxL1, domain_KxB))

    return evaluate
