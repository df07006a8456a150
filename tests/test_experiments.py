"""The big experiments can be planned without their data, and a shrunken one compiles with the execution that it asks
for.
"""

import dataclasses
import json

import jax
import pytest

from gaplaw.cli import main
from gaplaw.spec import Group, MeshSpec
from gaplaw.sweep.forecast.compile_worker import Ahead
from gaplaw.sweep.forecast.targets import check_mesh, fitted_to, target
from gaplaw.sweep.planning.load import load, load_experiment
from gaplaw.sweep.running.status import status_of
from tests.conftest import ROOT

BIG = {"gpt2_pilot": "v5e:4x4", "pythia_pilot": "v5e:4x4", "minima_3b": "v5p:4x4x8"}


def path(name):
    return str(ROOT / "experiments" / f"{name}.py")


@pytest.mark.parametrize("name", BIG)
def test_a_big_experiment_is_planned_without_its_data(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", path(name), "--json"]) == 0
    shown = capsys.readouterr()
    rows = json.loads(shown.out)
    assert len(rows) == len(load_experiment(path(name)).cells) and all(row["flops"] > 1e16 for row in rows)
    assert "not on this machine" in shown.err and "tfds:c4/en" in shown.err


@pytest.mark.parametrize(("name", "where"), BIG.items())
def test_the_default_mesh_of_its_target_suits_every_group(name, where):
    execution = load(path(name))[1]
    for group in load_experiment(path(name)).groups():
        fitted = fitted_to(target(where), execution, group)
        check_mesh(target(where), fitted.mesh, group, fitted.accumulate)


def test_the_pilots_hold_both_ways_to_make_a_student():
    for name in ("gpt2_pilot", "pythia_pilot"):
        sweep = load_experiment(path(name))
        for teacher in sweep.teachers:
            ways = {cell.init for cell in sweep.students if cell.teacher == teacher}
            assert ways == {"prune", "scratch"}


def test_minima_is_the_published_recipe():
    (cell,) = load_experiment(path("minima_3b")).students
    assert cell.batch_tokens == 2**22 and cell.steps == 30_040  # 4.19M tokens a step, 126B tokens
    assert cell.objective.soft_weight == 0.5 and cell.objective.temperature == 1


def small(cell):
    shape = dict(vocab_size=128, width=32, depth=2, heads=2, head_size=16, hidden=64, max_length=16)
    return dataclasses.replace(
        cell,
        model=dataclasses.replace(cell.model, **shape),
        data=dataclasses.replace(cell.data, sequence_tokens=16),
        train=dataclasses.replace(cell.train, batch_sequences=16, tokens=16 * 16 * 10),
        teacher=small(cell.teacher) if cell.teacher else None,
    )


def test_a_shrunken_minima_compiles_on_a_mesh():
    execution = dataclasses.replace(load(path("minima_3b"))[1], mesh=MeshSpec(fsdp=4, tensor=2), core_blocked=False)
    group = Group(cells=tuple(small(cell) for cell in load_experiment(path("minima_3b")).students))
    assert Ahead(group, execution, jax.devices()).training().compile().memory_analysis().temp_size_in_bytes > 0


def test_the_committed_example_is_a_finished_sweep():
    found = status_of(ROOT / "experiments" / "results" / "quickstart")
    assert (found.cells, found.done, found.damaged) == (79, 79, ())
