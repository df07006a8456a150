"""Does the law in teacher loss win on tables that it was not built for? Leave-one-student-out, beside rules that know
more than it.

    python -m benchmarks.outside_table [--seeds 2] [--worlds "size bowl,..."] [--scatters 2]

Per simulated world (`loss_worlds.py`) and student size: fit without that size, predict its rows, and choose among the
teachers that were measured with each of its (size, tokens) groups of at least seven. gaplaw sees four columns. The
rivals also see the true no-teacher loss L̃_S and teachers' size-equivalents, and learn their one constant from the
other sizes: 2.5 times, the largest, a constant ratio, L_T* = c L̃_S, and the broken power law of arXiv 2502.08606 in
its eight-parameter limit, fitted with scipy. Regret is against the best measured teacher, by the truth without run
noise and as measured; rms errors are against the measured losses of the left-out rows.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from benchmarks.loss_worlds import TRUTHS, alone, size_of, world
from gaplaw import law as laws
from gaplaw.law.compare.cases import Case, learn_loss_ratio, learn_ratio
from gaplaw.law.decide.rules_of_thumb import nearest

SEEN = ["student_params", "student_tokens", "teacher_loss", "student_loss"]
FEWEST_TEACHERS = 7
# Noise of a run, what a teacher shares with all its students, and what a student size has under all its teachers, nats.
SCATTERS = ((0.0005, 0.0, 0.0), (0.002, 0.001, 0.002), (0.004, 0.002, 0.006), (0.008, 0.0, 0.0))


def broken_power(theta, frame) -> np.ndarray:
    """L_S by the eight-parameter form, with the true no-teacher loss: theta = (ln A, α, ln B, β, γ, c0, d, f1)."""
    a, alpha, b, beta, gamma, c0, d, f = theta
    n, tokens, teacher = (np.log(frame[name].to_numpy()) for name in SEEN[:3])
    own = np.log(alone(np.exp(n), np.exp(tokens)))
    strength = gamma * np.logaddexp(a - alpha * n, b - beta * tokens)
    fall = np.exp(np.clip((teacher - own - np.log(d)) / f, -50, 6))
    return np.exp(teacher) + np.exp(np.clip(strength - c0 * teacher - fall, -50, 50))


def fit_broken_power(frame):
    """The best of eight starts, soft-L1."""
    rng = np.random.default_rng(0)
    low, high = np.array([4, 0.1, 4, 0.1, 0.3, 0, 0.7, 0.03]), np.array([14, 0.7, 14, 0.7, 1.2, 4, 1.4, 0.4])
    target, best = np.log(frame["student_loss"].to_numpy()), None
    for start in rng.uniform(low, high, (8, 8)):
        run = least_squares(
            lambda theta: np.log(broken_power(theta, frame)) - target, start, bounds=(low / 3, high * 2),
            loss="soft_l1", f_scale=0.003, x_scale=high - low, max_nfev=150,
        )  # fmt: skip
        best = run if best is None or run.cost < best.cost else best
    return best.x


def cases_of(frame: pd.DataFrame) -> list[tuple[Case, pd.DataFrame]]:
    out = []
    for (n, d), group in frame.groupby(["student_params", "student_tokens"]):
        group = group.sort_values("teacher_loss")
        if len(group) >= FEWEST_TEACHERS:
            log_teacher = np.log(group["teacher_loss"].to_numpy())
            case = Case(
                student_params=n, student_tokens=d, log_teacher=log_teacher, loss=group["student_loss"].to_numpy(),
                rows=np.ones(len(group)), log_size=np.log(size_of(np.exp(log_teacher))),
            )  # fmt: skip
            out.append((case, group))
    return out


def score(frame: pd.DataFrame) -> tuple[dict, dict, dict]:
    """(rms errors, mean true regrets, mean measured regrets) of every contestant on one world, nats."""
    whole, errors, regrets, measured = cases_of(frame), {}, {}, {}
    for size in np.unique(frame["student_params"]):
        out = frame["student_params"] == size
        rest, left = frame[~out], frame[out]
        law = laws.fit(rest[SEEN])
        power = fit_broken_power(rest)
        for name, prediction in (("gaplaw", law.predict(left[SEEN[:3]])), ("broken power", broken_power(power, left))):
            errors.setdefault(name, []).append(prediction - left["student_loss"])
        others = [case for case, _ in whole if case.student_params != size]
        ratio = learn_ratio(others)
        share = learn_loss_ratio(others, [alone(case.student_params, case.student_tokens) for case in others])
        for case, group in whole:
            if case.student_params != size:
                continue
            own = np.log(size)
            names = [str(i) for i in range(len(group))]
            teachers = [{"name": n, "loss": t} for n, t in zip(names, group["teacher_loss"], strict=True)]
            choice = law.choose(student_params=size, student_tokens=case.student_tokens, teachers=teachers)
            picks = {
                "gaplaw": None if choice.recommended is None else names.index(choice.recommended),
                "gaplaw, argmin": int(np.argmin(law.predict(group[SEEN[:3]]))),
                "2.5 times": nearest(case.log_size, own + np.log(2.5)),
                "largest": 0,
                "constant ratio": nearest(case.log_size, own + np.log(ratio)),
                "c times own": nearest(case.log_teacher, np.log(share * alone(size, case.student_tokens))),
                "broken power": int(np.argmin(broken_power(power, group))),
            }
            exact = group["truth"].to_numpy()
            for name, pick in picks.items():
                lost = np.nan if pick is None else exact[pick] - exact.min()
                regrets.setdefault(name, []).append(lost)
                measured.setdefault(name, []).append(np.nan if pick is None else case.regret(pick))
    rms = {name: float(np.sqrt(np.mean(np.concatenate(parts) ** 2))) for name, parts in errors.items()}
    return rms, {n: np.array(v) for n, v in regrets.items()}, {n: np.array(v) for n, v in measured.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="tables per world and scatter")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--worlds", default=",".join(TRUTHS))
    parser.add_argument("--scatters", default="0,1,2,3", help="which of the four scatters, by number")
    arguments = parser.parse_args()
    pooled, started = {}, time.process_time()
    for truth in arguments.worlds.split(","):
        for number in map(int, arguments.scatters.split(",")):
            for seed in range(arguments.first, arguments.first + arguments.seeds):
                frame = world(truth, seed=100 * seed + number, scatter=SCATTERS[number])
                rms, regrets, measured = score(frame)
                line = ", ".join(f"{name} {1e3 * np.nanmean(v):.2f}" for name, v in regrets.items())
                print(
                    f"{truth}, noise, teacher, student sd {SCATTERS[number]}, {len(frame)} rows, "
                    f"{len(regrets['gaplaw'])} choices, "
                    f"{int(np.isnan(regrets['gaplaw']).sum())} refused\n  rms gaplaw {1e3 * rms['gaplaw']:.2f}, "
                    f"broken power {1e3 * rms['broken power']:.2f} mnats\n  regret, mnats: {line}", flush=True,
                )  # fmt: skip
                for name, value in regrets.items():
                    pooled.setdefault(name, []).append((np.nanmean(value), np.nanmean(measured[name])))
                pooled.setdefault("rms", []).append((rms["gaplaw"], rms["broken power"]))
    rms = np.array(pooled.pop("rms"))
    print(
        f"\n{len(rms)} tables; rms, mnats: gaplaw {1e3 * rms[:, 0].mean():.2f}, "
        f"broken power {1e3 * rms[:, 1].mean():.2f}, "
        f"gaplaw lower in {np.mean(rms[:, 0] < rms[:, 1]):.0%}"
    )
    for name, value in sorted(pooled.items(), key=lambda item: np.mean(item[1])):
        true, seen = 1e3 * np.mean(value, axis=0)
        print(f"{name:<16}mean regret {true:7.3f} mnats by the truth, {seen:7.3f} as measured")
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
