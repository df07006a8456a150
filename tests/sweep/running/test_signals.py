"""A real sweep over a teacher cache, worker by worker: filled once, read again, its fidelity in the rows and in the
store.
"""

from dataclasses import replace

from gaplaw import results
from gaplaw.canonical import to_dict
from gaplaw.spec import TeacherSignal
from gaplaw.sweep import plan
from gaplaw.sweep.folder.run_folder import RunFolder
from gaplaw.sweep.running import worker
from tests.sweep.sweeps import QUICK

TOPK = TeacherSignal(kind="topk", symbols=8)


def work(folder, sweep, group):
    task = {"group": group.id, "sweep": sweep.name, "execution": to_dict(QUICK)}
    task |= {"cells": [to_dict(cell) for cell in group.cells], "roles": {c.id: sweep.role(c) for c in group.cells}}
    keeps = [cell.id for cell in group.cells if cell.teacher is None]
    worker._run_task(folder, task | {"keeps": keeps})


def test_a_cache_is_filled_once_and_its_fidelity_stands_in_the_rows(sweep, tmp_path):
    first = sweep.teachers[0]
    student = next(cell for cell in sweep.students if cell.teacher == first)
    students = (replace(student, name=f"{student.name}-topk8", signal=TOPK),)
    longer = tuple(
        replace(c, name=f"{c.name}-longer", train=replace(c.train, tokens=2 * c.train.tokens)) for c in students[:1]
    )
    small = replace(sweep, teachers=(first,), students=students + longer, baselines=())
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    teacher, group, more = small.groups()
    work(folder, small, teacher)
    work(folder, small, group)
    (cache,) = (folder.store / "signals").glob("*/*")  # of one training of the teacher, of one stream
    filled = (cache / "shards" / "000000.npz").stat().st_mtime_ns
    work(folder, small, group)
    assert (cache / "shards" / "000000.npz").stat().st_mtime_ns == filled
    work(folder, small, more)  # more steps of the same stream: the same cache grows
    assert (cache / "shards" / "000000.npz").stat().st_mtime_ns > filled and len(list(cache.parent.iterdir())) == 1
    rows = results.read(folder.out).set_index("cell_id").loc[[cell.id for cell in students + longer]]
    assert set(rows["teacher_signal"]) == {"topk:8"} and (rows["protocol"].str.endswith("|topk:8")).all()
    assert (rows["teacher_cache_bytes_per_token"] == 8 * 3 + 2).all()  # one temperature
    assert rows["teacher_cache_kept_mass"].between(0.05, 1).all()
    assert (rows["teacher_cache_kl_error_nats"] < 0).all() and (rows["teacher_cache_gradient_agreement"] > 0.5).all()
    assert rows["kl_teacher_student_nats"].notna().all()  # from all logits of the teacher
    arrays = (cache / "shards" / "000000.npz").stat().st_size
    promised = plan(small, QUICK).teacher_cache_bytes
    assert promised <= arrays < promised + 8_000  # names, checksums and headers
