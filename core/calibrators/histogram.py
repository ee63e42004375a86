"""Histogram binning: one number for each bin of a class's probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.binning import assign_bins, bin_edges
from core.calibrators.base import CALIBRATORS
from core.calibrators.one_vs_rest import (
    Chances,
    OneVsRest,
    curve_columns,
    effective_rows,
)
from core.messages import Note
from core.registry import Param

__all__ = ["HistogramBinning"]

FloatArray = NDArray[np.floating[Any]]
# Edges, values, rows of the thinnest bin, whether all bins with rows say the same.
Steps = tuple[FloatArray, FloatArray, int, bool]

_DEFAULT_BINS = 15
_FEW_ROWS = 10
STRATEGIES = ("quantile", "uniform")
SMOOTHINGS = ("laplace", "none")


@CALIBRATORS.register(
    "histogram",
    label="Histogram binning, one-vs-rest",
    reference="Zadrozny and Elkan 2001",
    formula=(
        r"q_k \propto v_{k,b(p_k)},\quad v_{k,b} = "
        r"\frac{\#\{y = k \text{ in bin } b\} + 1}{n_b + 2}"
    ),
    params=(
        Param(
            "n_bins",
            "Bins",
            "int",
            _DEFAULT_BINS,
            minimum=1,
            maximum=1000,
            help="Bins of each class's probability.",
        ),
        Param(
            "strategy",
            "Edges",
            "choice",
            "quantile",
            choices=STRATEGIES,
            help="Bins of equal counts or of equal widths.",
        ),
        Param(
            "smoothing",
            "Smoothing",
            "choice",
            "laplace",
            choices=SMOOTHINGS,
            help=(
                "Laplace adds one hit in two rows to each bin; without it a bin can "
                "say exactly 0, and the log loss can be infinite."
            ),
        ),
    ),
    tier="more",
    aliases=("histogram-binning", "hist", "hb"),
    when="A simple table that can be read and explained.",
    not_when="Rows must stay in order, or losses count: it throws information away.",
    cost="One sort per class.",
)
class HistogramBinning(OneVsRest):
    """Replace each class's probability by the share of hits in its bin.

    Parameters
    ----------
    n_bins : int, default=15
        Bins of each class's probability, 1 or more.
    strategy : {"quantile", "uniform"}, default="quantile"
        Equal counts of fit rows, or equal widths. Bins are ``(lo, hi]`` with 0 in the
        first; equal probabilities stay together, so there may be fewer bins.
    smoothing : {"laplace", "none"}, default="laplace"
        The value of a bin: (hits + 1) / (rows + 2), or the plain share of hits as in
        [1]_, which can be exactly 0 and make the log loss infinite.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    maps_ : list of (edges, values)
        Bins of each class; one map for two classes (of the second class).

    Notes
    -----
    An empty bin keeps the middle of its edges. Weights count by their effective number
    of rows, whatever their scale; edges of equal counts are those of the rows. Many
    probabilities become equal: predictions can change, and the order of rows is lost
    within bins.

    References
    ----------
    .. [1] B. Zadrozny and C. Elkan, "Obtaining calibrated probability estimates from
       decision trees and naive Bayesian classifiers", ICML 2001.
    """

    maps_: list[tuple[FloatArray, FloatArray]]

    def __init__(
        self,
        *,
        n_bins: int = _DEFAULT_BINS,
        strategy: str = "quantile",
        smoothing: str = "laplace",
        input: str = "logits",
    ) -> None:
        self.n_bins = n_bins
        self.strategy = strategy
        self.smoothing = smoothing
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return the values of all bins, at the default number of bins."""
        return _DEFAULT_BINS * len(curve_columns(k))

    def _fit_curve(
        self, found: Chances, target: FloatArray, weight: FloatArray
    ) -> Steps:
        if self.smoothing not in SMOOTHINGS:
            msg = f"smoothing must be one of {SMOOTHINGS}, got {self.smoothing!r}"
            raise ValueError(msg)
        p = np.exp(found.log_p)
        edges = bin_edges(p, self.n_bins, self.strategy)
        place = assign_bins(p, edges)
        n_bins = edges.size - 1
        counts = np.bincount(place, minlength=n_bins)
        mass = weight * (effective_rows(weight) / weight.sum())
        rows = np.bincount(place, mass, minlength=n_bins)
        hits = np.bincount(place, mass * target, minlength=n_bins)
        extra = 0.0 if self.smoothing == "none" else 1.0
        middle = (edges[:-1] + edges[1:]) / 2
        with np.errstate(invalid="ignore"):
            share = (hits + extra) / (rows + 2.0 * extra)
        values = np.where(counts > 0, share, middle)
        is_flat = bool(np.ptp(values[counts > 0]) == 0)
        return edges, np.minimum(values, 1.0), int(counts.min()), is_flat

    def _keep(
        self,
        curves: list[Any],
        weight: FloatArray,  # noqa: ARG002 - curves of others are mixed by it
    ) -> None:
        self.maps_ = [(edges, values) for edges, values, *_ in curves]
        n_thin = sum(thinnest < _FEW_ROWS for *_, thinnest, _ in curves)
        if n_thin:
            text = (
                f"{n_thin:,} of {len(curves):,} classes have bins with fewer than "
                f"{_FEW_ROWS} fit rows; an empty bin keeps the middle of its edges."
            )
            self.notes_.append(Note("thin-bins", "info", text))
        if all(is_flat for *_, is_flat in curves):
            text = "Every class has one value: the fit rows show no relation to fit."
            self.notes_.append(Note("flat-curves", "warning", text))

    def map_probability(self, p: FloatArray, curve: int = 0) -> FloatArray:
        """Return what one map makes of probabilities, before renormalising."""
        edges, values = self.maps_[curve]
        return np.asarray(values[assign_bins(np.asarray(p), edges)])

    def breaks(self, curve: int = 0) -> FloatArray:
        """Return both sides of each inner edge."""
        inner = self.maps_[curve][0][1:-1]
        return np.sort(np.concatenate([inner, np.nextafter(inner, 1.0)]))

    def parameters(self) -> dict[str, Any]:
        """Return the number of bins of each map."""
        return {"n_bins": [int(values.size) for _, values in self.maps_]}

    def _state(self) -> dict[str, Any]:
        """Return "maps", one per curve, of "edges" (m + 1) and "values" (m).

        The value of the bin (lo, hi] of p, 0 in the first.
        """
        return {
            "maps": [
                {"edges": edges.tolist(), "values": values.tolist()}
                for edges, values in self.maps_
            ]
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.maps_ = [
            (np.array(item["edges"], np.float64), np.array(item["values"], np.float64))
            for item in state["maps"]
        ]
        n_curves = len(curve_columns(self.classes_.size))
        if len(self.maps_) != n_curves:
            msg = f"there are {len(self.maps_)} maps for {n_curves} curves"
            raise ValueError(msg)
        for edges, values in self.maps_:
            fits = edges.ndim == values.ndim == 1 and edges.size == values.size + 1
            if not fits or not values.size or not (np.diff(edges) > 0).all():
                msg = "the bins of a map do not match or do not ascend"
                raise ValueError(msg)
            if not ((values >= 0) & (values <= 1)).all():
                msg = "a value leaves 0 to 1"
                raise ValueError(msg)
