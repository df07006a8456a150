"""The joint fit recovers a known law, its derivatives are right, and its starts agree on a clean table."""

import numpy as np
import pytest

from gaplaw.errors import LawError
from gaplaw.law.simulation.simulate import simulate, true_optimum
from gaplaw.law.table.read import read_table
from gaplaw.law.teacher_size.bowl import SHAPES
from gaplaw.law.teacher_size.design import design_of_table
from gaplaw.law.teacher_size.joint import fit_joint, solve
from gaplaw.law.teacher_size.problem import project

STUDENTS = 5e7 * 2.0 ** np.arange(6)
TEACHERS = np.geomspace(1e8, 1.28e10, 7)


def table_design(**world):
    frame = simulate(**{"students": STUDENTS, "teachers": TEACHERS, "rng": 0} | world)
    return frame, design_of_table(read_table(frame))


@pytest.mark.parametrize("p", [0.7, 1.0])
def test_recovers_ratio_and_exponent(p):
    frame, design = table_design(p=p, shape="two_sided", asymmetry=4, noise_nats=1e-4)
    fit = fit_joint(design.design)
    truth = np.log(true_optimum(frame, np.exp(design.references.student)))
    assert fit.best.location[0, 0] == pytest.approx(truth, abs=0.04)
    assert fit.best.location[0, 1] == pytest.approx(p, abs=0.01)
    assert fit.share_of_starts > 0.5


def test_recovers_the_exponent_of_tokens():
    _, design = table_design(q=0.4, noise_nats=5e-4, student_tokens=(10, 40, 160), students=STUDENTS[::2])
    assert design.design.names == ("kappa", "p", "q")
    assert fit_joint(design.design).best.location[0, 2] == pytest.approx(0.4, abs=0.03)


def test_tokens_that_follow_size_earn_no_exponent():
    _, design = table_design()
    assert design.design.names == ("kappa", "p")


def test_objective_falls_and_gradient_vanishes_at_the_answer():
    """At the optimum no small move of any coordinate lowers the objective (independent of the solver's derivatives)."""
    _, design = table_design(asymmetry=3, noise_nats=0.003)
    fit = fit_joint(design.design)
    m = design.design.columns.shape[1]
    moves = np.concatenate([np.eye(m + SHAPES), -np.eye(m + SHAPES)]) * 1e-3 + fit.theta
    neighbours = solve(fit.problem, moves[:, :m], moves[:, m:], variance=fit.variance, iterations=0)
    assert neighbours.objective.min() > fit.best.objective[0] - 1e-4


def test_offsets_are_projected_out():
    """Adding any constant to one student's losses changes nothing."""
    frame, design = table_design(noise_nats=0.003)
    shifted_frame = frame.assign(student_loss=frame["student_loss"] + 0.3 * (frame["student_params"] == STUDENTS[2]))
    other = design_of_table(read_table(shifted_frame))
    assert np.allclose(project(design.design).target, project(other.design).target, atol=1e-12)


def test_random_effects_whiten():
    """The compressed least squares equals generalised least squares done the long way."""
    _, design = table_design(noise_nats=0.01)
    design = design.design
    n = len(design.y)
    effects = 1.3 * (design.teacher[design.cell][:, None] == np.arange(design.teacher.max() + 1)).astype(float)
    problem = project(design, effects=effects)
    cells = np.random.default_rng(0).standard_normal(len(design.x))
    inverse = np.linalg.inv(np.eye(n) + effects @ effects.T)
    offsets = np.eye(design.offset.max() + 1)[design.offset]
    residual = design.y - cells[design.cell]
    c = np.linalg.solve(offsets.T @ inverse @ offsets, offsets.T @ inverse @ residual)
    residual = residual - offsets @ c
    compressed = problem.target - problem.mix @ cells
    assert residual @ inverse @ residual == pytest.approx(compressed @ compressed + problem.rest, rel=1e-9)


def test_edge_students_still_inform():
    """Dropping the two students whose optimum lies past the grid widens what is known about p."""
    frame, design = table_design(k=12.0, noise_nats=0.003)
    edge = [n for n in STUDENTS if true_optimum(frame, n) > TEACHERS[-1]]
    assert len(edge) >= 1
    fewer = design_of_table(read_table(frame[~frame["student_params"].isin(edge)]))

    def precision(lay_):
        from gaplaw.law.teacher_size import intervals

        refits = intervals.draw_refits(fit_joint(lay_.design), 120, np.random.default_rng(0))
        return refits.location[:, 1].std()

    assert precision(design) < precision(fewer)


def test_one_outlier_does_not_move_the_law():
    frame, design = table_design(noise_nats=0.002)
    without = design_of_table(read_table(frame.drop(index=17)))
    clean = fit_joint(without.design)
    frame.loc[17, "student_loss"] += 0.5
    dirty = fit_joint(design_of_table(read_table(frame)).design)
    assert dirty.best.location[0, 1] == pytest.approx(clean.best.location[0, 1], abs=0.02)
    assert dirty.best.location[0, 0] == pytest.approx(clean.best.location[0, 0], abs=0.05)
    assert dirty.robust[17] < 0.02


def test_steep_walls_have_one_optimum():
    """Walls hundreds of nats high, whose curvature changes fast: the objective is smooth in κ, so its profile turns
    once.
    """
    _, design = table_design(shape="power", asymmetry=4, noise_nats=0.003)
    fit = fit_joint(design.design)
    kappa = fit.theta[0] + np.linspace(-0.4, 0.4, 33)
    start = np.tile(fit.theta, (len(kappa), 1))
    start[:, 0] = kappa
    solutions = solve(fit.problem, start[:, :2], start[:, 2:], variance=fit.variance, fixed_columns=(0,), iterations=60)
    fall = np.diff(solutions.objective)
    assert np.sum(np.diff(np.sign(fall[np.abs(fall) > 1e-2])) != 0) == 1


def test_students_with_one_teacher_each_are_refused():
    frame, _ = table_design()
    with pytest.raises(LawError, match="two teachers"):
        design_of_table(read_table(frame.groupby("student_params", as_index=False).first()))
