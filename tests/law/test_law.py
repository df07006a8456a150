"""A law answers the same after a round trip through JSON, predicts its own table, refuses what it must, and is fast to
import.
"""

import json
import random
import subprocess
import sys

import numpy as np
import pytest

from gaplaw.errors import LawError
from gaplaw.law.fitting import fit
from gaplaw.law.law import Law, load_law
from gaplaw.law.simulation.simulate import simulate, true_optimum
from tests.flips import flipped

WORLD = dict(
    students=5e7 * 2.0 ** np.arange(6),
    teachers=np.geomspace(1e8, 1.28e10, 7),
    shape="two_sided",
    asymmetry=2,
    noise_nats=0.003,
)


@pytest.fixture(scope="module")
def frame():
    return simulate(**WORLD, rng=0)


@pytest.fixture(scope="module")
def law(frame):
    return fit(frame, draws=200, compare=False)


def test_parameters_and_optimum_recover_the_truth(frame, law):
    assert law.status == "converged" and not law.refused
    assert law.parameters["ratio"].point == pytest.approx(4.0, rel=0.15)
    low, high = law.parameters["p"].interval90
    assert low < 1.0 < high
    best = law.optimum(3e8)
    assert best.interval90[0] < true_optimum(frame, 3e8) < best.interval90[1]
    assert best.interval90[0] < best.interval50[0] < best.teacher_params < best.interval50[1] < best.interval90[1]


def test_round_trip(frame, law, tmp_path):
    path = tmp_path / "law.json"
    law.save(path)
    again = load_law(path)
    assert np.allclose(again.predict(frame), law.predict(frame), atol=1e-5)
    assert np.allclose(again.optimum_draws(1e9), law.optimum_draws(1e9), atol=1e-4)
    assert again.flags == law.flags and again.students[0].methods == law.students[0].methods
    assert set(again.parameters) == {"ratio", "p", "k"}
    assert not list(tmp_path.glob(".*"))


def test_prediction_is_as_good_as_the_noise(frame, law):
    assert np.std(law.predict(frame) - frame["student_loss"]) < 0.004
    left_out = frame["student_params"] == WORLD["students"][2]
    other = fit(frame[~left_out], draws=20, compare=False)
    assert np.abs(other.predict(frame[left_out]) - frame.loc[left_out, "student_loss"]).max() < 0.05


def test_regret_is_zero_at_the_optimum_and_positive_elsewhere(law):
    point = np.exp(law.optimum_draws(4e8))
    regret = law.regret_draws(4e8, None, [1e8, 1.6e9, 1e10])
    assert regret.shape == (200, 3) and np.all(regret >= 0)
    own = law.surface.regret_draws(4e8, None, point)
    assert np.allclose(np.diag(own), 0, atol=1e-12)


def test_small_tables_are_refused(frame):
    few = fit(frame[frame["teacher_params"].isin(frame["teacher_params"].unique()[:4])], draws=20, compare=False)
    assert few.refused and few.optimum(3e8).teacher_params is None
    assert "few_teachers" in {flag.kind for flag in few.flags}
    two = fit(frame[frame["student_params"] < 1.5e8], draws=20, compare=False)
    assert "few_students" in {flag.kind for flag in two.flags} and two.refused


def test_flags_tell_what_is_weak(frame):
    own = frame.assign(protocol="prune from teacher", no_teacher_loss=frame["student_loss"].min() - 0.1)
    kinds = {flag.kind for flag in fit(own, draws=20, compare=False).flags}
    assert {"single_seed", "students_from_teacher", "teacher_no_better"} <= kinds


def test_paired_seeds_give_a_law_from_three_students():
    """The table of this platform: 3 students, 8 teachers, 4 paired seeds, initialisation noise far above the gap."""
    frame = simulate(
        students=[1e8, 2e8, 4e8],
        teachers=np.geomspace(1e8, 6.4e9, 8),
        seeds=4,
        seed_offset_nats=0.03,
        noise_nats=0.004,
        rng=3,
    )
    law = fit(frame, draws=150, compare=False)
    low, high = law.optimum(2e8).interval90
    assert not law.refused and low < true_optimum(frame, 2e8) < high
    assert law.noise.paired_sd_nats < 0.3 * law.noise.seed_sd_nats


def test_too_few_draws_for_an_interval_are_refused(frame):
    with pytest.raises(LawError, match="draws: 2 must be at least 20"):
        fit(frame, draws=2)


def test_bad_files_are_one_line(tmp_path, law):
    with pytest.raises(LawError, match="No such file"):
        load_law(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(LawError, match="not JSON"):
        load_law(tmp_path / "bad.json")
    (tmp_path / "old.json").write_text(json.dumps({"schema_version": 99, "surface": {}}))
    with pytest.raises(LawError, match="schema_version 99"):
        load_law(tmp_path / "old.json")
    with pytest.raises(LawError, match="schema_version 99"):
        type(law).from_dict(law.to_dict() | {"schema_version": 99})
    with pytest.raises(LawError, match="surface kind 'cone' must be one of bowl, loss"):
        Law.from_dict(law.to_dict() | {"surface": {"kind": "cone"}})
    with pytest.raises(LawError, match="student_params: -1"):
        law.optimum(-1)


def test_a_law_that_was_changed_is_refused_and_one_of_before_the_checksums_is_read(tmp_path, law):
    path, chance = tmp_path / "law.json", random.Random(0)
    law.save(path)
    whole, best = path.read_bytes(), load_law(path).optimum(3e8)
    value = json.loads(whole)
    changed = json.loads(whole) | {"measured": {name: [1.0, 2.0] for name in value["measured"]}}
    path.write_text(json.dumps(changed))
    with pytest.raises(LawError, match="law.json: changed since gaplaw fit wrote it"):
        load_law(path)
    for _ in range(60):
        path.write_bytes(flipped(whole, chance))
        with pytest.raises(LawError) as refusal:
            load_law(path)
        assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    del value["sha256"]
    path.write_text(json.dumps(value))
    assert load_law(path).optimum(3e8) == best
    for name in ("schema_version", "parameters", "students", "measured", "noise", "surface", "coordinate"):
        path.write_text(json.dumps({key: part for key, part in value.items() if key != name}))
        with pytest.raises(LawError, match="law.json: not a|schema_version None") as refusal:
            load_law(path)
        assert "\n" not in str(refusal.value)


def test_import_is_light():
    """`import gaplaw.law` brings neither JAX nor matplotlib nor the training half; a law from a file needs no SciPy."""
    code = (
        "import sys, gaplaw.law; from gaplaw.law import load_law; light = 'scipy' not in sys.modules;"
        "from gaplaw.law import fit;"
        "print(light, *[name in sys.modules for name in ('jax', 'matplotlib', 'gaplaw.train', 'tensorflow_datasets')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == ["True"] + ["False"] * 4
