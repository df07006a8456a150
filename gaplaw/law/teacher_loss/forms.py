"""How can a student's loss depend on its teacher's loss? The competing forms, each with exact first derivatives.

Helper of `form_average` and `stacking`, in the law half. Letters: x, y centred ln N_S, ln D_S; t = ln L_T; the
student's capacity term is s = ln(A / N_S^alpha + B / D_S^beta). All forms give ln L_S, are batched over parameter
vectors, and let a student beat its teacher (L_S < L_T) where they can express it.

* `ReachForm`: the bowl on the student's own reachable loss. M = E + (e^s)^gamma is the least loss that distillation
  reaches; ln L_S = ln M + h(ln L_T − ln M − kappa), h an asymmetric bowl with minimum 0 at 0, so that L_T* = c M with c
  = e^kappa. With no-teacher losses at hand M is proportional to L̃_S in effect; without them M is identified by the
  distilled losses alone.
* `DriftForm`: the same, with the place and the strong side of the bowl drifting with tokens per parameter.
* `BrokenPowerForm`: Busbridge et al. 2025 (arXiv 2502.08606, eq. 8) in its identified limit,
  L_S = L_T + L_T^(−c0) exp(−(L_T / Λ)^(1/f1)) (e^s)^gamma'; the break Λ is d L̃_S when no-teacher losses are known, and
  a power of the capacity term otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaplaw.law.numeric.minimise import Residuals

# Weak ridge: (centre, sd) of each kind of parameter, in the units of theta. Wide enough that a table of a few dozen
# rows overrules them; they keep a direction that the table says nothing about (gamma on three students) from running
# away.
_EXPONENT, _GAMMA = (np.log(0.4), 1.0), (np.log(0.8), 0.7)
_FLAT = (0.0, np.inf)
NO_TOKENS = -60.0  # ln B of a table without tokens: no data term


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a form is asked about, n rows, each (n,); a student's own terms may have length one and broadcast."""

    x: np.ndarray  # ln N_S, centred
    y: np.ndarray | None  # ln D_S, centred; None without tokens
    t: np.ndarray  # ln L_T, nats
    no_teacher_log_loss: np.ndarray | None = None  # ln L̃_S where known, nats

    @property
    def ratio(self) -> np.ndarray:
        """Centred ln(D_S / N_S); zero without tokens."""
        return np.zeros_like(self.x) if self.y is None else self.y - self.x


def softplus(v):
    """ln(1 + e^v)."""
    return np.logaddexp(0.0, v)


def sigmoid(v):
    """1 / (1 + e^-v), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * v))


def _terms(theta, inputs: Inputs, at: int):
    """ln of the parameters' and of the tokens' part of the capacity term at columns at..at+3, with the exponents; (B,
    n).
    """
    alpha, beta = np.exp(theta[:, at + 1 : at + 2]), np.exp(theta[:, at + 3 : at + 4])
    y = np.zeros_like(inputs.x) if inputs.y is None else inputs.y
    return theta[:, at : at + 1] - alpha * inputs.x, theta[:, at + 2 : at + 3] - beta * y, alpha, beta, y


def capacity(theta, inputs: Inputs, at: int) -> np.ndarray:
    """s = ln(A / N^alpha + B / D^beta), (B, n), from columns at..at+3 of theta."""
    return np.logaddexp(*_terms(theta, inputs, at)[:2])


def capacity_slopes(theta, inputs: Inputs, at: int):
    """s and its derivatives by (a, ln alpha, b, ln beta); (B, n) and (B, n, 4)."""
    z1, z2, alpha, beta, y = _terms(theta, inputs, at)
    s = np.logaddexp(z1, z2)
    w1 = np.exp(z1 - s)
    w2 = 1.0 - w1
    return s, np.stack([w1, -w1 * alpha * inputs.x, w2, -w2 * beta * y], axis=2)


def bowl(u, p, q, omega) -> np.ndarray:
    """h(u) with slopes −e^p far left and e^q far right, width e^omega, minimum 0 at u = 0.

    h' goes from −e^p to e^q as a logistic; its integral is closed.

    Args:
        u: (B, n) ln units. p, q, omega: (B, 1).
    """
    both = np.exp(p) + np.exp(q)
    width = np.exp(omega)
    return -np.exp(p) * u + both * width * (softplus(u / width + p - q) - (np.log(both) - q))


def bowl_slopes(u, p, q, omega):
    """h, h_u, h_p, h_q, h_omega of the bowl."""
    left, right, width = np.exp(p), np.exp(q), np.exp(omega)
    both = left + right
    v = u / width + p - q
    level = softplus(v) - (np.log(both) - q)
    share = sigmoid(v)
    h = -left * u + both * width * level
    h_u = -left + both * share
    h_p = -left * u + left * width * level + both * width * (share - left / both)
    h_q = right * width * level + both * width * (left / both - share)
    h_omega = both * (width * level - share * u)
    return h, h_u, h_p, h_q, h_omega


class ReachForm:
    """theta = (e, a, ln alpha, b, ln beta, ln gamma, kappa, p, q, omega): see the module docstring."""

    name = "bowl on the reachable loss"
    names = ("e", "a", "ln_alpha", "b", "ln_beta", "ln_gamma", "kappa", "p", "q", "omega")
    ridge = (_FLAT, _FLAT, _EXPONENT, _FLAT, _EXPONENT, _GAMMA, (-0.15, 0.3), (-2.0, 1.5), (0.0, 0.5), (-2.5, 0.8))

    def floor(self, theta, inputs: Inputs) -> np.ndarray:
        """ln M, (B, n)."""
        return np.logaddexp(theta[:, 0:1], np.exp(theta[:, 5:6]) * capacity(theta, inputs, 1))

    def floor_slopes(self, theta, inputs: Inputs):
        """ln M (B, n) and its derivatives by the first six columns (B, n, 6)."""
        gamma = np.exp(theta[:, 5:6])
        s, ds = capacity_slopes(theta, inputs, 1)
        m = np.logaddexp(theta[:, 0:1], gamma * s)
        share = np.exp(gamma * s - m)
        dm = np.empty((*m.shape, 6))
        dm[:, :, 0] = 1 - share
        dm[:, :, 1:5] = (share * gamma)[:, :, None] * ds
        dm[:, :, 5] = share * gamma * s
        return m, dm

    def value(self, theta, inputs: Inputs):
        """ln L_S, (B, n)."""
        m = self.floor(theta, inputs)
        return m + bowl(inputs.t - m - theta[:, 6:7], theta[:, 7:8], theta[:, 8:9], theta[:, 9:10])

    def jacobian(self, theta, inputs: Inputs):
        """ln L_S (B, n) and its derivatives (B, n, P)."""
        m, dm = self.floor_slopes(theta, inputs)
        h, h_u, h_p, h_q, h_omega = bowl_slopes(
            inputs.t - m - theta[:, 6:7], theta[:, 7:8], theta[:, 8:9], theta[:, 9:10]
        )
        rest = np.stack([-h_u, h_p, h_q, h_omega], axis=2)
        return m + h, np.concatenate([(1 - h_u)[:, :, None] * dm, rest], axis=2)

    def starts(self, inputs: Inputs, log_loss) -> np.ndarray:
        """Starts (S, P): the reachable loss from a grid, four bowls on each."""
        out = []
        for base in floor_starts(inputs, log_loss):
            for kappa, p, omega in ((-0.1, -1.5, -3.0), (-0.2, -2.5, -2.0), (-0.1, -3.0, -2.5), (-0.3, -2.0, -1.5)):
                out.append([*base, kappa, p, 0.0, omega])
        return np.array(out)


class DriftForm(ReachForm):
    """ReachForm with kappa and p linear in the centred ln(D_S / N_S): theta gains (kappa_r, p_r)."""

    name = "bowl on the reachable loss, drifting with tokens per parameter"
    names = (*ReachForm.names, "kappa_r", "p_r")
    ridge = (*ReachForm.ridge, (0.0, 0.05), (0.0, 0.3))

    def _parts(self, theta, inputs):
        ratio = inputs.ratio
        return theta[:, 6:7] + theta[:, 10:11] * ratio, theta[:, 7:8] + theta[:, 11:12] * ratio, ratio

    def value(self, theta, inputs: Inputs):
        m = self.floor(theta, inputs)
        kappa, p, _ = self._parts(theta, inputs)
        return m + bowl(inputs.t - m - kappa, p, theta[:, 8:9], theta[:, 9:10])

    def jacobian(self, theta, inputs: Inputs):
        m, dm = self.floor_slopes(theta, inputs)
        kappa, p, ratio = self._parts(theta, inputs)
        h, h_u, h_p, h_q, h_omega = bowl_slopes(inputs.t - m - kappa, p, theta[:, 8:9], theta[:, 9:10])
        rest = np.stack([-h_u, h_p, h_q, h_omega, -h_u * ratio, h_p * ratio], axis=2)
        return m + h, np.concatenate([(1 - h_u)[:, :, None] * dm, rest], axis=2)

    def starts(self, inputs: Inputs, log_loss) -> np.ndarray:
        base = super().starts(inputs, log_loss)
        return np.hstack([base, np.zeros((len(base), 2))])


class BrokenPowerForm:
    """theta = (a, ln alpha, b, ln beta, ln gamma, c0, lambda, ln f1, epsilon).

    The break is ln Λ = lambda + ln L̃_S where no-teacher losses are known (epsilon unused), else lambda + epsilon gamma
    s.
    """

    name = "broken power law"
    names = ("a", "ln_alpha", "b", "ln_beta", "ln_gamma", "c0", "lambda", "ln_f1", "epsilon")
    ridge = (_FLAT, _EXPONENT, _FLAT, _EXPONENT, _GAMMA, (2.0, 2.0), _FLAT, (-2.0, 0.8), (0.3, 0.15))

    def _parts(self, theta, inputs, s):
        k, f = np.exp(theta[:, 4:5]) * s, np.exp(theta[:, 7:8])
        break_follows_capacity = inputs.no_teacher_log_loss is None
        log_break = theta[:, 6:7] + (theta[:, 8:9] * k if break_follows_capacity else inputs.no_teacher_log_loss)
        log_loss_over_break = (inputs.t - log_break) / f
        z = np.exp(np.minimum(log_loss_over_break, 7.0))
        g = k - theta[:, 5:6] * inputs.t - z
        return k, f, break_follows_capacity, log_loss_over_break, z, np.logaddexp(inputs.t, g), g

    def value(self, theta, inputs: Inputs):
        return self._parts(theta, inputs, capacity(theta, inputs, 0))[-2]

    def jacobian(self, theta, inputs: Inputs):
        s, ds = capacity_slopes(theta, inputs, 0)
        k, f, break_follows_capacity, log_loss_over_break, z, out, g = self._parts(theta, inputs, s)
        share = np.exp(g - out)
        dk = share * (1.0 + (theta[:, 8:9] * z / f if break_follows_capacity else 0.0))
        jacobian = np.empty((*k.shape, 9))
        jacobian[:, :, 0:4] = (dk * np.exp(theta[:, 4:5]))[:, :, None] * ds
        jacobian[:, :, 4] = dk * k
        jacobian[:, :, 5] = -share * inputs.t
        jacobian[:, :, 6] = share * z / f
        jacobian[:, :, 7] = share * z * log_loss_over_break
        jacobian[:, :, 8] = share * z / f * k if break_follows_capacity else 0.0
        return out, jacobian

    def starts(self, inputs: Inputs, log_loss) -> np.ndarray:
        """Exponents on a grid; the capacity term's level from rows of strong teachers, where the break is far away."""
        out = []
        excess = np.maximum(np.exp(log_loss) - np.exp(inputs.t), 1e-3)
        strong = inputs.t <= np.median(inputs.t)
        for c0 in (1.0, 2.5):
            level = np.log(np.median(excess[strong] * np.exp(c0 * inputs.t[strong])))
            for alpha in (0.25, 0.5):
                for gamma in (0.6, 1.0):
                    for depth in (0.0, 0.15):
                        for f in (0.08, 0.2):
                            half = level / gamma - np.log(2.0)
                            data = NO_TOKENS if inputs.y is None else half
                            middle = np.median(inputs.t) + depth
                            lam = depth if inputs.no_teacher_log_loss is not None else middle - 0.3 * level
                            out.append(
                                [half, np.log(alpha), data, np.log(alpha), np.log(gamma), c0, lam, np.log(f), 0.3]
                            )
        return np.array(out)


def floor_starts(inputs: Inputs, log_loss) -> np.ndarray:
    """Starts (e, a, ln alpha, b, ln beta, ln gamma) of the reachable loss: E, A, B by relative least squares on a
    grid.
    """
    loss, curve_minima, out = np.exp(log_loss), float(np.exp(log_loss).min()), []
    for alpha in (0.2, 0.4, 0.8):
        for beta in (0.2, 0.4, 0.8) if inputs.y is not None else (0.4,):
            data_term = np.zeros_like(loss) if inputs.y is None else np.exp(-beta * inputs.y)
            basis = np.stack([np.exp(-alpha * inputs.x), data_term, np.ones_like(loss)], axis=1)
            coef, *_ = np.linalg.lstsq(basis / loss[:, None], np.ones_like(loss), rcond=None)
            big, data, floor = np.maximum(coef, [0.05 * curve_minima, 0.02 * curve_minima, 0.3 * curve_minima])
            log_data = NO_TOKENS if inputs.y is None else np.log(data)
            out.append([np.log(floor), np.log(big), np.log(alpha), log_data, np.log(beta), 0.0])
    return np.array(out)


def whitener(levels):
    """rows (…, n) → rows (1 + levels levels')^(-1/2): takes out the correlation of rows that share `levels` (n, k)."""
    vectors, sizes, _ = np.linalg.svd(levels, full_matrices=False)
    shrink = 1.0 / np.sqrt(1.0 + sizes**2) - 1.0
    return lambda rows: rows + ((rows @ vectors) * shrink) @ vectors.T


def residual_functions(form, inputs: Inputs, log_loss, white=np.asarray):
    """(value, residuals) for `minimise`; curvature is Gauss-Newton, which a law's small residuals make exact enough.

    Args:
        form: one of the forms. inputs: the rows. log_loss: (n,) ln L_S.
        white: applied to residuals and to each column of the Jacobian; a `whitener` makes the fit generalised least
            squares.
    """

    def value(theta):
        return white(form.value(theta, inputs) - log_loss)

    def residuals(theta):
        at, jacobian = form.jacobian(theta, inputs)
        return Residuals(white(at - log_loss), white(jacobian.transpose(0, 2, 1)).transpose(0, 2, 1), None)

    return value, residuals
