"""How does the same model run fast on one CPU core when it is only a few dozen wide? Features first, tokens last.

The forward pass of transformer.py with activations as [features, tokens], so that vector instructions run over tokens
instead of over 8 or 12 features, and with the gradient of attention written out. Equal to `transformer.apply_hidden`
within float tolerance (a test); in a prototype this, with students in turn and the one-pass objective, took a student
step of 4,096 tokens at width 8 from 16 to 5.5 ms (one core, single run of each). Wide models and accelerators use
transformer.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gaplaw.models.attention import ROTARY_BASE
from gaplaw.models.transformer import NORM_EPSILON
from gaplaw.spec import ModelSpec


def _times(x_DxN: jax.Array, weights: dict, width: int) -> jax.Array:
    """kernelᵀ·x (+ bias) with the kernel flattened to [width, features]."""
    kernel_DxF = weights["kernel"].reshape(width, -1)
    y_FxN = jax.lax.dot_general(kernel_DxF, x_DxN, (((0,), (0,)), ((), ())))
    return y_FxN + weights["bias"].reshape(-1, 1) if "bias" in weights else y_FxN


def _norm(x_DxN: jax.Array, weights: dict) -> jax.Array:
    if "bias" in weights:
        x_DxN = x_DxN - jnp.mean(x_DxN, axis=0, keepdims=True)
    scale_1xN = jax.lax.rsqrt(jnp.mean(x_DxN * x_DxN, axis=0, keepdims=True) + NORM_EPSILON)
    y_DxN = x_DxN * scale_1xN * weights["scale"][:, None]
    return y_DxN + weights["bias"][:, None] if "bias" in weights else y_DxN


def _batched(a, b, a_axis: int, b_axis: int):
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((0,), (0,))))


def _attend(query_NxKxL, key_NxKxM, value_NxKxM):
    """Causal attention of N independent (head, sequence) pairs; scores are [N, M (looked at), L (looking)]."""
    length = query_NxKxL.shape[-1]
    future_MxL = np.where(np.triu(np.ones((length, length), bool)), 0.0, -1e30).astype(np.float32)
    scores_NxMxL = _batched(key_NxKxM, query_NxKxL, 1, 1) + future_MxL
    powers_NxMxL = jnp.exp(scores_NxMxL - jnp.max(scores_NxMxL, axis=1, keepdims=True))
    share_Nx1xL = 1 / jnp.sum(powers_NxMxL, axis=1, keepdims=True)
    context_NxKxL = _batched(value_NxKxM, powers_NxMxL, 2, 1) * share_Nx1xL
    return context_NxKxL, (query_NxKxL, key_NxKxM, value_NxKxM, powers_NxMxL, share_Nx1xL, context_NxKxL)


@jax.custom_vjp
def attend(query_NxKxL, key_NxKxM, value_NxKxM):
    return _attend(query_NxKxL, key_NxKxM, value_NxKxM)[0]


def _attend_backward(kept, slope_NxKxL):
    query, key, value, powers_NxMxL, share_Nx1xL, context_NxKxL = kept
    slope_NxKxL = slope_NxKxL * share_Nx1xL
    slope_scores = powers_NxMxL * (
        _batched(value, slope_NxKxL, 1, 1) - jnp.sum(slope_NxKxL * context_NxKxL, axis=1, keepdims=True)
    )
    return (
        _batched(key, slope_scores, 2, 1),
        _batched(query, slope_scores, 2, 2),
        _batched(slope_NxKxL, powers_NxMxL, 2, 2),
    )


attend.defvjp(_attend, _attend_backward)


def _rotate(x_HxKxBxL: jax.Array) -> jax.Array:
    half, length = x_HxKxBxL.shape[1] // 2, x_HxKxBxL.shape[3]
    frequency = ROTARY_BASE ** (-np.arange(half, dtype=np.float32) / half)
    angle_Kx1xL = (frequency[:, None] * np.arange(length, dtype=np.float32))[:, None, :].astype(np.float32)
    cos, sin = np.cos(angle_Kx1xL), np.sin(angle_Kx1xL)
    first, second = x_HxKxBxL[:, :half], x_HxKxBxL[:, half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)


def _attention(x_DxN, weights, spec: ModelSpec, heads: int, batch: int):
    groups, size = heads // spec.kv_group, spec.head_size

    def project(name, count):
        return _times(x_DxN, weights[name], spec.width).reshape(count, size, batch, -1)

    query, key, value = project("query", heads) * size**-0.5, project("key", groups), project("value", groups)
    if spec.block == "llama":
        query, key = _rotate(query), _rotate(key)

    def pairs(x_HxKxBxL):  # each (head, sequence) is one small attention
        shared = jnp.repeat(x_HxKxBxL, heads // x_HxKxBxL.shape[0], axis=0)
        return shared.swapaxes(1, 2).reshape(heads * batch, size, -1)

    context = attend(pairs(query), pairs(key), pairs(value)).reshape(heads, batch, size, -1)
    return _times(context.swapaxes(1, 2).reshape(heads * size, -1), weights["output"], heads * size)


def _feed_forward(x_DxN, weights, spec: ModelSpec, hidden: int):
    up_FxN = _times(x_DxN, weights["up"], spec.width)
    if spec.block == "gpt2":
        inner_FxN = jax.nn.gelu(up_FxN, approximate=True)
    else:
        inner_FxN = jax.nn.silu(_times(x_DxN, weights["gate"], spec.width)) * up_FxN
    return _times(inner_FxN, weights["down"], hidden)


def apply_hidden(params: dict, tokens_BxL: jax.Array, spec: ModelSpec) -> jax.Array:
    """hidden_BxLxD in float32, after the final norm: `transformer.apply_hidden` with features first.

    Args: params: from `init`, unstacked. tokens_BxL: int32.
    """
    batch, length = tokens_BxL.shape
    x_DxN = params["token_embedding"]["embedding"][tokens_BxL.reshape(-1)].T
    if spec.block == "gpt2":
        positions_Dx1xL = params["position_embedding"]["embedding"][:length].T[:, None]
        x_DxN = (x_DxN.reshape(-1, batch, length) + positions_Dx1xL).reshape(x_DxN.shape)
    for index, (heads, hidden) in enumerate(zip(spec.heads_by_layer, spec.hidden_by_layer, strict=True)):
        weights = params.get(f"layers_{index}", {})
        if heads:
            normed = _norm(x_DxN, weights["attention_norm"])
            x_DxN = x_DxN + _attention(normed, weights["attention"], spec, heads, batch)
        if hidden:
            normed = _norm(x_DxN, weights["feed_forward_norm"])
            x_DxN = x_DxN + _feed_forward(normed, weights["feed_forward"], spec, hidden)
    return _norm(x_DxN, params["final_norm"]).T.reshape(batch, length, spec.width)
