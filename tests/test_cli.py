"""The command line: results on standard output, one line for whatever is wrong, and the right exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gaplaw import cli, data, results
from gaplaw.law.simulation.simulate import simulate
from gaplaw.sweep import resolve
from tests.flips import flip
from tests.sweep.sweeps import texts, tiny_sweep

ROOT = Path(__file__).parents[1]
VERBS = (
    *("plan", "run", "status", "compact", "rehearse", "emit"),
    *("fit", "choose", "predict", "next", "report", "power"),
)
QUICK = ["--workers", "2", "--chunk-tokens", "128", "--steps-per-dispatch", "8", "--evaluations", "2"]


@pytest.fixture
def call(capsys):
    """Run a command in this process. Returns (exit code, standard output, standard error)."""

    def run(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as ended:  # tyro: help, or a word that it does not know
            code = ended.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def one_line(said) -> str:
    code, out, err = said
    assert code == 2 and out == "" and err.startswith("gaplaw: error: ") and err.count("\n") == 1, said
    return err


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a corpus, an experiment of one teacher and one student, and a simulated table."""
    home = tmp_path_factory.mktemp("home")
    texts(home / "texts")
    (home / "experiments").mkdir()
    (home / "experiments" / "small.py").write_text(
        f"from tests.sweep.sweeps import tiny_sweep\n"
        f"sweep = tiny_sweep('folder:{home}/texts', name='small', teachers=(8,), seeds=(0,), baseline=False)\n"
    )
    table = simulate(students=np.geomspace(1e6, 1e8, 5), teachers=np.geomspace(2e6, 2e9, 8), seeds=2, noise_nats=0.0005)
    table.to_csv(home / "table.csv", index=False)
    return home


@pytest.fixture(scope="module")
def law(home):
    path = home / "law.json"
    assert cli.main(["fit", str(home / "table.csv"), "--out", str(path)]) == 0
    return path


def test_help_comes_without_jax_or_pandas():
    code = (
        "import sys; from gaplaw import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('jax', 'pandas', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "[]\n"
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(call, verb):
    code, out, _ = call(verb, "--help")
    assert code == 0 and f"Example: gaplaw {verb}" in out


def test_a_real_sweep_from_plan_to_status_in_a_plain_folder(call, home, monkeypatch):
    monkeypatch.chdir(home)
    code, out, _ = call("plan", "small", "--json")
    planned = json.loads(out)
    assert code == 0 and [row["role"] for row in planned] == ["teacher", "student"] and not (home / "runs").exists()
    assert all(row["flops"] > 0 and row["estimated_seconds"] > 0 and row["disk_bytes"] > 0 for row in planned)

    code, out, err = call("run", "small", "--out", "runs/small", "--json", *QUICK)
    summary = json.loads(out)
    assert code == 0 and (summary["done"], summary["failed"]) == (2, 0), err
    assert "started: " in err and "finished: " in err

    frame = results.read("runs/small").set_index("role")
    assert set(frame.index) == {"teacher", "student"} and (frame.status == "done").all()
    # the teacher that the student met is the teacher that was trained: read back from its checkpoint, same loss, same
    # tokens
    assert frame.loss_teacher_ce_nats["student"] == pytest.approx(frame.loss_student_ce_nats["teacher"], rel=1e-4)
    assert frame.kl_teacher_student_nats["student"] > 0
    assert frame.student_params.to_dict() == {row["role"]: row["student_params"] for row in planned}
    assert len(results.read("runs/small", "curves").query("validation_loss_nats.notna()")) == 4

    written = {path: path.stat().st_mtime_ns for path in results.row_files("runs/small")}
    code, out, _ = call("run", "small", "--out", "runs/small", *QUICK)
    assert code == 0 and "2 of 2 cells done (2 of them before)" in out
    assert written == {path: path.stat().st_mtime_ns for path in results.row_files("runs/small")}

    code, out, _ = call("status", "runs/small")
    assert code == 0 and "2 of 2 cells done, 0 failed" in out and "no process is working on it" in out
    status = json.loads(call("status", "runs/small", "--json")[1])
    assert status["roles"] == {"teacher": {"done": 1}, "student": {"done": 1}}
    assert "done" in call("plan", "small", "--out", "runs/small")[1]

    url = f"file://{home}/runs/small"  # the same folder, as an object store
    assert call("status", url)[1] == call("status", "runs/small")[1]
    assert call("plan", "small", "--out", url)[1] == call("plan", "small", "--out", "runs/small")[1]
    code, out, _ = call("run", "small", "--out", url, *QUICK)
    assert code == 0 and "2 of 2 cells done (2 of them before)" in out and f"results in {url}" in out
    assert call("report", url)[1] == f"report written to {url}/report.html\n"
    assert (home / "runs/small/report.html").is_file()


def test_a_law_is_fitted_to_a_url_and_asked_there(call, home):
    url = f"file://{home}/table.csv"
    assert call("fit", url, "--out", home / "again.json")[0] == 0
    there = call("choose", f"file://{home}/again.json", "--student", "3M", "--teachers", "6M,60M")
    assert there[0] == 0 and there == call("choose", home / "again.json", "--student", "3M", "--teachers", "6M,60M")
    assert "No such file" in one_line(call("choose", f"file://{home}/none.json", "--student", "3M", "--teachers", "6M"))


def test_damaged_tokens_and_a_damaged_teacher_are_said_in_one_line_and_made_again(call, home, monkeypatch):
    """Follows the sweep above in its folder (or runs it first)."""
    monkeypatch.chdir(home)
    call("run", "small", "--out", "runs/small", *QUICK)

    def losses():
        frame = results.read("runs/small").set_index("role").sort_index()
        return frame[[name for name in frame if name.endswith("_nats")]]

    before = losses()
    student = next(path for path in results.row_files("runs/small") if path.name.startswith("s"))
    student.unlink()
    (checkpoint,) = Path("runs/store/teachers").glob("*/checkpoint")
    for path in checkpoint.rglob("*"):
        if path.is_file() and path.name != "model.json":
            path.write_bytes(b"damaged")
    tokens = data.load(resolve(tiny_sweep(f"folder:{home}/texts")).teachers[0].data).folder / "train.npy"
    flip(tokens)
    code, out, err = call("run", "small", "--out", "runs/small", *QUICK)
    assert code == 0, err
    assert err.count("not a readable list of checksums") == 1 and "is trained again" in err
    assert err.count(f"{tokens}: damaged") == 1
    pd.testing.assert_frame_equal(losses(), before)


def test_what_is_wrong_with_an_experiment_or_a_folder_is_one_line(call, home, monkeypatch, tmp_path):
    monkeypatch.chdir(home)
    line = one_line(call("plan", "smal"))
    assert "known here: " in line and "small" in line
    (tmp_path / "raises.py").write_text("x = {}['missing']\n")
    assert "raises.py, line 1" in one_line(call("run", tmp_path / "raises.py"))
    (tmp_path / "size.py").write_text("from gaplaw import model_for\nmodel_for('12Q', vocab_size=256, max_length=8)\n")
    assert "'12Q'" in one_line(call("plan", tmp_path / "size.py"))
    (tmp_path / "nodata.py").write_text(
        "from tests.sweep.sweeps import tiny_sweep\nsweep = tiny_sweep('folder:/no/such/folder')\n"
    )
    assert "/no/such/folder" in one_line(call("plan", tmp_path / "nodata.py"))
    (tmp_path / "file").write_text("")
    assert "cannot be written" in one_line(call("run", "small", "--out", tmp_path / "file" / "run"))
    assert "no such folder" in one_line(call("status", tmp_path / "nowhere"))
    assert "holds no sweep" in one_line(call("status", tmp_path))
    assert "no such folder" in one_line(call("report", tmp_path / "nowhere"))
    assert "Execution.workers = 0" in one_line(call("run", "small", "--workers", "0"))


def test_an_unknown_option_exits_2_with_a_suggestion(call):
    code, out, err = call("plan", "small", "--jsn")
    assert code == 2 and out == "" and "--json" in err


def test_fit_choose_predict_and_next_print_exactly_one_json_document(call, home, law):
    code, out, _ = call("fit", home / "table.csv", "--out", home / "again.json", "--json")
    assert code == 0 and json.loads(out)["law_file"] == str(home / "again.json")
    ask = ("choose", law, "--student", "30M", "--teachers", "70M,130M,700M")
    code, out, _ = call(*ask, "--json")
    choice = json.loads(out)
    assert code == 0 and choice["recommended"] == "130M"  # simulated with T* = 4 S
    assert [teacher["name"] for teacher in choice["teachers"]] == ["70M", "130M", "700M"]
    assert "130M" in call(*ask)[1]
    code, out, _ = call("predict", law, home / "table.csv", "--json")
    predicted = json.loads(out)["student_loss"]
    measured = pd.read_csv(home / "table.csv").student_loss
    assert code == 0 and np.abs(np.array(predicted) - measured).median() < 0.002
    code, out, _ = call("next", law, "--budget-flops", "1e19", "--target", "300M", "--json")
    assert code == 0 and isinstance(json.loads(out), dict)


def test_bad_questions_to_a_law_are_one_line(call, home, law, tmp_path):
    assert "--teachers" in one_line(call("choose", law, "--student", "3B"))
    assert "--student" in one_line(call("choose", law, "--student", "big", "--teachers", "7B"))
    assert "no_such.json" in one_line(call("choose", "no_such.json", "--student", "3B", "--teachers", "7B"))
    (tmp_path / "torn.json").write_text('{"schema')
    assert "torn.json" in one_line(call("predict", tmp_path / "torn.json", home / "table.csv"))
    assert "nothing.csv" in one_line(call("fit", "nothing.csv"))
    assert "wrong" in one_line(call("fit", home / "table.csv", "--columns", "wrong=column"))


def test_with_json_an_error_is_a_document_too(call, home, tmp_path):
    table = pd.read_csv(home / "table.csv")
    mixed = pd.concat([table.assign(protocol="scratch"), table.assign(protocol="prune")])
    mixed.to_csv(tmp_path / "mixed.csv", index=False)
    code, out, err = call("fit", tmp_path / "mixed.csv", "--out", tmp_path / "law.json", "--json")
    told = json.loads(out)["error"]
    assert code == 2 and told["kind"] == "MixedProtocolsError" and told["message"] in err and err.count("\n") == 1


def test_a_refused_law_ends_with_3_says_why_in_one_line_and_still_writes_the_file(call, home, tmp_path):
    table = pd.read_csv(home / "table.csv")
    few = table[table.teacher_params.isin(sorted(table.teacher_params.unique())[:3])]
    few.to_csv(tmp_path / "few.csv", index=False)
    code, out, err = call("fit", tmp_path / "few.csv", "--out", tmp_path / "few.json", "--json")
    assert code == cli.asking.REFUSED == 3 and err.startswith("gaplaw: refused: ") and err.count("\n") == 1
    assert (tmp_path / "few.json").exists() and any(f["severity"] == "refusal" for f in json.loads(out)["flags"])


def test_the_report_of_a_sweep_that_has_not_run_is_a_page_and_a_folder_that_is_no_run_is_refused(call, tmp_path):
    for name in ("law.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    code, out, err = call("report", tmp_path)
    assert (code, out) == (2, "") and "holds no run" in err and str(tmp_path) in err and err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "law.json").unlink()
    (tmp_path / "sweep.json").write_text("{}")  # not a readable one: said on the page
    assert call("report", tmp_path)[0] == 0 and (tmp_path / "report.html").read_text().startswith("<!")
    code, _, err = call("report", tmp_path / "notes.txt")
    assert code == 2 and "is a file" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "gaplaw: interrupted"),
        (OSError(28, "No space left on device", "/full/disk"), 2, "gaplaw: error: /full/disk: cannot be written"),
        (OSError(30, "Read-only file system", "/ro"), 2, "gaplaw: error: /ro: cannot be written"),
        (RuntimeError("two\nlines"), 1, "gaplaw: unexpected RuntimeError: two lines (traceback in "),
    ],
)
def test_exceptions_become_one_line_and_an_exit_code(call, monkeypatch, fault, code, said):
    def dispatch(words):
        raise fault

    monkeypatch.setattr(cli, "_dispatch", dispatch)
    got, out, err = call("status", "x")
    assert (got, out) == (code, "") and err.startswith(said) and err.count("\n") == 1
    if code == 1:
        log = Path(err.rpartition("traceback in ")[2].rstrip(")\n"))
        assert "in dispatch" in log.read_text()
        log.unlink()
        with pytest.raises(RuntimeError):
            cli.main(["status", "--debug"])


def test_a_reader_that_closes_the_pipe_early_is_no_error(home):
    command = f"{sys.executable} -m gaplaw.cli plan {home}/experiments/small.py | true"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=home, env=environment)
    assert all(line.startswith("gaplaw: warning: ") for line in done.stderr.splitlines()), done.stderr
