"""Can a specification grow without a change of identity? A new field or a new class of a union leaves every hash as it
was.
"""

import dataclasses
import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from gaplaw.canonical import check_fields, from_dict, label, short_hash, stated_fields, to_dict
from gaplaw.errors import SpecError
from gaplaw.spec import (
    Cell,
    DataSpec,
    Execution,
    Group,
    HostsSpec,
    MeshSpec,
    ModelSpec,
    ObjectiveSpec,
    Sweep,
    TeacherSignal,
    TrainSpec,
    science,
)

MODEL = ModelSpec(vocab_size=256, width=8, depth=1, heads=2, head_size=4, hidden=16, max_length=16)
DATA, TRAIN = DataSpec(sequence_tokens=16), TrainSpec(tokens=10**4, batch_sequences=8)
TEACHER = Cell(name="t", model=replace(MODEL, width=16), data=DATA, train=TRAIN)
SIGNAL = TeacherSignal(kind="topk", symbols=4)
STUDENT = replace(
    TEACHER, name="s", model=MODEL, teacher=TEACHER, objective=ObjectiveSpec(soft_weight=0.5), signal=SIGNAL
)
SWEEP = Sweep(name="one", question="?", teachers=(TEACHER,), students=(STUDENT,))
SPECS = (MODEL, DATA, TRAIN, STUDENT.objective, SIGNAL, STUDENT, SWEEP, Execution(), MeshSpec(), HostsSpec())
PARTS = {"model": MODEL, "data": DATA, "train": TRAIN, "objective": STUDENT.objective, "signal": SIGNAL, "": STUDENT}
NEW_FIELDS = {
    "number": (float, 0.5, 0.25),
    "text": (str, "", "x"),
    "absent": (int | None, None, 3),
    "several": (tuple[int, ...], (), (1, 2)),
    "spec": (MeshSpec, MeshSpec(), MeshSpec(data=2)),
}


def named(value):
    return type(value).__name__ if dataclasses.is_dataclass(value) else str(value)


def grown(spec, new, value=None):
    """The same specification, of a class with one more field that has a default."""
    kind, default, _ = NEW_FIELDS[new]
    more = dataclasses.field(default_factory=lambda: default)
    bigger = dataclasses.make_dataclass(
        type(spec).__name__, [(new, kind, more)], bases=(type(spec),), frozen=True, kw_only=True
    )
    own = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    return bigger(**own) if value is None else bigger(**own, **{new: value})


def with_part(part, spec):
    return replace(STUDENT, **{part: spec}) if part else spec


def identity(cell):
    return cell.fingerprint, cell.pair, cell.id, cell.protocol, Group(cells=(cell,)).id, Group(cells=(cell,)).stream


# ---- a field at its default is left out


@pytest.mark.parametrize("new", NEW_FIELDS)
@pytest.mark.parametrize("spec", SPECS, ids=named)
def test_a_new_field_at_its_default_changes_no_json_and_another_value_does_and_comes_back(spec, new):
    same, other = grown(spec, new), grown(spec, new, NEW_FIELDS[new][2])
    assert json.dumps(to_dict(same)) == json.dumps(to_dict(spec))
    assert to_dict(other) == to_dict(spec) | {new: to_dict(NEW_FIELDS[new][2])}
    for one in (same, other):
        assert from_dict(type(one), json.loads(json.dumps(to_dict(one)))) == one


@pytest.mark.parametrize("new", NEW_FIELDS)
@pytest.mark.parametrize("part", PARTS)
def test_a_new_field_of_any_part_of_a_cell_leaves_its_identity_and_another_value_is_another_science(part, new):
    spec = PARTS[part]
    assert identity(with_part(part, grown(spec, new))) == identity(STUDENT)
    other = with_part(part, grown(spec, new, NEW_FIELDS[new][2]))
    assert other.fingerprint != STUDENT.fingerprint
    if part not in ("data", "train"):  # which are no part of a protocol
        assert other.protocol != STUDENT.protocol


def test_a_new_field_of_a_teacher_is_new_science_of_its_students_only_where_it_is_not_at_its_default():
    assert replace(STUDENT, teacher=grown(TEACHER, "number")).fingerprint == STUDENT.fingerprint
    assert replace(STUDENT, teacher=grown(TEACHER, "number", 0.25)).fingerprint != STUDENT.fingerprint


@pytest.mark.parametrize("spec", SPECS, ids=named)
def test_the_fields_of_version_1_stand_in_the_json_at_their_defaults_too(spec):
    kind = type(spec)
    names = [field.name for field in dataclasses.fields(kind)]
    assert set(kind.VERSION_1) <= set(names) and len(set(kind.VERSION_1)) == len(kind.VERSION_1)
    assert set(kind.VERSION_1) <= set(to_dict(spec))
    later = {DataSpec: {"separator"}, Cell: {"signal"}}.get(kind, set())
    assert set(names) - set(kind.VERSION_1) == later


def test_a_field_of_version_1_is_hashed_at_its_default():
    recipe = science(STUDENT)["train"]
    assert recipe["beta1"] == TRAIN.beta1 == 0.9

    @dataclass(frozen=True, kw_only=True)
    class Forgetful(TrainSpec):
        VERSION_1: ClassVar = [name for name in TrainSpec.VERSION_1 if name != "beta1"]

    forgetful = replace(STUDENT, train=Forgetful(**dataclasses.asdict(TRAIN)))
    assert "beta1" not in science(forgetful)["train"] and forgetful.fingerprint != STUDENT.fingerprint


def test_what_was_written_with_all_fields_is_read_as_the_same():
    live = replace(STUDENT, signal=TeacherSignal())
    assert "signal" not in to_dict(live)
    assert from_dict(Cell, to_dict(live) | {"signal": {"kind": "live", "symbols": 0}}) == live


# ---- unions


@dataclass(frozen=True, kw_only=True)
class First:
    weight: float = 1.0
    VERSION_1: ClassVar = ("weight",)


@dataclass(frozen=True, kw_only=True)
class Second:
    weight: float = 1.0
    kind: ClassVar = "second"


@dataclass(frozen=True, kw_only=True)
class Third:
    weight: float = 1.0
    beta: float
    kind: ClassVar = "third"


@dataclass(frozen=True, kw_only=True)
class Holder:
    method: First | Second | Third = First()
    many: tuple[First | Second, ...] = ()
    signal: TeacherSignal | Second | None = None
    VERSION_1: ClassVar = ("method",)

    def __post_init__(self):
        check_fields(self)


HOLDERS = (
    Holder(),
    Holder(method=Second()),
    Holder(method=Second(weight=0.5), many=(Second(), First(weight=2.0))),
    Holder(method=Third(beta=0.1)),
    Holder(signal=SIGNAL),
    Holder(signal=TeacherSignal()),
    Holder(signal=Second()),
)


def test_specs_of_two_kinds_with_equal_fields_differ():
    assert len({short_hash(to_dict(holder)) for holder in HOLDERS}) == len(HOLDERS)
    assert short_hash(to_dict(Second())) != short_hash(to_dict(First()))
    assert to_dict(Holder()) == {"method": {"weight": 1.0}}  # as it was when there was one class
    assert dict(stated_fields(Second(weight=0.5))) == {"kind": "second", "weight": 0.5}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_union_comes_back_as_the_class_that_it_was(holder):
    assert from_dict(Holder, json.loads(json.dumps(to_dict(holder)))) == holder


@pytest.mark.parametrize(
    ("method", "match"),
    [
        ({"kind": "fourth"}, "kind = 'fourth': must be one of second, third"),
        ({"kind": ["second"]}, r"kind = \['second'\]: must be one of second, third"),
        ({"kind": "third"}, r"Third = \['beta'\]: lacks these fields"),
        ({"beta": 1.0}, r"First = \['beta'\]: has no such field"),
        (3, "First = 3: must be an object of fields"),
    ],
)
def test_what_is_no_member_of_a_union_is_refused_in_one_line(method, match):
    with pytest.raises(SpecError, match=match) as refusal:
        from_dict(Holder, {"method": method})
    assert "\n" not in str(refusal.value)


def test_a_field_takes_every_class_of_its_union_and_no_other():
    with pytest.raises(SpecError, match="Holder.method = .*must be a First or Second or Third"):
        Holder(method=SIGNAL)
    with pytest.raises(SpecError, match="Holder.many = .*must be a First or Second"):
        Holder(many=(Second(), Third(beta=1.0)))


def test_a_union_of_classes_that_nothing_tells_apart_is_a_mistake_of_the_program():
    @dataclass(frozen=True, kw_only=True)
    class Twin:
        weight: float = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Either:
        method: First | Twin = First()

        def __post_init__(self):
            check_fields(self)

    with pytest.raises(TypeError, match="needs a `kind` of its own"):
        Either()


# ---- protocols


def test_a_protocol_is_said_by_its_parts_and_nothing_is_said_of_a_default():
    live = replace(STUDENT, signal=TeacherSignal())
    assert live.protocol == "scratch|soft=0.5|T=1" and STUDENT.protocol == "scratch|soft=0.5|T=1|topk:4"
    unsquared = ObjectiveSpec(temperature=2.0, temperature_squared=False)
    pruned = replace(STUDENT, init="prune", target_params=300, objective=unsquared)
    assert pruned.protocol == "prune|soft=1|T=2|no-T2|topk:4"
    assert label(MODEL) == label(DATA) == label(TRAIN) == label(Second()).replace("second", "") == ""
    assert label(Third(beta=0.1, weight=2.0)) == "third|weight=2|beta=0.1"
    assert label(Third(beta=1 / 3)) == "third|beta=0.3333333333333333"
    assert label(Holder(method=Second(), many=(Second(),), signal=SIGNAL)).endswith("|topk:4")


def test_the_new_fields_of_a_part_stand_at_its_place_in_the_protocol():
    made = replace(
        STUDENT,
        objective=grown(STUDENT.objective, "number", 0.25),
        signal=grown(SIGNAL, "several", (1, 2)),
        model=grown(MODEL, "text", "x"),
    )
    made = grown(made, "spec", MeshSpec(data=2))
    new_of_the_cell = f"spec={json.dumps(to_dict(MeshSpec(data=2)), sort_keys=True, separators=(',', ':'))}"
    assert made.protocol == f"scratch|soft=0.5|T=1|number=0.25|topk:4|several=(1, 2)|{new_of_the_cell}|text=x"
