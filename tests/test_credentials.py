"""Credentials in a URL never reach what people read: errors, manifests, logs, laws."""

import itertools
import json
import random
import string

import pytest

from gaplaw import cli
from gaplaw.credentials import has_credentials, mask_answer, mask_credentials
from gaplaw.errors import GaplawError

fsspec = pytest.importorskip("fsspec")

KEY, SECRET, TOKEN = "AKIAQ7", "wJal/rXU+tn", "ghp-5Zk9"
URLS = (
    f"s3://{KEY}:{SECRET}@bucket/runs/x",
    f"s3://{KEY}:{SECRET.replace('/', '%2F')}@bucket/runs/x",
    f"gs://bucket/runs/x?token={TOKEN}",
    f"s3://bucket/runs/x?X-Amz-Credential={KEY}&X-Amz-Signature={TOKEN}",
)
TABLES = (
    *(f"{url}/table.csv" for url in URLS[:2]),
    f"https://user:{TOKEN}@host/table.csv",
    f"https://host/t.csv?sig={TOKEN}",
)


def hidden(text):
    return not any(secret in text for secret in (KEY, SECRET, SECRET.replace("/", "%2F"), TOKEN))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://K:S@bucket/runs", "s3://***@bucket/runs"),
        ("s3://K:S/E/C@bucket/runs", "s3://***@bucket/runs"),
        ("https://user:p@ss@host/x", "https://***@host/x"),
        ("s3:/K:S/E@bucket/runs", "s3:/***@bucket/runs"),  # what a path object leaves
        ("https://token@host/x", "https://***@host/x"),
        ("https://host/x.csv?token=a&v=1", "https://host/x.csv?***"),
        ("https://host/x#access_token=a", "https://host/x#***"),
        ("simplecache::s3://K:S@bucket/x", "simplecache::s3://***@bucket/x"),
    ],
)
def test_what_is_secret_in_a_url_is_masked_and_the_place_stays_readable(url, shown):
    assert mask_credentials(url) == shown and has_credentials(url) and mask_credentials(shown) == shown
    assert mask_credentials(f"{url} and '{url}'") == f"{shown} and '{shown}'"


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/runs@2/x",
        "https://host:8080/a@b",
        "file:///tmp/a@b/c#1",
        "folder:/data@home/a@b: there is no such folder",
        "tfds:c4/en@train[:1%]",
        "TrainSpec.tokens = 0: must be above 0",
        "10.0.0.1:1234",
    ],
)
def test_what_holds_no_credentials_stays_as_it_is(text):
    assert mask_credentials(text) == text and not has_credentials(text)


def test_no_part_of_a_random_credential_survives():
    draw = random.Random(0)
    alphabet = string.ascii_letters + string.digits + "+/=%-_.~!$&*"
    for _ in range(300):
        user, secret = (f"Zq{''.join(draw.choices(alphabet, k=12))}9" for _ in range(2))
        url = f"s3://{user.replace('/', '')}:{secret}@bucket/path"
        for text in (mask_credentials(f"{url}: no"), mask_answer(f'Invalid bucket name "{url[5:-5]}", {secret}', url)):
            assert secret not in text and user.replace("/", "") not in text and "bucket" in text
        assert secret not in mask_credentials(f"https://host/path?sig={secret}")


@pytest.mark.parametrize(
    "answer", ["{'key': 'AKIAQ7', 'secret': 'wJal'}", "aws_secret_access_key=wJal", "token: AKIAQ7"]
)
def test_a_clients_own_words_for_its_options_are_masked(answer):
    said = mask_answer(f"cannot connect ({answer})", "s3://bucket/x")
    assert "AKIAQ7" not in said and "wJal" not in said and said.startswith("cannot connect (")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run a verb where every store answers with all that it was given. Returns: the exit code and all that was said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("from tests.toy import sweep\n")

    def indiscreet(url, **_):
        raise ValueError(
            f"Invalid bucket name {url.partition('://')[2]!r} of {url} ({{'key': '{KEY}', 'token': '{TOKEN}'}})"
        )

    monkeypatch.setattr(fsspec.core, "url_to_fs", indiscreet)
    monkeypatch.setattr("gaplaw.sweep.planning.load.resolve", lambda sweep, **_: sweep)

    def run(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code
        shown = capsys.readouterr()
        assert not any(part.name != "mine.py" for part in tmp_path.iterdir())
        return code, shown.out + shown.err

    return run


VERBS = (
    ["plan", "mine.py", "--out", "URL"],
    ["run", "mine.py", "--out", "URL"],
    ["run", "mine.py", "--json", "--out", "URL"],
    ["emit", "skypilot", "mine.py", "--target", "gpu:h100x8", "--out", "URL"],
    ["emit", "gke-jobset", "mine.py", "--image", "i", "--target", "gpu:h100x8", "--out", "URL"],
    ["status", "URL"],
    ["status", "URL", "--no-such-option"],
    ["run", "mine.py", "--uot", "URL"],
)
READERS = (
    ["fit", "URL"],
    ["fit", "URL", "--json"],
    ["choose", "URL", "--student", "3M", "--teachers", "6M"],
    ["predict", "URL", "table.csv"],
    ["next", "URL", "--budget-flops", "1e9", "--target", "3M"],
    ["report", "URL"],
)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_run_folder_with_credentials_is_refused_and_they_are_not_shown(call, words):
    for url in URLS:
        code, said = call(*(url if word == "URL" else word for word in words))
        assert code == 2 and hidden(said) and said.strip(), said
        assert said.count("\n") == 1 + ("--json" in words), said
        if "URL" in words[-2:] and "--uot" not in words and words[-1] == "URL":
            assert "must not hold credentials" in said


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_a_verb_that_reads_a_url_does_not_show_its_credentials(call, words):
    for url in TABLES if words[0] == "fit" else URLS:
        code, said = call(*(url if word == "URL" else word for word in words))
        assert code == 2 and hidden(said) and "***" in said and said.count("\n") == 1 + ("--json" in words), said


def test_a_url_for_a_file_of_this_machine_is_refused_and_no_folder_is_named_after_its_scheme(call):
    for url in URLS:
        for words in (
            ["fit", "table.csv", "--out", url],
            ["report", "runs/x", "--out", url],
            ["choose", "law.json", "--student", "3M", "--teachers-file", url],
        ):
            code, said = call(*words)
            assert code == 2 and hidden(said) and "must be a file on this machine" in said and said.count("\n") == 1


def test_an_unexpected_fault_is_masked_in_its_line_and_in_its_log(call, monkeypatch):
    def fault(words):
        raise RuntimeError(f"at {URLS[0]}")

    monkeypatch.setattr(cli, "_dispatch", fault)
    code, said = call("status", "x")
    log = said.rpartition("traceback in ")[2].rstrip(")\n")
    text = open(log).read()
    assert code == 1 and hidden(said) and "in fault" in text and hidden(text)


def test_an_error_that_goes_into_a_row_is_masked():
    from gaplaw.sweep.running.worker import one_line

    for url in URLS:
        assert hidden(one_line(OSError(f"{url}: refused"))) and "OSError" in one_line(OSError(url))


def test_every_refusal_masks_its_own_message():
    kinds = [GaplawError, *GaplawError.__subclasses__()]
    for kind, url in itertools.product(kinds, URLS):
        assert hidden(str(kind(f"{url}: no"))) and hidden(repr(kind(f"{url}: no")))


def test_a_law_remembers_its_table_without_credentials(tmp_path, monkeypatch):
    import numpy as np

    from gaplaw.law.simulation.simulate import simulate
    from gaplaw.law.table import read as table

    simulate(students=np.geomspace(1e6, 1e8, 4), teachers=np.geomspace(2e6, 2e9, 6), seeds=1).to_csv(
        tmp_path / "table.csv"
    )

    class Here:
        def __enter__(self):
            return tmp_path / "table.csv", str

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(table, "brought_here", lambda url: Here())
    assert table.read_table(TABLES[0]).source == "s3://***@bucket/runs/x/table.csv"
    assert hidden(json.dumps(table.read_table(TABLES[2]).source))
