"""Do the intervals keep their promise? Coverage, bias and refusals on simulated tables whose bowls the fit does not
contain.

    python -m gaplaw.law.simulation.coverage [--draws 200] [--workers 2]

prints one row per bowl, asymmetry and noise: how often the 90 % interval for T* of a student that is not in the table
contains the truth, the bias of the ratio, and how often the law refused. 7 teachers over 128x, 6 students over 32x, one
run per cell; the held-out student is drawn log-uniformly from 1.5x below the smallest to 1.5x above the largest. `make
coverage` calls it.
"""

from __future__ import annotations

import argparse
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np

from gaplaw.law.flags import refuses
from gaplaw.law.numeric.quantiles import interval
from gaplaw.law.simulation.simulate import simulate, true_optimum
from gaplaw.law.table.read import read_table
from gaplaw.law.teacher_size.fit import fit_with_noise

STUDENTS = 5e7 * 2.0 ** np.arange(6)
TEACHERS = np.geomspace(1e8, 1.28e10, 7)
BOWLS = (
    ("quadratic", 1),
    ("quadratic", 4),
    ("power", 1),
    ("power", 4),
    ("logcosh", 1),
    ("logcosh", 4),
    ("two_sided", 4),
)
NOISES = (0.001, 0.003, 0.01)
LOW, HIGH = 0.85, 0.95  # the coverage that the 90 % interval must keep


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What many simulated tables of one kind gave: all shares of `draws`."""

    shape: str
    asymmetry: float
    noise_nats: float
    draws: int
    covered: float  # of the draws that answered
    refused: float
    bias: float  # of the geometric mean of T* / truth, minus 1
    median_bias: float
    width_ln: float  # median width of the 90 % interval

    @property
    def within_bounds(self) -> bool:
        return LOW <= self.covered <= HIGH


def one_table(shape: str, asymmetry: float, noise_nats: float, seed: int, draws: int = 200):
    """One simulated table, fitted and asked about a student that is not in it.

    Args:
        shape, asymmetry, noise_nats: of the truth, see `simulate`.
        seed: of table and target.
        draws: of the law.

    Returns:
        (ln T*/truth, whether the 90 % interval holds the truth, its width in ln), or None when the law refused.
    """
    rng = np.random.default_rng([seed, round(noise_nats * 1e6), round(asymmetry * 100), len(shape)])
    frame = simulate(
        students=STUDENTS, teachers=TEACHERS, shape=shape, asymmetry=asymmetry, noise_nats=noise_nats, rng=rng
    )
    target = float(np.exp(rng.uniform(np.log(STUDENTS[0] / 1.5), np.log(STUDENTS[-1] * 1.5))))
    fit = fit_with_noise(read_table(frame), np.random.default_rng(seed), draws)
    point = fit.surface.optimum_point(target, None)
    if refuses(fit.flags) or not np.isfinite(point):
        return None
    truth = np.log(true_optimum(frame, target))
    ends = interval(fit.surface.optimum_draws(target, None), 0.9)
    low, high = (-np.inf if ends[0] is None else np.log(ends[0])), (np.inf if ends[1] is None else np.log(ends[1]))
    return float(point - truth), bool(low <= truth <= high), float(high - low)


def coverage(
    shape: str, asymmetry: float, noise_nats: float, draws: int = 200, pool: Executor | None = None
) -> Coverage:
    """Repeat `one_table` with seeds 0 to draws − 1, and count.

    Args:
        shape, asymmetry, noise_nats: of the truth.
        draws: how many tables.
        pool: processes to share the work; None works here. The numbers do not depend on it.
    """
    table = partial(one_table, shape, asymmetry, noise_nats)
    results = (
        [table(seed) for seed in range(draws)] if pool is None else list(pool.map(table, range(draws), chunksize=5))
    )
    answers = [item for item in results if item is not None]
    error = np.array([item[0] for item in answers]) if answers else np.array([np.nan])
    return Coverage(
        shape=shape,
        asymmetry=asymmetry,
        noise_nats=noise_nats,
        draws=draws,
        covered=float(np.mean([item[1] for item in answers])) if answers else float("nan"),
        refused=1 - len(answers) / draws,
        bias=float(np.expm1(error.mean())),
        median_bias=float(np.expm1(np.median(error))),
        width_ln=float(np.median([item[2] for item in answers])) if answers else float("nan"),
    )


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m gaplaw.law.simulation.coverage", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--draws", type=int, default=200, help="simulated tables per row (default 200)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1); the numbers do not depend on it")
    options = parser.parse_args(arguments)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        failures = _print_rows(options.draws, pool if options.workers > 1 else None)
    print(f"outside {LOW:.2f} to {HIGH:.2f}: " + ("; ".join(failures) if failures else "none"))


def _print_rows(draws: int, pool: Executor | None) -> list[str]:
    """Print every row as it is finished; what failed, in words."""
    error = 1.645 * np.sqrt(0.9 * 0.1 / draws)
    print(f"90 % interval for T* of a new student, {draws} tables a row (a true 90 % would print 0.90 ± {error:.2f})")
    print(
        f"{'bowl':<10} {'left:right':>10} {'noise':>6} {'covered':>8} {'refused':>8} {'bias':>7} {'median':>7} "
        f"{'width':>6}"
    )
    failures = []
    for shape, asymmetry in BOWLS:
        for noise_nats in NOISES:
            row = coverage(shape, asymmetry, noise_nats, draws, pool)
            print(
                f"{shape:<10} {asymmetry:>8}:1 {noise_nats:>6.3f} {row.covered:>8.3f} {row.refused:>8.3f} "
                f"{row.bias:>+7.1%} "
                f"{row.median_bias:>+7.1%} {row.width_ln:>6.2f}",
                flush=True,
            )
            if not row.within_bounds:
                failures.append(f"{shape} {asymmetry}:1 at {noise_nats}: {row.covered:.3f}")
    for shape in ("flat", "falling", "rising"):
        for noise_nats in NOISES:
            row = coverage(shape, 1, noise_nats, draws, pool)
            print(f"{shape:<10} {'':>10} {noise_nats:>6.3f} {'':>8} {row.refused:>8.3f}   (must refuse)", flush=True)
            if row.refused < 0.99:
                failures.append(f"{shape} at {noise_nats}: refused only {row.refused:.1%}")
    return failures


if __name__ == "__main__":
    main()
