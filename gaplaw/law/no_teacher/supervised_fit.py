"""How is a supervised scaling law fitted honestly? From many starts, to the end, with every bootstrap draw refitted.

Beside `scaling_law`, which holds the two forms. Both are fitted by the plain Huber objective on the log-loss residual,
in log-sum-exp form, with exact first and second derivatives, from starts whose linear part (E, A, B) is solved inside;
the bootstrap resamples rows and refits every draw to the same tolerance as the fit itself.
"""

from __future__ import annotations

import numpy as np

from gaplaw.errors import LawError, TableError
from gaplaw.law.no_teacher.scaling_law import SupervisedFit
from gaplaw.law.numeric.minimise import Minima, Residuals, minimise
from gaplaw.law.numeric.quantiles import central_quantiles


class _Form:
    """Residuals ln L̂ − ln L of either form at theta (B, 5 or 6), in centred log sizes; exact derivatives."""

    def __init__(self, log_n, log_d, log_loss, *, with_gamma: bool):
        self.centre = log_n.mean(), log_d.mean()
        self.x, self.y = log_n - self.centre[0], log_d - self.centre[1]
        self.target = log_loss
        self.with_gamma = with_gamma

    def _terms(self, theta):
        z1 = theta[:, 0:1] - theta[:, 1:2] * self.x
        z2 = theta[:, 2:3] - theta[:, 3:4] * self.y
        return z1, z2, theta[:, 4:5]

    def value(self, theta):
        z1, z2, e = self._terms(theta)
        if self.with_gamma:
            return np.logaddexp(theta[:, 5:6] * np.logaddexp(z1, z2), e) - self.target
        top = np.maximum(np.maximum(z1, z2), e)
        return top + np.log(np.exp(z1 - top) + np.exp(z2 - top) + np.exp(e - top)) - self.target

    def __call__(self, theta) -> Residuals:
        z1, z2, e = self._terms(theta)
        x, y = self.x, self.y
        if self.with_gamma:
            return self._with_gamma(theta, z1, z2, e)
        top = np.maximum(np.maximum(z1, z2), e)
        p1, p2, p3 = np.exp(z1 - top), np.exp(z2 - top), np.exp(e - top)
        total = p1 + p2 + p3
        p1, p2, p3 = p1 / total, p2 / total, p3 / total
        jacobian = np.stack([p1, -x * p1, p2, -y * p2, p3], axis=2)

        def bend(v):
            # ln sum exp of terms linear in theta: Hess = sum_k p_k g_k g_k' − J J'.
            out = -np.matmul(jacobian.transpose(0, 2, 1) * v[:, None, :], jacobian)
            _add_block(out, 0, v * p1, x)
            _add_block(out, 2, v * p2, y)
            out[:, 4, 4] += (v * p3).sum(1)
            return out

        return Residuals(top + np.log(total) - self.target, jacobian, bend)

    def _with_gamma(self, theta, z1, z2, e) -> Residuals:
        x, y, gamma = self.x, self.y, theta[:, 5:6]
        s = np.logaddexp(z1, z2)
        w1 = np.exp(z1 - s)
        w2 = 1.0 - w1
        m = np.logaddexp(gamma * s, e)
        p = np.exp(gamma * s - m)
        zero = np.zeros_like(w1)
        ds = np.stack([w1, -x * w1, w2, -y * w2, zero, zero], axis=2)
        dq = gamma[:, :, None] * ds
        dq[:, :, 5] = s
        de = np.zeros(6)
        de[4] = 1.0
        jacobian = p[:, :, None] * dq + (1 - p)[:, :, None] * de

        def bend(v):
            vp = v * p
            ds_t = ds.transpose(0, 2, 1)
            out = -np.matmul(ds_t * (vp * gamma)[:, None, :], ds)
            _add_block(out, 0, vp * gamma * w1, x)
            _add_block(out, 2, vp * gamma * w2, y)
            cross = np.matmul(vp[:, None, :], ds)[:, 0]
            out[:, 5, :] += cross
            out[:, :, 5] += cross
            apart = dq - de
            return out + np.matmul(apart.transpose(0, 2, 1) * (vp * (1 - p))[:, None, :], apart)

        return Residuals(m - self.target, jacobian, bend)

    def starts(self, weights=None) -> np.ndarray:
        """A grid of exponents, each with E, A, B solved by relative least squares (the separable part)."""
        exponents = np.array([0.08, 0.15, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4])
        loss = np.exp(self.target)
        lowest = loss.min()
        out = []
        for alpha in exponents:
            for beta in exponents:
                basis = np.stack([np.exp(-alpha * self.x), np.exp(-beta * self.y), np.ones_like(self.x)], axis=1)
                coef, *_ = np.linalg.lstsq(basis / loss[:, None], np.ones_like(loss), rcond=None)
                # A negative part has no logarithm: a small share of the lowest loss keeps the start inside the domain.
                coef = np.maximum(coef, 0.02 * lowest)
                start = [np.log(coef[0]), alpha, np.log(coef[1]), beta, np.log(coef[2])]
                if not self.with_gamma:
                    out.append(start)
                    continue
                for gamma in (0.5, 1.0):
                    # Same sum of powers at the centre, so that only the bend differs.
                    total = coef[0] + coef[1]
                    shift = np.log(total) / gamma - np.log(total)
                    out.append([start[0] + shift, alpha / gamma, start[2] + shift, beta / gamma, start[4], gamma])
        return np.array(out)

    def natural(self, theta) -> dict[str, np.ndarray]:
        """Natural parameters of theta (B, P), un-centred."""
        a = theta[:, 0] + theta[:, 1] * self.centre[0]
        b = theta[:, 2] + theta[:, 3] * self.centre[1]
        with np.errstate(over="ignore"):
            out = {"A": np.exp(a), "B": np.exp(b), "E": np.exp(theta[:, 4]), "alpha": theta[:, 1], "beta": theta[:, 3]}
        if self.with_gamma:
            out["gamma"] = theta[:, 5]
        return out


def _add_block(out, at, weight, x):
    """Adds sum_i weight_i g g' with g = (1, −x_i) at rows and columns at, at + 1."""
    first = -(weight * x).sum(1)
    out[:, at, at] += weight.sum(1)
    out[:, at, at + 1] += first
    out[:, at + 1, at] += first
    out[:, at + 1, at + 1] += (weight * x * x).sum(1)


def fit_supervised(
    frame, *, huber_delta: float = 1e-3, gamma: bool = False, draws: int = 0, seed: int = 0, starts: int | None = None
) -> SupervisedFit:
    """Fit L(N, D) by min sum_i Huber_delta(ln L̂_i − ln L_i).

    Args:
        frame: DataFrame with columns params, tokens, loss (nats per token), one row per run.
        huber_delta: Huber's threshold on the log loss; part of the record, since it moves beta.
        gamma: fit the form with the outer exponent gamma.
        draws: bootstrap draws (rows resampled with replacement); 0 for none.
        seed: of the bootstrap.
        starts: how many of the starts to use; all by default.

    Returns:
        SupervisedFit.

    Raises:
        TableError: missing column, or a value that is not positive and finite.
        LawError: fewer rows than twice the parameters, or a single size or token count.
    """
    columns = []
    for name in ("params", "tokens", "loss"):
        if name not in frame:
            raise TableError(f"fit_supervised: column {name} is missing; params, tokens and loss are needed")
        values = np.asarray(frame[name], dtype=np.float64)
        if not (np.isfinite(values) & (values > 0)).all():
            row = int(np.flatnonzero(~(np.isfinite(values) & (values > 0)))[0])
            raise TableError(f"fit_supervised: row {row}, column {name}: {values[row]} must be positive and finite")
        columns.append(np.log(values))
    size = 6 if gamma else 5
    if len(columns[0]) < 2 * size:
        raise LawError(
            f"fit_supervised: {len(columns[0])} rows are too few for {size} parameters; {2 * size} are needed"
        )
    for name, values in zip(("params", "tokens"), columns, strict=False):
        if np.ptp(values) < 1e-9:
            raise LawError(f"fit_supervised: column {name} has a single value; its exponent cannot be known")
    form = _Form(*columns, with_gamma=gamma)
    cold = minimise(form.value, form, form.starts()[:starts], delta=huber_delta)
    best = cold.theta[cold.best]
    natural = form.natural(best[None])
    boot = _bootstrap(form, best, huber_delta, draws, seed) if draws else None
    many = None if boot is None else form.natural(boot.theta[boot.converged])
    return SupervisedFit(
        parameters={name: float(value[0]) for name, value in natural.items()},
        objective=float(cold.objective[cold.best]),
        status=_status(form, cold, huber_delta),
        share_at_best=cold.share_at_best(),
        starts=len(cold.objective),
        rows=len(form.x),
        huber_delta=huber_delta,
        interval90=_interval(many, 0.90),
        interval95=_interval(many, 0.95),
        draws=many,
        draws_converged=None if boot is None else float(boot.converged.mean()),
    )


def _bootstrap(form, best, delta, draws, seed) -> Minima:
    rng = np.random.default_rng(seed)
    rows = len(form.x)
    weights = rng.multinomial(rows, np.full(rows, 1.0 / rows), size=draws).astype(np.float64)
    return minimise(form.value, form, np.repeat(best[None], draws, axis=0), delta=delta, weights=weights)


def _interval(draws, level):
    if draws is None:
        return None
    return {name: central_quantiles(value, level) for name, value in draws.items()}


def _status(form, cold: Minima, delta: float) -> str:
    """'starts disagree' when the best value was reached once; 'unidentified' when the curvature is flat in a
    direction.
    """
    if not cold.converged[cold.best]:
        return "not converged"
    if cold.share_at_best() * len(cold.objective) < 1.5:
        return "starts disagree"
    point = form(cold.theta[cold.best][None])
    weight = delta / np.maximum(np.abs(point.value), delta)
    curvature = np.einsum("bnp,bn,bnq->pq", point.jacobian, weight, point.jacobian)
    scale = 1.0 / np.sqrt(np.maximum(np.diag(curvature), 1e-300))
    flat = np.linalg.eigvalsh(curvature * np.outer(scale, scale))[0] < 1e-9
    return "unidentified parameter" if flat else "converged"
