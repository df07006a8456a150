"""A program compiled ahead of time has the closed forms' FLOPs, and is spread over chips that need not be here."""

import dataclasses
import re
from importlib.util import find_spec

import jax
import pytest

from gaplaw.canonical import to_dict
from gaplaw.spec import Group, MeshSpec, TrainSpec
from gaplaw.sweep.forecast.compile_worker import Ahead, answer, devices_of, measure
from gaplaw.sweep.forecast.compiler import GPU_PLUGINS
from gaplaw.sweep.forecast.roofline import recomputed_flops
from gaplaw.sweep.forecast.targets import target
from gaplaw.sweep.planning.estimate import training_flops
from tests import toy

PLAIN = dataclasses.replace(toy.EXECUTION, core_blocked=False, chunk_tokens=1024)


def group(width=64, seeds=(0,), **fields):
    """A student of so many seeds and its teacher, wide enough that products outweigh everything else."""
    shape = dict(heads=4, head_size=16, vocab_size=256, depth=2) | fields
    recipe = TrainSpec(tokens=20 * 16 * toy.LENGTH, batch_sequences=16)
    students, teachers = [toy.model(width, **shape)], [toy.model(2 * width, **shape)]
    sweep = toy.sweep(teachers=teachers, students=students, student_train=recipe, teacher_train=recipe, seeds=seeds)
    return Group(cells=sweep.students)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_flops_in_closed_form_are_those_that_xla_counts_in_a_program_without_loops(remat):
    execution = dataclasses.replace(PLAIN, remat=remat)
    counted = Ahead(group(), execution, jax.devices()[:1]).training().compile().cost_analysis()["flops"]
    steps = group().cells[0].steps
    closed = (training_flops(group()) + recomputed_flops(group(), execution)) / steps
    assert counted == pytest.approx(closed, rel=0.15)  # XLA counts norms, softmaxes and the optimizer, too


def test_more_chips_hold_less_each_and_send_more():
    answers = [
        measure(
            Ahead(group(), dataclasses.replace(PLAIN, mesh=MeshSpec(fsdp=n)), jax.devices()[:n]).training().compile()
        )
        for n in (1, 4)
    ]
    assert answers[0]["sent_bytes_per_step"] == 0 < answers[1]["sent_bytes_per_step"]
    assert answers[1]["bytes_per_chip"] < answers[0]["bytes_per_chip"]


def task(**fields):
    given = dict(platform="cpu", package=None, target="gpu:h100x1", chips=1, execution=to_dict(PLAIN))
    return given | {"cells": [to_dict(cell) for cell in group().cells]} | fields


def test_what_cannot_be_compiled_is_an_error_in_one_line():
    mesh = to_dict(dataclasses.replace(PLAIN, mesh=MeshSpec(fsdp=3)))
    assert "must not exceed the 1 devices" in answer(task(execution=mesh))["error"]


def test_the_real_tpu_compiler_answers_without_a_tpu():
    pytest.importorskip("libtpu")  # not built for every platform
    one = Group(cells=toy.sweep(teachers=[toy.model(16)]).teachers)
    execution = to_dict(dataclasses.replace(PLAIN, mesh=MeshSpec(fsdp=4), compute_dtype="bfloat16"))
    cells = [to_dict(cell) for cell in one.cells]
    found = answer(task(cells=cells, platform="tpu", package="libtpu", target="v5e:2x2", chips=4, execution=execution))
    assert "libtpu" in found["compiler"] and 0 < found["bytes_per_chip"] < 2**30 and found["sent_bytes_per_step"] > 0


def test_the_real_gpu_compiler_answers_without_a_gpu():
    plugins = [name for name in GPU_PLUGINS if find_spec(name)]
    if not plugins:
        pytest.skip("JAX's CUDA plugin is not installed")
    here = target("gpu:h200x4")
    execution = dataclasses.replace(
        PLAIN, mesh=MeshSpec(fsdp=4), compute_dtype="bfloat16", attention="cudnn", remat="dots"
    )
    given = task(platform="gpu", package=plugins[0], target=here.name, chips=4, execution=to_dict(execution))
    given |= {name: getattr(here.chip, name) for name in ("memory_bytes", "memory_bytes_per_second")}
    found = answer(given)
    assert "error" not in found and "GPU" in found["compiler"] and plugins[0] in found["compiler"]
    assert 0 < found["bytes_per_chip"] < 2**30 and found["sent_bytes_per_step"] > 0
    two = group(seeds=(0, 1))
    text = Ahead(two, execution, devices_of(given)).training().compile().as_text()
    assert (
        text.count('custom_call_target="__cudnn$fmha') == 2 * 2 + 2
    )  # forwards of two models of two layers, one backward
    heads = rf"\[(\d+,)*{toy.LENGTH},\d+,16\]"
    assert re.search(heads, text) and not re.search(
        heads + ".* all-gather", text
    )  # stacked students' rows stay where they are


def test_memory_is_the_largest_of_trainings_evaluations_with_the_moments_kept_and_the_starts():
    wide = group(vocab_size=4096)
    programs = Ahead(wide, PLAIN, jax.devices()[:1])
    params = 4 * sum(leaf.size for leaf in jax.tree.leaves([state.params for state in programs.states]))
    assert programs.idle_bytes == pytest.approx(2 * params, rel=0.01)  # two moments of each, and counters
    found = answer(task(cells=[to_dict(cell) for cell in wide.cells]))
    training, evaluation, start = (
        measure(lowered.compile())["bytes_per_chip"]
        for lowered in (programs.training(), programs.evaluation(), programs.start(programs.stacks[0]))
    )
    assert found["evaluation_bytes_per_chip"] == evaluation + programs.idle_bytes
    assert found["start_bytes_per_chip"] == start > 3 * params
    assert found["bytes_per_chip"] == max(training, found["evaluation_bytes_per_chip"], start)


def test_a_phase_without_room_is_what_is_told(monkeypatch):
    answers = iter([{"bytes_per_chip": 5.0}, {"out_of_memory_bytes": 10.0}, {"bytes_per_chip": 3.0}])
    monkeypatch.setattr("gaplaw.sweep.forecast.compile_worker._compiled", lambda lowered: next(answers))
    monkeypatch.setattr("gaplaw.sweep.forecast.compile_worker._STARTS", {})
    found, idle = answer(task()), Ahead(group(), PLAIN, jax.devices()[:1]).idle_bytes
    assert found["evaluation_bytes_per_chip"] == found["bytes_per_chip"] == found["out_of_memory_bytes"] == 10 + idle
    assert found["start_bytes_per_chip"] == 3


@pytest.mark.parametrize("scan", [False, True])
def test_initial_parameters_of_several_chips_are_never_whole_on_one(scan):
    deep = group(width=128, depth=8, vocab_size=64)
    execution = dataclasses.replace(PLAIN, mesh=MeshSpec(fsdp=4), scan_layers=scan)
    programs = Ahead(deep, execution, jax.devices()[:4])
    stack, state = programs.stacks[0], programs.states[0]
    whole = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    layer = whole / deep.cells[0].model.depth
    extra = measure(programs.start(stack).compile())["temporary_bytes_per_chip"]
    assert extra < whole / 4 + 3 * layer  # its own part once more, and the draw of one layer
