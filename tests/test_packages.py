"""Without its packages a command says in one line which are missing and how to install them, and writes nothing."""

import configparser
import re
import sys
from importlib.util import find_spec

import pytest

from gaplaw import cli, data, packages
from gaplaw.errors import SweepError
from gaplaw.spec import DataSpec
from tests.conftest import ROOT

VERBS = {
    "run": (["run", "EXPERIMENT", "--out", "runs/x"], packages.TRAINING | packages.DATA),
    "run on an engine": (["run", "EXPERIMENT", "--executor", "ray", "--out", "runs/x"], packages.DATA),
    "rehearse": (["rehearse", "EXPERIMENT"], packages.TRAINING | packages.DATA),
    "plan --target": (["plan", "EXPERIMENT", "--target", "v5e:2x2", "--out", "runs/x"], packages.TRAINING),
}


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    """Run a verb in an empty folder without some modules. Returns: its error, the only thing that it said or left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("from tests.toy import sweep\n")

    def run(words, absent):
        monkeypatch.setattr(packages, "find_spec", lambda name: None if name in absent else find_spec(name))
        assert cli.main(["mine.py" if word == "EXPERIMENT" else word for word in words]) == 2
        shown = capsys.readouterr()
        assert shown.out == "" and shown.err.count("\n") == 1 and shown.err.startswith("gaplaw: error: "), shown
        assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
        return shown.err

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_names_what_is_missing_and_how_to_install_it(call, verb):
    words, needed = VERBS[verb]
    said = call(words, needed.values())
    assert f"needs {', '.join(needed)}; install with: pip install -e '{ROOT}[train]'\n" in said
    for package, module in needed.items():
        assert f"needs {package}; install" in call(words, [module])


PLANNED = """
from gaplaw.spec.sweep import Sweep
from gaplaw.spec import DataSpec, ModelSpec, TrainSpec
shape = dict(vocab_size=300, depth=1, heads=1, head_size=8, hidden=16, max_length=16)
small, large = (ModelSpec(width=w, **shape) for w in (8, 16))
recipe = TrainSpec(tokens=640, batch_sequences=4)
sweep = Sweep.grid(
    name="mine", question="?", data=DataSpec(source=SOURCE, tokenizer=TOKENIZER, sequence_tokens=16),
    teachers=[large], students=[small], teacher_train=recipe, student_train=recipe,
)
"""


@pytest.mark.parametrize(
    ("source", "tokenizer"),
    [
        ("stdlib", "bytes"),
        ("tfds:none/such", "bytes"),
        *(("folder:texts", kind) for kind in ("bpe:300", "file:own.json")),
    ],
)
def test_a_plan_needs_no_extra_and_says_what_was_not_counted(tmp_path, capsys, monkeypatch, source, tokenizer):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("some text\n" * 100)
    (tmp_path / "own.json").write_text('{"model": {"vocab": {"a": 0}}}')
    (tmp_path / "mine.py").write_text(PLANNED.replace("SOURCE", repr(source)).replace("TOKENIZER", repr(tokenizer)))
    absent = {*packages.TRAINING.values(), *packages.DATA.values()}
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in absent else find_spec(name))
    monkeypatch.setenv("GAPLAW_CACHE", str(tmp_path / "cache"))
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["plan", str(tmp_path / "mine.py"), "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr()
    assert " cells, 0 done" in shown.out and "text: tokens not counted yet (gaplaw run counts them)" in shown.out
    assert (source == "tfds:none/such") == ("not on this machine" in shown.err)


def test_preparing_text_names_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "one.txt").write_text("some text")
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "filelock" else find_spec(name))
    with pytest.raises(SweepError, match="preparing .*: needs filelock; install with: pip install -e "):
        data.load(DataSpec(source=f"folder:{tmp_path}"), tmp_path / "cache")


def test_a_package_within_one_that_is_absent_counts_as_missing(monkeypatch):
    assert not packages._is_here("no_such_package.inside") and packages._is_here("orbax.checkpoint")


def test_a_manifest_needs_yaml_and_says_so(call, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    words = ["emit", "skypilot", "EXPERIMENT", "--target", "gpu:h100x8", "--out", "s3://b/x"]
    assert f"needs the package PyYAML; install with: pip install -e '{ROOT}[cloud]'" in call(words, [])


def test_the_packages_are_those_of_the_extra():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extra = [re.split("[>=]", line)[0] for line in setup["options.extras_require"]["train"].split()]
    assert {*extra} == {*packages.TRAINING, *packages.DATA}


def test_away_from_a_clone_the_line_says_where_to_type_it(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "__file__", str(tmp_path / "gaplaw" / "packages.py"))
    assert packages.install_with("tpu") == "install with: pip install -e '.[tpu]' in a clone of gaplaw"


def test_no_message_asks_for_a_package_index_that_does_not_have_gaplaw():
    for path in (ROOT / "gaplaw").rglob("*.py"):
        assert not re.search(r"pip install ['\"]?gaplaw", path.read_text()), path
