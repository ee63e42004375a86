"""Structured, bias-corrected and ensemble scaling: optima, peers and edges."""

from __future__ import annotations

import json
from pathlib import Path

import naive
import numpy as np
import pytest
from linear_problems import PROBLEMS, probabilities, problem
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from core.calibrators import (
    BiasCorrectedTemperature,
    Calibrator,
    DirichletCalibration,
    EnsembleTemperature,
    MatrixScaling,
    MixedStructuredMatrix,
    MixedTemperature,
    NoBiasVectorScaling,
    SoftplusLink,
    StructuredMatrixScaling,
    StructuredVectorScaling,
    TemperatureScaling,
)
from core.calibrators.ensemble import _WeightFit
from core.calibrators.matrix_fit import MatrixFit, Ridge, _Shape, _Units
from core.calibrators.softplus import _LinkFit
from core.messages import Cancelled, DataError, no_progress
from core.softmax import log_softmax, softmax

PEERS = json.loads((Path(__file__).parent / "golden/structured_peers.json").read_text())
STRUCTURED = {"svs": StructuredVectorScaling, "sms": StructuredMatrixScaling}
CHOSEN = (MatrixScaling, DirichletCalibration)
HELD = (*STRUCTURED.values(), BiasCorrectedTemperature, NoBiasVectorScaling)
EVERY = (*HELD, *CHOSEN, SoftplusLink, EnsembleTemperature)
each = pytest.mark.parametrize("kind", EVERY)


def draw(n=400, k=4, t=2.0, seed=0, dtype=np.float64):
    """Logits at temperature t; each class has an offset of its own."""
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, k)) + np.linspace(-1, 1, k)
    y = (z + np.linspace(1, -1, k) + rng.gumbel(size=(n, k))).argmax(axis=1)
    return (z * t).astype(dtype), y


def nll(fit, z, y):
    return -float(fit.transform(z)[np.arange(len(y)), y].mean())


def numbers(fit):
    """[W | b] of what was fitted."""
    if isinstance(fit, StructuredMatrixScaling):
        return np.column_stack([fit.matrix_, fit.bias_])
    return np.column_stack([np.diag(fit.weights_), fit.bias_])


# --------------------------------------------------------- objective and optimum


@pytest.mark.parametrize("k", [2, 3, 40])
def test_the_matrix_objective_is_the_slow_one(k, monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, k)), rng.integers(0, k, 30)
    weight = rng.gamma(1.0, size=30)
    weight[3] = 0.0
    theta = np.eye(k, k + 1) + 0.3 * rng.normal(size=(k, k + 1))
    slow_loss, slow_gradient = naive.matrix_objective(x, y, theta, weight)
    for block in (1 << 22, 7 * k):
        monkeypatch.setattr("core.calibrators.matrix_fit._BLOCK", block)
        fit = MatrixFit(x, y, weight)
        loss, gradient = fit.objective(theta)
        assert loss == pytest.approx(slow_loss, rel=1e-12)
        assert fit.loss(theta) == loss
        np.testing.assert_allclose(gradient, slow_gradient, rtol=1e-9, atol=1e-14)
        single, rounded = fit.objective(theta, dtype=np.float32)
        assert single == pytest.approx(slow_loss, rel=1e-6)
        np.testing.assert_allclose(rounded, slow_gradient, atol=1e-6)


def test_a_fit_that_begins_in_single_precision_ends_at_the_same_optimum(monkeypatch):
    z, y = draw(300, 6)
    exact = StructuredMatrixScaling().fit(z, y)
    monkeypatch.setattr("core.calibrators.matrix_fit._SINGLE_FROM", 0)
    fit = StructuredMatrixScaling().fit(z, y)
    assert exact.gradient_ <= 1e-6
    assert fit.gradient_ <= 2e-5
    assert fit.nll_after_ == pytest.approx(exact.nll_after_, abs=1e-6)
    np.testing.assert_allclose(fit.transform(z), exact.transform(z), atol=1e-4)


def test_the_units_are_undone_and_their_curvature_is_that_of_the_model():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 4))
    a, moments, is_free = rng.gamma(2.0, size=3), root.T @ root, np.ones(3, bool)
    ridge = Ridge(0.1, 0.7, 0.2)
    units = _Units(_Shape.of(a, moments, 0.2 / 0.7), ridge, is_free)
    u = rng.normal(size=12)
    np.testing.assert_allclose(units.unmoved(units.moved(u)), u, rtol=1e-9)
    g = rng.normal(size=(3, 4))
    assert units.pulled(g) @ u == pytest.approx((g * units.moved(u)).sum())
    steps = units.moved(u)
    curved = a[:, None] * steps @ moments + 2 * units.ridge * steps
    # The offsets are held as well as everything else in the units, or better.
    assert (steps * curved).sum() == pytest.approx(u @ u, rel=1e-9)


@pytest.mark.parametrize("ridge", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", STRUCTURED)
def test_the_optimum_is_that_of_the_slow_objective(name, ridge, weighted):
    k, n = 3, 60
    z, y = draw(n, k)
    w = np.random.default_rng(3).gamma(2.0, size=n) if weighted else np.ones(n)
    fit = STRUCTURED[name](ridge=ridge).fit(z, y, w)
    rows = w.sum() ** 2 / (w @ w)
    assert fit.mixing_ == pytest.approx(1 / (rows + 1))
    assert fit.temperature_ == TemperatureScaling().fit(z, y, w).temperature_
    x = naive.mixed_logs(z, fit.temperature_, fit.mixing_)
    held = np.full((k, k + 1), ridge * k * (k - 1) / rows)
    held[:, k] = ridge * k / rows
    np.fill_diagonal(held, ridge * k / rows)
    is_there = np.ones((k, k + 1), bool)
    if name == "svs":
        is_there = np.eye(k, k + 1, dtype=bool)
        is_there[:, k] = True
    start = np.eye(k, k + 1)

    def value(point):
        theta = start.copy()
        theta[is_there] = point
        loss, gradient = naive.matrix_objective(x, y, theta, w)
        step = theta - start
        loss += (held * step**2).sum()
        return loss, (gradient + 2 * held * step)[is_there]

    slow = optimize.minimize(
        value, start[is_there], jac=True, method="BFGS", options={"gtol": 1e-7}
    )
    ours = value(numbers(fit)[is_there])
    assert ours[0] <= slow.fun + 1e-11
    assert np.abs(ours[1]).max() <= 1e-5
    theta = start.copy()
    theta[is_there] = slow.x
    expected = softmax(x @ theta[:, :k].T + theta[:, k])
    np.testing.assert_allclose(fit.predict_proba(z), expected, atol=1e-5)
    assert fit.gradient_ <= 1e-6
    assert fit.notes_ == []


@pytest.mark.parametrize("ridge", [0.0, 1.0])
@pytest.mark.parametrize("k", [2, 4])
def test_bias_correction_is_the_optimum_in_temperature_and_offsets(ridge, k):
    n = 150
    z, y = draw(n, k)
    fit = BiasCorrectedTemperature(ridge=ridge).fit(z + 100.0, y)

    def value(point):
        slope, offset = np.full(k, point[0]), point[1:]
        loss, gradient = naive.vector_objective(z, y, slope, offset)
        loss += ridge * k / n * offset @ offset
        held = 2 * ridge * k / n * offset
        return loss, np.r_[gradient[0].sum(), gradient[1] + held]

    point = np.r_[1.0, np.zeros(k)]
    slow = optimize.minimize(value, point, jac=True, options={"gtol": 1e-8})
    ours = value(np.r_[1 / fit.temperature_, fit.bias_])
    assert ours[0] <= slow.fun + 1e-11
    assert np.abs(ours[1]).max() <= 1e-5
    assert fit.temperature_ == pytest.approx(1 / slow.x[0], rel=1e-4)
    before = TemperatureScaling().fit(z, y).nll_after_
    assert fit.nll_after_ < before == pytest.approx(fit.nll_before_, rel=1e-9)
    assert fit.notes_ == []


def test_known_offsets_are_found():
    rng = np.random.default_rng(4)
    z = 2 * rng.normal(size=(50_000, 4))
    offset = np.array([0.3, -0.6, 0.2, 0.1])
    y = (z / 1.7 + offset + rng.gumbel(size=z.shape)).argmax(axis=1)
    fit = BiasCorrectedTemperature().fit(z, y)
    assert fit.temperature_ == pytest.approx(1.7, rel=0.03)
    np.testing.assert_allclose(fit.bias_ - fit.bias_.mean(), offset, atol=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_the_shares_are_the_optimum_and_its_certificate_is_one(seed):
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet([1, 1, 1, 2], 200)[:, :3]
    if seed == 1:
        chances[:, 1] = chances[:, 0]  # nothing tells two of them apart
    if seed == 2:
        chances[:, 1:] *= 0.1  # the first is all there is
    weight = rng.gamma(1.0, size=200)
    fit = _WeightFit(chances, weight)
    shares = fit.minimise()
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()
    best = min(
        fit.loss(np.array([a, b, 1 - a - b]))
        for a in np.linspace(0, 1, 101)
        for b in np.linspace(0, 1 - a, 101)
    )
    assert fit.loss(shares) <= best + 1e-9
    assert -1e-9 <= fit.gain(shares) <= 1e-6


def test_an_ensemble_is_never_worse_than_its_temperature_and_finds_a_grain():
    rng = np.random.default_rng(5)
    z, y = draw(20_000, 5, t=1.0)
    y = np.where(rng.random(y.size) < 0.2, rng.integers(0, 5, y.size), y)
    fit = EnsembleTemperature().fit(3 * z, y)
    assert fit.nll_after_ <= fit.nll_before_
    assert nll(fit, 3 * z, y) == pytest.approx(fit.nll_after_, rel=1e-9)
    assert fit.weights_[2] > 0.02
    assert fit.predict_proba(100 * z).max() <= 1 - fit.weights_[2] * 0.8 + 1e-12
    assert fit.notes_ == []


def test_an_ensemble_of_labels_by_chance_keeps_the_order():
    z = draw(300)[0]
    y = np.random.default_rng(6).integers(0, 4, 300)
    fit = EnsembleTemperature().fit(50 * z, y)
    assert fit.weights_[2] <= 0.999
    assert (fit.predict(50 * z) == z.argmax(axis=1)).all()


# ------------------------------------------------------- matrices, held by a choice


@pytest.mark.parametrize("kind", CHOSEN)
@pytest.mark.parametrize("strength", [0.2, 3.0])
def test_a_matrix_is_the_optimum_of_the_slow_objective(kind, strength):
    k, n = 3, 60
    z, y = draw(n, k)
    fit = kind(strength=strength).fit(z, y)
    t = fit.temperature_
    x = (naive.log_softmax(z) if kind is DirichletCalibration else z) / t
    held = np.full((k, k + 1), strength * k * (k - 1) / n)
    held[:, k] = strength * k / n
    np.fill_diagonal(held, strength * k / n)
    start = np.eye(k, k + 1)

    def value(point):
        step = point.reshape(k, k + 1) - start
        loss, gradient = naive.matrix_objective(x, y, start + step, np.ones(n))
        return loss + (held * step**2).sum(), (gradient + 2 * held * step).ravel()

    slow = optimize.minimize(value, start.ravel(), jac=True, options={"gtol": 1e-7})
    ours = value(np.column_stack([t * fit.matrix_, fit.bias_]).ravel())
    assert ours[0] <= slow.fun + 1e-11
    assert np.abs(ours[1]).max() <= 1e-5
    assert (fit.strength_, fit.path_, fit.notes_) == (strength, [], [])
    assert fit.parameters()["strength"] == strength


def test_free_matrices_are_multinomial_regressions():
    z, y = draw(600, 3)
    logs = log_softmax(z)
    for kind, x in ((MatrixScaling, z), (DirichletCalibration, logs)):
        theirs = LogisticRegression(C=1e9, tol=1e-9, max_iter=1000).fit(x, y)
        ours = kind(strength=1e-9).fit(z, y)
        expected = theirs.predict_proba(x)
        np.testing.assert_allclose(ours.predict_proba(z), expected, atol=1e-4)


def test_a_matrix_reads_logits_as_they_are_and_dirichlet_their_chances():
    z, y = draw(200)
    shifted = z + np.linspace(-5, 5, 200)[:, None]
    for kind, is_same in ((MatrixScaling, False), (DirichletCalibration, True)):
        fit = kind(strength=0.1).fit(z, y)
        same = np.allclose(fit.transform(z), fit.transform(shifted), atol=1e-9)
        assert same == is_same


@pytest.mark.parametrize("kind", CHOSEN)
def test_the_strength_is_chosen_by_what_rows_say_that_were_left_out(kind):
    rng = np.random.default_rng(7)
    z = 2 * rng.normal(size=(600, 12))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    calibrated = kind().fit(z, y)
    assert calibrated.strength_ == 100.0
    assert calibrated.path_[0][1] <= min(nll for _, nll in calibrated.path_) + 0.02
    turned = np.roll(z, 1, axis=1) + 0.3 * z
    confused = kind().fit(turned, y)
    assert confused.strength_ <= 1.0
    assert len(confused.path_) >= 3
    temperature = TemperatureScaling().fit(turned, y)
    assert nll(confused, turned, y) < nll(temperature, turned, y) - 0.3


def test_rows_of_a_group_are_left_out_together():
    # Copies of rows in other folds would speak for a free matrix.
    z, y = draw(60, 6)
    z, y, groups = np.tile(z, (10, 1)), np.tile(y, 10), np.tile(np.arange(60), 10)
    together = DirichletCalibration().fit(z, y, groups=groups)
    apart = DirichletCalibration().fit(z, y)
    assert together.strength_ > apart.strength_


def uncalibrated_loss_and(kind, n, k, scale, n_test=5_000, seed=8):
    """NLL of scores that are calibrated, without and with a calibrator."""
    rng = np.random.default_rng(seed)
    z = scale * rng.standard_normal((n + n_test, k))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    fit = kind().fit(z[:n], y[:n])
    before = -log_softmax(z[n:])[np.arange(n_test), y[n:]].mean()
    return before, nll(fit, z[n:], y[n:])


@pytest.mark.parametrize("kind", CHOSEN)
def test_many_classes_and_few_rows_do_no_harm(kind):
    before, after = uncalibrated_loss_and(kind, 1_000, 30, 3.0)
    assert after <= 1.005 * before


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHOSEN)
@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0, 8.0])
def test_a_hundred_classes_and_5000_rows_do_no_harm(kind, scale):
    before, after = uncalibrated_loss_and(kind, 5_000, 100, scale, 20_000)
    assert after <= 1.005 * before


def test_slopes_without_offsets_are_the_optimum_of_the_slow_objective():
    k, n = 4, 120
    z, y = draw(n, k)
    fit = NoBiasVectorScaling(ridge=0.5).fit(z, y)

    def value(slope):
        loss, gradient = naive.vector_objective(z, y, slope, np.zeros(k))
        bent = fit.temperature_ * slope - 1
        loss += 0.5 * k / n * bent @ bent
        return loss, gradient[0] + k / n * fit.temperature_ * bent

    slow = optimize.minimize(value, np.ones(k), jac=True, options={"gtol": 1e-8})
    np.testing.assert_allclose(fit.weights_, slow.x, atol=1e-5)
    assert (fit.bias_ == 0).all()
    assert fit.to_dict()["parameters"].keys() == {"weights"}


# ------------------------------------------------------------ mixtures and the link


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (MixedTemperature, TemperatureScaling),
        (MixedStructuredMatrix, StructuredMatrixScaling),
    ],
)
def test_a_grain_of_the_uniform_is_mixed_in(kind, plain):
    z, y = draw(200)
    z[::5, 3] = np.where(y[::5] == 3, z[::5, 3], -np.inf)
    weight = np.random.default_rng(9).gamma(2.0, size=200)
    fit, own = kind().fit(z, y, weight), plain().fit(z, y, weight)
    n = weight.sum() ** 2 / (weight @ weight)
    assert fit.grain_ == pytest.approx(1 / (n + 1))
    is_open = z > -np.inf
    uniform = is_open / is_open.sum(axis=1, keepdims=True)
    expected = (1 - fit.grain_) * own.predict_proba(z) + fit.grain_ * uniform
    np.testing.assert_allclose(fit.predict_proba(z), expected, rtol=1e-9)
    good = fit.to_dict()
    bad = good["parameters"] | {"grain": 1.0}
    with pytest.raises(DataError):
        Calibrator.from_dict(good | {"parameters": bad})


def test_a_mixture_is_what_probmetrics_mixes():
    z = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0], [1.0, 4.0, 0.0]])
    fit = MixedTemperature().fit(z, [0, 2, 1])
    found = fit.predict_proba(z)
    # All are right: T is at its bound, and the loss of a wrong row stays ln(12).
    np.testing.assert_allclose(found.min(axis=1), 1 / 4 / 3)
    np.testing.assert_allclose(found.max(axis=1), 1 - 2 / 12)


def test_the_link_has_the_gradient_of_its_loss_and_ends_in_temperature_scaling():
    z, y = draw(50)
    z[0, (y[0] + 1) % 4] = -np.inf
    fit = _LinkFit(z, y, np.ones(50), no_progress)
    for point in ([0.3, -3.0], [-0.5, 0.0], [1.0, 5.0]):
        error = optimize.check_grad(
            lambda x: fit.value(x)[0], lambda x: fit.value(x)[1], np.array(point)
        )
        assert error < 1e-6
    t = TemperatureScaling().fit(z, y)
    end = fit.value(np.array([np.log(t.temperature_), -20.0]))
    assert end[0] == pytest.approx(t.nll_after_, abs=1e-8)


def test_a_bent_link_is_found():
    rng = np.random.default_rng(10)
    z = 3 * rng.normal(size=(20_000, 5))
    soft = np.logaddexp(0.0, log_softmax(z) / 0.8 + 2.0)
    p = soft / soft.sum(axis=1, keepdims=True)
    y = (np.log(p) + rng.gumbel(size=z.shape)).argmax(axis=1)
    fit = SoftplusLink().fit(z, y)
    assert fit.temperature_ == pytest.approx(0.8, rel=0.05)
    assert fit.bend_ == pytest.approx(2.0, abs=0.2)
    assert fit.nll_after_ < fit.nll_before_ - 0.002
    assert nll(fit, z, y) == pytest.approx(fit.nll_after_, rel=1e-9)
    np.testing.assert_allclose(fit.predict_proba(z), p, atol=0.02)
    assert fit.notes_ == []


# ------------------------------------------------------------------------ a peer


@pytest.mark.parametrize("name", PROBLEMS)
def test_structured_scaling_is_as_good_as_probmetrics(name):
    own, theirs = problem(name), PEERS["problems"][name]
    assert theirs["uncalibrated"] == pytest.approx(
        -log_softmax(own.z_test)[np.arange(len(own.y_test)), own.y_test].mean()
    )
    for method, kind in STRUCTURED.items():
        fit = kind().fit(own.z, own.y)
        # What counts is not to be worse; theirs stops at single precision.
        assert nll(fit, own.z_test, own.y_test) == pytest.approx(
            theirs[method]["nll"], rel=2e-3
        )
        shown = np.array(theirs[method]["probabilities"])
        found = fit.predict_proba(own.z_test[: len(shown)])
        np.testing.assert_allclose(found, shown, atol=5e-3)
        assert fit.notes_ == []


# ------------------------------------------------------------------------- edges


@pytest.mark.parametrize("kind", HELD)
def test_a_large_ridge_leaves_the_temperature(kind):
    z, y = draw()
    temperature = TemperatureScaling().fit(z, y)
    fit = kind(ridge=1e6).fit(z, y)
    found, expected = fit.predict_proba(z), temperature.predict_proba(z)
    np.testing.assert_allclose(found, expected, atol=3e-3)  # 1 / (n + 1) is mixed in
    middle = kind().fit(z, y)
    assert kind(ridge=1e-3).fit(z, y).nll_after_ < middle.nll_after_ < fit.nll_after_


@each
def test_a_missing_class_keeps_what_all_share(kind):
    z, y = draw(300)
    keep = y != 1
    fit = kind().fit(z[keep], y[keep])
    assert "missing-class" in [note.code for note in fit.notes_]
    assert np.isfinite(fit.transform(z)).all()
    if kind in (StructuredMatrixScaling, *CHOSEN):
        beta = 1.0 if kind is StructuredMatrixScaling else 1 / fit.temperature_
        np.testing.assert_allclose(fit.matrix_[1], beta * np.eye(4)[1])
    if kind is StructuredVectorScaling:
        assert fit.weights_[1] == 1.0
    if kind not in (EnsembleTemperature, SoftplusLink):
        assert fit.bias_[1] == 0.0


@each
def test_a_constant_column_and_probabilities_of_one_are_survived(kind):
    z, y = draw(200)
    z[:, 2] = 0.7
    fit = kind().fit(z, y)
    assert np.isfinite(fit.transform(z)).all()
    assert nll(fit, z, y) < nll(TemperatureScaling().fit(z, y), z, y) + 0.02
    p = np.eye(4)[(y + (np.arange(200) % 10 == 0)) % 4]
    fit = kind(input="probabilities").fit(p, y)
    found = fit.predict_proba(p)
    assert np.isfinite(fit.transform(p)).all()
    assert found.max(axis=1).mean() == pytest.approx(0.9, abs=0.03)


@each
def test_masked_classes_stay_out(kind):
    z, y = draw(200, 5)
    z[y < 3, 4] = -np.inf
    z[::7, 3] = np.where(y[::7] == 3, z[::7, 3], -np.inf)
    fit = kind().fit(z, y)
    found = fit.transform(z)
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(z))
    assert fit.nll_after_ <= fit.nll_before_ + 1e-12
    assert nll(fit, z, y) == pytest.approx(fit.nll_after_, rel=1e-6)


@each
def test_labels_at_minus_infinity_are_left_out(kind):
    z, y = draw(200)
    impossible = z.copy()
    impossible[np.arange(5), y[:5]] = -np.inf
    fit, plain = kind().fit(impossible, y), kind().fit(z[5:], y[5:])
    np.testing.assert_allclose(fit.transform(z), plain.transform(z), atol=1e-5)
    assert [note.code for note in fit.notes_] == ["impossible-label"]
    alone = kind().fit(impossible[:5], y[:5])
    assert np.isfinite(alone.transform(z)).all()


@each
def test_the_scale_of_weights_is_nothing_and_rows_without_do_not_count(kind):
    z, y = draw(200)
    weight = np.random.default_rng(0).integers(0, 3, 200).astype(float)
    found = kind().fit(z, y, weight).transform(z)
    scaled = kind().fit(z, y, weight * 1e-6)
    np.testing.assert_allclose(scaled.transform(z), found, atol=1e-5)
    kept = weight > 0
    without = kind().fit(z[kept], y[kept], weight[kept])
    np.testing.assert_allclose(without.transform(z), found, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1e2, 1e4])
@each
def test_small_and_huge_logits_are_fitted(kind, scale):
    z, y = draw(200, t=scale)
    fit = kind().fit(z, y)
    assert np.isfinite(fit.predict_proba(z)).all()
    assert fit.nll_after_ <= fit.nll_before_ + 1e-12
    assert fit.gradient_ <= 1e-6


@each
def test_separable_rows_stay_finite(kind):
    y = np.arange(60) % 3
    z = np.eye(3)[y] * 2 + np.random.default_rng(0).normal(0, 0.1, (60, 3))
    fit = kind().fit(z, y)
    assert "fit-at-bound" in {note.code for note in fit.notes_}
    assert (fit.predict(z) == y).all()
    if kind in STRUCTURED.values():
        # A grain of the uniform stays: no row that is wrong costs everything.
        assert fit.transform(-z).min() > -60


def test_labels_against_the_logits_are_told():
    z, y = draw(400)
    fit = BiasCorrectedTemperature().fit(-z, y)
    assert fit.temperature_ == 1e3
    assert "fit-at-bound" in [note.code for note in fit.notes_]
    falling = StructuredVectorScaling(ridge=0.01).fit(z * [-1, 1, 1, 1], y)
    assert falling.weights_[0] < 0
    assert [note.code for note in falling.notes_] == ["falling-curve"]


@pytest.mark.parametrize("kind", STRUCTURED.values())
def test_a_fit_that_is_cut_short_says_so(kind, monkeypatch):
    for module in ("matrix_fit", "vector_fit"):
        monkeypatch.setattr(f"core.calibrators.{module}._MAX_ITERATIONS", 1)
    fit = kind().fit(*draw())
    assert [note.code for note in fit.notes_] == ["not-converged"]


@each
def test_progress_is_told_and_can_stop(kind):
    told = []
    kind().fit(*draw(), progress=lambda share, text: told.append((share, text)))
    shares, texts = zip(*told, strict=True)
    assert max(shares) < 1
    assert len(set(texts)) == (3 if kind in CHOSEN else 2)
    assert list(shares) == sorted(shares)
    assert texts[0] == "Fitting the temperature"

    def stop(share, text):
        if text == texts[-1]:
            raise Cancelled

    with pytest.raises(Cancelled):
        kind().fit(*draw(), progress=stop)


@pytest.mark.parametrize("kind", HELD)
@pytest.mark.parametrize("ridge", [-1.0, np.inf, np.nan])
def test_an_impossible_ridge_is_refused(kind, ridge):
    with pytest.raises(ValueError, match="ridge"):
        kind(ridge=ridge).fit(*draw(50))


@pytest.mark.parametrize("kind", CHOSEN)
@pytest.mark.parametrize("strength", [-1.0, np.inf, np.nan])
def test_an_impossible_strength_is_refused(kind, strength):
    with pytest.raises(ValueError, match="strength"):
        kind(strength=strength).fit(*draw(50))


@each
def test_impossible_parameters_are_refused(kind):
    good = kind().fit(*draw(100, k=3)).to_dict()
    bad = {
        "temperature": [0.0, float("nan"), 1e9],
        "mixing": [0.0, 1.0],
        "weights": [[1.0], [1e30] * 3, [0.5, 0.6, 0.7] if kind == EVERY[-1] else [1]],
        "matrix": [[[1.0] * 3] * 2, [[float("nan")] * 3] * 3],
        "bias": [[0.0] * 2, [float("nan")] * 3],
        "bend": [21.0, float("nan")],
    }
    for name in good["parameters"]:
        for value in bad[name]:
            parameters = good["parameters"] | {name: value}
            with pytest.raises(DataError):
                Calibrator.from_dict(good | {"parameters": parameters})


def test_probabilities_of_the_problems_are_those_of_the_core():
    z = draw(20)[0]
    np.testing.assert_allclose(probabilities(z), softmax(z), rtol=1e-12)
