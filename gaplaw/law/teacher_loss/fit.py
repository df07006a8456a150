"""How does a table of teacher losses become a Law? The fit, its parameters with intervals, its scatter and its flags.

Called by `loss_coordinate.fit_loss_law`; the law half of the walk. Everything that a person reads about a
loss-coordinate law is made here; what the law computes is in `loss_coordinate`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gaplaw.errors import LawError
from gaplaw.law import one_student as optimum
from gaplaw.law.flags import FEWEST_TEACHERS, worst_first
from gaplaw.law.law import Law, Noise, Parameter
from gaplaw.law.no_teacher.baseline import baseline_loss, fit_baseline
from gaplaw.law.numeric.quantiles import interval
from gaplaw.law.teacher_loss.checks import doubts, profile, shape_flags
from gaplaw.law.teacher_loss.forms import Points
from gaplaw.law.teacher_loss.stacking import HUBER_TUNING, draw, fit_stack, places
from gaplaw.law.teacher_loss.surface import LossSurface, columns_of

FEWEST_ROWS = 20
SAME_TOKENS = 0.1  # ln units
SCATTER_FLOOR = 0.01  # ln L_T; a new student's own shift is never taken to be exactly zero


def fit_loss_law(table, *, seed: int = 0, draws: int = 400) -> Law:
    """L_S(N_S, D_S, L_T) of a loss-coordinate table, as a Law.

    Args:
        table: `Table` with coordinate teacher_loss.
        seed: of the draws.
        draws: wild-cluster bootstrap draws.

    Raises:
        LawError: fewer rows than the forms have parameters to spare, or a student loss that is not positive.
    """
    frame = table.frame
    if len(frame) < FEWEST_ROWS:
        raise LawError(
            f"{table.source}: {len(frame)} rows are too few for a law in teacher loss; {FEWEST_ROWS} are needed"
        )
    log_n, log_d, log_t, log_s = columns_of(frame)
    if log_d is not None and np.ptp(log_d) < SAME_TOKENS:
        log_d = None  # one token budget says nothing about tokens: a term for them would only trade with the floor
    baseline = fit_baseline(table)
    alone = None
    if baseline is not None:
        alone = np.log(baseline_loss(baseline, np.exp(log_n), None if log_d is None else np.exp(log_d)))
    centre = (float(log_n.mean()), None if log_d is None else float(log_d.mean()))
    points = Points(log_n - centre[0], None if log_d is None else log_d - centre[1], log_t, alone)
    weight = frame["weight"].to_numpy(float) if "weight" in frame else None
    sizes = frame["student_params"].to_numpy(float)
    stack = fit_stack(points, log_s, sizes=sizes, weight=weight)
    groups, teachers = clusters(frame)
    stack = draw(stack, points, log_s, groups=groups, teachers=teachers, weight=weight, count=draws, seed=seed)
    tau = student_scatter(stack, points, log_s, sizes)
    total = sum(len(part.theta_draws) for part in stack.components)
    rng = np.random.default_rng(seed + 1)
    # tau rests on few students: its own uncertainty widens the scatter as a t distribution.
    freedom = max(len(np.unique(sizes)) - 1, 2)
    scatter = tau * rng.standard_normal(total) * np.sqrt(freedom / rng.chisquare(freedom, total))
    surface = LossSurface(
        stack=stack,
        centre=centre,
        log_ratio=None if log_d is None else float(np.median(log_d - log_n)),
        span=(float(log_t.min()), float(log_t.max())),
        scatter=np.clip(scatter, -0.5, 0.5),
        baseline=baseline,
    )
    status, flags = doubts(table, surface, stack, frame)
    flags += shape_flags(stack, surface, points, log_s, weight, frame)
    noise = _noise(stack, log_s, frame, tau)
    law = Law(
        coordinate="teacher_loss",
        form=" + ".join(f"{part.weight:.2f} {part.form.name}" for part in stack.components),
        status=status,
        share_of_starts=float(min(part.share_at_best for part in stack.components)),
        parameters=_parameters(stack, points, log_s, weight, surface, frame),
        students=_students(frame, surface, noise.residual_sd_nats, seed),
        flags=worst_first(flags),
        measured={
            name: (float(frame[name].min()), float(frame[name].max()))
            for name in ("student_params", "student_tokens", "teacher_loss", "student_loss")
            if name in frame
        },
        noise=noise,
        surface=surface,
        provenance={
            "source": table.source, "rows": len(frame), "protocol": table.protocol, "notes": list(table.notes),
            "seed": seed, "draws": total, "huber_tuning": HUBER_TUNING,
            "forms": {part.kind: {"weight": part.weight, "leave_one_student_out_rms_ln": part.loso_rms, "status": part.status}
                      for part in stack.components},
        },
        baseline=baseline,
    )  # fmt: skip
    from gaplaw.law.compare.compare import compare_loss

    return compare_loss(table, law, loso=stack.loso)


def clusters(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Cluster labels (n,): one per (student, tokens) group; one per teacher (losses equal to 3 decimals are one
    teacher).
    """
    names = [name for name in ("student_params", "student_tokens") if name in frame]
    groups = frame.groupby(names, sort=True).ngroup().to_numpy()
    return groups, np.unique(frame["teacher_loss"].round(3), return_inverse=True)[1]


def student_scatter(stack, points: Points, log_loss, sizes) -> float:
    """tau: how far students' bowls sit from where the law, fitted without them, puts them (ln L_T).

    Per student the left-out residual is regressed on the slope of its predicted curve; the variance of these shifts
    beyond their own standard errors is tau², with a floor.
    """
    if stack.loso is None:
        return 0.05
    step = 0.005
    up = Points(points.x, points.y, points.t + step, points.alone)
    down = Points(points.x, points.y, points.t - step, points.alone)
    slope = (stack.log_loss(up, teachers=False) - stack.log_loss(down, teachers=False)) / (2 * step)
    residual = log_loss - stack.loso
    shifts, errors = [], []
    for size in np.unique(sizes):
        rows = sizes == size
        s, r = slope[rows] - slope[rows].mean(), residual[rows] - residual[rows].mean()
        if rows.sum() < 4 or s @ s < 1e-6:
            continue
        shift = -(s @ r) / (s @ s)
        shifts.append(shift)
        errors.append(np.mean((r + shift * s) ** 2) / (s @ s))
    if len(shifts) < 2:
        return 0.05
    return float(np.sqrt(max(np.mean(np.square(shifts)) - np.mean(errors), SCATTER_FLOOR**2)))


def _parameters(stack, points, log_loss, weight, surface, frame) -> dict[str, Parameter]:
    """c, the reachable loss and the two sides of the bowl, from the plain reach form; the break from the broken power
    law.
    """
    reach = next(part for part in stack.components if part.kind == "reach")
    theta, draws = reach.theta, reach.theta_draws
    cx, cy = surface.centre
    inside = {name: index for index, name in enumerate(reach.form.names)}

    def natural(t):
        t = np.atleast_2d(t)
        alpha, beta, gamma = (np.exp(t[:, inside[name]]) for name in ("ln_alpha", "ln_beta", "ln_gamma"))
        out = {
            "c": np.exp(t[:, inside["kappa"]]), "E": np.exp(t[:, 0]), "A": np.exp(t[:, 1] + alpha * cx), "alpha": alpha,
            "gamma": gamma, "strong_side_slope": np.exp(t[:, inside["p"]]), "weak_side_slope": np.exp(t[:, inside["q"]]),
        }  # fmt: skip
        if cy is not None:
            out |= {"B": np.exp(t[:, 3] + beta * cy), "beta": beta}
        return out

    notes = {"c": "L_T* / M, M the student's reachable loss; profile likelihood widened for clusters"}
    at, many = natural(theta), natural(draws)
    out = {}
    for name, value in at.items():
        spread = many[name]
        pair = {
            level: tuple(map(float, np.quantile(spread, [(1 - level) / 2, (1 + level) / 2]))) for level in (0.5, 0.9)
        }
        out[name] = Parameter(
            name=name, point=float(value[0]), interval50=pair[0.5], interval90=pair[0.9], bootstrap90=pair[0.9],
            note=notes.get(name, "wild cluster bootstrap"),
        )  # fmt: skip
    spans = profile(reach, points, places(stack.reach_theta, points), log_loss, weight, inside["kappa"])
    out["c"] = Parameter(
        name="c", point=out["c"].point, interval50=spans[0.5], interval90=spans[0.9],
        bootstrap90=out["c"].bootstrap90, note=notes["c"],
    )  # fmt: skip
    if surface.baseline is not None:
        pairs = frame.drop_duplicates([n for n in ("student_params", "student_tokens") if n in frame])
        ratios = [
            surface.optimum_point(row.student_params, getattr(row, "student_tokens", None))
            - np.log(surface.scale_loss(row.student_params, getattr(row, "student_tokens", None)))
            for row in pairs.itertuples()
        ]
        ratios = np.array([float(ratio) for ratio in ratios])
        if np.isfinite(ratios).any():
            note = "L_T* / no-teacher loss, mean over measured students of the averaged law"
            mean = float(np.exp(ratios[np.isfinite(ratios)].mean()))
            out["c_no_teacher"] = Parameter(name="c_no_teacher", point=mean, note=note)
    power = next((part for part in stack.components if part.kind == "broken_power"), None)
    if power is not None:
        for name, index in (("c0", 5), ("f1", 7)):
            value, spread = power.theta[index], power.theta_draws[:, index]
            if name == "f1":
                value, spread = np.exp(value), np.exp(spread)
            pair = [tuple(map(float, np.quantile(spread, [(1 - lv) / 2, (1 + lv) / 2]))) for lv in (0.5, 0.9)]
            out[name] = Parameter(name=name, point=float(value), interval50=pair[0], interval90=pair[1],
                                  bootstrap90=pair[1], note="broken power law; wild cluster bootstrap")  # fmt: skip
    return out


def _noise(stack, log_loss, frame, tau) -> Noise:
    residual = (log_loss - stack.fitted) * np.exp(stack.fitted)
    keys = [name for name in ("student_params", "student_tokens", "teacher_loss") if name in frame]
    seed_sd = None
    if "seed" in frame:
        spread = frame.groupby(keys)["student_loss"].agg(["var", "count"])
        spread = spread[spread["count"] > 1]
        if len(spread):
            seed_sd = float(np.sqrt(np.average(spread["var"], weights=spread["count"] - 1)))
    shared = sum(part.weight * part.correction.teacher.amplitude for part in stack.components)
    return Noise(
        residual_sd_nats=float(np.sqrt(np.mean(residual**2))),
        seed_sd_nats=seed_sd,
        teacher_sd_nats=float(shared * np.exp(stack.fitted).mean()),
        student_scatter_ln=tau,
        seeds=int(frame["seed"].nunique()) if "seed" in frame else 1,
    )


def _students(frame, surface, sd: float, seed: int) -> tuple:
    """Each measured student's optimum by parabola, Akima curve and this law, in ln L_T; disagreement is marked, not
    hidden.
    """
    rng = np.random.default_rng(seed)
    names = [name for name in ("student_params", "student_tokens") if name in frame]
    out = []
    for key, group in frame.groupby(names):
        mean = group.groupby("teacher_loss")["student_loss"].agg(["mean", "count"])
        if len(mean) < FEWEST_TEACHERS:
            continue
        params, tokens = float(key[0]), float(key[1]) if len(key) > 1 else None
        data = optimum.Profile(
            x=np.log(mean.index.to_numpy(float)), y=mean["mean"].to_numpy(), sd=sd / np.sqrt(mean["count"].to_numpy(float)),
            freedom=float(len(frame)),
        )  # fmt: skip
        own = surface.optimum_draws(params, tokens) - surface.scatter
        spans = [tuple(None if e is None else np.log(e) for e in interval(own, level)) for level in (0.5, 0.9)]
        at = surface.optimum_point(params, tokens)
        methods = [optimum.quadratic(data), optimum.akima(data, rng), optimum.joint(at, spans, data)]
        level = float(
            np.exp(
                surface.stack.log_loss(
                    surface._at(params, tokens, np.full(1, np.clip(at, *surface.span))), teachers=False
                )
            )[0]
        )
        out.append(optimum.side_by_side(params, tokens, data, methods, level))
    return tuple(out)
