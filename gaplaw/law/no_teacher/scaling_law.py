"""What loss does a model of N parameters reach on D tokens without a teacher? The supervised scaling laws.

Part of the law half, beside the teacher law: the no-teacher loss L̃_S and a teacher's size-equivalent come from here.
Forms:

    L(N, D) = E + A / N^alpha + B / D^beta                    (Hoffmann et al. 2022, arXiv 2203.15556, approach 3)
    L(N, D) = E + (A / N^alpha + B / D^beta)^gamma            (Busbridge et al. 2025, arXiv 2502.08606, eq. 1)

`supervised_fit` fits them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisedFit:
    """A fitted supervised law.

    Attributes:
        parameters: A, B, E, alpha, beta (and gamma).
        objective: Huber's sum at the best fit.
        status: 'converged', 'starts disagree', 'unidentified parameter' or 'not converged'.
        share_at_best: share of the starts that reached the best fit.
        starts, rows: how many there were.
        huber_delta: threshold on the log loss.
        interval90, interval95: parameter → bootstrap interval; None without draws.
        draws: parameter → bootstrap draws, (draws,) each.
        draws_converged: share of the draws that converged.
    """

    parameters: Mapping[str, float]
    objective: float
    status: str
    share_at_best: float
    starts: int
    rows: int
    huber_delta: float
    interval90: Mapping[str, tuple[float, float]] | None
    interval95: Mapping[str, tuple[float, float]] | None
    draws: Mapping[str, np.ndarray] | None
    draws_converged: float | None

    @property
    def data_exponent(self) -> float:
        """beta / (alpha + beta): the exponent of the compute-optimal size in N_opt ∝ C^a."""
        return self.parameters["beta"] / (self.parameters["alpha"] + self.parameters["beta"])

    def loss(self, params, tokens) -> np.ndarray:
        """L(N, D) in nats per token; params and tokens broadcast."""
        return law_loss(self.parameters, params, tokens)

    def params_for_loss(self, loss, *, tokens_per_param: float = 20.0) -> np.ndarray:
        """Size whose loss is `loss` at a fixed number of tokens per parameter; infinite at or below the floor E.

        Args:
            loss: nats per token, a number or an array.
            tokens_per_param: D / N along which sizes are looked for.
        """
        log_sizes = np.linspace(np.log(1e3), np.log(1e16), 4000)
        sizes = np.exp(log_sizes)
        curve = self.loss(sizes, tokens_per_param * sizes)
        found = np.exp(np.interp(-np.asarray(loss, dtype=float), -curve, log_sizes))
        return np.where(np.asarray(loss) <= curve[-1], np.inf, found)

    def to_dict(self) -> dict:
        """Plain data for JSON: everything but the draws."""
        keep = ("objective", "status", "share_at_best", "starts", "rows", "huber_delta", "draws_converged")
        out = {name: getattr(self, name) for name in keep}
        out["parameters"] = dict(self.parameters)
        for name in ("interval90", "interval95"):
            value = getattr(self, name)
            out[name] = None if value is None else {key: list(pair) for key, pair in value.items()}
        return out

    def text(self) -> str:
        """The law in a few lines for people."""
        form = "E + (A/N^alpha + B/D^beta)^gamma" if "gamma" in self.parameters else "E + A/N^alpha + B/D^beta"
        lines = [f"L(N, D) = {form}, {self.rows} rows, Huber {self.huber_delta:g} on log loss"]
        for name, value in self.parameters.items():
            pair = "" if self.interval90 is None else "  90% {:.4g} to {:.4g}".format(*self.interval90[name])
            lines.append(f"  {name:<6}{value:12.5g}{pair}")
        lines.append(
            f"  objective {self.objective:.9f}; {self.status}; {self.share_at_best:.0%} of {self.starts} starts "
            "reached it"
        )
        return "\n".join(lines)


def law_loss(parameters: Mapping[str, float], params, tokens) -> np.ndarray:
    """Either supervised form at (params, tokens), nats per token.

    Args:
        parameters: A, B, E, alpha, beta, and gamma where the form has it.
        params, tokens: N and D; they broadcast.
    """
    log_n, log_d = np.log(np.asarray(params, dtype=float)), np.log(np.asarray(tokens, dtype=float))
    power = parameters["A"] * np.exp(-parameters["alpha"] * log_n) + parameters["B"] * np.exp(
        -parameters["beta"] * log_d
    )
    return parameters["E"] + power ** parameters.get("gamma", 1.0)
