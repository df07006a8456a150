"""A long line or document takes at most three times its size to prepare, whatever its characters; learning a BPE is
bounded.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PREPARE = """
import sys
import pyarrow.parquet, tokenizers
from gaplaw import data
from gaplaw.spec import DataSpec
def most_bytes():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
open("/proc/self/clear_refs", "w").write("5")  # the highest use so far is forgotten
before = most_bytes()
data.load(DataSpec(source=sys.argv[1], tokenizer=sys.argv[2], validation_fraction=0.3), sys.argv[3])
print(most_bytes() - before)
"""


def bytes_to_prepare(folder, tokenizer):
    command = [sys.executable, "-c", PREPARE, f"folder:{folder}", tokenizer, f"{folder}-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


def words(size_bytes):
    import numpy as np

    rng = np.random.default_rng(0)
    some = ["".join(chr(97 + c) for c in rng.integers(26, size=rng.integers(2, 9))) for _ in range(2000)]
    block = " ".join(rng.choice(some, size=20_000)) + " "
    return block * (size_bytes // len(block))


def write(folder, kind, text):
    folder.mkdir()
    if kind == "txt":
        (folder / "a.txt").write_text(text)
        (folder / "b.txt").write_text("short")
        return
    rows = [{"text": text}, {"text": "another " + text}, {"text": "short"}]
    lines = (json.dumps(row, ensure_ascii=kind == "escaped") for row in rows)
    (folder / "a.jsonl").write_text("\n".join(lines))


needs_linux = pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory is read from /proc")


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["txt", "jsonl", "emoji", "escaped"])
def test_a_long_line_takes_at_most_three_times_its_size(tmp_path, kind):
    size_bytes = 100 << 20
    text = words(size_bytes)
    write(tmp_path / "texts", kind, ("🙂" if kind in ("emoji", "escaped") else "") + text)
    assert bytes_to_prepare(tmp_path / "texts", "bytes") < 3 * len(text)


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", "without white space"])
def test_a_bpe_learns_from_a_long_line_in_a_gibibyte(tmp_path, kind):
    """Text without white space is slow to learn from, and no more than 8 MB of it is: 12 MB show the limit."""
    text = words(30 << 20) if kind == "words" else os.urandom(6 << 20).hex()
    write(tmp_path / "texts", "txt", text)
    assert bytes_to_prepare(tmp_path / "texts", "bpe:270") < 1 << 30
