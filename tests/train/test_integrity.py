"""A byte that changes in a checkpoint or a teacher cache is noticed when it is opened, in one line that names the
file.
"""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaplaw.canonical import to_dict
from gaplaw.errors import CheckpointError, SignalError
from gaplaw.files import SUMS
from gaplaw.spec import Group, TeacherSignal
from gaplaw.train import run_group
from gaplaw.train.cache_files import SignalCache, made_or_damaged
from gaplaw.train.checkpoint import InFlight, Record, load, save
from gaplaw.train.teacher import ROUGH, StoredTeacher, stored_teacher
from tests import toy
from tests.flips import files, flip, later

RECORD = Record(
    step=1, seconds=1.0, compile_seconds=None, curves={"a": [{"tokens": 1}]}, broken={}, last_losses={"a": 0.5}
)


def put_back(path, whole):
    path.write_bytes(whole)
    later(path)


def test_any_change_in_any_file_of_a_model_is_refused_by_name(teacher, tmp_path):
    place = tmp_path / "model"
    save(place, teacher.params, teacher.model)
    assert len(files(place)) > 5
    for path in files(place):
        for seed in range(5):
            whole = flip(path, seed)
            with pytest.raises(CheckpointError) as refusal:
                load(place)
            assert "\n" not in str(refusal.value) and str(place if path.name == SUMS else path) in str(refusal.value)
            put_back(path, whole)
    params, model = load(place)
    assert model == teacher.model
    jax.tree.map(np.testing.assert_array_equal, params, teacher.params)


def test_a_model_without_checksums_is_read_with_one_line_and_gets_them(teacher, tmp_path, capsys):
    save(tmp_path / "model", teacher.params, teacher.model)
    (tmp_path / "model" / SUMS).unlink()
    for lines in (1, 0):
        jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "model")[0], teacher.params)
        said = capsys.readouterr().err
        assert said.count("\n") == lines == said.count("without checksums")


def flight(folder, cells=("a",), step=None):
    """(what `restore` gives; states are written at `step` if it is given)."""
    one = InFlight(folder, list(cells), 0)
    found = one.restore(
        [jax.ShapeDtypeStruct((300,), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))]
    )
    if step is not None:
        one.save([jnp.full(300, float(step))], dataclasses.replace(RECORD, step=step))
    one.close()
    return found


def test_a_damaged_checkpoint_in_flight_is_dropped_for_an_older_one_or_the_start(tmp_path, capsys):
    flight(tmp_path / "one", step=1)
    states, record = flight(tmp_path / "one", step=2)
    assert (float(states[0][7]), record) == (1.0, RECORD)
    flight(tmp_path / "two", step=1)
    shutil.copytree(tmp_path / "one" / "2", tmp_path / "two" / "2")
    names = [path.relative_to(tmp_path / "two" / "2") for path in files(tmp_path / "two" / "2")]
    assert len(names) > 5
    for number, name in enumerate(names):
        place = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "two", place)
        flip(place / "2" / name, number)
        capsys.readouterr()
        states, record = flight(place)
        said = capsys.readouterr().err
        if (record.step, float(states[0][7])) == (2, 2.0):  # what Orbax says for itself: when it was written
            assert (
                name.name in ("_CHECKPOINT_METADATA", "commit_success.txt")
                and said == ""
                and record == dataclasses.replace(RECORD, step=2)
            )
            continue
        assert (record, set(np.asarray(states[0]))) == (RECORD, {1.0}), name
        assert said.count("\n") == 1 and str(place / "2") in said and "an older one is looked at" in said
        flip(next((place / "1" / "state").rglob("d/*")))
        assert flight(place) is None and "the group starts from its beginning" in capsys.readouterr().err


def test_a_checkpoint_in_flight_without_checksums_or_of_another_training_of_the_teacher_is_dropped(tmp_path, capsys):
    flight(tmp_path, step=1)
    (tmp_path / "1" / SUMS).unlink()
    assert flight(tmp_path, step=2) is None and "has no checksums" in capsys.readouterr().err
    assert flight(tmp_path, cells=("a", "trained again")) is None
    assert "of another training of their teacher" in capsys.readouterr().err


def test_a_checkpoint_in_flight_of_another_version_is_called_that(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gaplaw.train.checkpoint.asdict", lambda record: {"step": record.step, "spare": 1})
    flight(tmp_path, step=1)
    assert flight(tmp_path) is None
    said = capsys.readouterr().err
    assert f"{tmp_path / '1'}: a checkpoint of another version of gaplaw" in said and said.count("\n") == 1
    assert "last_losses" in said and "spare" in said and "step" not in said.partition("differs")[2].partition(")")[0]


def test_any_change_in_any_file_of_a_cache_is_noticed_and_the_file_made_again(corpus, teacher, tmp_path, capsys):
    few = TeacherSignal(kind="topk", symbols=3)
    cells = [cell for cell in toy.sweep(signal=few).students if cell.teacher.name == teacher.cell.name][:1]
    group, tokens = Group(cells=tuple(cells)), corpus.batch("train", 16, 0, range(2)).reshape(-1, toy.LENGTH + 1)

    def run():
        given = (teacher.params, teacher.model)
        (found,) = run_group(group, corpus=corpus, execution=toy.EXECUTION, teacher=given, signals=tmp_path)
        return {name: value for name, value in found.metrics.items() if "seconds" not in name}

    before = run()
    cache = SignalCache(tmp_path, group, corpus)
    shard = cache.shard(0)
    with np.load(shard) as stored:
        names = sorted(set(stored.files) - {"tokens_crc", "sha256"})
    wanted = cache.read(0, tokens, names)
    noticed = 0
    for seed in range(150):
        whole = flip(shard, seed)
        fresh = SignalCache(tmp_path, group, corpus)
        try:
            for name, array in fresh.read(0, tokens, names).items():
                np.testing.assert_array_equal(array, wanted[name])  # a bit that says nothing, such as a date
        except SignalError as refusal:
            noticed += 1
            assert str(shard) in str(refusal) and "\n" not in str(refusal) and not shard.exists()
        put_back(shard, whole)
    assert noticed > 100
    with np.load(shard) as old:  # of before there were checksums: filled again
        arrays = {name: old[name] for name in old.files if name != "sha256"}
    np.savez(shard, **arrays)
    assert cache.missing(16, names) == [range(16)]
    described = [cache.path / "manifest.json", *cache.path.glob("fidelity-*.json")]
    wholes = [made_or_damaged(path) for path in described]
    for path in described:
        flip(path)
    capsys.readouterr()
    assert run() == before
    said = capsys.readouterr().err
    assert all(f"{path}: damaged" in said for path in described) and said.count("made again") == len(described) > 1
    assert [made_or_damaged(path) for path in described] == wholes
    np.testing.assert_array_equal(
        SignalCache(tmp_path, group, corpus).read(0, tokens, names)["ids_NxT"], wanted["ids_NxT"]
    )


def test_a_teacher_whose_loss_is_not_its_own_rows_is_refused_at_the_first_evaluation(corpus, teacher, tmp_path):
    cells = tuple(c for c in toy.sweep().students if c.teacher.name == teacher.cell.name)[:1]
    save(tmp_path / "model", teacher.params, teacher.model)
    row = teacher.metrics | {"execution": '{"compute_dtype": "float32"}', "model": json.dumps(to_dict(teacher.model))}
    stored = stored_teacher(cells[0], tmp_path / "model", teacher.model, row, toy.EXECUTION)
    assert stored.checkpoint and stored.loss_nats == teacher.metrics["loss_student_ce_nats"]
    measured = []

    def run(params):
        return run_group(
            Group(cells=cells),
            corpus=corpus,
            execution=toy.EXECUTION,
            teacher=(params, teacher.model),
            stored=stored,
            progress=lambda now: measured.append(now.step) if now.phase == "evaluate" else None,
        )

    run(teacher.params)
    assert measured == [5, 12] or len(measured) == toy.EXECUTION.evaluations
    measured.clear()
    changed = jax.tree.map(lambda a: a, teacher.params)
    kernel = changed["layers_0"]["feed_forward"]["down"]["kernel"]
    changed["layers_0"]["feed_forward"]["down"]["kernel"] = kernel.at[0, 0].add(3.0)
    with pytest.raises(CheckpointError, match=rf"a loss of .* its own row says {stored.loss_nats:.6g}"):
        run(changed)
    assert len(measured) == 1


@pytest.mark.parametrize(
    ("found", "rough", "fits"), [(3.0002, False, True), (3.0005, False, False), (3.05, True, True)]
)
def test_the_tolerance_is_of_the_loss_and_wider_for_bfloat16(found, rough, fits):
    stored = StoredTeacher(name="t", checkpoint="", loss_nats=3.0, **({"tolerance": ROUGH} if rough else {}))
    if fits:
        stored.check(found)
    else:
        with pytest.raises(CheckpointError, match="one of them is damaged"):
            stored.check(found)
    with pytest.raises(CheckpointError):
        stored.check(float("nan"))


def test_other_numbers_or_devices_are_compared_roughly_and_other_tokens_not_at_all(teacher, tmp_path):
    cell = toy.sweep().students[0]
    row = teacher.metrics | {"execution": '{"compute_dtype": "float32"}', "model": json.dumps(to_dict(teacher.model))}

    def stored(student=cell, **changed):
        return stored_teacher(student, tmp_path, teacher.model, row | changed, toy.EXECUTION)

    assert stored().tolerance < stored(execution='{"compute_dtype": "bfloat16"}').tolerance == ROUGH
    assert stored(device="TPU v5p").tolerance == stored(execution=None).tolerance == ROUGH
    other = dataclasses.replace(cell, data=dataclasses.replace(cell.data, validation_tokens=64))
    assert stored(other).loss_nats is None
