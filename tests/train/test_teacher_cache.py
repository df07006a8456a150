"""A cache is filled once and read by all; students of it train as from the live teacher; what does not match is
refused.
"""

import dataclasses

import jax
import numpy as np
import pytest

from gaplaw.errors import SignalError
from gaplaw.spec import Group, MeshSpec, ObjectiveSpec, TeacherSignal
from gaplaw.train import cache_files as caches
from gaplaw.train import run_group
from gaplaw.train.cache_files import SignalCache
from tests import toy

ALL = TeacherSignal(kind="topk", symbols=toy.VOCAB)
FEW = TeacherSignal(kind="topk", symbols=3)
DRAWS = TeacherSignal(kind="sampled", symbols=4)


def students(teacher, **fields):
    """All students of the teacher: two shapes of two seeds, if the fields say nothing else."""
    return tuple(cell for cell in toy.sweep(**fields).students if cell.teacher.name == teacher.cell.name)


def run(cells, corpus, teacher, folder, execution=toy.EXECUTION):
    group = Group(cells=tuple(cells))
    taught = (teacher.params, teacher.model)
    return run_group(group, corpus=corpus, execution=execution, teacher=taught, signals=folder)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(
        caches, "SHARD_TOKENS", 50 * toy.LENGTH
    )  # 192 sequences of 12 steps: four shards, one not whole


@pytest.fixture(scope="module")
def live(corpus, teacher):
    """Two students of the live teacher."""
    return run(students(teacher, students=[toy.model(8)]), corpus, teacher, None)


@pytest.mark.parametrize(
    "execution",
    [
        toy.EXECUTION,
        pytest.param(dataclasses.replace(toy.EXECUTION, core_blocked=False), marks=pytest.mark.slow),
        dataclasses.replace(toy.EXECUTION, accumulate=4),  # filled a microbatch at a time
    ],
)
def test_a_cache_of_every_symbol_gives_the_numbers_of_the_live_teacher(
    corpus, teacher, live, tmp_path, small_shards, execution
):
    found = run(students(teacher, students=[toy.model(8)], signal=ALL), corpus, teacher, tmp_path, execution)
    for ours, theirs in zip(found, live, strict=True):
        for name in ("loss_student_ce_nats", "kl_teacher_student_nats", "training_loss_nats"):
            assert ours.metrics[name] == pytest.approx(theirs.metrics[name], rel=2e-3), name
        assert ours.metrics["loss_teacher_ce_nats"] == pytest.approx(theirs.metrics["loss_teacher_ce_nats"], rel=1e-6)
        assert ours.metrics["teacher_cache_kept_mass"] == pytest.approx(1, abs=1e-5)
        assert ours.metrics["teacher_cache_gradient_agreement"] == pytest.approx(1, abs=1e-4)
        assert abs(ours.metrics["teacher_cache_kl_error_nats"]) < 1e-3
        assert "teacher_cache_kept_mass" not in theirs.metrics


def test_one_cache_serves_every_student_seed_objective_and_batch_size(corpus, teacher, tmp_path):
    objectives = [ObjectiveSpec(), ObjectiveSpec(soft_weight=0.5, temperature=2.0)]
    cells = students(teacher, signal=FEW, objective=objectives)
    assert len({Group(cells=(cell,)).stream["teacher"] for cell in cells}) == 1
    apart = (cells[0], cells[-1])  # of two shapes, seeds and objectives
    assert all(len({read(cell) for cell in apart}) == 2 for read in (lambda c: c.model, lambda c: c.seed))
    outcomes = run(apart, corpus, teacher, tmp_path)
    (folder,) = tmp_path.iterdir()
    written = {path: path.stat().st_mtime_ns for path in (folder / "shards").iterdir()}
    mass = {o.cell.objective.temperature: o.metrics["teacher_cache_kept_mass"] for o in outcomes}
    assert 0 < mass[2.0] < mass[1.0] < 1  # heat moves mass into the tail
    assert all(o.metrics["teacher_cache_kl_error_nats"] < 0 for o in outcomes)  # a bucket hides differences
    halved = dataclasses.replace(cells[0].train, batch_sequences=8)
    run([dataclasses.replace(cells[0], train=halved)], corpus, teacher, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (folder / "shards").iterdir()} == written


def test_filling_goes_on_at_the_first_missing_shard_and_makes_the_same(corpus, teacher, tmp_path, small_shards):
    cells = students(teacher, signal=DRAWS, objective=ObjectiveSpec())[:1]
    first = run(cells, corpus, teacher, tmp_path)[0].metrics
    (folder,) = tmp_path.iterdir()
    shards = sorted((folder / "shards").iterdir())
    assert [path.name for path in shards] == ["000000.npz", "000001.npz", "000002.npz", "000003.npz"]
    before = [path.read_bytes() for path in shards]
    shards[1].unlink()
    shards[2].write_bytes(before[2][:-100])
    (folder / "shards" / ".000003.npz.cafe").write_bytes(b"half")  # what a killed writer leaves
    cache = SignalCache(tmp_path, Group(cells=cells), corpus)
    names = ("ids_NxT", "negative_entropy_N")
    assert cache.missing(192, names) == [range(50, 100), range(100, 150)]
    assert cache.missing(50, names) == [] and cache.missing(201, names)[-1] == range(200, 201)
    again = run(cells, corpus, teacher, tmp_path)[0].metrics
    for path, old in zip(shards, before, strict=True):
        with np.load(path) as ours:
            assert ours["tokens_crc"].size
            path_before = tmp_path / "before.npz"
            path_before.write_bytes(old)
            with np.load(path_before) as theirs:
                assert all(np.array_equal(ours[name], theirs[name]) for name in theirs.files)
    assert again["loss_student_ce_nats"] == first["loss_student_ce_nats"]


def test_a_sweep_of_other_temperatures_fills_the_cache_again_and_keeps_the_old_ones(
    corpus, teacher, tmp_path, small_shards, capfd
):
    def at(*heats, fraction=1.0):
        objectives = [ObjectiveSpec(soft_weight=0.5, temperature=heat) for heat in heats]
        cells = students(teacher, signal=FEW, objective=objectives, seeds=(0,), students=[toy.model(8)])
        shorter = [replace_tokens(cell, round(fraction * cell.train.tokens)) for cell in cells]
        return run(shorter, corpus, teacher, tmp_path)

    def kept():
        (folder,) = tmp_path.iterdir()
        shards = [np.load(path) for path in sorted((folder / "shards").iterdir())]
        return [len(shard["tokens_crc"]) for shard in shards], [
            sorted(name for name in shard.files if "tail" in name) for shard in shards
        ]

    (first,) = at(3.0)
    assert kept() == ([50, 50, 50, 42], [["log_tails_N-3.0"]] * 4)
    assert "filled again" not in capfd.readouterr().err
    at(0.5, fraction=0.5)  # half the sequences: the third shard stays as long as it was, the fourth is not needed
    assert kept() == ([50, 50, 50, 42], [["log_tails_N-0.5", "log_tails_N-3.0"]] * 2 + [["log_tails_N-3.0"]] * 2)
    err = capfd.readouterr().err
    assert (
        err.count("keeps the tail's mass at temperatures 3; filled again for 0.5, 3") == 1 and err.count("filled") == 1
    )
    (again,) = at(3.0)
    assert again.metrics["loss_student_ce_nats"] == first.metrics["loss_student_ce_nats"]
    assert again.metrics["teacher_cache_kl_error_nats"] == first.metrics["teacher_cache_kl_error_nats"]


def replace_tokens(cell, tokens):
    return dataclasses.replace(cell, train=dataclasses.replace(cell.train, tokens=tokens))


def test_what_does_not_match_is_refused_in_one_line(corpus, teacher, tmp_path):
    cells = students(teacher, signal=FEW)[:1]
    group = Group(cells=cells)
    run(cells, corpus, teacher, tmp_path)
    cache = SignalCache(tmp_path, group, corpus)
    batches = corpus.batch("train", 16, 0, range(2))
    names = ("ids_NxT",)
    assert cache.read(0, batches.reshape(-1, toy.LENGTH + 1), names)["ids_NxT"].shape == (32, toy.LENGTH, 3)
    with pytest.raises(SignalError, match="of other tokens from sequence 16 on; delete"):
        cache.read(16, batches[0], names)
    with pytest.raises(SignalError, match=r"lacks log_tails_N-5.0, as another sweep filled it; run again to add it"):
        cache.read(0, batches[0], ("log_tails_N-5.0",))
    other = toy.MarkovCorpus()
    other.tokenizer_hash = "another"
    with pytest.raises(SignalError, match=r"another tokenizer \('markov', not 'another'\); delete"):
        SignalCache(tmp_path, group, other)
    whole = cache.shard(0).read_bytes()
    cache.shard(0).write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    with pytest.raises(SignalError, match=r"000000.npz: not a readable part .* run again"):
        SignalCache(tmp_path, group, corpus).read(0, batches[0], names)
    assert cache.missing(32, names) == [range(32)]


def test_another_teacher_order_or_signal_is_another_cache(teacher):
    cell = students(teacher, signal=FEW)[0]
    train = cell.train
    others = [
        dataclasses.replace(cell, signal=DRAWS),
        dataclasses.replace(cell, train=dataclasses.replace(train, batch_seed=1)),
        dataclasses.replace(cell, teacher=dataclasses.replace(cell.teacher, seed=1)),
    ]
    same = [
        dataclasses.replace(cell, seed=3),
        dataclasses.replace(cell, objective=ObjectiveSpec(temperature=3.0)),
        dataclasses.replace(cell, train=dataclasses.replace(train, learning_rate=1.0, tokens=2 * train.tokens)),
    ]
    base = Group(cells=(cell,)).stream
    assert all(Group(cells=(other,)).stream != base for other in others)
    assert all(Group(cells=(other,)).stream == base for other in same)


@pytest.mark.slow
@pytest.mark.parametrize("signal", [FEW, DRAWS], ids=lambda signal: signal.kind)
def test_a_mesh_fills_and_reads_the_same_cache(corpus, teacher, tmp_path, signal):
    if len(jax.devices()) < 8:
        pytest.skip("needs 8 virtual devices")
    cells = students(teacher, signal=signal, objective=ObjectiveSpec(), students=[toy.model(8)])
    single = dataclasses.replace(toy.EXECUTION, core_blocked=False)
    spread = dataclasses.replace(toy.EXECUTION, mesh=MeshSpec(data=2, tensor=2, student=2))
    expected = run(cells, corpus, teacher, tmp_path / "one", single)
    found = run(cells, corpus, teacher, tmp_path / "mesh", spread)
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.metrics.items():
            if name.endswith(("_nats", "mass", "agreement")):
                np.testing.assert_allclose(ours.metrics[name], value, rtol=2e-3, atol=1e-4, err_msg=name)
