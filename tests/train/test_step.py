"""Microbatches, meshes, scanned layers and rematerialisation leave the gradient as it is; precision moves it a
little.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaplaw import models
from gaplaw.distill import TopK
from gaplaw.errors import SpecError
from gaplaw.spec import Execution, MeshSpec, TeacherSignal
from gaplaw.spec.teacher_signal import LIVE
from gaplaw.train.mesh import make_mesh, put
from gaplaw.train.stack import params_of, stacks_of, start, teacher_on
from gaplaw.train.step import held_shape, train_program
from tests import toy

PLAIN = dataclasses.replace(toy.EXECUTION, core_blocked=False)


def step(execution, signal=LIVE):
    """First moments (a tenth of the gradient) and losses after one step of one shape with two seeds, by cell."""
    sweep = toy.sweep(teachers=[toy.model(16, 3)], students=[toy.model(8, 2)], signal=signal)
    cells, mesh = sweep.students, make_mesh(execution.mesh)
    stacks = stacks_of(cells, {cell.fingerprint: cell.model for cell in cells}, execution)
    states = [start(stack, None, mesh) for stack in stacks]
    model = cells[0].teacher.model
    teacher = teacher_on(mesh, models.init(jax.random.key(9), model), model, cells, execution)
    if signal.cached:
        teacher = kept_of_one_batch(signal)
    batches = put(mesh, toy.MarkovCorpus().batch("train", 16, 0, range(1)))
    states, losses, _ = train_program(stacks, model, execution, mesh)(states, teacher, batches, 0, 1)
    moments = [
        params_of(stack, state.moments[1].mu, place)
        for stack, state in zip(stacks, states, strict=True)
        for place in range(len(stack.cells))
    ]
    return moments, np.concatenate([np.asarray(loss_KxS[0]) for loss_KxS in losses]), teacher


def kept_of_one_batch(signal):
    """What a cache might hold of the 16 sequences of one batch: any symbols, with some mass on each and in the tail."""
    rng, shape = np.random.default_rng(0), (1, 16, toy.LENGTH)
    probs = rng.dirichlet(np.ones(signal.symbols + 1), shape)
    ids = rng.permuted(np.broadcast_to(np.arange(toy.VOCAB), (*shape, toy.VOCAB)), axis=-1)[..., : signal.symbols]
    tails = {heat: jnp.asarray(np.log(probs[..., -1]), float) for heat in (1.0, 2.0, 3.0)}
    return TopK(jnp.asarray(ids, int), jnp.asarray(np.log(probs[..., :-1]), float), tails)


@pytest.fixture(scope="module")
def plain():
    return step(PLAIN)


CHANGES = [
    pytest.param(dict(accumulate=4), marks=pytest.mark.slow),  # as the next, without its mesh
    dict(accumulate=2, mesh=MeshSpec(student=2, data=2, tensor=2)),
    dict(scan_layers=True, remat="dots"),
    pytest.param(dict(accumulate=2, mesh=MeshSpec(fsdp=4), scan_layers=True, remat="full"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_gradient_does_not_depend_on_how_it_is_computed(plain, changes):
    moments, losses, _ = step(dataclasses.replace(PLAIN, **changes))
    np.testing.assert_allclose(losses, plain[1], rtol=1e-5)
    for ours, theirs in zip(moments, plain[0], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), ours, theirs)


@pytest.mark.slow
def test_microbatches_of_a_cached_teacher_give_the_whole_batchs_gradient():
    topk = TeacherSignal(kind="topk", symbols=4)
    (whole, losses, _), (parts, summed, _) = (step(dataclasses.replace(PLAIN, accumulate=n), topk) for n in (1, 4))
    np.testing.assert_allclose(summed, losses, rtol=1e-5)
    for ours, theirs in zip(parts, whole, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), ours, theirs)


def test_a_teacher_in_bfloat16_is_held_in_half_the_bytes_and_moves_the_loss_by_its_rounding(plain):
    _, losses, teacher = step(dataclasses.replace(PLAIN, teacher_dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(teacher)} == {jnp.dtype("bfloat16")}
    assert (losses != plain[1]).any()
    np.testing.assert_allclose(losses, plain[1], rtol=2e-3)


def test_scanned_layers_are_held_as_one_array():
    sweep = toy.sweep(students=[toy.model(8, 3)])
    (stack,) = stacks_of(
        sweep.baselines, {c.fingerprint: c.model for c in sweep.baselines}, dataclasses.replace(PLAIN, scan_layers=True)
    )
    state = start(stack, None, make_mesh(MeshSpec()))
    assert state.params["layers"]["feed_forward"]["up"]["kernel"].shape == (2, 3, 8, 16)
    alone = models.init(jax.random.key(sweep.baselines[1].seed), stack.model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params_of(stack, state.params, 1), alone)


def test_a_batch_that_does_not_divide_into_microbatches_is_refused():
    with pytest.raises(SpecError, match="data × fsdp × accumulate = 12"):
        Execution(mesh=MeshSpec(fsdp=4), accumulate=3).check_batch(16)


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("sequences", [1, 7, 64, 1000])
def test_validation_takes_no_more_rows_at_a_time_than_a_microbatch_and_misses_none(sequences, accumulate):
    execution = dataclasses.replace(
        toy.EXECUTION, mesh=MeshSpec(data=2, fsdp=2), accumulate=accumulate, core_blocked=False
    )
    cell = toy.sweep().baselines[0]  # batches of 16
    stacks = stacks_of((cell,), {cell.fingerprint: cell.model}, execution)
    dispatches, batches, rows = held_shape(stacks, execution, sequences)
    assert rows % 4 == 0 and rows <= 16 // accumulate and batches <= execution.steps_per_dispatch
    assert sequences <= dispatches * batches * rows < sequences + dispatches * rows + rows
