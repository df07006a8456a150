"""A teacher assistant is distilled (and pruned) from a teacher, and teaches a student. Is the chain trained and named
right?
"""

import dataclasses
import io
import itertools
import json
import re

import pandas as pd
import pytest
from rich.console import Console

from gaplaw import DataSpec, ModelSpec, ObjectiveSpec, Sweep, TrainSpec, results
from gaplaw.canonical import from_dict, to_dict
from gaplaw.errors import CheckpointError, SpecError
from gaplaw.law.table.read import read_table
from gaplaw.spec import Cell, Execution, TeacherSignal
from gaplaw.spec.sizes import count_params, pruned_shape
from gaplaw.sweep import resolve, run
from gaplaw.sweep.folder.growth import grown
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning.make_plan import plan, works_of
from gaplaw.sweep.rehearse.shrink import shrink_sweep
from gaplaw.sweep.running import worker
from tests.sweep.sweeps import QUICK, StandIn, ran

ONE = dataclasses.replace(QUICK, workers=1)


def shape(width: int, depth: int = 1) -> ModelSpec:
    layers = dict(heads=4, head_size=width // 4, hidden=2 * width)
    return ModelSpec(vocab_size=256, width=width, depth=depth, max_length=16, **layers)


def chain(source: str, **of_the_student) -> Sweep:
    """A teacher, an assistant cut out of it, a student of each, and a student alone."""
    data = DataSpec(source=source, sequence_tokens=16, validation_tokens=512)
    shared = dict(data=data, train=TrainSpec(tokens=16 * 8 * 12, batch_sequences=8), objective=ObjectiveSpec())
    large = Cell(**shared | dict(name="large", model=shape(32), objective=ObjectiveSpec(soft_weight=0)))
    target = count_params(large.model).non_embedding // 2
    cut = dict(init="prune", target_params=target, model=pruned_shape(large.model, target))
    assistant = Cell(name="assistant", teacher=large, **cut, **shared)
    small = dict(model=shape(8, 1)) | of_the_student
    students = tuple(
        Cell(name=f"small-{teacher.name}", teacher=teacher, **shared | small) for teacher in (large, assistant)
    )
    alone = Cell(**shared | dict(name="alone", model=shape(8, 1), objective=ObjectiveSpec(soft_weight=0)))
    return resolve(
        Sweep(name="chain", question="?", teachers=(assistant, large), students=students, baselines=(alone,))
    )


def train(sweep: Sweep, folder: RunFolder) -> pd.DataFrame:
    """Run a sweep group by group in this process, each after its teacher. Returns its rows by name."""
    folder.make()
    works = {work.id: work for work in works_of(sweep, RateOfNothing())}
    for work in sorted(works.values(), key=lambda work: len(work.group.cells[0].ancestors)):
        task = {"group": work.id, "sweep": sweep.name, "execution": to_dict(ONE), "keeps": list(work.keeps)}
        task |= {"cells": [to_dict(cell) for cell in work.group.cells]}
        worker._run_task(folder, task | {"roles": {cell.id: sweep.role(cell) for cell in work.group.cells}})
    return rows_of(sweep, folder)


def rows_of(sweep: Sweep, folder: RunFolder) -> pd.DataFrame:
    return results.read(folder.out).set_index("cell_id").rename(index={cell.id: cell.name for cell in sweep.cells})


class RateOfNothing:
    """A clock for plans whose times nobody reads."""

    def phases(self, group):
        from gaplaw.sweep.planning.estimate import Phases

        return Phases()


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    """Three cells in a chain, really trained; compiled programs are kept with those of the other tests."""
    whole = chain(source)
    sweep = dataclasses.replace(whole, students=whole.students[1:], baselines=())
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_cache_compilations", lambda: None)
        return sweep, folder, train(sweep, folder)


def test_a_student_learns_from_a_pruned_assistant_whose_shape_the_plan_did_not_know(trained):
    sweep, folder, rows = trained
    assistant = sweep.teachers[0]
    found = from_dict(ModelSpec, json.loads(rows.model["assistant"]))
    assert found != assistant.model  # else nothing is tested here
    assert (rows.status == "done").all()
    assert rows.role.to_dict() == {"large": "teacher", "assistant": "assistant", "small-assistant": "student"}
    assert rows.loss_teacher_ce_nats["assistant"] == pytest.approx(rows.loss_student_ce_nats["large"], rel=1e-5)
    taught = rows.loc["small-assistant"]
    assert taught.loss_teacher_ce_nats == pytest.approx(rows.loss_student_ce_nats["assistant"], rel=1e-5)
    assert taught.teacher_params == rows.student_params["assistant"] == count_params(found).non_embedding
    assert taught.teacher_training_flops == rows.student_training_flops["assistant"]


def test_a_pruned_assistant_of_another_shape_than_its_row_says_is_refused(trained, tmp_path):
    from gaplaw.train import checkpoint
    from gaplaw.train.teacher import stored_teacher

    sweep, folder, _ = trained
    assistant, student = sweep.teachers[0], sweep.students[0]
    entry = folder.teacher_entry(assistant)
    _, model = checkpoint.load(entry / "checkpoint")
    row = folder.teacher_row(entry, assistant)
    assert stored_teacher(student, entry / "checkpoint", model, row, ONE).loss_nats == row["loss_student_ce_nats"]
    with pytest.raises(CheckpointError, match="another shape than the row of assistant-"):
        stored_teacher(student, entry / "checkpoint", assistant.model, row, ONE)


def test_a_law_leaves_assistants_out_and_says_how_many(trained, tmp_path):
    _, folder, rows = trained
    frame = rows.reset_index(names="cell_id")
    for told in (frame, frame.assign(role=frame["role"].replace("assistant", "student"))):  # as earlier versions had it
        table = read_table(told)
        assert table.frame.student_params.tolist() == [rows.student_params["small-assistant"]]
        assert "rows left out because they are teacher assistants, not students: 1" in table.notes
    assert not any("assistant" in note for note in read_table(frame[frame["cell_id"] != "assistant"]).notes)


def test_the_page_draws_an_assistant_among_the_teachers_and_lists_it_by_its_role(trained):
    from gaplaw.report.tables import cells_table
    from gaplaw.report.view import view

    _, _, rows = trained
    frame = rows.reset_index(names="cell_id")
    for told in (frame, frame.assign(role=frame["role"].replace("assistant", "student"))):
        seen = view(told)
        assert set(seen.teachers["cell_id"]) == {"large", "assistant"}
        assert [name for student in seen.students for name in student.rows["cell_id"]] == ["small-assistant"]
        roles = re.findall(r'<td data-key="(teacher|assistant|student)"', cells_table(seen)["body"])
        assert roles == ["teacher", "assistant", "student"]


@pytest.mark.slow
@pytest.mark.parametrize("signal", [TeacherSignal(), TeacherSignal(kind="topk", symbols=4)], ids=lambda s: s.kind)
def test_a_student_is_cut_out_of_a_pruned_assistant_and_learns_live_or_from_its_cache(source, tmp_path, signal):
    target = count_params(shape(32)).non_embedding // 5
    plain = chain(source)
    cut = dataclasses.replace(plain.students[1], init="prune", target_params=target, signal=signal)
    sweep = dataclasses.replace(plain, students=(cut,), baselines=())
    shown = Console(file=io.StringIO(), width=200)
    assert run(sweep, tmp_path / "runs" / "chain", ONE, shown).done == 3, shown.file.getvalue()
    rows = rows_of(sweep, RunFolder(tmp_path / "runs" / "chain"))
    assert rows.role["assistant"] == "assistant" and rows.init[cut.name] == "prune"
    assert rows.student_params[cut.name] == pytest.approx(target, rel=0.05)
    assert rows.loss_teacher_ce_nats[cut.name] == pytest.approx(rows.loss_student_ce_nats["assistant"], rel=1e-5)


def test_a_run_makes_each_link_after_the_one_before_and_a_plan_names_the_roles(source, tmp_path):
    sweep, out = chain(source), tmp_path / "runs" / "chain"
    shown = Console(file=io.StringIO(), width=200)
    assert run(sweep, out, ONE, shown, executor=StandIn()).done == 5
    order = ran(out)
    assert order.index("large") < order.index("assistant") < order.index("small-assistant")
    assert {cell.cell_id.rpartition("-")[0]: cell.role for cell in plan(sweep, ONE, RunFolder(out)).cells} == {
        cell.name: sweep.role(cell) for cell in sweep.cells
    }
    again = StandIn(error="assistant")
    failed = run(sweep, tmp_path / "runs2" / "chain", ONE, shown, executor=again)
    assert failed.failed == 2 and any("its teacher assistant-" in error for error in failed.failures.values())


def test_an_assistants_teacher_is_a_cell_of_the_sweep(source):
    sweep = chain(source)
    with pytest.raises(SpecError, match="Sweep.teachers assistant = 'large': is no teacher here"):
        dataclasses.replace(sweep, teachers=sweep.teachers[:1], students=sweep.students[1:])


def test_a_student_that_becomes_an_assistant_stays_the_same_cell_of_the_folder(source):
    sweep = chain(source)
    assistant, large = sweep.teachers
    before = dataclasses.replace(sweep, teachers=(large,), students=(assistant, sweep.students[0]))
    both, note = grown(before, sweep, "here")
    assert both.cells == sweep.cells and note == "1 cells added to the sweep"


def test_a_rehearsal_makes_the_whole_chain_of_each_structure(source):
    sweep = chain(source)
    other = dataclasses.replace(sweep.teachers[1], name="larger", seed=1)
    helper = dataclasses.replace(sweep.teachers[0], name="helper", teacher=other, model=sweep.teachers[0].model)
    pupil = dataclasses.replace(sweep.students[1], name="pupil", teacher=helper)
    for teachers in itertools.permutations((*sweep.teachers, other, helper)):
        two = dataclasses.replace(sweep, teachers=teachers, students=(*sweep.students, pupil))
        made, programs = shrink_sweep(two, Execution(), lambda data, scaled: data)
        names = {cell.name for cell in made.cells}
        assert {above.name for cell in made.cells for above in cell.ancestors} <= names
        assert {made.role(cell) for cell in made.cells} >= {"teacher", "assistant", "student"}
        assert sum(len(program.stands_for) for program in programs) == len(two.groups())
