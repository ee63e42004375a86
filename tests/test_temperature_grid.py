"""The grid of temperatures: against one trip per temperature, edges, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from core import parallel
from core.binning import bin_statistics
from core.messages import DataError
from core.softmax import row_statistics
from core.temperature_grid import TemperatureGrid, temperature_grid

DTYPES = (np.float32, np.float64)


def make(n: int, k: int, dtype: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    rng = np.random.default_rng([n, k])
    logits = rng.normal(0, 4, (n, k)).astype(dtype)
    labels = (logits * 0.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    logits[rng.random((n, k)) < 0.1] = -np.inf
    logits[np.arange(n), labels] = np.maximum(logits[np.arange(n), labels], -9)
    logits[0] = 1.5  # ties
    return logits, labels


def assert_equals_single_trips(
    grid: TemperatureGrid,
    logits: NDArray[Any],
    labels: NDArray[np.int64],
    weight: NDArray[Any] | None = None,
    tolerance: float = 1e-11,
    strategy: str = "uniform",
) -> None:
    for i in (0, 1, 14, 15, 16, 30, len(grid.temperature) - 1):
        rows = row_statistics(logits, labels, temperature=grid.temperature[i])
        assert rows.label_log_probability is not None
        assert rows.squared_sum is not None
        assert rows.correct is not None
        brier = 1 - 2 * np.exp(rows.label_log_probability) + rows.squared_sum
        loss = np.average(-rows.label_log_probability, weights=weight)
        assert_allclose(grid.nll[i], loss, tolerance)
        assert_allclose(grid.brier[i], np.average(brier, weights=weight), tolerance)
        bins = bin_statistics(
            rows.confidence,
            rows.correct,
            n_bins=15,
            strategy=strategy,
            sample_weight=weight,
        )
        size = bins.n_bins
        assert_allclose(grid.weight[i, :size], bins.weight, tolerance, 1e-15)
        assert_allclose(grid.confidence[i, :size], bins.confidence, tolerance)
        assert_allclose(grid.accuracy[i, :size], bins.accuracy, tolerance)
        assert not grid.weight[i, size:].any()
        for norm in ("l1", "l2"):
            error = grid.error(norm)[i]
            assert_allclose(error, bins.error(norm), 0, 10 * tolerance)


@pytest.mark.jit
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 10, 100, 1500])
def test_grid_equals_single_trips(n_classes: int, dtype: Any) -> None:
    logits, labels = make(300, n_classes, dtype)
    grid = temperature_grid(logits, labels)
    assert grid.n == 300
    assert len(grid.temperature) == 61
    assert (np.diff(grid.temperature) < 0).all()
    assert_allclose(grid.temperature[[0, -1]], [4, 0.25])
    tolerance = 3e-6 if dtype == np.float32 else 1e-11
    assert_equals_single_trips(grid, logits, labels, tolerance=tolerance)


def test_weights_count() -> None:
    logits, labels = make(40, 5, np.float64)
    weight = np.random.default_rng(0).gamma(1.0, size=40)
    weight[3] = 0.0
    grid = temperature_grid(logits, labels, n_runs=3, low=0.5, sample_weight=weight)
    assert_equals_single_trips(grid, logits, labels, weight)
    logits[3], labels[3] = np.nan, 0
    again = temperature_grid(logits, labels, n_runs=3, low=0.5, sample_weight=weight)
    assert again.n == 39
    assert_allclose(again.nll, grid.nll, 0, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bins_of_equal_counts(dtype: Any) -> None:
    logits, labels = make(50, 5, dtype)
    logits[10:] = logits[10]  # so many ties that there are fewer bins
    grid = temperature_grid(logits, labels, n_runs=2, low=1, strategy="quantile")
    tolerance = 3e-6 if dtype == np.float32 else 1e-11
    assert_equals_single_trips(
        grid, logits, labels, tolerance=tolerance, strategy="quantile"
    )


def test_wide_ranges_and_certain_rows() -> None:
    logits = np.array([[1e4, -1e4, 0.0], [0.0, 1e-30, -np.inf], [700.0, 0.0, 0.0]])
    labels = np.array([0, 1, 0])
    grid = temperature_grid(logits, labels, low=0.01, high=100.0, n_runs=14)
    assert_equals_single_trips(grid, logits, labels)


@pytest.mark.jit
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    logits, labels = make(3000, 300, np.float32)
    grids = []
    try:
        for n_threads in (1, 3):
            parallel.configure(n_threads)
            grids.append(temperature_grid(logits, labels))
    finally:
        parallel.configure()
    for name in ("nll", "brier", "weight", "confidence", "accuracy"):
        assert_allclose(*(getattr(grid, name) for grid in grids), rtol=0, atol=0)


def test_no_rows_are_no_numbers() -> None:
    grid = temperature_grid(np.empty((0, 3)), [])
    assert grid.n == 0
    assert np.isnan(grid.nll).all()
    assert np.isnan(grid.accuracy).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n_classes", [4, 130])
def test_bad_rows_are_named(n_classes: int, bad: float) -> None:
    logits = np.zeros((5, n_classes))
    logits[3, 2] = bad
    with pytest.raises(DataError, match="row 4, class column 3"):
        temperature_grid(logits, [0] * 5, n_runs=1)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2, 1), (1, np.inf), (np.nan, 1)])
def test_wrong_ranges_are_explained(low: float, high: float) -> None:
    with pytest.raises(DataError, match="low < high"):
        temperature_grid([[0.0, 1.0]], [1], low=low, high=high)


def test_labels_are_needed() -> None:
    with pytest.raises(DataError, match="row 2"):
        temperature_grid(np.zeros((2, 2)), [0, -1])
