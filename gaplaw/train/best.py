"""Which parameters of each student had the lowest validation loss so far? For export; the rows always describe the last
ones.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gaplaw.train.stack import Stack, State


class Best:
    """A copy of every stack's parameters, each student's as of its best evaluation; costs the parameters once more.

    params: per stack, like State.params. losses_nats: by cell id, infinite before the first evaluation.
    """

    def __init__(self, stacks: list[Stack], states: list[State]):
        self.stacks = stacks
        self.params = [jax.tree.map(jnp.copy, state.params) for state in states]
        self.losses_nats = {cell.id: float("inf") for stack in stacks for cell in stack.cells}

    def offer(self, states: list[State], losses_nats: dict[str, float]) -> None:
        """Take the students whose loss is below their lowest (a NaN never is)."""
        for number, (stack, state) in enumerate(zip(self.stacks, states, strict=True)):
            better_S = np.array([losses_nats[cell.id] < self.losses_nats[cell.id] for cell in stack.cells])
            self.params[number] = _chosen(self.params[number], state.params, better_S)
            for cell, better in zip(stack.cells, better_S, strict=True):
                if better:
                    self.losses_nats[cell.id] = losses_nats[cell.id]


@partial(jax.jit, donate_argnums=0)
def _chosen(old, new, better_S):
    def choose(old_Sx, new_Sx):
        return jnp.where(better_S.reshape(-1, *(1,) * (new_Sx.ndim - 1)), new_Sx, old_Sx)

    return jax.tree.map(choose, old, new)
