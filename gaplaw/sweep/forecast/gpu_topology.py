"""How does XLA compile for NVIDIA GPUs that are not here? From a description of the chip: no GPU and no driver.

Needs the CUDA plugin of the installed JAX, whose compiler is the one that a run uses; its kernels are chosen without
being timed.
"""

from __future__ import annotations

CUDNN = (9, 10, 0)

# H100 and H200 alike but for memory: limits of a multiprocessor, as CUDA's device query gives them.
_HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_core: 233472  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98  l2_cache_size: 52428800
  device_memory_size: {memory_bytes}  memory_bandwidth: {memory_bytes_per_second}
  cuda_compute_capability {{ major: 9 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} patch: {cudnn[2]} }}
runtime_version {{ major: 12 minor: 8 patch: 0 }}
device_description_str: "{name}"
"""


def gpus(name: str, chips: int, memory_bytes: float, memory_bytes_per_second: float) -> list:
    """So many Hopper GPUs of one host, to compile for."""
    from jax.experimental import topologies

    described = _HOPPER.format(
        name=name,
        memory_bytes=int(memory_bytes),
        memory_bytes_per_second=int(memory_bytes_per_second),
        cudnn=CUDNN,
    )
    made = topologies.get_topology_desc(
        topology_name="", platform="cuda", target_config=described, topology=f"1x1x{chips}"
    )
    return list(made.devices)


def assume_cudnn() -> None:
    """Let this process write programs with cuDNN's attention, for which JAX asks the GPU and the library that are here.

    There is no public way to say that a program is for other devices; a JAX that moves these two functions makes a
    forecast with attention = cudnn an error in one line, and leaves every other as it is.
    """
    from jax._src.cudnn import fused_attention_stablehlo as attention

    attention.check_cudnn_version = lambda: CUDNN[0] * 10_000 + CUDNN[1] * 100 + CUDNN[2]
    attention.check_compute_capability = lambda *_: True
