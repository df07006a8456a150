"""What follows from how a worker ended is a table: each cause has its answer, and no history of endings goes on for
ever.
"""

import itertools

import pytest

from gaplaw.sweep.engines.engine import HOST_LOST, OUT_OF_MEMORY
from gaplaw.sweep.engines.kernel_memory import KernelKills, oom_kills
from gaplaw.sweep.running.retry import MOST_STARTS, Ending, answer_to, cause_of, what_follows
from gaplaw.sweep.running.worker import BAD_SIGNAL, BAD_TEACHER, HOPELESS

XLA = "XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 34359738368 bytes."


@pytest.mark.parametrize(
    ("code", "error", "cause"),
    [
        (BAD_TEACHER, "x", "damaged teacher"),
        (BAD_SIGNAL, "x", "damaged teacher cache"),
        (HOPELESS, "vocab_size = 0", "hopeless"),
        (HOST_LOST, "node 7 died", "lost machine"),
        (OUT_OF_MEMORY, "worker killed by SIGKILL (9)", "killed, out of memory"),
        (-9, "worker killed by SIGKILL (9)", "killed"),
        (137, "worker ended with exit code 137", "killed"),
        (-11, "worker killed by SIGSEGV (11)", "killed"),
        (-15, "worker killed by SIGTERM (15)", "stopped"),
        (143, "worker ended with exit code 143", "stopped"),
        (-2, "worker killed by SIGINT (2)", "stopped"),
        (130, "KeyboardInterrupt: ", "stopped"),
        (1, XLA, "out of memory"),
        (1, "_ArrayMemoryError: Unable to allocate 3 GiB", "out of memory"),
        (1, "ValueError: cannot train", "exception"),
        (0, "worker ended with exit code 0", "exception"),
    ],
)
def test_each_ending_has_its_cause(code, error, cause):
    assert cause_of(code, error) == cause


def answers(cause, cells, errors=("E",) * 20, further=(), retrained=False, most=20):
    """The answers to one ending after the other of the same cells, until they are no longer tried."""
    endings, given = (), []
    for number, error in zip(range(most), errors, strict=False):
        far = number in further
        endings = (() if far else endings) + (Ending(cause=cause, error=error, further=far),)
        given.append(answer_to(endings, cells, retrained=retrained))
        if given[-1] == "cell by cell":
            cells = 1
        if given[-1] in ("fail", "leave", "train the teacher again"):
            return given
    raise AssertionError(f"{cause}: tried for ever")


@pytest.mark.parametrize(
    ("cause", "cells", "expected"),
    [
        ("hopeless", 1, ["fail"]),
        ("hopeless", 4, ["fail"]),
        ("damaged teacher", 4, ["train the teacher again"]),
        ("damaged teacher cache", 4, ["again", "again", "fail"]),
        ("lost machine", 4, ["again", "again", "fail"]),
        ("lost machine", 1, ["again", "again", "fail"]),
        ("stopped", 1, ["again", "again", "leave"]),
        ("killed", 1, ["again", "again", "fail"]),
        ("killed", 4, ["again", "cell by cell", "fail"]),
        ("exception", 1, ["again", "fail"]),
        ("exception", 4, ["cell by cell", "fail"]),
        ("out of memory", 1, ["fail"]),
        ("out of memory", 4, ["cell by cell", "fail"]),
        ("killed, out of memory", 1, ["again alone", "fail"]),
        ("killed, out of memory", 4, ["again alone", "fail"]),
    ],
)
def test_each_cause_has_its_answer_and_an_end(cause, cells, expected):
    assert answers(cause, cells) == expected


def test_a_teacher_is_trained_again_once():
    assert answers("damaged teacher", 4, retrained=True) == ["fail"]


def test_other_errors_get_three_starts_and_the_same_one_two():
    assert answers("exception", 1, errors=["A", "B", "C", "D"]) == ["again", "again", "fail"]
    assert answers("exception", 1, errors=["A", "B", "A"]) == ["again", "again", "fail"]


@pytest.mark.parametrize("cause", ["killed", "lost machine", "stopped", "killed, out of memory", "exception"])
def test_who_gets_further_has_all_tries_again(cause):
    stuck = answers(cause, 1)
    assert answers(cause, 1, further={0, 1, 2}) == [stuck[0]] * 2 + stuck


def test_no_mixture_of_causes_goes_on_for_ever():
    causes = ("killed", "lost machine", "stopped", "killed, out of memory", "exception", "damaged teacher cache")
    for mixture in itertools.product(causes, repeat=MOST_STARTS + 1):
        endings = tuple(Ending(cause=cause, error="E", further=False) for cause in mixture)
        given = [answer_to(endings[: number + 1], 1) for number in range(len(endings))]
        assert {"fail", "leave"} & set(given), mixture


def test_an_answer_and_its_remedy_are_said_in_one_line():
    killed = Ending(cause="killed, out of memory", error="worker killed by SIGKILL (9)", further=False)
    assert killed.line == (
        "worker killed by SIGKILL (9); killed, probably out of memory: fewer --workers, --accumulate or a smaller "
        "--chunk-tokens needs less memory"
    )
    assert "--remat full" in Ending(cause="out of memory", error=XLA, further=False).line
    assert (
        what_follows("again alone", killed, 1) == "its unfinished cell starts again once, while nothing else works here"
    )
    assert what_follows("cell by cell", killed, 3) == "its 3 unfinished cells are tried one by one"


# ---- kills by the kernel


def system(root, cgroup="", **counters):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for path, text in counters.items():
        file = root / path.replace("__", "/").replace("_at_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_kills_of_our_control_group_are_counted_else_those_of_the_machine(tmp_path):
    events = "low 0\nhigh 0\noom 3\noom_kill 2\n"
    assert oom_kills(tmp_path) is None
    assert oom_kills(system(tmp_path / "machine", proc__vmstat="pgfault 5\noom_kill 7\n")) == 7
    second = system(tmp_path / "v2", "0::/a/b\n", sys__fs__cgroup__a__b__memory_at_events=events)
    assert oom_kills(second) == 2
    container = system(tmp_path / "container", "0::/elsewhere\n", sys__fs__cgroup__memory_at_events=events)
    assert oom_kills(container) == 2
    first = "9:cpu,memory:/job\n0::/\n"
    control = "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"
    older = system(tmp_path / "v1", first)
    (older / "sys/fs/cgroup/memory/job").mkdir(parents=True)
    (older / "sys/fs/cgroup/memory/job/memory.oom_control").write_text(control)
    assert oom_kills(older) == 4


def test_each_kill_of_the_kernel_explains_one_worker_that_lived_then():
    count = [5]
    kills = KernelKills(lambda: count[0])
    start = kills.so_far()
    assert not kills.explain(start)
    count[0] = 7
    assert [kills.explain(start) for _ in range(3)] == [True, True, False]
    assert not kills.explain(kills.so_far())  # a worker that started after them
