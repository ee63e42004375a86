"""Metrics of the tier "more" against slow twins, libraries and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import naive
import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from sklearn import metrics as sk

from core.binning import bin_edges
from core.metrics import (
    METRICS,
    Design,
    RowScores,
    Sample,
    brier_score,
    brier_term,
    changes,
    class_bins,
    estimates,
    reliability_curve,
    score_part,
    scores_from_probabilities,
)
from core.metrics.classwise import _mean_deviation
from core.metrics.corp import isotonic_fits
from core.metrics.decomposition import TERMS
from core.metrics.smooth import _Smoother
from core.settings import Settings

MORE = [name for name, item in METRICS.items() if item.tier == "more"]


def draw(n, k, seed=0, digits=None):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.6), n)
    if digits is not None:  # ties
        p = np.round(p, digits) + 10.0**-digits
        p /= p.sum(axis=1, keepdims=True)
    return rng.integers(0, k, n), p


def pairs(y, p):
    return np.round(p.max(axis=1), 12), (p.argmax(axis=1) == y).astype(float)


CASES = [(1, 3, None), (2, 2, None), (60, 2, 1), (60, 4, None), (60, 4, 1)]
WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


def weights(n, weighted):
    return np.random.default_rng(2).gamma(1.0, size=n) if weighted else None


# ------------------------------------------------------------------ slow twins


def slow_ks(c, o, w):
    total, running, largest = sum(w), 0.0, 0.0
    for value in sorted(set(c)):
        running += sum(w[i] * (c[i] - o[i]) for i in range(len(c)) if c[i] == value)
        largest = max(largest, abs(running) / total)
    return largest


def slow_bins(c, o, w, edges):
    found = []
    for b in range(len(edges) - 1):
        rows = [i for i in range(len(c)) if naive.bin_index(c[i], edges) == b]
        mass = sum(w[i] for i in rows)
        if mass:
            gap = sum(w[i] * (c[i] - o[i]) for i in rows) / mass
            found.append((len(rows), mass, gap, rows))
    return found


@pytest.mark.parametrize(("n", "k", "digits"), CASES)
@WEIGHTED
def test_distances_equal_their_slow_twins(n, k, digits, weighted):
    y, p = draw(n, k, 1, digits)
    w = weights(n, weighted)
    c, o = pairs(y, p)
    mass = np.ones(n) if w is None else w
    options = {"sample_weight": w}
    assert METRICS["ks"](y, p, **options) == pytest.approx(slow_ks(c, o, mass))
    even = slow_bins(c, o, mass, bin_edges(c, 7, "uniform"))
    total = sum(item[1] for item in even)
    square = sum(item[1] * item[2] ** 2 for item in even) / total
    value = METRICS["rmsce"](y, p, n_bins=7, **options)
    assert value == pytest.approx(math.sqrt(square), abs=1e-12)
    enough = min(5, max(item[0] for item in even))
    largest = max(abs(item[2]) for item in even if item[0] >= enough)
    value = METRICS["mce"](y, p, n_bins=7, **options)
    assert value == pytest.approx(largest, abs=1e-12)
    equal = slow_bins(c, o, mass, bin_edges(c, 7, "quantile"))
    mean = sum(abs(item[2]) for item in equal) / len(equal)
    value = METRICS["ace"](y, p, n_bins=7, **options)
    assert value == pytest.approx(mean, abs=1e-12)


def slow_classwise(p, y, w, n_bins, strategy):
    n, k = p.shape
    total = 0.0
    for column in range(k):
        edges = bin_edges(p[:, column], n_bins, strategy)
        for b in range(len(edges) - 1):
            rows = [i for i in range(n) if naive.bin_index(p[i, column], edges) == b]
            gap = sum(w[i] * (p[i, column] - (y[i] == column)) for i in rows)
            total += abs(gap) / w.sum() / k
    return total


@pytest.mark.parametrize(("n", "k", "digits"), CASES)
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@WEIGHTED
def test_classwise_ece_equals_its_slow_twin(n, k, digits, strategy, weighted):
    y, p = draw(n, k, 2, digits)
    w = weights(n, weighted)
    mass = np.ones(n) if w is None else w
    value = METRICS["classwise-ece"](y, p, n_bins=6, strategy=strategy, sample_weight=w)
    slow = slow_classwise(p, y, mass, 6, strategy)
    assert value == pytest.approx(slow, abs=1e-12)


def test_classwise_square_equals_its_formula():
    y, p = draw(300, 3, 3)
    total = 0.0
    for k in range(3):
        edges = bin_edges(p[:, k], 5, "uniform")
        r = p[:, k] - (y == k)
        index = np.array([naive.bin_index(v, edges) for v in p[:, k]])
        for b in range(5):
            inside = r[index == b]
            noise = inside.var(ddof=1) / inside.size
            total += inside.size / 300 * (inside.mean() ** 2 - noise) / 3
    value = METRICS["classwise-l2"](y, p, n_bins=5)
    assert value == pytest.approx(total, abs=1e-12)


def test_classes_of_a_binary_file_have_one_error():
    y, p = draw(200, 2, 4)
    one = METRICS["ece"](y, p, view="positive-class")
    assert METRICS["classwise-ece"](y, p) == pytest.approx(one, abs=1e-12)
    found = class_bins(scores_from_probabilities(y, p), Design())
    assert found.gaps[0] == pytest.approx(-found.gaps[1])
    assert found.gaps[1] == pytest.approx(p[:, 1].mean() - y.mean())
    assert found.errors.mean() == pytest.approx(one)


@pytest.mark.parametrize("n", [1, 4, 25])
@pytest.mark.parametrize("p", [0.02, 0.5, 0.9])
def test_mean_deviation_of_a_binomial(n, p):
    chance = [math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(n + 1)]
    mean = sum(q * abs(j - n * p) for j, q in enumerate(chance))
    found = _mean_deviation(np.array([float(n)]), np.array([p]))[0]
    assert found == pytest.approx(mean / math.sqrt(n * p * (1 - p)), rel=1e-9)


@pytest.mark.parametrize("k", [2, 3, 12])
@pytest.mark.parametrize("design", ["rows", "weights", "groups"])
def test_closed_null_of_the_classwise_ece_is_that_of_a_simulation(k, design):
    rng = np.random.default_rng(5)
    n = 600
    p = rng.dirichlet(np.full(k, 0.5), n)
    w = rng.gamma(2.0, size=n) if design == "weights" else None
    groups = np.arange(n) // 4 if design == "groups" else None
    y = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    scores = scores_from_probabilities(y, p)
    made = Design(n_bins=10, sample_weight=w, groups=groups)
    found = METRICS["classwise-ece"].traits["statistic"](scores, made)
    draws = []
    bins = [np.ceil(p[:, j] * 10).astype(int).clip(1) - 1 for j in range(k)]
    share = made.shares(n)
    hit = y[:, None] == np.arange(k)
    for _ in range(1000):
        if groups is None:
            again = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)
            r = p - (again[:, None] == np.arange(k))
        else:
            r = rng.choice([-1.0, 1.0], groups[-1] + 1)[groups][:, None] * (p - hit)
        sums = [np.bincount(bins[j], share * r[:, j], 10) for j in range(k)]
        draws.append(np.abs(sums).sum() / k)
    low, high = np.quantile(draws, [0.025, 0.975])
    spread = high - low
    assert found.null_low == pytest.approx(low, abs=0.12 * spread)
    assert found.null_high == pytest.approx(high, abs=0.12 * spread)


# ------------------------------------------------------------------ isotonic fits


@pytest.mark.parametrize("seed", range(4))
def test_isotonic_fits_equal_scipy_and_the_slow_twin(seed):
    rng = np.random.default_rng(seed)
    m = 40
    x = np.sort(rng.random(m))
    weight = rng.integers(1, 5, (3, m)).astype(float)
    outcome = (rng.random((3, m)) < x).astype(float)
    fits = isotonic_fits(x, weight, weight * outcome, x)
    for b in range(3):
        theirs = isotonic_regression(outcome[b], weights=weight[b]).x
        assert fits[b] == pytest.approx(theirs, abs=1e-12)
    slow = naive.pool_adjacent_violators(x, outcome[0], weight[0])
    assert fits[0] == pytest.approx([slow[v] for v in x], abs=1e-12)


def test_fits_without_some_rows_interpolate_between_the_others():
    x = np.array([0.1, 0.2, 0.4, 0.5, 0.9])
    weight = np.array([[0.0, 1.0, 0.0, 2.0, 0.0]])
    total = weight * np.array([0.0, 0.25, 1.0, 0.75, 1.0])
    points = np.array([0.0, 0.2, 0.35, 0.5, 1.0])
    fit = isotonic_fits(x, weight, total, points)[0]
    assert fit == pytest.approx([0.25, 0.25, 0.5, 0.75, 0.75])
    assert np.isnan(isotonic_fits(x, 0 * weight, total, points)).all()


@pytest.mark.parametrize(("n", "k", "digits"), CASES)
@WEIGHTED
def test_corp_parts_equal_scores_of_scipys_fit(n, k, digits, weighted):
    y, p = draw(n, k, 6, digits)
    w = weights(n, weighted)
    c, o = pairs(y, p)
    mass = np.ones(n) if w is None else w
    order = np.lexsort((-o, c))
    fit = np.empty(n)
    fit[order] = isotonic_regression(o[order], weights=mass[order]).x
    for value in np.unique(c):  # equal confidences share one value
        same = c == value
        fit[same] = np.average(fit[same], weights=mass[same])
    mean = np.full(n, np.average(o, weights=mass))

    def score(rule, q):
        if rule == "brier":
            return np.average((q - o) ** 2, weights=mass)
        q = np.clip(q, 1e-12, 1 - 1e-12)
        return -np.average(o * np.log(q) + (1 - o) * np.log1p(-q), weights=mass)

    for rule in ("brier", "log"):
        parts = {
            part: score_part(y, p, rule=rule, part=part, sample_weight=w)
            for part in ("mcb", "dsc", "unc")
        }
        assert parts["mcb"] == pytest.approx(
            score(rule, c) - score(rule, fit), abs=1e-9
        )
        assert parts["dsc"] == pytest.approx(
            score(rule, mean) - score(rule, fit), abs=1e-9
        )
        assert parts["unc"] == pytest.approx(score(rule, mean), abs=1e-9)
        whole = parts["mcb"] - parts["dsc"] + parts["unc"]
        assert whole == pytest.approx(score(rule, c), abs=1e-9)
    with pytest.raises(ValueError, match="rule must be"):
        score_part(y, p, rule="brie")


def test_curve_is_the_fit_and_its_band_is_around_the_diagonal():
    rng = np.random.default_rng(7)
    c = np.round(rng.random(800), 2)
    o = (rng.random(800) < c).astype(float)
    curve = reliability_curve(RowScores(c, o), Design(n_resamples=200))
    assert (np.diff(curve.x) > 0).all()
    assert (np.diff(curve.y) >= -1e-12).all()
    x = np.unique(c)
    count = np.array([(c == v).sum() for v in x], float)
    fit = isotonic_regression([o[c == v].mean() for v in x], weights=count).x
    assert curve.y == pytest.approx(np.interp(curve.x, x, fit))
    assert (curve.low <= curve.x).all()
    assert (curve.high >= curve.x).all()
    inside = (curve.low <= curve.y) & (curve.y <= curve.high)
    assert inside.mean() > 0.7
    assert curve.n == 800
    assert curve.level == 0.9
    off = reliability_curve(
        RowScores(np.sqrt(c), o), Design(n_resamples=200, groups=np.arange(800) // 8)
    )
    assert ((off.y < off.low) | (off.y > off.high)).mean() > 0.5


def test_a_certain_and_wrong_row_is_clipped_and_said():
    scores = RowScores(np.array([1.0, 0.6, 0.7]), np.array([0.0, 1.0, 1.0]))
    found = METRICS["log-mcb"].traits["statistic"](scores, Design(n_resamples=100))
    assert found.notes[0].code == "impossible-label"
    assert math.isfinite(found.value)


# --------------------------------------------------------- Brier, sharpness, E-AURC


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("view", ["top-label", "positive-class"])
@WEIGHTED
def test_terms_of_the_brier_score_add_up(strategy, view, weighted):
    y, p = draw(150, 2, 8, 2)
    w = weights(150, weighted)
    total = sum(
        factor
        * METRICS[f"brier-{term}"](
            y, p, n_bins=7, strategy=strategy, view=view, sample_weight=w
        )
        for term, factor in TERMS.items()
    )
    assert total == pytest.approx(brier_score(y, p, sample_weight=w), abs=1e-12)
    if view == "positive-class":
        theirs = sk.brier_score_loss(y, p[:, 1], sample_weight=w)
        assert total == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("term", TERMS)
def test_terms_of_the_brier_score_equal_their_slow_twins(term):
    y, p = draw(120, 3, 9, 2)
    c, o = pairs(y, p)
    total, rate = 0.0, o.mean()
    for count, _, gap, rows in slow_bins(
        c, o, np.ones(120), bin_edges(c, 5, "uniform")
    ):
        share, hits = count / 120, o[rows]
        total += (
            share
            * {
                "reliability": gap**2,
                "resolution": (hits.mean() - rate) ** 2,
                "uncertainty": rate * (1 - rate),
                "within-variance": c[rows].var(),
                "within-covariance": (c[rows] * hits).mean()
                - c[rows].mean() * hits.mean(),
            }[term]
        )
    value = METRICS[f"brier-{term}"](y, p, n_bins=5)
    assert value == pytest.approx(total, abs=1e-12)


@WEIGHTED
def test_sharpness_and_entropy_are_moments_of_the_probabilities(weighted):
    y, p = draw(90, 3, 10)
    w = weights(90, weighted)
    c, _ = pairs(y, p)
    mean = np.average(c, weights=w)
    variance = np.average((c - mean) ** 2, weights=w)
    assert METRICS["sharpness"](y, p, sample_weight=w) == pytest.approx(variance)
    entropy = np.average(-(p * np.log(p)).sum(axis=1), weights=w)
    assert METRICS["entropy"](y, p, sample_weight=w) == pytest.approx(entropy)


@pytest.mark.parametrize("seed", range(6))
def test_excess_area_is_the_area_above_the_best_order(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    c = rng.choice([0.6, 0.7, 0.8], n)
    o = rng.random(n) < 0.5
    p = np.column_stack([c, 1 - c])
    best = min(
        np.mean([np.mean(~np.array(order[: i + 1])) for i in range(n)])
        for order in permutations(o.tolist())
    )
    slow = naive.aurc_over_orders(c, o) - best
    assert METRICS["e-aurc"](np.where(o, 0, 1), p) == pytest.approx(slow, abs=1e-12)


def test_best_temperature_is_the_fitted_one():
    rng = np.random.default_rng(11)
    z = rng.normal(size=(4000, 3))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    p = np.exp(2 * z)
    p /= p.sum(axis=1, keepdims=True)
    scores = scores_from_probabilities(y, p)
    found = METRICS["best-temperature"].traits["statistic"](scores, Design())
    assert found.low < 2.0 < found.high
    assert found.value == pytest.approx(METRICS["best-temperature"](y, p))


# ------------------------------------------------------------------- smooth ECE


def slow_smooth(c, r, w, width):
    """Sum kernels reflected at 0 and 1 on a fine grid, without any binning."""
    t = np.linspace(0, 1, 4001)
    smoothed = np.zeros_like(t)
    density = np.zeros_like(t)
    for x, residual, share in zip(c, r, w, strict=True):
        bump = sum(
            np.exp(-0.5 * ((t - place) / width) ** 2) for place in (x, -x, 2 - x)
        )
        smoothed += share * residual * bump
        density += share * bump
    return np.trapezoid(np.abs(smoothed)) / np.trapezoid(density)


@pytest.mark.parametrize("saturated", [False, True])
def test_smooth_ece_is_the_fixed_point_of_the_slow_twin(saturated):
    rng = np.random.default_rng(12)
    c = np.round(rng.beta(4, 2, 60), 3)
    if saturated:
        c[:30] = 1.0
    o = (rng.random(60) < c**2).astype(float)
    w = rng.gamma(2.0, size=60)
    point = METRICS["smooth-ece"].traits["point"]
    found = point(RowScores(c, o), Design(sample_weight=w))
    assert slow_smooth(c, c - o, w / w.sum(), found) == pytest.approx(found, abs=2e-4)


def test_mass_at_one_weighs_half_in_relplots_version_only():
    # 500 right rows at exactly 1; the other residuals bound the error by .1.
    rng = np.random.default_rng(13)
    c = np.r_[np.full(500, 1.0), rng.uniform(0.7, 0.9, 500)]
    o = np.r_[np.ones(500), rng.random(500) < c[500:] - 0.2].astype(float)
    bound = 0.5 * np.mean(c[500:] - o[500:])
    scores = RowScores(c, o)
    corrected = METRICS["smooth-ece"].traits["point"](scores, Design())
    theirs = METRICS["smooth-ece-relplot"].traits["point"](scores, Design())
    assert corrected <= bound + 1e-9 < theirs
    moved = RowScores(np.where(c == 1.0, 0.97, c), o)
    inside = METRICS["smooth-ece"].traits["point"](moved, Design())
    peers = METRICS["smooth-ece-relplot"].traits["point"](moved, Design())
    assert inside == pytest.approx(peers, abs=3e-3)


def test_smoothing_many_draws_is_smoothing_each():
    rng = np.random.default_rng(14)
    smoother = _Smoother(rng.random(65), is_corrected=True)
    values = 0.2 * rng.normal(size=(5, 65))
    alone = [smoother.errors(row[None, :])[0] for row in values]
    assert smoother.errors(values) == pytest.approx(alone, abs=1e-12)


# ------------------------------------------------------------------- estimates


def test_nothing_of_the_second_tier_is_computed_unasked():
    y, p = draw(100, 3, 15)
    sample = Sample({"a": scores_from_probabilities(y, p)}, Settings(n_resamples=100))
    assert all(METRICS[name].tier == "default" for name in estimates(sample)["a"])
    asked = replace(sample, metrics=("ks", "nll"))
    assert set(estimates(asked)["a"]) == {"ks", "nll"}


@pytest.mark.parametrize("design", ["rows", "weights", "groups"])
def test_every_estimate_has_a_null_range_or_an_interval(design):
    rng = np.random.default_rng(16)
    z = 2 * rng.normal(size=(400, 3))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    p = np.exp(z)
    p /= p.sum(axis=1, keepdims=True)
    sample = Sample(
        {
            "a": scores_from_probabilities(y, p),
            "b": scores_from_probabilities(y, p**2 / (p**2).sum(axis=1, keepdims=True)),
        },
        Settings(n_resamples=100),
        sample_weight=rng.gamma(2.0, size=400) if design == "weights" else None,
        groups=np.arange(400) // 5 if design == "groups" else None,
        rows="test",
        metrics=tuple(MORE),
    )
    found = estimates(sample)
    moved = changes(sample, "a", "b")
    for name in MORE:
        item = found["a"][name]
        assert item.n == 400
        assert item.rows == "test"
        assert item.method
        assert (item.low is None) != (item.null_low is None) or name == "classwise-l2"
        if item.low is not None:
            assert item.low < item.high
        if item.null_low is not None:
            assert item.null_low <= item.null_high
            assert 0 <= item.p_value <= 1
            assert found["b"][name].p_value < 0.05 or name == "mce"
        difference = found["b"][name].value - item.value
        assert moved[name].value == pytest.approx(difference, abs=1e-12)


@pytest.mark.parametrize("metric", MORE)
@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_rows_are_no_trouble(metric, n):
    y, p = draw(n, 2, 17)
    for view in METRICS[metric].traits["views"]:
        scores = scores_from_probabilities(y, p, view=view)
        sample = Sample({"a": scores}, Settings(n_resamples=100), metrics=(metric,))
        estimates(sample)


def test_the_same_draws_serve_every_metric():
    y, p = draw(300, 3, 18)
    scores = scores_from_probabilities(y, p)
    design = Design(n_resamples=100)
    both = [METRICS[m].traits["statistic"](scores, design) for m in ("ks", "brier-mcb")]
    again = [
        METRICS[m].traits["statistic"](scores, Design(n_resamples=100))
        for m in ("ks", "brier-mcb")
    ]
    assert both == again
    with pytest.raises(ValueError, match="term must be"):
        brier_term(y, p, term="sharpness")
