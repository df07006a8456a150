"""Which device holds which part of which array? One mesh, one table of rules by parameter path.

The only file that names mesh axes. The same table serves a teacher, a single student and a stack of students; models do
not know that they are sharded. One device is a mesh of one, so every run goes through this code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gaplaw.distill import Layout
from gaplaw.models.attention import Kernel, attend
from gaplaw.spec import Execution, MeshSpec

AXES = ("student", "data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

# Path pattern → axes of the parameter's own dimensions; the first match wins. D goes over fsdp; heads, neurons and
# symbols over tensor; norms and biases are small and whole on every device.
RULES = (
    (r"token_embedding/embedding", ("tensor", "fsdp")),
    (r"position_embedding/embedding", (None, "fsdp")),
    (r"(query|key|value)/kernel", ("fsdp", "tensor", None)),
    (r"attention/output/kernel", ("tensor", None, "fsdp")),
    (r"(up|gate)/kernel", ("fsdp", "tensor")),
    (r"down/kernel", ("tensor", "fsdp")),
    (r"output/kernel", ("fsdp", "tensor")),
    (r".*", ()),
)


def make_mesh(spec: MeshSpec, devices=None) -> Mesh:
    """A mesh of `spec` over the first devices, with AxisType.Auto: the compiler propagates shardings from the inputs.

    Raises: SpecError when there are fewer devices than the axes ask for.
    """
    devices = list(jax.devices() if devices is None else devices)
    spec.check_devices(len(devices))
    shape = (spec.student, spec.data, spec.fsdp, spec.tensor)
    return Mesh(np.asarray(devices[: spec.devices]).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def layout(mesh: Mesh | None, execution: Execution) -> Layout:
    """How the objective is spread over the mesh, or computed on one device without one."""
    if mesh is None:
        return Layout(execution.chunk_tokens)
    axes = dict(token_axes=BATCH, vocab_axis="tensor", student_axis="student", width_axis="fsdp")
    return Layout(execution.chunk_tokens, mesh, **axes)


def student_axis(mesh: Mesh, count: int) -> str | None:
    """The axis that `count` stacked students are spread over: the name for `jax.vmap(…, spmd_axis_name=…)`."""
    return "student" if count % mesh.shape["student"] == 0 else None


def attention_on(mesh: Mesh, kernel: Kernel) -> Kernel:
    """The same attention, each device for its own rows and heads where the kernel is a library's.

    XLA does not look into a library's call: it would gather the rows of stacked students from all devices first.
    """
    if kernel == "plain" or mesh.size == 1:
        return kernel

    def spread(query_BxLxHxK, key_BxLxGxK, value_BxLxGxK):
        even = all(array.shape[2] % mesh.shape["tensor"] == 0 for array in (query_BxLxHxK, key_BxLxGxK))
        place = P(BATCH, None, "tensor" if even else None)
        local = partial(attend, kernel=kernel)
        mapped = jax.shard_map(local, mesh=mesh, in_specs=(place,) * 3, out_specs=place, check_vma=False)
        return mapped(query_BxLxHxK, key_BxLxGxK, value_BxLxGxK)

    return spread


def path_name(path) -> str:
    """layers_0/attention/query/kernel for a key path of a parameter tree, optimizer state included."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def partition(mesh: Mesh, name: str, shape: tuple[int, ...], stacked: bool) -> P:
    """The partition of one array. A dimension that its axis does not divide stays whole.

    stacked: whether the first dimension is students. A layer-scanned parameter's depth axis stays whole, too.
    """
    axes = next(found for pattern, found in RULES if re.search(rf"(^|/){pattern}$", name))
    own = len(shape) - stacked
    axes = (None,) * (own - len(axes)) + axes if own >= len(axes) else ()
    axes = (("student",) if stacked else ()) + axes
    return P(
        *(axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=False))
    )


def shardings(mesh: Mesh, tree, *, stacked: bool):
    """A NamedSharding for every array (or ShapeDtypeStruct) of a parameter or optimizer tree."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, partition(mesh, path_name(path), leaf.shape, stacked)), tree
    )


def placed(mesh: Mesh, shapes, *, stacked: bool):
    """A tree of ShapeDtypeStructs with the shardings that the table gives them: what a checkpoint is read onto."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings(mesh, shapes, stacked=stacked),
    )


def batch_sharding(mesh: Mesh, dimensions: int) -> NamedSharding:
    """For [K, B, …] arrays of batches: B over the batch axes."""
    return NamedSharding(mesh, P(None, BATCH, *(None,) * (dimensions - 2)))


def microbatches(mesh: Mesh, tree, count: int):
    """[B, …] arrays as [count, B/count, …]: each device's own rows are dealt out, so that nothing moves between
    devices.
    """

    def cut(array):
        pieces = array.reshape(-1, count, *array.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(pieces, batch_sharding(mesh, pieces.ndim))

    return jax.tree.map(cut, tree)


def put(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """A global [K, B, …] array from the whole of it, which every process holds; each device gets its rows."""
    sharding = batch_sharding(mesh, array.ndim)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def put_rows(mesh: Mesh, shape: tuple[int, ...], rows: Callable[[slice], np.ndarray]) -> jax.Array:
    """A global [K, B, …] array of which each process makes only the rows of B that its devices hold.

    Args: rows: the part [:, rows] of the array; called once for each distinct range.
    """
    made: dict[tuple, np.ndarray] = {}

    def part(index):
        start, stop, _ = index[1].indices(shape[1])
        if (start, stop) not in made:
            made[start, stop] = rows(slice(start, stop))
        return made[start, stop]

    return jax.make_array_from_callback(shape, batch_sharding(mesh, len(shape)), part)


def whole(mesh: Mesh, tree):
    """The same arrays, whole on every device, so that every process can read them. Asynchronous."""
    if mesh.size == 1:
        return tree
    return jax.jit(lambda same: same, out_shardings=NamedSharding(mesh, P()))(tree)


def has_pinned_host_memory(devices=None) -> bool:
    """Whether every device of this process (or of those given) can reach pinned memory of its host, which `aside`
    needs.
    """
    devices = jax.local_devices() if devices is None else devices
    return all(any(memory.kind == "pinned_host" for memory in one.addressable_memories()) for one in devices)


def aside(tree):
    """Arrays moved from the devices' memory into their hosts', each part to its own host; `jax.device_put` brings them
    back.
    """
    return jax.device_put(tree, jax.tree.map(lambda array: array.sharding.with_memory_kind("pinned_host"), tree))
