"""How does a position look at earlier positions? Causal attention in one function, and the rotary encoding.

Pure functions of arrays, so that the kernel (plain, XLA's or cuDNN's) is one argument and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

Kernel = Literal["plain", "xla", "cudnn"] | Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
ROTARY_BASE = 10_000.0


def attend(query_BxLxHxK, key_BxLxGxK, value_BxLxGxK, kernel: Kernel = "plain") -> jax.Array:
    """Causal attention: softmax(q·kᵀ / sqrt(K), over positions not in the future)·v, with the softmax in float32.

    Query heads h share the key/value head h // (H/G). kernel "xla" and "cudnn" select `jax.nn.dot_product_attention`
    (cuDNN: bfloat16 on an NVIDIA device); "plain" is written out here, and is what CPU runs use. A function is called
    instead.

    Returns: context_BxLxHxK in the dtype of the value.
    Reference: Vaswani et al. 2017 (1706.03762) eq. 1; grouped queries: Ainslie et al. 2023 (2305.13245).
    """
    if callable(kernel):
        return kernel(query_BxLxHxK, key_BxLxGxK, value_BxLxGxK)
    if kernel != "plain":
        return jax.nn.dot_product_attention(
            query_BxLxHxK, key_BxLxGxK, value_BxLxGxK, is_causal=True, implementation=kernel
        )
    batch, length, heads, head_size = query_BxLxHxK.shape
    groups = key_BxLxGxK.shape[2]
    grouped_BxLxGxRxK = (query_BxLxHxK * head_size**-0.5).reshape(batch, length, groups, heads // groups, head_size)
    scores = jnp.einsum("blgrk,bmgk->bgrlm", grouped_BxLxGxRxK, key_BxLxGxK, preferred_element_type=jnp.float32)
    past_LxL = jnp.tril(jnp.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(past_LxL, scores, -jnp.inf), axis=-1).astype(value_BxLxGxK.dtype)
    return jnp.einsum("bgrlm,bmgk->blgrk", weights, value_BxLxGxK).reshape(query_BxLxHxK.shape)


def rotate(x_BxLxHxK: jax.Array) -> jax.Array:
    """Rotary positions: coordinates (j, j + K/2) turn by position·base^(−2j/K), computed in float32.

    Reference: Su et al. 2021 (2104.09864) eq. 34, in the half-split order of the Llama checkpoints on Hugging Face.
    """
    length, half = x_BxLxHxK.shape[1], x_BxLxHxK.shape[3] // 2
    frequency = ROTARY_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_Lx1xK = (jnp.arange(length, dtype=jnp.float32)[:, None] * frequency)[:, None, :]
    cos, sin = jnp.cos(angle_Lx1xK), jnp.sin(angle_Lx1xK)
    first, second = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BxLxHxK.dtype)
