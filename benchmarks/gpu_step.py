"""How close does a distillation step come to what a GPU can multiply, and to PyTorch? One table, on the GPU that is here.

    python benchmarks/gpu_step.py [--rounds 5]

Pairs of student and teacher: 125M from 1.3B, 1B from 2.5B; bfloat16 products, float32 master weights, 2,048-token sequences, half
labels and half soft targets. Contestants: gaplaw with plain and with cuDNN attention, one student and several students in one
program; a PyTorch step with scaled_dot_product_attention, eager and compiled (if torch is installed). Each runs in a process of
its own, one after the other. FLOPs are the model's (three forwards of every student, one of the teacher; nothing that is computed
twice); the ceiling is the best rate of a large bfloat16 product, measured first. Without a GPU it says so and exits 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from gaplaw.execution import Execution  # noqa: E402
from gaplaw.grid import Group  # noqa: E402
from gaplaw.sizes import model_for  # noqa: E402
from gaplaw.spec import Cell, DataSpec, ObjectiveSpec, TrainSpec  # noqa: E402
from gaplaw.sweep.cost import training_flops  # noqa: E402

STEPS = 4  # of one dispatch
PAIRS = {
    "125M from 1.3B": ("125M", "1.3B", 16, 4),
    "1B from 2.5B": ("1B", "2.5B", 8, 2),
}  # sequences, students of a group
SMOKE = {"10k from 20k": ("10k", "20k", 2, 2)}
KINDS = ("gaplaw-plain", "gaplaw-cudnn", "gaplaw-cudnn-group", "torch-eager", "torch-compiled")


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
    """Compile the group's program; returns a function that takes STEPS steps and waits for them."""
    import jax

    from gaplaw import models
    from gaplaw.train.mesh import make_mesh, put
    from gaplaw.train.stack import stacks_of, start, teacher_on
    from gaplaw.train.step import train_program

    execution = Execution(
        core_blocked=False,
        compute_dtype="bfloat16",
        teacher_dtype="bfloat16",
        attention=attention,
        scan_layers=True,
        remat="dots",
        chunk_tokens=4096,
    )
    mesh, model = make_mesh(execution.mesh), group.teacher.model
    stacks = stacks_of(group.cells, {cell.fingerprint: cell.model for cell in group.cells}, execution)
    states = [start(stack, None, mesh) for stack in stacks]
    teacher = teacher_on(
        mesh, jax.jit(models.init, static_argnums=1)(jax.random.key(1), model), model, group.cells, execution
    )
    batches = put(mesh, tokens_of(group))
    program = train_program(stacks, model, execution, mesh)

    def work():
        nonlocal states
        states, losses = program(states, teacher, batches, 0, STEPS)
        jax.block_until_ready(losses)

    return work


def torch_child(group: Group, compiled: bool):
    """The same for one student in PyTorch: autocast to bfloat16, teacher in bfloat16, fused AdamW."""
    import torch

    from benchmarks.torch_model import Llama, optimizer_for, student_step

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cell, ready = group.cells[0], (torch.compile if compiled else lambda f: f)
    student = Llama(cell.model).to(device)
    teacher = ready(Llama(cell.teacher.model).to(device, torch.bfloat16).requires_grad_(False))
    optimizer, running = optimizer_for(student, cell.train), ready(student)
    batches = torch.from_numpy(tokens_of(group)).long().to(device)

    def work():
        for batch in batches:
            with torch.autocast(device, torch.bfloat16):
                with torch.no_grad():
                    logits = teacher(batch[:, :-1]).float()
                student_step(
                    running, optimizer, cell.objective, cell.train.clip_norm, batch[:, :-1], batch[:, 1:], logits
                )
        if device == "cuda":
            torch.cuda.synchronize()

    return work


def tokens_of(group: Group):
    import numpy as np

    cell = group.cells[0]
    shape = (STEPS, cell.train.batch_sequences, cell.data.sequence_tokens + 1)
    return np.random.default_rng(0).integers(0, cell.model.vocab_size, shape, np.int32)


def ceiling_child(smoke: bool):
    """A large bfloat16 product; returns (work, its FLOPs)."""
    import jax
    import jax.numpy as jnp

    side, repeats = (256, 2) if smoke else (8192, 8)
    square = jnp.ones((side, side), jnp.bfloat16) / side

    @jax.jit
    def products(x):
        return jax.lax.fori_loop(0, repeats, lambda _, y: y @ square, x)

    return lambda: jax.block_until_ready(products(square)), 2.0 * side**3 * repeats


def child(kind: str, pair: str, rounds: int, smoke: bool) -> None:
    """Warm up, time, and print one JSON line: median and fastest seconds, and the FLOPs of one call."""
    if kind == "ceiling":
        work, flops = ceiling_child(smoke)
    else:
        several = (SMOKE if smoke else PAIRS)[pair][3]
        group = group_of(pair, several if kind.endswith("group") else 1, smoke)
        flops = training_flops(group) / group.cells[0].steps * STEPS
        fast = "xla" if smoke else "cudnn"
        attention = "plain" if kind == "gaplaw-plain" else fast
        torch_kind = kind.startswith("torch")
        work = torch_child(group, kind.endswith("compiled")) if torch_kind else gaplaw_child(group, attention)
    for _ in range(2):
        work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"median": statistics.median(seconds), "fastest": min(seconds), "flops": flops}))


def run(kind: str, pair: str, options) -> dict | str:
    """A child's numbers, or why there are none, in one line."""
    command = [sys.executable, __file__, "--child", kind, "--pair", pair, "--rounds", str(options.rounds)]
    done = subprocess.run(command + ["--smoke"] * options.smoke, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:120]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each contestant; the median counts")
    for hidden, options in (("--child", {}), ("--pair", {"default": ""}), ("--smoke", {"action": "store_true"})):
        parser.add_argument(hidden, help=argparse.SUPPRESS, **options)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.pair, options.rounds, options.smoke)
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
    rate = top["flops"] / top["fastest"]
    print(
        f"{seen}; bfloat16 products reach {rate / 1e12:.3g} TFLOP/s; medians of {options.rounds} calls of {STEPS} steps"
    )
    print(f"{'pair':<16} {'contestant':<24} {'ms/step':>9} {'student tokens/s':>17} {'TFLOP/s':>9} {'of ceiling':>10}")
    for pair, (_, _, _, several) in (SMOKE if options.smoke else PAIRS).items():
        cell = group_of(pair, 1, options.smoke).cells[0]
        for kind in KINDS:
            if kind.startswith("torch") and importlib.util.find_spec("torch") is None:
                print(f"{pair:<16} {kind:<24} torch is not installed")
                continue
            found = run(kind, pair, options)
            if isinstance(found, str):
                print(f"{pair:<16} {kind:<24} {found}")
                continue
            tokens = cell.batch_tokens * STEPS * (several if kind.endswith("group") else 1) / found["median"]
            speed = found["flops"] / found["median"]
            name = f"{kind} of {several}" if kind.endswith("group") else kind
            print(
                f"{pair:<16} {name:<24} {1e3 * found['median'] / STEPS:>9.2f} {tokens:>17,.0f} {speed / 1e12:>9.3g} "
                f"{speed / rate:>10.1%}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
