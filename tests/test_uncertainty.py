"""Resampling, intervals and null ranges against slow twins and scipy."""

from __future__ import annotations

import math
from functools import partial

import naive
import numpy as np
import pytest
from scipy import stats

from core.binning import assign_bins, bin_edges
from core.messages import Note
from core.metrics import RowScores
from core.metrics.scoring_rules import WeightedMeans, mean_gap, mean_nll
from core.metrics.selective import aurc, auroc, ranked
from core.parallel import configure
from core.uncertainty import (
    Estimate,
    bootstrap,
    percentile_interval,
    resample_counts,
    simulate_null,
    wilson_interval,
)


def scores(n=25, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.choice(np.linspace(0.3, 1, 12), n)
    return RowScores(confidence, (rng.random(n) < 0.7) * 1.0, nll=rng.exponential(1, n))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20)])
def test_wilson_equals_scipy_and_the_quadratic(hits, n, level):
    low, high = wilson_interval(hits / n, n, level)
    theirs = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    assert float(low) == pytest.approx(theirs.low, abs=1e-12)
    assert float(high) == pytest.approx(theirs.high, abs=1e-12)
    slow = naive.wilson(hits / n, n, stats.norm.ppf(0.5 + level / 2))
    assert (float(low), float(high)) == pytest.approx(slow, abs=1e-12)
    assert low <= hits / n <= high


def test_wilson_of_nothing_is_undefined():
    low, high = wilson_interval(np.array([np.nan, 0.5]), np.array([0.0, 4.0]))
    assert np.isnan(low[0])
    assert np.isnan(high[0])
    assert 0 < low[1] < high[1] < 1


def test_counts_are_whole_draws_of_all_units():
    blocks = list(resample_counts(7, 50, 1))
    counts = np.concatenate(blocks)
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()
    again = np.concatenate(list(resample_counts(7, 50, 1)))
    assert (counts == again).all()


@pytest.mark.parametrize("n_units", [1, 2, 7, 1000, 3001])
def test_counts_are_those_of_the_stream_of_draws(n_units):
    # One stream of draws, however it is cut into blocks.
    drawn = np.random.default_rng(4).integers(0, n_units, size=(9, n_units))
    slow = [np.bincount(row, minlength=n_units) for row in drawn]
    for cells in (1, 3 * n_units, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("core.uncertainty._CELLS", cells)
            counts = np.concatenate(list(resample_counts(n_units, 9, 4)))
        np.testing.assert_array_equal(counts, slow)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_numbers_do_not_depend_on_tiles_or_threads(weighted, grouped, monkeypatch):
    rng = np.random.default_rng(12)
    rows = scores(200)
    options = {
        "sample_weight": rng.gamma(1, size=200) if weighted else None,
        "groups": rng.integers(0, 30, 200) if grouped else None,
        "n_resamples": 50,
    }
    values = WeightedMeans([rows.confidence, rows.nll])
    index = assign_bins(rows.confidence, np.linspace(0, 1, 8))

    def everything():
        found = bootstrap({"a": partial(ranked, rows), "b": values}, 200, **options)
        null = simulate_null(index, 7, rows.confidence, rows.outcome, **options)
        return *found.values(), null.round(12)

    plain = everything()
    for cells, tile, lanes, threads in (
        (1, 1, 1, 1),
        (3000, 1000, 5, 3),
        (8000, 900, 40, 2),
    ):
        monkeypatch.setattr("core.uncertainty._CELLS", cells)
        monkeypatch.setattr("core.uncertainty._TILE", tile)
        monkeypatch.setattr("core.uncertainty._MOST_LANES", lanes)
        configure(threads)
        try:
            for one, other in zip(plain, everything(), strict=True):
                np.testing.assert_array_equal(one, other)
        finally:
            configure()


def test_means_do_not_depend_on_their_neighbours():
    rng = np.random.default_rng(13)
    values = rng.random((11, 700))
    weights = rng.integers(0, 4, (19, 700)).astype(np.float32)
    together = WeightedMeans(values)(weights)
    np.testing.assert_allclose(
        together, (weights @ values.T) / weights.sum(axis=1)[:, None], rtol=1e-12
    )
    for i, one in enumerate(values):
        np.testing.assert_array_equal(
            WeightedMeans([one])(weights)[:, 0], together[:, i]
        )


def test_an_infinite_value_that_was_not_drawn_adds_nothing():
    values = np.array([np.inf, 1.0, 3.0])
    weights = np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    assert WeightedMeans([values])(weights)[:, 0].tolist() == [2.0, np.inf]


@pytest.mark.parametrize("function", [mean_gap, mean_nll, aurc, auroc])
def test_weighted_draws_equal_copied_rows(function):
    rows = scores()
    draws = bootstrap({"x": lambda w: function(rows, w)}, 25, n_resamples=20, seed=3)
    counts = np.concatenate(list(resample_counts(25, 20, 3)))
    drawn = [np.repeat(np.arange(25), c) for c in counts]

    def copied(which):
        some = rows.take(np.array(which))
        return float(function(some, np.ones((1, len(some))))[0])

    slow = naive.bootstrap_draws(copied, drawn)
    np.testing.assert_allclose(draws["x"], slow, rtol=1e-10)


def test_groups_are_drawn_whole():
    rows = scores()
    groups = np.random.default_rng(1).integers(0, 6, 25)
    draws = bootstrap(
        {"x": lambda w: mean_gap(rows, w)}, 25, n_resamples=15, seed=4, groups=groups
    )
    names = np.unique(groups)
    for value, counts in zip(
        draws["x"],
        np.concatenate(list(resample_counts(names.size, 15, 4))),
        strict=True,
    ):
        drawn = naive.rows_of_groups(groups, np.repeat(names, counts))
        expected = (rows.confidence - rows.outcome)[drawn].mean()
        assert value == pytest.approx(expected, abs=1e-12)


def test_groups_of_one_row_draw_like_rows():
    rows = scores()

    def gap(w):
        return mean_gap(rows, w)

    plain = bootstrap({"x": gap}, 25, n_resamples=30, seed=5)["x"]
    single = bootstrap({"x": gap}, 25, n_resamples=30, seed=5, groups=np.arange(25))
    np.testing.assert_allclose(single["x"], plain, rtol=1e-12)


def test_weights_multiply_the_counts():
    rows = scores()
    weight = np.random.default_rng(2).gamma(1, size=25)
    seen = []
    bootstrap(
        {"x": lambda w: seen.append(w) or np.zeros(len(w))},
        25,
        n_resamples=10,
        seed=6,
        sample_weight=weight,
    )
    counts = np.concatenate(list(resample_counts(25, 10, 6)))
    np.testing.assert_allclose(np.concatenate(seen), counts * weight)
    assert len(rows) == 25


def test_draws_without_weight_are_undefined_and_drop_out():
    rows = scores(3)
    weights = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.7]])
    found = ranked(rows, weights)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1, 0])
    draws = np.array([np.nan, 1.0, 2.0, 3.0])
    low, high = percentile_interval(draws, 0.5)
    assert 1 <= low <= high <= 3
    assert all(map(math.isnan, percentile_interval(np.array([1.0, np.nan]), 0.9)))


def test_percentiles_are_unbiased_and_expand_for_few_units():
    draws = np.arange(1.0, 100.0)  # 99 draws: the 2.5 % quantile is draw 2.5
    assert percentile_interval(draws, 0.95) == pytest.approx((2.5, 97.5))
    widths = [
        np.diff(percentile_interval(stats.norm.ppf(draws / 100), 0.8, n))[0]
        for n in (5, 20, 100, math.inf)
    ]
    assert widths == sorted(widths, reverse=True)
    # For a mean of n normal values the expanded interval is Student's.
    n, fine = 8, stats.norm.ppf(np.arange(1, 100_000) / 100_000)
    spread = math.sqrt((n - 1) / n)  # the bootstrap's, in units of the unbiased one
    _, high = percentile_interval(fine * spread / math.sqrt(n), 0.95, n)
    assert high == pytest.approx(stats.t.ppf(0.975, n - 1) / math.sqrt(n), rel=1e-3)
    assert all(map(math.isnan, percentile_interval(draws, 0.95, 1)))


@pytest.mark.parametrize("weighted", [False, True])
def test_null_draws_have_the_mean_and_variance_of_their_outcomes(weighted):
    rng = np.random.default_rng(7)
    confidence = rng.random(40)
    weight = rng.gamma(2, size=40) if weighted else None
    edges = bin_edges(confidence, 4, "uniform")
    index = assign_bins(confidence, edges)
    draws = simulate_null(
        index, 4, confidence, confidence, n_resamples=20_000, sample_weight=weight
    )
    unit = np.ones(40) if weight is None else weight
    for b in range(4):
        rows = index == b
        share = unit[rows] / unit[rows].sum()
        variance = (share**2 * confidence[rows] * (1 - confidence[rows])).sum()
        assert draws[:, b].mean() == pytest.approx(0, abs=5 * math.sqrt(variance / 2e4))
        assert draws[:, b].var() == pytest.approx(variance, rel=0.05)


def test_null_draws_equal_their_slow_twin():
    rng = np.random.default_rng(8)
    confidence = rng.random(15)
    edges = np.linspace(0, 1, 5)
    index = assign_bins(confidence, edges)
    found = simulate_null(index, 4, confidence, confidence, n_resamples=6, seed=9)
    order = np.argsort(index, kind="stable")
    uniform = np.random.default_rng(10).random((6, 15))
    for draw, u in zip(found, uniform, strict=True):
        outcome = np.empty(15)
        outcome[order] = u < confidence[order]
        slow = naive.null_residuals(confidence, outcome, edges)
        np.testing.assert_allclose(draw, slow, atol=1e-12)


def test_grouped_null_flips_whole_groups():
    rng = np.random.default_rng(11)
    confidence, groups = rng.random(30), rng.integers(0, 3, 30)
    outcome = (rng.random(30) < confidence) * 1.0
    index = assign_bins(confidence, np.linspace(0, 1, 3))
    found = simulate_null(index, 2, confidence, outcome, n_resamples=200, groups=groups)
    possible = []
    for signs in np.ndindex(2, 2, 2):
        flipped = (np.array(signs) * 2 - 1)[groups] * (confidence - outcome)
        mass = np.bincount(index, minlength=2)
        possible.append(np.bincount(index, flipped, 2) / mass)
    for draw in found:
        assert min(np.abs(draw - p).max() for p in possible) < 1e-12
    assert len(np.unique(found.round(10), axis=0)) == 8


def test_an_estimate_is_plain_data():
    note = Note("code", "info", "text")
    found = Estimate(math.nan, low=0.1, high=math.inf, n=3, notes=(note,))
    values = found.to_dict()
    assert values["value"] is None
    assert values["high"] is None
    assert values["notes"] == ({"code": "code", "severity": "info", "text": "text"},)
    assert Estimate(1.0).half_width is None
    assert Estimate(1.0, 0.5, 1.7).half_width == pytest.approx(0.6)
