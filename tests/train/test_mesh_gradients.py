"""On every mesh each student's loss and gradient are those of one device: single and stacked, dense and pruned, in a
group.

AdamW's first moment after one step is the clipped gradient times (1 - beta1), so one real training step shows both.
"""

import dataclasses

import jax
import numpy as np
import pytest

from gaplaw import models
from gaplaw.spec import MeshSpec
from gaplaw.train import mesh as meshes
from gaplaw.train import stack as stack_module
from gaplaw.train.stack import cut_from_teacher, stacks_of, start
from gaplaw.train.step import train_program
from tests import toy

MESHES = [MeshSpec(student=2, fsdp=2, tensor=2)]
MORE_MESHES = [
    MeshSpec(data=2, fsdp=2, tensor=2),
    *(MeshSpec(**{axis: 8}) for axis in ("data", "fsdp", "tensor", "student")),
    *(MeshSpec(**dict.fromkeys(("student", "data", "fsdp", "tensor"), 2) | {axis: 1}) for axis in ("fsdp", "tensor")),
    MeshSpec(data=4, tensor=2),
    MeshSpec(fsdp=2, tensor=4),
    MeshSpec(student=3, data=2),
]


@pytest.fixture(scope="module")
def group():
    """Two scratch students of two seeds and one of one, a pruned one, and their teacher: four stacks."""
    corpus, sweep = toy.MarkovCorpus(), toy.sweep()
    pruned = toy.sweep(init="prune", students=[toy.model(12)])
    teacher = sweep.teachers[0]
    first = next(cell for cell in pruned.students if cell.teacher == teacher)
    cells = (*(cell for cell in sweep.students if cell.teacher == teacher), first)
    single = dataclasses.replace(cells[0], seed=7, train=dataclasses.replace(cells[0].train, learning_rate=3e-3))
    cells += (single,)
    params = models.init(jax.random.key(4), teacher.model)
    sample = corpus.batch("train", 16, 0, range(2))
    cut = cut_from_teacher(cells, (params, teacher.model), sample, meshes.make_mesh(MeshSpec()))
    shapes = {c.fingerprint: cut[c.target_params][1] if c.init == "prune" else c.model for c in cells}
    stacks = stacks_of(cells, shapes, toy.EXECUTION)
    kinds = sorted((stack.cells[0].init, len(stack.cells)) for stack in stacks)
    assert kinds == [("prune", 1), ("scratch", 1), ("scratch", 2), ("scratch", 2)]
    return corpus.batch("train", 16, 0, range(1)), sample, stacks, params, teacher.model


def one_step(group, spec, **options):
    """[(loss [S], gradient tree with leading axis S)] of every stack; pruned students are cut out of the spread
    teacher.
    """
    batches, sample, stacks, params, model = group
    mesh = meshes.make_mesh(spec)
    execution = dataclasses.replace(toy.EXECUTION, mesh=spec, core_blocked=False, chunk_tokens=16, **options)
    params = jax.device_put(params, meshes.shardings(mesh, params, stacked=False))
    cells = [cell for stack in stacks for cell in stack.cells]
    cut = cut_from_teacher(cells, (params, model), sample, mesh)
    for student, _ in cut.values():
        for leaf, place in zip(
            jax.tree.leaves(student), jax.tree.leaves(meshes.shardings(mesh, student, stacked=False)), strict=True
        ):
            assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
    states = [start(stack, cut.get(stack.cells[0].target_params, (None,))[0], mesh) for stack in stacks]
    program = train_program(stacks, model, execution, mesh)
    states, losses, _ = program(states, params, meshes.put(mesh, batches), 0, 1)
    return [
        (np.asarray(loss[0]), jax.device_get(state.moments[1].mu)) for loss, state in zip(losses, states, strict=True)
    ]


@pytest.fixture(autouse=True, scope="module")
def small_pieces():
    """The sample by which teachers are cut goes through in pieces, as large ones do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack_module, "SAMPLE_TOKENS", 2 * toy.LENGTH)
        yield


@pytest.fixture(scope="module")
def expected(group):
    return one_step(group, MeshSpec())


def name(spec):
    return f"s{spec.student}d{spec.data}f{spec.fsdp}t{spec.tensor}"


def same(group, expected, spec, **options):
    for (loss, slope), (loss_here, slope_here) in zip(one_step(group, spec, **options), expected, strict=True):
        np.testing.assert_allclose(loss, loss_here, rtol=1e-5)
        for ours, theirs in zip(jax.tree.leaves(slope), jax.tree.leaves(slope_here), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-6)


ALL_MESHES = [*MESHES, *(pytest.param(spec, marks=pytest.mark.slow) for spec in MORE_MESHES)]


@pytest.mark.parametrize("spec", ALL_MESHES, ids=name)
def test_losses_and_gradients_are_those_of_one_device(group, expected, spec):
    same(group, expected, spec)


@pytest.mark.parametrize("spec", ALL_MESHES, ids=name)
def test_a_librarys_attention_on_each_devices_rows_and_heads_changes_nothing(group, expected, spec):
    same(group, expected, spec, attention="xla")
