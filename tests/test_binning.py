"""Bins: a partition of the data, the same for numbers and figures."""

from __future__ import annotations

import naive
import numpy as np
import pytest

from core.binning import assign_bins, bin_edges, bin_statistics, combined


def data(n=200, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    return confidence, (rng.random(n) < confidence).astype(float)


@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_assignment_equals_its_slow_twin(closed, strategy):
    values = np.r_[0.0, 0.1, 0.2, 0.2, 0.5, 0.9, 1.0, np.linspace(0, 1, 21)]
    edges = bin_edges(values, 10, strategy)
    slow = [naive.bin_index(v, edges, closed) for v in values]
    assert assign_bins(values, edges, closed=closed).tolist() == slow


def test_zero_is_in_the_first_bin_and_one_in_the_last():
    edges = bin_edges(np.array([0.5]), 4, "uniform")
    ends = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert assign_bins(ends, edges).tolist() == [0, 0, 1, 2, 3]
    assert assign_bins(ends, edges, closed="left").tolist() == [0, 1, 2, 3, 3]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_statistics_equal_their_slow_twin(weighted, strategy):
    confidence, outcome = data()
    weight = np.random.default_rng(1).gamma(1, size=200) if weighted else None
    found = bin_statistics(
        confidence, outcome, n_bins=8, strategy=strategy, sample_weight=weight
    )
    slow = naive.bins(confidence, outcome, found.edges, weight)
    assert found.count.tolist() == [b["count"] for b in slow]
    for name in ("weight", "confidence", "accuracy"):
        expected = [b[name] for b in slow]
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-12)
    rows = found.count if weight is None else None
    if rows is not None:
        for b in np.flatnonzero(rows):
            low, high = naive.wilson(found.accuracy[b], int(rows[b]), 1.959963984540054)
            assert found.low[b] == pytest.approx(low, abs=1e-12)
            assert found.high[b] == pytest.approx(high, abs=1e-12)


def test_empty_bins_are_kept():
    found = bin_statistics(np.array([0.95, 0.97]), np.array([1, 0]), n_bins=10)
    assert found.n_bins == 10
    assert found.count.tolist() == [0] * 9 + [2]
    assert np.isnan(found.accuracy[:9]).all()
    assert np.isnan(found.low[:9]).all()
    assert found.is_thin.tolist() == [False] * 9 + [True]
    assert found.error() == pytest.approx(0.46)


def test_quantile_bins_hold_equal_counts():
    confidence, outcome = data(103)
    count = bin_statistics(confidence, outcome, n_bins=10, strategy="quantile").count
    assert count.sum() == 103
    assert set(count) == {10, 11}


def test_quantile_bins_keep_ties_together():
    values = np.repeat([0.2, 0.5, 0.9], [50, 3, 47])
    edges = bin_edges(values, 10, "quantile")
    index = assign_bins(values, edges)
    assert len({int(i) for i in index[:50]}) == 1
    assert len({int(i) for i in index[53:]}) == 1


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_a_constant_has_one_quantile_bin_with_rows(value):
    values = np.full(20, value)
    found = bin_statistics(values, np.ones(20), n_bins=5, strategy="quantile")
    assert (found.count > 0).sum() == 1
    assert found.count.sum() == 20


def test_neighbouring_floats_are_cut_between():
    values = np.array([0.5, np.nextafter(0.5, 1)])
    edges = bin_edges(values, 2, "quantile")
    assert assign_bins(values, edges).tolist() == [0, 1]


def test_weights_count_by_their_effective_number():
    confidence, outcome = data(60)
    plain = bin_statistics(confidence, outcome, n_bins=3)
    scaled = bin_statistics(
        confidence, outcome, n_bins=3, sample_weight=np.full(60, 7.0)
    )
    np.testing.assert_allclose(scaled.low, plain.low, rtol=1e-12)
    np.testing.assert_allclose(scaled.high, plain.high, rtol=1e-12)
    zero = np.r_[np.ones(30), np.zeros(30)]
    half = bin_statistics(confidence[:30], outcome[:30], n_bins=3)
    masked = bin_statistics(confidence, outcome, n_bins=3, sample_weight=zero)
    np.testing.assert_allclose(masked.low, half.low, rtol=1e-12)
    np.testing.assert_allclose(masked.accuracy, half.accuracy, rtol=1e-12)


def test_groups_that_move_together_widen_the_interval():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 10)
    outcome = np.repeat(rng.random(40) < 0.7, 10).astype(float)
    confidence = np.full(400, 0.7)
    alone = bin_statistics(confidence, outcome, n_bins=1)
    grouped = bin_statistics(confidence, outcome, n_bins=1, groups=groups)
    once = bin_statistics(confidence[::10], outcome[::10], n_bins=1)
    assert grouped.high[0] - grouped.low[0] > 2 * (alone.high[0] - alone.low[0])
    # Ten copies of a row tell as much as one.
    assert grouped.low[0] == pytest.approx(once.low[0], abs=5e-3)


def test_groups_of_one_are_no_groups():
    confidence, outcome = data(500)
    plain = bin_statistics(confidence, outcome, n_bins=5)
    grouped = bin_statistics(confidence, outcome, n_bins=5, groups=np.arange(500))
    np.testing.assert_allclose(grouped.low, plain.low, atol=2e-3)
    np.testing.assert_allclose(grouped.accuracy, plain.accuracy, rtol=1e-12)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="n_bins"):
        bin_edges(np.array([0.5]), 0, "uniform")
    with pytest.raises(ValueError, match="strategy"):
        bin_edges(np.array([0.5]), 3, "other")
    with pytest.raises(ValueError, match="closed"):
        assign_bins(np.array([0.5]), np.array([0.0, 1.0]), closed="no")
    with pytest.raises(ValueError, match="norm"):
        combined(np.ones(2), np.ones(2), "l7")
