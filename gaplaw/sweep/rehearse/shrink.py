"""What is the same sweep, small enough to be rehearsed here? Same structure; fewer steps, devices, sizes, seeds.

Groups are of one structure when they differ in nothing but numbers: sizes, seeds, rates, budgets. Each structure is
rehearsed once, in its largest group, or in the one that trains a teacher which others need. Of that group, the smallest
and the largest model of each kind of cell stay, with two seeds where there are several: one seed would hide what goes
wrong between seeds. Shapes stay as they are up to LARGEST_PARAMS. Above, every model of the sweep is scaled alike:
width, heads and neurons by one factor, depth cut, and the vocabulary where the tokenizer allows it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from gaplaw.canonical import short_hash
from gaplaw.errors import SpecError
from gaplaw.spec import Cell, DataSpec, Execution, Group, HostsSpec, MeshSpec, ModelSpec, Sweep, science
from gaplaw.spec.sizes import count_params, pruned_shape

STEPS = 2
LARGEST_PARAMS = 4_000_000  # of one model, embeddings included: two steps in seconds on a CPU
SMALLEST_FACTOR = 1e-3  # a large vocabulary alone may have more parameters
DEPTH, VOCAB, HEAD_SIZE, SEQUENCE_TOKENS = 2, 1024, 8, 64  # at most, in a scaled model
SEEDS = 2  # of one model, at most, unless the mesh spreads more


@dataclass(frozen=True, kw_only=True)
class Program:
    """A small group and what it stands for in the original sweep.

    Args: stands_for: groups by id, first the one that it was made from. cells_before: of that one. params_before: of
    its largest model.
    """

    group: Group
    stands_for: tuple[str, ...]
    cells_before: int
    params_before: int

    @property
    def params(self) -> int:
        models = [cell.model for cell in self.group.cells] + ([self.group.teacher.model] if self.group.teacher else [])
        return max(_params(model) for model in models)


def shrink_mesh(mesh: MeshSpec, devices: int, processes: int) -> tuple[MeshSpec, int]:
    """The largest mesh within `devices` that keeps as many axes above 1 as it can, and over how many processes it goes.

    Each axis becomes a divisor of itself. 64 × 4 over data and fsdp on 8 devices: 4 × 2.
    """
    axes = ("data", "fsdp", "tensor", "student")
    sizes = [getattr(mesh, axis) for axis in axes]
    choices = [[d for d in range(1, size + 1) if size % d == 0] for size in sizes]

    def merit(shape):
        product = math.prod(shape)
        likeness = sum(small * size for small, size in zip(shape, sizes, strict=True))  # long axes stay the longer ones
        return sum(small > 1 for small in shape), product % processes == 0, product, likeness

    best = max((shape for shape in itertools.product(*choices) if math.prod(shape) <= devices), key=merit)
    over = max(count for count in range(1, processes + 1) if math.prod(best) % count == 0)
    return MeshSpec(**dict(zip(axes, best, strict=True))), over


def shrink_execution(execution: Execution, devices: int, processes: int) -> Execution:
    """The same way of running on virtual CPU devices, with a checkpoint after every step."""
    if devices < processes:
        raise SpecError(f"--devices {devices}: must be at least --processes {processes}; it is the number in all")
    mesh, processes = shrink_mesh(execution.mesh, devices, processes)
    return replace(
        execution,
        workers=1,
        mesh=mesh,
        hosts=HostsSpec(processes=processes, local_devices=mesh.devices // processes),
        attention="xla" if execution.attention == "cudnn" else execution.attention,  # cuDNN needs a GPU
        accumulate=min(2, execution.accumulate),
        steps_per_dispatch=1,
        evaluations=1,
        checkpoint_seconds=0.0,
    )


def shrink_sweep(
    sweep: Sweep, execution: Execution, small_data: Callable[[DataSpec, bool], DataSpec], least_vocab: int = 1
) -> tuple[Sweep, list[Program]]:
    """A sweep with one small group for each structure of another.

    Args:
      execution: shrunk already.
      small_data: the resolved data to read instead of some, given also whether models are scaled.
      least_vocab: of that data.
    """
    groups, data_of, factor = sweep.groups(), {cell.model: cell.data for cell in sweep.cells}, 1.0

    def small_model(model: ModelSpec, data: DataSpec) -> ModelSpec:
        made = model if factor == 1 else _scaled(model, factor, execution, small_data(data, True))
        return replace(made, vocab_size=max(made.vocab_size, least_vocab))

    while factor > SMALLEST_FACTOR and max(_params(small_model(*one)) for one in data_of.items()) > LARGEST_PARAMS:
        factor /= 1.4
    alike: dict[str, list[Group]] = {}
    for group in groups:
        alike.setdefault(structure(group, execution), []).append(group)
    chosen = {key: [max(same, key=_largest_of)] for key, same in alike.items()}
    required_teachers = {teacher.fingerprint for (group,) in chosen.values() for teacher in group.cells[0].ancestors}
    for key, same in alike.items():  # a teacher that must be there stands for its structure
        training = [group for group in same if required_teachers & {cell.fingerprint for cell in group.cells}]
        chosen[key] = training or chosen[key]

    teachers: dict[str, Cell] = {}  # small ones by the fingerprint of the original
    small: dict[str, Cell] = {}  # by the id of the original
    programs: dict[str, Program] = {}  # by the id of a small cell
    key_of = {group.id: key for key, same in chosen.items() for group in same}
    for number, group in enumerate(sorted(groups, key=lambda group: len(group.cells[0].ancestors))):  # teachers first
        if group.id not in key_of:
            continue
        key = key_of[group.id]
        others = [one for one in alike[key] if one.id not in key_of] if group is chosen[key][0] else []
        program = Program(
            group=group,
            stands_for=tuple(one.id for one in (group, *others)),
            cells_before=len(group.cells),
            params_before=_largest_of(group)[1],
        )
        for cell in _examples(group, execution, required_teachers):
            teacher = teachers[cell.teacher.fingerprint] if cell.teacher else None
            model, data = small_model(cell.model, cell.data), small_data(cell.data, factor < 1)
            made = small[cell.id] = _shrunk(cell, number, teacher, model, execution, data)
            teachers.setdefault(cell.fingerprint, made)
            programs[made.id] = program

    def part(of: tuple[Cell, ...]) -> tuple[Cell, ...]:
        return tuple({small[cell.id].id: small[cell.id] for cell in of if cell.id in small}.values())

    made = replace(sweep, teachers=part(sweep.teachers), baselines=part(sweep.baselines), students=part(sweep.students))
    return made, [replace(programs[group.cells[0].id], group=group) for group in made.groups()]


def structure(group: Group, execution: Execution) -> str:
    """Equal for groups whose programs differ in numbers only."""
    return short_hash(sorted({_kind(cell, execution) for cell in group.cells}))


def _kind(cell: Cell, execution: Execution) -> str:
    """Equal for cells that differ in numbers only: sizes, seeds, rates, budgets. An objective may leave parts out."""

    def form(model: ModelSpec) -> list:
        heads, hidden = model.heads_by_layer, model.hidden_by_layer
        over_tensor = (model.vocab_size, *hidden, *heads, *(count // model.kv_group for count in heads))
        spread = [model.width % execution.mesh.fsdp, any(size % execution.mesh.tensor for size in over_tensor)]
        parts = [0 in heads, 0 in hidden, model.uniform, model.kv_group > 1, model.tied]
        return [model.block, *parts, *map(bool, spread)]

    forms = [form(cell.model), form(cell.teacher.model) if cell.teacher else None]
    return short_hash([forms, cell.protocol, cell.split, cell.data.source, cell.data.tokenizer])


def _examples(group: Group, execution: Execution, required_teachers: set[str]) -> list[Cell]:
    """Cells that stand for a group: of each kind the smallest and the largest model, and teachers that others need."""
    kinds: dict[str, dict[ModelSpec, list[Cell]]] = {}
    for cell in group.cells:
        kinds.setdefault(_kind(cell, execution), {}).setdefault(cell.model, []).append(cell)
    ids = {cell.id for cell in group.cells if cell.fingerprint in required_teachers}
    for models in kinds.values():
        for model in (min(models, key=_params), max(models, key=_params)):
            cells = models[model]
            ids |= {cell.id for cell in cells[: _seeds(len(cells), execution.mesh.student)]}
    return [cell for cell in group.cells if cell.id in ids]


def _seeds(count: int, student_axis: int) -> int:
    """So few seeds, but not one of several, that the mesh spreads them as it would spread `count`."""
    fewer = range(min(SEEDS, count), count + 1)
    return next(few for few in fewer if (few % student_axis == 0) == (count % student_axis == 0))


def _largest_of(group: Group) -> tuple[int, int, int]:
    """What is compared to find the largest group: its teacher, its largest model of all, its cells."""
    teacher = _params(group.teacher.model) if group.teacher else 0
    return teacher, max(teacher, *(_params(cell.model) for cell in group.cells)), len(group.cells)


def program_key(group: Group) -> str:
    """Equal for groups that compile to the same program: everything of their cells but names, seeds, rates and
    parameters.
    """

    def shape(cell: Cell) -> str:
        fields = dict(science(cell))
        fields["teacher"] = fields["teacher"] and fields["teacher"]["model"]
        fields["train"] = [cell.steps, cell.train.batch_sequences]
        return short_hash({name: value for name, value in fields.items() if name != "seed"})

    return short_hash(sorted(shape(cell) for cell in group.cells))


def _shrunk(
    cell: Cell, number: int, teacher: Cell | None, model: ModelSpec, execution: Execution, data: DataSpec
) -> Cell:
    """A cell of group `number` in small; its batches are the group's own, so that groups stay apart."""
    target = None
    if cell.init == "prune":
        share = cell.target_params / count_params(cell.teacher.model).non_embedding
        target = int(share * count_params(teacher.model).non_embedding)
        model = pruned_shape(teacher.model, target)
    ways = execution.mesh.data * execution.mesh.fsdp * execution.accumulate
    batch = ways * min(2, max(1, cell.train.batch_sequences // ways))
    length = min(cell.data.sequence_tokens, SEQUENCE_TOKENS)
    return replace(
        cell,
        model=model,
        teacher=teacher,
        target_params=target,
        data=replace(data, sequence_tokens=length),
        train=replace(cell.train, tokens=STEPS * batch * length, batch_sequences=batch, batch_seed=number),
        seed=number if cell.init == "prune" else cell.seed,  # a pruned student's seed is that of its batches
    )


def _scaled(model: ModelSpec, factor: float, execution: Execution, data: DataSpec) -> ModelSpec:
    """Width, heads and neurons times the factor, in multiples that the mesh divides; depth cut, and vocabulary.

    Not the vocabulary of a tokenizer in a file: its symbols are as many as they are.
    """
    depth = min(model.depth, DEPTH)

    def fewer(count: int, unit: int) -> int:
        return unit * max(1, round(count * factor / unit)) if count else 0

    def per_layer(value, unit: int):
        return fewer(value, unit) if isinstance(value, int) else tuple(fewer(one, unit) for one in value[:depth])

    split = 8 * execution.mesh.fsdp * execution.mesh.tensor
    return replace(
        model,
        vocab_size=model.vocab_size if data.tokenizer.startswith("file:") else min(model.vocab_size, VOCAB),
        width=fewer(model.width, split),
        depth=depth,
        heads=per_layer(model.heads, model.kv_group * execution.mesh.tensor),
        head_size=min(model.head_size, HEAD_SIZE),
        hidden=per_layer(model.hidden, split),
    )


def _params(model: ModelSpec) -> int:
    return count_params(model).total
