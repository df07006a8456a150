"""Every refusal is reached from a table or a question that deserves it: a kind for machines and a sentence for
people.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gaplaw.errors import MixedProtocolsError
from gaplaw.law import fit
from gaplaw.law.flags import Flag, worst_first
from gaplaw.law.simulation.simulate import simulate
from gaplaw.law.teacher_loss import stacking as loss_stack
from gaplaw.law.teacher_size import fit as size_fit
from tests.law.worlds import STUDENTS, alone, world

GRID = {"students": np.geomspace(5e7, 8e8, 4), "teachers": np.geomspace(1e8, 6.4e9, 7), "noise_nats": 0.003, "rng": 2}
COLUMNS = ["student_params", "student_tokens", "teacher_loss", "student_loss"]


def by_size(keep=lambda frame: frame, **truth):
    return {flag.kind: flag for flag in fit(keep(simulate(**GRID | truth)), compare=False, draws=40).flags}


def law_by_loss(change=lambda frame: frame):
    frame = world("broken power")[COLUMNS]
    ratio = frame["student_tokens"] / frame["student_params"]
    fixed = np.isclose(ratio, 20) | np.isclose(ratio, 80)  # a part of the design that is quick to fit
    return fit(change(frame[fixed]), draws=20)


def by_loss(*change):
    return {flag.kind: flag for flag in law_by_loss(*change).flags}


def said(flags, kind, severity):
    assert flags[kind].severity == severity and len(flags[kind].message.split()) > 4
    return True


@pytest.mark.parametrize(
    ("truth", "kind"),
    [
        ({"shape": "flat"}, "curvature_not_significant"),
        ({"shape": "falling"}, "edge_optimum_high"),
        ({"shape": "rising"}, "edge_optimum_low"),
        ({"k": 60.0, "depth": 0.01, "noise_nats": 0.005}, "no_interior_minimum"),
        ({"teachers": GRID["teachers"][:4]}, "few_teachers"),
        ({"students": GRID["students"][:2]}, "few_students"),
    ],
)
def test_tables_of_sizes_that_have_no_answer(truth, kind):
    assert said(by_size(**truth), kind, "refusal")


def test_tables_of_sizes_whose_answer_is_doubtful(monkeypatch):
    flags = by_size(
        lambda frame: frame.assign(protocol="prune|soft=1.0", no_teacher_loss=frame["student_loss"].min() - 0.1)
    )
    for kind in ("single_seed", "students_from_teacher", "teacher_no_better"):
        assert said(flags, kind, "warning")
    assert "single_seed" not in by_size(seeds=2)
    honest = size_fit.fit_joint
    monkeypatch.setattr(size_fit, "fit_joint", lambda design: replace(honest(design), share_of_starts=0.01, gap=0.5))
    law = fit(simulate(**GRID), compare=False, draws=40)
    assert law.status == "starts disagree" and said({f.kind: f for f in law.flags}, "starts_disagree", "warning")


@pytest.mark.slow
def test_tables_of_losses_that_have_no_answer():
    few = np.sort(world("broken power")["teacher_loss"].unique())[:4]
    assert said(by_loss(lambda frame: frame[frame["teacher_loss"].isin(few)]), "few_teachers", "refusal")
    assert said(by_loss(lambda frame: frame[frame["student_params"].isin(STUDENTS[:2])]), "few_students", "refusal")
    noise = 0.004 * np.random.default_rng(0).standard_normal(300)

    def flat(frame):
        return frame.assign(student_loss=1.5 + 300 / frame["student_params"] ** 0.3 + noise[: len(frame)])

    law = law_by_loss(flat)
    assert said({flag.kind: flag for flag in law.flags}, "curvature_not_significant", "refusal") and law.refused
    assert law.optimum(5e8, 1e10).teacher_loss is None
    assert law.choose(student_params=5e8, teachers=[2.0, 2.2]).recommended is None
    stronger = by_loss(
        lambda frame: flat(frame).assign(student_loss=flat(frame)["student_loss"] + 0.5 * frame["teacher_loss"])
    )
    assert said(stronger, "no_interior_minimum", "refusal")


def test_tables_of_losses_whose_answer_is_doubtful(monkeypatch):
    def pruned(frame):
        return frame.assign(
            protocol="prune|soft=1.0", no_teacher_loss=alone(frame["student_params"], frame["student_tokens"])
        )

    flags = by_loss(pruned)
    assert said(flags, "single_seed", "note") and said(flags, "students_from_teacher", "warning")
    assert said(flags, "teacher_no_better", "note") and said(flags, "edge_optimum", "note")
    honest = loss_stack.fit_form

    def lonely(*arguments, **options):
        minima, scale = honest(*arguments, **options)
        others = np.arange(len(minima.objective)) != minima.best
        return replace(minima, objective=minima.objective * np.where(others, 2.0, 1.0)), scale

    monkeypatch.setattr(loss_stack, "fit_form", lonely)
    assert said(by_loss(), "starts_disagree", "warning")


def test_questions_that_have_no_answer_or_a_doubtful_one():
    law = fit(simulate(**GRID), compare=False, draws=40)

    def ask(student, teachers=("1B", "4B")):
        choice = law.choose(student_params=student, teachers=list(teachers))
        return choice, {flag.kind: flag for flag in choice.flags}

    near, flags = ask("3.2B")
    assert (
        near.recommended
        and said(flags, "extrapolation", "warning")
        and "4 times outside" in flags["extrapolation"].message
    )
    far, flags = ask("9T")
    assert far.recommended is None and far.optimum.teacher_params is None and said(flags, "extrapolation", "refusal")
    assert said(ask("100M", ("1B", "90B"))[1], "teacher_outside", "warning")
    assert said(ask("6B")[1], "edge_optimum_high", "warning")


def test_mixed_protocols_have_a_class_of_their_own():
    frame = simulate(**GRID)
    mixed = pd.concat([frame.assign(protocol="scratch"), frame.assign(protocol="prune")], ignore_index=True)
    with pytest.raises(MixedProtocolsError, match="row 28, column protocol: mixed protocols"):
        fit(mixed)


def test_flags_are_ordered_unique_and_survive_json():
    flags = [Flag("a", "one", "note"), Flag("b", "two", "refusal"), Flag("a", "one", "note")]
    assert [flag.kind for flag in worst_first(flags)] == ["b", "a"]
    assert Flag.from_dict(flags[1].to_dict()) == flags[1]
    with pytest.raises(ValueError, match="severity"):
        Flag("a", "one", "fatal")
