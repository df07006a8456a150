"""Whatever is given for a field ends in one clear line or in a specification that survives JSON with its identity;
seeds, names.
"""

import dataclasses
import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from gaplaw import results
from gaplaw.canonical import from_dict, to_dict
from gaplaw.errors import SpecError, SweepError
from gaplaw.files import LONGEST_NAME_BYTES, is_plain_name
from gaplaw.spec import (
    Cell,
    DataSpec,
    Execution,
    HostsSpec,
    MeshSpec,
    ModelSpec,
    ObjectiveSpec,
    Sweep,
    TeacherSignal,
    TrainSpec,
)
from gaplaw.sweep.folder.object_store import folder_at
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.running.status import status_of

SHAPE = ModelSpec(vocab_size=256, width=8, depth=2, heads=(2, 1), head_size=4, hidden=16, max_length=64)
LONE = Cell(name="t", model=SHAPE, data=DataSpec(), train=TrainSpec(tokens=10**5))
TAUGHT = replace(
    LONE,
    name="s",
    model=replace(SHAPE, width=4),
    teacher=LONE,
    objective=ObjectiveSpec(temperature=2.0),
    signal=TeacherSignal(kind="topk", symbols=4),
)
SPECS = [
    SHAPE,
    DataSpec(),
    ObjectiveSpec(),
    TrainSpec(tokens=10**5),
    TAUGHT.signal,
    MeshSpec(),
    HostsSpec(),
    Execution(),
]
FIELDS = [(spec, field.name) for spec in [*SPECS, TAUGHT] for field in dataclasses.fields(spec)]
ODD = [
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        -0.0,
        0,
        0.0,
        1,
        1.0,
        1.5,
        -1,
        1e300,
        1e-300,
        2**31,
        2**32,
        2**63,
        10**400,
    ),
    *(
        10**5000,
        True,
        False,
        None,
        "",
        "1",
        "nan",
        b"1",
        1j,
        (),
        (1,),
        (1, 2),
        [1, 2],
        [1.0, 2],
        (True, 2),
        (-1, 2),
        {},
        {"a": 1},
    ),
    *(
        np.int64(3),
        np.int32(4),
        np.uint64(2**64 - 1),
        np.float64(0.5),
        np.float32(0.1),
        np.bool_(True),
        np.array(3),
        np.array([1, 2]),
    ),
    *(np.float32("nan"), np.str_("bytes"), object(), "bpe:²", "folder:\n", SHAPE, LONE, DataSpec(teacher_fraction=0.5)),
]


@pytest.mark.parametrize(
    ("spec", "name"), FIELDS, ids=lambda value: value if isinstance(value, str) else type(value).__name__
)
def test_any_value_of_any_field_is_refused_in_one_line_or_survives_json(spec, name):
    for value in ODD:
        try:
            made = replace(spec, **{name: value})
        except SpecError as refusal:
            assert "\n" not in str(refusal) and len(str(refusal)) < 900, value
            continue
        text = json.dumps(to_dict(made), allow_nan=False)
        back = from_dict(type(spec), json.loads(text))
        assert back == made and hash(back) == hash(made), value
        assert json.dumps(to_dict(back)) == text, value
        if isinstance(made, Cell):
            assert back.fingerprint == made.fingerprint and results.describe_cell(made, "student")["spec"] == text
        for field in dataclasses.fields(made):
            plain = getattr(made, field.name)
            assert type(plain).__module__ != "numpy" and not (isinstance(plain, float) and math.isnan(plain)), value


@pytest.mark.parametrize(
    ("spec", "name"), FIELDS, ids=lambda value: value if isinstance(value, str) else type(value).__name__
)
def test_a_truth_value_is_no_number_and_a_fraction_no_count(spec, name):
    given = getattr(spec, name)
    if isinstance(given, bool) or not isinstance(given, int | float):
        return
    odd = [True, np.bool_(False), "1", math.nan] + ([given + 0.5, float(given)] if isinstance(given, int) else [])
    for value in odd:
        with pytest.raises(SpecError, match=rf"{name} = .*must be a (finite|whole) number"):
            replace(spec, **{name: value})


@pytest.mark.parametrize("value", [3, None, [], "x", {"name": 1}, {"flavour": 1}, {"name": "t", "model": 3}])
def test_json_of_another_kind_is_refused_in_one_line(value):
    with pytest.raises(SpecError):
        from_dict(Cell, value)


# ---- seeds


@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 + 5, 2**64, 1.0, True, np.float64(1), "1", None, math.nan])
@pytest.mark.parametrize("make", [LONE, LONE.train, LONE.data], ids=["seed", "batch_seed", "split_seed"])
def test_a_seed_outside_32_bits_is_refused_in_one_line(make, seed):
    name = {Cell: "seed", TrainSpec: "batch_seed", DataSpec: "split_seed"}[type(make)]
    with pytest.raises(SpecError, match=f"{type(make).__name__}.{name} = ") as refusal:
        replace(make, **{name: seed})
    assert "\n" not in str(refusal.value)


def test_seeds_within_32_bits_start_students_differently():
    import jax

    from gaplaw.train.stack import Stack, keys_of

    draw = random.Random(0)
    seeds = {0, 1, 2**31 - 1, 2**31, 2**32 - 1, *(draw.randrange(2**32) for _ in range(60))}
    stack = Stack(tuple(replace(LONE, seed=np.uint32(seed)) for seed in seeds), SHAPE)
    keys = {tuple(words) for words in jax.random.key_data(keys_of(stack)).tolist()}
    assert len(keys) == len(seeds)


def test_a_pruned_students_seed_orders_its_batches_and_says_nothing_else():
    def pruned(seed, batch_seed):
        train = replace(LONE.train, batch_seed=batch_seed)
        student = dict(teacher=LONE, init="prune", target_params=300, objective=ObjectiveSpec())
        return replace(LONE, seed=seed, train=train, **student)

    assert pruned(3, 3).fingerprint != pruned(4, 4).fingerprint
    with pytest.raises(SpecError, match="seed = 1: must equal TrainSpec.batch_seed = 0 under init = 'prune'"):
        pruned(1, 0)  # the same student as pruned(0, 0)


def test_a_run_folder_with_a_seed_of_old_is_refused_in_one_line(tmp_path):
    sweep = Sweep(name="old", question="?", teachers=(LONE,), students=())
    value = {"sweep": to_dict(sweep)}
    value["sweep"]["teachers"][0]["seed"] = 2**32
    (tmp_path / "sweep.json").write_text(json.dumps(value))
    with pytest.raises(SweepError, match="t: Cell.seed = 4294967296: must be from 0 to") as refusal:
        status_of(tmp_path)
    assert "\n" not in str(refusal.value)


# ---- names

REFUSED = [
    *(
        "",
        "store",
        "Store",
        ".x",
        "..",
        ".",
        "../../../x",
        "my/x",
        "org/model-7b",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\n",
        "a\x7fb",
        " a",
        "a ",
    ),
    *(
        "a.",
        "x" * 300,
        "é" * 81,
        "a*",
        "a?",
        "[a]",
        "a:b",
        'a"b',
        "<a>",
        "a|b",
        "con",
        "NUL.x",
        "com1",
        "\u2028",
        "\ud800",
        "a\u0085b",
    ),
]


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_name_that_no_file_may_have_is_refused_in_one_line(name):
    for make, where in ((LONE, "Cell"), (Sweep(name="n", question="?", teachers=(), students=()), "Sweep")):
        with pytest.raises(SpecError, match=f"{where}.name = .*must be a plain file name") as refusal:
            replace(make, name=name)
        assert "\n" not in str(refusal.value)


def test_any_accepted_name_makes_files_that_every_reader_sees(tmp_path):
    """Names of random characters and the longest one allowed: every row lies in its folder and is read from there."""
    draw = random.Random(1)
    letters = "aB0.-_ ,+=@#%&~'(){}!$^;`éß漢😀‮\u0301/\\:*?[]\n\t\0\x1f" + "\u00a0"
    drawn = ["".join(draw.choice(letters) for _ in range(draw.randrange(1, 7))) for _ in range(600)]
    names = sorted({name for name in drawn if is_plain_name(name)})[:60]
    names += ["x" * LONGEST_NAME_BYTES, "é" * (LONGEST_NAME_BYTES // 2), "org-model-7b", "s0.9k-t1.5k-r0", "-x", "~"]
    cells = tuple(replace(LONE, name=name, seed=number) for number, name in enumerate(names))
    sweep = Sweep(name=names[0], question="?", teachers=cells, students=())
    folder = RunFolder(tmp_path / "runs" / sweep.name)
    folder.make()
    folder.adopt(sweep)
    for number, cell in enumerate(sweep.cells):
        group = next(group for group in sweep.groups() if cell in group.cells)
        held = folder.claim(group, keeps=bool(number % 2), expiry_seconds=60)
        assert held is not None
        held.release()
        if number % 2:
            folder.write_failure(sweep, cell, "why", Execution())
        else:
            row = results.describe_cell(cell, "teacher") | {"status": "done"}
            results.write_cell(folder.out, row, [{"tokens": 1}], Execution())
    assert set(results.read(folder.out)["cell_id"]) == {cell.id for cell in cells}
    found = status_of(folder.out)
    assert (found.done, found.failed, found.missing) == (-(-len(cells) // 2), len(cells) // 2, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {sweep.name, "store"}


@pytest.mark.parametrize(("one", "other"), [("Big", "big"), ("é", "e\u0301"), ("straße", "STRASSE")])
def test_two_names_of_one_science_that_a_file_system_holds_to_be_one_are_refused(one, other):
    with pytest.raises(SpecError, match="one file name to some systems"):
        Sweep(name="n", question="?", teachers=tuple(replace(LONE, name=name) for name in (one, other)), students=())


@pytest.mark.parametrize("place", ["store", "runs/store", "runs/store/", "file:///tmp/runs/store"])
def test_a_run_folder_is_not_the_store(place):
    with pytest.raises(SweepError, match="no run folder may be called 'store'"):
        folder_at(place)
