"""What `run` refuses, `plan` refuses with the same line, before anything is written; what is finished is not asked
again.
"""

import json
import re
from dataclasses import replace

import pytest

from gaplaw import cli, data, results
from gaplaw.errors import SpecError
from gaplaw.spec import Execution
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning.checks import check_sweep, devices_of
from tests.sweep.sweeps import QUICK, texts, tiny_sweep

EXPERIMENT = """
from dataclasses import replace
from gaplaw import DataSpec, ModelSpec, ObjectiveSpec, Sweep, TrainSpec
from gaplaw.spec.execution import Execution, HostsSpec, MeshSpec
from gaplaw.spec.teacher_signal import TeacherSignal

def shape(width, **fields):
    given = dict(vocab_size=256, width=width, depth=1, heads=2, head_size=4, hidden=2 * width, max_length=8192)
    return ModelSpec(**given | fields)

def train(rows=8, length=16, **fields):
    return TrainSpec(tokens=length * rows * 12, batch_sequences=rows, **fields)

def grid(recipe=train(), data={{}}, fields={{}}, **more):
    spec = DataSpec(**dict(source={source!r}, sequence_tokens=16, validation_tokens=512) | data)
    given = dict(name="bad", question="?", data=spec, teachers=[shape(8, **fields)], students=[shape(4, **fields)],
                 teacher_train=recipe, student_train=recipe, seeds=(0,), baseline=False)
    return Sweep.grid(**given | more)

execution = Execution(workers=1, evaluations=1)
"""
BAD = {
    "less than a batch": ("sweep = grid(train(9000))", "the train split holds .* fewer than one batch of 9000"),
    "less than a teacher's batch": (
        "sweep = grid(train(20), {{'source': {small!r}, 'teacher_fraction': 0.2}})",
        "the teacher split holds .* fewer than one batch of 20 ",
    ),
    "no validation window": (
        "sweep = grid(train(1, 128), {{'source': {small!r}, 'sequence_tokens': 128}})",
        "not one window of 129 in any domain",
    ),
    "too few documents": ("sweep = grid(data={{'source': {one!r}}})", "1 documents are too few to split"),
    "no text for training": (
        "sweep = grid(data={'teacher_fraction': 0.5, 'validation_fraction': 0.5})",
        "must leave documents for training",
    ),
    "no such folder": ("sweep = grid(data={'source': 'folder:/no/such'})", "there is no such folder"),
    "vocabulary": ("sweep = grid(data={'tokenizer': 'bpe:300'})", "ModelSpec.vocab_size = 256: must be at least 300"),
    "devices": (
        "sweep = grid()\nexecution = Execution(workers=1, mesh=MeshSpec(fsdp=8, student=8))",
        "the product of the axes, 64, must not exceed the 8 devices here",
    ),
    "batch over a mesh": (
        "sweep = grid()\nexecution = Execution(workers=1, mesh=MeshSpec(data=3))",
        "TrainSpec.batch_sequences = 8: must be a multiple of data × fsdp = 3",
    ),
    "microbatches": (
        "sweep = grid()\nexecution = Execution(workers=1, accumulate=3)",
        "must be a multiple of data × fsdp × accumulate = 3",
    ),
    "devices of several processes": (
        "sweep = grid()\nexecution = Execution(mesh=MeshSpec(data=2), hosts=HostsSpec(processes=2, local_devices=2))",
        "Execution.mesh.devices = 2: the product of the axes must be the 4 devices of the 2 processes",
    ),
    "cuDNN here": (
        "sweep = grid(fields={'head_size': 8})\nexecution = Execution(attention='cudnn', compute_dtype='bfloat16')",
        "Execution.attention = 'cudnn': needs an NVIDIA GPU, not a cpu",
    ),
    "cuDNN in float32": (
        "sweep = grid()\nexecution = Execution(attention='cudnn')",
        "compute_dtype = 'float32': must be bfloat16",
    ),
    "cuDNN's heads": (
        "sweep = grid()\nexecution = Execution(attention='cudnn', compute_dtype='bfloat16')",
        "ModelSpec.head_size = 4: must be a multiple of 8",
    ),
    "symbols": ("sweep = grid(signal=TeacherSignal(kind='topk', symbols=257))", "symbols = 257: must not exceed"),
    "name": ("sweep = grid(name='a/b')", "Sweep.name = 'a/b': must be a plain file name"),
    "seed": ("sweep = grid(seeds=(2**32,))", "Cell.seed = 4294967296: must be from 0"),
}


@pytest.fixture
def line(tmp_path, capsys, monkeypatch):
    """A verb's one line of refusal for an experiment."""
    monkeypatch.chdir(tmp_path)

    def refused(verb, path, *words):
        assert cli.main([verb, str(path), *map(str, words)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and "Traceback" not in said.err
        *before, last = said.err.strip().split("\n")
        assert last.startswith("gaplaw: error: ") and all(" corpus: " in told for told in before), said.err
        return last

    return refused


@pytest.mark.parametrize("name", BAD)
def test_plan_refuses_what_run_refuses_with_the_same_line(name, line, source, tmp_path, monkeypatch):
    code, words = BAD[name]
    if name != "devices":  # whose real devices are asked for, by a process that takes seconds
        monkeypatch.setattr("gaplaw.sweep.planning.checks.devices_here", lambda execution, folder: ("cpu", 8))
    for place, documents in (("one", 1), ("small", 12)):
        (tmp_path / place).mkdir()
        for number in range(documents):
            (tmp_path / place / f"{number}.txt").write_text(f"{number:04} " + "word " * 19)
    if "{{" in code:
        code = code.format(one=f"folder:{tmp_path / 'one'}", small=f"folder:{tmp_path / 'small'}")
    path = tmp_path / "bad.py"
    path.write_text(EXPERIMENT.format(source=source) + code)
    said = [line(verb, path) for verb in ("plan", "run")]
    assert said[0] == said[1]
    assert re.search(words, said[0]), said[0]
    assert not [path for path in tmp_path.rglob("runs/**/*") if path.is_file()]


def test_plan_refuses_a_folder_of_other_science_as_run_does(line, source, tmp_path):
    path, out = tmp_path / "bad.py", tmp_path / "runs" / "bad"
    path.write_text(EXPERIMENT.format(source=source) + "sweep = grid()")
    folder = RunFolder(out)
    folder.make()
    other = tiny_sweep(source, name="other")
    folder.adopt(other)
    said = [line(verb, path, "--out", out) for verb in ("plan", "run")]
    assert said[0] == said[1] and "holds the sweep 'other', not 'bad'" in said[0]
    (out / "sweep.json").write_text("{")
    said = [line(verb, path, "--out", out) for verb in ("plan", "run")]
    assert said[0] == said[1] and "not a readable sweep" in said[0]


def test_what_is_finished_is_not_held_against_its_text_and_a_corpus_is_opened_once(sweep, tmp_path):
    opened = []

    def corpus_of(spec):
        opened.append(spec)
        return data.load(spec)

    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    check_sweep(sweep, QUICK, folder, corpus_of=corpus_of, on_this_machine=True)
    assert opened == [sweep.cells[0].data]
    for cell in sweep.cells:
        row = results.describe_cell(cell, sweep.role(cell)) | {"status": "done"}
        results.write_cell(folder.out, row, [{"tokens": 1}], QUICK)
    found = check_sweep(sweep, replace(QUICK, accumulate=3), folder, corpus_of=corpus_of, on_this_machine=True)
    assert not found and len(opened) == 1


def test_another_machine_is_not_asked_for_its_devices(sweep, tmp_path):
    wide = Execution(mesh=replace(Execution().mesh, data=8, student=8))
    folder = RunFolder(tmp_path / "runs" / "tiny")
    check_sweep(sweep, wide, folder, corpus_of=lambda spec: None, on_this_machine=False)
    everywhere = replace(Execution().hosts, processes=8, launch="everywhere")
    assert devices_of(Execution(workers=1, mesh=wide.mesh, hosts=everywhere), folder) is None
    with pytest.raises(SpecError, match="must not exceed"):
        wide.check_devices("cpu", 2)


def test_a_large_source_is_not_prepared_for_a_plan(tmp_path, monkeypatch, capsys):
    path = tmp_path / "bad.py"
    texts(tmp_path / "fresh")
    code = EXPERIMENT.format(source=f"folder:{tmp_path / 'fresh'}") + "sweep = grid(train(9000), {'split_seed': 7})"
    path.write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "PREPARED_AT_ONCE_BYTES", 10)
    assert cli.main(["plan", str(path)]) == 0
    assert "tokens not counted yet" in capsys.readouterr().out
    assert cli.main(["plan", str(path), "--json"]) == 0
    assert {row["training_epochs"] for row in json.loads(capsys.readouterr().out)} == {None}
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", str(path)]) == 2  # small enough: prepared, counted, refused
