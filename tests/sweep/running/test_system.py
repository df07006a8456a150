"""On a system without POSIX modules, `run` says so in one line before anything is written, and everything else
works.
"""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT

WITHOUT = """
import os, sys
# they know their system
import matplotlib.pyplot, numpy, pandas, pyarrow.parquet, rich.console, scipy.optimize, scipy.stats, tyro
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("getuid", "geteuid", "uname", "sched_setaffinity", "sched_getaffinity", "O_NOFOLLOW", "killpg"):
    if hasattr(os, name):
        delattr(os, name)
import signal
del signal.SIGKILL
from gaplaw import cli
table = sys.argv[1]
import gaplaw.report.page, gaplaw.sweep
law = os.path.join(sys.argv[2], "law.json")
codes = [
    cli.main(["run", "quickstart", "--out", os.path.join(sys.argv[2], "run")]),
    cli.main(["fit", table, "--out", law]),
    cli.main(["choose", law, "--student", "2k", "--teachers", "6k,14k"]),
    cli.main(["status", table]),
]
print("codes", *codes, len(gaplaw.read(table)), os.path.exists(os.path.join(sys.argv[2], "run")))
"""


def test_without_fcntl_run_is_refused_in_one_line_and_the_law_half_and_status_work(tmp_path):
    results = ROOT / "experiments" / "results" / "quickstart"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(results), str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("gaplaw: ")]
    assert "codes 2 0 0 0 79 False" in done.stdout, done.stderr
    assert said[0].startswith("gaplaw: error: gaplaw run needs Linux or macOS") and "unexpected" not in done.stderr


@pytest.mark.parametrize(("kinds", "there"), [((), False), (("device",), False), (("device", "pinned_host"), True)])
def test_pinned_host_memory_is_asked_of_every_device(kinds, there):
    from gaplaw.train.mesh import has_pinned_host_memory

    good = SimpleNamespace(addressable_memories=lambda: [SimpleNamespace(kind="pinned_host")])
    asked = SimpleNamespace(addressable_memories=lambda: [SimpleNamespace(kind=kind) for kind in kinds])
    assert has_pinned_host_memory([good, asked]) is there
