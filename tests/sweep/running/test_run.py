"""Running a sweep: order, reuse, retries, crashes, several runs on one folder. Workers are real processes; see
`sweeps.StandIn`.
"""

import io
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from gaplaw import results
from gaplaw.errors import SweepError
from gaplaw.sweep import resolve, run
from gaplaw.sweep.engines.engine import HOST_LOST
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.running.status import status_of
from tests.sweep.sweeps import QUICK, StandIn, one_teacher, ran, tiny_sweep


def go(sweep, out, worker=StandIn(), execution=QUICK, **options):  # noqa: B008 (frozen)
    """Run quietly. Returns (summary, what was shown)."""
    shown = Console(file=io.StringIO(), width=200)
    return run(sweep, out, execution, shown, executor=worker, **options), shown.file.getvalue()


def names(cells):
    return [cell.name for cell in cells]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "tiny"


def test_every_cell_gets_a_row_teachers_before_their_students_and_a_second_run_does_nothing(sweep, out):
    summary, shown = go(sweep, out)
    assert (summary.done, summary.failed, summary.cells) == (len(sweep.cells), 0, len(sweep.cells))
    order = ran(out)
    assert sorted(order) == sorted(names(sweep.cells))
    assert all(order.index(cell.teacher.name) < order.index(cell.name) for cell in sweep.students)
    frame = results.read(out).set_index("cell_id")
    assert set(frame.index) == {cell.id for cell in sweep.cells} and (frame.status == "done").all()
    assert (
        list((out / "tasks").iterdir()) == list((out / "progress").iterdir()) == list((out / "locks").iterdir()) == []
    )
    again, _ = go(sweep, out)
    assert (again.done_before, again.done) == (len(sweep.cells), len(sweep.cells)) and ran(out) == order


def test_another_sweep_beside_it_reuses_its_teachers(sweep, source, out):
    go(sweep, out)
    longer = resolve(tiny_sweep(source, name="longer", student_tokens=16 * 8 * 14))
    summary, shown = go(longer, out.parent / "longer")
    assert summary.done == len(longer.cells)
    assert not set(ran(out.parent / "longer")) & set(names(longer.teachers))
    loss = [results.read(folder).set_index("cell_id").loss_student_ce_nats for folder in (out, out.parent / "longer")]
    assert all(loss[0][cell.id] == loss[1][cell.id] for cell in sweep.teachers)


def test_only_missing_failed_and_damaged_cells_are_run_again(sweep, out):
    go(sweep, out)
    begun = len(ran(out))
    folder = RunFolder(out)
    missing, damaged, failed = sweep.students[0], sweep.baselines[0], sweep.students[3]
    folder.row_path(missing).unlink()
    folder.row_path(damaged).write_bytes(b"torn")
    folder.write_failure(sweep, failed, "killed", QUICK)
    summary, shown = go(sweep, out)
    assert summary.done == len(sweep.cells) and summary.failed == 0
    assert sorted(ran(out)[begun:]) == sorted(names([missing, damaged, failed]))
    assert f"{folder.row_path(damaged)}: damaged" in shown


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_cell_whose_curve_alone_is_gone_is_run_again(sweep, out, harm):
    go(sweep, out)
    begun, folder, victim = len(ran(out)), RunFolder(out), sweep.students[2]
    curve = folder.part("curves") / f"{victim.id}.parquet"
    curve.unlink() if harm == "missing" else curve.write_bytes(curve.read_bytes()[:100])
    summary, shown = go(sweep, out)
    assert ran(out)[begun:] == [victim.name] and summary.done == len(sweep.cells)
    assert f"{curve}: {harm}; the cell is run again" in shown
    assert set(results.read(out, "curves").cell_id) == {cell.id for cell in sweep.cells}


def test_a_teachers_curve_is_taken_from_the_store_and_made_again_when_it_is_gone_there_too(sweep, out):
    small = one_teacher(sweep)
    go(small, out)
    begun, (teacher,) = len(ran(out)), small.teachers
    here = RunFolder(out).part("curves") / f"{teacher.id}.parquet"
    there = RunFolder(out).store / "teachers" / teacher.id / "curves" / here.name
    here.unlink()
    assert go(small, out)[0].done == 3 and here.exists() and len(ran(out)) == begun
    here.unlink()
    there.unlink()
    assert go(small, out)[0].done == 3 and here.exists() and there.exists()
    assert ran(out)[begun:] == [teacher.name]


def test_a_question_alone_may_be_edited_and_is_shown_by_the_next_run_which_runs_nothing(sweep, out):
    go(one_teacher(sweep), out)
    begun = len(ran(out))
    summary, shown = go(replace(one_teacher(sweep), question="Why not?"), out)
    assert summary.done == 3 and len(ran(out)) == begun and "question is now another" in shown
    assert status_of(out).text().startswith("tiny: Why not?\n")


def test_a_cell_that_goes_nan_is_a_failed_row_that_touches_nobody_and_is_tried_again(sweep, out):
    victim = sweep.students[1]
    summary, shown = go(sweep, out, StandIn(not_finite=victim.name))
    assert (summary.done, summary.failures) == (len(sweep.cells) - 1, {victim.id: "training loss became nan"})
    begun = len(ran(out))
    assert go(sweep, out)[0].failed == 0
    assert ran(out)[begun:] == [victim.name]


@pytest.mark.parametrize(("fault", "said"), [("crash", "killed by SIGKILL"), ("error", "ValueError: cannot train")])
def test_a_crashed_group_is_tried_cell_by_cell_and_only_the_culprit_fails(sweep, out, fault, said):
    culprit = next(group for group in sweep.groups() if group.teacher).cells[
        0
    ]  # the others of its group wait behind it
    summary, shown = go(sweep, out, StandIn(**{fault: culprit.name}))
    assert list(summary.failures) == [culprit.id] and said in summary.failures[culprit.id]
    assert summary.done == len(sweep.cells) - 1
    # With its group (a second time after a kill, which may pass), then alone; not for ever.
    assert ran(out).count(culprit.name) == {"crash": 3, "error": 2}[fault]
    assert "one by one" in shown
    assert results.read(out).set_index("cell_id").loc[culprit.id, "error"] == summary.failures[culprit.id]


def test_a_group_that_crashes_after_getting_further_goes_on_whole(sweep, out):
    culprit = sweep.students[-1]
    summary, shown = go(sweep, out, StandIn(crash_twice=culprit.name))
    assert summary.failed == 0 and ran(out).count(culprit.name) == 3
    assert shown.count("it goes on from its checkpoint") == 2 and "one by one" not in shown
    assert not (out / "checkpoints").exists()


def test_a_group_whose_teacher_cache_is_damaged_starts_again_whole(sweep, out):
    culprit = sweep.students[0]
    summary, shown = go(sweep, out, StandIn(damaged_once=culprit.name))
    assert summary.failed == 0 and ran(out).count(culprit.name) == 2
    assert shown.count("unfinished cells start again") == 1 and "one by one" not in shown


def test_students_of_a_failed_teacher_fail_with_its_error_and_recover_with_it(sweep, out):
    teacher = sweep.teachers[0]
    orphans = {cell.id for cell in sweep.students if cell.teacher == teacher}
    summary, _ = go(sweep, out, StandIn(crash=teacher.name))
    assert set(summary.failures) == orphans | {teacher.id}
    assert all(f"teacher {teacher.id} failed" in summary.failures[name] for name in orphans)
    assert go(sweep, out)[0].done == len(sweep.cells)


def test_a_teacher_whose_checkpoint_is_gone_is_trained_again_only_if_a_student_needs_it(sweep, out):
    go(sweep, out)
    begun, first = len(ran(out)), sweep.teachers[0]
    folder = RunFolder(out)
    for teacher in sweep.teachers:
        shutil.rmtree(folder.teacher_entry(teacher) / "checkpoint")
    needy = next(cell for cell in sweep.students if cell.teacher == first)
    folder.row_path(needy).unlink()
    assert go(sweep, out)[0].done == len(sweep.cells)
    assert ran(out)[begun:] == [first.name, needy.name]


def test_two_runs_share_a_folder_without_doing_anything_twice(sweep, out):
    worker = StandIn(seconds=0.3)
    with ThreadPoolExecutor(2) as pool:
        summaries = list(pool.map(lambda _: go(sweep, out, worker)[0], range(2)))
    assert [summary.done for summary in summaries] == [len(sweep.cells)] * 2
    assert sorted(ran(out)) == sorted(names(sweep.cells))


def test_a_run_waits_for_the_claims_of_others_and_takes_over_expired_ones(sweep, out):
    folder = RunFolder(out)
    folder.make()
    group = next(group for group in sweep.groups() if group.teacher is not None)
    place, key = folder.claim_of(group, keeps=False)
    held = folder.claims.claim(place / key)  # by this live process, which never sends a heartbeat
    result = {}
    thread = threading.Thread(target=lambda: result.update(summary=go(sweep, out, expiry_seconds=4)[0]))
    thread.start()
    thread.join(timeout=3)
    done = {cell.name for cell in sweep.cells if folder.state(cell).status == "done"}
    assert thread.is_alive() and not done & set(names(group.cells))
    thread.join(timeout=60)
    assert result["summary"].done == len(sweep.cells) and not held.beat()


def test_a_folder_of_other_science_is_refused_and_left_as_it_was(sweep, source, out):
    go(sweep, out)
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(SweepError, match="different science"):
        go(resolve(tiny_sweep(source, student_tokens=16 * 8 * 20)), out)
    assert sorted(path.name for path in out.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_in_one_line(sweep, out):
    out.mkdir(parents=True)
    out.chmod(0o500)
    with pytest.raises(SweepError, match="cannot be written"):
        go(sweep, out)


def test_a_disk_that_fills_up_ends_the_run_in_one_line_and_keeps_what_was_finished(sweep, out):
    class Full:
        started = 0

        def prepare(self, execution):
            pass

        def start(self, folder, group_id, execution):
            self.started += 1
            if self.started > 2:
                raise OSError(28, "No space left on device", str(folder.out))
            return StandIn().start(folder, group_id, execution)

    with pytest.raises(SweepError, match="No space left on device") as caught:
        go(sweep, out, Full())
    assert "\n" not in str(caught.value)
    assert go(sweep, out)[0].done == len(sweep.cells)


def test_one_worker_and_one_cell_is_a_sweep_too(sweep, out):
    alone = replace(sweep, students=(), baselines=(), teachers=sweep.teachers[:1])
    assert go(alone, out)[0].done == 1


class Losing:
    """An engine whose first hosts vanish as soon as a group starts on them."""

    def __init__(self, hosts):
        self.hosts = hosts

    def prepare(self, execution):
        pass

    def start(self, folder, group_id, execution):
        handle = StandIn(seconds=0 if self.hosts <= 0 else 60).start(folder, group_id, execution)
        self.hosts -= 1
        if self.hosts < 0:
            return handle
        handle.stop()
        return SimpleNamespace(log=handle.log, poll=lambda: HOST_LOST, ending=lambda: "node 7 died", stop=handle.stop)


def test_groups_of_lost_hosts_start_again_whole_and_nothing_is_lost(sweep, out):
    summary, shown = go(sweep, out, Losing(2))
    assert (summary.done, summary.failed) == (len(sweep.cells), 0)
    assert shown.count("node 7 died") == 2 and "one by one" not in shown


def test_a_group_that_loses_every_host_fails_with_that_reason_and_is_tried_by_the_next_run(sweep, out):
    alone = replace(sweep, students=(), baselines=(), teachers=sweep.teachers[:1])
    summary, _ = go(alone, out, Losing(100))
    assert ["node 7 died" in error for error in summary.failures.values()] == [True]
    assert go(sweep, out)[0].failed == 0
