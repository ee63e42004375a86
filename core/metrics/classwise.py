"""Calibration of every class: classwise ECE and its debiased square, closed forms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special

from core.binning import bin_edges
from core.kernels.classwise import _class_cells_kernel
from core.metrics.base import METRICS, RowScores
from core.metrics.calibration_error import N_BINS, STRATEGY, score_interval
from core.metrics.design import Design
from core.metrics.distances import point_of
from core.metrics.pearson import Pearson
from core.parallel import map_rows
from core.uncertainty import Estimate

__all__ = [
    "ClassBins",
    "class_bins",
    "classwise_calibration_error",
    "classwise_squared_error",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]
Entries = tuple[IndexArray, IndexArray, IndexArray, FloatArray]

_CHUNKS = 8
_CELLS = 1 << 18  # probabilities made at once by each thread: they stay in its cache
_SHARED = 0.01  # probability below which a class shares no noise with the others
_THIRD_CUMULANT = float(np.sqrt(2 / np.pi) * (4 / np.pi - 1))  # of |N(0, 1)|


@dataclass(frozen=True, slots=True, eq=False)
class ClassBins:
    """Bins of the probability of each class: k classes with `n_bins` cells each.

    Parameters
    ----------
    mass : ndarray of shape (k, n_bins)
        Share of the total weight; each class sums to 1.
    residual : ndarray of shape (k, n_bins)
        Sum of share times (probability minus outcome).
    null_variance : ndarray of shape (k, n_bins)
        Variance of `residual` if the probabilities are right.
    variance : ndarray of shape (k, n_bins)
        Variance of `residual` from the rows, or groups, that were seen.
    typical : ndarray of shape (k, n_bins)
        Mean size of `residual` in standard deviations, under the null.
    entries : tuple of ndarray of shape (m,)
        Row, class, bin and probability of all that share noise with other cells.
    """

    mass: FloatArray
    residual: FloatArray
    null_variance: FloatArray
    variance: FloatArray
    typical: FloatArray
    entries: Entries

    @property
    def errors(self) -> FloatArray:
        """ECE of each class, shape (k,)."""
        return np.asarray(np.abs(self.residual).sum(axis=1))

    @property
    def gaps(self) -> FloatArray:
        """Mean probability minus frequency of each class, shape (k,)."""
        return np.asarray(self.residual.sum(axis=1))

    @property
    def scale(self) -> FloatArray:
        """Factors that turn squared residuals of cells into the mean squared gap."""
        mass = self.mass.ravel()
        inverse = np.divide(1.0, mass, out=np.zeros_like(mass), where=mass > 0)
        return np.asarray(inverse / self.mass.shape[0])


def class_bins(scores: RowScores, design: Design) -> ClassBins:
    """Sort the rows into bins of the probability of each class.

    Parameters
    ----------
    scores : RowScores
        With `probabilities` and `labels`.
    design : Design
    """
    assert scores.probabilities is not None  # noqa: S101 - the registry asks for them
    assert scores.labels is not None  # noqa: S101
    if design.groups is not None or design.strategy != "uniform":
        # Both go through the classes one by one.
        scores = replace(scores, probabilities=np.asarray(scores.probabilities))
    inner = _inner_edges(scores, design)
    entries, sums = _sums(scores, design, inner)
    mass, weighted, squares, chance, total, drift, spread, count = sums
    safe = np.where(mass > 0, mass, 1.0)
    null_variance = np.maximum(chance, 0.0)
    mean = total / safe
    spread = np.maximum(spread - 2.0 * mean * drift + mean**2 * squares, 0.0)
    independent = mass**2 / np.where(squares > 0, squares, 1.0)
    chance = weighted / safe
    if design.groups is not None:
        parts = [_grouped(scores, design, inner, mean, k) for k in range(len(mass))]
        null_variance, spread, independent, count = np.stack(parts, axis=1)
        chance = np.full_like(mass, 0.5)
    variance = spread * count / np.maximum(count - 1, 1)
    return ClassBins(
        mass=mass,
        residual=total,
        null_variance=null_variance,
        variance=np.where(count == 1, null_variance, variance),
        typical=_mean_deviation(np.maximum(np.round(independent), 1.0), chance),
        entries=entries,
    )


def _inner_edges(scores: RowScores, design: Design) -> FloatArray:
    """Return the edges between the bins of every class, (k, n_bins - 1)."""
    assert scores.probabilities is not None  # noqa: S101 - class_bins has looked
    n, k = scores.probabilities.shape
    size, share = design.n_bins, design.shares(n)
    inner = np.full((k, size - 1), np.inf)
    if design.strategy == "uniform":
        inner[:] = bin_edges(share, size, "uniform")[1:-1]
        return inner
    for column in range(k):
        edges = bin_edges(scores.probabilities[:, column], size, design.strategy)
        inner[column, : edges.size - 2] = edges[1:-1]
    return inner


def _sums(
    scores: RowScores, design: Design, inner: FloatArray
) -> tuple[Entries, FloatArray]:
    """Return the entries of `ClassBins`, and sums of cells, (8, k, n_bins)."""
    assert scores.probabilities is not None  # noqa: S101 - class_bins has looked
    assert scores.labels is not None  # noqa: S101
    rows, labels = scores.probabilities, scores.labels
    n, k = rows.shape
    share = design.shares(n)
    step = max(1, _CELLS // max(1, k))

    def add(start: int, stop: int) -> tuple[FloatArray, list[Any]]:
        sums = np.zeros((k, design.n_bins, 8))
        entries = []
        for first in range(start, stop, step):
            last = min(first + step, stop)
            p, y = np.ascontiguousarray(rows[first:last]), labels[first:last]
            index = np.empty(p.shape, dtype=np.int16)
            given = (p, y, share[first:last], inner, 0, last - first)
            _class_cells_kernel(*given, index, sums)
            is_shared = p >= _SHARED
            is_shared[np.arange(last - first), y] = True
            row, column = np.nonzero(is_shared)
            found = (row + first, column, index[row, column].astype(np.int64))
            entries.append((*found, p[row, column].astype(np.float64)))
        return sums, entries

    # Few chunks, whatever the number of threads: each has sums of its own.
    parts = map_rows(add, n, 1, chunk_bytes=max(1, -(-n // _CHUNKS)))
    every = [item for _, entries in parts for item in entries]
    row, column, place, p = (np.concatenate(item) for item in zip(*every, strict=True))
    total = np.sum([sums for sums, _ in parts], axis=0)
    return (row, column, place, p), np.moveaxis(total, -1, 0)


def _grouped(
    scores: RowScores,
    design: Design,
    inner: FloatArray,
    mean: FloatArray,
    k: int,
) -> FloatArray:
    """Return both spreads, effective and plain numbers of groups, shape (4, n_bins)."""
    assert scores.probabilities is not None  # noqa: S101 - class_bins has looked
    n, size = len(scores), mean.shape[1]
    share, unit = design.shares(n), design.unit(n)
    p = np.asarray(scores.probabilities[:, k])
    residual = p - np.asarray(scores.labels == k, np.float64)
    place = np.searchsorted(inner[k], p)
    cell, length = unit * size + place, (int(unit.max(initial=0)) + 1) * size

    def by_group(values: FloatArray) -> FloatArray:
        sums = np.bincount(cell, share * values, minlength=length)
        return np.asarray(sums.reshape(-1, size))

    plain, centred = by_group(residual), by_group(residual - mean[k][place])
    square, fourth = (plain**2).sum(axis=0), (plain**4).sum(axis=0)
    independent = square**2 / np.where(fourth > 0, fourth, 1.0)
    count = (plain != 0).sum(axis=0)
    return np.stack([square, (centred**2).sum(axis=0), independent, count])


def _mean_deviation(n: FloatArray, p: FloatArray) -> FloatArray:
    """Return the mean deviation of a binomial variable in standard deviations.

    De Moivre's form; 0.798 for many draws, as for a normal variable, and far from it
    in cells that expect less than a handful of outcomes.
    """
    p = np.clip(p, 1e-12, 1 - 1e-12)
    m = np.minimum(np.floor(n * p) + 1, n)
    log_choose = (
        special.gammaln(n + 1) - special.gammaln(m + 1) - special.gammaln(n - m + 1)
    )
    log_mean = np.log(2 * m) + log_choose + m * np.log(p) + (n - m + 1) * np.log1p(-p)
    return np.asarray(np.exp(log_mean - 0.5 * np.log(n * p * (1 - p))))


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """The cells that share noise because they share rows.

    Rows, or groups, are independent; cells share noise where they share rows, in
    proportion to the product of two probabilities, so that small ones are left out.
    """

    unit: NDArray[np.int64]
    cell: NDArray[np.int64]
    share: FloatArray
    p: FloatArray
    residual: FloatArray
    shape: tuple[int, int]

    @classmethod
    def of(cls, scores: RowScores, design: Design, cells: ClassBins) -> _Shared:
        """Return the entries of every row that count."""
        assert scores.labels is not None  # noqa: S101 - class_bins has looked
        n = len(scores)
        share, unit = design.shares(n), design.unit(n)
        row, column, place, p = cells.entries
        return cls(
            unit=unit[row],
            cell=column * cells.mass.shape[1] + place,
            share=share[row],
            p=p,
            residual=p - (scores.labels[row] == column),
            shape=(int(unit.max(initial=0)) + 1, cells.mass.size),
        )

    def products(self, values: FloatArray) -> tuple[Any, Any, FloatArray]:
        """Return the sums over units of products of two cells: first, second, sum."""
        entries = (self.share * values, (self.unit, self.cell))
        parts = sparse.csc_array(entries, shape=self.shape)
        n_cells = self.shape[1]

        def pairs(start: int, stop: int) -> tuple[Any, Any, FloatArray]:
            later = parts[:, start:].tocsr()  # of each pair, one half is enough
            found = (parts[:, start:stop].T @ later).tocoo()
            is_once = found.row < found.col
            places = found.row[is_once], found.col[is_once]
            return places[0] + start, places[1] + start, found.data[is_once]

        every = map_rows(pairs, n_cells, 1, chunk_bytes=max(1, -(-n_cells // _CHUNKS)))
        first, second, sums = (
            np.concatenate(item) for item in zip(*every, strict=True)
        )
        return first, second, sums


def _shared(scores: RowScores, design: Design) -> _Shared:
    cells = _kept(scores, design)
    found: _Shared = design.kept(
        "classwise shared", lambda: _Shared.of(scores, design, cells)
    )
    return found


def _null_covariance(scores: RowScores, design: Design) -> tuple[Any, Any, FloatArray]:
    """Return the covariances of two cells, once, if the probabilities are right."""

    def make() -> tuple[Any, Any, FloatArray]:
        shared = _shared(scores, design)
        if design.groups is not None:
            return shared.products(shared.residual)
        first, second, found = shared.products(shared.p)
        return first, second, -found

    pairs: tuple[Any, Any, FloatArray] = design.kept("classwise null", make)
    return pairs


def _covariance(scores: RowScores, design: Design) -> tuple[Any, Any, FloatArray]:
    """Return the covariances of two cells, once, as they were seen."""
    cells, shared = _kept(scores, design), _shared(scores, design)
    mass = cells.mass.ravel()
    mean = cells.residual.ravel() / np.where(mass > 0, mass, 1.0)
    return shared.products(shared.residual - mean[shared.cell])


def _point(scores: RowScores, design: Design) -> float:
    return float(class_bins(scores, design).errors.mean())


def _kept(scores: RowScores, design: Design) -> ClassBins:
    found: ClassBins = design.kept("classwise", lambda: class_bins(scores, design))
    return found


def _words(scores: RowScores, design: Design) -> str:
    assert scores.probabilities is not None  # noqa: S101 - the registry asks for them
    return f"{scores.probabilities.shape[1]} classes x {design.n_bins} bins"


def ece_estimate(scores: RowScores, design: Design) -> Estimate:
    """Return the classwise ECE with its null range and p-value in closed form.

    Under the null the residual of a cell is a sum of independent terms; the sizes of
    these sums have known mean and variance, and so has their mean over classes. Its
    distribution is taken as Pearson's type III with the same skewness.
    """
    cells = _kept(scores, design)
    k = cells.mass.shape[0]
    error = np.sqrt(cells.null_variance.ravel())
    expected = cells.typical.ravel() * error
    alone = float((error**2 - expected**2).sum())
    i, j, c = _null_covariance(scores, design)
    sizes = error[i] * error[j]
    rho = np.clip(c / np.where(sizes > 0, sizes, np.inf), -1.0, 1.0)
    joint = rho * np.arcsin(rho) + np.sqrt(1.0 - rho**2) - 1.0
    variance = alone + 4.0 / np.pi * float(sizes @ joint)
    third = (
        _THIRD_CUMULANT * float((error**3).sum()) * (variance / max(alone, 1e-300)) ** 2
    )
    null = Pearson(float(expected.sum()), variance, third, k)
    value = float(cells.errors.mean())
    tail = (1 - design.level) / 2
    return Estimate(
        value=value,
        level=design.level,
        n=len(scores),
        null_low=null.quantile(tail),
        null_high=null.quantile(1 - tail),
        p_value=null.beyond(value),
        method=f"{_words(scores, design)}; null in closed form",
    )


def _square_point(scores: RowScores, design: Design) -> float:
    cells = class_bins(scores, design)
    return float(cells.scale @ (cells.residual**2 - cells.variance).ravel())


def square_estimate(scores: RowScores, design: Design) -> Estimate:
    """Return the debiased square with its closed-form interval and p-value."""
    cells = _kept(scores, design)
    a, s, v = cells.scale, cells.residual.ravel(), cells.variance.ravel()
    value = float(a @ (s**2 - v))
    i, j, c = _covariance(scores, design)
    # As in `_quadratic_form`: no cell's own term below 0.
    linear = float((a**2 * v * np.maximum(s**2 - v, 0.0)).sum())
    linear += 2.0 * float((a[i] * a[j] * c * (s[i] * s[j] - c)).sum())
    noise = 2.0 * float((a**2 * v**2).sum() + 2.0 * (a[i] * a[j] * c**2).sum())
    z = float(special.ndtri(0.5 + design.level / 2))
    half = z * float(np.sqrt(4.0 * max(linear, 0.0) + noise))
    low, high = value - half, value + half
    if design.groups is not None:
        plain = float(a @ s**2)
        leaning = float((a**2 * v * s**2).sum())
        leaning += 2.0 * float((a[i] * a[j] * s[i] * s[j] * c).sum())
        slope = leaning / plain if plain > 0 else 0.0
        low, high = score_interval(value, slope, noise, z)
    return Estimate(
        value=value,
        low=low,
        high=high,
        level=design.level,
        n=len(scores),
        p_value=_square_p_value(cells, _null_covariance(scores, design)),
        method=f"{_words(scores, design)}; closed-form interval; null in closed form",
    )


def _square_p_value(cells: ClassBins, pairs: tuple[Any, Any, FloatArray]) -> float:
    i, j, c = pairs
    a, v = cells.scale, cells.null_variance.ravel()
    alone = 2.0 * float((a**2 * v**2).sum())
    shared = 4.0 * float((a[i] * a[j] * c**2).sum())
    variance = alone + shared
    third = 8.0 * float((a**3 * v**3).sum()) * (variance / max(alone, 1e-300)) ** 2
    observed = float(a @ (cells.residual.ravel() ** 2 - v))
    return Pearson(0.0, variance, third, 1).beyond(observed)


@METRICS.register(
    "classwise-ece",
    label="Classwise ECE",
    reference="Kull et al. 2019, arXiv:1910.12656; Nixon et al. 2019, arXiv:1904.01685",
    formula=r"\frac1K\sum_k \sum_b \frac{n_{kb}}{n}\,"
    r"\bigl|\bar p_{kb} - \mathrm{freq}_{kb}\bigr|",
    params=(N_BINS, STRATEGY),
    tier="more",
    aliases=("static-calibration-error", "sce", "cece"),
    needs="design",
    direction="lower",
    unit="share",
    views=("top-label",),
    field="probabilities",
    statistic=ece_estimate,
    point=_point,
)
def classwise_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Mean over classes of the ECE of each class's probability.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities.
    n_bins : int, default=15
    strategy : {"uniform", "quantile"}, default="uniform"
    sample_weight : array-like of shape (n,), optional
    labels : array-like of shape (k,), optional
        Class names in column order.

    Returns
    -------
    float
        In [0, 2 / k]: with many classes it is small whatever the model, since most
        probabilities are near 0. Read it beside its null range.
    """
    return point_of(
        _point,
        y_true,
        y_prob,
        sample_weight=sample_weight,
        labels=labels,
        n_bins=n_bins,
        strategy=strategy,
    )


@METRICS.register(
    "classwise-l2",
    label="Classwise error, debiased",
    reference="Kumar, Liang and Ma 2019, arXiv:1909.10155; Sun et al. 2024, "
    "arXiv:2408.08998",
    formula=r"\frac1K\sum_k \sum_b \frac{n_{kb}}{n}"
    r"\Bigl[g_{kb}^2 - \frac{v_{kb}}{n_{kb}}\Bigr]",
    params=(N_BINS, STRATEGY),
    tier="more",
    needs="design",
    direction="lower",
    unit="",
    views=("top-label",),
    field="probabilities",
    statistic=square_estimate,
    point=_square_point,
)
def classwise_squared_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Mean over classes of the squared gaps, less what chance alone adds.

    Parameters
    ----------
    y_true, y_prob, n_bins, strategy, sample_weight, labels
        As in `classwise_calibration_error`.

    Returns
    -------
    float
        About 0 for a calibrated model, on either side of it; this is the form of the
        classwise error that has a valid interval.
    """
    return point_of(
        _square_point,
        y_true,
        y_prob,
        sample_weight=sample_weight,
        labels=labels,
        n_bins=n_bins,
        strategy=strategy,
    )
