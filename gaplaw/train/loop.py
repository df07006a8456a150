"""How does one group of cells go from specification to measured rows?

Batches are a function of (batch_seed, step); losses are read one dispatch late, so the device never waits for the host. A
student that stops being finite becomes a failed outcome and touches nobody else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import jax
import numpy as np

from gaplaw.distill.evaluate import Scores, summarise
from gaplaw.grid import Group
from gaplaw.results import domain_column
from gaplaw.spec import Cell, Execution, ModelSpec
from gaplaw.train.stack import Stack, cut_from_teacher, stacks_of, start
from gaplaw.train.step import evaluate_program, train_program

IMPORTANCE_BATCHES = 16  # sample for pruning: enough that the ranking is stable, a small share of any real budget


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a group stands; `losses_nats` maps cell names to the latest training objective."""

    phase: Literal["compile", "train", "evaluate"]
    step: int
    steps: int
    tokens: int
    tokens_per_second: float
    losses_nats: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CellOutcome:
    """What one cell came to: columns for its `cells` row, rows for its `curves` table, and its parameters if kept."""

    cell: Cell
    model: ModelSpec
    status: Literal["done", "failed"]
    error: str | None
    metrics: dict
    curve: list[dict]
    params: dict | None = field(default=None, repr=False)


def run_group(
    group: Group,
    *,
    corpus,
    execution: Execution,
    teacher: tuple[dict, ModelSpec] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    keep_params: bool = False,
) -> list[CellOutcome]:
    """Train and evaluate every cell of a group in one compiled program.

    Args:
      corpus: a `gaplaw.data.Corpus`.
      teacher: (params, ModelSpec) of the group's teacher, None for teachers and baselines.
      progress: called about once a dispatch from this thread.
      keep_params: whether outcomes carry the trained parameters.
    Returns: one outcome per cell, in the group's order; equal to running each cell alone, within float tolerance.
    """
    run = _Run(group, corpus, execution, teacher, progress)
    run.train()
    return run.outcomes(keep_params)


class _Run:
    """The moving parts of one group: compiled programs, states and what has been read back so far."""

    def __init__(self, group, corpus, execution, teacher, progress):
        self.group, self.corpus, self.execution, self.report = group, corpus, execution, progress
        self.began = time.perf_counter()
        self.first = first = group.cells[0]
        self.split, self.sequences, self.seed = first.split, first.train.batch_sequences, first.train.batch_seed
        self.teacher_params, self.teacher_model = teacher if teacher else (None, None)
        sample = corpus.batch(self.split, self.sequences, self.seed, range(IMPORTANCE_BATCHES)) if teacher else ()
        pruned = cut_from_teacher(group.cells, teacher, sample)
        shapes = {c.fingerprint: pruned[c.target_params][1] if c.init == "prune" else c.model for c in group.cells}
        self.stacks = stacks_of(group.cells, shapes)
        self.states = [start(stack, pruned.get(stack.cells[0].target_params, (None,))[0]) for stack in self.stacks]
        self.domains = corpus.validation().domains
        self.program = train_program(self.stacks, self.teacher_model, execution.chunk_tokens)
        self.evaluation = evaluate_program(self.stacks, self.teacher_model, len(self.domains))
        self.curves: dict[str, list[dict]] = {cell.id: [] for cell in group.cells}
        self.broken: dict[str, str] = {}
        self.compile_seconds = None

    def cells_of(self, per_stack) -> dict[str, object]:
        """Spread one value per (stack, seed) over cell ids."""
        return {
            cell.id: value
            for stack, values in zip(self.stacks, per_stack, strict=True)
            for cell, value in zip(stack.cells, values, strict=True)
        }

    def train(self) -> None:
        steps, stride = self.first.steps, self.execution.steps_per_dispatch
        marks = {round(steps * (i + 1) / self.execution.evaluations) for i in range(self.execution.evaluations)} | {steps}
        waiting = None
        self.tell("compile", 0, {})
        at = 0
        while at < steps and len(self.broken) < len(self.group.cells):
            goal = min(at + stride, min(mark for mark in marks if mark > at))
            batches = self.corpus.batch(self.split, self.sequences, self.seed, range(at, goal))
            self.states, losses = self.program(self.states, self.teacher_params, batches)
            if waiting is not None:
                self.read(*waiting)
            elif self.compile_seconds is None:
                jax.block_until_ready(losses)
                self.compile_seconds = time.perf_counter() - self.began
            at, waiting = goal, (goal, losses)
            if at in marks:
                self.read(*waiting)
                waiting = None
                self.measure(at)

    def read(self, at: int, losses) -> None:
        """Fetch one dispatch's losses (a stall only if it is still running) and note who is no longer finite."""
        for cell_id, loss_K in self.cells_of([np.asarray(stack, np.float64).T for stack in losses]).items():
            self.curves[cell_id].append({"tokens": at * self.first.batch_tokens, "training_loss_nats": float(loss_K.mean())})
            if cell_id not in self.broken and not np.isfinite(loss_K).all():
                step = at - len(loss_K) + int(np.argmin(np.isfinite(loss_K)))
                self.broken[cell_id] = f"training loss became {loss_K[~np.isfinite(loss_K)][0]} at step {step}"
        self.tell("train", at, {cell.name: self.curves[cell.id][-1]["training_loss_nats"] for cell in self.group.cells})

    def measure(self, at: int) -> None:
        """Evaluate every student (and the teacher) on the whole validation set."""
        self.tell("evaluate", at, {})
        held = self.corpus.validation()
        per_batch = max(1, min(len(held.tokens_NxL1), self.execution.chunk_tokens // self.first.data.sequence_tokens))
        whole = len(held.tokens_NxL1) // per_batch * per_batch
        pieces = [slice(0, whole)] if whole == len(held.tokens_NxL1) else [slice(0, whole), slice(whole, None)]
        students, teachers = [0] * len(self.stacks), 0
        params = [state.params for state in self.states]
        for piece in pieces:
            tokens, domain = held.tokens_NxL1[piece], held.domain_N[piece]
            shape = (-1, min(per_batch, len(tokens)))
            scores, teacher = self.evaluation(
                params, self.teacher_params, tokens.reshape(*shape, tokens.shape[-1]), domain.reshape(shape)
            )
            students = [_plus(old, _sum_batches(new)) for old, new in zip(students, scores, strict=True)]
            teachers = teacher and _plus(teachers, _sum_batches(teacher))
        by_seed = [[Scores(*(part[s] for part in stack)) for s in range(len(stack.tokens_G))] for stack in students]
        self.scores = {cell_id: summarise(score) for cell_id, score in self.cells_of(by_seed).items()}
        self.teacher_scores = summarise(teachers) if teachers else None
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
            "device": jax.devices()[0].device_kind,
            "device_count": 1,
            "process_count": jax.process_count(),
        }
        places = {
            cell.id: (stack, state, place)
            for stack, state in zip(self.stacks, self.states, strict=True)
            for place, cell in enumerate(stack.cells)
        }
        found = []
        for cell in self.group.cells:
            stack, state, place = places[cell.id]
            error = self.broken.get(cell.id)
            kept = jax.tree.map(lambda p, i=place: p[i], state.params) if keep_params and not error else None
            found.append(
                CellOutcome(
                    cell=cell,
                    model=stack.model,
                    status="failed" if error else "done",
                    error=error,
                    metrics=shared | ({} if error else self.columns(cell)),
                    curve=self.curves[cell.id],
                    params=kept,
                )
            )
        return found

    def columns(self, cell: Cell) -> dict:
        """The measured columns of one finished cell."""
        score, teacher = self.scores[cell.id], self.teacher_scores
        row = {
            "loss_student_ce_nats": score["ce_nats"],
            "calibration_error": score["calibration_error"],
            "validation_tokens": score["tokens"],
            "training_loss_nats": self.curves[cell.id][-1]["training_loss_nats"],
        }
        row |= {
            domain_column(name): float(loss) for name, loss in zip(self.domains, score["domain_ce_nats"], strict=True)
        }
        if teacher:
            row |= {
                "loss_teacher_ce_nats": teacher["ce_nats"],
                "kl_teacher_student_nats": score["kl_nats"],
                "agreement": score["agreement"],
                "teacher_calibration_error": teacher["calibration_error"],
            }
        return row


def _sum_batches(scores: Scores) -> Scores:
    return Scores(*(np.asarray(part, np.float64).sum(axis=0) for part in scores))


def _plus(old, new: Scores) -> Scores:
    return new if isinstance(old, int) else Scores(*(a + b for a, b in zip(old, new, strict=True)))
