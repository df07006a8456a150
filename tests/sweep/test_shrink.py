"""A shrunk sweep keeps what its programs are made of: axes, block, pruning, objectives, seeds; and only distinct programs stay."""

import dataclasses
import math

import pytest

from gaplaw.errors import SpecError
from gaplaw.execution import Execution, MeshSpec
from gaplaw.grid import Sweep
from gaplaw.sizes import count_params
from gaplaw.spec import DataSpec, ModelSpec, TrainSpec
from gaplaw.sweep.shrink import LARGEST_PARAMS, STEPS, program_key, shrink_execution, shrink_mesh, shrink_sweep
from tests.sweep.sweeps import tiny_sweep

CORPUS = DataSpec(manifest="known", validation_tokens=1024)
POD = Execution(mesh=MeshSpec(data=64, fsdp=4), attention="cudnn")


@pytest.mark.parametrize(
    ("mesh", "small", "processes"),
    [
        (MeshSpec(data=64, fsdp=4), MeshSpec(data=4, fsdp=2), 4),
        (MeshSpec(data=2, fsdp=16, tensor=4, student=2), MeshSpec(fsdp=2, tensor=2, student=2), 4),
        (MeshSpec(fsdp=3), MeshSpec(fsdp=3), 3),
        (MeshSpec(), MeshSpec(), 1),
    ],
)
def test_a_mesh_keeps_as_many_axes_as_fit_each_a_divisor_of_itself(mesh, small, processes):
    assert shrink_mesh(mesh, 8, 4) == (small, processes)


@pytest.mark.parametrize("devices", range(1, 17))
def test_every_shrunk_mesh_fits_and_goes_evenly_over_its_processes(devices):
    small, processes = shrink_mesh(MeshSpec(data=6, fsdp=4, tensor=2), devices, 4)
    assert small.devices <= devices and small.devices % processes == 0
    assert 6 % small.data == 4 % small.fsdp == 2 % small.tensor == 0


def test_more_processes_than_devices_are_refused():
    with pytest.raises(SpecError, match="--devices 2: must be at least --processes 4"):
        shrink_execution(POD, 2, 4)


def test_small_shapes_stay_and_groups_that_differ_only_in_seeds_or_rates_are_one_program():
    sweep = tiny_sweep("tfds:far/away", seeds=(0, 1, 2))
    twin = dataclasses.replace(sweep.teachers[0], name="twin", seed=9)
    taught = [dataclasses.replace(c, name=f"{c.name}-twin", teacher=twin) for c in sweep.students[:3]]
    fast = dataclasses.replace(sweep.teachers[0].train, learning_rate=0.5)
    sweep = dataclasses.replace(
        sweep,
        teachers=(*sweep.teachers, twin, dataclasses.replace(sweep.teachers[0], name="fast", train=fast)),
        students=sweep.students + tuple(taught),
    )
    made, programs = shrink_sweep(sweep, shrink_execution(POD, 8, 4), CORPUS)
    assert sorted(len(program.stands_for) for program in programs) == [1, 1, 1, 1, 2]
    assert sum(len(program.stands_for) for program in programs) == len(sweep.groups())
    assert {cell.model for cell in made.cells} == {cell.model for cell in sweep.cells}
    assert len({program_key(program.group) for program in programs}) == len(programs) == len(made.groups())
    assert all(cell.steps == STEPS and cell.data.source == "stdlib" for cell in made.cells)
    assert all(cell.train.batch_sequences == 8 for cell in made.cells)  # 4 × 2 ways, no more than the sweep itself has


def test_groups_that_differ_in_their_token_budget_only_before_shrinking_stay_apart():
    sweep = tiny_sweep("tfds:far/away", teachers=(8,), students=(4, 6), baseline=False)
    short = dataclasses.replace(sweep.students[0].train, tokens=16 * 8 * 5)
    students = [dataclasses.replace(c, train=short) if c.model.width == 6 else c for c in sweep.students]
    sweep = dataclasses.replace(sweep, students=tuple(students))
    _, programs = shrink_sweep(sweep, shrink_execution(POD, 8, 4), CORPUS)
    assert [len(program.group.cells) for program in programs] == [1, 2, 2]
    assert [program.stands_for for program in programs] == [(group.id,) for group in sweep.groups()]


def big(width, depth):
    hidden = 8 * round(width / 3)
    shape = dict(vocab_size=32_000, depth=depth, head_size=128, kv_group=4, max_length=4096)
    return ModelSpec(width=width, heads=width // 128, hidden=hidden, **shape)


@pytest.mark.parametrize("init", ["scratch", "prune"])
def test_big_shapes_are_scaled_alike_and_keep_their_order_and_structure(init):
    recipe = TrainSpec(tokens=4096 * 1024 * 100, batch_sequences=1024)
    sweep = Sweep.grid(
        name="big",
        question="?",
        data=DataSpec(source="tfds:far/away", tokenizer="file:far.json", sequence_tokens=4096),
        teachers=[big(2048, 24), big(4096, 32)],
        students=[big(1024, 16)],
        teacher_train=recipe,
        student_train=recipe,
        init=init,
    )
    execution = shrink_execution(Execution(mesh=MeshSpec(data=16, fsdp=4, tensor=2)), 8, 4)
    made, programs = shrink_sweep(sweep, execution, CORPUS)
    sizes = [count_params(cell.model).total for cell in made.teachers]
    assert sizes == sorted(sizes) and LARGEST_PARAMS / 8 < sizes[-1] <= LARGEST_PARAMS
    for cell in made.teachers:
        assert (cell.model.block, cell.model.kv_group, cell.model.depth) == ("llama", 4, 2)
        groups = cell.model.heads // cell.model.kv_group
        assert groups % 2 == cell.model.width % 16 == cell.model.hidden % 16 == cell.model.vocab_size % 2 == 0
    originals = {cell.name: cell for cell in sweep.students}
    for after in made.students:
        before = originals[after.name]
        assert after.init == init
        if init == "prune":
            shares = [cell.target_params / count_params(cell.teacher.model).non_embedding for cell in (before, after)]
            assert math.isclose(*shares, rel_tol=0.01)
    assert all(program.params < program.params_before / 100 for program in programs)
