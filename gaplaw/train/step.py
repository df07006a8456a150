"""What happens in one dispatch? Many steps of every student of a group over shared batches and one shared teacher pass.

Two compiled programs per group: `train` (scan over steps, state donated) and `evaluate` (scan over validation batches). Students
move either together, one chunk of the shared objective at a time, or, on a CPU core, one after the other.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import optax

from gaplaw.distill import batch_targets, objective_losses, score_batch, view
from gaplaw.execution import Execution
from gaplaw.spec import ModelSpec
from gaplaw.train.mesh import layout
from gaplaw.train.stack import Stack, State, output_of, runs_core_blocked


def _moved(stack: Stack, state: State, slope) -> State:
    """One student after one optimizer step."""
    change, moments = stack.optimizer.update(slope, state.moments, state.params)
    return State(optax.apply_updates(state.params, change), moments)


def train_program(stacks: list[Stack], teacher_model: ModelSpec | None, execution: Execution, mesh: jax.sharding.Mesh):
    """Compile-ready `train(states, teacher_params, batches_KxBxL1, active_K) -> (states, losses)`.

    active_K: False at a step leaves the states as they are. `states` is donated.
    losses: one array [K, S] per stack, the objective in nats per token at each of the K steps.
    """
    specs = tuple(stack.objective for stack in stacks)
    soft = any(spec.soft_weight > 0 for spec in specs)
    blocked = runs_core_blocked(stacks[0].cells, execution)

    def output(model, params, inputs_BxL):
        return output_of(model, execution, blocked, params, inputs_BxL)

    def together(states, teacher, inputs_BxL, labels_N):
        def total(params):
            students = [
                jax.vmap(lambda student, stack=stack: output(stack.model, student, inputs_BxL))(of_stack)
                for stack, of_stack in zip(stacks, params, strict=True)
            ]
            losses = objective_losses(specs, layout(mesh, execution), students, teacher, labels_N)
            return sum(jnp.sum(loss) for loss in losses), losses  # a sum: each student's gradient is its own

        slopes, losses = jax.grad(total, has_aux=True)([state.params for state in states])
        moved = [
            jax.vmap(partial(_moved, stack))(state, slope)
            for stack, state, slope in zip(stacks, states, slopes, strict=True)
        ]
        return moved, losses

    def in_turn(states, teacher, inputs_BxL, labels_N):
        by_heat = None if teacher is None else batch_targets(specs, teacher)

        def one(stack, state):
            def loss(params):
                student = output(stack.model, params, inputs_BxL)
                chunks = layout(None, execution)
                return objective_losses((stack.objective,), chunks, [student], by_heat, labels_N)[0]

            value, slope = jax.value_and_grad(loss)(state.params)
            return _moved(stack, state, slope), value

        done = [jax.lax.map(partial(one, stack), state) for stack, state in zip(stacks, states, strict=True)]
        return [moved for moved, _ in done], [losses for _, losses in done]

    def step(states, piece, teacher_params):
        batch_BxL1, active = piece
        inputs_BxL, labels_N = batch_BxL1[:, :-1], batch_BxL1[:, 1:].reshape(-1)
        teacher = output(teacher_model, teacher_params, inputs_BxL) if soft else None
        moved, losses = (in_turn if blocked else together)(states, teacher, inputs_BxL, labels_N)
        return jax.tree.map(partial(jnp.where, active), moved, states), losses

    @partial(jax.jit, donate_argnums=0)
    def train(states, teacher_params, batches_KxBxL1, active_K):
        return jax.lax.scan(partial(step, teacher_params=teacher_params), states, (batches_KxBxL1, active_K))

    return train


def evaluate_program(stacks: list[Stack], teacher_model: ModelSpec | None, execution: Execution, domains: int):
    """Compile-ready `evaluate(params, teacher_params, tokens_KxBxL1, domain_KxB)`.

    Returns (student scores: one `Scores` of [K, S, …] per stack, teacher scores [K, …] or None); sum over K in float64.
    """
    blocked = runs_core_blocked(stacks[0].cells, execution)

    @jax.jit
    def evaluate(params, teacher_params, tokens_KxBxL1, domain_KxB):
        def one(_, piece):
            batch_BxL1, domain_B = piece
            inputs_BxL, labels_N = batch_BxL1[:, :-1], batch_BxL1[:, 1:].reshape(-1)
            domain_N = jnp.repeat(domain_B, inputs_BxL.shape[1])

            def output(model, of_model):
                return output_of(model, execution, blocked, of_model, inputs_BxL)

            teacher = None if teacher_model is None else output(teacher_model, teacher_params)
            seen = None if teacher is None else view(teacher)
            score = partial(score_batch, labels_N=labels_N, domain_N=domain_N, domains=domains)
            over_students = jax.lax.map if blocked else (lambda one, students: jax.vmap(one)(students))
            students = [
                over_students(lambda student, stack=stack: score(output(stack.model, student), seen), of_stack)
                for stack, of_stack in zip(stacks, params, strict=True)
            ]
            return None, (students, None if teacher is None else score(teacher, None))

        return jax.lax.scan(one, None, (tokens_KxBxL1, domain_KxB))[1]

    return evaluate
