"""What happens in one dispatch? Some steps of every student of a group over shared batches and one shared teacher pass.

Two ways. *Together* (here; accelerators and meshes): all students at once in one compiled program, one chunk of the
joint objective at a time. *In turn* (cpu_path.py; one CPU core): a program of the teacher, then one per stack of
students. Both are used through the two functions below and give equal numbers.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gaplaw.distill import Kept, Output, objective_means, score_group, temperatures
from gaplaw.spec import Execution, ModelSpec
from gaplaw.train import cpu_path
from gaplaw.train.mesh import layout, microbatches, put, student_axis
from gaplaw.train.stack import (
    Stack,
    apply_gradients,
    inputs_and_labels,
    objective_state,
    output_of,
    runs_core_blocked,
    teacher_at_step,
)

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


def validation_pieces(
    stacks: list[Stack], execution: Execution, mesh: jax.sharding.Mesh, tokens_NxL1, domain_N
) -> list[list[jax.Array]]:
    """The validation sequences as dispatches of [K, B, …], filled up with sequences of domain -1, which do not
    count.
    """
    pieces, batches, rows = held_shape(stacks, execution, len(domain_N))
    spare = pieces * batches * rows - len(domain_N)
    tokens = np.pad(tokens_NxL1, ((0, spare), (0, 0))).reshape(pieces, batches, rows, tokens_NxL1.shape[1])
    domain = np.pad(domain_N, (0, spare), constant_values=-1).reshape(pieces, batches, rows)
    return [[put(mesh, part) for part in piece] for piece in zip(tokens, domain, strict=True)]


def train_program(stacks: list[Stack], teacher_model: ModelSpec | None, execution: Execution, mesh: jax.sharding.Mesh):
    """`train(states, source, batches_KxBxL1, first, stop) -> (states, losses, measured)`: steps first to stop - 1 of K.

    source: the teacher's parameters, or what a cache kept of these batches: [K, B, L, …].
    `states` is donated. losses: one array [K, S] per stack, the objective in nats per token at each step taken;
    measured: per stack, the same of what its objective measures, by name.
    """
    objectives = tuple(stack.objective for stack in stacks)
    needed = any(objective.needs_teacher for objective in objectives)
    if not runs_core_blocked(stacks[0].cells, execution):
        return _together(stacks, teacher_model if needed else None, execution, mesh)
    make_targets = cpu_path.targets_program(objectives, teacher_model, execution) if needed else lambda *_: ()
    programs = [cpu_path.stack_program(stack, execution) for stack in stacks]
    numbers = {temperature: number for number, temperature in enumerate(temperatures(objectives))}

    def train(states, source, batches_KxBxL1, first, stop):
        targets = make_targets(source, batches_KxBxL1)
        done = []
        for stack, program, state in zip(stacks, programs, states, strict=True):
            own = [targets[numbers[temperature]] for temperature in stack.objective.temperatures]
            done.append(program(state, batches_KxBxL1, own[0] if own else None, first, stop))
        return [state for state, _ in done], [losses_KxS for _, losses_KxS in done], [{} for _ in done]

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
    look = cpu_path.view_program(teacher_model, execution, domains) if teacher_model else lambda *_: (None, None)
    programs = [cpu_path.score_program(stack, execution, domains) for stack in stacks]

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
    objectives = tuple(stack.objective for stack in stacks)

    def grads_and_means(params, methods, source, at, batch_BxL1):
        inputs_BxL, labels_N = inputs_and_labels(batch_BxL1)
        teacher = None
        if teacher_model is not None:
            teacher = teacher_at_step(teacher_model, execution, mesh, source, at, inputs_BxL)

        def total(params):
            students = outputs_of(stacks, execution, mesh, params, inputs_BxL)
            means = objective_means(objectives, layout(mesh, execution), students, teacher, labels_N, methods)
            losses = sum(jnp.sum(loss) for loss, _ in means)  # a sum: each student's gradient is its own
            return losses, [{"loss": loss} | measured for loss, measured in means]

        return jax.grad(total, has_aux=True)(params)

    def mean_of_microbatches(params, methods, source, at, batch_BxL1):
        count = execution.accumulate
        pieces_AxBxL1 = microbatches(mesh, batch_BxL1, count)
        if isinstance(source, Kept):
            source = microbatches(mesh, jax.tree.map(lambda part: part[at], source), count)

        def add(so_far, piece):
            return jax.tree.map(jnp.add, so_far, grads_and_means(params, methods, source, *piece)), None

        shapes = jax.eval_shape(grads_and_means, params, methods, source, 0, pieces_AxBxL1[0])
        nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        whole, _ = jax.lax.scan(add, nothing, (jnp.arange(count), pieces_AxBxL1))
        return jax.tree.map(lambda part: part / count, whole)

    def step(at, carried, source, batches_KxBxL1):
        states, history = carried
        of_batch = grads_and_means if execution.accumulate == 1 else mean_of_microbatches
        methods = [objective_state(state.method) for state in states]
        grads, means = of_batch([state.params for state in states], methods, source, at, batches_KxBxL1[at])
        states = [
            jax.vmap(partial(apply_gradients, stack))(state, own_grads, own_means)
            for stack, state, own_grads, own_means in zip(stacks, states, grads, means, strict=True)
        ]
        return states, jax.tree.map(lambda all_KxS, now_S: all_KxS.at[at].set(now_S), history, means)

    @partial(jax.jit, donate_argnums=0)
    def train(states, source, batches_KxBxL1, first, stop):
        steps = len(batches_KxBxL1)
        history = [
            {name: jnp.zeros((steps, len(stack.cells)), jnp.float32) for name in ("loss", *stack.objective.measures)}
            for stack in stacks
        ]
        one = partial(step, source=source, batches_KxBxL1=batches_KxBxL1)
        states, history = jax.lax.fori_loop(first, stop, one, (states, history))
        return states, [of_stack.pop("loss") for of_stack in history], history

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
