"""Does a cell keep its identity while the code grows? Fingerprints, names, pairs and protocols of all experiments are
pinned.

A change here orphans run folders and stored teachers: change a value only where an experiment's numbers change, too.
"""

import hashlib
import json
from dataclasses import replace

import pandas as pd
import pytest

from gaplaw.canonical import canonical_json, from_dict, short_hash, to_dict
from gaplaw.spec import Cell, TrainSpec, science
from gaplaw.spec.identity import science_json
from gaplaw.sweep.planning.load import load_experiment
from tests.conftest import ROOT

# experiment → number of cells, and a hash over the identity of every cell and group (data not yet resolved)
PINNED = {
    "gpt2_pilot": (61, "37eca001ce4aff88"),
    "minima_3b": (2, "92ce8707826477a8"),
    "pythia_pilot": (83, "06a6a54e4b287168"),
    "quickstart": (79, "5bcf482247bdf487"),
    "stdlib_gap": (261, "0f03d370730c18e4"),
    "teacher_signals": (13, "0e3cd0df8350440f"),
}


def identities(name):
    sweep = load_experiment(str(ROOT / "experiments" / f"{name}.py"))
    cells = [[cell.id, cell.fingerprint, cell.pair, cell.protocol, sweep.role(cell)] for cell in sweep.cells]
    return len(cells), hashlib.sha256(json.dumps([cells, [g.id for g in sweep.groups()]]).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "experiments").glob("[a-z]*.py")))
def test_the_identity_of_every_cell_of_an_experiment_is_pinned(name):
    assert identities(name) == PINNED[name]


@pytest.mark.parametrize("name", ["quickstart", "stdlib_gap"])
def test_committed_rows_are_of_the_cells_that_they_name(name):
    (path,) = (ROOT / "experiments" / "results" / name / "cells").glob("*.parquet")
    rows = pd.read_parquet(path)
    for row in rows.itertuples():
        cell = from_dict(Cell, json.loads(row.spec))
        found = (cell.id, cell.fingerprint, cell.pair, cell.protocol)
        assert found == (row.cell_id, row.fingerprint, row.pair, row.protocol)


def plainly(cell):
    """The science of a cell by the plainest way: nothing is shared, nothing is kept."""
    fields = {name: value for name, value in to_dict(cell).items() if name not in ("name", "teacher", "signal")}
    if cell.signal.cached:
        fields["signal"] = to_dict(cell.signal)
    if cell.signal.kind == "topk" and cell.objective.temperature not in (1.0, 2.0, 4.0):
        fields["signal"]["tail_temperature"] = cell.objective.temperature
    if cell.train.warmup_fraction == 0:
        fields["train"]["warmup_steps"] = 0
    if cell.data.manifest:
        fields["data"] |= {"source": cell.data.source.split(":")[0], "tokenizer": cell.data.tokenizer}
    return fields | {"teacher": plainly(cell.teacher) if cell.teacher else None}


@pytest.mark.parametrize("name", ["quickstart", "teacher_signals"])
def test_parts_that_cells_share_change_no_identity(name):
    """Fields of one value share a text only where they are one object: 1 and 1.0 are equal and not the same in JSON."""
    for cell in load_experiment(str(ROOT / "experiments" / f"{name}.py")).cells:
        rates = (replace(cell.train, learning_rate=1), replace(cell.train, learning_rate=1.0))
        rates += (replace(cell.train, warmup_fraction=0.0), replace(cell.train))
        for number, train in enumerate(rates):
            data = replace(cell.data, manifest="0123456789ab" if number % 2 else "")
            changed = replace(cell, train=train, data=data)
            assert science(changed) == plainly(changed)
            assert science_json(changed) == canonical_json(plainly(changed))
            assert changed.fingerprint == short_hash(plainly(changed))
            assert from_dict(Cell, to_dict(changed)).fingerprint == changed.fingerprint


def test_a_sweep_that_shares_equal_parts_tells_1_from_1_0():
    recipes = [{"tokens": 10**6, "learning_rate": rate} for rate in (1, 1.0, 1)]
    made: dict = {}
    found = [from_dict(TrainSpec, recipe, made=made) for recipe in recipes]
    assert found[0] is found[2] and [repr(train.learning_rate) for train in found] == ["1", "1.0", "1"]
