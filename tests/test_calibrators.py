"""Calibrators: temperature with its certificate, isotonic curves, and their edges."""

from __future__ import annotations

import json

import naive
import numpy as np
import pytest
from methods import ALONE
from scipy import optimize
from sklearn.calibration import CalibratedClassifierCV, _TemperatureScaling
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from core.calibrators import (
    CALIBRATORS,
    Calibrator,
    IsotonicCalibration,
    TemperatureScaling,
    Uncalibrated,
    neg_log_loss_scorer,
)
from core.messages import DataError
from core.softmax import softmax, temperature_objective


def draw(n=400, k=4, t=1.0, seed=0, scale=1.5, dtype=np.float64):
    """Logits whose true temperature is t."""
    rng = np.random.default_rng(seed)
    z = scale * rng.normal(size=(n, k))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    return (z * t).astype(dtype), y


def loss_of(z, y, t, w=None):
    rows = temperature_objective(z, y, 1 / t)
    return np.average(rows.loss, weights=w)


# --------------------------------------------------------------- temperature


def test_what_is_told_of_the_optimum_is_what_a_pass_there_says():
    """The last step is not looked at again: the series of the rows stands for it."""
    rng = np.random.default_rng(3)
    z = 4 * rng.standard_normal((3_000, 30))
    y = (0.6 * z + rng.gumbel(size=z.shape)).argmax(axis=1)
    weight = rng.gamma(1.0, size=len(z))
    fit = TemperatureScaling().fit(z, y, weight)
    rows = temperature_objective(z, y, fit.beta_)
    share = weight / weight.sum()
    assert fit.n_iterations_ == 2
    assert abs(share @ rows.slope) <= 1e-12
    assert fit.nll_after_ == pytest.approx(share @ rows.loss, rel=1e-13)
    meat = np.sum((share * rows.slope) ** 2) * len(z) / (len(z) - 1)
    error = np.sqrt(meat) / (share @ rows.curvature) / fit.beta_
    assert fit.log_standard_error_ == pytest.approx(error, rel=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-2, 1e-1, 1.0, 10.0, 100.0, 1e4])
def test_the_gradient_certifies_the_optimum(dtype, scale):
    z, y = draw(t=scale, dtype=dtype)
    fit = TemperatureScaling().fit(z, y)
    if fit.is_at_bound_:
        assert scale == 1e4
        assert fit.temperature_ == 1000
        assert [note.code for note in fit.notes_] == ["fit-at-bound"]
        return
    assert abs(fit.gradient_) <= 1e-8 * max(1.0, fit.temperature_)
    assert fit.notes_ == []
    assert fit.nll_after_ <= loss_of(z, y, 1.0) + 1e-12
    assert fit.temperature_ == pytest.approx(naive.fit_temperature(z, y), rel=1e-5)
    # Neighbours are worse.
    best = loss_of(z, y, fit.temperature_)
    for factor in (0.99, 1.01):
        assert loss_of(z, y, fit.temperature_ * factor) > best


@pytest.mark.parametrize("t", [0.3, 1.0, 1.7, 4.0])
def test_a_known_temperature_lies_in_its_interval(t):
    z, y = draw(5000, t=t, seed=1)
    fit = TemperatureScaling().fit(z, y)
    low, high = fit.interval()
    assert low < t < high
    assert high / low < 1.15
    assert fit.interval(0.5)[0] > low


def test_weights_are_repeated_rows_and_weight_zero_is_no_row():
    z, y = draw(120, seed=2)
    w = np.random.default_rng(0).integers(0, 4, 120)
    weighted = TemperatureScaling().fit(z, y, w)
    repeated = TemperatureScaling().fit(np.repeat(z, w, axis=0), np.repeat(y, w))
    assert weighted.temperature_ == pytest.approx(repeated.temperature_, rel=1e-9)
    assert weighted.nll_after_ == pytest.approx(repeated.nll_after_, rel=1e-12)
    kept = w > 0
    without = TemperatureScaling().fit(z[kept], y[kept], w[kept])
    assert weighted.temperature_ == pytest.approx(without.temperature_, rel=1e-9)
    assert weighted.interval() == pytest.approx(without.interval(), rel=1e-9)
    scaled = TemperatureScaling().fit(z, y, w * 1e-6)
    assert scaled.interval() == pytest.approx(weighted.interval(), rel=1e-6)
    slow = naive.fit_temperature(z, y, w)
    assert weighted.temperature_ == pytest.approx(slow, rel=1e-5)


def test_groups_widen_the_interval_and_groups_of_one_do_not():
    z, y = draw(200, t=1.5, seed=3)
    z5, y5 = np.repeat(z, 5, axis=0), np.repeat(y, 5)
    alone = TemperatureScaling().fit(z, y)
    copied = TemperatureScaling().fit(z5, y5)
    grouped = TemperatureScaling().fit(z5, y5, groups=np.repeat(np.arange(200), 5))
    single = TemperatureScaling().fit(z, y, groups=np.arange(200))
    assert grouped.interval() == pytest.approx(alone.interval(), rel=1e-6)
    assert single.interval() == pytest.approx(alone.interval(), rel=1e-12)
    assert copied.log_standard_error_ < 0.5 * grouped.log_standard_error_


@pytest.mark.parametrize("margin", [0.1, 2.0, 5.0, 50.0, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_right_goes_to_the_low_bound_with_a_note(margin, dtype):
    y = np.arange(30) % 3
    z = (np.eye(3)[y] * margin).astype(dtype)
    fit = TemperatureScaling().fit(z, y)
    assert fit.is_at_bound_
    assert fit.temperature_ == pytest.approx(1e-3)
    (note,) = fit.notes_
    assert note.code == "fit-at-bound"
    assert "all fit rows are right" in note.text
    assert np.isnan(fit.interval()).all()


def test_labels_against_the_logits_go_to_the_high_bound():
    z, _ = draw(100, seed=4)
    y = z.argmin(axis=1)
    fit = TemperatureScaling().fit(z, y)
    assert fit.is_at_bound_
    assert fit.temperature_ == 1e3
    assert "better than chance" in fit.notes_[0].text
    assert fit.nll_after_ < loss_of(z, y, 1.0)


def test_logits_that_say_nothing_leave_the_temperature_at_one():
    fit = TemperatureScaling().fit(np.full((10, 3), 2.5), np.arange(10) % 3)
    assert fit.temperature_ == 1
    assert not fit.is_at_bound_
    assert np.isnan(fit.log_standard_error_)


@pytest.mark.parametrize(("label", "bound"), [(1, 1e-3), (0, 1e3)])
def test_one_row_goes_to_a_bound(label, bound):
    fit = TemperatureScaling().fit([[0.0, 2.0, 1.0]], [label])
    assert fit.temperature_ == pytest.approx(bound)


def test_masked_classes_take_no_part():
    z, y = draw(200, k=5, seed=5)
    masked = z.copy()
    masked[:, 4] = -np.inf
    keep = y < 4
    fit = TemperatureScaling().fit(masked[keep], y[keep])
    plain = TemperatureScaling().fit(z[keep][:, :4], y[keep])
    assert fit.temperature_ == pytest.approx(plain.temperature_, rel=1e-9)
    assert np.isneginf(fit.transform(masked)[:, 4]).all()


def test_labels_at_minus_infinity_are_counted_and_left_out():
    z, y = draw(200, seed=6)
    impossible = z.copy()
    impossible[np.arange(5), y[:5]] = -np.inf
    fit = TemperatureScaling().fit(impossible, y)
    plain = TemperatureScaling().fit(z[5:], y[5:])
    assert fit.temperature_ == pytest.approx(plain.temperature_, rel=1e-9)
    assert fit.nll_after_ == pytest.approx(plain.nll_after_, rel=1e-9)
    assert [note.code for note in fit.notes_] == ["impossible-label"]
    assert "5 fit rows" in fit.notes_[0].text


def test_argmax_is_kept_at_any_temperature():
    z, y = draw(300, t=6.0, seed=7)
    fit = TemperatureScaling().fit(z, y)
    assert (fit.predict(z) == z.argmax(axis=1)).all()


def test_scikit_learn_fits_the_same_temperature():
    z, y = draw(500, t=2.0, seed=8)
    theirs = _TemperatureScaling().fit(z, y)
    ours = TemperatureScaling().fit(z, y)
    assert ours.beta_ == pytest.approx(theirs.beta_, rel=1e-4)


def test_the_binary_temperature_of_scikit_learn_is_doubled():
    z, y = draw(500, k=2, t=2.0, seed=9)
    score = z[:, 1] - z[:, 0]
    ours = TemperatureScaling().fit(score[:, None], y)
    pair = TemperatureScaling().fit(z, y)
    theirs = _TemperatureScaling().fit(score, y)  # the pair (-z, z)
    assert ours.temperature_ == pytest.approx(pair.temperature_, rel=1e-9)
    assert 1 / theirs.beta_ == pytest.approx(2 * ours.temperature_, rel=1e-4)
    np.testing.assert_allclose(
        ours.predict_proba(score[:, None]), theirs.predict(score), atol=1e-4
    )


# ------------------------------------------------------------------ isotonic


def test_knots_are_the_slow_isotonic_fit():
    rng = np.random.default_rng(10)
    p = rng.choice(np.linspace(0.05, 0.95, 15), 80)
    y = (rng.random(80) < p**2).astype(int)
    w = rng.integers(0, 3, 80).astype(float)
    for weight in (None, w):
        fit = IsotonicCalibration(input="probabilities").fit(p[:, None], y, weight)
        slow = naive.pool_adjacent_violators(p.round(12), y, weight)
        x, value = np.array(sorted(slow)), [slow[v] for v in sorted(slow)]
        np.testing.assert_allclose(np.interp(x, *fit.maps_[0]), value, atol=1e-9)


def test_binary_isotonic_is_scikit_learns_mixed_with_one_vote_for_the_scores():
    z, y = draw(300, k=2, seed=11)
    p = softmax(z)
    model = IsotonicRegression(out_of_bounds="clip").fit(p[:, 1], y)
    expected = (300 * model.predict(p[:, 1]) + p[:, 1]) / 301
    found = IsotonicCalibration().fit(z, y).predict_proba(z)
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-9)


def test_one_vs_rest_is_scikit_learns_before_the_mixing():
    rng = np.random.default_rng(12)
    x = rng.normal(size=(600, 4))
    y = (x @ rng.normal(size=(4, 3)) + rng.gumbel(size=(600, 3))).argmax(axis=1)
    model = LogisticRegression(C=10).fit(x[:200], y[:200])
    probabilities = model.predict_proba(x)
    ours = IsotonicCalibration(input="probabilities")
    ours.fit(probabilities[200:], y[200:])
    mapped = np.column_stack(
        [
            IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1)
            .fit(probabilities[200:, c], y[200:] == c)
            .predict(probabilities[:, c])
            for c in range(3)
        ]
    )
    total = mapped.sum(axis=1, keepdims=True)
    mapped = np.where(total > 0, mapped / np.where(total > 0, total, 1), 1 / 3)
    np.testing.assert_allclose(
        ours.predict_proba(probabilities),
        (400 * mapped + probabilities) / 401,
        rtol=1e-8,
    )


def test_a_missing_class_gets_the_pooled_curve():
    z, y = draw(300, k=4, seed=13)
    keep = y != 2
    fit = IsotonicCalibration().fit(z[keep], y[keep])
    x, _ = fit.maps_[2]
    assert x.size > 1
    assert fit.notes_[0].code == "missing-class"
    assert fit.transform(z).shape == (300, 4)
    # The same where the class has rows, but none with weight.
    weight = (y != 2).astype(float)
    zero = IsotonicCalibration().fit(z, y, weight)
    np.testing.assert_allclose(zero.predict_proba(z), fit.predict_proba(z), rtol=1e-9)


def test_no_probability_is_zero_after_isotonic():
    z, y = draw(200, k=3, t=3.0, seed=14)
    fit = IsotonicCalibration().fit(z, y)
    assert np.isfinite(fit.transform(z)).all()


def test_curves_without_relation_say_so():
    fit = IsotonicCalibration().fit(np.zeros((10, 3)), np.arange(10) % 3)
    assert "flat-curves" in [note.code for note in fit.notes_]
    assert fit.parameters()["n_knots"] == [1, 1, 1]


def test_calibrated_classifier_of_scikit_learn_agrees():
    rng = np.random.default_rng(16)
    x = rng.normal(size=(500, 3))
    y = (x[:, 0] + rng.logistic(size=500) > 0).astype(int)
    model = FrozenEstimator(LogisticRegression().fit(x[:200], y[:200]))
    rest, truth = x[200:], y[200:]
    score = model.decision_function(rest)[:, None]
    before = 1 / (1 + np.exp(-score[:, 0]))
    theirs = CalibratedClassifierCV(model, method="isotonic", ensemble=False)
    theirs = theirs.fit(rest, truth).predict_proba(rest)[:, 1]
    ours = IsotonicCalibration().fit(score, truth).predict_proba(score)[:, 1]
    np.testing.assert_allclose(ours, (300 * theirs + before) / 301, rtol=1e-9)
    theirs = CalibratedClassifierCV(model, method="temperature", ensemble=False)
    theirs = theirs.fit(rest, truth).predict_proba(rest)[:, 1]
    ours = TemperatureScaling().fit(score, truth).predict_proba(score)[:, 1]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


# ---------------------------------------------------------- input and output


def test_probabilities_given_as_logits_raise_a_question():
    p = softmax(draw(50)[0])
    with pytest.warns(UserWarning, match="look like"):
        fit = TemperatureScaling().fit(p, draw(50)[1])
    assert fit.notes_[0].severity == "question"
    said = TemperatureScaling(input="probabilities").fit(p, draw(50)[1])
    assert said.notes_ == []
    logits = TemperatureScaling().fit(*draw(50))
    assert said.temperature_ == pytest.approx(logits.temperature_, rel=1e-9)
    with pytest.raises(ValueError, match="input must be"):
        TemperatureScaling(input="odds").fit(p, draw(50)[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.array([0, 5] * 10)}, "not a column"),
        ({"y": np.array([0, -1] * 10)}, "not a column"),
        ({"y": np.array([0.5, 1.0] * 10)}, "label"),
        ({"y": np.array(["a", "b"] * 10)}, "label"),
        ({"sample_weight": np.full(20, -1.0)}, "negative"),
        ({"sample_weight": np.zeros(20)}, "zero"),
        ({"sample_weight": np.ones(3)}, "shape"),
        ({"logits": np.full((20, 3), np.nan)}, "nan"),
        ({"logits": np.full((20, 3), np.inf)}, "inf"),
        ({"logits": np.full((20, 3), -np.inf)}, "every class"),
    ],
)
@pytest.mark.parametrize("method", ALONE)
def test_what_cannot_be_fitted_is_refused(method, change, words):
    z, y = draw(20, 3)
    given = {"logits": z, "y": y} | change
    with pytest.raises(ValueError, match=words):
        CALIBRATORS[method]().fit(**given)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "no-such-thing"},
        {"parameters": {}},
        {"parameters": None},
        {"options": {"x": 1}},
        {"n_scores": "many"},
    ],
)
@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_broken_file_is_refused(method, change):
    good = CALIBRATORS[method]().fit(*draw(50, 3)).to_dict()
    with pytest.raises(DataError, match="not a calibrator"):
        Calibrator.from_dict(good | change)


def test_impossible_parameters_are_refused():
    temperature = TemperatureScaling().fit(*draw(50, 3)).to_dict()
    for value in (0.0, -1.0, float("nan"), 1e9):
        changed = temperature | {"parameters": {"temperature": value}}
        with pytest.raises(DataError):
            Calibrator.from_dict(changed)
    good = IsotonicCalibration().fit(*draw(50, 3)).to_dict()
    maps, mixing = good["parameters"]["maps"], good["parameters"]["mixing"]
    bad = [
        {"maps": maps[:2], "mixing": mixing},
        {"maps": maps, "mixing": 2.0},
        {"maps": [{"x": [1.0, 0.0], "y": [0.0, 1.0]}] * 3, "mixing": mixing},
        {"maps": [{"x": [0.0, 1.0], "y": [0.0]}] * 3, "mixing": mixing},
        {"maps": [{"x": [0.0], "y": [3.0]}] * 3, "mixing": mixing},
        {"maps": [{"x": [], "y": []}] * 3, "mixing": mixing},
    ]
    for parameters in bad:
        with pytest.raises(DataError):
            Calibrator.from_dict(good | {"parameters": parameters})


def test_the_scorer_is_the_mean_log_probability():
    z, y = draw(100, 3)
    fit = Uncalibrated().fit(z, y)
    expected = -naive.nll(y, softmax(z))
    assert neg_log_loss_scorer(fit, z, y) == pytest.approx(expected, rel=1e-9)


def test_statistics_in_blocks_equal_those_of_all_rows(monkeypatch):
    z, y = draw(90, 3)
    fit = IsotonicCalibration().fit(z, y)
    whole = fit.row_statistics(z, y)
    monkeypatch.setattr("core.calibrators.base._BLOCK", 30)
    parts = fit.row_statistics(z, y)
    np.testing.assert_array_equal(parts.confidence, whole.confidence)
    np.testing.assert_array_equal(parts.correct, whole.correct)
    assert len(fit.row_statistics(z)) == 90


def test_everything_known_of_a_fit_is_json():
    for name in ALONE:
        fit = CALIBRATORS[name]().fit(*draw(60, 3))
        json.dumps(fit.to_dict(), allow_nan=False)
        json.dumps(fit.parameters(), allow_nan=False)


@pytest.mark.parametrize("method", ALONE)
@pytest.mark.parametrize("k", [2, 1000])
def test_two_and_a_thousand_classes(method, k):
    z, y = draw(40, k, seed=15)
    log_p = CALIBRATORS[method]().fit(z, y).transform(z)
    assert log_p.shape == (40, k)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, rtol=1e-9)


def test_bound_of_very_large_logits_is_not_blamed_on_the_labels():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 4))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    found = TemperatureScaling().fit(z * 2e4, y)
    assert found.is_at_bound_
    assert "very large" in found.notes_[0].text
    opposite = TemperatureScaling().fit(-z * 2e4, y)
    assert opposite.is_at_bound_
    assert "better than chance" in opposite.notes_[0].text


def test_binary_isotonic_without_one_class_takes_the_shared_curve():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 2))
    found = IsotonicCalibration().fit(z, np.zeros(200, dtype=int))
    assert [note.code for note in found.notes_][:1] == ["missing-class"]
    chance = found.predict_proba(np.array([[0.0, -5.0], [0.0, 5.0]]))[:, 1]
    assert chance[0] < chance[1]


@pytest.mark.parametrize("kind", ["plain", "no weight in the part", "one class there"])
def test_a_rough_start_does_not_move_the_optimum(kind: str) -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(0, 3, (6_000, 12))
    y = (0.4 * z + rng.gumbel(size=z.shape)).argmax(axis=1)
    weight = np.ones(len(z))
    part = slice(None, None, len(z) // (len(z) // 16))
    if kind == "no weight in the part":
        weight[part] = 0
    if kind == "one class there":  # where every row is right: no finite T
        y[part] = z[part].argmax(axis=1)

    def slope(beta: float) -> float:
        return float(weight @ temperature_objective(z, y, beta).slope)

    fitted = TemperatureScaling().fit(z, y, sample_weight=weight)
    exact = optimize.brentq(slope, 1e-2, 1e2, xtol=1e-14, rtol=1e-14)
    assert fitted.temperature_ == pytest.approx(1 / exact, rel=1e-9)
    assert abs(fitted.gradient_) <= 1e-12
    assert fitted.n_iterations_ <= (5 if kind == "plain" else 10)
