"""What does the model compute? A decoder-only transformer, GPT-2 or Llama block, as pure functions of a parameter dict.

First file of models/ to read after attention. Flax Linen describes the parts; the functions at the bottom are the
whole public surface. Parameter paths are stable (`layers_0/attention/query/kernel`), float32, and carry no device or
mesh: sharding rules are applied from outside by path. All functions may be vmapped over a leading axis of parameters
(students of one shape).
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gaplaw.canonical import refuse_unless
from gaplaw.models.attention import Kernel, attend, rotate
from gaplaw.models.initial import drawn
from gaplaw.spec import ModelSpec

NORM_EPSILON = 1e-5  # GPT-2 and Llama-2
PRODUCT = "product"  # name of the outputs of products with weights, which remat="dots" keeps for the backward pass


def _of_cudnn(primitive, *_, **__) -> bool:
    """What cuDNN's attention leaves for its backward pass: a token's context and its normalisers."""
    return primitive.name.startswith("dot_product_attention_fwd")


KEPT_OF_DOTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.save_only_these_names(PRODUCT), _of_cudnn
)


class Masks(NamedTuple):
    """Multipliers for pruning (see prune.py): None in ordinary use, ones while ranking, zeros and ones in its tests.

    hidden_D is shared by all layers: it scales the embedding output and each residual write, and dimensions where it
    is zero take no part in norms. heads_H scales each head's output; neurons_F each feed-forward neuron; one array
    per layer.
    """

    hidden_D: jax.Array | None = None
    heads_H: tuple[jax.Array, ...] | jax.Array | None = None
    neurons_F: tuple[jax.Array, ...] | jax.Array | None = None

    def layer(self, index: int) -> Masks:
        heads, neurons = (None if held is None else held[index] for held in (self.heads_H, self.neurons_F))
        return Masks(self.hidden_D, heads, neurons)


def _scaled(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    return x if mask is None else x * mask.astype(x.dtype)


class Norm(nn.Module):
    """LayerNorm (gpt2) or RMSNorm (llama) over the dimensions that `hidden_D` keeps; statistics in float32."""

    block: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxD, hidden_D=None):
        kind = nn.LayerNorm if self.block == "gpt2" else nn.RMSNorm
        norm = kind(epsilon=NORM_EPSILON, use_fast_variance=False, dtype=self.dtype, name="norm")
        nn.share_scope(self, norm)  # the path is attention_norm/scale, not attention_norm/norm/scale
        # which dimensions are kept is a choice, not a quantity: importance does not flow through it (methods §1.4)
        kept = None if hidden_D is None else jax.lax.stop_gradient(hidden_D) != 0
        return _scaled(norm(x_BxLxD, mask=kept), kept)


class Attention(nn.Module):
    """Causal self-attention of one layer. Kernels: query D×H×K, key and value D×G×K (G = H/kv_group), output H×K×D."""

    spec: ModelSpec
    heads: int
    dtype: jnp.dtype
    kernel: Kernel

    @nn.compact
    def __call__(self, x_BxLxD, heads_H=None):
        spec = self.spec

        def project(name, heads):
            dense = nn.DenseGeneral(
                (heads, spec.head_size),
                use_bias=spec.block == "gpt2",
                dtype=self.dtype,
                name=name,
            )
            return checkpoint_name(dense(x_BxLxD), PRODUCT)

        query, key = project("query", self.heads), project("key", self.heads // spec.kv_group)
        value = project("value", self.heads // spec.kv_group)
        if spec.block == "llama":
            query, key = rotate(query), rotate(key)
        context_BxLxHxK = attend(query, key, value, self.kernel)
        output = nn.DenseGeneral(
            spec.width,
            axis=(-2, -1),
            use_bias=spec.block == "gpt2",
            dtype=self.dtype,
            name="output",
        )
        return checkpoint_name(output(_scaled(context_BxLxHxK, None if heads_H is None else heads_H[:, None])), PRODUCT)


class FeedForward(nn.Module):
    """gpt2: down(gelu(up(x))); llama: down(silu(gate(x))·up(x)). Kernels are up and gate D×F, down F×D."""

    spec: ModelSpec
    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxD, neurons_F=None):
        spec, biased = self.spec, self.spec.block == "gpt2"

        def widen(name):
            dense = nn.Dense(self.hidden, use_bias=biased, dtype=self.dtype, name=name)
            return checkpoint_name(dense(x_BxLxD), PRODUCT)

        if spec.block == "gpt2":
            inner_BxLxF = nn.gelu(widen("up"), approximate=True)
        else:
            inner_BxLxF = nn.silu(widen("gate")) * widen("up")
        down = nn.Dense(spec.width, use_bias=biased, dtype=self.dtype, name="down")
        return checkpoint_name(down(_scaled(inner_BxLxF, neurons_F)), PRODUCT)


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x)); a half of size 0 is left out with its norm."""

    spec: ModelSpec
    heads: int
    hidden: int
    dtype: jnp.dtype
    kernel: Kernel

    @nn.compact
    def __call__(self, x_BxLxD, masks: Masks):
        spec, dtype = self.spec, self.dtype
        if self.heads:
            normed = Norm(spec.block, dtype, name="attention_norm")(x_BxLxD, masks.hidden_D)
            write = Attention(spec, self.heads, dtype, self.kernel, name="attention")(normed, masks.heads_H)
            x_BxLxD = x_BxLxD + _scaled(write, masks.hidden_D)
        if self.hidden:
            normed = Norm(spec.block, dtype, name="feed_forward_norm")(x_BxLxD, masks.hidden_D)
            write = FeedForward(spec, self.hidden, dtype, name="feed_forward")(normed, masks.neurons_F)
            x_BxLxD = x_BxLxD + _scaled(write, masks.hidden_D)
        return x_BxLxD


def _blocks(spec: ModelSpec, dtype=jnp.float32, kernel: Kernel = "plain") -> list[Block]:
    layers = zip(spec.heads_by_layer, spec.hidden_by_layer, strict=True)
    return [Block(spec, heads, hidden, dtype, kernel) for heads, hidden in layers]


def init(rng: jax.Array, spec: ModelSpec) -> dict:
    """Initial parameters, float32, as a plain nested dict; a function of (rng, spec) alone, vmappable over rng.

    Weight by weight, with n(f) = N(0, 2/(5·f)) (see `deviation`): token table n(D), which gives tied logits a variance
    of 0.4 at every width; position table n(4·D), half as large (GPT-2: 0.01 beside 0.02); query, key, value, up, gate
    n(D); output n(H·K) and down n(F), both divided by sqrt(2·depth); untied output matrix n(D); norm scales 1; biases
    0.
    """

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    width, blank_BxLxD = spec.width, array(1, 1, spec.width)
    tables = {"token_embedding": {"embedding": array(spec.vocab_size, width)}}
    if spec.block == "gpt2":
        tables["position_embedding"] = {"embedding": array(spec.max_length, width)}
    if not spec.tied:
        tables["output"] = {"kernel": array(width, spec.vocab_size)}
    key = jax.random.key(0)  # shapes do not depend on it
    tables["final_norm"] = jax.eval_shape(Norm(spec.block, jnp.float32).init, key, blank_BxLxD)["params"]
    params = drawn(jax.random.fold_in(rng, 0), tables, spec)

    def layer(index, shapes):
        return drawn(jax.random.fold_in(rng, 1 + index), shapes, spec)

    blocks = [
        block if block.heads or block.hidden else None for block in _blocks(spec)
    ]  # of an empty layer there is no entry
    shapes = {block: jax.eval_shape(block.init, key, blank_BxLxD, Masks())["params"] for block in {*blocks} - {None}}
    if len(shapes) == 1 and None not in blocks:  # one compiled body for all, which holds one layer's draw at a time
        layers = jax.lax.map(partial(layer, shapes=shapes[blocks[0]]), jnp.arange(spec.depth))
        return unstack_layers(params | {"layers": layers}, spec)
    return params | {f"layers_{index}": layer(index, shapes[block]) for index, block in enumerate(blocks) if block}


def stack_layers(params: dict, spec: ModelSpec) -> dict:
    """The same parameters with `layers_0 …` as one `layers` of a leading depth axis: the stored form for scans.

    Raises: SpecError unless every layer has the same shape.
    """
    refuse_unless(spec.uniform, "ModelSpec.heads and hidden", (spec.heads, spec.hidden), "must be even to scan layers")
    rest = {name: part for name, part in params.items() if not name.startswith("layers_")}
    layers = [params[f"layers_{index}"] for index in range(spec.depth)]
    return rest | {"layers": jax.tree.map(lambda *parts: jnp.stack(parts), *layers)}


def unstack_layers(params: dict, spec: ModelSpec) -> dict:
    """The inverse of `stack_layers`."""
    rest = {name: part for name, part in params.items() if name != "layers"}
    layers = {f"layers_{i}": jax.tree.map(lambda part, i=i: part[i], params["layers"]) for i in range(spec.depth)}
    return rest | layers


def apply_hidden(
    params: dict,
    tokens_BxL: jax.Array,
    spec: ModelSpec,
    *,
    dtype=jnp.float32,
    kernel: Kernel = "plain",
    scan: bool = False,
    remat: Literal["none", "full", "dots"] = "none",
    masks: Masks = Masks(),  # noqa: B008 (an immutable tuple of None)
) -> jax.Array:
    """hidden_BxLxD in `dtype`, after the final norm; parameters, norm statistics and softmax stay float32.

    Args:
      params: from `init`, or stacked by `stack_layers` (which implies scan).
      dtype: of the matrix products and of the residual stream.
      kernel: of attention, see `attend`.
      scan: run the layers as one scanned body (compile time independent of depth); needs an even model.
      remat: what the backward pass computes again, see `Execution.remat`.
    Raises: SpecError when L exceeds spec.max_length, or under scan with uneven layers.
    """
    length = tokens_BxL.shape[1]
    refuse_unless(
        length <= spec.max_length, "tokens", length, f"must not exceed ModelSpec.max_length = {spec.max_length}"
    )
    x_BxLxD = params["token_embedding"]["embedding"][tokens_BxL].astype(dtype)  # so its gradient adds up in float32
    if spec.block == "gpt2":
        x_BxLxD = x_BxLxD + params["position_embedding"]["embedding"][:length].astype(dtype)
    x_BxLxD = _scaled(x_BxLxD, masks.hidden_D)

    def run(block):
        def layer(layer_params, x, layer_masks):
            return block.apply({"params": layer_params}, x, layer_masks)

        if remat == "none":
            return layer
        return jax.checkpoint(
            layer, policy=KEPT_OF_DOTS if remat == "dots" else None, prevent_cse=not scan
        )  # a scan keeps both passes apart anyway

    blocks = _blocks(spec, dtype, kernel)
    scan = scan or "layers" in params
    if scan:
        stacked = params if "layers" in params else stack_layers(params, spec)
        layer, masks_by_layer = run(blocks[0]), [masks.layer(i)._replace(hidden_D=None) for i in range(spec.depth)]
        masks_stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *masks_by_layer)

        def body(x, piece):
            return layer(piece[0], x, piece[1]._replace(hidden_D=masks.hidden_D)), None

        x_BxLxD, _ = jax.lax.scan(body, x_BxLxD, (stacked["layers"], masks_stacked))
    else:
        for index, block in enumerate(blocks):
            x_BxLxD = run(block)(params.get(f"layers_{index}", {}), x_BxLxD, masks.layer(index))
    return Norm(spec.block, dtype).apply({"params": params["final_norm"]}, x_BxLxD, masks.hidden_D)


def output_matrix(params: dict, spec: ModelSpec) -> jax.Array:
    """out_DxV, float32: logits are hidden @ out. The transposed token table when tied."""
    return params["token_embedding"]["embedding"].T if spec.tied else params["output"]["kernel"]


def apply(params: dict, tokens_BxL: jax.Array, spec: ModelSpec, **options) -> jax.Array:
    """logits_BxLxV in float32, whole: for tests and small vocabularies (training uses hidden states, in chunks)."""
    hidden_BxLxD = apply_hidden(params, tokens_BxL, spec, **options)
    out_DxV = output_matrix(params, spec).astype(hidden_BxLxD.dtype)
    return jnp.einsum("bld,dv->blv", hidden_BxLxD, out_DxV, preferred_element_type=jnp.float32)
