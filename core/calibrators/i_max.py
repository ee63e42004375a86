"""I-Max: bins that keep as much information on the label as so many bins can."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.calibrators.base import CALIBRATORS
from core.calibrators.binned import N_BINS, StepCurves, steps_of
from core.calibrators.histogram import Steps
from core.calibrators.logistic_fit import counted
from core.calibrators.one_vs_rest import Chances
from core.registry import Param

__all__ = ["IMaxBinning"]

FloatArray = NDArray[np.floating[Any]]

_MAX_STEPS = 200
_NO_BETTER = 1e-12  # nats
VALUES = ("labels", "scores")


@CALIBRATORS.register(
    "i-max",
    label="I-Max binning",
    reference="Patel et al. 2021, arXiv:2006.13092",
    formula=(
        r"q_k \propto v_{b(\lambda_k)},\quad \lambda = \ln \tfrac{p}{1 - p},\quad "
        r"\text{edges} = \arg\max\, I(b(\lambda); y)"
    ),
    params=(
        Param(
            "n_bins",
            "Bins",
            "int",
            N_BINS,
            minimum=1,
            maximum=1000,
            help="Bins of the log-odds.",
        ),
        Param(
            "shared",
            "One curve",
            "bool",
            default=True,
            help="One set of bins for all classes, fitted on all pairs, or one each.",
        ),
        Param(
            "values",
            "Values",
            "choice",
            "labels",
            choices=VALUES,
            help="A bin's value: its share of hits, or the mean of its scores.",
        ),
    ),
    tier="more",
    aliases=("imax",),
    when="Many classes, and values that are few.",
    not_when="The order of rows counts.",
    cost="A second for 5,000 rows of 100 classes; one value per bin.",
)
class IMaxBinning(StepCurves):
    """Cut the log-odds where least information on the label is lost, then bin.

    Parameters
    ----------
    n_bins : int, default=15
    shared : bool, default=True
        Whether one curve, fitted on the (probability, outcome) pairs of all classes,
        serves every class; else each class has its own. Two classes have one anyway.
    values : {"labels", "scores"}, default="labels"
        The value of a bin: (hits + 1) / (rows + 2), or the mean probability of its
        rows, which keeps the scores' own calibration.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    maps_ : list of (edges, values)
        Bins of the probability; all alike where they are shared.

    Notes
    -----
    Edges and the mean probabilities of bins are improved in turn, as in [1]_, where
    the probabilities stand for the labels: the edge between two bins is where a row
    costs the same in either. The best of three starts (equal counts, equal widths in
    log-odds and in probability) is kept, so that no random numbers are drawn. Weights
    count by their effective number of rows.

    References
    ----------
    .. [1] K. Patel et al., "Multi-class uncertainty calibration via mutual information
       maximization-based binning", ICLR 2021, arXiv:2006.13092.
    """

    def __init__(
        self,
        *,
        n_bins: int = N_BINS,
        shared: bool = True,
        values: str = "labels",
        input: str = "logits",
    ) -> None:
        self.n_bins = n_bins
        self.shared = shared
        self.values = values
        super().__init__(input=input)

    def _fit_column(
        self,
        found: Chances,
        is_open: NDArray[np.bool_],
        is_class: NDArray[np.bool_],
        weight: FloatArray,
        is_binary: bool,  # noqa: FBT001 - called in one place
    ) -> Any:
        if self.shared and not is_binary:
            return None  # the curve of the pooled pairs is every class's
        return super()._fit_column(found, is_open, is_class, weight, is_binary)

    def _fit_curve(
        self, found: Chances, target: FloatArray, weight: FloatArray
    ) -> Steps:
        if self.values not in VALUES:
            msg = f"values must be one of {VALUES}, got {self.values!r}"
            raise ValueError(msg)
        if self.n_bins < 1:
            msg = f"n_bins must be at least 1, got {self.n_bins!r}"
            raise ValueError(msg)
        odds = found.log_p - found.log_rest
        order = np.argsort(odds, kind="stable")
        odds, mass = odds[order], counted(weight)[order]
        # A sum of small numbers by itself is exact where a difference is not.
        sums = mass * special.expit(odds), mass * special.expit(-odds)
        tried = [_improved(odds, *sums, at) for at in _starts(odds, self.n_bins)]
        best = min(tried, key=lambda pair: pair[1])[0]
        # Bins are told apart by probabilities: edges that round to one are one.
        inner = np.unique(special.expit(best))
        inner = inner[(inner > 0) & (inner < 1)]
        edges = np.concatenate([[0.0], inner, [1.0]])
        place = np.searchsorted(inner, np.exp(found.log_p), side="left")
        mass = counted(weight)
        rows = np.bincount(place, mass, edges.size - 1)
        middle = (edges[:-1] + edges[1:]) / 2
        is_hit = np.exp(found.log_p) if self.values == "scores" else target
        extra = 0.0 if self.values == "scores" else 1.0
        with np.errstate(invalid="ignore"):
            value = np.bincount(place, mass * is_hit, edges.size - 1) + extra
            value /= rows + 2.0 * extra
        return steps_of(edges, np.where(rows > 0, value, middle), target.size)


def _starts(odds: FloatArray, n_bins: int) -> list[FloatArray]:
    """Return the first edges: equal counts, and equal widths of both scales."""
    share = np.arange(1, n_bins) / n_bins
    low, high = odds[0], odds[-1]
    p_low, p_high = special.expit(low), special.expit(high)
    widths = special.logit(p_low + share * (p_high - p_low))
    equal = np.quantile(odds, share, method="lower")
    return [equal, low + share * (high - low), widths]


def _improved(
    odds: FloatArray, hits: FloatArray, misses: FloatArray, edges: FloatArray
) -> tuple[FloatArray, float]:
    """Return edges after steps that lose ever less information, and the loss.

    Parameters
    ----------
    odds : ndarray of shape (n,)
        Ascending.
    hits, misses : ndarray of shape (n,)
        Mass of each row times its probability, and times the rest.
    edges : ndarray of shape (m,)
    """
    best, least = edges, np.inf
    for _ in range(_MAX_STEPS):
        cuts = np.unique(np.searchsorted(odds, edges, side="right"))
        cuts = cuts[(cuts > 0) & (cuts < odds.size)]
        first = np.append(0, cuts)
        m, rest = np.add.reduceat(hits, first), np.add.reduceat(misses, first)
        n = m + rest
        loss = float(n @ (special.entr(m / n) + special.entr(rest / n)) / n.sum())
        if loss >= least - _NO_BETTER:
            break
        # Halfway between neighbours: where between them does not change the loss.
        best, least = (odds[cuts - 1] + odds[cuts]) / 2, loss
        r = np.log(m) - np.log(rest)
        rise, fall = np.diff(np.logaddexp(0.0, r)), np.diff(np.logaddexp(0.0, -r))
        with np.errstate(divide="ignore", invalid="ignore"):
            edges = np.log(rise) - np.log(-fall)
        edges = edges[np.isfinite(edges)]
    return best, least
