"""Targets are read, meshes checked, the largest term bounds, what does not fit comes with a change that does."""

import json
from dataclasses import replace

import pytest

from gaplaw.errors import SpecError, SweepError
from gaplaw.files import read_json
from gaplaw.spec import MeshSpec
from gaplaw.spec.sizes import count_params
from gaplaw.sweep import plan
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.forecast.changes_that_fit import change_that_fits, ladder, resident_bytes
from gaplaw.sweep.forecast.compiler import Compiler
from gaplaw.sweep.forecast.forecast import forecast
from gaplaw.sweep.forecast.roofline import moved_bytes_per_step, recomputed_flops, roofline
from gaplaw.sweep.forecast.targets import CHIPS, check_mesh, default_mesh, target
from gaplaw.sweep.planning.estimate import Machine
from gaplaw.sweep.planning.make_plan import FORECAST
from gaplaw.sweep.rehearse.shrink import program_key
from tests.sweep.sweeps import QUICK


@pytest.fixture(autouse=True)
def fixed_rates(monkeypatch):
    machine = Machine(matrix_flops_per_second={16: 1e9}, elements_per_second=1e9, memory_bytes_per_second=1e10)
    for place in ("planning.estimate", "forecast.targets"):
        monkeypatch.setattr(f"gaplaw.sweep.{place}.measure_machine", lambda single_thread: machine)


@pytest.fixture
def taught(sweep):
    return next(group for group in sweep.groups() if group.teacher)


@pytest.mark.parametrize(
    ("name", "chips"),
    [("cpu", 1), ("v5e:4x4", 16), ("v5p:4x4x8", 128), ("v6e:16x16", 256), ("gpu:h100x8", 8), ("gpu:h200x1", 1)],
)
def test_a_target_is_read_and_names_itself(name, chips):
    assert (target(name).chips, target(name).name) == (chips, name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v9:4x4", "must be one of cpu"),
        ("v5p:4x4", "4x4x8"),
        ("gpu:h100x3", "1, 2, 4, 8"),
        ("gpu:v5e:4x4", "must be one of"),
        ("", "cpu"),
    ],
)
def test_an_unknown_target_lists_what_there_is(name, said):
    with pytest.raises(SpecError, match="--target") as refusal:
        target(name)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_every_chip_says_where_its_numbers_stand_and_shapes_grow():
    for chip in CHIPS:
        assert chip.source and chip.memory_bytes > 1e10 and chip.flops_per_second >= chip.float32_flops_per_second
    assert target("v5p:4x4x8").bigger.name == "v5p:4x8x8" and target("gpu:h100x8").bigger is None


def test_impossible_meshes_are_told_in_one_line(taught):
    here, rows = target("v5e:2x2"), taught.cells[0].train.batch_sequences
    with pytest.raises(SpecError, match="product of the axes, 8, must be the 4 chips"):
        check_mesh(here, MeshSpec(fsdp=8), taught)
    with pytest.raises(SpecError, match="ModelSpec.heads = .* must be a multiple of Execution.mesh.tensor = 4"):
        check_mesh(here, MeshSpec(tensor=4), taught)
    odd = replace(taught.cells[0], train=replace(taught.cells[0].train, batch_sequences=rows - 1))
    with pytest.raises(
        SpecError, match=f"batch_sequences = {rows - 1}: must be a multiple of data × fsdp × accumulate = 4"
    ):
        check_mesh(here, MeshSpec(data=2, fsdp=2), replace(taught, cells=(odd,)))
    assert default_mesh(here, taught.cells) == MeshSpec(fsdp=4)


def test_the_largest_term_bounds_the_time(taught):
    chip = target("v5e:2x2").chip
    answer = {"bytes_per_chip": 1e6, "sent_bytes_per_step": 1.0, "compiler": "none"}
    execution = replace(QUICK, mesh=MeshSpec(fsdp=4))

    def bound(given=answer, **rates):
        fast = dict.fromkeys(("float32_flops_per_second", "memory_bytes_per_second", "link_bytes_per_second"), 1e30)
        return roofline(taught, execution, replace(target("v5e:2x2"), chip=replace(chip, **fast | rates)), given)

    slow = bound(float32_flops_per_second=1e6)
    assert slow.limit == "compute"
    assert slow.roofline_seconds == pytest.approx(slow.flops / 4e6)
    assert bound(memory_bytes_per_second=1e6).limit == "memory bandwidth"
    steps = taught.cells[0].steps
    sent = bound(answer | {"sent_bytes_per_step": 5e6}, link_bytes_per_second=1e6)
    assert sent.limit == "interconnect" and sent.roofline_seconds == pytest.approx(5 * steps)
    assert bound({"out_of_memory_bytes": 1e13}).fits is False and bound({"error": "no"}).fits is None


def test_rematerialisation_and_microbatches_cost_what_they_repeat(taught):
    full, dots = (recomputed_flops(taught, replace(QUICK, remat=kind)) for kind in ("full", "dots"))
    assert full > dots > recomputed_flops(taught, QUICK) == 0
    assert recomputed_flops(taught, replace(QUICK, remat="dots", attention="cudnn")) == 0
    assert moved_bytes_per_step(taught, replace(QUICK, attention="cudnn")) < moved_bytes_per_step(taught, QUICK)
    assert moved_bytes_per_step(taught, replace(QUICK, accumulate=2)) > moved_bytes_per_step(taught, QUICK)


class FixedAnswers:
    """A compiler for which an execution fits once its activations (bytes) are cut to what the chip leaves free."""

    def __init__(self, where, activations):
        self.target, self.activations, self.asked = where, activations, []

    def ask(self, group, execution):
        self.asked.append(execution)
        cut = execution.accumulate * {"none": 1, "dots": 2, "full": 4}[execution.remat]
        return {"bytes_per_chip": resident_bytes(group, execution) + self.activations / cut}


def test_the_smallest_change_that_fits_is_found_by_climbing(taught):
    where = target("v5e:2x2")
    execution = replace(QUICK, mesh=MeshSpec(fsdp=4))
    free = where.chip.memory_bytes
    for activations, words in ((1.5 * free, "--remat dots"), (3.5 * free, "--remat full")):
        assert change_that_fits(FixedAnswers(where, activations), taught, execution, print) == words
    for words, there, changed in ladder(where, taught, execution):
        assert (there, changed) != (where, execution) and words
    tiny = replace(where, chip=replace(where.chip, memory_bytes=10.0))
    nothing = FixedAnswers(tiny, 0)
    assert (
        change_that_fits(nothing, taught, execution, print) is None and not nothing.asked
    )  # parameters alone are too many


def test_residents_are_parameters_and_moments_over_the_chips(taught):
    students = 12 * sum(count_params(cell.model).unique for cell in taught.cells)
    teacher = count_params(taught.teacher.model).unique
    assert resident_bytes(taught, QUICK) == students + 4 * teacher
    spread = replace(QUICK, mesh=MeshSpec(fsdp=2, tensor=2), teacher_dtype="bfloat16")
    assert resident_bytes(taught, spread) == (students + 2 * teacher) / 4


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr(
        "gaplaw.sweep.forecast.compiler.find_spec", lambda name: name if name in ("jax", "jax_cuda12_plugin") else None
    )
    assert Compiler(target("gpu:h100x1")).platform == "gpu"
    monkeypatch.setattr("gaplaw.sweep.forecast.compiler.find_spec", lambda name: name if name == "jax" else None)
    assert Compiler(target("gpu:h100x1")).platform == "cpu"  # stands in
    with pytest.raises(SweepError, match=r"needs libtpu; install with: pip install -e '.*\[tpu\]'"):
        Compiler(target("v5e:2x2"))


def test_a_sweep_is_compiled_once_for_a_mesh_and_remembered(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("GAPLAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("gaplaw.sweep.forecast.compiler.GPU_PLUGINS", ())  # as where none is installed
    small = replace(sweep, teachers=sweep.teachers[:1], baselines=(), students=sweep.students[:1])
    small = replace(small, students=tuple(replace(cell, teacher=small.teachers[0]) for cell in small.students))
    where, told = target("gpu:h100x2"), []
    made = forecast(plan(small, QUICK), small, QUICK, where, 3.0, lambda *now: told.append(now))
    rows = made.to_rows()
    assert [row["cell_id"] for row in rows] == [cell.id for cell in small.cells]
    for row in rows:
        assert row["fits"] and row["error"] is None and 0 < row["bytes_per_chip"] < row["memory_bytes_per_chip"]
        assert row["flops"] > 0 and row["program_flops"] > 0 and row["sent_bytes_per_chip_and_step"] > 0
        assert row["device_hours"] == pytest.approx(2 * row["roofline_seconds"] / 3600)
        assert row["price"] == pytest.approx(3 * row["device_hours"]) and row["mesh"]["fsdp"] == 2
    assert told[-1][0] == told[-1][1] == len({program_key(group) for group in small.groups()})
    with Compiler(where) as compiler:
        assert all(
            compiler.known(group, replace(QUICK, mesh=made.mesh, core_blocked=False)) for group in small.groups()
        )
    monkeypatch.setattr("gaplaw.sweep.forecast.compiler.subprocess.Popen", None)  # whoever asks again would fail
    assert forecast(plan(small, QUICK), small, QUICK, where).programs == made.programs
    folder = RunFolder(tmp_path / "runs" / "tiny")
    made.write(folder)
    assert read_json(folder.out / FORECAST)["cells"] == json.loads(json.dumps(rows))
    assert "stands in" in made.totals()[-1] and made.platform == "cpu" and all(cell.id for cell in small.cells)
