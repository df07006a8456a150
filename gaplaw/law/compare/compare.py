"""Which law, and is it better than a rule of thumb? Rival forms and rules, scored on students that were left out.

After the fit in the law half. A case is one measured student (size and tokens) with its teachers' mean losses. Scores:
regret in nats of the teacher that a rival picks for a student it has not seen, distance in ln T from that student's own
optimum, and AICc for the forms T = kS, kS + b, kS^p, kS^p (D/S)^q (see `size_forms`). Rules of thumb are always in the
table.
"""

from __future__ import annotations

import numpy as np

from gaplaw.law.compare.cases import Case, cases_of, learn_loss_ratio, learn_ratio, rule_picks
from gaplaw.law.compare.size_forms import LEAST_SCATTER_LN, aicc, evidence, fit_forms, shared_bowl
from gaplaw.law.decide.rules_of_thumb import CONSTANT_LOSS_RATIO, LARGEST, nearest, size_rules, strongest
from gaplaw.law.decide.teachers import EQUIVALENT_TOKENS_PER_PARAM
from gaplaw.law.flags import Flag

OPTIMUM_GRID_POINTS = 2401  # of the bowl, ln T: finer than any one student can tell
RESAMPLES = 1000
INDISTINGUISHABLE_AICC = 2.0


def compare_size_law(table, law):
    """A law over teacher sizes with its rivals scored: forms and rules on left-out students, AICc, and who wins how
    often.

    Args:
        table: what was fitted.
        law: the law of it.

    Returns:
        The law with `rivals` (one dict per form and rule: name, kind, loso_regret_nats, loso_log_size,
        largest_out_regret_nats, aicc, share_of_wins, note) and `comparison` (winner, verdict, aicc_gap,
        constant_ratio).
    """
    cases = cases_of(table, "teacher_params")
    sizes = np.array([case.student_params for case in cases])
    if law.refused or len(np.unique(sizes)) < 3:
        ratio = learn_ratio(cases) if cases else None
        return law.with_rivals((), {"verdict": "too few students to compare", "constant_ratio": ratio})
    bowl = shared_bowl(law, cases)
    measured = np.concatenate([case.log_teacher for case in cases])
    log_optima = np.linspace(measured.min() - 1.5, measured.max() + 1.5, OPTIMUM_GRID_POINTS)
    noise = max(law.noise.residual_sd_nats, 1e-6)
    tau = max(law.noise.student_scatter_ln or 0.0, LEAST_SCATTER_LN)
    log_likelihoods = np.array([evidence(case, bowl, noise, tau, log_optima) for case in cases])
    log_size = np.log(sizes) - np.log(sizes).mean()
    tokens = [case.student_tokens for case in cases]
    log_ratio = np.zeros(len(cases)) if tokens[0] is None else np.log(np.array(tokens) / sizes)
    log_ratio = log_ratio - log_ratio.mean()
    with_tokens = float(np.std(log_ratio)) > 0.2
    scores = _Scores(cases)
    for size in np.unique(sizes):
        out = sizes == size
        fits = fit_forms(log_likelihoods[~out], log_optima, log_size[~out], log_ratio[~out], with_tokens)
        ratio = learn_ratio([case for case, left_out in zip(cases, out, strict=True) if not left_out])
        for index in np.flatnonzero(out):
            case = cases[index]
            own = log_optima[int(np.argmax(log_likelihoods[index]))]
            inside = case.log_teacher.min() <= own <= case.log_teacher.max()
            for name, (form, theta, _) in fits.items():
                log_optimum = float(
                    form.log_optima(theta[None], log_size[index : index + 1], log_ratio[index : index + 1])[0, 0]
                )
                pick = int(np.argmin(bowl(case.log_teacher - log_optimum)))
                scores.add(name, "law", index, case.regret(pick), log_optimum - own if inside else None)
            for name, pick in rule_picks(case, ratio).items():
                if pick is not None:
                    scores.add(name, "rule", index, case.regret(pick), case.log_size[pick] - own if inside else None)
            pick = strongest(case.log_teacher, "teacher_params")
            scores.add(LARGEST, "rule", index, case.regret(pick), None)
    whole = fit_forms(log_likelihoods, log_optima, log_size, log_ratio, with_tokens)
    aicc_by_form = {name: aicc(value, form.parameters + 1, len(cases)) for name, (form, _, value) in whole.items()}
    rivals = scores.table(sizes, aicc_by_form)
    comparison = verdict(rivals, aicc_by_form) | {"constant_ratio": learn_ratio(cases), "cases": len(cases)}
    return law.with_rivals(rivals, comparison, _verdict_flags(comparison))


class _Scores:
    """Regret and ln-size error of every rival on every left-out case."""

    def __init__(self, cases):
        self.count = len(cases)
        self.kind, self.regret, self.log_size = {}, {}, {}

    def add(self, name, kind, index, regret, log_size):
        self.kind[name] = kind
        self.regret.setdefault(name, np.full(self.count, np.nan))[index] = regret
        self.log_size.setdefault(name, np.full(self.count, np.nan))[index] = np.nan if log_size is None else log_size

    def table(self, sizes, aicc_by_form, absent=()) -> list[dict]:
        """One dict per rival, best first, with the share of student resamples in which it wins."""
        names = list(self.regret)
        regret = np.array([self.regret[name] for name in names])
        rng = np.random.default_rng(0)
        distinct = np.unique(sizes)
        member = np.array([sizes == size for size in distinct]).astype(float)
        counts = rng.multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), size=RESAMPLES) @ member
        means = counts @ regret.T / counts.sum(1, keepdims=True)
        best = means <= means.min(1, keepdims=True) + 1e-9
        wins = (best / best.sum(1, keepdims=True)).mean(0)
        largest = sizes == distinct[-1]
        out = []
        for row, name in enumerate(names):
            errors = self.log_size[name][np.isfinite(self.log_size[name])]
            out.append(
                {
                    "name": name,
                    "kind": self.kind[name],
                    "loso_regret_nats": float(regret[row].mean()),
                    "worst_regret_nats": float(regret[row].max()),
                    "loso_log_size": float(np.sqrt(np.mean(errors**2))) if len(errors) else None,
                    "largest_out_regret_nats": float(regret[row, largest].mean()),
                    "aicc": aicc_by_form.get(name),
                    "share_of_wins": float(wins[row]),
                    "note": "",
                }
            )
        out.sort(key=lambda rival: rival["loso_regret_nats"])
        empty = dict.fromkeys(out[0], None)
        return out + [empty | {"name": name, "kind": "rule", "note": note} for name, note in absent]


def verdict(rivals: list[dict], aicc_by_form: dict[str, float]) -> dict:
    """The winner by left-out regret, and whether the forms can be told apart at all.

    Args:
        rivals: from the scores. aicc_by_form: name → AICc.
    """
    ranking = sorted((value, name) for name, value in aicc_by_form.items() if np.isfinite(value))
    gap = ranking[1][0] - ranking[0][0] if len(ranking) > 1 else None
    scored = [rival for rival in rivals if rival["loso_regret_nats"] is not None]
    winner = scored[0]
    distinguishable = gap is not None and gap >= INDISTINGUISHABLE_AICC
    return {
        "winner": winner["name"],
        "winner_share": winner["share_of_wins"],
        "best_by_aicc": ranking[0][1] if ranking else None,
        "aicc_gap": gap,
        "verdict": f"{ranking[0][1]} by AICc, gap {gap:.1f}" if distinguishable else "not distinguishable",
    }


def _verdict_flags(comparison: dict) -> list[Flag]:
    if comparison["verdict"] != "not distinguishable":
        return []
    text = "the competing forms of the law are not distinguishable on this table (AICc gap below 2)"
    return [Flag("not_distinguishable", text, "note")]


def compare_loss_law(table, law):
    """A law over teacher losses with rules scored beside its own left-out predictions; size rules where sizes are
    known.

    Args:
        table: what was fitted.
        law: the law of it, fresh from the fit (its surface still knows the left-out predictions).

    Returns:
        The law with `rivals` and `comparison`, as `compare_size_law`.
    """
    frame = table.frame
    left_out = law.surface.average.left_out_log_loss  # ln L_S of every row, predicted without its student size
    cases = cases_of(table, "teacher_loss", law.baseline)
    sizes = np.array([case.student_params for case in cases])
    scales = [float(law.surface.scale_loss(case.student_params, case.student_tokens)) for case in cases]
    known = {"constant_ratio": learn_ratio(cases), "loss_ratio": learn_loss_ratio(cases, scales) if cases else None}
    if left_out is not None:
        error = np.exp(left_out) - frame["student_loss"].to_numpy()
        known["loso_rms_nats"] = float(np.sqrt(np.mean(error**2)))
        known["loso_mean_relative_error"] = float(np.mean(np.abs(error) / frame["student_loss"].to_numpy()))
    if left_out is None or len(np.unique(sizes)) < 3:
        return law.with_rivals((), {"verdict": "too few students to compare"} | known)
    scores = _Scores(cases)
    for size in np.unique(sizes):
        inside = [index for index in range(len(cases)) if sizes[index] != size]
        others = [cases[index] for index in inside]
        ratio, constant = learn_ratio(others), learn_loss_ratio(others, [scales[index] for index in inside])
        for index in np.flatnonzero(sizes == size):
            case = cases[index]
            at = np.interp(case.log_teacher, *_left_out_curve(frame, left_out, case))
            scores.add("law", "law", index, case.regret(int(np.argmin(at))), None)
            pick = nearest(case.log_teacher, np.log(constant * scales[index]))
            scores.add(CONSTANT_LOSS_RATIO, "rule", index, case.regret(pick), None)
            pick = strongest(case.log_teacher, "teacher_loss")
            scores.add(LARGEST, "rule", index, case.regret(pick), None)
            for name, pick in rule_picks(case, ratio).items():
                if pick is not None:
                    scores.add(name, "rule", index, case.regret(pick), None)
    missing = [] if cases[0].log_size is not None else list(size_rules(None))
    note = (
        f"not applicable: no sizes, and no no-teacher law to derive them at {EQUIVALENT_TOKENS_PER_PARAM:g} tokens "
        "per parameter"
    )
    rivals = scores.table(sizes, {}, absent=[(name, note) for name in missing])
    comparison = known | {
        "winner": rivals[0]["name"],
        "winner_share": rivals[0]["share_of_wins"],
        "verdict": f"{rivals[0]['name']} by left-out regret, in {rivals[0]['share_of_wins']:.0%} of student resamples",
        "cases": len(cases),
    }
    return law.with_rivals(rivals, comparison)


def _left_out_curve(frame, left_out, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(ln L_T, left-out ln L_S) of the case's rows, sorted."""
    rows = frame["student_params"].to_numpy() == case.student_params
    if case.student_tokens is not None:
        rows &= frame["student_tokens"].to_numpy() == case.student_tokens
    log_teacher = np.log(frame["teacher_loss"].to_numpy()[rows])
    order = np.argsort(log_teacher)
    return log_teacher[order], left_out[rows][order]
