"""How does one group of cells go from specification to measured rows?

Batches are a function of (batch_seed, step); losses are read one dispatch late, so the device never waits for the host.
A student that stops being finite becomes a failed outcome and touches nobody else. A group that was killed goes on from
its newest checkpoint, with the numbers that it would have had anyway.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from gaplaw.distill.evaluate import Scores, summarise
from gaplaw.spec import Cell, Execution, Group, ModelSpec
from gaplaw.train.best import Best
from gaplaw.train.checkpoint import InFlight, Record
from gaplaw.train.hosts import begun_together
from gaplaw.train.mesh import make_mesh, placed, put_rows, shardings, whole
from gaplaw.train.outcome import CellOutcome, Progress, last_steps, measured_columns
from gaplaw.train.stack import abstract_state, cut_from_teacher, params_of, runs_core_blocked, stacks_of, start
from gaplaw.train.step import batches_at_once, evaluate_program, train_program, validation_pieces
from gaplaw.train.teacher import StoredTeacher
from gaplaw.train.teacher_cache import signal_of

IMPORTANCE_BATCHES = 16  # sample for pruning: enough that the ranking is stable, a small share of any real budget


def run_group(
    group: Group,
    *,
    corpus,
    execution: Execution,
    teacher: tuple[dict, ModelSpec] | None = None,
    stored: StoredTeacher | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    keep_params: bool = False,
    checkpoints: Path | None = None,
    signals: Path | None = None,
) -> list[CellOutcome]:
    """Train and evaluate every cell of a group in one compiled program.

    Args:
      corpus: a `gaplaw.data.Corpus`.
      teacher: (params, ModelSpec) of the group's teacher, None for teachers and baselines.
      stored: what the store says of that teacher; every evaluation compares it.
      progress: called about once a dispatch from this thread.
      keep_params: whether outcomes carry the trained parameters.
      checkpoints: a folder of this group's own, where training is written every `execution.checkpoint_seconds` and from
        which it goes on; nothing is written without one.
      signals: the folder of teacher caches, needed when the group's signal is cached.
    Returns: one outcome per cell, in the group's order; equal to running each cell alone, within float tolerance.
    Raises: CheckpointError when the teacher is not what `stored` says.
    """
    flight = None
    if checkpoints is not None:
        of = [cell.fingerprint for cell in group.cells] + ([stored.checkpoint] if stored else [])
        flight = InFlight(checkpoints, of, execution.checkpoint_seconds)
    try:
        run = _Run(group, corpus, execution, teacher, stored, progress, flight, signals)
        run.train()
        return run.outcomes(keep_params)
    finally:
        if flight is not None:
            flight.close()


class _Run:
    """The moving parts of one group: compiled programs, states and what has been read back so far."""

    def __init__(self, group, corpus, execution, teacher, stored, progress, flight, signals):
        self.group, self.corpus, self.execution, self.report = group, corpus, execution, progress
        self.stored, self.flight, self.began = stored, flight, time.perf_counter()
        self.first = first = group.cells[0]
        self.split, self.sequences, self.seed = first.split, first.train.batch_sequences, first.train.batch_seed
        self.mesh = make_mesh(execution.mesh)
        execution.check_batch(self.sequences)
        self.compile_seconds, self.done = None, 0
        told = partial(self.tell, "teacher", 0, {})
        self.signal = signal_of(group, corpus, execution, self.mesh, signals, teacher, told)
        pruned = {}
        if any(cell.init == "prune" for cell in group.cells):
            sample = corpus.batch(self.split, self.sequences, self.seed, range(IMPORTANCE_BATCHES))
            whole_teacher = jax.device_put(teacher[0], shardings(self.mesh, teacher[0], stacked=False)), teacher[1]
            pruned = cut_from_teacher(group.cells, whole_teacher, sample, self.mesh)
        shapes = {c.fingerprint: pruned[c.target_params][1] if c.init == "prune" else c.model for c in group.cells}
        self.stacks = stacks_of(group.cells, shapes, execution)
        held = corpus.validation()
        self.domains = held.domains
        self.held = validation_pieces(self.stacks, execution, self.mesh, held.tokens_NxL1, held.domain_N)
        self.program = begun_together(train_program(self.stacks, self.signal.model, execution, self.mesh))
        self.evaluation = begun_together(
            evaluate_program(self.stacks, self.signal.model, execution, len(self.domains), self.mesh)
        )
        self.curves: dict[str, list[dict]] = {cell.id: [] for cell in group.cells}
        self.last_losses = dict.fromkeys(self.curves, 0.0)  # sums over the steps of `last_steps` so far
        self.last_measured: dict[str, dict[str, float]] = {cell_id: {} for cell_id in self.curves}
        self.broken: dict[str, str] = {}
        self.best: Best | None = None
        if not self.resumed():
            self.states = [
                start(stack, pruned.get(stack.cells[0].target_params, (None,))[0], self.mesh) for stack in self.stacks
            ]
            if execution.keep_students == "best":
                self.best = Best(self.stacks, self.states)

    def resumed(self) -> bool:
        """Take up the group where its newest checkpoint left it, if there is one."""
        like = [placed(self.mesh, abstract_state(stack), stacked=True) for stack in self.stacks]
        keeps_best = self.execution.keep_students == "best"
        found = self.flight and self.flight.restore((like, [state.params for state in like] if keeps_best else []))
        if not found:
            return False
        (self.states, best), record = found
        self.done, self.compile_seconds = record.step, record.compile_seconds
        self.curves, self.broken, self.last_losses = record.curves, record.broken, record.last_losses
        self.last_measured = record.last_measured
        self.began -= record.seconds
        if keeps_best:
            self.best = Best(self.stacks, self.states)
            self.best.params = best
            for cell_id, rows in self.curves.items():
                measured = [row["validation_loss_nats"] for row in rows if "validation_loss_nats" in row]
                self.best.losses_nats[cell_id] = min(measured, default=float("inf"))
        print(f"{self.group.id}: goes on from step {self.done} of {self.first.steps}", file=sys.stderr)
        return True

    def cells_of(self, per_stack) -> dict[str, object]:
        """Spread one value per (stack, seed) over cell ids."""
        return {
            cell.id: value
            for stack, values in zip(self.stacks, per_stack, strict=True)
            for cell, value in zip(stack.cells, values, strict=True)
        }

    def train(self) -> None:
        """Dispatch equal numbers of batches, so that one compiled program serves all; of the last, not all may be used.

        After a resume with other dispatches, neither may all of the first.
        """
        steps = self.first.steps
        dispatches = -(-steps // batches_at_once(self.stacks, self.execution))
        stride = -(-steps // dispatches)
        marks = {round(dispatches * (i + 1) / self.execution.evaluations) for i in range(self.execution.evaluations)}
        waiting = None
        self.tell("compile", self.done, {})
        for number in range(self.done // stride + 1, dispatches + 1):
            at = range((number - 1) * stride, number * stride)
            begin, goal = max(at.start, self.done), min(at.stop, steps)
            first, stop = begin - at.start, goal - at.start
            source = self.signal.read(at)
            self.states, losses, measured = self.program(self.states, source, self.batches(at), first, stop)
            if waiting is not None:
                self.read(*waiting)
            elif self.compile_seconds is None:
                jax.block_until_ready(losses)
                self.compile_seconds = time.perf_counter() - self.began
            waiting = (goal, whole(self.mesh, (losses, measured)), slice(first, stop))
            marked = number in marks | {dispatches}
            kept = goal < steps and self.flight is not None and self.flight.due(goal)
            if marked or kept:
                self.read(*waiting)
                waiting = None
            if marked:
                self.measure(goal)
            if kept:
                self.keep(goal)
            if len(self.broken) == len(self.group.cells):
                return

    def keep(self, at: int) -> None:
        """Write where the group stands; training goes on meanwhile."""
        record = Record(
            step=at,
            seconds=time.perf_counter() - self.began,
            compile_seconds=self.compile_seconds,
            curves=self.curves,
            broken=self.broken,
            last_losses=self.last_losses,
            last_measured=self.last_measured,
        )
        self.flight.save((self.states, self.best.params if self.best else []), record)

    def batches(self, at: range) -> jax.Array:
        """int32 [K, B, L+1] for the steps `at`; each process reads only its own rows."""
        shape = (len(at), self.sequences, self.first.data.sequence_tokens + 1)
        return put_rows(
            self.mesh, shape, lambda rows: self.corpus.batch(self.split, self.sequences, self.seed, at, rows=rows)
        )

    def read(self, at: int, history, taken: slice) -> None:
        """Fetch one dispatch's losses and what the objectives measured (a stall only if it is still running), and note
        who is no longer finite.

        The last losses are added one by one, in order: their sum is the same bits however steps are cut into
        dispatches.
        """
        losses, measured = jax.tree.map(lambda part_KxS: np.asarray(part_KxS, np.float64)[taken].T, history)
        measured = self.cells_of(
            [{name: of_stack[name][place] for name in of_stack} for place in range(len(stack.cells))]
            for of_stack, stack in zip(measured, self.stacks, strict=True)
        )
        for cell_id, loss_K in self.cells_of(losses).items():
            self.curves[cell_id].append(
                {"tokens": at * self.first.batch_tokens, "training_loss_nats": float(loss_K.mean())}
            )
            outside = max(0, last_steps(self.first.steps).start - (at - len(loss_K)))
            for loss in loss_K[outside:].tolist():
                self.last_losses[cell_id] += loss
            for name, value_K in measured[cell_id].items():
                sums = self.last_measured[cell_id]
                sums[name] = sum(value_K[outside:].tolist(), sums.get(name, 0.0))
            if cell_id not in self.broken and not np.isfinite(loss_K).all():
                step = at - len(loss_K) + int(np.argmin(np.isfinite(loss_K)))
                self.broken[cell_id] = f"training loss became {loss_K[~np.isfinite(loss_K)][0]} at step {step}"
        self.tell("train", at, {cell.name: self.curves[cell.id][-1]["training_loss_nats"] for cell in self.group.cells})

    def measure(self, at: int) -> None:
        """Evaluate every student (and the teacher) on the whole validation set."""
        self.tell("evaluate", at, {})
        params = [state.params for state in self.states]
        teacher_params = self.signal.params
        found = [whole(self.mesh, self.evaluation(params, teacher_params, *piece)) for piece in self.held]
        students, teacher = jax.tree.map(
            lambda *parts: sum(np.asarray(p, np.float64).sum(axis=0) for p in parts), *found
        )
        by_seed = [[Scores(*(part[s] for part in stack)) for s in range(len(stack.tokens_G))] for stack in students]
        self.scores = {cell_id: summarise(score) for cell_id, score in self.cells_of(by_seed).items()}
        self.teacher_scores = None if teacher is None else summarise(teacher)
        if self.stored and self.teacher_scores:
            self.stored.check(self.teacher_scores["ce_nats"])
        if self.best:
            self.best.offer(self.states, {cell_id: score["ce_nats"] for cell_id, score in self.scores.items()})
        for cell_id, score in self.scores.items():
            self.curves[cell_id][-1]["validation_loss_nats"] = score["ce_nats"]
            if cell_id not in self.broken and not np.isfinite(score["ce_nats"]):
                self.broken[cell_id] = f"validation loss became {score['ce_nats']} at step {at}"

    def tell(self, phase, at, losses) -> None:
        tokens, spent = at * self.first.batch_tokens, time.perf_counter() - self.began - (self.compile_seconds or 0.0)
        rate = tokens / spent if at and spent > 0 else 0.0
        self.report(
            Progress(
                phase=phase, step=at, steps=self.first.steps, tokens=tokens, tokens_per_second=rate, losses_nats=losses
            )
        )

    def outcomes(self, keep_params: bool) -> list[CellOutcome]:
        seconds = time.perf_counter() - self.began
        shared = {
            "group_id": self.group.id,
            "group_cells": len(self.group.cells),
            "group_wall_seconds": seconds,
            "wall_seconds": seconds / len(self.group.cells),
            "compile_seconds": self.compile_seconds,
            "device": self.mesh.devices.flat[0].device_kind,
            "device_count": self.mesh.size,
            "process_count": jax.process_count(),
        }
        places = {
            cell.id: (stack, number, place)
            for number, stack in enumerate(self.stacks)
            for place, cell in enumerate(stack.cells)
        }
        found = []
        for cell in self.group.cells:
            stack, number, place = places[cell.id]
            error = self.broken.get(cell.id)
            kept = best = None
            if not error and keep_params:
                kept = params_of(stack, self.states[number].params, place)
            if not error and self.best:
                best = params_of(stack, self.best.params[number], place)
            found.append(
                CellOutcome(
                    cell=cell,
                    model=stack.model,
                    status="failed" if error else "done",
                    error=error,
                    metrics=shared | ({} if error else self.measured(cell)),
                    curve=self.curves[cell.id],
                    params=kept,
                    best_params=best,
                )
            )
        return found

    def measured(self, cell: Cell) -> dict:
        training_loss_nats = self.last_losses[cell.id] / len(last_steps(cell.steps))
        found = measured_columns(self.scores[cell.id], self.teacher_scores, self.domains, training_loss_nats)
        found["training_epochs"] = cell.steps * self.sequences / self.corpus.windows_per_epoch(self.split)
        found["cpu_path"] = runs_core_blocked(self.group.cells, self.execution)
        steps = len(last_steps(cell.steps))
        found |= {f"measure_{name}": total / steps for name, total in self.last_measured[cell.id].items()}
        return found | self.signal.columns(cell.objective.temperatures)
