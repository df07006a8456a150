"""Does a grid hold every pair once, are its groups what one program can run, and is the plan stable?"""

from dataclasses import replace

import pytest

from gaplaw.canonical import short_hash
from gaplaw.errors import SpecError
from gaplaw.spec import DataSpec, ObjectiveSpec, Sweep, TeacherSignal, TrainSpec
from gaplaw.spec.sizes import count_params, model_for


def models(*sizes, **fields):
    return [model_for(size, **dict(vocab_size=256, max_length=64) | fields) for size in sizes]


def grid(**fields):
    base = dict(
        name="small",
        question="which teacher?",
        data=DataSpec(),
        teachers=models("6k", "25k", "98k"),
        students=models("1.5k", "14k"),
        teacher_train=TrainSpec(tokens=2 * 10**6),
        student_train=TrainSpec(tokens=10**6),
        seeds=(0, 1, 2),
    )
    return Sweep.grid(**base | fields)


def test_every_pair_seed_and_baseline_stands_in_the_grid_once():
    sweep = grid()
    assert (len(sweep.teachers), len(sweep.baselines), len(sweep.students)) == (3, 2 * 3, 3 * 2 * 3)
    pairs = {(cell.teacher.name, count_params(cell.model).non_embedding, cell.seed) for cell in sweep.students}
    assert len(pairs) == len(sweep.students)
    assert len({cell.id for cell in sweep.cells}) == len(sweep.cells)
    assert {sweep.role(cell) for cell in sweep.teachers} == {"teacher"}
    assert {sweep.role(cell) for cell in sweep.baselines} == {"baseline"}
    assert {sweep.role(cell) for cell in sweep.students} == {"student"}
    assert grid(baseline=False).baselines == ()


def test_a_group_shares_its_teacher_and_its_batches():
    sweep = grid()
    groups = sweep.groups()
    assert sorted(cell.id for group in groups for cell in group.cells) == sorted(cell.id for cell in sweep.cells)
    for group in groups:
        teachers = {cell.teacher.fingerprint if cell.teacher else None for cell in group.cells}
        batches = {
            (cell.data, cell.train.tokens, cell.train.batch_sequences, cell.train.batch_seed) for cell in group.cells
        }
        assert len(teachers) == len(batches) == 1
    with_teacher = [group for group in groups if group.teacher]
    assert [len(group.cells) for group in with_teacher] == [6, 6, 6]  # both sizes, all seeds
    alone = [group for group in groups if not group.teacher]
    assert sorted(len(group.cells) for group in alone) == [1, 1, 1, 3, 3]  # teachers, and seeds of each baseline shape
    assert not with_teacher[0].cells[0].fingerprint == alone[0].cells[0].fingerprint
    last_teacher = max(groups.index(group) for group in alone if sweep.role(group.cells[0]) == "teacher")
    assert last_teacher < min(groups.index(group) for group in with_teacher)


def test_other_batches_are_another_group():
    budgets = {count_params(model).non_embedding: 10**6 * (i + 1) for i, model in enumerate(models("1.5k", "14k"))}
    sweep = grid(student_train=lambda model: TrainSpec(tokens=budgets[count_params(model).non_embedding]))
    assert len([group for group in sweep.groups() if group.teacher]) == 6


def test_group_ids_follow_the_science_of_their_cells():
    first, again, other = (grid(**fields).groups()[-1].id for fields in ({}, {}, dict(seeds=(0, 1))))
    assert first == again != other
    assert first.startswith("from-t98k-")


def test_teachers_of_one_science_are_shared_between_sweeps():
    assert [cell.fingerprint for cell in grid().teachers] == [
        cell.fingerprint for cell in grid(name="b", seeds=(7,)).teachers
    ]


def test_pairing_is_across_teachers_and_baselines():
    sweep = grid()
    for cell in sweep.baselines:
        joined = [student for student in sweep.students if student.pair == cell.pair]
        assert len(joined) == 3
        assert {(student.seed, student.model) for student in joined} == {(cell.seed, cell.model)}


def test_pruned_students_keep_their_teachers_depth_and_skip_small_teachers():
    sweep = grid(init="prune")
    assert {(cell.teacher.name, cell.name.split("-")[0]) for cell in sweep.students} == {
        ("t6k", "s1.5k"),
        ("t25k", "s1.5k"),
        ("t25k", "s14k"),
        ("t98k", "s1.5k"),
        ("t98k", "s14k"),
    }
    for cell in sweep.students:
        assert cell.init == "prune" and cell.model.depth == cell.teacher.model.depth
        assert count_params(cell.model).non_embedding == pytest.approx(cell.target_params, rel=0.05)


def test_several_inits_stand_side_by_side_each_with_its_own_baselines():
    both, pruned, scratch = grid(init=("prune", "scratch")), grid(init="prune"), grid()
    assert {c.fingerprint for c in both.cells} == {c.fingerprint for c in pruned.cells + scratch.cells}
    assert len({cell.name for cell in both.cells}) == len(both.cells) == len({cell.fingerprint for cell in both.cells})
    assert {cell.init for cell in both.students} == {"prune", "scratch"}


def test_several_objectives_are_several_protocols():
    sweep = grid(objective=[ObjectiveSpec(soft_weight=weight) for weight in (0.5, 1.0)])
    assert len(sweep.students) == 2 * 3 * 2 * 3
    assert len({cell.protocol for cell in sweep.students}) == 2
    assert len([group for group in sweep.groups() if group.teacher]) == 3  # objectives share the teacher's pass


def test_several_signals_are_several_protocols_and_groups():
    sweep = grid(signal=[TeacherSignal(), TeacherSignal(kind="topk", symbols=8)], seeds=(0,))
    assert {cell.name for cell in sweep.students if "topk8" not in cell.name} == {
        c.name for c in grid(seeds=(0,)).students
    }
    assert len({cell.protocol for cell in sweep.students}) == 2
    taught = [group for group in sweep.groups() if group.teacher]
    assert len(taught) == 2 * 3 and all(len({cell.signal for cell in group.cells}) == 1 for group in taught)


def test_a_teacher_split_is_read_by_teachers_alone():
    sweep = grid(data=DataSpec(teacher_fraction=0.3))
    assert {cell.split for cell in sweep.teachers} == {"teacher"}
    assert {cell.split for cell in sweep.students + sweep.baselines} == {"train"}


def test_other_vocabularies_do_not_mix():
    with pytest.raises(SpecError, match="vocabulary, 256"):
        grid(students=models("1.5k", vocab_size=257))


def test_a_cell_cannot_stand_in_a_sweep_twice():
    with pytest.raises(SpecError, match="twice"):
        grid(seeds=(0, 0))


def test_students_need_a_teacher_of_the_sweep():
    sweep = grid()
    with pytest.raises(SpecError, match="is no teacher here"):
        replace(sweep, teachers=sweep.teachers[:1])
    with pytest.raises(SpecError, match="needs a teacher"):
        replace(sweep, students=sweep.baselines, baselines=())


def test_the_plan_is_pinned():
    """A pinned number on purpose: if it moves, finished sweeps are no longer recognised as finished."""
    sweep = grid()
    assert short_hash([cell.id for cell in sweep.cells]) == "77a67351c4fd"
    assert short_hash([group.id for group in sweep.groups()]) == "2fb67431ff2a"
