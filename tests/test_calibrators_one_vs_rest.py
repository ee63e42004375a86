"""Platt scaling, beta calibration and histogram binning, class against rest."""

from __future__ import annotations

import json
from pathlib import Path

import naive
import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV, _SigmoidCalibration
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from core.binning import bin_edges
from core.calibrators import (
    AveragedBinnings,
    BetaCalibration,
    Calibrator,
    CentredIsotonic,
    HistogramBinning,
    IMaxBinning,
    IsotonicCalibration,
    PlattScaling,
    QuadraticScaling,
    ScalingBinning,
    SplineCalibration,
    VennAbers,
    one_vs_rest,
)
from core.kernels.logistic import _logistic_kernel
from core.messages import Cancelled, DataError, FitError
from core.softmax import softmax

PEERS = json.loads(
    (Path(__file__).parent / "golden" / "calibrator_peers.json").read_text("utf-8")
)
VALUES = PEERS["values"]
FAMILY = (
    *(PlattScaling, BetaCalibration, HistogramBinning, IsotonicCalibration),
    *(AveragedBinnings, CentredIsotonic, IMaxBinning, QuadraticScaling),
    *(ScalingBinning, SplineCalibration, VennAbers),
)
every_member = pytest.mark.parametrize("kind", FAMILY)


def draw(n=400, k=4, t=2.0, seed=0, scale=1.5):
    """Logits whose true temperature is t."""
    rng = np.random.default_rng(seed)
    z = scale * rng.normal(size=(n, k))
    y = (z + rng.gumbel(size=(n, k))).argmax(axis=1)
    return z * t, y


def stored(name):
    return np.array(PEERS[name]["logits"]), np.array(PEERS[name]["labels"])


def log_odds(p):
    return np.log(p) - np.log1p(-p)


# ---------------------------------------------------------------------- Platt


@pytest.mark.parametrize("scale", [0.05, 1.0, 40.0])
def test_binary_platt_is_scikit_learns_sigmoid(scale):
    z, y = draw(k=2, scale=scale)
    score = z[:, 1] - z[:, 0]
    theirs = _SigmoidCalibration().fit(score, y)
    ours = PlattScaling().fit(score[:, None], y)
    assert ours.slope_[0] == pytest.approx(-theirs.a_, rel=1e-4)
    assert ours.intercept_[0] == pytest.approx(-theirs.b_, rel=1e-3, abs=1e-5)
    np.testing.assert_allclose(
        ours.predict_proba(score[:, None])[:, 1], theirs.predict(score), atol=2e-6
    )
    assert ours.gradient_ <= 1e-8
    assert len(ours.notes_) == (ours.slope_[0] < 0)


def test_weighted_platt_is_scikit_learns_with_weights_that_count_rows():
    z, y = draw(k=2)
    weight = np.random.default_rng(1).gamma(1.0, size=len(y))
    counted = weight * weight.sum() / (weight @ weight)
    theirs = _SigmoidCalibration().fit(z[:, 1] - z[:, 0], y, counted)
    for scale in (1e-6, 1.0, 1e6):
        ours = PlattScaling().fit(z, y, weight * scale)
        assert ours.slope_[0] == pytest.approx(-theirs.a_, rel=1e-4)
        assert ours.intercept_[0] == pytest.approx(-theirs.b_, rel=1e-3)


def test_calibrated_classifier_of_scikit_learn_agrees_for_two_classes():
    rng = np.random.default_rng(16)
    x = rng.normal(size=(500, 3))
    y = (x[:, 0] + rng.logistic(size=500) > 0).astype(int)
    model = FrozenEstimator(LogisticRegression().fit(x[:200], y[:200]))
    rest, truth = x[200:], y[200:]
    theirs = CalibratedClassifierCV(model, method="sigmoid", ensemble=False)
    theirs = theirs.fit(rest, truth).predict_proba(rest)
    score = model.decision_function(rest)[:, None]
    ours = PlattScaling().fit(score, truth).predict_proba(score)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_one_vs_rest_platt_is_scikit_learns_on_log_odds():
    z, y = draw(600, k=5)
    odds = log_odds(softmax(z))
    mapped = np.column_stack(
        [
            _SigmoidCalibration().fit(odds[:, c], y == c).predict(odds[:, c])
            for c in range(5)
        ]
    )
    ours = PlattScaling().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(ours, naive.one_vs_rest(mapped), atol=1e-5)


def test_platt_is_the_slow_fit():
    z, y = draw(150, k=3)
    fit = PlattScaling().fit(z, y)
    p = softmax(z)
    mapped = np.empty_like(p)
    for c in range(3):
        targets = naive.platt_targets(y == c)
        # Platt's map is the symmetric one: a = b, which two more inputs cannot beat.
        a, b, offset = naive.fit_beta_curve(p[:, c], targets, lowest=None)
        mapped[:, c] = fit.map_probability(p[:, c], c)
        free = 1 / (
            1 + np.exp(-(a * np.log(p[:, c]) - b * np.log1p(-p[:, c]) + offset))
        )
        best, ours = (
            -np.mean(targets * np.log(q) + (1 - np.array(targets)) * np.log1p(-q))
            for q in (free, mapped[:, c])
        )
        assert best <= ours + 1e-12
        for step in (-1e-3, 1e-3):
            slope, shift = fit.slope_[c], fit.intercept_[c]
            for other in ((slope + step, shift), (slope, shift + step)):
                q = 1 / (1 + np.exp(-(other[0] * log_odds(p[:, c]) + other[1])))
                worse = np.mean(
                    targets * np.log(q) + (1 - np.array(targets)) * np.log1p(-q)
                )
                assert -worse > ours
    np.testing.assert_allclose(
        fit.predict_proba(z), naive.one_vs_rest(mapped), rtol=1e-12
    )


def test_netcals_logistic_calibration_differs_only_by_the_smoothed_targets():
    z, y = stored("binary")
    found = PlattScaling().fit(z, y).predict_proba(z)[:, 1]
    np.testing.assert_allclose(found[:40], VALUES["netcal_logistic"], atol=1e-2)


def test_scores_against_the_labels_give_a_falling_curve_with_a_note():
    z, y = draw(k=2)
    fit = PlattScaling().fit(z, 1 - y)
    assert fit.slope_[0] < 0
    assert [note.code for note in fit.notes_] == ["falling-curve"]


def test_a_constant_added_to_a_row_changes_nothing():
    z, y = draw()
    moved = z + np.random.default_rng(3).normal(0, 50, (len(z), 1))
    for kind in FAMILY[:2]:
        fit = kind().fit(z, y)
        np.testing.assert_allclose(
            kind().fit(moved, y).transform(moved), fit.transform(z), rtol=1e-8
        )


# ----------------------------------------------------------------------- beta


@pytest.mark.parametrize("name", ["", "_no_a", "_no_b"])
def test_beta_is_betacals_fit(name):
    z, y = stored("binary")
    if name:
        y = np.array(PEERS[name[1:]])
    theirs = VALUES[f"betacal{name}"]
    fit = BetaCalibration().fit(z, y)
    # betacal stops at scikit-learn's tolerance of 1e-4.
    expected = [theirs["a"], theirs["b"], theirs["c"]]
    np.testing.assert_allclose(fit.coefficients_[0], expected, atol=2e-4)
    np.testing.assert_allclose(fit.predict_proba(z)[:40, 1], theirs["p"], atol=1e-4)
    assert fit.gradient_ <= 1e-8
    assert fit.notes_ == []


def test_beta_is_netcals_fit():
    z, y = stored("binary")
    found = BetaCalibration().fit(z, y).predict_proba(z)[:, 1]
    np.testing.assert_allclose(found[:40], VALUES["netcal_beta"], atol=1e-4)


@pytest.mark.parametrize("truth", [(0.5, 1.5), (-0.3, 0.8), (0.8, -0.3), (-0.5, -0.5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_beta_is_the_slow_constrained_fit(truth, weighted):
    rng = np.random.default_rng(5)
    p = rng.beta(1.0, 1.0, 120)
    score = truth[0] * np.log(p) - truth[1] * np.log1p(-p) + 0.2
    y = (rng.random(120) < 1 / (1 + np.exp(-score))).astype(int)
    weight = rng.gamma(2.0, size=120) if weighted else None
    fit = BetaCalibration(input="probabilities").fit(p[:, None], y, weight)
    slow = naive.fit_beta_curve(p, y, weight)
    np.testing.assert_allclose(fit.coefficients_[0], slow, atol=2e-4)
    assert (fit.coefficients_[0, :2] >= 0).all()
    np.testing.assert_allclose(
        fit.predict_proba(p[:, None])[:, 1], fit.map_probability(p), rtol=1e-12
    )


def test_beta_finds_the_map_that_made_the_labels():
    rng = np.random.default_rng(6)
    p = rng.beta(0.8, 0.8, 200_000)
    truth = (0.6, 1.4, -0.3)
    score = truth[0] * np.log(p) - truth[1] * np.log1p(-p) + truth[2]
    y = (rng.random(p.size) < 1 / (1 + np.exp(-score))).astype(int)
    fit = BetaCalibration(input="probabilities").fit(p[:, None], y)
    np.testing.assert_allclose(fit.coefficients_[0], truth, atol=0.03)


@pytest.mark.parametrize("kind", FAMILY[:2])
@pytest.mark.parametrize("margin", [0.1, 5.0, 1e3, 1e4])
def test_separable_rows_give_finite_curves_with_a_note(kind, margin):
    y = np.arange(60) % 3
    z = np.eye(3)[y] * margin + np.random.default_rng(0).normal(0, margin / 50, (60, 3))
    fit = kind().fit(z, y)
    assert "separable" in [note.code for note in fit.notes_]
    assert np.isfinite(fit.coefficients_).all()
    assert fit.gradient_ <= 1e-8
    assert (fit.predict(z) == y).all()
    # What Platt's targets say of twenty rows, no more.
    assert 0.5 < fit.predict_proba(z)[np.arange(60), y].mean() < 22 / 23


@pytest.mark.parametrize("n", [1, 7, 512, 1300])
def test_derivatives_of_a_logistic_curve_are_the_slow_sums(n):
    rng = np.random.default_rng(n)
    inputs, target, weight = rng.normal(size=(2, n)), rng.random(n), rng.random(n)
    point = np.array([2.0, -30.0, 0.4])
    work, slope, hessian = np.empty((2, 512)), np.empty(3), np.empty((3, 3))
    _logistic_kernel(inputs, target, weight, 0.1, point, work, slope, hessian)
    rows = np.vstack([inputs, np.ones(n)])
    chance = 1 / (1 + np.exp(-point @ rows))
    expected = rows @ (weight * (chance - target)) + 0.1 * point
    np.testing.assert_allclose(slope, expected, rtol=1e-11)
    expected = (rows * weight * chance * (1 - chance)) @ rows.T + 0.1 * np.eye(3)
    lower = np.tril_indices(3)
    np.testing.assert_allclose(hessian[lower], expected[lower], rtol=1e-10, atol=1e-13)


# ------------------------------------------------------------------ histogram


def test_histogram_is_netcals_without_smoothing():
    z, y = stored("binary")
    plain = {"n_bins": PEERS["bins"], "strategy": "uniform", "smoothing": "none"}
    found = HistogramBinning(**plain).fit(z, y).predict_proba(z)[:40, 1]
    np.testing.assert_allclose(found, VALUES["netcal_histogram"], rtol=1e-12)
    z, y = stored("many")
    found = HistogramBinning(**plain).fit(z, y).predict_proba(z)[:40]
    np.testing.assert_allclose(found, VALUES["netcal_histogram_many"], rtol=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize(("smoothing", "extra"), [("laplace", 1.0), ("none", 0.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_histogram_is_the_slow_count(strategy, smoothing, extra, weighted):
    z, y = draw(90, k=3)
    weight = np.random.default_rng(1).gamma(2.0, size=90) if weighted else None
    options = {"n_bins": 6, "strategy": strategy, "smoothing": smoothing}
    fit = HistogramBinning(**options).fit(z, y, weight)
    counted = None if weight is None else weight * weight.sum() / (weight @ weight)
    p = softmax(z)
    mapped = np.empty_like(p)
    for c in range(3):
        edges = bin_edges(p[:, c], 6, strategy)
        np.testing.assert_allclose(fit.maps_[c][0], edges, rtol=1e-9)
        values = naive.histogram_values(p[:, c], y == c, edges, extra, counted)
        np.testing.assert_allclose(fit.maps_[c][1], values, rtol=1e-9)
        mapped[:, c] = [values[naive.bin_index(v, fit.maps_[c][0])] for v in p[:, c]]
    np.testing.assert_allclose(
        fit.predict_proba(z), naive.one_vs_rest(mapped), rtol=1e-9
    )


def test_bins_of_equal_counts_hold_equal_counts():
    z, y = draw(300, k=2)
    fit = HistogramBinning(n_bins=10).fit(z, y)
    edges, values = fit.maps_[0]
    counts = np.histogram(softmax(z)[:, 1], edges)[0]
    assert counts.tolist() == [30] * 10
    assert values.size == 10
    assert fit.parameters() == {"n_bins": [10]}
    assert fit.notes_ == []


def test_an_empty_bin_keeps_its_middle_and_a_note_says_so():
    p = np.r_[np.full(20, 0.05), np.full(20, 0.95)]
    y = np.r_[np.arange(20) % 10 == 0, np.arange(20) % 10 != 0].astype(int)
    fit = HistogramBinning(n_bins=10, strategy="uniform", input="probabilities")
    fit.fit(p[:, None], y)
    expected = [3 / 22, *np.arange(0.15, 0.9, 0.1), 19 / 22]
    np.testing.assert_allclose(fit.maps_[0][1], expected)
    assert [note.code for note in fit.notes_] == ["thin-bins"]


def test_rows_of_zeros_become_uniform():
    z, y = draw(60, k=3)
    made = HistogramBinning(smoothing="none").fit(z, y)
    edges = np.array([0.0, 0.5, 1.0])
    made.maps_ = [(edges, np.array([0.0, 1.0]))] * 3
    flat = np.zeros((1, 3))
    np.testing.assert_allclose(made.predict_proba(flat), 1 / 3)
    sure = np.array([[9.0, 0.0, -np.inf]])
    np.testing.assert_allclose(made.predict_proba(sure), [[1, 0, 0]])
    two = np.array([[0.1, 0.0, -np.inf]])
    np.testing.assert_allclose(made.predict_proba(two), [[1, 0, 0]])
    made.maps_ = [(edges, np.zeros(2))] * 3
    np.testing.assert_allclose(made.predict_proba(two), [[0.5, 0.5, 0]])


def test_laplace_keeps_every_probability_above_zero():
    z, y = draw(200, k=6)
    assert np.isfinite(HistogramBinning().fit(z, y).transform(z)).all()


@pytest.mark.parametrize(
    "options", [{"strategy": "none"}, {"smoothing": "much"}, {"n_bins": 0}]
)
def test_unknown_options_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        HistogramBinning(**options).fit(*draw(50))


# --------------------------------------------------------------- all of them


@every_member
def test_weight_zero_is_no_row(kind):
    z, y = draw(160)
    weight = (np.arange(160) % 3 > 0).astype(float)
    kept = weight > 0
    np.testing.assert_array_equal(
        kind().fit(z, y, weight).transform(z), kind().fit(z[kept], y[kept]).transform(z)
    )


@every_member
def test_scaled_weights_are_the_same_weights(kind):
    z, y = draw(160)
    weight = np.random.default_rng(0).gamma(2.0, size=160)
    np.testing.assert_allclose(
        kind().fit(z, y, weight * 1e-6).transform(z),
        kind().fit(z, y, weight).transform(z),
        rtol=1e-9,
    )


@every_member
def test_a_missing_class_gets_the_pooled_curve(kind):
    z, y = draw(300)
    keep = y != 2
    fit = kind().fit(z[keep], y[keep])
    assert "missing-class" in [note.code for note in fit.notes_]
    p, truth = softmax(z[keep]), y[keep]
    pairs = (truth[:, None] == np.arange(4)).astype(int).ravel()
    pooled = kind(input="probabilities").fit(p.ravel()[:, None], pairs)
    grid = np.linspace(0.05, 0.95, 50)
    found = fit.map_probability(grid, 2)
    tolerance = 2e-2 if hasattr(fit, "mixing_") else 1e-5
    np.testing.assert_allclose(found, pooled.map_probability(grid), atol=tolerance)


@every_member
def test_one_class_of_two_gets_the_pooled_curve(kind):
    z, _ = draw(60, k=2)
    fit = kind().fit(z, np.zeros(60, int))
    assert fit.notes_[0].code == "missing-class"
    assert np.isfinite(fit.predict_proba(z)).all()


@every_member
def test_classes_with_few_rows_are_counted(kind):
    z, y = draw(300)
    y[y == 3] = 0
    y[:4] = 3
    codes = [note.code for note in kind().fit(z, y).notes_]
    assert "few-fit-rows" in codes


@every_member
@pytest.mark.parametrize("k", [2, 4])
def test_classes_at_minus_infinity_stay_at_zero_and_have_no_say(kind, k):
    z, y = draw(300, k=k)
    masked = z.copy()
    column = (y[:100] + 1) % k
    masked[np.arange(100), column] = -np.inf
    fit = kind().fit(masked, y)
    found = fit.predict_proba(masked)
    assert (found[np.isneginf(masked)] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    if k == 2:  # the first hundred rows have one open class each
        alone = kind().fit(z[100:], y[100:])
        np.testing.assert_array_equal(fit.transform(z), alone.transform(z))


@every_member
def test_labels_at_minus_infinity_are_counted_and_left_out(kind):
    z, y = draw(200)
    impossible = z.copy()
    impossible[np.arange(5), y[:5]] = -np.inf
    fit = kind().fit(impossible, y)
    plain = kind().fit(z[5:], y[5:])
    np.testing.assert_array_equal(fit.transform(z), plain.transform(z))
    assert "5 fit rows" in fit.notes_[0].text
    with pytest.raises(FitError, match="No fit row"):
        kind().fit(impossible[:5], y[:5])


@every_member
@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4])
def test_small_and_huge_logits_give_probabilities(kind, scale):
    z, y = draw(200, scale=scale)
    fit = kind().fit(z, y)
    found = fit.predict_proba(z)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-9)
    assert getattr(fit, "gradient_", 0.0) <= 1e-8


@pytest.mark.parametrize("kind", [PlattScaling, BetaCalibration, HistogramBinning])
@pytest.mark.parametrize("k", [2, 3])
def test_scores_that_say_nothing_give_flat_curves_with_a_note(kind, k):
    y = np.arange(60) % k
    fit = kind().fit(np.zeros((60, k)), y)
    assert "flat-curves" in [note.code for note in fit.notes_]
    np.testing.assert_allclose(fit.predict_proba(np.zeros((1, k))), 1 / k, rtol=1e-6)


@every_member
def test_the_map_of_a_class_is_what_two_classes_get(kind):
    z, y = draw(300, k=2)
    fit = kind().fit(z, y)
    found = fit.predict_proba(z)[:, 1]
    np.testing.assert_allclose(found, fit.map_probability(softmax(z)[:, 1]), rtol=1e-8)
    assert np.isfinite(fit.map_probability(np.array([0.0, 1.0]))).all()


@every_member
def test_threads_and_blocks_change_nothing(kind, monkeypatch):
    z, y = draw(400, k=70)
    whole = kind().fit(z, y).transform(z)
    monkeypatch.setattr("core.parallel.CHUNK_BYTES", 1 << 12)
    monkeypatch.setattr(one_vs_rest, "_BLOCK", 700)
    monkeypatch.setattr(one_vs_rest, "_SLAB", 7)
    np.testing.assert_array_equal(kind().fit(z, y).transform(z), whole)


@every_member
def test_progress_is_told_and_can_stop(kind):
    told = []
    z, y = draw(50, k=150)
    kind().fit(z, y, progress=lambda share, text: told.append((share, text)))
    assert [text for _, text in told][:2] == [
        "Fitting class 1 of 150",
        "Fitting class 65 of 150",
    ]
    assert all(0 <= share < 1 for share, _ in told)

    def stop(share, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        kind().fit(z, y, progress=stop)


def test_impossible_parameters_are_refused():
    z, y = draw(100, k=3)
    platt = PlattScaling().fit(z, y).to_dict()
    beta = BetaCalibration().fit(z, y).to_dict()
    histogram = HistogramBinning().fit(z, y).to_dict()
    bins = histogram["parameters"]["maps"]
    bad = [
        (platt, {"slope": [1.0, 1.0], "intercept": [0.0, 0.0]}),
        (platt, {"slope": [1.0, 1.0, float("nan")], "intercept": [0.0] * 3}),
        (platt, {"slope": [1.0] * 3, "intercept": [0.0] * 2}),
        (platt, {"slope": [1e30] * 3, "intercept": [0.0] * 3}),
        (beta, {"a": [-1.0] * 3, "b": [1.0] * 3, "c": [0.0] * 3}),
        (beta, {"a": [1.0] * 3, "b": [1.0] * 3}),
        (histogram, {"maps": bins[:2]}),
        (histogram, {"maps": [{"edges": [0.0, 1.0], "values": [0.1, 0.2]}] * 3}),
        (histogram, {"maps": [{"edges": [0.0, 0.0, 1.0], "values": [0.1, 0.2]}] * 3}),
        (histogram, {"maps": [{"edges": [0.0, 1.0], "values": [2.0]}] * 3}),
    ]
    for good, parameters in bad:
        with pytest.raises(DataError):
            Calibrator.from_dict(good | {"parameters": parameters})
