"""On every mesh a group gives the single-device numbers; parameters really are spread; impossible meshes are
refused.
"""

import dataclasses

import jax
import numpy as np
import pytest

from gaplaw.errors import SpecError
from gaplaw.spec import Execution, Group, MeshSpec
from gaplaw.train import mesh as meshes
from gaplaw.train import run_group
from gaplaw.train.stack import Stack, start
from tests import toy

MESHES = [
    MeshSpec(data=2, fsdp=2, tensor=2),
    pytest.param(MeshSpec(student=2, data=2, tensor=2), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def alone(corpus, teacher):
    """Two seeds of one shape on one device; many shapes are the question of test_mesh_gradients."""
    single = dataclasses.replace(toy.EXECUTION, core_blocked=False)
    students = toy.sweep(students=[toy.model(8)]).students
    cells = tuple(cell for cell in students if cell.teacher == teacher.cell)
    return run_group(Group(cells=cells), corpus=corpus, execution=single, teacher=(teacher.params, teacher.model))


@pytest.mark.parametrize("spec", MESHES, ids=lambda m: f"s{m.student}d{m.data}f{m.fsdp}t{m.tensor}")
def test_a_mesh_gives_the_single_device_numbers(corpus, teacher, alone, spec):
    spread = dataclasses.replace(toy.EXECUTION, mesh=spec)
    group = Group(cells=tuple(outcome.cell for outcome in alone))
    found = run_group(group, corpus=corpus, execution=spread, teacher=(teacher.params, teacher.model))
    for ours, theirs in zip(found, alone, strict=True):
        assert ours.metrics["device_count"] == spec.devices
        for name, value in theirs.metrics.items():
            if name.endswith("_nats"):
                np.testing.assert_allclose(ours.metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_parameters_are_spread_as_the_table_says():
    mesh = meshes.make_mesh(MeshSpec(student=2, fsdp=2, tensor=2))
    cells = toy.sweep().baselines[:2]
    state = start(Stack(cells, cells[0].model), None, mesh)
    layer = state.params["layers_0"]
    kernel = layer["attention"]["query"]["kernel"]  # [S, D, H, K]: student × fsdp × tensor
    assert kernel.sharding.shard_shape(kernel.shape) == (1, kernel.shape[1] // 2, kernel.shape[2] // 2, kernel.shape[3])
    down = layer["feed_forward"]["down"]["kernel"]  # [S, F, D]
    assert down.sharding.shard_shape(down.shape) == (1, down.shape[1] // 2, down.shape[2] // 2)
    first, second = state.moments[1].mu["layers_0"]["feed_forward"]["down"]["kernel"], down
    assert first.sharding.is_equivalent_to(second.sharding, 3)


def test_initial_values_do_not_depend_on_the_mesh():
    cells = toy.sweep().baselines[:2]
    stack = Stack(cells, cells[0].model)
    here = start(stack, None, meshes.make_mesh(MeshSpec()))
    there = start(stack, None, meshes.make_mesh(MeshSpec(fsdp=4, tensor=2)))
    for a, b in zip(jax.tree.leaves(here.params), jax.tree.leaves(there.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_impossible_meshes_are_refused():
    with pytest.raises(SpecError, match="must not exceed"):
        meshes.make_mesh(MeshSpec(data=1024))
    with pytest.raises(SpecError, match="multiple of data × fsdp = 3"):
        Execution(mesh=MeshSpec(data=3)).check_batch(16)
    with pytest.raises(SpecError, match="at least 1"):
        MeshSpec(tensor=0)
