"""What does the same student reach without a teacher? The no-teacher law that a distilled student must beat.

Part of the law half, between the table and the choice: fitted from the `no_teacher_loss` column, stored in
`Law.baseline` as plain data, and asked at equal compute: the FLOPs that a teacher costs could have bought the student
more tokens.

Two kinds. 'surface': a supervised law in size and tokens, when both vary enough. 'path': a power law L̃ = A/N^a along
the tokens per parameter that were measured, when tokens follow size; more tokens at a fixed size are then worth half
the slope along the path, which is exact where size and tokens are compute-optimally balanced, and is flagged as an
assumption by the choice.
"""

from __future__ import annotations

import numpy as np

from gaplaw.errors import LawError
from gaplaw.law.no_teacher.scaling_law import law_loss
from gaplaw.law.no_teacher.supervised_fit import fit_supervised

FEWEST_SIZES = 3
FEWEST_FOR_SURFACE = 12


def fit_baseline(table) -> dict | None:
    """The no-teacher law of a table, as plain data.

    Args:
        table: a `Table` whose rows know no_teacher_loss.

    Returns:
        {'kind': 'surface', 'parameters': {A, B, E, alpha, beta}, 'rows', 'rms_log'}, or {'kind': 'path', 'slope',
        'level', 'tokens_per_param', 'rows', 'rms_log'} with ln L̃ = level + slope ln N; None when the table has no
        baselines, or of fewer than 3 student sizes.
    """
    runs = baseline_rows(table)
    if runs is None or runs["student_params"].nunique() < FEWEST_SIZES:
        return None
    surface = _surface(runs) if "student_tokens" in runs else None
    return surface or _path(runs)


def baseline_rows(table):
    """One row per distinct run without a teacher.

    Args:
        table: a `Table`.

    Returns:
        DataFrame of student_params, student_tokens (if known) and no_teacher_loss (mean over seeds, nats); None
        without any.
    """
    if "no_teacher_loss" not in table.frame:
        return None
    names = [name for name in ("student_params", "student_tokens") if name in table.frame]
    known = table.frame.dropna(subset=["no_teacher_loss"])
    if known.empty:
        return None
    # Every row of one student repeats its baseline: the distinct values are the runs (seeds stay apart before the
    # mean).
    return known.drop_duplicates([*names, "no_teacher_loss"]).groupby(names, as_index=False)["no_teacher_loss"].mean()


def _surface(runs) -> dict | None:
    frame = runs.rename(columns={"student_params": "params", "student_tokens": "tokens", "no_teacher_loss": "loss"})
    ratio = np.log(frame["tokens"] / frame["params"])
    # Tokens that follow size say nothing about tokens alone.
    if len(frame) < FEWEST_FOR_SURFACE or ratio.std() < 0.3:
        return None
    try:
        fit = fit_supervised(frame)
    except LawError:
        return None
    if fit.status not in ("converged", "unidentified parameter"):
        return None
    residual = np.log(fit.loss(frame["params"], frame["tokens"])) - np.log(frame["loss"])
    return {
        "kind": "surface",
        "parameters": dict(fit.parameters),
        "rows": len(frame),
        "rms_log": float(np.sqrt(np.mean(residual**2))),
    }


def _path(runs) -> dict:
    x, y = np.log(runs["student_params"].to_numpy()), np.log(runs["no_teacher_loss"].to_numpy())
    ratio = runs["student_tokens"] / runs["student_params"] if "student_tokens" in runs else None
    slope, level = np.polyfit(x, y, 1)
    return {
        "kind": "path",
        "slope": float(slope),
        "level": float(level),
        "tokens_per_param": None if ratio is None else float(np.exp(np.log(ratio).median())),
        "rows": len(x),
        "rms_log": float(np.sqrt(np.mean((y - level - slope * x) ** 2))),
    }


def baseline_loss(baseline: dict, params, tokens=None) -> np.ndarray:
    """L̃(N, D), nats: what a student reaches alone.

    Args:
        baseline: from `fit_baseline`.
        params: N, a number or an array.
        tokens: D, broadcasting with params; None means the measured tokens per parameter.

    Raises:
        LawError: a 'surface' baseline asked without tokens.
    """
    params = np.asarray(params, dtype=float)
    if baseline["kind"] == "surface":
        if tokens is None:
            raise LawError("student_tokens: needed to compare with the student without a teacher")
        return law_loss(baseline["parameters"], params, tokens)
    log_loss = baseline["level"] + baseline["slope"] * np.log(params)
    if tokens is not None and baseline["tokens_per_param"] is not None:
        more = np.log(np.asarray(tokens, dtype=float) / (baseline["tokens_per_param"] * params))
        log_loss = log_loss + 0.5 * baseline["slope"] * more
    return np.exp(log_loss)


def loss_at_equal_compute(baseline: dict, params: float, tokens: float, extra_flops) -> np.ndarray:
    """L̃ of the student alone when it also spends a teacher's FLOPs on tokens of its own: L̃(N, D + extra / 6N), nats.

    On a path, D is relative: only the extra tokens move the loss away from the path's value.

    Args:
        baseline: from `fit_baseline`.
        params: N. tokens: D.
        extra_flops: what the teacher would cost, a number or an array.

    Raises:
        LawError: as for `baseline_loss`.
    """
    more = np.asarray(extra_flops, dtype=float) / (6 * params)
    if baseline["kind"] == "surface" or baseline["tokens_per_param"] is not None:
        return baseline_loss(baseline, params, tokens + more)
    return baseline_loss(baseline, params) * (1 + more / tokens) ** (0.5 * baseline["slope"])
