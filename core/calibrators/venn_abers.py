"""Venn-Abers: two isotonic fits, with the new row as a hit and as a miss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.logistic_fit import counted
from core.calibrators.one_vs_rest import (
    Chances,
    OneVsRest,
    curve_columns,
    log_probabilities,
    row_offsets,
)
from core.kernels.venn_abers import _one_more_hit_kernel
from core.messages import Note

__all__ = ["VennAbers", "distinct"]

FloatArray = NDArray[np.floating[Any]]
# Where the lower and the upper end jump, and their values: low_x, low, high_x, high.
Ends = tuple[FloatArray, FloatArray, FloatArray, FloatArray]

_JUMP = 1e-13  # smaller steps are rounding
_ROUNDING = 1e-13  # of a probability, relative
_SINGLE = 3e-7  # of a logit in single precision, relative
_MOST_STEPS = 1000  # of one end; of more, some are merged
_NAMES = ("low_x", "low", "high_x", "high")


def distinct(
    p: FloatArray, target: FloatArray, mass: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the distinct values of p, ascending, with their mass and their hits."""
    x, place = np.unique(p, return_inverse=True)
    sums = [np.bincount(place, part) for part in (mass, mass * target)]
    return x, np.asarray(sums[0], np.float64), np.asarray(sums[1], np.float64)


@CALIBRATORS.register(
    "venn-abers",
    label="Venn-Abers, one-vs-rest",
    reference="Vovk, Petej and Fedorova 2015, arXiv:1511.00213",
    formula=(
        r"q_k \propto \frac{p^1_k}{1 - p^0_k + p^1_k},\quad p^c_k = \text{isotonic fit "
        r"at } p_k \text{ with this row added as a } c \in \{0, 1\}"
    ),
    aliases=("va", "ivap"),
    when="Two classes, and how much the rows say should show as an interval.",
    not_when="Many classes with few rows each.",
    cost="Milliseconds; up to 2,000 steps per class.",
)
class VennAbers(OneVsRest):
    """Fit two rising curves, the row once added as a hit, once as a miss; merge them.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    maps_ : list of (low_x, low, high_x, high)
        Steps of each class: p0 is ``low[i]`` for the i-th interval [lo, hi) that
        `low_x` cuts, p1 is ``high[i]`` for the i-th (lo, hi] that `high_x` cuts. One
        for two classes (of the second class).

    Notes
    -----
    The inductive form of [1]_: the fits for all places of the new row come from one
    pass over the sorted fit rows, exact for every score (one that single precision
    could not tell from a fit row's is taken for it). Of an end with more than 1,000
    steps those are merged that differ by less than a thousandth of the whole, on a
    scale where all shares are equally certain; intervals only widen by it. The wider
    [p0, p1] is (`interval`), the less the fit rows say there; the merged value has the
    least regret in log loss. For two classes one of p0 and p1 is perfectly calibrated
    if rows are exchangeable; with more, classes are fitted against the rest and rows
    renormalised, without that guarantee. No value is 0 or 1. Weights count by their
    effective number of rows.

    References
    ----------
    .. [1] V. Vovk, I. Petej and V. Fedorova, "Large-scale probabilistic predictors
       with and without guarantees of validity", NeurIPS 2015, arXiv:1511.00213.
    """

    maps_: list[Ends]

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return the number of curves; each has as many steps as the rows ask for."""
        return len(curve_columns(k))

    @property
    def n_fitted_(self) -> int:
        """Number of steps of all curves, both ends."""
        return sum(low.size + high.size - 2 for _, low, _, high in self.maps_)

    def _fit_curve(
        self, found: Chances, target: FloatArray, weight: FloatArray
    ) -> Ends:
        x, mass, hits = distinct(np.exp(found.log_p), target, counted(weight))
        high = _with_one_more_hit(mass, hits)
        low = 1.0 - _with_one_more_hit(mass[::-1], (mass - hits)[::-1])[::-1]
        jumps = np.flatnonzero(np.diff(low, prepend=0.0) > _JUMP)
        rises = np.flatnonzero(np.diff(high, append=1.0) > _JUMP)
        if jumps.size > _MOST_STEPS:
            place = _place(low[jumps])
            jumps = jumps[np.diff(place, prepend=-1) > 0]
        if rises.size > _MOST_STEPS:
            place = _place(high[rises])
            rises = rises[np.diff(place, append=_MOST_STEPS + 1) > 0]
        below, above = _reach(x)
        return (
            below[jumps],
            np.concatenate([[0.0], low[jumps]]),
            above[rises],
            np.concatenate([high[rises], [1.0]]),
        )

    def _keep(
        self,
        curves: list[Any],
        weight: FloatArray,  # noqa: ARG002 - the new row has weight 1
    ) -> None:
        self.maps_ = curves
        if all(low.size <= 2 and high.size <= 2 for _, low, _, high in curves):
            text = "Every curve is flat: the fit rows show no relation to fit."
            self.notes_.append(Note("flat-curves", "warning", text))

    def ends(self, p: FloatArray, curve: int = 0) -> tuple[FloatArray, FloatArray]:
        """Return p0 and p1 of probabilities of one curve."""
        low_x, low, high_x, high = self.maps_[curve]
        below = low[np.searchsorted(low_x, p, side="right")]
        return below, high[np.searchsorted(high_x, p, side="left")]

    def map_probability(self, p: FloatArray, curve: int = 0) -> FloatArray:
        """Return what one curve makes of probabilities, before renormalising."""
        low, high = self.ends(p, curve)
        return np.asarray(high / (1.0 - low + high))

    def interval(self, logits: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return p0 and p1 of every class, each of shape (n, k).

        Parameters
        ----------
        logits : array-like of shape (n, k), or (n, 1) for a binary score

        Returns
        -------
        low, high : ndarray of shape (n, k)
            Of each class against the rest, not renormalised.
        """
        self._check_is_fitted()
        scores = self._checked(logits, reset=False)
        p = np.exp(log_probabilities(scores, row_offsets(scores)))
        if p.shape[1] == 2:
            low, high = self.ends(p[:, 1])
            return np.stack([1 - high, low], axis=1), np.stack([1 - low, high], axis=1)
        parts = [self.ends(p[:, column], column) for column in range(p.shape[1])]
        lows, highs = zip(*parts, strict=True)
        return np.stack(lows, axis=1), np.stack(highs, axis=1)

    def breaks(self, curve: int = 0) -> FloatArray:
        """Return both sides of each jump."""
        low_x, _, high_x, _ = self.maps_[curve]
        sides = [low_x, np.nextafter(low_x, 0.0), high_x, np.nextafter(high_x, 1.0)]
        return np.unique(np.concatenate(sides))

    def parameters(self) -> dict[str, Any]:
        """Return the number of steps of each curve, both ends."""
        return {"n_steps": [low.size + high.size - 2 for _, low, _, high in self.maps_]}

    def _state(self) -> dict[str, Any]:
        """Return "maps", one per curve, of "low_x", "low", "high_x" and "high".

        p0 is the value of the interval [lo, hi) of p among low_x, p1 that of (lo, hi]
        among high_x; the curve says p1 / (1 - p0 + p1).
        """
        return {
            "maps": [
                {name: part.tolist() for name, part in zip(_NAMES, ends, strict=True)}
                for ends in self.maps_
            ]
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.maps_ = [
            tuple(np.array(item[name], dtype=np.float64) for name in _NAMES)  # type: ignore[misc]
            for item in state["maps"]
        ]
        n_curves = len(curve_columns(self.classes_.size))
        if len(self.maps_) != n_curves:
            msg = f"there are {len(self.maps_)} maps for {n_curves} curves"
            raise ValueError(msg)
        for low_x, low, high_x, high in self.maps_:
            for x, y in ((low_x, low), (high_x, high)):
                fits = x.ndim == y.ndim == 1 and y.size == x.size + 1
                if not fits or not (np.diff(x) >= 0).all():
                    msg = "the steps of a curve do not match or do not ascend"
                    raise ValueError(msg)
                if not ((y >= 0) & (y <= 1)).all() or not (np.diff(y) >= 0).all():
                    msg = "a curve falls or leaves 0 to 1"
                    raise ValueError(msg)
            if not (high > 0).all():
                msg = "an upper end is 0"
                raise ValueError(msg)


def _reach(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return how far down and up a score is that of a fit row, never past the middle.

    Beside a fit row the ends are others than at it: what a logit loses when it is
    written in single precision must not take a row away from itself.
    """
    logs = -np.log(x) - np.log1p(-np.minimum(x, 1.0 - _ROUNDING))
    slack = x * (_SINGLE * (1.0 - x) + _ROUNDING) * (1.0 + logs)
    middle = (x[:-1] + x[1:]) / 2
    below = np.maximum(x - slack, np.append(0.0, middle))
    return below, np.minimum(x + slack, np.append(middle, np.inf))


def _place(share: FloatArray) -> NDArray[np.int64]:
    """Return shares, 0 to 1, as whole numbers that are equally certain."""
    return (np.arcsin(np.sqrt(share)) * (2 * _MOST_STEPS / np.pi)).astype(np.int64)


def _with_one_more_hit(mass: FloatArray, hits: FloatArray) -> FloatArray:
    """Return the isotonic fit at each place with one more hit of mass 1 there."""
    m = mass.size
    found, x, y = np.empty(m), np.empty(m + 2), np.empty(m + 2)
    corners = np.empty(m + 2, np.int64)
    given = np.ascontiguousarray(mass), np.ascontiguousarray(hits)
    _one_more_hit_kernel(*given, x, y, corners, found)
    return np.maximum.accumulate(np.clip(found, 0.0, 1.0))
