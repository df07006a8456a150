"""What do the fitted forms say together? Their weighted mean in ln loss, at the best fit and in every draw.

Between `stacking`, which fits it, and `surface`, which asks it, in the law half. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.law.teacher_loss.correction import Correction
from gaplaw.law.teacher_loss.forms import BrokenPowerForm, DriftForm, Inputs, ReachForm

FORMS = {"reach": ReachForm(), "drift": DriftForm(), "broken_power": BrokenPowerForm()}
NO_TEACHER = 1e3  # ln L_T of no teacher that was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedForm:
    """One fitted form: theta (P,), its correction and coefficients (m,), and draws theta (R, P), coefficients (R,
    m).
    """

    kind: str
    weight: float
    theta: np.ndarray
    correction: Correction
    coefficients: np.ndarray
    theta_draws: np.ndarray | None = None
    coefficient_draws: np.ndarray | None = None
    status: str = "converged"
    share_at_best: float = 1.0
    scale: float = 0.0  # robust sd of the form's own decorrelated residuals, ln units
    loso_rms: float | None = None  # rms of leave-one-student-out errors, ln units

    @property
    def form(self):
        return FORMS[self.kind]

    def log_loss(self, inputs: Inputs, z: np.ndarray) -> np.ndarray:
        """Point prediction of ln L_S, (n,)."""
        return self.form.value(self.theta[None], inputs)[0] + self.correction.features(z) @ self.coefficients

    def log_loss_draws(self, inputs: Inputs, z: np.ndarray) -> np.ndarray:
        """(R, n)."""
        return self.form.value(self.theta_draws, inputs) + self.coefficient_draws @ self.correction.features(z).T

    def teacher_draws(self, z: np.ndarray) -> np.ndarray:
        """What each teacher does to all its students, ln units, (R, n)."""
        phi = self.correction.teacher.features(z)
        return self.coefficient_draws[:, -phi.shape[1] :] @ phi.T


@dataclass(frozen=True, slots=True, kw_only=True)
class FormAverage:
    """The weighted forms, and what leaving students out showed.

    Attributes:
        components: the fitted forms with their weights, which sum to 1.
        reach_theta: (10,) of ReachForm, whose floor ln M places the correction.
        fitted_log_loss: (n,) ln L_S of the fitted rows; empty in a law that was read from a file.
        left_out_log_loss: (n,) the same, predicted without the row's student size; None below three sizes.
    """

    components: tuple[FittedForm, ...]
    reach_theta: np.ndarray  # (10,) of ReachForm: its floor is ln M
    fitted_log_loss: np.ndarray  # (n,) ln L_S
    left_out_log_loss: np.ndarray | None  # (n,) ln L_S predicted without the row's student size; None below three sizes

    def log_loss(self, inputs: Inputs, teachers: bool = True) -> np.ndarray:
        """ln L_S, (n,); without `teachers`, under a teacher like any other of its loss."""
        z = correction_inputs(self.reach_theta, inputs, teachers)
        return sum(part.weight * part.log_loss(inputs, z) for part in self.components)

    def log_loss_draws(self, inputs: Inputs, teachers: bool = True) -> np.ndarray:
        """(R, n): every draw is one form, drawn as often as its weight, so that the forms' disagreement is in the
        spread.
        """
        z = correction_inputs(self.reach_theta, inputs, teachers)
        return np.concatenate([part.log_loss_draws(inputs, z) for part in self.components])

    def teacher_draws(self, log_teacher: np.ndarray) -> np.ndarray:
        """What teachers of these losses do to all their students beyond their loss, ln units, (R, n)."""
        z = np.zeros((len(log_teacher), 4))
        z[:, 3] = log_teacher
        return np.concatenate([part.teacher_draws(z) for part in self.components])


def correction_inputs(reach_theta, inputs: Inputs, teachers: bool = True) -> np.ndarray:
    """Where rows sit for the correction: z = (ln L_T − ln M, ln(D_S / N_S), ln N_S, ln L_T), (n, 4).

    Args:
        reach_theta: (10,) of ReachForm. inputs: the rows.
        teachers: without, a row belongs to no measured teacher.
    """
    floor = FORMS["reach"].floor(reach_theta[None], inputs)
    teacher = inputs.t if teachers else np.full_like(inputs.t, NO_TEACHER)
    return np.stack(np.broadcast_arrays(inputs.t - floor[0], inputs.ratio, inputs.x, teacher), axis=1)
