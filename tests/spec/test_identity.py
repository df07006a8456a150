"""Does a cell keep its identity while the code grows? Fingerprints, names, pairs and protocols of all experiments are
pinned.

A change here orphans run folders and stored teachers: change a value only where an experiment's numbers change, too.
"""

import hashlib
import json

import pandas as pd
import pytest

from gaplaw.canonical import from_dict
from gaplaw.spec import Cell
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
