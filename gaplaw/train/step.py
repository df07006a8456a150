"""What happens in one dispatch? Many steps of every student of a group over shared batches and one shared teacher pass.

Two compiled programs per group: `train` (scan over steps, state donated) and `evaluate` (scan over validation batches).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import optax

from gaplaw.distill import objective_losses, score_batch
from gaplaw.spec import ModelSpec
from gaplaw.train.stack import Stack, State, output_of, outputs


def train_program(stacks: list[Stack], teacher_model: ModelSpec | None, chunk_tokens: int):
    """Compile-ready `train(states, teacher_params, batches_KxBxL1) -> (states, losses)`.

    losses: one array [K, S] per stack, the objective in nats per token at each of the K steps. `states` is donated.
    """
    specs = tuple(stack.objective for stack in stacks)
    optimizers = [stack.optimizer for stack in stacks]
    soft = any(spec.soft_weight > 0 for spec in specs)

    def step(states, teacher_params, batch_BxL1):
        inputs_BxL, labels_N = batch_BxL1[:, :-1], batch_BxL1[:, 1:].reshape(-1)
        teacher = jax.lax.stop_gradient(output_of(teacher_model, teacher_params, inputs_BxL)) if soft else None

        def total(params):
            students = [outputs(stack, p, inputs_BxL) for stack, p in zip(stacks, params, strict=True)]
            losses = objective_losses(specs, chunk_tokens, students, teacher, labels_N)
            return sum(jnp.sum(loss) for loss in losses), losses  # a sum: each student's gradient is its own

        slopes, losses = jax.grad(total, has_aux=True)([state.params for state in states])
        moved = []
        for tx, state, slope in zip(optimizers, states, slopes, strict=True):
            change, moments = jax.vmap(tx.update)(slope, state.moments, state.params)
            moved.append(State(optax.apply_updates(state.params, change), moments))
        return moved, losses

    @partial(jax.jit, donate_argnums=0)
    def train(states, teacher_params, batches_KxBxL1):
        return jax.lax.scan(lambda held, batch: step(held, teacher_params, batch), states, batches_KxBxL1)

    return train


def evaluate_program(stacks: list[Stack], teacher_model: ModelSpec | None, domains: int):
    """Compile-ready `evaluate(params, teacher_params, tokens_KxBxL1, domain_KxB)`.

    Returns (student scores: one `Scores` of [K, S, …] per stack, teacher scores [K, …] or None); sum over K in float64.
    """

    @jax.jit
    def evaluate(params, teacher_params, tokens_KxBxL1, domain_KxB):
        def one(_, piece):
            batch_BxL1, domain_B = piece
            inputs_BxL, labels_N = batch_BxL1[:, :-1], batch_BxL1[:, 1:].reshape(-1)
            domain_N = jnp.repeat(domain_B, inputs_BxL.shape[1])
            teacher = None if teacher_model is None else output_of(teacher_model, teacher_params, inputs_BxL)
            score = partial(score_batch, labels_N=labels_N, domain_N=domain_N, domains=domains)
            students = [
                jax.vmap(lambda student: score(student, teacher))(outputs(stack, p, inputs_BxL))
                for stack, p in zip(stacks, params, strict=True)
            ]
            return None, (students, None if teacher is None else score(teacher, None))

        return jax.lax.scan(one, None, (tokens_KxBxL1, domain_KxB))[1]

    return evaluate
