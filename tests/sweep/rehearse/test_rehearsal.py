"""A rehearsal tells which programs would run on the real mesh, and one that would not does not hide behind the
others.
"""

import dataclasses
import json
import logging

import pytest

from gaplaw import data
from gaplaw.cli import main
from gaplaw.errors import SweepError
from gaplaw.sweep.rehearse import rehearsal
from gaplaw.sweep.rehearse.rehearsal import RehearsalScreen, Rehearsed
from gaplaw.sweep.running.status import Summary
from tests.sweep.sweeps import texts, tiny_sweep

EXPERIMENT = """
from gaplaw import DataSpec, ModelSpec, Sweep, TrainSpec

def shape(width):
    return ModelSpec(vocab_size=256, width=width, depth=1, heads=2, head_size=width, hidden=2 * width, max_length=16)

recipe = TrainSpec(tokens=16 * 64 * 100, batch_sequences=64)
sweep = Sweep.grid(
    name="far", question="Does it run?", data=DataSpec(source="tfds:far/away", sequence_tokens=16), teachers=[shape(8)],
    students=[shape(4)], teacher_train=recipe,
    student_train=TrainSpec(tokens=16 * 64 * 100, batch_sequences=64, learning_rate=LEARNING_RATE, weight_decay=1e30),
    baseline=False,
)
"""


@pytest.fixture
def rehearse(tmp_path, capfd):
    def call(learning_rate, *options):
        path = tmp_path / "far.py"
        path.write_text(EXPERIMENT.replace("LEARNING_RATE", learning_rate))
        code = main(["rehearse", str(path), *options])
        return code, *capfd.readouterr()

    return call


@pytest.mark.slow
def test_two_processes_of_two_devices_rehearse_a_mesh_of_256(rehearse):
    code, said, shown = rehearse(
        "1e-3", "--processes", "2", "--devices", "4", "--mesh.data", "64", "--mesh.fsdp", "4", "--json"
    )
    assert code == 0, shown
    assert "2 distinct programs in 2 groups; mesh data 64 → 2, fsdp 4 → 2" in shown
    assert "killed on purpose once" in shown and "killed, as meant" in shown and "SIGKILL" not in shown
    assert "the data are not on this machine, so that the embedded corpus stands in" in shown and "far/away" in shown
    for program in json.loads(said):
        assert (program["processes"], program["devices"], program["resumed_at_step"]) == (2, 4, 1)
        assert program["passed"] and program["error"] is None and program["largest_difference"] < 1e-4


@pytest.mark.slow
def test_a_program_that_fails_is_named_with_its_reason_and_the_exit_code_is_1(rehearse):
    code, said, shown = rehearse("1e30")
    assert code == 1, said
    good, bad, total = said.splitlines()
    assert good.startswith("ok     t") and "resumed at step 1 to the same bits, rows written" in good
    assert bad.startswith("FAILED from-t") and "loss became" in bad
    assert total == "1 of 2 programs rehearsed without fault"
    assert "logs of what failed are left in" in shown


def test_a_rehearsal_with_fewer_devices_than_processes_is_refused(rehearse):
    code, said, shown = rehearse("1e-3", "--processes", "4", "--devices", "2")
    assert (code, said) == (2, "") and "--devices 2: must be at least --processes 4" in shown


@pytest.fixture
def seen(monkeypatch):
    """What would be run, instead of running it."""
    found = []

    def run(sweep, out, execution, screen, executor):
        found.append(sweep)
        return Summary(sweep="", out="", cells=0, done=0, failed=0, done_before=0, seconds=0.0, failures={})

    monkeypatch.setattr(rehearsal, "run", run)
    return found


def small(source, tokenizer, vocab, **more):
    sweep = tiny_sweep(source, teachers=(8,), seeds=(0,), **more)

    def with_data(cell):
        model = dataclasses.replace(cell.model, vocab_size=vocab)
        teacher = with_data(cell.teacher) if cell.teacher else None
        return dataclasses.replace(
            cell, model=model, data=dataclasses.replace(cell.data, tokenizer=tokenizer), teacher=teacher
        )

    parts = {part: tuple(map(with_data, getattr(sweep, part))) for part in ("teachers", "baselines", "students")}
    return dataclasses.replace(sweep, **parts)


def try_out(sweep):
    told = []
    rehearsal.rehearse(sweep, rehearsal.Execution(), processes=1, devices=1, tell=told.append)
    return told


def test_the_data_and_the_tokenizer_are_the_experiments_own(seen, tmp_path):
    source = f"folder:{texts(tmp_path / 'texts')}"
    told = try_out(small(source, "bpe:300", 320))
    (sweep,) = seen
    assert {data.load(cell.data).vocab_size for cell in sweep.cells} == {300}
    assert all(cell.data.source.startswith("folder:") and cell.data.manifest for cell in sweep.cells)
    assert {cell.model.vocab_size for cell in sweep.cells} == {320} and not any("stands in" in line for line in told)
    content = json.loads(
        (data.pack.packed_folder(sweep.cells[0].data, data.cache_folder()) / "tokenizer.json").read_text()
    )
    assert any("teacher" in symbol for symbol in content["model"]["vocab"])  # a word of these texts
    (tmp_path / "own.json").write_text(json.dumps(content))
    try_out(small(source, f"file:{tmp_path}/own.json", 300))
    assert {cell.data.tokenizer for cell in seen[1].cells} == {f"file:{tmp_path}/own.json"}


def test_a_vocabulary_that_a_run_would_refuse_is_refused_here(seen, tmp_path):
    source = f"folder:{texts(tmp_path / 'texts')}"
    with pytest.raises(SweepError, match="vocab_size = 290: must be at least 300"):
        try_out(small(source, "bpe:300", 290))


def test_where_the_data_are_absent_the_embedded_corpus_stands_in_and_the_reason_is_said(seen):
    logging.getLogger("absl").setLevel(logging.ERROR)
    told = try_out(small("folder:no/such/folder", "bpe:300", 64))
    assert "the embedded corpus stands in, as bytes" in told[0] and "no/such/folder" in told[0]
    (sweep,) = seen
    assert {(cell.data.source, cell.data.tokenizer, cell.model.vocab_size) for cell in sweep.cells} == {
        ("stdlib", "bytes", 256)
    }


def test_the_kill_that_is_meant_is_no_warning_and_every_other_one_is():
    told = []
    screen = RehearsalScreen(told.append, 2)
    kill = "worker killed by SIGKILL (9); see LOG"
    for line in (
        "corpus: stdlib, tokenizer bytes",
        "started: t1-abc, 1 cell",
        f"warning: t1-abc: {kill}; it goes on from its checkpoint",
        "started: t1-abc, 1 cell",
        "finished: t1-abc in 3 s",
        "started: from-t1-def, 4 cells",
        f"warning: from-t1-def: {kill}; it goes on from its checkpoint",
    ):
        screen.event(line)
    assert told == [
        "1 of 2: t1-abc",
        "1 of 2: t1-abc: killed, as meant; now from its checkpoint",
        "2 of 2: from-t1-def",
        "2 of 2: from-t1-def: killed, as meant; now from its checkpoint",
    ]
    others = [
        f"warning: t1-abc: {kill}; again",
        "warning: from-t1-def: worker ended with exit code 1",
        "failed: s1-x: no",
    ]
    for line in others:
        screen.event(line)
    assert told[4:] == others


def test_a_line_names_what_a_program_stands_for():
    one = Rehearsed(
        program="t",
        stands_for=("t9", "t8", "t7", "t6", "t5"),
        passed=True,
        error=None,
        cells=4,
        cells_before=9,
        processes=1,
        devices=1,
        params=5_000,
        params_before=5_000,
        compile_seconds=1.0,
        resumed_at_step=1,
        largest_difference=0.0,
    )
    assert (
        "t9 (also for t8, t7, t6 and 1 more, which differ in numbers only): 4 of 9 cells, 5k parameters" in one.line()
    )
