"""The supervised laws: known truth comes back, derivatives are exact, and the Chinchilla early-stop trap is not fallen
into.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gaplaw.errors import LawError, TableError
from gaplaw.law.no_teacher.scaling_law import law_loss
from gaplaw.law.no_teacher.supervised_fit import _Form, fit_supervised
from gaplaw.law.numeric.minimise import huber, minimise

CHINCHILLA = Path(__file__).parents[3].parent / "shared" / "data" / "chinchilla" / "svg_extracted_data.csv"
TRAP_START = (5.0, 0.5, 5.0, 0.5, 0.5)  # ln A, alpha, ln B, beta, ln E


@pytest.fixture(scope="module")
def chinchilla():
    if not CHINCHILLA.exists():
        pytest.skip("the Chinchilla points are not on this machine")
    raw = pd.read_csv(CHINCHILLA).sort_values("loss")[:240]
    return pd.DataFrame(
        {"params": raw["Model Size"], "tokens": raw["Training FLOP"] / 6 / raw["Model Size"], "loss": raw["loss"]}
    )


def simulated(parameters, noise=0.0, seed=0):
    sizes, tokens = np.meshgrid(np.geomspace(4e7, 1e10, 9), np.geomspace(1e9, 1e12, 7))
    loss = law_loss(parameters, sizes, tokens)
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(loss.shape))
    return pd.DataFrame({"params": sizes.ravel(), "tokens": tokens.ravel(), "loss": loss.ravel()})


def scipy_objective(frame, delta=1e-3):
    """The plain objective written independently, with its gradient, in natural coordinates."""
    n, d, loss = (np.log(frame[name].to_numpy()) for name in ("params", "tokens", "loss"))

    def objective(p):
        z = np.stack([p[0] - p[1] * n, p[2] - p[3] * d, np.full_like(n, p[4])])
        top = z.max(0)
        share = np.exp(z - top)
        total = share.sum(0)
        r = top + np.log(total) - loss
        w, share = np.clip(r, -delta, delta), share / total
        gradient = [w @ share[0], -(w * n) @ share[0], w @ share[1], -(w * d) @ share[1], w @ share[2]]
        return float(np.sum(np.where(abs(r) < delta, r * r / 2, delta * (abs(r) - delta / 2)))), np.array(gradient)

    return objective


def test_chinchilla_optimum_from_a_cold_start(chinchilla):
    fit = fit_supervised(chinchilla, huber_delta=1e-3)
    assert fit.objective <= 0.0010182745
    assert 0.512 <= fit.data_exponent <= 0.516
    assert fit.status == "converged" and fit.share_at_best > 0.9
    expected = {"A": 477.83, "B": 2143.42, "E": 1.81722, "alpha": 0.34731, "beta": 0.36717}
    assert dict(fit.parameters) == pytest.approx(expected, rel=1e-4)


def test_chinchilla_bootstrap_interval(chinchilla):
    fit = fit_supervised(chinchilla, draws=400, seed=1)
    assert fit.draws_converged == 1.0
    assert fit.interval95["alpha"] == pytest.approx((0.316, 0.371), abs=0.006)
    assert fit.interval95["beta"] == pytest.approx((0.336, 0.417), abs=0.012)
    exponent = fit.draws["beta"] / (fit.draws["alpha"] + fit.draws["beta"])
    assert np.quantile(exponent, [0.025, 0.975]) == pytest.approx((0.482, 0.561), abs=0.012)


def test_the_early_stop_trap(chinchilla):
    """L-BFGS-B with default tolerances calls another answer converged; from that very start ours reaches the
    optimum.
    """
    from scipy.optimize import minimize as scipy_minimize

    trapped = scipy_minimize(scipy_objective(chinchilla), TRAP_START, jac=True, method="L-BFGS-B")
    assert trapped.success and trapped.fun > 0.0014
    assert trapped.x[[1, 3]] == pytest.approx([0.28, 0.235], abs=0.005)
    form = _Form(*(np.log(chinchilla[name].to_numpy()) for name in ("params", "tokens", "loss")), with_gamma=False)
    a, alpha, b, beta, e = TRAP_START
    start = np.array([[a - alpha * form.centre[0], alpha, b - beta * form.centre[1], beta, e]])
    ours = minimise(form.value, form, start, delta=1e-3)
    assert ours.converged[0] and ours.objective[0] <= 0.0010182745
    # From the trapped answer too: it is no local optimum, only a place where the optimiser stopped.
    a, alpha, b, beta, e = trapped.x
    start = np.array([[a - alpha * form.centre[0], alpha, b - beta * form.centre[1], beta, e]])
    assert minimise(form.value, form, start, delta=1e-3).objective[0] <= 0.0010182745


def test_all_rows_move_the_answer(chinchilla):
    raw = pd.read_csv(CHINCHILLA)
    frame = pd.DataFrame(
        {"params": raw["Model Size"], "tokens": raw["Training FLOP"] / 6 / raw["Model Size"], "loss": raw["loss"]}
    )
    fit = fit_supervised(frame)
    assert fit.rows == 245
    assert fit.parameters["beta"] == pytest.approx(0.453, abs=0.002)


@pytest.mark.parametrize("gamma", [False, True])
def test_recovers_a_known_law(gamma):
    truth = {"A": 480.0, "B": 2000.0, "E": 1.8, "alpha": 0.35, "beta": 0.37}
    if gamma:
        truth = {"A": 3000.0, "B": 18000.0, "E": 1.25, "alpha": 0.41, "beta": 0.43, "gamma": 0.5}
    exact = fit_supervised(simulated(truth), gamma=gamma)
    assert dict(exact.parameters) == pytest.approx(truth, rel=1e-3)
    noisy = fit_supervised(simulated(truth, noise=0.002, seed=3), gamma=gamma, draws=200)
    low, high = noisy.interval95["alpha"]
    assert low < truth["alpha"] < high
    assert noisy.interval90["E"][1] - noisy.interval90["E"][0] > 0


@pytest.mark.parametrize("gamma", [False, True])
def test_derivatives_match_finite_differences(gamma):
    rng = np.random.default_rng(0)
    frame = simulated({"A": 480.0, "B": 2000.0, "E": 1.8, "alpha": 0.35, "beta": 0.37})
    form = _Form(*(np.log(frame[name].to_numpy()) for name in ("params", "tokens", "loss")), with_gamma=gamma)
    theta = np.array([[0.1, 0.3, -0.2, 0.4, 0.5, 0.7][: 6 if gamma else 5]])
    at = form(theta)
    weight = rng.standard_normal((1, len(frame)))
    assert at.value == pytest.approx(form.value(theta), abs=1e-12)
    bend = at.bend(weight)[0]
    step = 1e-5
    for i in range(theta.shape[1]):
        shift = np.zeros_like(theta)
        shift[0, i] = step
        up, down = form(theta + shift), form(theta - shift)
        slope = (up.value - down.value) / (2 * step)
        assert at.jacobian[0, :, i] == pytest.approx(slope[0], abs=1e-8)
        curve = (weight[:, :, None] * (up.jacobian - down.jacobian)).sum(1)[0] / (2 * step)
        assert bend[i] == pytest.approx(curve, abs=1e-6)


def test_huber_is_smooth_at_its_threshold():
    r = np.array([0.5, 1.0, 2.0])
    assert huber(r, 1.0) == pytest.approx([0.125, 0.5, 1.5])


def test_size_equivalent_inverts_the_law():
    fit = fit_supervised(simulated({"A": 480.0, "B": 2000.0, "E": 1.8, "alpha": 0.35, "beta": 0.37}))
    loss = fit.loss(1.5e9, 30e9)
    assert fit.params_for_loss(loss) == pytest.approx(1.5e9, rel=1e-3)
    assert fit.params_for_loss(1.7) == np.inf


def test_refusals():
    frame = simulated({"A": 480.0, "B": 2000.0, "E": 1.8, "alpha": 0.35, "beta": 0.37})
    with pytest.raises(TableError, match="column tokens is missing"):
        fit_supervised(frame.drop(columns="tokens"))
    with pytest.raises(TableError, match="row 3, column loss"):
        fit_supervised(frame.assign(loss=frame["loss"].where(frame.index != 3)))
    with pytest.raises(LawError, match="too few"):
        fit_supervised(frame[:8])
    with pytest.raises(LawError, match="params has a single value"):
        fit_supervised(frame.assign(params=1e9))
