"""Step curves beyond the histogram: averaged binnings, binned scaling, I-Max bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.binning import assign_bins, bin_edges
from core.calibrators.base import CALIBRATORS
from core.calibrators.histogram import HistogramBinning, Steps
from core.calibrators.logistic_fit import counted, fit_logistic, smoothed
from core.calibrators.one_vs_rest import LOWEST_LOG, Chances, OneVsRest, curve_columns
from core.calibrators.venn_abers import distinct
from core.messages import Note
from core.registry import Param

__all__ = ["AveragedBinnings", "ScalingBinning", "StepCurves"]

FloatArray = NDArray[np.floating[Any]]

N_BINS = 15
LOWEST = float(np.exp(LOWEST_LOG))
"""No value of a bin is below it, or so near to 1 that it would round to 1."""

_PARTS = 3
_PRIOR = 2.0  # rows that the prior of a binning is worth
_RANGE = 10.0  # numbers of bins from n^(1/3) / 10 to 10 n^(1/3)
_NEGLIGIBLE = 1e-3  # of the weight of the best binning
_LOWEST_CENTRE = 1e-9  # no prior rules an outcome out
_UP_TO_ROUNDING = 1.0 - 1e-12


class StepCurves(HistogramBinning):
    """Base: bins and values of each class's probability, as `HistogramBinning` has."""

    def __init__(self, *, input: str = "logits") -> None:
        OneVsRest.__init__(self, input=input)

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return the values of all bins, at the default number of bins."""
        return N_BINS * len(curve_columns(k))

    @property
    def n_fitted_(self) -> int:
        """Number of values of all maps."""
        return sum(values.size for _, values in self.maps_)

    def _keep(
        self,
        curves: list[Any],
        weight: FloatArray,  # noqa: ARG002 - curves of others are mixed by it
    ) -> None:
        self.maps_ = [(edges, values) for edges, values, *_ in curves]
        if all(is_flat for *_, is_flat in curves):
            text = "Every class has one value: the fit rows show no relation to fit."
            self.notes_.append(Note("flat-curves", "warning", text))


def steps_of(edges: FloatArray, values: FloatArray, n_rows: int) -> Steps:
    """Return bins whose values leave no class without a logarithm."""
    kept = np.clip(values, LOWEST, np.nextafter(1.0, 0.0))
    return edges, kept, n_rows, bool(np.ptp(kept) == 0)


@CALIBRATORS.register(
    "bbq",
    label="BBQ, averaged bins, one-vs-rest",
    reference="Naeini, Cooper and Hauskrecht 2015",
    formula=(
        r"q_k \propto \sum_B w_B v_{B,b(p_k)},\quad v_{B,b} = "
        r"\frac{m_b + \frac{2}{B} c_b}{n_b + \frac{2}{B}},\quad w_B \propto "
        r"\text{marginal likelihood of } B \text{ bins}"
    ),
    tier="more",
    aliases=("bayesian-binning",),
    when="Thousands of rows, and values that are few and easy to check.",
    not_when="The order of rows or the log loss counts.",
    cost="A second for 5,000 rows of 100 classes.",
)
class AveragedBinnings(StepCurves):
    """Average histogram binnings of many sizes by how well each explains the rows.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    maps_ : list of (edges, values)
        The average of each class, as bins of its own: every edge of a binning that
        counts.

    Notes
    -----
    Bayesian binning into quantiles [1]_: every number B of bins of equal counts from
    n^(1/3) / 10 to 10 n^(1/3), weighted by its BDeu score, in which each bin starts
    with 2 / B rows that agree with its centre c. Binnings with less than a thousandth
    of the best one's weight are left out, equal probabilities stay together, and
    weights count by their effective number of rows.

    References
    ----------
    .. [1] M. P. Naeini, G. F. Cooper and M. Hauskrecht, "Obtaining well calibrated
       probabilities using Bayesian binning", AAAI 2015.
    """

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return the number of maps; each has as many values as the rows ask for."""
        return len(curve_columns(k))

    def _fit_curve(
        self, found: Chances, target: FloatArray, weight: FloatArray
    ) -> Steps:
        x, mass, hits = distinct(np.exp(found.log_p), target, counted(weight))
        rank = np.append(0.0, np.cumsum(mass))
        sums = np.append(0.0, np.cumsum(hits))
        edge = np.concatenate([[0.0], _halfway(x), [1.0]])
        # The bins of all binnings, one after another: bin i holds x[low[i]:high[i]].
        sizes = numbers_of_bins(rank[-1])
        first = np.append(0, np.cumsum(sizes)[:-1])
        size = np.repeat(sizes, sizes)
        number = np.arange(size.size) - np.repeat(first, sizes)
        whole = rank[-1] * _UP_TO_ROUNDING
        low = np.searchsorted(rank, number / size * whole)
        high = np.searchsorted(rank, (number + 1) / size * whole)
        n, m = rank[high] - rank[low], sums[high] - sums[low]
        centre = np.clip(
            (edge[low] + edge[high]) / 2, _LOWEST_CENTRE, 1.0 - _LOWEST_CENTRE
        )
        own = _PRIOR / size
        score = np.add.reduceat(_log_evidence(n, m, own, centre), first)
        share = np.exp(score - score.max())
        kept = np.flatnonzero(share >= _NEGLIGIBLE)
        share = share[kept] / share[kept].sum()
        value = (m + own * centre) / (n + own)
        parts = [slice(first[i], first[i] + sizes[i]) for i in kept]
        upper = np.unique(np.concatenate([edge[high[part]] for part in parts]))
        averaged = np.zeros(upper.size)
        for part, part_share in zip(parts, share, strict=True):
            # Of bins that end together only the first one holds anything.
            place = np.searchsorted(edge[high[part]], upper)
            averaged += part_share * value[part][place]
        return steps_of(np.append(0.0, upper), averaged, x.size)


def numbers_of_bins(n_rows: float) -> NDArray[np.int64]:
    """Return the numbers of bins that are averaged, for so many rows."""
    root = max(1.0, n_rows) ** (1 / 3)
    return np.arange(
        max(1, int(np.ceil(root / _RANGE))), max(1, int(_RANGE * root)) + 1
    )


def _halfway(x: FloatArray) -> FloatArray:
    """Return the edges between neighbours; none is its upper neighbour."""
    return np.minimum((x[:-1] + x[1:]) / 2, np.nextafter(x[1:], x[:-1]))


def _log_evidence(
    n: FloatArray, m: FloatArray, prior: FloatArray, centre: FloatArray
) -> FloatArray:
    """Return the log of the chance of m hits in n rows of each bin, in their order."""
    a, b = prior * centre, prior * (1.0 - centre)
    return np.asarray(special.betaln(m + a, n - m + b) - special.betaln(a, b))


@CALIBRATORS.register(
    "scaling-binning",
    label="Scaling-binning, one-vs-rest",
    reference="Kumar, Liang and Ma 2019, arXiv:1909.10155",
    formula=(
        r"q_k \propto \overline{g_k}(b(p_k)),\quad g_k = \sigma(A_k "
        r"\mathrm{logit}(p_k) + B_k),\quad \overline{g_k}(b) = \text{mean of } g_k "
        r"\text{ in bin } b"
    ),
    params=(
        Param(
            "n_bins",
            "Bins",
            "int",
            N_BINS,
            minimum=1,
            maximum=1000,
            help="Bins of equal counts of each class's probability.",
        ),
    ),
    tier="more",
    aliases=("platt-binner",),
    when="The calibration error itself must be measurable.",
    not_when="Few rows, or the order of rows counts.",
    cost="Milliseconds; one value per bin and class.",
)
class ScalingBinning(StepCurves):
    """Fit Platt scaling on one third, bins on the next, their mean values on the last.

    Parameters
    ----------
    n_bins : int, default=15
        Bins of equal counts of each class's probability, 1 or more.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    maps_ : list of (edges, values)
        Bins of each class; one map for two classes (of the second class).

    Notes
    -----
    The value of a bin is the mean of the fitted curve g, not of the labels: it varies
    less than a histogram's, and a calibration error measured on it is not an
    underestimate [1]_. The thirds are every third row of the hits and of the misses, in
    the order of the file, so that no row has two of the three roles (the authors'
    released class gives every row all three). A bin without rows of the last third
    takes the mean over the others; one without any, between ties, g at its middle.
    Steps lose the order of rows within bins.

    References
    ----------
    .. [1] A. Kumar, P. Liang and T. Ma, "Verified uncertainty calibration", NeurIPS
       2019, arXiv:1909.10155.
    """

    def __init__(self, *, n_bins: int = N_BINS, input: str = "logits") -> None:
        self.n_bins = n_bins
        super().__init__(input=input)

    def _fit_curve(
        self, found: Chances, target: FloatArray, weight: FloatArray
    ) -> Steps:
        part = np.empty(target.size, np.int64)
        for outcome in (0.0, 1.0):
            rows = np.flatnonzero(target == outcome)
            part[rows] = np.arange(rows.size) % _PARTS
        score = found.log_p - found.log_rest
        own = part == 0
        mass = counted(weight[own])
        fit = fit_logistic(score[None, own], smoothed(target[own], mass), mass)
        scaled = special.expit(fit.slope[0] * score + fit.intercept)
        p = np.exp(found.log_p)
        edges = bin_edges(p[part == 1], self.n_bins, "quantile")
        place = assign_bins(p, edges)

        def means(rows: NDArray[np.bool_]) -> FloatArray:
            sums = np.bincount(
                place[rows], (weight * scaled)[rows], minlength=edges.size - 1
            )
            with np.errstate(invalid="ignore"):
                return np.asarray(
                    sums / np.bincount(place[rows], weight[rows], edges.size - 1)
                )

        middle = special.logit((edges[:-1] + edges[1:]) / 2)
        values = special.expit(fit.slope[0] * middle + fit.intercept)
        for found_means in (means(part >= 0), means(part == _PARTS - 1)):
            values = np.where(np.isnan(found_means), values, found_means)
        return steps_of(edges, values, p.size)
