"""A rehearsal tells which programs would run on the real mesh, and one that would not does not hide behind the others."""

import json

import pytest

from gaplaw.cli import main

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


def test_a_rehearsal_with_fewer_devices_than_processes_is_refused(rehearse):
    code, said, shown = rehearse("1e-3", "--processes", "4", "--devices", "2")
    assert (code, said) == (2, "") and "--devices 2: must be at least --processes 4" in shown
