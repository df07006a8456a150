"""What does a teacher cache cost, how far can it be trusted, and what does it save? One group, live and cached, in one
run.

    python benchmarks/teacher_cache.py [--steps 128] [--rounds 3] [--symbols 16]

A teacher of the quickstart (width 48) is trained shortly; nine of its students then train for `steps` steps from the
live teacher and from each cache, in turns. Prints bytes per token beside dense logits, each cache's fidelity, and CPU
and wall time of the training steps over those of live training (medians over rounds; compilation, filling and
evaluation are left out).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiments.quickstart import llama, recipe  # noqa: E402
from gaplaw.spec import (
    DataSpec,  # noqa: E402
    Execution,
    Group,
    Sweep,
    TeacherSignal,
)
from gaplaw.spec.teacher_signal import LIVE


def groups_of(steps: int, symbols: int) -> tuple[Group, list[Group]]:
    sweep = Sweep.grid(
        name="teacher-cache",
        question="",
        data=DataSpec(sequence_tokens=64, validation_tokens=16_384),
        teachers=[llama(48)],
        students=[llama(width) for width in (6, 8, 12)],
        teacher_train=recipe(512, 0.007),
        student_train=recipe(steps, 0.02),
        signal=[LIVE, *(TeacherSignal(kind=kind, symbols=symbols) for kind in ("topk", "sampled"))],
        seeds=(0, 1, 2),
        baseline=False,
    )
    teacher, *students = sweep.groups()
    return teacher, students


class Clock:
    """CPU and wall seconds between the first dispatch and the end of training, from a group's progress reports."""

    def __init__(self):
        self.at = {}

    def __call__(self, now) -> None:
        here = now.step, time.process_time(), time.perf_counter()
        if now.phase == "train":
            self.at.setdefault("begin", here)
        if now.phase == "evaluate":
            self.at["end"] = here

    def per_step(self) -> tuple[float, float]:
        (first, *begin), (last, *end) = self.at["begin"], self.at["end"]
        return tuple((b - a) / (last - first) for a, b in zip(begin, end, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("steps", 128), ("rounds", 3), ("symbols", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    import jax

    from gaplaw import data
    from gaplaw.train import run_group

    teacher_group, groups = groups_of(options.steps, options.symbols)
    execution = Execution(evaluations=1, steps_per_dispatch=max(1, options.steps // 8))
    corpus = data.load(teacher_group.cells[0].data)
    seconds = {group.signal.label: [] for group in groups}
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/xla")  # later rounds find their programs here
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        (taught,) = run_group(teacher_group, corpus=corpus, execution=execution, keep_params=True)
        for turn in range(options.rounds + 1):  # the first fills the caches and compiles
            for group in groups:
                clock = Clock()
                outcomes = run_group(
                    group,
                    corpus=corpus,
                    execution=execution,
                    teacher=(taught.params, taught.model),
                    progress=clock,
                    signals=Path(folder) / "signals",
                )
                if turn:
                    seconds[group.signal.label].append(clock.per_step())
                columns[group.signal.label] = outcomes[0].metrics
    report(groups, columns, seconds)


def report(groups: list[Group], columns: dict, seconds: dict) -> None:
    print("bytes per token, beside dense float32 / bfloat16 logits")
    for vocab in (256, 32_768, 131_072):
        for group in groups[1:]:
            kept = group.signal.token_bytes(vocab, group.temperatures)
            print(
                f"  V = {vocab:>7,}  {group.signal.label:<10} {kept:>5}  ratio {kept / (4 * vocab):.5f} / "
                f"{kept / (2 * vocab):.5f}"
            )
    print("fidelity at temperature 1 on held-out tokens; loss of the first student after the run (single run)")
    for label, row in columns.items():
        told = [f"{name[14:]} {row[name]:.4f}" for name in row if name.startswith("teacher_cache_")]
        told.append(f"student loss {row['loss_student_ce_nats']:.4f} nats")
        print(f"  {label:<10} {'  '.join(told)}")
    live = [statistics.median(column) for column in zip(*seconds[LIVE.label], strict=True)]
    print("seconds per training step of nine students: CPU, wall; and over live training")
    for label, rounds in seconds.items():
        cpu, wall = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"  {label:<10} {cpu:.4f}  {wall:.4f}  ratio {cpu / live[0]:.2f}  {wall / live[1]:.2f}")


if __name__ == "__main__":
    main()
