"""What is computed over the vocabulary? Logits, their softmax, a label's logit, the first choice, whole or sharded.

The pieces that both the objective and the evaluation are made of. Under `jax.shard_map` each device holds a slice of
the output matrix's columns and `Vocab.axis` names the mesh axis to reduce over; elsewhere it is None and nothing is
reduced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Output(NamedTuple):
    """The last hidden states of one model and the matrix that turns them into logits.

    For a stack of S students both carry a leading axis: hidden_SxNxD, out_SxDxV.
    """

    hidden_NxD: jax.Array
    out_DxV: jax.Array


class Softmax(NamedTuple):
    """softmax(z) over the columns held here, and log sum exp z over all columns."""

    probs: jax.Array
    log_normaliser: jax.Array


@dataclass(frozen=True)
class Vocab:
    """`size` symbols; `axis` is the mesh axis that their columns are spread over, if any."""

    size: int
    axis: str | None = None

    def sum(self, value):
        return value if self.axis is None else jax.lax.psum(value, self.axis)

    def max(self, value):
        """The largest, of which no gradient is taken."""
        value = jax.lax.stop_gradient(value)
        return value if self.axis is None else jax.lax.pmax(value, self.axis)

    def symbols(self, like: jax.Array) -> jax.Array:
        """The symbol number of every entry of a [..., V] array: never stored, the compiler fuses the comparison."""
        start = 0 if self.axis is None else jax.lax.axis_index(self.axis) * like.shape[-1]
        return start + jax.lax.broadcasted_iota(jnp.int32, like.shape, like.ndim - 1)

    def logits(self, output: Output) -> jax.Array:
        """z = hidden · out in float32, whatever the compute type: [(S,) N, V]; padded columns get no mass."""
        z = jnp.einsum("...nd,...dv->...nv", output.hidden_NxD, output.out_DxV, preferred_element_type=jnp.float32)
        if self.axis is None and z.shape[-1] == self.size:
            return z
        return jnp.where(self.symbols(z) < self.size, z, -1e30)

    def whole(self, array: jax.Array) -> jax.Array:
        """All columns of a [..., V] array on every device, without the padded ones."""
        if self.axis is not None:
            array = jax.lax.all_gather(array, self.axis, axis=array.ndim - 1, tiled=True)
        return array[..., : self.size]

    def spread(self, ids_NxT: jax.Array, values_NxT: jax.Array, columns: int) -> jax.Array:
        """[N, V] array with the values added at their symbols, of the `columns` that are held here; 0 elsewhere."""
        start = 0 if self.axis is None else jax.lax.axis_index(self.axis) * columns
        place_NxT = ids_NxT.astype(jnp.int32) - start
        place_NxT = jnp.where((place_NxT >= 0) & (place_NxT < columns), place_NxT, columns)  # elsewhere: dropped
        rows_Nx1 = jnp.arange(len(place_NxT))[:, None]
        return jnp.zeros((len(place_NxT), columns)).at[rows_Nx1, place_NxT].add(values_NxT, mode="drop")

    def softmax(self, logits: jax.Array) -> Softmax:
        """One exponential per logit: both the probabilities and their log normaliser."""
        top = self.max(jnp.max(logits, axis=-1, keepdims=True))
        powers = jnp.exp(logits - top)
        total = self.sum(jnp.sum(powers, axis=-1, keepdims=True))
        return Softmax(powers / total, (top + jnp.log(total))[..., 0])

    def log_softmax(self, logits: jax.Array) -> jax.Array:
        """log softmax(z) of the columns held here, over all columns: [(S,) N, V]."""
        return logits - self.log_normaliser(logits)[..., None]

    def log_normaliser(self, logits: jax.Array) -> jax.Array:
        """log Σ exp z over all columns: [(S,) N]."""
        top = self.max(jnp.max(logits, axis=-1, keepdims=True))
        return (top + jnp.log(self.sum(jnp.sum(jnp.exp(logits - top), axis=-1, keepdims=True))))[..., 0]

    def is_label(self, logits: jax.Array, labels_N: jax.Array) -> jax.Array:
        """True at each token's label: a comparison, no one-hot array."""
        return self.symbols(logits) == labels_N[..., None]

    def label_logit(self, logits: jax.Array, labels_N: jax.Array) -> jax.Array:
        """z[label] for every token, [(S,) N]."""
        return self.sum(jnp.sum(jnp.where(self.is_label(logits, labels_N), logits, 0.0), axis=-1))

    def expect(self, probs: jax.Array, value: jax.Array) -> jax.Array:
        """Σ_v probs · value, [(S,) N]."""
        return self.sum(jnp.sum(probs * value, axis=-1))

    def first_choice(self, logits: jax.Array) -> jax.Array:
        """The symbol of the largest logit of every token (the lowest one on a tie)."""
        top = self.max(jnp.max(logits, axis=-1, keepdims=True))
        symbol = jnp.min(jnp.where(logits == top, self.symbols(logits), jnp.iinfo(jnp.int32).max), axis=-1)
        return symbol if self.axis is None else jax.lax.pmin(symbol, self.axis)
