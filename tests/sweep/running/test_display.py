"""What is shown while a sweep runs follows from progress files, and the time left from what has been measured."""

import io
import os
from dataclasses import replace

import pytest
from rich.console import Console

from gaplaw.files import write_json
from gaplaw.sweep.folder.run_folder import RunFolder, seconds_now
from gaplaw.sweep.planning.estimate import Clock, Machine
from gaplaw.sweep.planning.make_plan import works_of
from gaplaw.sweep.running.display import LiveScreen, PlainScreen, one_line, picture, screen_for
from gaplaw.sweep.running.eta import Eta, Running, Snapshot, progress_of
from gaplaw.sweep.running.status import status_of
from tests.sweep.sweeps import QUICK


@pytest.fixture(autouse=True)
def fixed_rates(monkeypatch):
    machine = Machine(matrix_flops_per_second={16: 1e9}, elements_per_second=1e9, memory_bytes_per_second=1e10)
    monkeypatch.setattr("gaplaw.sweep.planning.estimate.measure_machine", lambda single_thread: machine)


def told(group="from-t1", step=50, steps=200, **more):
    return {
        "group": group,
        "host": "here",
        "phase": "train",
        "step": step,
        "steps": steps,
        "tokens": step * 100,
        "tokens_per_second": 1000.0,
        "losses_nats": {"a": 2.0, "b": 3.0},
        "updated": seconds_now(),
    } | more


def snapshot(**more):
    running = (Running.of(told()),)
    values = dict(
        sweep="tiny", cells=8, done=3, failed=1, groups_left=2, running=running, elsewhere=(), seconds_left=75.0
    )
    return Snapshot(**values | dict(measured=True, elapsed_seconds=20.0) | more)


def test_a_running_groups_time_left_is_its_own_measured_rate(sweep):
    work = works_of(sweep, Clock(execution=QUICK))[-1]
    steps, batch = work.group.cells[0].steps, work.group.cells[0].batch_tokens
    now = told(step=steps // 2, steps=steps, tokens=steps // 2 * batch, tokens_per_second=batch / 2.0)  # 2 s a step
    eta = Eta(Clock(execution=QUICK))
    left, measured = eta.seconds_left([], [(work.id, work.group, 5.0, now)], 0, 2)
    assert measured and left == pytest.approx(2.0 * (steps - steps // 2))


def test_the_time_left_of_waiting_groups_follows_finished_ones_and_is_an_estimate_before(sweep):
    works = [work for work in works_of(sweep, Clock(execution=QUICK)) if work.group.teacher]
    eta = Eta(Clock(execution=QUICK))
    assert eta.seconds_left(works, [], 0, 2)[1] is False
    eta.learn(works[0].group, 40.0, {"tokens": 1000, "tokens_per_second": 1000 / 30})
    left, measured = eta.seconds_left([works[0]], [], 0, 2)
    assert measured and left == pytest.approx(40.0)
    assert eta.seconds_left([], [], 0, 2)[0] is None


def test_plain_lines_say_everything_and_only_every_ten_seconds(monkeypatch):
    shown = Console(file=io.StringIO(), width=200)
    screen = screen_for(shown)
    assert isinstance(screen, PlainScreen)
    screen.event("started: x")
    screen.update(snapshot)  # too early for a state line
    screen.told -= 11
    screen.update(snapshot)
    lines = shown.file.getvalue().splitlines()
    assert len(lines) == 2 and lines[0].endswith("started: x")
    assert all(
        part in lines[1]
        for part in ("3/8 cells done", "1 failed", "from-t1 25% (1k tokens/s)", "about 1 min 15 s left")
    )


def test_an_unmeasured_time_left_is_called_an_estimate():
    assert "estimate" in one_line(snapshot(measured=False))
    assert "estimate" not in one_line(snapshot())
    assert "nothing left" in one_line(snapshot(seconds_left=None, groups_left=0))


def test_no_time_is_promised_while_all_that_is_done_is_waiting_for_others():
    held = "far (pid 4711) since 2026-01-01 10:00:00, runs/locks/x"
    waiting = snapshot(running=(), waiting=(held, "near (pid 1), runs/locks/y"), seconds_left=14.0)
    assert f"waiting for {held} and 1 others" in one_line(waiting) and " left" not in one_line(waiting)
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(picture(waiting, 200))
    assert f"waiting for {held}" in console.export_text()
    assert "about 1 min 15 s left" in one_line(snapshot(waiting=(held,)))  # something runs here


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_live_table_has_a_bar_per_group_and_one_for_the_sweep_at_any_width(width):
    elsewhere = tuple(Running.of(told(group=f"other-{i}", host="there")) for i in range(20))
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(picture(snapshot(elsewhere=elsewhere), width))
    text = console.export_text()
    assert "from-t1" in text and "tiny" in text and "and 9 more groups" in text and "25%" in text
    if width == 160:
        assert all(part in text for part in ("25%", "2.500 nats", "on there", "3/8 cells, 1 failed", "50%"))
        head, first = text.splitlines()[:2]  # which loss it is stands above it
        assert head.index("objective") + len("objective") == first.index("nats") + len("nats")
    assert ("training objective" in text) == ("2.500 nats" in text)


def test_a_terminal_gets_the_live_table_and_markup_in_events_is_harmless():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    screen = screen_for(console)
    assert isinstance(screen, LiveScreen)
    with screen:
        screen.event("failed: [red]x[/nonsense]: boom")
        screen.update(snapshot)
    assert "[red]x[/nonsense]" in console.file.getvalue()


def test_progress_of_dead_processes_is_not_shown(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.make()
    fresh, stale, failed = told("fresh"), told("stale", updated=seconds_now() - 500), told("failed", phase="failed")
    for one in (fresh, stale, failed):
        write_json(folder.part("progress") / f"{one['group']}.json", one)
    (folder.part("progress") / "torn.json").write_text('{"group": ')
    assert [one["group"] for one in progress_of(folder)] == ["fresh"]


def test_status_counts_by_role_from_files_alone(sweep, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    folder.adopt(sweep)
    folder.write_failure(sweep, sweep.students[0], "training loss became nan", QUICK)
    folder.row_path(sweep.teachers[0]).write_bytes(b"torn")
    write_json(folder.part("progress") / "g.json", told("from-t2", host="far"))
    os.chmod(folder.out, 0o500)
    found = status_of(folder.out)
    os.chmod(folder.out, 0o700)
    assert (found.cells, found.done, found.failed, found.missing) == (8, 0, 1, 7)
    assert found.roles["student"] == {"failed": 1, "missing": 3} and found.roles["teacher"] == {
        "corrupt": 1,
        "missing": 1,
    }
    text = found.text()
    assert "from-t2 25%" in text and "on far" in text and "became nan" in text and "damaged" in text
    assert replace(found, running=()).text().count("no process is working on it") == 1
