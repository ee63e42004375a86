"""Metrics against slow twins and scikit-learn; their estimates and edges."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from core.binning import bin_edges
from core.messages import DataError
from core.metrics import (
    METRICS,
    Bins,
    RowScores,
    Sample,
    accuracy,
    area_under_risk_coverage,
    brier_score,
    changes,
    correctness_auroc,
    estimates,
    expected_calibration_error,
    negative_log_likelihood,
    scores_from_probabilities,
    signed_gap,
    squared_calibration_error,
)
from core.settings import Settings

Z95 = 1.959963984540054


def draw(n: int, k: int, seed: int = 0, digits: int | None = None):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.6), n)
    if digits is not None:  # ties
        p = np.round(p, digits) + 10.0**-digits
        p /= p.sum(axis=1, keepdims=True)
    return rng.integers(0, k, n), p


def confidences(y, p):
    return np.round(p.max(axis=1), 12), p.argmax(axis=1) == y


CASES = [(1, 3, None), (2, 2, None), (60, 2, 1), (60, 4, None), (60, 4, 1)]


@pytest.mark.parametrize(("n", "k", "digits"), CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_means_equal_their_slow_twins(n, k, digits, weighted):
    y, p = draw(n, k, 1, digits)
    w = np.random.default_rng(2).gamma(1.0, size=n) if weighted else None
    pairs = [
        (accuracy, naive.accuracy),
        (signed_gap, naive.gap),
        (negative_log_likelihood, naive.nll),
        (brier_score, naive.brier),
    ]
    for ours, slow in pairs:
        value = ours(y, p, sample_weight=w)
        assert value == pytest.approx(slow(y, p, w), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize(("n", "k", "digits"), CASES)
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("closed", ["right", "left"])
def test_calibration_error_equals_its_slow_twin(n, k, digits, norm, strategy, closed):
    y, p = draw(n, k, 3, digits)
    w = np.random.default_rng(4).gamma(1.0, size=n)
    c, o = confidences(y, p)
    edges = bin_edges(c, 7, strategy)
    options = {"n_bins": 7, "strategy": strategy, "norm": norm, "closed": closed}
    for weight in (None, w):
        value = expected_calibration_error(y, p, sample_weight=weight, **options)
        slow = naive.calibration_error(c, o, edges, weight, norm, closed)
        assert value == pytest.approx(slow, abs=1e-11)


@pytest.mark.parametrize(("n", "k", "digits"), CASES)
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_debiased_square_and_its_interval_equal_the_formula(n, k, digits, strategy):
    y, p = draw(n, k, 5, digits)
    c, o = confidences(y, p)
    edges = bin_edges(c, 6, strategy)
    value, low, high = naive.debiased_square(c, o, edges, Z95)
    assert squared_calibration_error(
        y, p, n_bins=6, strategy=strategy
    ) == pytest.approx(value, abs=1e-11)
    settings = Settings(n_bins=6, strategy=strategy, n_resamples=100)
    found = estimates(Sample({"a": scores_from_probabilities(y, p)}, settings))["a"]
    assert found["l2"].low == pytest.approx(low, abs=1e-11)
    assert found["l2"].high == pytest.approx(high, abs=1e-11)


def test_square_of_groups_of_one_is_that_of_rows():
    y, p = draw(400, 3, 6)
    scores = scores_from_probabilities(y, p)
    settings = Settings(n_resamples=100)
    alone = estimates(Sample({"a": scores}, settings))["a"]["l2"]
    groups = np.random.default_rng(0).permutation(400)
    grouped = estimates(Sample({"a": scores}, settings, groups=groups))["a"]["l2"]
    assert grouped.value == pytest.approx(alone.value, rel=1e-9)
    # Another form of the interval, of the same size.
    width = alone.high - alone.low
    assert grouped.high - grouped.low == pytest.approx(width, rel=0.2)


def test_a_bin_with_one_group_keeps_its_variance():
    c = np.r_[np.full(30, 0.25), np.full(60, 0.75)]
    o = np.r_[np.arange(30) % 4 == 0, np.arange(60) % 4 != 0].astype(float)
    groups = np.r_[np.zeros(30, int), np.arange(60)]
    bins = Bins(RowScores(c, o), n_bins=2, groups=groups)
    parts = bins.contributions().toarray()
    # Thirty rows of one group count as one draw of a Bernoulli variable.
    assert (parts[:, 0] ** 2).sum() == pytest.approx(0.25 * 0.75)
    assert (parts[:, 1] ** 2).sum() == pytest.approx(0.25 * 0.75 / 59, rel=1e-9)


@pytest.mark.parametrize("digits", [None, 1])
def test_auroc_equals_pairs_and_scikit_learn(digits):
    y, p = draw(80, 3, 7, digits)
    c, o = confidences(y, p)
    w = np.random.default_rng(8).gamma(1.0, size=80)
    for weight in (None, w):
        value = correctness_auroc(y, p, sample_weight=weight)
        assert value == pytest.approx(naive.auroc(c, o, weight), abs=1e-12)
        theirs = sk.roc_auc_score(o, c, sample_weight=weight)
        assert value == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_aurc_is_the_mean_over_all_orders_of_ties(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    c = rng.choice([0.6, 0.7, 0.8], n)
    o = rng.random(n) < 0.6
    y = np.where(o, 0, 1)
    p = np.column_stack([c, 1 - c])
    slow = naive.aurc_over_orders(c, o)
    assert area_under_risk_coverage(y, p) == pytest.approx(slow, abs=1e-13)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_fractional_weights_of_aurc_do_not_depend_on_their_scale(scale):
    y, p = draw(50, 3, 9)
    w = np.random.default_rng(10).gamma(1.0, size=50)
    reference = area_under_risk_coverage(y, p, sample_weight=w)
    scaled = area_under_risk_coverage(y, p, sample_weight=w * scale)
    assert scaled == pytest.approx(reference, rel=1e-10)


def test_equal_fractional_weights_of_aurc_are_no_weights():
    y, p = draw(50, 3, 11)
    plain = area_under_risk_coverage(y, p)
    weighted = area_under_risk_coverage(y, p, sample_weight=np.full(50, 0.3))
    assert weighted == pytest.approx(plain, rel=1e-9)


def test_rounded_probabilities_keep_their_ties_and_their_bins():
    # Through logarithms and back 0.7 has many neighbours, and 0.8 crosses an edge.
    rows = [[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.7, 0.3, 0.0], [0.8, 0.1, 0.1]]
    scores = scores_from_probabilities([0, 1, 1, 0], rows)
    assert np.unique(scores.confidence).tolist() == [0.7, 0.8]
    assert Bins(scores, n_bins=5).statistics.count.tolist() == [0, 0, 0, 4, 0]


def test_scikit_learn_computes_the_same():
    y, p = draw(300, 4, 12)
    w = np.random.default_rng(13).gamma(1.0, size=300)
    for weight in (None, w):
        kwargs = {"sample_weight": weight}
        assert negative_log_likelihood(y, p, **kwargs) == pytest.approx(
            sk.log_loss(y, p, labels=range(4), **kwargs), rel=1e-12
        )
        assert accuracy(y, p, **kwargs) == pytest.approx(
            sk.accuracy_score(y, p.argmax(axis=1), **kwargs), rel=1e-12
        )
        assert brier_score(y, p, **kwargs) == pytest.approx(
            sk.brier_score_loss(y, p, labels=range(4), **kwargs), rel=1e-12
        )
        assert brier_score(y, p, scale_by_half=True, **kwargs) == pytest.approx(
            sk.brier_score_loss(y, p, labels=range(4), scale_by_half=True, **kwargs),
            rel=1e-12,
        )


def test_binary_brier_has_the_form_of_scikit_learn():
    y, p = draw(200, 2, 14)
    theirs = sk.brier_score_loss(y, p[:, 1])
    assert brier_score(y, p[:, 1]) == pytest.approx(theirs, rel=1e-12)
    assert brier_score(y, p) == pytest.approx(theirs, rel=1e-12)
    assert brier_score(y, p[:, 1:]) == pytest.approx(theirs, rel=1e-12)
    assert brier_score(y, p, scale_by_half=False) == pytest.approx(2 * theirs)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_calibration_curve_of_scikit_learn_has_the_same_bins(strategy):
    y, p = draw(500, 2, 15)
    scores = scores_from_probabilities(y, p, view="positive-class")
    bins = Bins(scores, n_bins=10, strategy=strategy).statistics
    share, mean = calibration_curve(y, p[:, 1], n_bins=10, strategy=strategy)
    kept = bins.count > 0
    # Their quantile edges interpolate, ours lie halfway: the same rows either side.
    np.testing.assert_allclose(bins.accuracy[kept], share, atol=1e-12)
    np.testing.assert_allclose(bins.confidence[kept], mean, atol=1e-12)


def test_names_in_any_order_and_one_column():
    names = ["zebra", "ant", "cat"]
    y, p = draw(40, 3, 16)
    words = np.array(names)[y]
    assert accuracy(words, p, labels=names) == accuracy(y, p)
    assert negative_log_likelihood(words, p, labels=names) == pytest.approx(
        negative_log_likelihood(y, p)
    )
    yb, pb = draw(40, 2, 17)
    assert signed_gap(yb, pb[:, 1], view="positive-class") == pytest.approx(
        pb[:, 1].mean() - yb.mean()
    )
    assert accuracy(yb.astype(bool), pb[:, 1]) == accuracy(yb, pb)


@pytest.mark.parametrize(
    ("y", "p", "options", "words"),
    [
        ([0, -1], [[0.5, 0.5]] * 2, {}, "-1"),
        ([0, 2], [[0.5, 0.5]] * 2, {}, "2"),
        ([0, 1, 1], [[0.5, 0.5]] * 2, {}, "shape"),
        ([0.5, 1.0], [[0.5, 0.5]] * 2, {}, "type"),
        ([0, 1], [[0.9, 0.9]] * 2, {}, "sums to 1.8"),
        ([0, 1], [[1.2, -0.2]] * 2, {}, "outside"),
        ([0, 1], [[np.nan, 1.0]] * 2, {}, "outside"),
        (["a", "x"], [[0.5, 0.5]] * 2, {"labels": ["a", "b"]}, "'x'"),
        ([0, 1], [[0.5, 0.5]] * 2, {"sample_weight": [1.0]}, "shape"),
        ([0, 1], [[0.5, 0.5]] * 2, {"sample_weight": [-1.0, 2.0]}, "negative"),
        ([0, 1], [[0.5, 0.5]] * 2, {"sample_weight": [0.0, 0.0]}, "zeros"),
        ([0, 1], [[0.5, 0.5]] * 2, {"sample_weight": [np.nan, 1.0]}, "finite"),
    ],
)
@pytest.mark.parametrize("metric", sorted(METRICS))
def test_what_cannot_be_measured_is_refused(metric, y, p, options, words):
    with pytest.raises(DataError, match=words):
        METRICS[metric](y, p, **options)


def test_options_are_checked():
    y, p = draw(10, 2)
    with pytest.raises(ValueError, match="scale_by_half"):
        brier_score(y, p, scale_by_half="yes")
    with pytest.raises(ValueError, match="norm"):
        expected_calibration_error(y, p, norm="l3")
    with pytest.raises(ValueError, match="closed"):
        expected_calibration_error(y, p, closed="both")
    with pytest.raises(ValueError, match="strategy"):
        expected_calibration_error(y, p, strategy="equal")
    with pytest.raises(ValueError, match="n_bins"):
        expected_calibration_error(y, p, n_bins=0)
    with pytest.raises(ValueError, match="two classes"):
        signed_gap([0], [[0.2, 0.3, 0.5]], view="positive-class")


def test_all_right_and_all_wrong():
    _, p = draw(30, 3, 18)
    right = p.argmax(axis=1)
    wrong = p.argmin(axis=1)
    assert accuracy(right, p) == 1
    assert area_under_risk_coverage(right, p) == 0
    assert math.isnan(correctness_auroc(right, p))
    assert accuracy(wrong, p) == 0
    assert area_under_risk_coverage(wrong, p) == pytest.approx(1)
    assert math.isnan(correctness_auroc(wrong, p))


def test_certain_and_right_costs_nothing_and_certain_and_wrong_is_infinite():
    p = [[1.0, 0.0], [0.0, 1.0]]
    assert negative_log_likelihood([0, 1], p) == 0
    assert brier_score([0, 1], p) == 0
    assert negative_log_likelihood([1, 1], p) == math.inf
    # A row without weight does not count, however wrong it is.
    assert negative_log_likelihood([1, 1], p, sample_weight=[0, 1]) == 0


def test_a_thousand_classes():
    y, p = draw(20, 1000, 19)
    assert negative_log_likelihood(y, p) == pytest.approx(naive.nll(y, p), rel=1e-12)
    assert brier_score(y, p) == pytest.approx(naive.brier(y, p), rel=1e-10)


# ----------------------------------------------------------------- estimates


def sample_of(n=300, k=3, seed=20, **options):
    y, p = draw(n, k, seed)
    scores = scores_from_probabilities(y, p)
    return Sample({"a": scores}, Settings(n_resamples=200), **options)


def test_plug_in_distances_have_a_null_and_no_interval():
    found = estimates(sample_of())["a"]["ece"]
    assert found.low is None
    assert found.high is None
    assert found.null_low < found.null_high
    assert 0 < found.p_value <= 1


def test_one_group_has_no_interval_and_says_so():
    found = estimates(sample_of(groups=np.zeros(300, int)))["a"]
    for metric in ("gap", "nll", "brier", "auroc", "aurc"):
        assert found[metric].low is None
        assert [note.code for note in found[metric].notes][:1] == ["few-groups"]
    assert found["accuracy"].high - found["accuracy"].low > 0.5
    assert found["ece"].p_value == 1


def test_all_right_rows_do_not_prove_underconfidence():
    confidence = np.random.default_rng(0).uniform(0.985, 0.995, 250)
    scores = RowScores(confidence, np.ones(250))
    found = estimates(Sample({"a": scores}, Settings(n_resamples=100)))["a"]
    assert found["gap"].low < 0 < found["gap"].high
    assert "few-outcomes" in [note.code for note in found["gap"].notes]
    assert found["auroc"].value != found["auroc"].value
    assert [note.code for note in found["auroc"].notes] == ["one-outcome"]


def test_an_infinite_mean_has_no_interval():
    scores = RowScores(
        np.full(50, 0.7), np.arange(50) % 2.0, nll=np.r_[np.inf, np.ones(49)]
    )
    found = estimates(Sample({"a": scores}, Settings(n_resamples=100)))["a"]["nll"]
    assert found.value == math.inf
    assert found.low is None
    assert found.high is None
    assert found.to_dict()["value"] is None


def test_a_tie_with_the_null_counts():
    # All rows in one bin: the error takes few values, and draws hit them exactly.
    scores = RowScores(np.full(10, 0.7), np.r_[np.ones(6), np.zeros(4)])
    sample = Sample({"a": scores}, Settings(n_resamples=20_000))
    found = estimates(sample)["a"]["ece"]
    chance = [math.comb(10, i) * 0.7**i * 0.3 ** (10 - i) for i in range(11)]
    exact = 1 - chance[7]
    assert found.p_value == pytest.approx(exact, abs=0.015)


def test_changes_are_paired():
    y, p = draw(300, 3, 21)
    scores = scores_from_probabilities(y, p)
    sample = Sample({"a": scores, "b": scores}, Settings(n_resamples=100))
    for estimate in changes(sample, "a", "b").values():
        assert estimate.value == pytest.approx(0, abs=1e-15)
        if estimate.low is not None:
            assert estimate.low == pytest.approx(0, abs=1e-8)
            assert estimate.high == pytest.approx(0, abs=1e-8)


def test_only_the_metrics_asked_for_are_computed():
    found = estimates(sample_of(metrics=("nll",)))["a"]
    assert list(found) == ["nll"]
    confidence_only = RowScores(np.full(20, 0.7), np.arange(20) % 2.0)
    found = estimates(Sample({"a": confidence_only}, Settings(n_resamples=100)))["a"]
    assert set(found) == {"accuracy", "gap", "auroc", "aurc", "ece", "l2"}


def test_estimates_do_not_depend_on_chance():
    first, second = (estimates(sample_of())["a"] for _ in range(2))
    assert {k: v.to_dict() for k, v in first.items()} == {
        k: v.to_dict() for k, v in second.items()
    }
