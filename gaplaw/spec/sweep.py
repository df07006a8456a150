"""Which cells belong to one question, and which of them run together?

A `Sweep` is a named grid of cells; a `Group` is its unit of execution: cells that share a teacher and their batches run
in one compiled program over one shared teacher pass. After spec and sizes in the walk; trains nothing, reads nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from gaplaw.canonical import check_fields, refuse_unless, short_hash, to_dict
from gaplaw.files import NAME_RULE, is_plain_name, same_file_name
from gaplaw.methods.objectives import AnyObjective, ObjectiveSpec
from gaplaw.methods.protocol import Objective
from gaplaw.spec.cell import Cell, DataSpec, Init, Role
from gaplaw.spec.identity import science
from gaplaw.spec.model import ModelSpec
from gaplaw.spec.sizes import count_params, pruned_shape, size_name
from gaplaw.spec.teacher_signal import LIVE, TeacherSignal
from gaplaw.spec.train import TrainSpec


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cells that run as one program: same teacher and signal, same batches; without a teacher, same shape too.

    sweep_temperatures: of all cells of the sweep that read the same teacher cache, so that whoever fills it fills it
      for all.
    """

    cells: tuple[Cell, ...]
    sweep_temperatures: tuple[float, ...] = ()

    @property
    def teacher(self) -> Cell | None:
        return self.cells[0].teacher

    @property
    def signal(self) -> TeacherSignal:
        return self.cells[0].signal

    @property
    def stream(self) -> dict:
        """What a cache of the teacher's outputs is a function of: teacher, data, order of the data, and what is kept.

        Not the students, their objectives, their batch size (batches are cuts of one stream of sequences) or their
        number of steps: all of them read the same cache.
        """
        cell = self.cells[0]
        return {
            "teacher": self.teacher.fingerprint,
            "data": science(cell)["data"],
            "split": cell.split,
            "batch_seed": cell.train.batch_seed,
            "signal": to_dict(cell.signal),
        }

    @property
    def own_temperatures(self) -> tuple[float, ...]:
        """The temperatures at which the group's cells see their teacher."""
        return tuple(sorted({temperature for cell in self.cells for temperature in cell.objective.temperatures}))

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The same, with those of the others of its sweep that read the same cache."""
        return tuple(sorted({*self.own_temperatures, *self.sweep_temperatures}))

    @cached_property
    def id(self) -> str:
        label = f"from-{self.teacher.name}" if self.teacher else self.cells[0].name
        return f"{label}-{short_hash([cell.fingerprint for cell in self.cells])[:6]}"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A named grid of cells and the question that it answers. Every teacher is itself a cell of the sweep.

    `teachers` lists each distinct teacher once; `baselines` are the student shapes without a teacher; `students` the
    rest. A teacher that has a teacher itself is an *assistant*: `Sweep(teachers=(large, assistant), students=(small,),
    …)`, where `small.teacher` is `assistant` and `assistant.teacher` is `large`.
    """

    name: str
    question: str
    teachers: tuple[Cell, ...]
    students: tuple[Cell, ...]
    baselines: tuple[Cell, ...] = ()
    VERSION_1: ClassVar = "name question teachers students baselines".split()

    def __post_init__(self):
        check_fields(self)
        refuse_unless(is_plain_name(self.name), "Sweep.name", self.name, NAME_RULE)
        seen: dict[str, str] = {}
        for own in (cell.id for cell in self.cells):
            first = seen.setdefault(same_file_name(own), own)
            rule = "the same cell stands in the sweep twice" if first == own else "one file name to some systems"
            refuse_unless(first is own, "Sweep.cells", sorted({first, own}), rule)
        known = {teacher.fingerprint for teacher in self.teachers}
        for cell in self.students:
            refuse_unless(cell.teacher is not None, f"Sweep.students {cell.name}", None, "needs a teacher")
        for part, cells in (("teachers", self.teachers), ("students", self.students)):
            for cell in cells:
                above = cell.teacher
                found = above is None or above.fingerprint in known
                refuse_unless(found, f"Sweep.{part} {cell.name}", above and above.name, "is no teacher here")

    @property
    def cells(self) -> tuple[Cell, ...]:
        return self.teachers + self.baselines + self.students

    def role(self, cell: Cell) -> Role:
        if cell.id in self._teacher_ids:
            return "assistant" if cell.teacher else "teacher"
        return "student" if cell.teacher else "baseline"

    @cached_property
    def _teacher_ids(self) -> frozenset[str]:
        return frozenset(teacher.id for teacher in self.teachers)

    def groups(self) -> tuple[Group, ...]:
        """The units of execution, teachers first: see `Group`."""
        by_key: dict[tuple, list[Cell]] = {}
        for cell in self.cells:
            train = cell.train
            alone = None if cell.teacher else (cell.model, cell.split, self.role(cell))
            teacher = cell.teacher.fingerprint if cell.teacher else None
            key = (teacher, cell.signal, alone, cell.data, train.tokens, train.batch_sequences, train.batch_seed)
            by_key.setdefault(key, []).append(cell)
        groups = [Group(cells=tuple(cells)) for cells in by_key.values()]
        streams = [short_hash(group.stream) if group.signal.kind == "topk" else None for group in groups]
        shared: dict[str | None, set[float]] = {stream: set() for stream in streams}
        for group, stream in zip(groups, streams, strict=True):
            shared[stream] |= set(group.temperatures) if stream else set()
        return tuple(
            dataclasses.replace(group, sweep_temperatures=tuple(sorted(shared[stream])))
            for group, stream in zip(groups, streams, strict=True)
        )

    @staticmethod
    def grid(
        *,
        name: str,
        question: str,
        data: DataSpec,
        teachers: Iterable[ModelSpec],
        students: Iterable[ModelSpec],
        teacher_train: TrainSpec | Callable[[ModelSpec], TrainSpec],
        student_train: TrainSpec | Callable[[ModelSpec], TrainSpec],
        objective: AnyObjective | Iterable[AnyObjective] = ObjectiveSpec(),  # noqa: B008 (frozen)
        signal: TeacherSignal | Iterable[TeacherSignal] = LIVE,
        seeds: Iterable[int] = (0, 1),
        init: Init | Iterable[Init] = "scratch",
        baseline: bool = True,
    ) -> Sweep:
        """Every student shape × seed × objective × signal × init under every teacher, plus each teacher and no-teacher
        baseline.

        Under init = "prune" the students' `model` gives only the size to meet: each is re-shaped to its teacher's depth
        and proportions, and pairs whose teacher is not larger are left out. A pruned student has no random
        initialisation, so its seed orders the batches instead (and its baseline's).
        """

        def recipe(given, model, start="scratch", seed=0):
            train = given(model) if callable(given) else given
            return dataclasses.replace(train, batch_seed=seed) if start == "prune" else train

        objectives = (objective,) if isinstance(objective, Objective) else tuple(objective)
        signals = (signal,) if isinstance(signal, TeacherSignal) else tuple(signal)
        starts = (init,) if isinstance(init, str) else tuple(init)
        split = "teacher" if data.teacher_fraction > 0 else "train"
        students, seeds = tuple(students), tuple(seeds)
        label = {model: size_name(count_params(model).non_embedding) for model in students}
        begun = {start: f"-{start}" if len(starts) > 1 else "" for start in starts}
        teacher_cells = tuple(
            Cell(
                name=f"t{size_name(count_params(model).non_embedding)}",
                model=model,
                data=data,
                train=recipe(teacher_train, model),
                split=split,
            )
            for model in teachers
        )
        baselines = {}
        for model, start, seed in itertools.product(students if baseline else (), starts, seeds):
            alone = Cell(
                name=f"s{label[model]}-alone{begun[start]}-r{seed}",
                model=model,
                data=data,
                train=recipe(student_train, model, start, seed),
                seed=seed,
            )
            baselines.setdefault(alone.fingerprint, alone)
        cells = []
        for teacher, model, start in itertools.product(teacher_cells, students, starts):
            target, shape = count_params(model).non_embedding, model
            if start == "prune":
                if target >= count_params(teacher.model).non_embedding:
                    continue
                shape = pruned_shape(teacher.model, target)
            for (number, soft), seen in itertools.product(enumerate(objectives), signals):
                tag = f"-o{number}" if len(objectives) > 1 else ""
                tag += f"-{seen.kind}{seen.symbols}" if seen.cached else ""
                cells += [
                    Cell(
                        name=f"s{label[model]}-{teacher.name}{begun[start]}{tag}-r{seed}",
                        model=shape,
                        data=data,
                        train=recipe(student_train, model, start, seed),
                        objective=soft,
                        teacher=teacher,
                        init=start,
                        target_params=target if start == "prune" else None,
                        seed=seed,
                        signal=seen,
                    )
                    for seed in seeds
                ]
        return Sweep(
            name=name,
            question=question,
            teachers=teacher_cells,
            students=tuple(cells),
            baselines=tuple(baselines.values()),
        )
