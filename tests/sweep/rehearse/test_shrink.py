"""A shrunk sweep keeps what its programs are made of: axes, block, pruning, objectives, seeds; and only distinct
programs stay.
"""

import dataclasses
import itertools
import math

import pytest

from gaplaw.errors import SpecError
from gaplaw.spec import Cell, DataSpec, Execution, MeshSpec, ModelSpec, Sweep, TeacherSignal, TrainSpec
from gaplaw.spec.sizes import count_params
from gaplaw.sweep.planning.load import load
from gaplaw.sweep.rehearse.shrink import (
    LARGEST_PARAMS,
    STEPS,
    VOCAB,
    shrink_execution,
    shrink_mesh,
    shrink_sweep,
    structure,
)
from tests.conftest import ROOT
from tests.sweep.sweeps import tiny_sweep

CORPUS = DataSpec(manifest="known", validation_tokens=1024)
HERE = Execution()


def corpus(data, scaled):
    return dataclasses.replace(CORPUS, teacher_fraction=data.teacher_fraction)


def shrunk(sweep, execution=HERE, **more):
    return shrink_sweep(sweep, shrink_execution(execution, 8, 4), corpus, **more)


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


def test_seeds_and_sizes_that_differ_by_nothing_else_are_one_program_with_its_smallest_and_largest_models():
    sweep = tiny_sweep("tfds:far/away", teachers=(8, 12, 16), students=(4, 6, 10), seeds=(0, 1, 2))
    made, programs = shrunk(sweep)
    groups = {group.id: group for group in sweep.groups()}
    alone, taught = programs
    assert len(groups) == 9 and {*alone.stands_for, *taught.stands_for} == groups.keys()
    largest = max(sweep.teachers, key=lambda cell: cell.model.width)
    assert groups[alone.stands_for[0]].cells == (largest,) and groups[taught.stands_for[0]].teacher == largest
    assert [(cell.model.width, cell.seed) for cell in taught.group.cells] == list(itertools.product((4, 10), (0, 1)))
    assert (taught.cells_before, len(made.cells)) == (9, 5)
    models = {cell.model for cell in sweep.cells}
    assert {cell.model for cell in made.cells} <= models  # small shapes stay as they are
    assert all(cell.steps == STEPS and cell.data.source == "stdlib" for cell in made.cells)


def test_rates_and_budgets_are_numbers_too_but_every_corpus_objective_signal_and_start_is_rehearsed():
    base = tiny_sweep("tfds:far/away", seeds=(0,))
    fast = dataclasses.replace(base.students[0].train, learning_rate=0.5, tokens=16 * 8 * 5)
    other = dataclasses.replace(base.students[0].data, source="tfds:other/text")
    soft = dataclasses.replace(base.students[0].objective, soft_weight=0.5)
    topk = TeacherSignal(kind="topk", symbols=4)

    def programs_with(**fields):
        more = tuple(dataclasses.replace(cell, name=f"{cell.name}-x", **fields) for cell in base.students)
        return shrunk(dataclasses.replace(base, students=base.students + more))[1]

    assert len(programs_with(train=fast)) == 2
    assert len(programs_with(signal=topk)) == 3
    assert [len(one.group.cells) for one in programs_with(objective=soft)] == [1, 2]  # one program with both
    both = tuple(dataclasses.replace(cell, name=f"{cell.name}-x", data=other) for cell in base.baselines)
    assert len(shrunk(dataclasses.replace(base, baselines=base.baselines + both))[1]) == 3


def test_sizes_that_the_mesh_spreads_in_another_way_are_another_program():
    sweep = tiny_sweep("tfds:far/away", teachers=(8,), students=(4, 6), seeds=(0,), baseline=False)
    even = Execution(mesh=MeshSpec(fsdp=2))
    assert [len(one.group.cells) for one in shrunk(sweep, even)[1]] == [1, 2]
    four = shrink_execution(Execution(mesh=MeshSpec(fsdp=4)), 8, 4)  # divides 8 and 4, not 6
    kinds = {
        structure(group, four) for group in tiny_sweep("tfds:x", teachers=(8, 6), seeds=(0,), baseline=False).groups()
    }
    assert len(kinds) == 4


@pytest.mark.parametrize(
    ("count", "student_axis", "kept"), [(1, 1, 1), (5, 1, 2), (4, 2, 2), (8, 4, 4), (3, 2, 3), (1, 2, 1)]
)
def test_so_many_seeds_stay_that_the_mesh_spreads_them_as_before(count, student_axis, kept):
    sweep = tiny_sweep("tfds:far/away", teachers=(8,), seeds=range(count), baseline=False)
    _, programs = shrunk(sweep, Execution(mesh=MeshSpec(student=student_axis)))
    assert len(programs[-1].group.cells) == kept


def test_every_group_of_every_experiment_is_stood_for_once():
    for path in sorted((ROOT / "experiments").glob("[a-z]*.py")):
        sweep, execution = load(str(path))
        made, programs = shrunk(sweep, execution)
        assert sorted(itertools.chain(*(one.stands_for for one in programs))) == sorted(g.id for g in sweep.groups())
        assert {one.group.id for one in programs} == {group.id for group in made.groups()}
        assert all(one.params <= LARGEST_PARAMS for one in programs if one.params_before > LARGEST_PARAMS)


def test_a_teacher_and_a_baseline_of_one_science_both_stay():
    sweep = tiny_sweep("tfds:far/away", teachers=(8,), students=(8, 4), teacher_tokens=16 * 8 * 12)
    made, programs = shrunk(sweep)
    assert sweep.teachers[0].fingerprint in {cell.fingerprint for cell in sweep.baselines}
    assert all(one.params == one.params_before for one in programs)  # nothing is scaled, and nothing says so
    assert sum(len(one.stands_for) for one in programs) == len(sweep.groups()) and len(made.teachers) == 1


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
    made, programs = shrunk(sweep, Execution(mesh=MeshSpec(data=16, fsdp=4, tensor=2)))
    (teacher,) = made.teachers
    assert teacher.name == sweep.teachers[1].name and made.students
    assert LARGEST_PARAMS / 8 < count_params(teacher.model).total <= LARGEST_PARAMS
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


@pytest.mark.parametrize(
    ("read", "least", "vocab"),
    [("bytes", 1, VOCAB), ("bpe:1024", 1, VOCAB), ("file:own.json", 1, 32_000), ("bytes", 4000, 4000)],
)
def test_a_scaled_model_keeps_the_vocabulary_of_the_tokenizer_that_it_reads_with(read, least, vocab):
    recipe = TrainSpec(tokens=4096 * 1024 * 100, batch_sequences=1024)
    data = DataSpec(source="tfds:far/away", tokenizer="file:far.json", sequence_tokens=4096)
    teacher = Cell(name="t", model=big(4096, 32), data=data, train=recipe)
    sweep = Sweep(name="big", question="?", teachers=(teacher,), students=())
    small = dataclasses.replace(CORPUS, tokenizer=read)
    made, _ = shrink_sweep(sweep, shrink_execution(HERE, 8, 4), lambda *_: small, least)
    assert made.teachers[0].model.vocab_size == vocab
