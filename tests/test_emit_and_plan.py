"""What `emit` books is what `plan --target` compiles: through the command line, for every kind and every experiment."""

import shlex
from dataclasses import replace

import pytest
import yaml

from gaplaw import cli
from gaplaw.errors import SweepError
from gaplaw.spec import Execution, HostsSpec
from gaplaw.sweep.forecast.targets import fitted_to_all, target
from gaplaw.sweep.planning.load import load
from tests.conftest import ROOT

EXPERIMENTS = ("gpt2_pilot", "minima_3b", "pythia_pilot", "quickstart")  # those with an execution of their own
OPTIONS = (
    [],
    ["--remat", "dots", "--evaluations=3"],
    ["--no-scan-layers", "--remat=none", "--compute-dtype", "float32"],
    [
        "--scan-layers",
        "--compute-dtype=bfloat16",
        "--teacher-dtype",
        "bfloat16",
    ],  # what the big experiments say themselves
    ["--mesh.fsdp", "4", "--mesh.tensor=2", "--accumulate", "2", "--checkpoint-seconds", "7.5"],
    ["--core-blocked", "--no-single-thread", "--workers=1", "--hosts.heartbeat-timeout-seconds", "50"],
)
OUT = "gs://bucket/runs/x"


class Seen(SweepError):
    """Ends a verb where the work would begin."""


@pytest.fixture
def seen(monkeypatch, capsys):
    """The execution that a command line comes to: what `plan` hands to the compiler, or `run` to the engine."""
    found = []

    def at_the_compiler(plan, sweep, execution, name, price):
        found.append(fitted_to_all(target(name), execution, sweep.groups()))
        raise Seen("compiled")

    def at_the_engine(sweep, folder, execution, **_):
        found.append(execution)
        raise Seen("started")

    class Nothing:
        def __enter__(self):
            return object()

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("gaplaw.sweep.planning.load.resolve", lambda sweep, **_: sweep)
    empty = type("Plan", (), {"cells": (), "training_epochs": [], "validation_tokens": []})
    monkeypatch.setattr("gaplaw.sweep.planning.make_plan.plan", lambda *_: empty())
    monkeypatch.setattr("gaplaw.sweep.planning.checks.check_sweep", lambda *_, **__: {})
    monkeypatch.setattr("gaplaw.data.counted", lambda _: None)
    monkeypatch.setattr("gaplaw.sweep.running.run.run", at_the_engine)
    monkeypatch.setattr("gaplaw.sweep.engines.pod.joined", lambda *_: Nothing())
    monkeypatch.setattr("gaplaw.cli.forecasting.forecast_with_progress", at_the_compiler)
    monkeypatch.setattr(
        "gaplaw.sweep.folder.object_store.folder_at",
        lambda place: type("Place", (), {"refresh": lambda *_, **__: None})(),
    )

    def call(*words):
        found.clear()
        capsys.readouterr()
        assert cli.main(list(words)) == 2
        return found[0] if found else None

    return call


def command(kind, text):
    manifest = yaml.safe_load(text)
    if kind == "skypilot":
        return shlex.split(manifest["run"])
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return pod["containers"][0]["command"]


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(("kind", "where"), [("gke-jobset", "v5e:4x4"), ("skypilot", "gpu:h100x8")])
def test_the_emitted_command_is_the_job_that_the_plan_compiles(seen, capsys, kind, name, where):
    path = str(ROOT / "experiments" / f"{name}.py")
    hosts = 1 if where == "gpu:h100x8" else 4
    emit = [kind, path, "--target", where, "--out", OUT, *(["--image", "i"] * (kind == "gke-jobset"))]
    for options in OPTIONS:
        planned = seen("plan", path, "--target", where, *options)
        refused = capsys.readouterr().err
        code = cli.main(["emit", *emit, *options])
        shown = capsys.readouterr()
        if planned is None:  # what the plan refuses is not booked, for the same reason
            assert (code, shown.out, shown.err) == (2, "", refused)
            continue
        assert code == 0, shown.err
        words = command(kind, shown.out)
        assert words[:3] == ["gaplaw", "run", path]
        # what a manifest sets for its hosts; core_blocked is off in every plan for a target, as accelerators ignore it
        set_by_kind = HostsSpec(processes=hosts, launch="everywhere" if hosts > 1 else "here")
        set_by_kind = replace(planned.hosts, processes=set_by_kind.processes, launch=set_by_kind.launch)
        expected = replace(planned, workers=1, single_thread=False, hosts=set_by_kind)
        got = seen(*words[1:])
        assert replace(got, core_blocked=False) == expected, (options, words)
    assert cli.main(["emit", *options, *emit]) == code and command(kind, capsys.readouterr().out) == words


def test_the_command_carries_what_differs_from_the_experiment_and_what_the_user_gave_and_nothing_else(capsys):
    emit = ["emit", "skypilot", "minima_3b", "--target", "gpu:h100x8", "--out", "s3://b/x"]

    def options(*given):
        assert cli.main([*emit, *given]) == 0
        return command("skypilot", capsys.readouterr().out)[5:]

    always = ["--workers", "1", "--no-single-thread", "--mesh.fsdp", "8"]
    assert options() == always
    assert options("--remat", "full") == [*always, "--remat", "full"]  # as the experiment says, but said
    assert options("--no-scan-layers") == [*always, "--no-scan-layers"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2"], "--workers = 2: a manifest for gpu:h100x8 sets 1; leave it out"),
        (["--single-thread"], "--single-thread = True: a manifest for gpu:h100x8 sets False"),
        (["--hosts.processes", "2"], "--hosts.processes = 2: a manifest for gpu:h100x8 sets 1"),
        (["--mesh.fsdp", "3"], "must be the 8 chips of gpu:h100x8"),
    ],
)
def test_an_option_that_a_manifest_could_not_carry_is_refused(capsys, options, said):
    assert cli.main(["emit", "skypilot", "minima_3b", "--target", "gpu:h100x8", "--out", "s3://b/x", *options]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.count("\n") == 1 and not shown.out


EXPERIMENT = """
import sys
print("[begin]", file=sys.stderr)
from gaplaw.spec.execution import Execution
from tests.toy import sweep
execution = Execution(workers=1, compute_dtype="bfloat16", scan_layers=True)
"""
VERBS = {
    "plan": ["plan", "EXPERIMENT", "--target", "gpu:h100x1"],
    "run": ["run", "EXPERIMENT", "--out", "runs/x"],
    "emit": ["emit", "skypilot", "EXPERIMENT", "--target", "gpu:h100x1", "--out", "s3://b/x"],
    "rehearse": ["rehearse", "EXPERIMENT"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_an_experiment_is_executed_once_and_what_is_wrong_with_it_is_said_once(
    seen, tmp_path, capsys, monkeypatch, verb
):
    path = tmp_path / "mine.py"
    words = [str(path) if word == "EXPERIMENT" else word for word in VERBS[verb]]
    monkeypatch.setattr("gaplaw.sweep.rehearse.rehearsal.rehearse", lambda *_, **__: [])
    path.write_text(EXPERIMENT)
    assert cli.main(words) == (0 if verb in ("emit", "rehearse") else 2)
    assert capsys.readouterr().err.count("[begin]") == 1
    path.write_text(EXPERIMENT + "{}['no such key']\n")
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert err.count("[begin]") == 1 and err.count("mine.py, line 7") == 1 and "no such key" in err
    path.write_text(EXPERIMENT.replace("execution = Execution(", "execution = dict("))
    assert cli.main(words) == 2 and "must be an Execution; found a dict" in capsys.readouterr().err
    path.write_text(EXPERIMENT + "raise SystemExit('never for help')\n")
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--help"])
    shown = capsys.readouterr()
    assert ended.value.code in (0, None) and "[begin]" not in shown.err and "(the experiment's, else" in shown.out
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    said = [word for word in capsys.readouterr().out.split() if word.strip("│|")]
    assert "give only files that you trust." in " ".join(said)


@pytest.mark.parametrize(
    "words", [["run", "X", "--workers", "3"], ["run", "--workers=3", "X"], ["run", "--json", "X", "--workers", "3"]]
)
def test_options_stand_before_and_after_the_experiment_and_leave_the_rest_to_it(seen, tmp_path, words):
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    run = [str(tmp_path / "mine.py") if word == "X" else word for word in words]
    assert seen(*run) == Execution(workers=3, compute_dtype="bfloat16", scan_layers=True)
    assert seen(*run, "--no-scan-layers") == Execution(workers=3, compute_dtype="bfloat16")
    assert seen(*run, "--scan-layers", "--mesh.fsdp", "1") == Execution(
        workers=3, compute_dtype="bfloat16", scan_layers=True
    )


def test_every_field_of_an_execution_is_an_option_and_comes_back_as_it_went(seen, tmp_path):
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    own = load(str(tmp_path / "mine.py"))[1]
    from gaplaw.sweep.engines.manifests import flags

    assert seen("run", str(tmp_path / "mine.py"), *flags(Execution(), own, {})) == Execution()
