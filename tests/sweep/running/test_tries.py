"""Tries by cause, waiting for others, and the last line of a `run`: through `run`, with an engine that ends groups as
asked.
"""

import os
import threading
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from gaplaw import results
from gaplaw.canonical import from_dict
from gaplaw.errors import SweepError
from gaplaw.files import read_json, write_json
from gaplaw.spec import Cell
from gaplaw.sweep.engines.engine import OUT_OF_MEMORY, how_it_ended
from gaplaw.sweep.folder.owner import Owner
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.planning.estimate import Clock
from gaplaw.sweep.planning.make_plan import works_of
from gaplaw.sweep.running.pending import Board
from gaplaw.sweep.running.status import status_of, summary_of
from gaplaw.sweep.running.worker import NO_HOST_MEMORY
from tests.sweep.running.test_run import go
from tests.sweep.sweeps import QUICK, StandIn, one_teacher


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "tiny"


@dataclass
class Ends:
    """An engine whose groups with a cell of this name end with a code, so many times; the others run for a moment."""

    name: str
    code: int
    times: int = 100
    seconds: float = 0.0
    starts: int = 0
    running: list = field(default_factory=list)
    beside: list = field(default_factory=list)  # how many groups were running at each start of the named one

    def prepare(self, execution):
        pass

    def start(self, folder, group_id, execution):
        task = read_json(folder.part("tasks") / f"{group_id}.json")
        named = any(from_dict(Cell, cell).name == self.name for cell in task["cells"])
        if named:
            self.beside.append(sum(handle.poll() is None for handle in self.running))
            self.starts += 1
        if not named or self.starts > self.times:
            self.running.append(StandIn(seconds=self.seconds).start(folder, group_id, execution))
            return self.running[-1]
        log = folder.part("logs") / f"{group_id}.log"
        return SimpleNamespace(
            log=log, poll=lambda: self.code, ending=lambda: how_it_ended(self.code), stop=lambda: None
        )


@pytest.mark.parametrize("code", [-9, -15, 1, OUT_OF_MEMORY])
def test_one_bad_end_of_a_teachers_worker_before_its_first_checkpoint_costs_a_try_and_no_cell(sweep, out, code):
    engine = Ends(sweep.teachers[0].name, code, times=1)
    summary, shown = go(one_teacher(sweep), out, engine)
    assert (summary.done, summary.failed) == (3, 0) and engine.starts == 2
    assert "failed:" not in shown and "its unfinished cell starts again" in shown


def test_a_teacher_that_is_always_killed_fails_after_three_starts_and_its_students_with_it(sweep, out):
    engine = Ends(sweep.teachers[0].name, -9)
    summary, _ = go(one_teacher(sweep), out, engine)
    assert engine.starts == 3 and summary.failed == summary.cells == 3
    assert go(one_teacher(sweep), out)[0].failed == 0


def test_a_group_that_somebody_stops_is_left_without_a_failed_row(sweep, out):
    engine = Ends(sweep.teachers[0].name, -15)
    (out / "checkpoints" / "group" / "7").mkdir(parents=True)
    summary, shown = go(one_teacher(sweep), out, engine)
    assert (out / "checkpoints" / "group" / "7").exists(), "a later run goes on from it"
    assert engine.starts == 3 and (summary.done, summary.failed, len(summary.left)) == (0, 0, 3)
    assert "stopped from outside, which is no failure" in shown and not results.row_files(out)
    assert "left: " in summary.lines()[1] and summary.lines()[-1] == "the same command goes on"
    assert go(one_teacher(sweep), out)[0].done == 3


def test_a_worker_that_the_kernel_killed_starts_again_once_alone_and_names_the_remedy(sweep, out):
    engine = Ends(sweep.teachers[0].name, OUT_OF_MEMORY, seconds=1.0)
    summary, shown = go(sweep, out, engine)
    assert engine.starts == len(engine.beside) == 2 and engine.beside[1] == 0
    assert "killed, probably out of memory: fewer --workers, --accumulate" in summary.failures[sweep.teachers[0].id]
    assert summary.failed == 3 and "while nothing else works here" in shown


# ---- waiting


def far_claim(place):
    """A claim of another machine, dated an hour ahead, that shows no sign of life."""
    owner = replace(Owner.here(), host="far", machine="another", pid=4711)
    place.mkdir(parents=True)
    (place / owner.file_name).touch()
    ahead = time.time() + 3600
    os.utime(place / owner.file_name, (ahead, ahead))


@pytest.fixture
def first_place(sweep, out):
    folder = RunFolder(out)
    folder.make()
    small = one_teacher(sweep)
    group = next(group for group in small.groups() if group.teacher is None)
    place, key = folder.claim_of(group, keeps=True)
    return place / key


def test_a_claim_of_a_dead_host_dated_ahead_is_named_and_taken_over(sweep, out, first_place, monkeypatch):
    monkeypatch.setattr("gaplaw.sweep.running.display.PLAIN_SECONDS", 0.3)
    far_claim(first_place)
    summary, shown = go(one_teacher(sweep), out, expiry_seconds=2.5)
    assert summary.done == 3
    waits = [line for line in shown.splitlines() if "waiting for far (pid 4711) since 20" in line]
    assert waits and all(str(first_place) in line and " left" not in line for line in waits)
    assert any("no sign of life for" in line and "taken over after 2" in line for line in waits)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_claim_ends_the_run_in_one_line_after_all_else_is_done_and_goes_on_request(
    sweep,
    out,
    first_place,
    kind,
):
    first_place.touch() if kind == "file" else (first_place / "old").mkdir(parents=True)
    others = replace(sweep, teachers=sweep.teachers[:1], students=())
    with pytest.raises(
        SweepError, match=f"{first_place}: a .*, not a claim; delete it, or add --remove-junk"
    ) as caught:
        go(others, out, expiry_seconds=0.5)
    assert "\n" not in str(caught.value) and len(results.row_files(out)) == len(sweep.baselines)
    said = status_of(out).text()
    assert f"{first_place}: a f" in said and "--remove-junk" in said
    summary, shown = go(others, out, remove_junk=True)
    assert summary.done == summary.cells and f"removed, no claim: {first_place}" in shown


# ---- what is said at the end, and between two groups


def test_the_last_line_is_what_the_folder_says_then(sweep, out):
    folder = RunFolder(out)
    folder.make()
    board = Board(sweep, folder, works_of(sweep, Clock(execution=QUICK)), QUICK)
    victim = sweep.teachers[0]
    board.fail(victim, "worker killed")
    assert (board.count("failed"), board.failed(victim)) == (1, True)
    row = results.describe_cell(victim, "teacher") | {"sweep": sweep.name, "status": "done"}
    results.write_cell(out, row, [{"tokens": 1}], QUICK)  # another run
    summary = summary_of(board, 1.0, {})
    assert (summary.done, summary.failed, summary.failures) == (1, 0, {})


def test_a_failure_never_takes_the_place_of_what_another_run_has_finished(sweep, out):
    folder = RunFolder(out)
    folder.make()
    works = works_of(sweep, Clock(execution=QUICK))
    board = Board(sweep, folder, works, QUICK)
    teacher = sweep.teachers[0]
    students = next(work for work in works if work.group.teacher == teacher)
    board.fail(teacher, "worker killed")
    assert "worker killed" in board.blocked(students)
    row = results.describe_cell(teacher, "teacher") | {"sweep": sweep.name, "status": "done"}
    results.write_cell(out, row, [{"tokens": 1}], QUICK)  # another run
    assert board.blocked(students) is None
    board.fail(teacher, "its worker was killed here, too")
    assert folder.state(teacher).status == "done"


def test_status_knows_of_a_run_between_two_groups_and_no_more_when_it_has_ended(sweep, out):
    said = []

    class Between:
        def prepare(self, execution):
            pass

        def start(self, folder, group_id, execution):
            said.append(status_of(folder.out))  # nothing runs at this moment
            return StandIn().start(folder, group_id, execution)

    go(one_teacher(sweep), out, Between())
    texts = [one.text() for one in said if not one.running]
    assert texts and all(f"at work here: {Owner.here()} since 20" in text for text in texts)
    assert not any("no process is working on it" in text for text in texts)
    after = status_of(out)
    assert (after.present, after.claims) == ((), ()) and "no process is working on it" in after.text()


def test_a_run_that_was_killed_is_present_no_more(sweep, out):
    folder = RunFolder(out)
    folder.make()
    folder.adopt(sweep)
    gone = replace(Owner.here(), started="1")
    place = folder.part("presence") / "token"
    place.mkdir()
    (place / gone.file_name).touch()
    assert "no process is working on it" in status_of(out).text()
    far_claim(folder.part("presence") / "far")
    said = status_of(out).text()
    assert (
        "no process is working on it" not in said
        and "far (pid 4711)" in said
        and "ahead of this machine's clock" in said
    )
    go(one_teacher(sweep), out)
    assert [entry.name for entry in folder.part("presence").iterdir()] == ["far"]  # not seen for long enough


def test_what_a_worker_remarks_on_its_machine_is_said_once(sweep, out):
    class Remarking:
        def prepare(self, execution):
            pass

        def start(self, folder, group_id, execution):
            write_json(folder.part("progress") / f"{group_id}.json", {"group": group_id, "note": NO_HOST_MEMORY})
            return StandIn().start(folder, group_id, execution)

    _, shown = go(one_teacher(sweep), out, Remarking())
    assert shown.count(f"warning: {NO_HOST_MEMORY}") == 1


def test_runs_at_once_are_all_present(sweep, out):
    folder, worker = RunFolder(out), StandIn(seconds=1.5)
    threads = [threading.Thread(target=go, args=(one_teacher(sweep), out, worker)) for _ in range(2)]
    for thread in threads:
        thread.start()
    seen = 0
    while any(thread.is_alive() for thread in threads):
        seen = max(seen, len(folder.claims.holders(folder.part("presence"))))
        time.sleep(0.05)
    assert seen == 2 and not list(folder.part("presence").iterdir())
