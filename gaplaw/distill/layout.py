"""Where is something over the vocabulary computed? On one device or spread over a mesh, a chunk of tokens at a time.

Tokens are spread over a mesh's data axes, columns of the output matrices over its tensor axis and stacked students over
its student axis (`jax.shard_map`); one device is a mesh of one. Objective, evaluation and teacher caches share this
file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from gaplaw.distill.vocab import Output, Vocab


@dataclass(frozen=True)
class Layout:
    """`mesh` None means one device without a mesh. width_axis: of `token_axes`, the one that output matrices' rows are
    spread over.

    chunk_tokens: tokens per device whose logits exist at one time; the largest divisor of its share not above it is
    used, so that every device and host runs the same number of chunks.
    """

    chunk_tokens: int
    mesh: jax.sharding.Mesh | None = None
    token_axes: tuple[str, ...] = ()
    vocab_axis: str | None = None
    student_axis: str | None = None
    width_axis: str | None = None

    def axis_size(self, name: str | None) -> int:
        return 1 if name is None else self.mesh.shape[name]

    @property
    def tokens(self) -> P:
        """The partition of an array whose first axis is tokens."""
        return P(self.token_axes or None)

    def sum(self, value):
        """The sum over the devices that hold different tokens."""
        return jax.lax.psum(value, self.token_axes) if self.token_axes else value

    def zeros(self, shape: tuple[int, ...], *axes: str | None) -> jax.Array:
        """Float32 zeros for a scan over chunks, typed as what differs between devices of the token axes and of
        `axes`.
        """
        names = tuple(name for name in (*self.token_axes, *axes) if name is not None)
        zeros = jnp.zeros(shape, jnp.float32)
        return jax.lax.pcast(zeros, names, to="varying") if names else zeros

    def sum_by_width(self, slope_DxV):
        """The same sum of an output matrix's [(S,) D, V] slope, of which each device keeps its rows of D where they
        divide.
        """
        axis = self.width_of(slope_DxV.shape[-2])
        if axis is None:
            return self.sum(slope_DxV)
        part = jax.lax.psum_scatter(slope_DxV, axis, scatter_dimension=slope_DxV.ndim - 2, tiled=True)
        return jax.lax.psum(part, tuple(other for other in self.token_axes if other != axis))

    def width_of(self, width: int) -> str | None:
        """The axis that so many rows of an output matrix are spread over."""
        return self.width_axis if width % self.axis_size(self.width_axis) == 0 else None

    def place(self, output: Output | None) -> Output | None:
        """The partitions of a model's hidden states and output matrix."""
        if output is None:
            return None
        lead = self.lead(output)
        return Output(P(*lead, self.token_axes or None, None), P(*lead, None, self.vocab_axis))

    def place_slope(self, output: Output) -> Output:
        """The partitions of the slopes with respect to both."""
        place = self.place(output)
        return place._replace(out_DxV=P(*self.lead(output), self.width_of(output.out_DxV.shape[-2]), self.vocab_axis))

    def lead(self, output: Output) -> tuple:
        """The partition of a stack's leading axis; empty for a single model."""
        if output.hidden_NxD.ndim == 2:
            return ()
        spread = output.hidden_NxD.shape[0] % self.axis_size(self.student_axis) == 0
        return (self.student_axis,) if spread else (None,)

    def fill_up(self, output: Output | None) -> Output | None:
        """Columns of zeros at the end, to a multiple of the vocabulary axis; `Vocab.logits` gives them no mass."""
        if output is None:
            return None
        more = -output.out_DxV.shape[-1] % self.axis_size(self.vocab_axis)
        widths = [(0, 0)] * (output.out_DxV.ndim - 1) + [(0, more)]
        return Output(output.hidden_NxD, jnp.pad(output.out_DxV, widths) if more else output.out_DxV)

    def run(self, local: Callable, size: int, arguments: tuple, in_specs: tuple, out_specs, *, checked: bool = True):
        """`local(vocab, *arguments)` on every device with its part of the arguments; `size` symbols in all.

        checked: whether JAX keeps track of what differs between devices, without which a gradient through a sum over
        devices is wrong; off only where nothing is differentiated.
        """
        if self.mesh is None:
            return local(Vocab(size), *arguments)
        vocab = Vocab(size, self.vocab_axis)
        spread = jax.shard_map(
            lambda *parts: local(vocab, *parts),
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            check_vma=checked,
        )
        return spread(*arguments)

    def chunks(self, tokens: int) -> int:
        """How many chunks a device cuts its tokens into."""
        most = min(self.chunk_tokens, tokens)
        return tokens // next(size for size in range(most, 0, -1) if tokens % size == 0)


def split_tokens(array: jax.Array, count: int, axis: int = 0) -> jax.Array:
    """Cut the token axis into `count` chunks and put the chunk axis first, as scan wants it."""
    axis %= array.ndim
    shape = (*array.shape[:axis], count, array.shape[axis] // count, *array.shape[axis + 1 :])
    return jnp.moveaxis(array.reshape(shape), axis, 0)


def join_tokens(chunks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of splitting a [..., N, D] array."""
    return jnp.moveaxis(chunks, 0, -3).reshape(shape)
