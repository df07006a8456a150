"""Which share of a full grid's FLOPs does an adaptive run need for the full grid's regret at a target? In simulation.

    python -m benchmarks.adaptive [--draws 9]

Each draw simulates a pool of six students, seven teachers and five seeds and fits the full grid of the first seed. The
loop of `gaplaw run --adaptive` starts from three students and five teachers and adds cells until it promises 1.05 times
the full grid's expected regret at the target, the largest student. Regret by the truth is what the pick really loses.
"""

from __future__ import annotations

import argparse

import numpy as np

from gaplaw.law.simulation.adaptive import rehearse

STUDENTS, TEACHERS = np.geomspace(5e7, 1.6e9, 6), np.geomspace(1e8, 6.4e9, 7)
TRUTH = {"k": 3.0, "p": 0.9, "asymmetry": 2.0, "shape": "two_sided", "depth": 0.03, "noise_nats": 0.003}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=9, help="simulated tables")
    arguments = parser.parse_args()
    runs = []
    for seed in range(arguments.draws):
        run = rehearse(students=STUDENTS, teachers=TEACHERS, target_student_params=1.6e9, rng=seed, draws=200, **TRUTH)
        runs.append(run)
        print(
            f"draw {seed}: {run.share_of_flops:.0%} of the FLOPs, {run.cells} cells of {run.full_cells}, "
            f"{'reached' if run.reached else 'NOT reached'}; expected regret {1e3 * run.expected_regret_nats:.2f} "
            "mnats (grid "
            f"{1e3 * run.full_expected_regret_nats:.2f}), by the truth {1e3 * run.true_regret_nats:.2f} "
            f"({1e3 * run.full_true_regret_nats:.2f})", flush=True,
        )  # fmt: skip
    share, reached, true, full = (
        np.array([getattr(run, name) for run in runs])
        for name in ("share_of_flops", "reached", "true_regret_nats", "full_true_regret_nats")
    )
    print(
        f"median over {len(runs)} draws: {np.median(share):.0%} of the full grid's FLOPs; reached in "
        f"{reached.mean():.0%}; "
        f"regret by the truth {1e3 * np.median(true):.2f} mnats, full grid {1e3 * np.median(full):.2f}"
    )


if __name__ == "__main__":
    main()
