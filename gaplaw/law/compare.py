"""Which law, and is it better than a rule of thumb? Rival forms and rules, scored on students that were left out.

After the fit in the law half. A case is one measured student (size and tokens) with its teachers' mean losses. Scores: regret in nats
of the teacher that a rival picks for a student it has not seen, distance in ln T from that student's own optimum, and AICc for
the forms T = kS, kS + b, kS^p, kS^p (D/S)^q. The forms share the joint fit's bowl: a student's evidence about its own optimum is the
likelihood curve of the bowl's place, blurred by the between-student scatter, so that students with an optimum past the edge
count for what they say and nothing is dropped. Rules of thumb are always in the table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from gaplaw.law.available import EQUIVALENT_TOKENS_PER_PARAM
from gaplaw.law.baseline import fit_baseline
from gaplaw.law.flags import Flag
from gaplaw.law.rules import PUBLISHED_RATIO, nearest, size_equivalents

FEWEST_TEACHERS = 4  # for a student to be scored
PLACES = 2401  # of the bowl, ln T: finer than any one student can tell
SCATTER_FLOOR = 0.05  # ln T; between-student scatter is never taken to be smaller when forms are compared
RESAMPLES = 1000
INDISTINGUISHABLE_AICC = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One measured student: its teachers on the law's axis (ln), their mean loss, and what the law says of them unseen."""

    student_params: float
    student_tokens: float | None
    log_teacher: np.ndarray  # (n,)
    loss: np.ndarray  # (n,) mean over seeds, nats
    rows: np.ndarray  # (n,) teachers' seeds
    log_size: np.ndarray | None  # (n,) ln teacher size or its equivalent

    def regret(self, index: int) -> float:
        return float(self.loss[index] - self.loss.min())


def cases_of(table, axis: str, baseline: dict | None = None) -> list[Case]:
    """Every (student, tokens) of the table with enough teachers."""
    frame = table.frame
    keys = ["student_params"] + (["student_tokens"] if "student_tokens" in frame else [])
    out = []
    for key, group in frame.groupby(keys):
        mean = group.groupby(axis)["student_loss"].agg(["mean", "count"])
        if len(mean) < FEWEST_TEACHERS:
            continue
        teachers = mean.index.to_numpy(float)
        if "teacher_params" in group:
            sizes = group.groupby(axis)["teacher_params"].mean().to_numpy(float)
        else:
            sizes = size_equivalents(teachers, baseline)
        out.append(
            Case(
                student_params=float(key[0]),
                student_tokens=float(key[1]) if len(key) > 1 else None,
                log_teacher=np.log(teachers),
                loss=mean["mean"].to_numpy(),
                rows=mean["count"].to_numpy(float),
                log_size=None if sizes is None else np.log(sizes),
            )
        )
    return out


# ---------------------------------------------------------------------------------------------- rules of thumb


def rule_picks(case: Case, constant_ratio: float | None) -> dict[str, int | None]:
    """Index of the teacher that each rule picks; None where sizes are unknown."""
    picks: dict[str, int | None] = {}
    own = np.log(case.student_params)
    ratios = {"same size": 1.0, "2.5 times": PUBLISHED_RATIO, "constant ratio": constant_ratio}
    for rule, ratio in ratios.items():
        known = case.log_size is not None and ratio is not None
        picks[rule] = nearest(case.log_size, own + np.log(ratio)) if known else None
    return picks


def learn_ratio(cases: list[Case]) -> float | None:
    """The constant ratio of least mean regret on these cases; the middle of its stretch."""
    if not cases or any(case.log_size is None for case in cases):
        return None
    low = min(case.log_size.min() - np.log(case.student_params) for case in cases)
    high = max(case.log_size.max() - np.log(case.student_params) for case in cases)
    grid = np.linspace(low, high, 121)
    regret = [np.mean([c.regret(nearest(c.log_size, np.log(c.student_params) + r)) for c in cases]) for r in grid]
    return float(np.exp(grid[np.asarray(regret) <= min(regret) + 1e-12].mean()))


def learn_loss_ratio(cases: list[Case], scales: list[float]) -> float:
    """The constant c of least mean regret in L_T* = c · scale; the middle of its stretch."""
    grid = np.linspace(np.log(0.6), np.log(1.2), 121)
    regret = [
        np.mean([c.regret(nearest(c.log_teacher, np.log(s) + r)) for c, s in zip(cases, scales, strict=True)]) for r in grid
    ]
    return float(np.exp(grid[np.asarray(regret) <= min(regret) + 1e-12].mean()))


# ---------------------------------------------------------------------------------------------- forms in size


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeForm:
    """ln T*(S, D/S) as one of the competing laws; `grid` holds candidate parameters (g, m)."""

    name: str
    parameters: int
    drifts: bool = False
    offset: bool = False
    power: bool = True

    def places(self, theta: np.ndarray, log_size: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
        """ln T* (g, n): theta columns are (place at the mean student, p, q); for kS + b, p is the local slope there."""
        if self.offset:
            # T = kS + b with value exp(theta0) and log-slope p at the mean student: T / T0 = 1 + p (S/S0 − 1).
            return theta[:, 0:1] + np.log(np.maximum(1.0 + theta[:, 1:2] * (np.exp(log_size) - 1.0), 1e-6))
        return theta[:, 0:1] + theta[:, 1:2] * log_size + theta[:, 2:3] * log_ratio


FORMS = (
    SizeForm(name="T = k S", parameters=1, power=False),
    SizeForm(name="T = k S + b", parameters=2, offset=True),
    SizeForm(name="T = k S^p", parameters=2),
    SizeForm(name="T = k S^p (D/S)^q", parameters=3, drifts=True),
)


def evidence(case: Case, bowl, noise: float, tau: float, places: np.ndarray) -> np.ndarray:
    """ln likelihood (PLACES,) of the bowl's place for one student, from its own best: offset profiled out, blurred by tau."""
    h = bowl(case.log_teacher[None] - places[:, None])
    w = case.rows / noise**2
    gap = case.loss[None] - h
    gap = gap - (gap @ w / w.sum())[:, None]
    log_like = -0.5 * (gap**2 @ w)
    top = log_like.max()
    blurred = gaussian_filter1d(np.exp(log_like - top), tau / (places[1] - places[0]), mode="nearest", truncate=6.0)
    # Past the blur's reach the likelihood keeps falling as it does without blur: no form may win by being lost in zeros.
    out = np.maximum(np.log(np.maximum(blurred, 1e-300)), np.maximum(log_like - top, -600.0))
    return out - out.max()


def fit_forms(log_likes: np.ndarray, places: np.ndarray, log_size: np.ndarray, log_ratio: np.ndarray, drift: bool):
    """Best (theta, ln likelihood) of every form by a grid refined three times; log_likes (n, PLACES)."""
    out = {}
    step = places[1] - places[0]
    for form in FORMS:
        if form.drifts and not drift:
            continue
        centre, half = np.array([places.mean(), 1.0, 0.0]), np.array([np.ptp(places) / 2, 1.2, 0.8])
        free = np.array([True, form.power or form.offset, form.drifts])
        theta, value = centre, -np.inf
        for _ in range(7):
            axes = [centre[i] + half[i] * np.linspace(-1, 1, 17) if free[i] else [centre[i]] for i in range(3)]
            if form.offset:
                axes[1] = np.clip(axes[1], 0.0, None)
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
            at = np.clip((form.places(grid, log_size, log_ratio) - places[0]) / step, 0, len(places) - 1.001)
            cell = at.astype(int)
            rows = np.arange(len(log_size))
            share = at - cell
            total = (log_likes[rows, cell] * (1 - share) + log_likes[rows, cell + 1] * share).sum(1)
            theta, value = grid[int(np.argmax(total))], float(total.max())
            centre, half = theta, half * 0.35
        out[form.name] = (form, theta, value)
    return out


def aicc(log_likelihood: float, parameters: int, students: int) -> float:
    """Small-sample AIC with n = students: −2 ln L + 2k + 2k(k+1)/(n − k − 1); infinite when n ≤ k + 1."""
    if students - parameters - 1 <= 0:
        return float("inf")
    return -2 * log_likelihood + 2 * parameters + 2 * parameters * (parameters + 1) / (students - parameters - 1)


def compare(table, law):
    """The law with its rivals scored, for teacher sizes: forms and rules on left-out students, AICc, and who wins how often.

    Returns:
        Law with `rivals` (one dict per form and rule: name, kind, loso_regret_nats, loso_log_size, largest_out_regret_nats, aicc,
        share_of_wins, note), `comparison` (winner, verdict, aicc_gap, constant_ratio) and `baseline`.
    """
    baseline = fit_baseline(table)
    law = replace(law, baseline=baseline)
    cases = cases_of(table, "teacher_params")
    sizes = np.array([case.student_params for case in cases])
    if law.refused or len(np.unique(sizes)) < 3:
        ratio = learn_ratio(cases) if cases else None
        return law.with_rivals((), {"verdict": "too few students to compare", "constant_ratio": ratio})
    bowl = shared_bowl(law, cases)
    measured = np.concatenate([case.log_teacher for case in cases])
    places = np.linspace(measured.min() - 1.5, measured.max() + 1.5, PLACES)
    noise = max(law.noise.residual_sd_nats, 1e-6)
    tau = max(law.noise.student_scatter_ln or 0.0, SCATTER_FLOOR)
    likes = np.array([evidence(case, bowl, noise, tau, places) for case in cases])
    log_size = np.log(sizes) - np.log(sizes).mean()
    tokens = [case.student_tokens for case in cases]
    log_ratio = np.zeros(len(cases)) if tokens[0] is None else np.log(np.array(tokens) / sizes)
    log_ratio = log_ratio - log_ratio.mean()
    drift = float(np.std(log_ratio)) > 0.2
    scores = _Scores(cases)
    for size in np.unique(sizes):
        out = sizes == size
        fits = fit_forms(likes[~out], places, log_size[~out], log_ratio[~out], drift)
        ratio = learn_ratio([case for case, hidden in zip(cases, out, strict=True) if not hidden])
        for index in np.flatnonzero(out):
            case = cases[index]
            own = places[int(np.argmax(likes[index]))]
            inside = case.log_teacher.min() <= own <= case.log_teacher.max()
            for name, (form, theta, _) in fits.items():
                place = float(form.places(theta[None], log_size[index : index + 1], log_ratio[index : index + 1])[0, 0])
                pick = int(np.argmin(bowl(case.log_teacher - place)))
                scores.add(name, "law", index, case.regret(pick), place - own if inside else None)
            for name, pick in rule_picks(case, ratio).items():
                if pick is not None:
                    scores.add(name, "rule", index, case.regret(pick), case.log_size[pick] - own if inside else None)
            scores.add("largest available", "rule", index, case.regret(int(np.argmax(case.log_teacher))), None)
    whole = fit_forms(likes, places, log_size, log_ratio, drift)
    criterion = {name: aicc(value, form.parameters + 1, len(cases)) for name, (form, _, value) in whole.items()}
    rivals = scores.table(sizes, criterion)
    comparison = verdict(rivals, criterion) | {"constant_ratio": learn_ratio(cases), "cases": len(cases)}
    return law.with_rivals(rivals, comparison, _verdict_flags(comparison))


def shared_bowl(law, cases: list[Case]):
    """u → nats: the law's own bowl around its minimum, seen at the middle student."""
    middle = cases[len(cases) // 2]
    logs = np.concatenate([case.log_teacher for case in cases])
    reach = np.ptp(logs) + 2.0
    place = law.surface.optimum_point(middle.student_params, middle.student_tokens)
    place = float(np.clip(place, logs.min(), logs.max()))
    u = np.linspace(-reach, reach, 401)
    ask = pd.DataFrame({"student_params": middle.student_params, "teacher_params": np.exp(place + u)})
    if middle.student_tokens is not None:
        ask["student_tokens"] = middle.student_tokens
    curve = law.surface.predict(ask)
    spline = CubicSpline(u - u[int(np.argmin(curve))], curve - curve.min())
    return lambda at: spline(np.clip(at, spline.x[0], spline.x[-1]))


class _Scores:
    """Regret and ln-size error of every rival on every left-out case."""

    def __init__(self, cases):
        self.count = len(cases)
        self.kind, self.regret, self.log_size = {}, {}, {}

    def add(self, name, kind, index, regret, log_size):
        self.kind[name] = kind
        self.regret.setdefault(name, np.full(self.count, np.nan))[index] = regret
        self.log_size.setdefault(name, np.full(self.count, np.nan))[index] = np.nan if log_size is None else log_size

    def table(self, sizes, criterion, absent=()) -> list[dict]:
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
                    "aicc": criterion.get(name),
                    "share_of_wins": float(wins[row]),
                    "note": "",
                }
            )
        out.sort(key=lambda rival: rival["loso_regret_nats"])
        empty = dict.fromkeys(out[0], None)
        return out + [empty | {"name": name, "kind": "rule", "note": note} for name, note in absent]


def verdict(rivals: list[dict], criterion: dict[str, float]) -> dict:
    """The winner by left-out regret, and whether the forms can be told apart at all."""
    ranked = sorted((value, name) for name, value in criterion.items() if np.isfinite(value))
    gap = ranked[1][0] - ranked[0][0] if len(ranked) > 1 else None
    scored = [rival for rival in rivals if rival["loso_regret_nats"] is not None]
    winner = scored[0]
    told_apart = gap is not None and gap >= INDISTINGUISHABLE_AICC
    return {
        "winner": winner["name"],
        "winner_share": winner["share_of_wins"],
        "best_by_aicc": ranked[0][1] if ranked else None,
        "aicc_gap": gap,
        "verdict": f"{ranked[0][1]} by AICc, gap {gap:.1f}" if told_apart else "not distinguishable",
    }


def _verdict_flags(comparison: dict) -> list[Flag]:
    if comparison["verdict"] != "not distinguishable":
        return []
    text = "the competing forms of the law are not distinguishable on this table (AICc gap below 2)"
    return [Flag("not_distinguishable", text, "note")]


def compare_loss(table, law, *, loso: np.ndarray | None):
    """The same in teacher loss: the law's own left-out predictions against rules in loss, and in size where sizes are derivable.

    Args:
        loso: ln L_S of every row, predicted by a law fitted without the row's student size.
    """
    frame = table.frame
    cases = cases_of(table, "teacher_loss", law.baseline)
    sizes = np.array([case.student_params for case in cases])
    scales = [float(law.surface.scale_loss(case.student_params, case.student_tokens)) for case in cases]
    known = {"constant_ratio": learn_ratio(cases), "loss_ratio": learn_loss_ratio(cases, scales) if cases else None}
    if loso is None or len(np.unique(sizes)) < 3:
        return law.with_rivals((), {"verdict": "too few students to compare"} | known)
    error = np.exp(loso) - frame["student_loss"].to_numpy()
    scores = _Scores(cases)
    for size in np.unique(sizes):
        inside = [index for index in range(len(cases)) if sizes[index] != size]
        others = [cases[index] for index in inside]
        ratio, constant = learn_ratio(others), learn_loss_ratio(others, [scales[index] for index in inside])
        for index in np.flatnonzero(sizes == size):
            case = cases[index]
            at = np.interp(case.log_teacher, *_unseen(frame, loso, case))
            scores.add("law", "law", index, case.regret(int(np.argmin(at))), None)
            pick = nearest(case.log_teacher, np.log(constant * scales[index]))
            scores.add("constant loss ratio", "rule", index, case.regret(pick), None)
            scores.add("largest available", "rule", index, case.regret(int(np.argmin(case.log_teacher))), None)
            for name, pick in rule_picks(case, ratio).items():
                if pick is not None:
                    scores.add(name, "rule", index, case.regret(pick), None)
    missing = [] if cases[0].log_size is not None else ["same size", "2.5 times", "constant ratio"]
    note = f"not applicable: no sizes, and no no-teacher law to derive them at {EQUIVALENT_TOKENS_PER_PARAM:g} tokens per parameter"
    rivals = scores.table(sizes, {}, absent=[(name, note) for name in missing])
    comparison = known | {
        "winner": rivals[0]["name"],
        "winner_share": rivals[0]["share_of_wins"],
        "verdict": f"{rivals[0]['name']} by left-out regret, in {rivals[0]['share_of_wins']:.0%} of student resamples",
        "loso_rms_nats": float(np.sqrt(np.mean(error**2))),
        "loso_mean_relative_error": float(np.mean(np.abs(error) / frame["student_loss"].to_numpy())),
        "cases": len(cases),
    }
    return law.with_rivals(rivals, comparison)


def _unseen(frame, loso, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(ln L_T, left-out ln L_S) of the case's rows, sorted."""
    rows = frame["student_params"].to_numpy() == case.student_params
    if case.student_tokens is not None:
        rows &= frame["student_tokens"].to_numpy() == case.student_tokens
    log_teacher = np.log(frame["teacher_loss"].to_numpy()[rows])
    order = np.argsort(log_teacher)
    return log_teacher[order], loso[rows][order]
