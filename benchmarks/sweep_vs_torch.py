"""How long does a sweep take beside a PyTorch loop? Same grid, tokens, shapes and objective; alternating, in one run.

    python benchmarks/sweep_vs_torch.py [--experiment experiments/quickstart.py] [--teachers 4] [--steps 32] [--rounds
    3]

Contestants, each with all cores: (a) a plain loop, one pair at a time, teacher forward recomputed; (b) a loop that
shares the teacher pass among the students; both eager and compiled; (c) gaplaw as `gaplaw run` works: one
single-threaded process per group of students, as many at a time as there are cores. Each is started and compiled once,
from empty caches of compiled code (one folder for all of gaplaw's processes), then they take turns. "With compilation"
counts everything from starting the processes. Needs `pip install torch` (not a requirement of gaplaw); says so and
exits 0 without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = ("plain-eager", "plain-compiled", "shared-eager", "shared-compiled")


def grid(experiment: str, teachers: int):
    """The experiment's sweep and an even choice of its teachers' groups of students, dearest first."""
    from gaplaw.sweep.planning.load import load_experiment

    sweep = load_experiment(experiment)
    groups = sorted((g for g in sweep.groups() if g.teacher), key=lambda g: -g.teacher.model.width)
    spread = [round(i * (len(groups) - 1) / max(1, teachers - 1)) for i in range(min(teachers, len(groups)))]
    return sweep, [groups[i] for i in dict.fromkeys(spread)]


def torch_child(kind: str, groups, steps: int):
    """Build every pair once; returns a function that takes `steps` steps of each, in the contestant's order of work."""
    import torch

    from benchmarks.torch_model import Llama, optimizer_for, student_step
    from gaplaw import data

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    torch._dynamo.config.recompile_limit = 256  # every shape of the grid is compiled, none falls back to eager
    sharing, compiled = kind.startswith("shared"), kind.endswith("compiled")
    ready = (lambda f: torch.compile(f)) if compiled else (lambda f: f)
    first = groups[0].cells[0]
    corpus = data.load(first.data)
    batches = torch.from_numpy(corpus.batch(first.split, first.train.batch_sequences, 0, range(steps))).long()
    built = []
    for group in groups:
        teacher = ready(Llama(group.teacher.model).requires_grad_(False))
        pairs = []
        for cell in group.cells:
            student = Llama(cell.model)
            pairs.append((cell, ready(student), optimizer_for(student, cell.train)))
        built.append((teacher, pairs))

    def step(cell, student, optimizer, batch, logits):
        return student_step(
            student, optimizer, cell.objective, cell.train.clip_norm, batch[:, :-1], batch[:, 1:], logits
        )

    def target(teacher, batch):
        with torch.no_grad():
            return teacher(batch[:, :-1])

    def work(count):
        for teacher, pairs in built:
            if sharing:
                for batch in batches[:count]:
                    logits = target(teacher, batch)
                    for pair in pairs:
                        step(*pair, batch, logits)
            else:
                for pair in pairs:
                    for batch in batches[:count]:
                        step(*pair, batch, target(teacher, batch))

    work(2)
    return work


def gaplaw_child(group, steps: int):
    """Compile one group's programs; returns a function that takes at most `steps` steps of it in one dispatch."""
    import jax

    from gaplaw import data, models
    from gaplaw.spec import Execution
    from gaplaw.sweep.running.pin_core import stay_on_a_core
    from gaplaw.train.mesh import make_mesh, put
    from gaplaw.train.stack import stacks_of, start
    from gaplaw.train.step import train_program

    execution = Execution(steps_per_dispatch=steps, workers=os.cpu_count())
    stay_on_a_core(execution)
    mesh, first = make_mesh(execution.mesh), group.cells[0]
    batches = data.load(first.data).batch(first.split, first.train.batch_sequences, 0, range(steps))
    stacks = stacks_of(group.cells, {cell.fingerprint: cell.model for cell in group.cells}, execution)
    teacher = jax.jit(lambda key: models.init(key, group.teacher.model))(jax.random.key(0))
    states = [start(stack, None, mesh) for stack in stacks]
    program = train_program(stacks, group.teacher.model, execution, mesh)

    def work(count):
        nonlocal states
        states, losses, _ = program(states, teacher, put(mesh, batches), 0, count)
        jax.block_until_ready((states, losses))

    work(2)
    return work


def child(kind: str, options) -> None:
    """Say when ready, then work at every line on stdin."""
    _, groups = grid(options.experiment, options.teachers)
    if kind == "gaplaw":
        work = gaplaw_child(groups[options.group], options.steps)
    else:
        work = torch_child(kind, groups, options.steps)
    print("ready", flush=True)
    for _ in sys.stdin:
        work(options.steps)
        print("done", flush=True)


class Contestant:
    """Processes, as many at work at a time as `lanes`; a turn lasts until all have worked.

    start_seconds: from starting the first process until the last one has built and compiled everything.
    """

    def __init__(self, kind: str, options, processes: int, lanes: int):
        self.kind, self.turns, self.pool = kind, [], ThreadPoolExecutor(lanes)
        self.caches = tempfile.TemporaryDirectory(prefix="sweep_vs_torch-")
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "TORCHINDUCTOR_CACHE_DIR": self.caches.name,
            "JAX_COMPILATION_CACHE_DIR": self.caches.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        if kind == "gaplaw":  # as gaplaw.sweep starts its workers
            flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            self.environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
            self.environment |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        chosen = {"experiment": options.experiment, "teachers": options.teachers, "steps": options.steps, "child": kind}
        self.command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in chosen.items()), "--group"]
        began = time.perf_counter()
        self.processes = list(self.pool.map(self.start, range(processes)))
        self.start_seconds = time.perf_counter() - began
        print(f"{kind} is compiled after {self.start_seconds:.0f} s", file=sys.stderr, flush=True)

    def start(self, number: int) -> subprocess.Popen:
        process = subprocess.Popen(
            [*self.command, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        expect(process, "ready")
        return process

    def turn(self) -> None:
        def work(process):
            process.stdin.write("\n")
            process.stdin.flush()
            expect(process, "done")

        began = time.perf_counter()
        list(self.pool.map(work, self.processes))
        self.turns.append(time.perf_counter() - began)

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
            process.wait()
        self.pool.shutdown()
        self.caches.cleanup()


def expect(process: subprocess.Popen, word: str) -> None:
    said = process.stdout.readline().strip()
    if said != word:
        raise SystemExit(f"a contestant's process ended early (exit code {process.wait()}); its error is above")


def ceiling_flops() -> float:
    """The best float32 matrix product of this machine, all cores, in FLOP/s (median of 7)."""
    import numpy as np

    a = np.ones((2048, 2048), np.float32)
    rates = []
    for _ in range(7):
        began = time.perf_counter()
        a @ a
        rates.append(2 * 2048**3 / (time.perf_counter() - began))
    return statistics.median(rates)


def main(options) -> None:
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: `pip install torch` to run this comparison")
        return
    from gaplaw import data
    from gaplaw.spec.sizes import forward_flops_per_token

    _, groups = grid(options.experiment, options.teachers)
    pairs, cell = sum(len(group.cells) for group in groups), groups[0].cells[0]
    tokens = pairs * options.steps * cell.batch_tokens
    flops = (
        options.steps
        * cell.batch_tokens
        * sum(
            forward_flops_per_token(group.teacher.model, cell.data.sequence_tokens)
            + sum(3 * forward_flops_per_token(c.model, c.data.sequence_tokens) for c in group.cells)
            for group in groups
        )
    )
    print(
        f"{len(groups)} teachers, {pairs} pairs, batches of {cell.batch_tokens} tokens, {options.steps} steps a turn, "
        f"{options.rounds} rounds, {os.cpu_count()} cores; compiled code from empty caches; "
        f"gaplaw in one single-threaded process per teacher, {os.cpu_count()} at a time"
    )
    data.load(cell.data)  # packed here, once, as `gaplaw run` does
    contestants = {kind: Contestant(kind, options, processes=1, lanes=1) for kind in TORCH}
    contestants["gaplaw"] = Contestant("gaplaw", options, processes=len(groups), lanes=os.cpu_count())
    for _ in range(options.rounds):
        for contestant in contestants.values():
            contestant.turn()
    seconds = {kind: statistics.median(c.turns) for kind, c in contestants.items()}
    whole = {kind: c.start_seconds + seconds[kind] * cell.steps / options.steps for kind, c in contestants.items()}
    for kind, contestant in contestants.items():
        spread = f"{min(contestant.turns):.2f}–{max(contestant.turns):.2f}"
        print(
            f"{kind:16s} {seconds[kind]:7.2f} s a turn ({spread}), {1e6 * seconds[kind] / tokens:8.3f} µs per "
            "student token, "
            f"start and compile {contestant.start_seconds:6.1f} s"
        )
        contestant.close()
    peak = ceiling_flops()
    print(
        f"gaplaw achieves {flops / seconds['gaplaw'] / 1e9:.1f} GFLOP/s, {flops / seconds['gaplaw'] / peak:.3f} of "
        "the measured "
        f"matrix-product ceiling ({peak / 1e9:.0f} GFLOP/s, float32, all cores)"
    )
    for name, clock in (("with compilation, over the experiment's steps", whole), ("without compilation", seconds)):
        for rival in ("shared-compiled", "shared-eager", "plain-compiled", "plain-eager"):
            print(f"ratio {rival} / gaplaw, wall time per student token, {name}: {clock[rival] / clock['gaplaw']:.2f}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default=str(ROOT / "experiments" / "quickstart.py"))
    parser.add_argument("--teachers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--group", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    child(given.child, given) if given.child else main(given)
