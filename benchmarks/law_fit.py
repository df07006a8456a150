"""How fast and how well are laws fitted, the supervised one beside what people use today? Single run, on this machine.

    python -m benchmarks.law_fit [TABLE.csv]

TABLE has the columns 'Model Size', 'Training FLOP' and 'loss' (the Chinchilla points); without it, points of that
design are simulated. Every fitter sees the same rows; objectives are the plain Huber (1e-3) sum on log loss, so lower
is better and equal is equal. Rivals: a hand-written 200-start scipy L-BFGS-B fit with exact gradients (below) and the
PyPI package `chinchilla`. Then the two joint laws of teachers on simulated tables, with intervals, rivals and draws;
nobody else has those. The last line, `ratio`, is seconds of the scipy fit and bootstrap over seconds of gaplaw's
supervised one.
"""

from __future__ import annotations

import argparse
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from benchmarks.loss_worlds import world
from gaplaw import law as laws
from gaplaw.law.no_teacher.scaling_law import law_loss
from gaplaw.law.no_teacher.supervised_fit import fit_supervised
from gaplaw.law.simulation.simulate import simulate

DELTA = 1e-3
DRAWS = 1000


def read_points(path: Path | None) -> tuple[pd.DataFrame, str]:
    """The 240 lowest-loss rows of the table, tokens from FLOP / 6N; or 240 simulated rows."""
    if path is not None:
        raw = pd.read_csv(path).sort_values("loss")[:240]
        frame = {
            "params": raw["Model Size"],
            "tokens": raw["Training FLOP"] / 6 / raw["Model Size"],
            "loss": raw["loss"],
        }
        return pd.DataFrame(frame).reset_index(drop=True), path.name
    rng = np.random.default_rng(0)
    params, flops = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), 240)), np.exp(rng.uniform(42, 50, 240))
    tokens = flops / 6 / params
    truth = {"A": 480.0, "B": 2100.0, "E": 1.8, "alpha": 0.35, "beta": 0.37}
    loss = law_loss(truth, params, tokens) * np.exp(0.005 * rng.standard_t(3, 240))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": loss}), "240 simulated points"


def objective(p, n, d, log_loss, weight):
    """Plain Huber objective and gradient at p = (ln A, alpha, ln B, beta, ln E), written for scipy."""
    z = np.stack([p[0] - p[1] * n, p[2] - p[3] * d, np.full_like(n, p[4])])
    top = z.max(0)
    share = np.exp(z - top)
    total = share.sum(0)
    r = top + np.log(total) - log_loss
    slope = weight * np.clip(r, -DELTA, DELTA)
    share = share / total
    gradient = np.array(
        [slope @ share[0], -(slope * n) @ share[0], slope @ share[1], -(slope * d) @ share[1], slope @ share[2]]
    )
    value = weight @ np.where(np.abs(r) <= DELTA, r * r / 2, DELTA * (np.abs(r) - DELTA / 2))
    return 1e4 * value, 1e4 * gradient


def scipy_fit(frame: pd.DataFrame, starts: int = 200) -> tuple[np.ndarray, float]:
    """The best of `starts` random L-BFGS-B starts with tight tolerances."""
    n, d, log_loss = (np.log(frame[name].to_numpy()) for name in ("params", "tokens", "loss"))
    rng = np.random.default_rng(0)
    low, high = np.array([0, 0.1, 0, 0.1, -1]), np.array([20, 1.0, 20, 1.0, 1])
    best, ones = None, np.ones(len(n))
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-8}
    for start in rng.uniform(low, high, (starts, 5)):
        run = minimize(objective, start, args=(n, d, log_loss, ones), jac=True, method="L-BFGS-B", options=options)
        best = run if best is None or run.fun < best.fun else best
    return best.x, best.fun / 1e4


def scipy_bootstrap(frame: pd.DataFrame, start: np.ndarray, draws: int) -> np.ndarray:
    """`draws` refits of resampled rows from the optimum; returns beta / (alpha + beta), (draws,)."""
    n, d, log_loss = (np.log(frame[name].to_numpy()) for name in ("params", "tokens", "loss"))
    weights = np.random.default_rng(0).multinomial(len(n), np.full(len(n), 1 / len(n)), size=draws)
    options = {"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-7}
    out = []
    for weight in weights.astype(float):
        p = minimize(objective, start, args=(n, d, log_loss, weight), jac=True, method="L-BFGS-B", options=options).x
        out.append(p[3] / (p[1] + p[3]))
    return np.array(out)


def chinchilla_fit(frame: pd.DataFrame) -> tuple[str, float] | None:
    """The package `chinchilla` with its own defaults, if it is installed: its objective on our scale, or None."""
    try:
        version = metadata.version("chinchilla")
        from chinchilla import Chinchilla
    except (metadata.PackageNotFoundError, ImportError):
        return None
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        grid = {"e": np.linspace(0, 1, 3), "a": np.linspace(1, 10, 4), "b": np.linspace(1, 10, 4),
                "alpha": np.linspace(0.1, 0.7, 3), "beta": np.linspace(0.1, 0.7, 3)}  # fmt: skip
        model = Chinchilla(folder, param_grid=grid, log_level=40)
        model.database.df = pd.DataFrame(
            {
                "C": 6 * frame["params"] * frame["tokens"],
                "N": frame["params"],
                "D": frame["tokens"],
                "loss": frame["loss"],
            }
        )
        model.fit()
        fitted = {name: float(getattr(model, name)) for name in ("A", "B", "E", "alpha", "beta")}
    r = np.log(law_loss(fitted, frame["params"], frame["tokens"])) - np.log(frame["loss"].to_numpy())
    return version, float(np.where(np.abs(r) <= DELTA, r * r / 2, DELTA * (np.abs(r) - DELTA / 2)).sum())


def joint_tables() -> dict[str, pd.DataFrame]:
    """Simulated tables of some 350 rows in both coordinates of a teacher."""
    students, teachers = 5e7 * 2.0 ** np.arange(7), np.geomspace(1e8, 1.28e10, 10)
    by_size = simulate(
        students=students, teachers=teachers, seeds=5, shape="power", asymmetry=4, noise_nats=0.003,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    by_loss = world("broken power", seed=1, scatter=(0.002, 0.001, 0.002)).drop(columns="truth")
    return {"teacher size": by_size, "teacher loss": by_loss}


def timed(call):
    """(result, seconds) of one call."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", type=Path)
    parser.add_argument("--starts", type=int, default=200, help="starts of the scipy fit")
    arguments = parser.parse_args()
    frame, label = read_points(arguments.table)
    print(f"{label}: {len(frame)} rows, Huber {DELTA:g} on log loss; single run each")
    print(f"{'fitter':<44}{'objective':>14}{'fit s':>9}{f'{DRAWS} draws s':>14}   beta/(alpha+beta), 95%")
    cold, fit_seconds = timed(lambda: fit_supervised(frame, huber_delta=DELTA))
    full, total_seconds = timed(lambda: fit_supervised(frame, huber_delta=DELTA, draws=DRAWS))
    exponent = full.draws["beta"] / (full.draws["alpha"] + full.draws["beta"])
    row("gaplaw fit_supervised, cold start", cold.objective, fit_seconds, max(total_seconds - fit_seconds, 0), exponent)
    (best, reached), scipy_seconds = timed(lambda: scipy_fit(frame, arguments.starts))
    rival, rival_seconds = timed(lambda: scipy_bootstrap(frame, best, DRAWS))
    row(f"scipy L-BFGS-B, {arguments.starts} starts, exact gradient", reached, scipy_seconds, rival_seconds, rival)
    package, package_seconds = timed(lambda: chinchilla_fit(frame))
    if package is None:
        print("chinchilla: not installed (pip install chinchilla==0.2.0 to compare)")
    else:
        print(
            f"{f'chinchilla {package[0]}, its loss, 432 starts':<44}{package[1]:>14.10f}{package_seconds:>9.2f}"
            f"{'none':>14}"
        )
    print(f"gaplaw: {cold.status}, {cold.share_at_best:.0%} of {cold.starts} starts at the best value")
    for kind, table in joint_tables().items():
        laws.fit(table.iloc[::3], draws=20)  # what is imported on first use is not timed
        _, seconds = timed(lambda table=table: laws.fit(table, draws=DRAWS))
        print(f"gaplaw joint law in {kind}, {len(table)} rows, intervals, rivals and {DRAWS} draws: {seconds:.2f} s")
    print(f"ratio {(scipy_seconds + rival_seconds) / total_seconds:.2f}")


def row(name, reached, seconds, draw_seconds, exponent) -> None:
    low, high = np.quantile(exponent, [0.025, 0.975])
    print(
        f"{name:<44}{reached:>14.10f}{seconds:>9.2f}{draw_seconds:>14.2f}   {np.median(exponent):.3f}, {low:.3f} to "
        f"{high:.3f}"
    )


if __name__ == "__main__":
    main()
