"""What bounds the speed of one group's program on a target, and does it fit? Closed forms beside the compiler's answer.

    seconds ≥ steps · max( FLOPs / (chips · rate),  bytes moved / memory rate,  bytes sent / link rate ) + evaluation

Memory and sent bytes are the compiler's (`gaplaw.sweep.forecast.compile_worker`); FLOPs and moved bytes are closed
forms, because XLA counts the body of a loop once. A roofline is a lower bound: kernels never reach all three rates.
"""

from __future__ import annotations

from dataclasses import dataclass

from gaplaw.spec import Execution, Group, ModelSpec
from gaplaw.spec.sizes import count_params, forward_flops_per_token
from gaplaw.sweep.forecast.targets import Target
from gaplaw.sweep.planning.estimate import elements_per_token, evaluation_flops, training_flops


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is known of one group's program on one target.

    bytes_per_chip: of training, evaluation or initialisation, whichever needs most; the latter two also alone.
    limit: "compute", "memory bandwidth" or "interconnect": the largest term of the roofline.
    fits: None when the compiler failed for another reason, which `error` tells.
    change: the smallest change that was found to fit, as options of the command line; None where none is needed or
      found.
    """

    bytes_per_chip: float | None
    evaluation_bytes_per_chip: float | None
    start_bytes_per_chip: float | None
    fits: bool | None
    sent_bytes_per_step: float
    moved_bytes_per_step: float
    flops: float
    recomputed_flops: float
    roofline_seconds: float
    limit: str
    compiler: str
    error: str | None = None
    change: str | None = None


def roofline(group: Group, execution: Execution, target: Target, found: dict) -> Program:
    """A program's numbers from the compiler's answer and the closed forms."""
    cell, chip = group.cells[0], target.chip
    rate = target.chips * (
        chip.flops_per_second if execution.compute_dtype == "bfloat16" else chip.float32_flops_per_second
    )
    sent = found.get("sent_bytes_per_step", 0.0)
    moved = moved_bytes_per_step(group, execution)
    flops, again = training_flops(group), recomputed_flops(group, execution)
    terms = {
        "compute": (flops + again) / cell.steps / rate,
        "memory bandwidth": moved / chip.memory_bytes_per_second,
        "interconnect": sent / chip.link_bytes_per_second,
    }
    limit = max(terms, key=terms.get)
    measured = evaluation_flops(group, execution)
    needed = found.get("bytes_per_chip") or found.get("out_of_memory_bytes")
    return Program(
        bytes_per_chip=needed,
        evaluation_bytes_per_chip=found.get("evaluation_bytes_per_chip"),
        start_bytes_per_chip=found.get("start_bytes_per_chip"),
        fits=None if "error" in found else "out_of_memory_bytes" not in found and needed <= chip.memory_bytes,
        sent_bytes_per_step=sent,
        moved_bytes_per_step=moved,
        flops=flops + measured,
        recomputed_flops=again,
        roofline_seconds=cell.steps * terms[limit] + measured / rate,
        limit=limit,
        compiler=found.get("compiler", ""),
        error=found.get("error"),
    )


def recomputed_flops(group: Group, execution: Execution) -> float:
    """FLOPs that rematerialisation adds: the layers' forward pass of every student again, or only its attention
    products, of which cuDNN keeps what is needed."""
    cell = group.cells[0]
    length = cell.data.sequence_tokens

    def again(model: ModelSpec) -> int:
        attention = 4 * sum(model.heads_by_layer) * model.head_size * length
        whole = forward_flops_per_token(model, length) - 2 * model.vocab_size * model.width
        return {"none": 0, "dots": 0 if execution.attention == "cudnn" else attention, "full": whole}[execution.remat]

    return float(sum(again(c.model) for c in group.cells)) * cell.steps * cell.batch_tokens


def moved_bytes_per_step(group: Group, execution: Execution) -> float:
    """Bytes between one chip and its memory in a training step, in closed form: each array once per pass over it.

    Weights, whole but for the tensor axis, are read in every pass of every microbatch; parameters, gradient and two
    moments (float32) are read and the first and last two written once; every element of `elements_per_token` is written
    and read once a pass (a student's backward pass counts as two), but that cuDNN's attention keeps its scores to
    itself. A compiler that fuses well moves less, caches aside.
    """
    mesh, cell = execution.mesh, group.cells[0]
    size = 2 if execution.compute_dtype == "bfloat16" else 4
    tokens = cell.batch_tokens / (mesh.data * mesh.fsdp * mesh.tensor)
    again = 0 if execution.remat == "none" else 1
    scores = 0 if execution.attention == "cudnn" else cell.data.sequence_tokens

    def one(model: ModelSpec, passes: int) -> float:
        count = count_params(model).unique
        elements = 2 * passes * elements_per_token(model, scores) * tokens
        return size * (passes * execution.accumulate * count / mesh.tensor + elements)

    students = sum(
        one(c.model, 3 + again) + 32 * count_params(c.model).unique / (mesh.fsdp * mesh.tensor) for c in group.cells
    )
    return students / mesh.student + (one(group.teacher.model, 1) if group.teacher else 0.0)
