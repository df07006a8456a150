"""A group that was killed goes on from its newest checkpoint: to the same bits on one device, within tolerance on
another mesh.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from gaplaw import models
from gaplaw.spec import Group, MeshSpec
from gaplaw.train import run_group
from gaplaw.train.checkpoint import InFlight, load, save
from gaplaw.train.mesh import make_mesh
from tests import toy

EVERY = dataclasses.replace(toy.EXECUTION, steps_per_dispatch=2, evaluations=3, checkpoint_seconds=0)
SPREAD = MeshSpec(data=2, fsdp=2, tensor=2)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def whole(corpus, teacher):
    """The uninterrupted outcomes of a group of two students."""
    return go(corpus, teacher, None)


def group_of(teacher):
    students = toy.sweep(students=[toy.model(8)]).students
    return Group(cells=tuple(cell for cell in students if cell.teacher.fingerprint == teacher.cell.fingerprint))


def go(corpus, teacher, checkpoints, execution=EVERY, killed_at=None, group=None):
    def progress(now):
        if now.phase == "train" and killed_at is not None and now.step >= killed_at:
            raise Killed

    return run_group(
        group or group_of(teacher),
        corpus=corpus,
        execution=execution,
        teacher=(teacher.params, teacher.model),
        progress=progress,
        keep_params=True,
        checkpoints=checkpoints,
    )


def steps_of(folder: Path) -> list[int]:
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def numbers(outcome):
    changing = ("_seconds", "device", "device_count")
    return {name: value for name, value in outcome.metrics.items() if not name.endswith(changing)}


def assert_same(found, expected, compare):
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.cell, ours.status, ours.error) == (theirs.cell, theirs.status, theirs.error)
        for row, wanted in zip([numbers(ours), *ours.curve], [numbers(theirs), *theirs.curve], strict=True):
            assert row.keys() == wanted.keys()
            for name, value in wanted.items():
                compare(row[name], value) if name.endswith("_nats") else None
        jax.tree.map(compare, ours.params, theirs.params)


def test_a_killed_group_goes_on_to_the_same_bits(corpus, teacher, whole, tmp_path, capfd):
    for killed_at in (4, 8):  # twice: a resumed group is killed again
        with pytest.raises(Killed):
            go(corpus, teacher, tmp_path, killed_at=killed_at)
        (step,) = steps_of(tmp_path)
        assert 0 < step <= killed_at
    assert_same(go(corpus, teacher, tmp_path), whole, np.testing.assert_array_equal)
    assert f"goes on from step {step} of 12" in capfd.readouterr().err


def test_a_kill_among_the_last_steps_leaves_the_training_loss(corpus, teacher, tmp_path, monkeypatch):
    singly = dataclasses.replace(EVERY, steps_per_dispatch=1, evaluations=1)
    group = Group(cells=group_of(teacher).cells[:1])
    monkeypatch.setattr(InFlight, "due", lambda self, step: step == 11)  # of 12, of which the last two count
    with pytest.raises(Killed):
        go(corpus, teacher, tmp_path, execution=singly, killed_at=12, group=group)
    assert steps_of(tmp_path) == [11]
    whole = go(corpus, teacher, None, execution=singly, group=group)
    assert_same(go(corpus, teacher, tmp_path, execution=singly, group=group), whole, np.testing.assert_array_equal)


def test_a_checkpoint_is_read_onto_another_mesh_and_back(corpus, teacher, whole, tmp_path, capfd):
    spread = dataclasses.replace(EVERY, mesh=SPREAD)
    with pytest.raises(Killed):
        go(corpus, teacher, tmp_path, killed_at=4)
    with pytest.raises(Killed):
        go(corpus, teacher, tmp_path, execution=spread, killed_at=8)
    assert_same(
        go(corpus, teacher, tmp_path), whole, lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
    )
    assert capfd.readouterr().err.count("goes on from step") == 2


def test_other_dispatches_take_up_in_the_middle_of_one(corpus, teacher, whole, tmp_path, capfd):
    with pytest.raises(Killed):
        go(corpus, teacher, tmp_path, killed_at=4)
    (step,) = steps_of(tmp_path)
    longer = dataclasses.replace(EVERY, steps_per_dispatch=12)
    found = go(corpus, teacher, tmp_path, execution=longer)
    assert f"goes on from step {step} of 12" in capfd.readouterr().err
    for ours, theirs in zip(found, whole, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours.params, theirs.params)


def test_a_damaged_or_foreign_checkpoint_is_ignored_in_one_line(corpus, teacher, whole, tmp_path, capfd):
    damaged, foreign = tmp_path / "damaged", tmp_path / "foreign"
    with pytest.raises(Killed):
        go(corpus, teacher, damaged, killed_at=4)
    for path in damaged.rglob("*"):
        if path.is_file() and "METADATA" not in path.name:
            path.write_bytes(b"torn")
    with pytest.raises(Killed):
        go(corpus, teacher, foreign, killed_at=4, group=Group(cells=group_of(teacher).cells[:1]))
    for folder, said in (
        (damaged, "SHA256SUMS: not a readable list of checksums"),
        (foreign, "a checkpoint of other cells"),
    ):
        assert_same(go(corpus, teacher, folder), whole, np.testing.assert_array_equal)
        err = capfd.readouterr().err
        assert err.count("warning:") == 1 and said in err and "goes on" not in err


def test_a_student_that_broke_before_the_kill_stays_broken(corpus, teacher, tmp_path):
    cells = group_of(teacher).cells
    mad = dataclasses.replace(cells[0], name="mad", train=dataclasses.replace(cells[0].train, learning_rate=1e30))
    group = Group(cells=(mad, cells[1]))
    for killed_at in (8, 10):  # a slow first write may leave step 2 alone; the run that resumes writes a later one
        with pytest.raises(Killed):
            go(corpus, teacher, tmp_path, killed_at=killed_at, group=group)
    (step,) = steps_of(tmp_path)
    found = go(corpus, teacher, tmp_path, group=group)
    assert [outcome.status for outcome in found] == ["failed", "done"]
    assert int(found[0].error.split("at step ")[1]) < step


def test_the_best_parameters_have_the_lowest_loss_of_the_curve_and_survive_a_kill(corpus, tmp_path):
    wild = dataclasses.replace(toy.sweep().baselines[0].train, learning_rate=0.5, final_fraction=1.0)  # gets worse
    cells = tuple(dataclasses.replace(cell, train=wild) for cell in toy.sweep().baselines[:2])
    execution = dataclasses.replace(EVERY, keep_students="best", evaluations=6)

    def outcomes(folder, killed_at=None):
        def progress(now):
            if now.phase == "train" and killed_at and now.step >= killed_at:
                raise Killed

        return run_group(
            Group(cells=cells),
            corpus=corpus,
            execution=execution,
            checkpoints=folder,
            keep_params=True,
            progress=progress,
        )

    whole = outcomes(None)
    held = corpus.validation().tokens_NxL1
    for outcome in whole:
        losses = [row["validation_loss_nats"] for row in outcome.curve]
        hidden_NxLxD = models.apply_hidden(outcome.best_params, held[:, :-1], outcome.model)
        logits_NxLxV = hidden_NxLxD @ models.output_matrix(outcome.best_params, outcome.model)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits_NxLxV, held[:, 1:]).mean()
        assert float(loss) == pytest.approx(min(losses), rel=1e-5)
    assert any(min(losses) < losses[-1] for losses in [[r["validation_loss_nats"] for r in o.curve] for o in whole])
    with pytest.raises(Killed):
        outcomes(tmp_path, killed_at=8)
    assert steps_of(tmp_path)
    for found, wanted in zip(outcomes(tmp_path), whole, strict=True):
        jax.tree.map(np.testing.assert_array_equal, found.best_params, wanted.best_params)


def test_a_model_is_saved_whole_and_loaded_onto_any_mesh(teacher, tmp_path):
    save(tmp_path / "model", teacher.params, teacher.model)
    save(tmp_path / "model", teacher.params, teacher.model)  # again: replaced
    for mesh in (None, make_mesh(SPREAD)):
        params, model = load(tmp_path / "model", mesh)
        assert model == teacher.model
        jax.tree.map(np.testing.assert_array_equal, params, teacher.params)
        kernel = params["layers_0"]["feed_forward"]["down"]["kernel"]
        assert kernel.sharding.shard_shape(kernel.shape) == tuple(n // 2 if mesh else n for n in kernel.shape)
