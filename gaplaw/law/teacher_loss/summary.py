"""What does a fit in teacher loss say to people? Its parameters, each student's optimum and the noise: a `FittedLaw`.

Follows `fit`, which computes; everything that a person reads about a law over teacher losses is made here.
"""

from __future__ import annotations

import numpy as np

from gaplaw.law import one_student
from gaplaw.law.answers import Noise, Parameter
from gaplaw.law.fitted_law import FittedLaw
from gaplaw.law.flags import FEWEST_TEACHERS, worst_first
from gaplaw.law.numeric.quantiles import central_quantiles, interval, transform
from gaplaw.law.table.read import Table
from gaplaw.law.teacher_loss.checks import diagnostics, fit_status, profile, shape_flags
from gaplaw.law.teacher_loss.fit import FormsFit
from gaplaw.law.teacher_loss.form_average import correction_inputs
from gaplaw.law.teacher_loss.stacking import HUBER_TUNING


def loss_law(table: Table, fit: FormsFit, *, seed: int) -> FittedLaw:
    """The law of a fitted table of teacher losses, not yet compared with rivals.

    Args:
        table: what was fitted. fit: from `fit_forms`. seed: of the curves through single students.
    """
    frame, average, surface, inputs, log_s = table.frame, fit.average, fit.surface, fit.inputs, fit.log_loss
    flags = diagnostics(table, average) + shape_flags(average, surface, inputs, log_s, fit.weight, frame)
    noise = _noise(average, log_s, frame, fit.student_scatter_ln)
    return FittedLaw(
        coordinate="teacher_loss",
        form=" + ".join(f"{part.weight:.2f} {part.form.name}" for part in average.components),
        status=fit_status(average),
        share_of_starts=float(min(part.share_at_best for part in average.components)),
        parameters=_parameters(average, inputs, log_s, fit.weight, surface, frame),
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
            "source": table.source,
            "rows": len(frame),
            "protocol": table.protocol,
            "notes": list(table.notes),
            "seed": seed,
            "draws": len(surface.scatter),
            "huber_tuning": HUBER_TUNING,
            "forms": {
                part.kind: {"weight": part.weight, "leave_one_student_out_rms_ln": part.loso_rms, "status": part.status}
                for part in average.components
            },
        },
        baseline=surface.baseline,
    )


def _parameters(average, inputs, log_loss, weight, surface, frame) -> dict[str, Parameter]:
    """c, the reachable loss and the two sides of the bowl, from the plain reach form; the break from the broken power
    law.
    """
    reach = next(part for part in average.components if part.kind == "reach")
    theta, draws = reach.theta, reach.theta_draws
    cx, cy = surface.centre
    inside = {name: index for index, name in enumerate(reach.form.names)}

    def natural(t):
        t = np.atleast_2d(t)
        alpha, beta, gamma = (np.exp(t[:, inside[name]]) for name in ("ln_alpha", "ln_beta", "ln_gamma"))
        out = {
            "c": np.exp(t[:, inside["kappa"]]),
            "E": np.exp(t[:, 0]),
            "A": np.exp(t[:, 1] + alpha * cx),
            "alpha": alpha,
            "gamma": gamma,
            "strong_side_slope": np.exp(t[:, inside["p"]]),
            "weak_side_slope": np.exp(t[:, inside["q"]]),
        }
        if cy is not None:
            out |= {"B": np.exp(t[:, 3] + beta * cy), "beta": beta}
        return out

    notes = {"c": "L_T* / M, M the student's reachable loss; profile likelihood widened for clusters"}
    at, many = natural(theta), natural(draws)
    out = {}
    for name, value in at.items():
        spread = many[name]
        pair = {level: central_quantiles(spread, level) for level in (0.5, 0.9)}
        out[name] = Parameter(
            name=name, point=float(value[0]), interval50=pair[0.5], interval90=pair[0.9], bootstrap90=pair[0.9],
            note=notes.get(name, "wild cluster bootstrap"),
        )  # fmt: skip
    spans = profile(reach, inputs, correction_inputs(average.reach_theta, inputs), log_loss, weight, inside["kappa"])
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
    power = next((part for part in average.components if part.kind == "broken_power"), None)
    if power is not None:
        for name, index in (("c0", 5), ("f1", 7)):
            value, spread = power.theta[index], power.theta_draws[:, index]
            if name == "f1":
                value, spread = np.exp(value), np.exp(spread)
            pair = [central_quantiles(spread, level) for level in (0.5, 0.9)]
            out[name] = Parameter(name=name, point=float(value), interval50=pair[0], interval90=pair[1],
                                  bootstrap90=pair[1], note="broken power law; wild cluster bootstrap")  # fmt: skip
    return out


def _noise(average, log_loss, frame, tau) -> Noise:
    residual = (log_loss - average.fitted_log_loss) * np.exp(average.fitted_log_loss)
    keys = [name for name in ("student_params", "student_tokens", "teacher_loss") if name in frame]
    seed_sd = None
    if "seed" in frame:
        spread = frame.groupby(keys)["student_loss"].agg(["var", "count"])
        spread = spread[spread["count"] > 1]
        if len(spread):
            seed_sd = float(np.sqrt(np.average(spread["var"], weights=spread["count"] - 1)))
    shared = sum(part.weight * part.correction.teacher.amplitude for part in average.components)
    return Noise(
        residual_sd_nats=float(np.sqrt(np.mean(residual**2))),
        seed_sd_nats=seed_sd,
        teacher_sd_nats=float(shared * np.exp(average.fitted_log_loss).mean()),
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
        data = one_student.Profile(
            x=np.log(mean.index.to_numpy(float)),
            y=mean["mean"].to_numpy(),
            sd=sd / np.sqrt(mean["count"].to_numpy(float)),
            freedom=float(len(frame)),
        )
        own = surface.optimum_draws(params, tokens) - surface.scatter
        spans = [transform(interval(own, level), np.log) for level in (0.5, 0.9)]
        at = surface.optimum_point(params, tokens)
        methods = [one_student.quadratic(data), one_student.akima(data, rng), one_student.joint(at, spans, data)]
        level = float(
            np.exp(
                surface.average.log_loss(
                    surface._at(params, tokens, np.full(1, np.clip(at, *surface.span))), teachers=False
                )
            )[0]
        )
        out.append(one_student.compare_methods(params, tokens, data, methods, level))
    return tuple(out)
