"""Softmax and row statistics: against twins and SciPy, properties, edges, threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import naive
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import core.kernels.blocks
import core.kernels.grid
import core.kernels.logistic
import core.kernels.matrix
import core.kernels.objective
import core.kernels.row_temperature
import core.kernels.rows
import core.kernels.softmax
import core.kernels.vector
from core import parallel
from core.kernels.exp import source_stamp
from core.messages import DataError
from core.row_statistics import RowStatistics
from core.softmax import (
    log_softmax,
    logsumexp,
    row_statistics,
    softmax,
    temperature_objective,
    warm_up,
)
from core.temperature_grid import temperature_grid

IS_COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
needs_jit = pytest.mark.jit

ALGORITHMS = ("auto", "two-pass", "three-pass", "three-pass-reload", "online")
DTYPES = (np.float32, np.float64)
# below, at and above a block of lanes, and where the flat tile ends
CLASSES = (1, 2, 3, 10, 63, 64, 65, 8, 9, 16, 17, 129)
FIELDS = RowStatistics.__dataclass_fields__


def make_logits(
    n: int, k: int, dtype: Any = np.float64, scale: float = 3.0, masked: float = 0.0
) -> NDArray[Any]:
    rng = np.random.default_rng([n, k])
    logits = (rng.normal(size=(n, k)) * scale).astype(dtype)
    logits[rng.random((n, k)) < masked] = -np.inf
    logits[np.arange(n), rng.integers(0, k, n)] = 1.0
    return logits


def make_labels(n: int, k: int) -> NDArray[np.int64]:
    return np.random.default_rng([n, k, 1]).integers(0, k, n)


def exact_softmax(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[Any]:
    """Shift, divide and exponentiate in the widest precision there is."""
    z = logits.astype(np.longdouble)
    mass = np.exp((z - z.max(axis=1, keepdims=True)) / np.longdouble(temperature))
    return mass / mass.sum(axis=1, keepdims=True)


def assert_close_to_exact(result: NDArray[Any], exact: NDArray[Any]) -> None:
    counts = exact > 1e-30
    error = np.abs(result[counts] / exact[counts] - 1).max()
    assert error <= (1e-6 if result.dtype == np.float32 else 1e-13)
    assert (result[exact == 0] == 0).all()


@pytest.fixture
def own_pool() -> Iterator[None]:
    yield
    parallel.configure()


# ----------------------------------------------------------------- references


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
def test_softmax_equals_its_twins(n_classes: int, dtype: Any, algorithm: Any) -> None:
    logits = make_logits(5, n_classes, dtype, masked=0.2)
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    for temperature in (1.0, 0.3):
        options = {"temperature": temperature, "algorithm": algorithm}
        p = softmax(logits, **options)
        log_p = log_softmax(logits, **options)
        assert p.dtype == log_p.dtype == dtype
        assert_allclose(p, naive.softmax(logits, temperature), tolerance)
        assert_allclose(
            log_p, naive.log_softmax(logits, temperature), tolerance, tolerance
        )
        scaled = logits.astype(np.float64) / temperature
        assert_allclose(p, scipy.special.softmax(scaled, axis=1), tolerance)
        assert_allclose(
            log_p, scipy.special.log_softmax(scaled, axis=1), tolerance, tolerance
        )
        assert (p[logits == -np.inf] == 0).all()
        assert (log_p[logits == -np.inf] == -np.inf).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
def test_logsumexp_equals_its_twins(n_classes: int, dtype: Any) -> None:
    logits = make_logits(5, n_classes, dtype, masked=0.2)
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    for temperature in (1.0, 2.5):
        result = logsumexp(logits, temperature=temperature)
        assert result.dtype == dtype
        twin = naive.logsumexp(logits, temperature)
        assert_allclose(result, twin, tolerance, tolerance)
        scaled = logits.astype(np.float64) / temperature
        expected = scipy.special.logsumexp(scaled, axis=1)
        assert_allclose(result, expected, tolerance, tolerance)


def assert_statistics(
    rows: RowStatistics, twin: dict[str, Any], tolerance: float
) -> None:
    for name in FIELDS:
        result, expected = getattr(rows, name), twin[name]
        if expected is None:
            assert result is None, name
        elif expected.dtype.kind == "f":
            assert result.dtype == np.float64
            assert_allclose(result, expected, tolerance, tolerance, err_msg=name)
        else:
            assert result.dtype == expected.dtype
            assert_array_equal(result, expected, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
def test_row_statistics_equal_their_twin(n_classes: int, dtype: Any) -> None:
    logits = make_logits(6, n_classes, dtype, masked=0.2)
    # ties: within a block of lanes, across blocks, with the label on either side
    logits[0] = 0.5
    logits[1, -1] = logits[1, 0] = 40.0
    labels = make_labels(6, n_classes)
    labels[1] = n_classes - 1
    labels[5] = -1
    tolerance = 2e-6 if dtype == np.float32 else 1e-12
    for temperature in (1.0, 0.3, 4.0):
        rows = row_statistics(logits, labels, temperature=temperature)
        twin = naive.row_statistics(logits, labels.tolist(), temperature)
        assert_statistics(rows, twin, tolerance)
        rows = row_statistics(logits, temperature=temperature)
        assert_statistics(rows, naive.row_statistics(logits, None, temperature), 2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
def test_temperature_objective_equals_its_twin(n_classes: int, dtype: Any) -> None:
    logits = make_logits(5, n_classes, dtype, masked=0.2)
    labels = make_labels(5, n_classes)
    tolerance = 5e-6 if dtype == np.float32 else 1e-11
    for beta in (0.0, 0.2, 1.0, 3.0):
        result = temperature_objective(logits, labels, beta)
        twin = naive.temperature_objective(logits, labels.tolist(), beta)
        for name, value, expected in zip(result._fields, result, twin, strict=True):
            assert value.dtype == np.float64
            assert_allclose(value, expected, tolerance, tolerance, err_msg=name)


def test_slope_and_curvature_are_the_derivatives_of_the_loss() -> None:
    logits, labels, step = make_logits(9, 100), make_labels(9, 100), 1e-4
    low, middle, high = (
        temperature_objective(logits, labels, 0.7 + d) for d in (-step, 0.0, step)
    )
    assert_allclose((high.loss - low.loss) / (2 * step), middle.slope, 1e-5, 1e-7)
    assert_allclose((high.slope - low.slope) / (2 * step), middle.curvature, 1e-5, 1e-7)


@pytest.mark.parametrize("n_classes", [3, 200])
def test_an_impossible_label_has_infinite_loss_only(n_classes: int) -> None:
    logits = make_logits(2, n_classes)
    logits[0, 1] = -np.inf
    loss, slope, curvature = temperature_objective(logits, [1, 0], 1.0)
    assert loss[0] == np.inf
    assert np.isfinite([slope, curvature]).all()
    p = scipy.special.softmax(logits[0])
    mean = (p * np.where(p > 0, logits[0] - logits[0].max(), 0)).sum()
    assert slope[0] == pytest.approx(mean)


# ------------------------------------------------------------------- accuracy


@needs_jit
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("half_range", [1.0, 100.0, 1e4])
def test_single_precision_is_accurate(half_range: float, algorithm: Any) -> None:
    rng = np.random.default_rng(7)
    for shape in ((300, 10), (50, 1000), (1, 1_000_000)):
        logits = rng.uniform(-half_range, half_range, shape).astype(np.float32)
        result = softmax(logits, algorithm=algorithm)
        assert_close_to_exact(result, exact_softmax(logits))
        assert_allclose(result.sum(axis=1, dtype=np.float64), 1, 1e-6)


@needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.05, 0.7, 20.0])
def test_other_temperatures_are_as_accurate(dtype: Any, temperature: float) -> None:
    rng = np.random.default_rng(8)
    for shape in ((300, 10), (50, 1000)):
        logits = rng.uniform(-1e3, 1e3, shape).astype(dtype)
        result = softmax(logits, temperature=temperature)
        assert_close_to_exact(result, exact_softmax(logits, temperature))


@needs_jit
@pytest.mark.parametrize("offset", [-1e4, 0.0, 1e4])
def test_double_precision_is_accurate(offset: float) -> None:
    logits = make_logits(40, 1000, scale=30.0) + offset
    assert_close_to_exact(softmax(logits), exact_softmax(logits))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [3, 130])
def test_almost_certain_rows_keep_their_order(n_classes: int, dtype: Any) -> None:
    # what is left for the other classes is summed without the largest term
    logits = np.full((3, n_classes), -np.inf, dtype)
    logits[:, 1] = 5.0
    logits[:, 2] = [-20.0, -25.0, -30.0]
    rows = row_statistics(logits, [1, 1, 1])
    rest = np.exp([-25.0, -30.0, -35.0])
    assert_allclose(1 - rows.confidence, rest, 3e-7, 3e-16)
    assert_allclose(-rows.label_log_probability, np.log1p(rest), 3e-7)
    loss = temperature_objective(logits, [1, 1, 1], 1.0).loss
    assert_allclose(loss, np.log1p(rest), 3e-7)


@pytest.mark.parametrize("n_classes", [3, 130])
def test_minus_zero_is_zero(n_classes: int) -> None:
    logits = np.zeros((2, n_classes), np.float32)
    logits[0, 0] = logits[1, 1:] = -0.0
    assert row_statistics(logits).prediction.tolist() == [0, 0]


@pytest.mark.parametrize("n_classes", [3, 130])
def test_double_precision_is_accurate_far_from_zero(n_classes: int) -> None:
    # where the leading single-precision part of a logit leaves whole powers of two
    logits = make_logits(6, n_classes) + 3e8 + 0.37
    for algorithm in ALGORITHMS:
        result = softmax(logits, algorithm=algorithm)
        assert_close_to_exact(result, exact_softmax(logits))


@needs_jit
def test_statistics_of_long_rows_are_accurate() -> None:
    logits = make_logits(2, 100_000, np.float32)
    labels = make_labels(2, 100_000)
    rows = row_statistics(logits, labels)
    exact = row_statistics(logits.astype(np.float64), labels)
    for name in ("margin", "entropy", "logsumexp", "label_log_probability"):
        assert_allclose(getattr(rows, name), getattr(exact, name), 0, 1e-5)
    assert_array_equal(rows.label_rank, exact.label_rank)


@pytest.mark.parametrize("n_classes", [4, 150])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e30])
def test_extreme_temperatures(temperature: float, dtype: Any, n_classes: int) -> None:
    logits = np.full((2, n_classes), -1e4, dtype)
    logits[0, 1], logits[0, 2], logits[1, 0] = 1e4, 9999.998, -np.inf
    expected = exact_softmax(logits, temperature)
    assert_allclose(softmax(logits, temperature=temperature), expected, 1e-6)
    rows = row_statistics(logits, [1, 1], temperature=temperature)
    assert_allclose(rows.confidence, expected.max(axis=1), 1e-6)
    assert np.isfinite(rows.entropy).all()


@pytest.mark.parametrize("n_classes", [4, 150])
@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_logits_fall_back_to_the_row_maximum(dtype: Any, n_classes: int) -> None:
    logits = np.full((3, n_classes), -3e38, dtype)
    logits[0, :2] = 3e38
    logits[1, :2] = -1e9
    expected = np.zeros((3, n_classes))
    expected[:2, :2], expected[2] = 0.5, 1 / n_classes
    for algorithm in ALGORITHMS:
        if algorithm == "online" and dtype == np.float32:
            continue  # differences of the extremes are infinite, as for any sum
        assert_allclose(softmax(logits, algorithm=algorithm), expected, 1e-6)
    with np.errstate(over="ignore"):
        assert_allclose(logsumexp(logits)[0], dtype(3e38), 1e-6)


# ----------------------------------------------------------------- properties

shapes = st.tuples(st.integers(1, 5), st.sampled_from([1, 2, 5, 70, 100]))
tables = shapes.flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-50, 50))
)
some = settings(max_examples=40 if IS_COMPILED else 8)


@given(tables, st.floats(-1e3, 1e3))
@some
def test_a_shift_changes_nothing(logits: NDArray[Any], shift: float) -> None:
    assert_allclose(softmax(logits + shift), softmax(logits), 1e-10, 1e-300)


@given(tables, st.floats(0.05, 20))
@some
def test_rows_sum_to_one(logits: NDArray[Any], temperature: float) -> None:
    p = softmax(logits, temperature=temperature)
    assert_allclose(p.sum(axis=1), 1, 1e-12)
    assert ((p >= 0) & (p <= 1 + 1e-15)).all()


@given(tables, st.floats(0.05, 20))
@some
def test_temperature_keeps_the_prediction(logits: Any, temperature: float) -> None:
    rows = row_statistics(logits, temperature=temperature)
    assert_array_equal(rows.prediction, logits.argmax(axis=1))
    assert_array_equal(rows.max_logit, logits.max(axis=1))


@given(tables, st.randoms(use_true_random=False))
@some
def test_columns_may_be_permuted(logits: NDArray[Any], random: Any) -> None:
    order = list(range(logits.shape[1]))
    random.shuffle(order)
    assert_allclose(softmax(logits[:, order]), softmax(logits)[:, order], 1e-13)
    shuffled, rows = row_statistics(logits[:, order]), row_statistics(logits)
    for name in ("confidence", "margin", "entropy", "squared_sum", "logsumexp"):
        assert_allclose(getattr(shuffled, name), getattr(rows, name), 1e-12, 1e-12)


@given(tables)
@some
def test_statistics_agree_with_softmax(logits: NDArray[Any]) -> None:
    rows, p = row_statistics(logits, [0] * len(logits)), softmax(logits)
    assert_allclose(rows.confidence, p.max(axis=1), 1e-12)
    assert_allclose(np.exp(rows.label_log_probability), p[:, 0], 1e-10, 1e-300)
    assert_allclose(rows.squared_sum, (p * p).sum(axis=1), 1e-12)
    assert (rows.entropy >= 0).all()
    assert (rows.entropy <= np.log(logits.shape[1]) + 1e-12).all()


@given(tables)
@some
def test_precisions_agree(logits: NDArray[Any]) -> None:
    single = logits.astype(np.float32)
    p, exact = softmax(single), softmax(single.astype(np.float64))
    assert_allclose(p, exact, 1e-6, 1e-30)


# ---------------------------------------------------------------------- edges


@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp])
def test_any_layout_and_type_gives_the_same(function: Callable[..., Any]) -> None:
    for n_classes in (7, 130):
        logits = np.round(make_logits(6, n_classes))
        expected = function(logits)
        strided = np.repeat(np.repeat(logits, 2, axis=0), 3, axis=1)[::2, ::3]
        read_only = logits.copy()
        read_only.flags.writeable = False
        swapped = logits.astype(logits.dtype.newbyteorder())
        reverse = logits[::-1, ::-1].copy()[::-1, ::-1]
        for other in (np.asfortranarray(logits), strided, read_only, swapped, reverse):
            assert_array_equal(function(other), expected)
        for dtype in (np.float16, np.int8, np.int64):
            result = function(logits.astype(dtype))
            assert result.dtype == np.float64
            assert_array_equal(result, expected)
        assert_array_equal(function(logits.tolist()), expected)


def test_out_is_filled_and_returned() -> None:
    for n_classes in (7, 130):
        logits = make_logits(6, n_classes, np.float32)
        expected = softmax(logits)
        for out in (
            np.empty_like(logits),
            np.empty_like(logits, order="F"),
            np.empty((12, n_classes), np.float32)[::2],
        ):
            assert softmax(logits, out=out) is out
            assert_array_equal(out, expected)
        # a temperature that only double precision holds goes through another array
        out = np.empty_like(logits)
        assert softmax(logits, temperature=1e30, out=out) is out
        assert_allclose(out, 1 / n_classes, 1e-6)
        column = np.empty(6, np.float32)
        assert logsumexp(logits, out=column) is column
        assert_array_equal(column, logsumexp(logits))
        in_place = logits.copy()
        assert_array_equal(softmax(in_place, out=in_place), expected)
        both = np.vstack([logits, logits])
        softmax(both[:6], out=both[3:9])
        assert_array_equal(both[3:9], expected)


def test_input_is_left_alone_and_statistics_are_read_only() -> None:
    logits, labels = make_logits(4, 5), make_labels(4, 5)
    before = logits.copy()
    rows = row_statistics(logits, labels)
    softmax(logits)
    assert_array_equal(logits, before)
    assert logits.flags.writeable
    assert labels.flags.writeable
    for name in FIELDS:
        assert not getattr(rows, name).flags.writeable


@pytest.mark.parametrize("n_classes", [1, 4, 200])
def test_no_rows(n_classes: int) -> None:
    nothing = np.empty((0, n_classes), np.float32)
    assert softmax(nothing).shape == (0, n_classes)
    assert log_softmax(nothing).shape == (0, n_classes)
    assert logsumexp(nothing).shape == (0,)
    rows = row_statistics(nothing, [])
    assert rows.n == 0
    assert rows.correct is not None
    assert len(temperature_objective(nothing, [], 1.0).loss) == 0


def test_one_class_is_certain() -> None:
    rows = row_statistics([[-3.0]], [0])
    assert (rows.confidence[0], rows.margin[0], rows.entropy[0]) == (1.0, 1.0, 0.0)
    assert (rows.label_rank[0], rows.label_log_probability[0]) == (0, 0.0)


@pytest.mark.parametrize("n_classes", [2, 130])
def test_equal_logits_take_the_first_class(n_classes: int) -> None:
    for value in (-1e4, 0.0, 1e4):
        rows = row_statistics(np.full((1, n_classes), value, np.float32), [1])
        assert (rows.prediction[0], rows.label_rank[0], rows.margin[0]) == (0, 1, 0.0)
        assert rows.confidence[0] == pytest.approx(1 / n_classes)
        assert not rows.correct[0]


@pytest.mark.parametrize("n_classes", [5, 130])
def test_one_class_left(n_classes: int) -> None:
    logits = np.full((1, n_classes), -np.inf, np.float32)
    logits[0, 3] = -7.0
    rows = row_statistics(logits, [0])
    assert (rows.prediction[0], rows.margin[0], rows.entropy[0]) == (3, 1.0, 0.0)
    # it comes after the one class above it; classes of equal logit go by column
    assert rows.label_rank[0] == 1
    assert rows.label_log_probability[0] == -np.inf
    for algorithm in ALGORITHMS:
        assert softmax(logits, algorithm=algorithm)[0, 3] == 1.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [1, 2, 4, 5, 8, 10, 16, 17, 100, 256])
@pytest.mark.parametrize("n_rows", [1, 7, 33, pytest.param(515, marks=needs_jit)])
def test_a_block_gives_what_its_rows_give(
    n_rows: int, n_classes: int, dtype: Any
) -> None:
    """Also where rows are far apart, beyond what one exponent holds, and in place."""
    rng = np.random.default_rng([n_rows, n_classes])
    even = (rng.normal(size=(n_rows, n_classes)) * 3).astype(dtype)
    ruled_out = even.copy()
    ruled_out[:, 1:][rng.random((n_rows, n_classes - 1)) < 0.3] = -np.inf
    uneven = even + rng.choice([0, 0, 0, 40, -60, 200, 2000], (n_rows, 1)).astype(dtype)
    for logits in (even, ruled_out, uneven):
        # the kernel of single rows, which other tests compare with twins
        single = {"algorithm": "two-pass"} if n_classes > 16 else {}
        for function in (softmax, log_softmax, logsumexp):
            options = {} if function is logsumexp else single
            rows = [function(logits[i : i + 1], **options) for i in range(n_rows)]
            alone = np.concatenate(rows)
            together = function(logits)
            tolerance = 1e-6 if dtype == np.float32 else 1e-13
            assert_allclose(together, alone, tolerance, tolerance)
            if function is not logsumexp:
                given = logits.copy()
                assert_array_equal(function(given, out=given), together)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [5, 6, 7, 10, 15])
@pytest.mark.parametrize("places", [[0], [16], [20, 47], [70], [*range(100)], []])
def test_groups_of_short_rows_with_others_among_them(
    places: list[int], n_classes: int, dtype: Any
) -> None:
    """Several groups are under way at once when one turns out to be out of range."""
    logits = make_logits(100, n_classes, dtype)
    for n, place in enumerate(places):
        highest = [4000.0, 3e9, -4000.0][n % 3]
        logits[place] = np.linspace(highest - 2.0, highest, n_classes)
    exact = exact_softmax(logits)
    result = softmax(logits)
    assert_close_to_exact(result, exact)
    assert_array_equal(softmax(logits, out=logits), result)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    for n_classes in (3, 10, 95, 100):
        logits = make_logits(40, n_classes, np.float32)
        whole, rows = softmax(logits), row_statistics(logits)
        for i in (0, 7, 39):
            assert_array_equal(softmax(logits[i : i + 1])[0], whole[i])
            alone = row_statistics(logits[i : i + 1])
            assert alone.entropy[0] == rows.entropy[i]


# --------------------------------------------------------------------- errors


@pytest.mark.parametrize("n_classes", [4, 130])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_bad_rows_are_named(bad: str, dtype: Any, n_classes: int) -> None:
    logits = make_logits(9, n_classes, dtype)
    for row in (3, 6):  # the first one is named
        logits[row, slice(None) if bad == "-inf" else 2] = float(bad)
    labels = make_labels(9, n_classes)
    calls: list[Callable[[], Any]] = [
        lambda: logsumexp(logits),
        lambda: row_statistics(logits),
        lambda: temperature_objective(logits, labels, 1.0),
    ]
    for name in ALGORITHMS:
        calls.append(lambda name=name: softmax(logits, algorithm=name))
        calls.append(lambda name=name: log_softmax(logits, algorithm=name))
    for call in calls:
        with pytest.raises(DataError, match=r"row 4, class column") as caught:
            call()
        assert caught.value.how_to_fix
    column = 1 if bad == "-inf" else 3
    assert f"column {column}" in caught.value.where


@needs_jit
@pytest.mark.usefixtures("own_pool")
def test_the_first_bad_row_of_all_chunks_is_named() -> None:
    parallel.configure(4)
    logits = np.zeros((40_000, 100), np.float32)
    logits[[12_345, 39_999], 5] = np.nan
    for _ in range(5):
        with pytest.raises(DataError, match="row 12346"):
            softmax(logits)


@pytest.mark.parametrize(
    "logits",
    [[1.0, 2.0], np.zeros((2, 0)), np.zeros((1, 2, 3)), [["a"]], [[1], [2, 3]]],
)
def test_wrong_shapes_are_explained(logits: Any) -> None:
    with pytest.raises(DataError, match="logits"):
        softmax(logits)


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, np.inf, "warm", None])
def test_wrong_temperatures_are_explained(temperature: Any) -> None:
    with pytest.raises(DataError, match="temperature"):
        softmax([[1.0]], temperature=temperature)
    with pytest.raises(DataError, match="temperature"):
        row_statistics([[1.0]], temperature=temperature)


@pytest.mark.parametrize("beta", [-1.0, np.nan, np.inf])
def test_wrong_beta_is_explained(beta: float) -> None:
    with pytest.raises(DataError, match="beta"):
        temperature_objective([[1.0]], [0], beta)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3], "row 3"),
        ([0, -2, 1], "row 2"),
        ([0, 1], "one label per row"),
        ([0.0, 1.0, 2.0], "integers"),
        ([[0], [1], [2]], "one label per row"),
    ],
)
def test_wrong_labels_are_explained(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        row_statistics(np.zeros((3, 3)), labels)


def test_objective_needs_every_label() -> None:
    with pytest.raises(DataError, match="row 2"):
        temperature_objective(np.zeros((2, 2)), [0, -1], 1.0)


@pytest.mark.parametrize(
    "out", [np.empty((2, 3)), np.empty((2, 2), np.float32), [[0.0, 0.0]] * 2]
)
def test_wrong_out_is_explained(out: Any) -> None:
    with pytest.raises(DataError, match="out"):
        softmax(np.zeros((2, 2)), out=out)
    read_only = np.empty((2, 2))
    read_only.flags.writeable = False
    with pytest.raises(DataError, match="out"):
        softmax(np.zeros((2, 2)), out=read_only)


def test_unknown_algorithm_is_explained() -> None:
    with pytest.raises(
        DataError, match="two-pass, three-pass, three-pass-reload, online"
    ):
        softmax([[1.0]], algorithm="one-pass")  # type: ignore[arg-type]


# -------------------------------------------------------------- RowStatistics


def test_take_selects_rows() -> None:
    rows = row_statistics(make_logits(5, 4), [0, 1, -1, 2, 3])
    some_rows = rows.take([3, 0, 0])
    assert some_rows.n == len(some_rows) == 3
    for name in FIELDS:
        assert_array_equal(getattr(some_rows, name), getattr(rows, name)[[3, 0, 0]])
        assert not getattr(some_rows, name).flags.writeable
    assert rows.take(np.array([True, False, True, False, False])).n == 2
    assert rows.take([]).n == 0


def test_only_confidence_is_required() -> None:
    rows = RowStatistics(
        confidence=np.array([0.5, 0.9]), correct=np.array([True, False])
    )
    assert rows.prediction is None
    assert rows.take([1]).confidence.tolist() == [0.9]
    assert rows.take([1]).entropy is None
    with pytest.raises(DataError, match="margin"):
        RowStatistics(confidence=np.zeros(2), margin=np.zeros(3))


# ------------------------------------------------------- threads and compiling


def everything(logits: NDArray[Any], labels: NDArray[Any]) -> list[NDArray[Any]]:
    rows = row_statistics(logits, labels, temperature=1.3)
    grid = temperature_grid(logits, labels, low=0.5, high=2.0, n_runs=1)
    return [
        softmax(logits),
        log_softmax(logits, temperature=0.7),
        logsumexp(logits),
        *(getattr(rows, name) for name in FIELDS),
        *temperature_objective(logits, labels, 0.8),
        grid.nll,
        grid.brier,
        np.nan_to_num(grid.accuracy),
    ]


@needs_jit
@pytest.mark.usefixtures("own_pool")
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    for shape in ((60_000, 10), (3_000, 333)):
        logits, labels = make_logits(*shape, np.float32), make_labels(*shape)
        results = []
        for n_threads in (1, 2, 5):
            parallel.configure(n_threads)
            results.append(everything(logits, labels))
        for result in results[1:]:
            for value, expected in zip(result, results[0], strict=True):
                assert_array_equal(value, expected)


@needs_jit
@pytest.mark.usefixtures("own_pool")
def test_eight_threads_at_once() -> None:
    work = []
    for shape in ((30_000, 10), (1_000, 300), (20, 20)):
        for dtype in DTYPES:
            logits, labels = make_logits(*shape, dtype), make_labels(*shape)
            parallel.configure(1)
            work.append((logits, labels, everything(logits, labels)))
    parallel.configure(4)
    failures: list[BaseException] = []
    # `make stress` asks for more
    end = time.monotonic() + float(os.environ.get("PLUMBLINE_STRESS_SECONDS", "2"))

    def call(offset: int) -> None:
        try:
            turn = offset
            while time.monotonic() < end:
                logits, labels, expected = work[turn % len(work)]
                for value, twin in zip(
                    everything(logits, labels), expected, strict=True
                ):
                    assert_array_equal(value, twin)
                turn += 1
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


@needs_jit
def test_one_specialisation_per_precision() -> None:
    kernels = (
        core.kernels.blocks._block_kernel,
        core.kernels.softmax._softmax_kernel,
        core.kernels.rows._statistics_kernel,
        core.kernels.rows._statistics_block_kernel,
        core.kernels.objective._objective_kernel,
        core.kernels.objective._objective_block_kernel,
    )
    warm_up()
    before = [len(kernel.signatures) for kernel in kernels]
    for dtype in DTYPES:
        logits, labels = make_logits(3, 4, dtype), make_labels(3, 4)
        read_only = logits.copy()
        read_only.flags.writeable = False
        for array in (logits, read_only, np.asfortranarray(logits), logits[:, ::2]):
            everything(array, np.zeros_like(labels))
            row_statistics(array)
            softmax(array, algorithm="online", temperature=1e-30)
    assert (
        before == [len(kernel.signatures) for kernel in kernels] == [2] * len(kernels)
    )


def test_the_families_carry_the_stamp_of_what_they_share() -> None:
    # Numba's cache would keep kernels built with an older exp.py: after a change of
    # that file, write its new checksum into the families.
    stamp = source_stamp()
    assert stamp == core.kernels.softmax.EXP_STAMP
    assert stamp == core.kernels.blocks.EXP_STAMP
    assert stamp == core.kernels.rows.EXP_STAMP
    assert stamp == core.kernels.objective.EXP_STAMP
    assert stamp == core.kernels.matrix.EXP_STAMP
    assert stamp == core.kernels.vector.EXP_STAMP
    assert stamp == core.kernels.grid.EXP_STAMP
    assert stamp == core.kernels.logistic.EXP_STAMP
    assert stamp == core.kernels.row_temperature.EXP_STAMP
