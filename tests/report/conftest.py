"""One simulated run, written once, for all tests of the report."""

import json

import pytest

from gaplaw import results
from gaplaw.canonical import to_dict
from tests.report.simulated import sweep, write_folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("runs") / "simulated", fail=(3,))
    (folder / "sweep.json").write_text(json.dumps({"gaplaw": "0.1.0", "sweep": to_dict(sweep())}))
    return folder


@pytest.fixture(scope="session")
def cells(run_folder):
    return results.read(run_folder)


@pytest.fixture(scope="session")
def curves(run_folder):
    return results.read(run_folder, "curves")
