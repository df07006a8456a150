"""Which values does a parameter start with? A function of its path and shape, and one normal draw for many of them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from gaplaw.spec import ModelSpec


def deviation(path: str, shape: tuple[int, ...], spec: ModelSpec) -> float | None:
    """Standard deviation of one weight's initial values by its path; None for what is not drawn (norm scales, biases).

    sqrt(2/(5·fan_in)): 0.02 at fan_in 1000 as in GPT-2, and still of useful size at fan_in 4. A fixed 0.02 would make
    models of width 8 start with vanishing signals and take ever larger steps at width 8192; so hidden and output
    signals keep one scale at every width. Reference: Nguyen & Salazar 2019 (1910.05895) §3.2 (SmallInit).
    """
    if path.endswith(("scale", "bias")):
        return None
    residual = (2 * spec.depth) ** -0.5  # that many writes add up in the residual stream (Radford et al. 2019 §2.3)
    if "attention/output" in path:
        return residual * math.sqrt(0.4 / (shape[0] * shape[1]))
    if "down" in path:
        return residual * math.sqrt(0.4 / shape[0])
    return math.sqrt(0.4 / spec.width) * (0.5 if "position" in path else 1.0)


def drawn(key: jax.Array, shapes: dict, spec: ModelSpec) -> dict:
    """Initial values for a tree of shapes, from one normal draw: many small draws cost seconds of compile time each."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    named = [("/".join(str(part.key) for part in path), leaf.shape) for path, leaf in leaves]
    total = sum(math.prod(shape) for path, shape in named if deviation(path, shape, spec) is not None)
    normal, at, values = jax.random.normal(key, (total,)), 0, []
    for path, shape in named:
        scale, size = deviation(path, shape, spec), math.prod(shape)
        if scale is None:
            values.append(jnp.ones(shape) if path.endswith("scale") else jnp.zeros(shape))
        else:
            values.append(scale * normal[at : at + size].reshape(shape))
            at += size
    return jax.tree.unflatten(tree, values)
