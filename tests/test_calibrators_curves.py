"""Centred isotonic, Venn-Abers, spline, BBQ, scaling-binning, I-Max, quadratic."""

from __future__ import annotations

import naive
import naive_curves
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from core.calibrators import (
    CALIBRATORS,
    AveragedBinnings,
    Calibrator,
    CentredIsotonic,
    IMaxBinning,
    IsotonicCalibration,
    PlattScaling,
    QuadraticScaling,
    ScalingBinning,
    SplineCalibration,
    VennAbers,
)
from core.calibrators.one_vs_rest import Chances
from core.messages import DataError
from core.softmax import softmax

FAMILY = (
    *(CentredIsotonic, VennAbers, SplineCalibration, AveragedBinnings),
    *(ScalingBinning, IMaxBinning, QuadraticScaling),
)
every_member = pytest.mark.parametrize("kind", FAMILY)


def binary(n=80, seed=0, digits=None):
    """Probabilities whose hits come with the chance p**1.5, weights, and hits."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.8, 0.8, n).clip(1e-4, 1 - 1e-4)
    p = p if digits is None else p.round(digits).clip(0.01, 0.99)
    return p, (rng.random(n) < p**1.5).astype(int), rng.gamma(2.0, size=n)


def fitted(kind, p, y, w=None, **options):
    return kind(input="probabilities", **options).fit(p[:, None], y, w)


def curve_alone(kind, p, y, w=None, **options):
    """Return a calibrator with one curve, and the probabilities that it saw."""
    made = kind(input="probabilities", **options)
    made.notes_, made.classes_ = [], np.arange(2)
    weight = np.ones(len(p)) if w is None else w
    chances = Chances(np.log(p), np.log1p(-p))
    made._keep([made._fit_curve(chances, np.asarray(y, float), weight)], weight)
    return made, np.exp(chances.log_p)


def counted(w):
    return w * w.sum() / (w @ w)


def draw(n=400, k=4, t=2.0, seed=0):
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, k))
    return z * t, (z + rng.gumbel(size=(n, k))).argmax(axis=1)


def test_the_tiers_are_those_of_the_page():
    default = (
        *("isotonic", "centred-isotonic", "venn-abers", "platt", "beta"),
        *("top-versus-all", "top-versus-all-platt", "top-versus-all-beta"),
        "top-versus-all-isotonic",
    )
    assert {CALIBRATORS[name].tier for name in default} == {"default"}
    more = "histogram", "bbq", "scaling-binning", "spline", "i-max", "quadratic"
    assert {CALIBRATORS[name].tier for name in more} == {"more"}


# ------------------------------------------------------------ centred isotonic


@pytest.mark.parametrize("digits", [None, 1])
def test_centred_isotonic_joins_the_centres_of_blocks(digits):
    p, y, w = binary(digits=digits)
    made = fitted(CentredIsotonic, p, y, w)
    expected = np.array(naive_curves.centred_isotonic(p, y, w)).T
    np.testing.assert_allclose(made.maps_[0], expected, rtol=1e-9)
    grid = np.linspace(0, 1, 33)
    mixing = 1 / (w.sum() ** 2 / (w @ w) + 1)
    curve = (1 - mixing) * np.interp(grid, *expected) + mixing * grid
    np.testing.assert_allclose(made.map_probability(grid), curve, rtol=1e-9)


def test_centred_isotonic_rises_where_isotonic_is_flat():
    p, y, _ = binary(400)
    plain, centred = (
        fitted(kind, p, y).maps_[0] for kind in (IsotonicCalibration, CentredIsotonic)
    )
    assert (np.diff(plain[1]) == 0).any()
    assert (np.diff(centred[1]) > 0).all()
    assert (np.diff(centred[0]) > 0).all()


# ------------------------------------------------------------------ Venn-Abers


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_venn_abers_is_two_isotonic_fits_with_the_row_added(seed, weighted, digits):
    p, y, w = binary(40, seed, digits)
    made, p = curve_alone(VennAbers, p, y, w if weighted else None)
    mass = counted(w) if weighted else np.ones(40)
    # At the fit rows, between them, and beyond the first and the last one.
    grid = np.unique(np.concatenate([p[:12], np.linspace(0.001, 0.999, 21)]))
    slow = np.array([naive_curves.venn_abers(p, y, mass, s) for s in grid]).T
    np.testing.assert_allclose(made.ends(grid), slow, atol=1e-11)
    low, high = slow
    assert (low <= high + 1e-12).all()
    np.testing.assert_allclose(
        made.map_probability(grid), high / (1 - low + high), rtol=1e-9
    )


def test_venn_abers_keeps_its_intervals_for_every_class():
    z, y = draw(300, 3)
    made = VennAbers().fit(z, y)
    low, high = made.interval(z)
    merged = high / (1 - low + high)
    np.testing.assert_allclose(
        made.predict_proba(z), naive.one_vs_rest(merged), rtol=1e-9
    )
    assert low.shape == high.shape == z.shape
    assert (low < high).all()
    two = VennAbers().fit(z[:, :2], y % 2)
    low, high = two.interval(z[:, :2])
    np.testing.assert_allclose(low[:, 0], 1 - high[:, 1], atol=1e-15)
    np.testing.assert_allclose(high[:, 0], 1 - low[:, 1], atol=1e-15)
    again = Calibrator.from_dict(made.to_dict())
    np.testing.assert_array_equal(again.interval(z), made.interval(z))
    wide = np.mean([b - a for a, b in [VennAbers().fit(z[:60], y[:60]).interval(z)]])
    assert wide > np.mean(made.interval(z)[1] - made.interval(z)[0])


def test_merged_steps_of_venn_abers_widen_its_intervals_a_little(monkeypatch):
    p, y, _ = binary(3000)
    monkeypatch.setattr("core.calibrators.venn_abers._MOST_STEPS", 10**9)
    whole, _ = curve_alone(VennAbers, p, y)
    monkeypatch.setattr("core.calibrators.venn_abers._MOST_STEPS", 100)
    merged, _ = curve_alone(VennAbers, p, y)
    assert whole.n_fitted_ > 400 > 200 >= merged.n_fitted_
    grid = np.concatenate([p, np.linspace(0, 1, 101)])
    (low, high), (lower, higher) = whole.ends(grid), merged.ends(grid)
    assert (lower <= low).all()
    assert (higher >= high).all()
    assert max((low - lower).max(), (higher - high).max()) < np.pi / 200


@pytest.mark.parametrize("outcome", [0, 1])
def test_venn_abers_of_one_outcome_stays_away_from_zero_and_one(outcome):
    p = np.linspace(0.1, 0.9, 9)
    made, _ = curve_alone(VennAbers, p, np.full(9, outcome))
    found = made.map_probability(np.array([0.0, 0.5, 1.0]))
    assert ((found > 0) & (found < 1)).all()


# ---------------------------------------------------------------------- spline


@pytest.mark.parametrize(("n", "digits"), [(60, None), (300, None), (60, 1)])
@pytest.mark.parametrize("n_knots", [4, 6])
def test_spline_is_the_slow_fit(n, digits, n_knots):
    p, y, w = binary(n, digits=digits)
    made = fitted(SplineCalibration, p, y, w, n_knots=n_knots)
    slow = np.array(naive_curves.gap_spline(p.round(9), y, w, n_knots, 100)).T
    np.testing.assert_allclose(made.maps_[0][0], slow[0], rtol=1e-9)
    np.testing.assert_allclose(made.maps_[0][1], slow[1], atol=1e-7)
    assert made.maps_[0][0].size <= 100


def test_spline_says_the_share_of_hits_on_the_whole():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 0.8, 2000)
    y = (rng.random(2000) < 0.1 + p / 2).astype(int)
    x, value = fitted(SplineCalibration, p, y).maps_[0]
    assert x.size == 100
    assert value.mean() == pytest.approx(y.mean(), abs=1e-9)
    flat = fitted(SplineCalibration, np.full(50, 0.3), np.arange(50) % 5 == 0)
    assert flat.maps_[0][1] == pytest.approx(0.2)


def test_spline_stays_as_far_from_0_and_1_as_its_rows_can_tell():
    rng = np.random.default_rng(0)
    z = 4.0 * rng.normal(size=(800, 10))
    y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)
    weight = rng.gamma(1.0, size=800)
    made = SplineCalibration().fit(z, y, weight)
    least = 1.0 / (weight.sum() ** 2 / (weight**2).sum() + 2.0)
    values = np.concatenate([value for _, value in made.maps_])
    assert values.min() == pytest.approx(least)
    assert values.max() <= 1.0 - least


# ------------------------------------------------------------------------ bins


@pytest.mark.parametrize("n", [1, 7, 60, 250])
def test_bbq_is_the_slow_average(n):
    p, y, _ = binary(n)
    y[0] = 1 - y[1] if n > 1 else 1
    made, p = curve_alone(AveragedBinnings, p, y)
    grid = np.concatenate([p, np.linspace(0, 1, 41)])
    slow = naive_curves.averaged_binnings(p, y, grid)
    np.testing.assert_allclose(made.map_probability(grid), slow, rtol=1e-8)
    assert made.n_fitted_ == made.maps_[0][1].size


@pytest.mark.parametrize("n_bins", [1, 5])
def test_scaling_binning_is_the_slow_fit_on_three_parts(n_bins):
    p, y, _ = binary(150)
    made = fitted(ScalingBinning, p, y, n_bins=n_bins)
    grid = np.concatenate([p, np.linspace(0, 1, 21)])
    slow = naive_curves.scaling_binning(p, y, n_bins, grid)
    np.testing.assert_allclose(made.map_probability(grid), slow, rtol=1e-5)
    assert made.maps_[0][1].size == n_bins


def test_labels_of_two_thirds_have_no_say_in_scaling_binning():
    """The released class fits, bins and averages on the same rows."""
    p, y, _ = binary(90)
    parts = np.empty(90, int)
    for outcome in (0, 1):
        rows = np.flatnonzero(y == outcome)
        parts[rows] = np.arange(rows.size) % 3
    grid = np.linspace(0, 1, 11)
    whole = fitted(ScalingBinning, p, y).map_probability(grid)
    # Moving rows of the first third moves neither edges nor the rows of values.
    moved = np.where(parts == 0, p**2, p)
    edges = fitted(ScalingBinning, moved, y).maps_[0][0]
    np.testing.assert_array_equal(edges, fitted(ScalingBinning, p, y).maps_[0][0])
    assert not np.allclose(
        fitted(ScalingBinning, moved, y).map_probability(grid), whole
    )


@every_member
def test_rows_drawn_again_and_again_leave_no_bin_without_a_value(kind):
    z, y = draw(80)
    for seed in range(5):
        rows = np.random.default_rng(seed).integers(0, 80, 80)
        made = kind().fit(z[rows], y[rows])
        assert np.isfinite(made.transform(np.vstack([z, z / 3, z * 9]))).all()


@pytest.mark.parametrize("seed", range(3))
def test_i_max_loses_hardly_more_than_the_best_cuts(seed):
    p = np.random.default_rng(seed).beta(0.5, 0.7, 30)
    y = np.arange(30) % 2
    made = fitted(IMaxBinning, p, y, n_bins=4, values="scores")
    edges, values = made.maps_[0]
    place = np.searchsorted(edges[1:-1], p)
    q = values[place]
    found = float(np.mean(-q * np.log(q) - (1 - q) * np.log1p(-q)))
    best = naive_curves.least_lost_information(p, 4)
    none = naive_curves.least_lost_information(p, 1)
    assert best - 1e-12 <= found <= best + 0.02 * (none - best)
    for b in range(values.size):
        assert values[b] == pytest.approx(p[place == b].mean(), rel=1e-9)


def test_i_max_shares_one_curve_of_all_pairs_unless_told_otherwise():
    z, y = draw()
    shared, own = IMaxBinning().fit(z, y), IMaxBinning(shared=False).fit(z, y)
    pairs = (y[:, None] == np.arange(4)).astype(int).ravel()
    pooled = fitted(IMaxBinning, softmax(z).ravel(), pairs)
    for edges, values in shared.maps_:
        np.testing.assert_allclose(edges, pooled.maps_[0][0], rtol=1e-6)
        np.testing.assert_allclose(values, pooled.maps_[0][1], rtol=1e-9)
    assert not np.array_equal(own.maps_[0][1], own.maps_[1][1])
    assert "missing-class" not in [note.code for note in shared.notes_]
    one = IMaxBinning(shared=False).fit(z[:, :1] - z[:, 1:2], y % 2)
    alike = IMaxBinning().fit(z[:, :1] - z[:, 1:2], y % 2)
    for ours, theirs in zip(one.maps_[0], alike.maps_[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("options", [{"values": "none"}, {"n_bins": 0}])
def test_unknown_options_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        IMaxBinning(**options).fit(*draw(50))
    with pytest.raises(ValueError, match="must be"):
        SplineCalibration(n_knots=2).fit(*draw(50))
    with pytest.raises(ValueError, match="must be"):
        ScalingBinning(n_bins=0).fit(*draw(50))


# ------------------------------------------------------------------- quadratic


@pytest.mark.parametrize("weighted", [False, True])
def test_quadratic_is_the_slow_parabola(weighted):
    p, y, w = binary(200)
    made = fitted(QuadraticScaling, p, y, w if weighted else None)
    slow = naive_curves.parabola(p, y, counted(w) if weighted else np.ones(200))
    np.testing.assert_allclose(made.coefficients_[0], slow, atol=1e-5)
    assert made.gradient_ <= 1e-8
    odds = np.log(p) - np.log1p(-p)
    score = slow[0] * odds + slow[1] * odds**2 + slow[2]
    np.testing.assert_allclose(
        made.map_probability(p), 1 / (1 + np.exp(-score)), atol=1e-5
    )


def test_quadratic_says_that_it_falls_and_holds_its_ends():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 800)
    y = (rng.random(800) < 1 / (1 + np.exp(odds**2 - 2))).astype(int)
    made = QuadraticScaling().fit(odds[:, None], y)
    assert [note.code for note in made.notes_] == ["falling-curve"]
    found = made.predict_proba(odds[:, None])[:, 1]
    assert roc_auc_score(y, found) > 0.7 > roc_auc_score(y, odds)
    ends = made.predict_proba(np.array([[-90.0], [odds.min()], [odds.max()], [80.0]]))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-9)
    np.testing.assert_allclose(ends[2], ends[3], rtol=1e-9)
    p, hits, _ = binary(400)
    rising = fitted(QuadraticScaling, p, hits)
    assert rising.notes_ == []
    straight = fitted(PlattScaling, p, hits)
    assert rising.gradient_ <= 1e-8 >= straight.gradient_


# ---------------------------------------------------------------- all of them


@every_member
def test_one_hot_probabilities_and_a_constant_column_are_survived(kind):
    y = np.arange(120) % 4
    p = np.eye(4)[np.where(np.arange(120) % 7 == 0, (y + 1) % 4, y)]
    made = kind(input="probabilities").fit(p, y)
    found = made.predict_proba(p)
    assert np.isfinite(made.transform(p)).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert 0.6 < found[np.arange(120), y].mean() < 0.99
    z, labels = draw(200, 3)
    z[:, 1] = z.mean(axis=1)
    z -= z[:, 1:2]
    assert np.isfinite(kind().fit(z, labels).transform(z)).all()


@every_member
def test_more_rows_bring_the_curve_that_made_the_labels(kind):
    p, y, _ = binary(20_000, seed=3)
    grid = np.linspace(0.05, 0.95, 37)
    options = {"n_bins": 50} if hasattr(kind(), "n_bins") else {}
    made = fitted(kind, p, y, **options)
    off = np.abs(made.map_probability(grid) - grid**1.5)
    assert off.mean() < 0.02
    assert off.max() < 0.06


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("venn-abers", {"low_x": [0.5, 0.4]}),
        ("venn-abers", {"high": [0.0, 1.0]}),
        ("venn-abers", {"low": [0.0, 2.0]}),
        ("venn-abers", {"low": [0.0, 0.0, 0.5]}),
        ("quadratic", {"a": [1e9]}),
        ("quadratic", {"low": [5.0], "high": [1.0]}),
        ("quadratic", {"low": [0.0, 0.0]}),
        ("quadratic", {"high": [float("nan")]}),
    ],
)
def test_impossible_parameters_are_refused(method, parameters):
    good = {
        "venn-abers": {
            "low_x": [0.5],
            "low": [0, 0.3],
            "high_x": [0.4],
            "high": [0.6, 1],
        },
        "quadratic": {"a": [1.0], "b": [0.1], "c": [0.0], "low": [-2.0], "high": [2.0]},
    }[method]

    def restored(values):
        state = {"maps": [values]} if method == "venn-abers" else values
        return Calibrator.from_dict(
            {
                "method": method,
                "options": {},
                "input": "logits",
                "n_scores": 2,
                "n_classes": 2,
                "parameters": state,
            }
        )

    assert restored(good).to_dict()
    with pytest.raises(DataError):
        restored(good | parameters)
