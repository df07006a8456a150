"""Sent bytes are those of the collectives, times the trips of the loops around them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gaplaw.spec import MeshSpec
from gaplaw.sweep.forecast.collectives import sent_bytes
from gaplaw.train.mesh import make_mesh

WAYS, TRIPS, WIDTH = 4, 5, 64


def compiled_text(function, *shapes):
    """A function over arrays whose first axis is spread over four devices."""
    mesh = make_mesh(MeshSpec(fsdp=WAYS))
    spread = NamedSharding(mesh, P("fsdp"))
    whole = NamedSharding(mesh, P())
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=spread) for shape in shapes]
    return jax.jit(function, out_shardings=whole).lower(*inputs).compile().as_text()


def test_a_sum_over_devices_sends_twice_the_array_but_for_ones_own_part():
    text = compiled_text(lambda x: x.sum(axis=0), (WAYS, WIDTH))
    assert sent_bytes(text) == pytest.approx(2 * 4 * WIDTH * (WAYS - 1) / WAYS)


def test_a_gather_inside_a_loop_counts_every_trip():
    mesh = make_mesh(MeshSpec(fsdp=WAYS))

    def looped(x):
        def body(total, _):
            spread = jax.lax.with_sharding_constraint(jnp.sin(total), NamedSharding(mesh, P("fsdp")))
            return jax.lax.with_sharding_constraint(spread + 1, NamedSharding(mesh, P())), None

        return jax.lax.scan(body, x, None, length=TRIPS)[0]

    once = 4 * WAYS * WIDTH * (WAYS - 1) / WAYS
    text = compiled_text(looped, (WAYS, WIDTH))
    assert sent_bytes(text) == pytest.approx((TRIPS + 1) * once)  # and once to gather the input


def test_one_device_sends_nothing():
    text = jax.jit(lambda x: x @ x.T).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile().as_text()
    assert sent_bytes(text) == 0


# As the TPU compiler writes them: groups as axes of a mesh, a loop's bound in its condition, one gather split over two
# fusions.
TPU = """HloModule jit_f
%fused.1 (p: bf16[2,8]) -> bf16[8,8] {
  ROOT %all-gather.1 = bf16[8,8]{1,0:T(8,128)} all-gather(%p), channel_id=7, replica_groups=mesh['a'=4,'b'=2] {'a'}
}
%fused.2 (p: bf16[2,8]) -> bf16[8,8] {
  ROOT %all-gather.2 = bf16[8,8]{1,0:T(8,128)S(1)} all-gather(%p), channel_id=7, replica_groups=mesh['a'=4,'b'=2] {'a'}
}
%condition (t: (s32[])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.1), direction=LT
}
%body (t: (s32[])) -> (s32[]) {
  %f.1 = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%fused.1
  %f.2 = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%fused.2
  %r = f32[16]{0} all-reduce(%y), channel_id=8, replica_groups={{0,1},{2,3}}, to_apply=%add
}
ENTRY %main (x: f32[4]) -> f32[4] {
  %w = (s32[]) while(%t), condition=%condition, body=%body
}
"""


def test_the_tpu_compilers_way_of_writing_is_read():
    gather, reduce = 2 * 64 * 3 / 4, 2 * 4 * 16 * 1 / 2
    assert sent_bytes(TPU) == 3 * (gather + reduce)


# As the GPU compiler writes them: several arrays in one asynchronous operation, operands before results.
GPU = """HloModule jit_f
ENTRY %main (x: f32[4]) -> f32[4] {
  %g = ((bf16[2,8]{1,0}, f32[1]{0}), (bf16[8,8]{1,0}, /*index=5*/f32[4]{0})) all-gather-start(%p, %q), channel_id=1,FOUR
  %s = ((bf16[8,8]{1,0}, bf16[8]{0}), (bf16[2,8]{1,0}, bf16[2]{0})) reduce-scatter-start(%p, %q), channel_id=2, FOUR
  %r = ((f32[8]{0}), f32[8]{0}) all-reduce-start(%y), channel_id=3, FOUR, to_apply=%add
  %t = (f32[4]{0:T(8,128)}, f32[4]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%z), channel_id=4
}
""".replace("FOUR", "replica_groups=[1,4]<=[4]")


def test_the_gpu_compilers_way_of_writing_is_read():
    gather, scatter = (2 * 64 + 4 * 4) * 3 / 4, 3 * (2 * 16 + 2 * 2)
    assert sent_bytes(GPU) == gather + scatter + 2 * 4 * 8 * 3 / 4 + 4 * 4
