"""Is a cell's identity its science, does it survive JSON, and are impossible specifications refused in one line?"""

import dataclasses
import json
from dataclasses import replace

import pytest

from gaplaw.canonical import from_dict, to_dict
from gaplaw.errors import SpecError
from gaplaw.spec import Cell, DataSpec, Execution, MeshSpec, ModelSpec, ObjectiveSpec, TeacherSignal, TrainSpec, science
from gaplaw.spec.sizes import model_for

TEACHER_MODEL = model_for("25k", vocab_size=256, max_length=64)
STUDENT_MODEL = model_for("6k", vocab_size=256, max_length=64)
SOFT = ObjectiveSpec(soft_weight=0.5, temperature=2.0)


def teacher(**fields):
    return Cell(**dict(name="t", model=TEACHER_MODEL, data=DataSpec(), train=TrainSpec(tokens=10**6)) | fields)


def student(**fields):
    base = dict(name="s", model=STUDENT_MODEL, data=DataSpec(), train=TrainSpec(tokens=10**6), objective=SOFT)
    return Cell(**base | dict(teacher=teacher()) | fields)


UNEVEN = ModelSpec(vocab_size=9, width=8, depth=2, heads=(4, 2), head_size=4, hidden=(12, 0), max_length=64, kv_group=2)


@pytest.mark.parametrize(
    "value",
    [
        UNEVEN,
        DataSpec(source="folder:/some/where", tokenizer="bpe:512", teacher_fraction=0.3),
        teacher(),
        student(seed=3),
        student(init="prune", target_params=6000),
        student(signal=TeacherSignal(kind="topk", symbols=16)),
        Execution(mesh=MeshSpec(data=2, tensor=2), compute_dtype="bfloat16"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_specs_survive_json(value):
    back = from_dict(type(value), json.loads(json.dumps(to_dict(value))))
    assert back == value and hash(back) == hash(value)


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(SpecError, match="DataSpec = .*'flavour'.*no such field"):
        from_dict(DataSpec, to_dict(DataSpec()) | {"flavour": 1})


# ---- identity ----


def test_the_name_is_not_science():
    assert student(name="a").fingerprint == student(name="b").fingerprint
    assert student(teacher=teacher(name="other")).fingerprint == student().fingerprint
    assert student(name="a").id == f"a-{student().fingerprint[:6]}"


def test_execution_is_not_science():
    """No field of Execution exists in a cell, so none can enter the fingerprint."""

    def names(kind):
        return {field.name for field in dataclasses.fields(kind)}

    science = set().union(*map(names, (Cell, ModelSpec, DataSpec, ObjectiveSpec, TrainSpec)))
    assert not science & names(Execution)


OTHER_SCIENCE = [
    dict(seed=1),
    dict(model=model_for("5k", vocab_size=256, max_length=64)),
    dict(model=replace(STUDENT_MODEL, tied=False)),
    dict(objective=replace(SOFT, temperature=1.0)),
    dict(objective=replace(SOFT, temperature_squared=False)),
    dict(train=TrainSpec(tokens=10**6, learning_rate=1e-3)),
    dict(train=TrainSpec(tokens=10**6, batch_seed=1)),
    dict(teacher=teacher(seed=1)),
    dict(teacher=teacher(train=TrainSpec(tokens=2 * 10**6))),
    dict(init="prune", target_params=6000),
    dict(signal=TeacherSignal(kind="topk", symbols=16)),
]


@pytest.mark.parametrize("change", OTHER_SCIENCE, ids=lambda change: ",".join(change))
def test_science_changes_the_fingerprint(change):
    assert student(**change).fingerprint != student().fingerprint


def test_fingerprints_are_pinned():
    """A pinned number on purpose: if it moves, every stored teacher and finished row becomes another science."""
    assert teacher().fingerprint == "9468270f4da6"
    assert student().fingerprint == "74b85cc1351f"


def test_a_recipe_without_warm_up_is_another_science_than_when_its_first_rate_was_0():
    abrupt = TrainSpec(tokens=10**6, warmup_fraction=0.0)
    assert science(teacher(train=abrupt))["train"]["warmup_steps"] == 0
    assert "warmup_steps" not in science(teacher())["train"]
    assert teacher(train=abrupt).fingerprint != "3376dc103782"  # what it was then
    taught = science(student(teacher=teacher(train=abrupt)))
    assert taught["teacher"]["train"]["warmup_steps"] == 0 and "warmup_steps" not in taught["train"]


def test_topk_cells_keep_their_identity_where_the_tail_was_kept_and_lose_it_where_it_was_interpolated():
    def at(temperature):
        return student(signal=TeacherSignal(kind="topk", symbols=16), objective=replace(SOFT, temperature=temperature))

    marks = {heat: science(at(heat))["signal"].get("tail_temperature") for heat in (0.5, 1.0, 2.0, 3.0, 4.0)}
    assert marks == {0.5: 0.5, 1.0: None, 2.0: None, 3.0: 3.0, 4.0: None}
    assert at(2.0).fingerprint == "569617386a29" and at(3.0).fingerprint != "16714afb2ef8"


def test_the_manifest_stands_for_the_path():
    """The same content in another folder is the same data; other content in the same folder is not."""

    def at(path, manifest):
        return teacher(data=DataSpec(source=f"folder:{path}", manifest=manifest)).fingerprint

    assert at("/here", "abc") == at("/there", "abc") != at("/here", "abd")
    assert at("/here", "") != at("/there", "")


def test_the_pair_joins_cells_that_differ_only_in_their_teacher():
    other = student(teacher=teacher(model=replace(TEACHER_MODEL, width=40)))
    alone = student(teacher=None, objective=ObjectiveSpec(soft_weight=0))
    assert student().pair == other.pair == alone.pair
    assert student().pair != student(seed=1).pair
    assert student().pair != student(train=TrainSpec(tokens=2 * 10**6)).pair


def test_the_protocol_says_how_students_are_made():
    assert student().protocol == "scratch|soft=0.5|T=2"
    assert student(init="prune", target_params=6000).protocol.startswith("prune|")
    assert student(objective=replace(SOFT, temperature_squared=False)).protocol.endswith("|no-T2")


def test_a_signal_is_a_protocol_of_its_own_and_a_live_one_leaves_no_trace():
    topk = [student(signal=TeacherSignal(kind="topk", symbols=symbols)) for symbols in (8, 16)]
    assert topk[0].protocol == "scratch|soft=0.5|T=2|topk:8"
    assert topk[0].fingerprint != topk[1].fingerprint and topk[0].pair == student().pair
    assert student(signal=TeacherSignal()).fingerprint == student().fingerprint


def test_temperature_squared_convention():
    assert SOFT.soft_scale == 0.5 * 2.0**2
    assert replace(SOFT, temperature_squared=False).soft_scale == 0.5


# ---- refusals ----


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: student(model=replace(STUDENT_MODEL, vocab_size=300)), "ModelSpec.vocab_size = 300.*vocabulary, 256"),
        (lambda: student(data=DataSpec(tokenizer="bpe:300")), "DataSpec.tokenizer = 'bpe:300'.*'bytes'"),
        (lambda: student(init="prune", target_params=25_056), "target_params = 25056.*below the 25056"),
        (lambda: student(init="prune"), "target_params = None.*only there"),
        (lambda: student(target_params=6000), "target_params = 6000"),
        (lambda: student(init="magic"), "Cell.init = 'magic'"),
        (lambda: student(teacher=None), "Cell.objective = .*soft_weight=0.5.*needs a teacher"),
        (lambda: teacher(init="prune", target_params=9), "Cell.init = 'prune'.*needs a teacher"),
        (lambda: teacher(split="teacher"), "split = 'teacher'.*teacher_fraction"),
        (lambda: teacher(data=DataSpec(sequence_tokens=65)), "sequence_tokens = 65.*max_length = 64"),
        (lambda: teacher(train=TrainSpec(tokens=100)), "tokens = 100.*one batch of 4096"),
        (lambda: TeacherSignal(kind="logits"), "TeacherSignal.kind = 'logits'"),
        (lambda: TeacherSignal(kind="topk"), "TeacherSignal.symbols = 0.*at least 1"),
        (lambda: TeacherSignal(symbols=4), "TeacherSignal.symbols = 4.*live"),
        (lambda: student(signal=TeacherSignal(kind="topk", symbols=257)), "symbols = 257.*vocabulary of 256"),
        (lambda: student(signal=TeacherSignal(kind="sampled", symbols=4)), "temperature = 2.0.*sampled"),
        (
            lambda: replace(teacher(), signal=TeacherSignal(kind="topk", symbols=4)),
            "Cell.objective = .*soft_weight=0.0.*topk:4 cache",
        ),
        (lambda: teacher(train=TrainSpec(tokens=4096)), "warmup_fraction = 0.05: must be 0 in a run of one step"),
        (lambda: teacher(train=TrainSpec(tokens=8191, warmup_fraction=1.0)), "warmup_fraction = 1.0: must be 0"),
        (lambda: TrainSpec(tokens=1, learning_rate=1e-38), "learning_rate = 1e-38: must be at least 2"),
        (lambda: TrainSpec(tokens=0), "TrainSpec.tokens = 0"),
        (lambda: TrainSpec(tokens=1, beta2=1.5), "beta2 = 1.5"),
        (lambda: ObjectiveSpec(temperature=0.0), "temperature = 0.0.*above 0"),
        (lambda: ObjectiveSpec(temperature=float("inf")), "temperature = inf.*must be a finite number"),
        (lambda: ObjectiveSpec(soft_weight=1.5), r"soft_weight = 1.5.*\[0, 1\]"),
        (lambda: DataSpec(source="wikipedia"), "DataSpec.source = 'wikipedia'"),
        (lambda: DataSpec(source="folder:"), "DataSpec.source"),
        (lambda: DataSpec(tokenizer="bpe:many"), "DataSpec.tokenizer"),
        (lambda: DataSpec(validation_fraction=0.0), "validation_fraction"),
        (lambda: replace(UNEVEN, block="mamba"), "ModelSpec.block = 'mamba'"),
        (lambda: replace(UNEVEN, width=0), "ModelSpec.width = 0"),
        (lambda: replace(UNEVEN, heads=(4, 3)), "multiple of kv_group = 2"),
        (lambda: replace(UNEVEN, hidden=(4, 4, 4)), "one per layer"),
        (lambda: replace(UNEVEN, head_size=3), "must be even under rotary"),
        (lambda: MeshSpec(tensor=0), "MeshSpec.tensor = 0"),
    ],
)
def test_impossible_specs_are_refused_in_one_line(make, words):
    with pytest.raises(SpecError, match=words) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_the_prune_target_may_be_just_below_its_teacher():
    assert student(init="prune", target_params=25_055).target_params == 25_055


def test_a_bpe_of_another_corpus_is_another_tokenizer():
    tokenized = DataSpec(tokenizer="bpe:256")
    with pytest.raises(SpecError, match="tokenizer"):
        student(teacher=teacher(data=replace(tokenized, source="folder:/a")), data=tokenized)


def test_one_step_is_a_run_without_a_warm_up_and_two_are_with_one():
    assert teacher(train=TrainSpec(tokens=4096, warmup_fraction=0.0)).steps == 1
    assert teacher(train=TrainSpec(tokens=8192, warmup_fraction=1.0)).steps == 2


def test_steps_cover_the_budget_in_whole_batches():
    cell = teacher(train=TrainSpec(tokens=10_000, batch_sequences=10))
    assert (cell.batch_tokens, cell.steps) == (640, 15)
