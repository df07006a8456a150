"""How much temporary memory does the distillation loss need, beside the dense form? XLA's own count; nothing is
executed.

    python benchmarks/loss_memory.py

4,096 tokens, width 256, student and teacher logits over V symbols, forward KL mixed with cross-entropy, gradient with
respect to the student's hidden states and output matrix: one line for each V, beginning with `ratio`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gaplaw.distill import Layout, Output, objective_losses  # noqa: E402
from gaplaw.spec import ObjectiveSpec  # noqa: E402

TOKENS, WIDTH, CHUNK_TOKENS = 4096, 256, 256
SPEC = ObjectiveSpec(soft_weight=0.5)


def dense(student: Output, teacher: Output, labels_N):
    """The definition, in full arrays, as a trainer without chunks computes it."""
    log_q = jax.nn.log_softmax((student.hidden_NxD @ student.out_DxV).astype(jnp.float32))
    log_p = jax.nn.log_softmax((teacher.hidden_NxD @ teacher.out_DxV).astype(jnp.float32))
    hard = -jnp.take_along_axis(log_q, labels_N[:, None], axis=-1).mean()
    return 0.5 * hard + 0.5 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1).mean()


def chunked(student: Output, teacher: Output, labels_N):
    return objective_losses((SPEC,), Layout(CHUNK_TOKENS), [student], teacher, labels_N)[0]


def temporary_bytes(loss, vocab: int, dtype) -> int:
    model = Output(jax.ShapeDtypeStruct((TOKENS, WIDTH), dtype), jax.ShapeDtypeStruct((WIDTH, vocab), dtype))
    compiled = (
        jax.jit(jax.value_and_grad(loss)).lower(model, model, jax.ShapeDtypeStruct((TOKENS,), jnp.int32)).compile()
    )
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    for vocab in (32_768, 131_072):
        whole, ours = (temporary_bytes(loss, vocab, jnp.bfloat16) for loss in (dense, chunked))
        print(
            f"ratio chunked / dense temporary bytes at V = {vocab:,}, {TOKENS} tokens, chunks of {CHUNK_TOKENS}, "
            "bfloat16: "
            f"{ours / whole:.3f}  ({ours / 2**20:.0f} MiB / {whole / 2**20:.0f} MiB)"
        )


if __name__ == "__main__":
    main()
