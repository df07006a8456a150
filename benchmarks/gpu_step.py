"""How close does a distillation step come to what a GPU can multiply, and to PyTorch? One table, on the GPU that is
here.

    python benchmarks/gpu_step.py [--rounds 5] [--contestants gaplaw-cudnn torch-compiled]

Pairs of student and teacher: 125M from 1.3B, 1B from 2.5B; bfloat16 products, float32 master weights, 2,048-token
sequences, half labels and half soft targets. Contestants: gaplaw with cuDNN and with plain attention, one student and
several students in one program; a PyTorch step with scaled_dot_product_attention, eager and compiled (if torch is
installed). Each runs in a process of its own, one after the other, on random weights. FLOPs are the model's (three
forwards of every student, one of the teacher; attention over the whole context, as in PaLM's appendix B; nothing that
is computed twice); the ceiling is the best rate of large bfloat16 products of random numbers, measured first. Without a
GPU it says so and exits 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from gaplaw.spec import Cell, DataSpec, Execution, Group, ObjectiveSpec, TrainSpec  # noqa: E402
from gaplaw.spec.sizes import model_for  # noqa: E402
from gaplaw.sweep.planning.estimate import training_flops  # noqa: E402

STEPS = 4  # of one dispatch
PAIRS = {
    "125M from 1.3B": ("125M", "1.3B", 16, 4),
    "1B from 2.5B": ("1B", "2.5B", 8, 2),
}  # sequences, students of a group
SMOKE = {"10k from 20k": ("10k", "20k", 2, 2)}
KINDS = ("gaplaw-cudnn", "torch-compiled", "gaplaw-cudnn-group", "gaplaw-plain", "torch-eager")
# One process has the GPU to itself. At these sizes cuBLAS alone did no worse than XLA's choice among it and Triton
# (LOG).
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.93",
    "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def group_of(pair: str, students: int, smoke: bool) -> Group:
    """So many students of one shape, which differ in their seeds, under one teacher."""
    student, teacher, sequences, _ = (SMOKE if smoke else PAIRS)[pair]
    length, vocab = (32, 256) if smoke else (2048, 32_000)
    data = DataSpec(sequence_tokens=length)
    recipe = TrainSpec(tokens=1000 * sequences * length, batch_sequences=sequences, learning_rate=3e-4)
    shape = dict(vocab_size=vocab, max_length=length)
    taught_by = Cell(name="teacher", model=model_for(teacher, **shape), data=data, train=recipe)
    return Group(
        cells=tuple(
            Cell(
                name=f"student-{seed}",
                model=model_for(student, **shape),
                data=data,
                train=recipe,
                objective=ObjectiveSpec(soft_weight=0.5),
                teacher=taught_by,
                seed=seed,
            )
            for seed in range(students)
        )
    )


def gaplaw_child(group: Group, attention: str):
    """Compile the group's program; returns a function that takes STEPS steps and waits for them, and one for peak
    bytes.
    """
    import jax

    from gaplaw.train.mesh import make_mesh, put
    from gaplaw.train.stack import stacks_of, start, teacher_on
    from gaplaw.train.step import train_program

    execution = Execution(
        core_blocked=False,
        compute_dtype="bfloat16",
        teacher_dtype="bfloat16",
        attention=attention,
        chunk_tokens=4096,
    )
    mesh, model = make_mesh(execution.mesh), group.teacher.model
    stacks = stacks_of(group.cells, {cell.fingerprint: cell.model for cell in group.cells}, execution)
    states = [start(stack, random_weights(stack.model), mesh) for stack in stacks]
    teacher = teacher_on(mesh, random_weights(model), model, group.cells, execution)
    batches = put(mesh, tokens_of(group))
    program = train_program(stacks, model, execution, mesh)

    def work():
        nonlocal states
        states, losses, _ = program(states, teacher, batches, 0, STEPS)
        jax.block_until_ready(losses)

    return work, lambda: (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def random_weights(model):
    """Arrays of a model's shapes from one small draw, repeated: they compile in a second; the step is no faster for it
    (LOG).
    """
    import jax
    import jax.numpy as jnp

    from gaplaw import models

    drawn = 0.02 * jax.random.normal(jax.random.key(1), (2**20 + 7,))
    shapes = jax.eval_shape(lambda key: models.init(key, model), jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.resize(drawn, leaf.shape), shapes)


def torch_child(group: Group, compiled: bool):
    """The same for one student in PyTorch: autocast to bfloat16, teacher in bfloat16, fused AdamW."""
    import torch

    from benchmarks.torch_model import Llama, distillation_loss, optimizer_for, student_step

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cell, ready = group.cells[0], (torch.compile if compiled else lambda f: f)
    with torch.device(device):
        student, teacher = Llama(cell.model), Llama(cell.teacher.model).to(torch.bfloat16).requires_grad_(False)
    optimizer, running, teaching = optimizer_for(student, cell.train), ready(student), ready(teacher)
    loss_of, batches = ready(distillation_loss), torch.from_numpy(tokens_of(group)).long().to(device)

    def work():
        for batch in batches:
            inputs, labels = batch[:, :-1], batch[:, 1:]
            with torch.autocast(device, torch.bfloat16):
                with torch.no_grad():
                    logits = teaching(inputs).float()
                student_step(running, optimizer, cell.objective, cell.train.clip_norm, inputs, labels, logits, loss_of)
        if device == "cuda":
            torch.cuda.synchronize()

    return work, lambda: torch.cuda.max_memory_allocated() if device == "cuda" else 0


def tokens_of(group: Group):
    import numpy as np

    cell = group.cells[0]
    shape = (STEPS, cell.train.batch_sequences, cell.data.sequence_tokens + 1)
    return np.random.default_rng(0).integers(0, cell.model.vocab_size, shape, np.int32)


def ceiling(smoke: bool) -> float:
    """The best rate of square bfloat16 products of random numbers, in FLOP/s."""
    import jax

    @jax.jit
    def products(x, square):
        return jax.lax.fori_loop(0, 8, lambda _, y: y @ square, x)

    best = 0.0
    for side in (256,) if smoke else (4096, 8192, 16384):
        square = jax.random.normal(jax.random.key(side), (side, side), "bfloat16") / side**0.5
        seconds = timed(lambda square=square: jax.block_until_ready(products(square, square)), 5)
        best = max(best, 8 * 2.0 * side**3 / min(seconds))
    return best


def timed(work, rounds: int) -> list[float]:
    """Seconds of each of so many calls, after two that are not counted."""
    seconds = []
    for _ in range(2 + rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds[2:]


def child(kind: str, pair: str, rounds: int, smoke: bool) -> dict:
    """One contestant's numbers on one pair."""
    if kind == "ceiling":
        return {"rate": ceiling(smoke)}
    several = (SMOKE if smoke else PAIRS)[pair][3] if kind.endswith("group") else 1
    group = group_of(pair, several, smoke)
    if kind.startswith("torch"):
        work, peak_bytes = torch_child(group, kind.endswith("compiled"))
    else:
        fast = "xla" if smoke else "cudnn"
        work, peak_bytes = gaplaw_child(group, "plain" if kind == "gaplaw-plain" else fast)
    seconds = statistics.median(timed(work, rounds)) / STEPS
    cell = group.cells[0]
    return {
        "name": f"{kind} of {several}" if several > 1 else kind,
        "seconds": seconds,
        "tokens": several * cell.batch_tokens / seconds,
        "rate": training_flops(group) / cell.steps / seconds,
        "peak_bytes": peak_bytes(),
    }


def run(kind: str, pair: str, options) -> dict | str:
    """A child's numbers, or why there are none, in one line."""
    command = [sys.executable, __file__, "--child", kind, "--pair", pair, "--rounds", str(options.rounds)]
    done = subprocess.run(
        command + ["--smoke"] * options.smoke, capture_output=True, text=True, env=ENVIRONMENT | os.environ
    )
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:120]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each contestant; the median counts")
    parser.add_argument("--contestants", nargs="+", default=KINDS, choices=KINDS, help="which, in this order")
    for hidden, options in (("--child", {}), ("--pair", {"default": ""}), ("--smoke", {"action": "store_true"})):
        parser.add_argument(hidden, help=argparse.SUPPRESS, **options)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.pair, options.rounds, options.smoke)))
        return 0
    look = "import jax; device = jax.devices()[0]; print(device.platform, device.device_kind)"
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout.strip() or "nothing"
    if not options.smoke and not seen.startswith("gpu"):
        print(f"no GPU here (JAX sees {seen}): nothing was measured")
        return 0
    top = run("ceiling", "", options)
    if isinstance(top, str):
        print(f"the product that sets the ceiling failed: {top}")
        return 1
    print(
        f"{seen}; bfloat16 products reach {top['rate'] / 1e12:.3g} TFLOP/s; medians of {options.rounds} × {STEPS} steps"
    )
    print(
        f"{'pair':<16} {'contestant':<24} {'ms/step':>8} {'student tokens/s':>17} {'TFLOP/s':>8} {'of ceiling':>10} "
        f"{'peak GiB':>8}"
    )
    for pair in SMOKE if options.smoke else PAIRS:
        for kind in options.contestants:
            absent = kind.startswith("torch") and importlib.util.find_spec("torch") is None
            found = "torch is not installed" if absent else run(kind, pair, options)
            if isinstance(found, str):
                print(f"{pair:<16} {kind:<24} {found}", flush=True)
                continue
            print(
                f"{pair:<16} {found['name']:<24} {1e3 * found['seconds']:>8.1f} {found['tokens']:>17,.0f} "
                f"{found['rate'] / 1e12:>8.3g} {found['rate'] / top['rate']:>10.1%} "
                f"{found['peak_bytes'] / 2**30:>8.1f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
