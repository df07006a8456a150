"""An experiment file is read, or refused in one line that says what and where."""

import sys
from dataclasses import replace

import pytest

from gaplaw.cli import main
from gaplaw.errors import DataError, SweepError
from gaplaw.spec import Execution
from gaplaw.sweep import load_experiment, resolve
from gaplaw.sweep.planning.load import home_of, load
from tests.sweep.sweeps import texts, tiny_sweep

GOOD = """
from gaplaw import DataSpec, ModelSpec, Sweep, TrainSpec
shape = ModelSpec(vocab_size=256, width=4, depth=1, heads=1, head_size=4, hidden=4, max_length=16)
def {name}():
    return Sweep.grid(name="mine", question="?", data=DataSpec(sequence_tokens=16), teachers=[shape], students=[shape],
                      teacher_train=TrainSpec(tokens=4 * 1024), student_train=TrainSpec(tokens=4 * 1024))
"""


def refusal(path) -> str:
    with pytest.raises(SweepError) as caught:
        load_experiment(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_with_a_function_or_a_value_and_a_bare_name_all_give_the_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "experiments" / "mine.py", GOOD.format(name="sweep"))
    value = write(tmp_path / "experiments" / "value.py", GOOD.format(name="make") + "sweep = make()\n")
    assert load_experiment(str(path)) == load_experiment("mine") == load_experiment(str(value))
    assert len(load_experiment("mine").cells) == 5


def test_a_missing_file_is_named_and_a_wrong_bare_name_lists_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "experiments" / "mine.py", "")
    assert "no/such.py" in refusal("no/such.py") and "no such file" in refusal("no/such.py")
    assert "mine" in refusal("yours")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x = 1\ny = [1][3]\n", ("line 2", "y = [1][3]", "IndexError")),
        ("import nowhere_to_be_found\n", ("line 1", "ModuleNotFoundError")),
        ("def sweep():\n    return 1 / 0\n", ("line 2", "return 1 / 0", "ZeroDivisionError")),
        ("x = (\n", ("line 1", "SyntaxError")),
        ("import sys\nsys.exit(0)\n", ("line 2", "SystemExit")),
        ("x = 1\n", ("`sweep`", "nothing of that name")),
        ("sweep = 'quickstart'\n", ("a Sweep", "found a str")),
        ("from gaplaw import ModelSpec\n"
         "ModelSpec(vocab_size=0, width=1, depth=1, heads=1, head_size=1, hidden=1, max_length=1)\n",
         ("line 2", "vocab_size = 0", "at least 1")),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_one_line_that_says_where(tmp_path, text, parts):
    line = refusal(write(tmp_path / "bad.py", text))
    assert all(part in line for part in ("bad.py", *parts)), line


def test_resolving_makes_fingerprints_of_content_not_of_paths(tmp_path):
    here, there = (resolve(tiny_sweep(f"folder:{texts(tmp_path / name)}")) for name in ("here", "there"))
    assert [cell.id for cell in here.cells] == [cell.id for cell in there.cells]
    assert all(cell.data.manifest for cell in here.cells)
    assert {cell.teacher.fingerprint for cell in here.students} == {cell.fingerprint for cell in here.teachers}
    (tmp_path / "there" / "0.txt").write_text("another text " * 400)
    changed = resolve(tiny_sweep(f"folder:{tmp_path / 'there'}"))
    assert {cell.id for cell in changed.cells}.isdisjoint(cell.id for cell in here.cells)


def test_a_missing_corpus_and_a_small_vocabulary_are_refused(tmp_path, source):
    with pytest.raises(DataError):
        resolve(tiny_sweep(f"folder:{tmp_path / 'nothing'}"))
    sweep = tiny_sweep(source)
    small = replace(sweep.teachers[0], model=replace(sweep.teachers[0].model, vocab_size=200))
    with pytest.raises(SweepError, match="vocab_size = 200.*at least 256"):
        resolve(replace(sweep, teachers=(small,), students=(), baselines=()))


def test_an_experiment_may_say_how_it_wants_to_be_run(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("from tests.toy import sweep, Execution\nexecution = Execution(workers=7)\n")
    assert load(str(path)) == (load_experiment(str(path)), Execution(workers=7))
    path.write_text("execution = 3\n")
    for function in (load, load_experiment):
        with pytest.raises(SweepError, match="must be an Execution; found a int"):
            function(str(path))


def test_an_experiment_may_import_the_files_beside_it_and_leaves_none_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = sys.path.copy()
    for name, question in (("one", "first?"), ("two", "second?")):
        write(tmp_path / name / "sizes_of_ours.py", f"QUESTION = {question!r}\n")
        lines = "\nimport sizes_of_ours\n" + GOOD.format(name="make").replace('"?"', "sizes_of_ours.QUESTION")
        path = write(tmp_path / name / "mine.py", lines + "sweep = make\n")  # called after the file has been run
        assert load_experiment(str(path)).question == question
        assert load_experiment(f"{name}/mine.py").question == question
    assert "sizes_of_ours" not in sys.modules and sys.path == paths
    write(tmp_path / "two" / "sizes_of_ours.py", "1 / 0\n")
    assert "mine.py, line 2: import sizes_of_ours: ZeroDivisionError" in refusal(tmp_path / "two" / "mine.py")


WITH_PATHS = """
from gaplaw import DataSpec
from tests.sweep.sweeps import tiny_sweep
sweep = tiny_sweep("folder:data/texts")
"""


def test_relative_paths_are_relative_to_the_experiment_file(tmp_path, monkeypatch):
    path = write(tmp_path / "experiments" / "mine.py", WITH_PATHS)
    (tmp_path / "experiments" / "data").mkdir()
    here = texts(tmp_path / "experiments" / "data" / "texts")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "data" / "texts").mkdir(parents=True)
    (elsewhere / "data" / "texts" / "0.txt").write_text("a decoy in the working directory " * 100)
    found = []
    for folder, name in (
        (tmp_path, "experiments/mine.py"),
        (tmp_path / "experiments", "mine.py"),
        (elsewhere, str(path)),
    ):
        monkeypatch.chdir(folder)
        found.append(resolve(load_experiment(name), home=home_of(name)))
    assert found[0] == found[1] == found[2]
    assert {cell.data.source for cell in found[0].cells} == {f"folder:{here}"}
    assert [cell.id for cell in found[0].cells] == [cell.id for cell in resolve(tiny_sweep(f"folder:{here}")).cells]


@pytest.mark.parametrize("tokenizer", ["file:none/t.json", "bytes"])
def test_a_missing_path_is_printed_in_full(tmp_path, monkeypatch, tokenizer):
    monkeypatch.chdir(tmp_path)
    replaced = "folder:data/texts" if tokenizer == "bytes" else "stdlib"
    text = (
        WITH_PATHS.replace("folder:data/texts", replaced)
        + f"""
from dataclasses import replace
cells = tuple(replace(cell, data=replace(cell.data, tokenizer={tokenizer!r})) for cell in sweep.teachers)
sweep = replace(sweep, teachers=cells, students=(), baselines=())
"""
    )
    write(tmp_path / "experiments" / "mine.py", text)
    with pytest.raises(DataError) as refusal:
        resolve(load_experiment("mine"), home=home_of("mine"))
    wanted = "data/texts" if tokenizer == "bytes" else "none/t.json"
    assert f":{tmp_path}/experiments/{wanted}'" in str(refusal.value) and "\n" not in str(refusal.value)


def test_without_an_experiment_file_paths_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    texts(tmp_path / "texts")
    monkeypatch.chdir(tmp_path)
    assert {cell.data.source for cell in resolve(tiny_sweep("folder:texts")).cells} == {f"folder:{tmp_path / 'texts'}"}


def test_data_that_is_absent_keeps_the_identity_that_its_file_gives_it(tmp_path, monkeypatch):
    """A provisional identity speaks of paths, so these must not depend on the machine."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    sweep, absent = tiny_sweep("tfds:no_such_dataset_here"), []
    cells = tuple(replace(c, data=replace(c.data, tokenizer="file:a/tokenizer.json")) for c in sweep.teachers)
    sweep = replace(sweep, teachers=cells, students=(), baselines=())
    assert resolve(sweep, absent=absent, home=tmp_path).cells == sweep.cells and absent


def test_plan_says_what_it_does_not_read(tmp_path, capsys):
    path = write(tmp_path / "mine.py", WITH_PATHS.replace("data/texts", "texts"))
    (texts(tmp_path / "texts") / "more.json").write_text("{}")
    assert main(["plan", str(path), "--json"]) == 0
    told = capsys.readouterr()
    assert told.err.count(f"'folder:{tmp_path}/texts': not read: 1 .json") == 1 and ".json" not in told.out
