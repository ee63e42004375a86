"""How rows were drawn and what was chosen: what a distance and its null depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.messages import Note, Progress, no_progress
from core.metrics.base import RowScores, one_weighting
from core.metrics.calibration_error import Bins, tail_share
from core.uncertainty import Estimate, bootstrap, percentile_interval

__all__ = ["Design", "null_draws", "null_estimate", "resampled", "shifted_interval"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_CELLS = 1 << 22  # draws x rows worked on at once: 32 MB in float64


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Weights, groups, bins and draws of one set of scores.

    Parameters
    ----------
    n_bins : int, default=15
    strategy : {"uniform", "quantile"}, default="uniform"
    level : float, default=0.95
        Of intervals and null ranges.
    n_resamples, seed : int, defaults 1000 and 0
        Of the bootstrap and of the null simulation.
    sample_weight : ndarray of shape (n,), optional
    groups : ndarray of int of shape (n,), optional
        Rows that belong together.
    progress : callable, optional
        Told the share of simulations that is done; may raise `Cancelled`.
    """

    n_bins: int = 15
    strategy: str = "uniform"
    level: float = 0.95
    n_resamples: int = 1000
    seed: int = 0
    sample_weight: FloatArray | None = None
    groups: IndexArray | None = None
    progress: Progress = no_progress
    _bins: dict[str, Bins] = field(default_factory=dict)
    _kept: dict[str, Any] = field(default_factory=dict)

    def shares(self, n: int) -> FloatArray:
        """Return each row's share of the total weight; they sum to 1."""
        if self.sample_weight is None:
            return np.full(n, 1.0 / max(n, 1))
        return np.asarray(self.sample_weight / self.sample_weight.sum())

    def unit(self, n: int) -> IndexArray:
        """Return the number of the unit, row or group, that each row belongs to."""
        if self.groups is None:
            return np.arange(n)
        return np.unique(self.groups, return_inverse=True)[1].astype(np.int64)

    def n_units(self, n: int) -> float:
        """Return how many rows or groups there are, by their effective number."""
        mass = one_weighting(self.sample_weight, n)[0]
        if self.groups is not None:
            mass = np.bincount(self.unit(n), mass)
        return float(mass.sum() ** 2 / (mass @ mass))

    def bins(self, scores: RowScores, strategy: str = "") -> Bins:
        """Return the rows in bins, made once; the strategy is the chosen one."""
        wanted = strategy or self.strategy
        if wanted not in self._bins or self._bins[wanted].scores is not scores:
            self._bins[wanted] = Bins(
                scores,
                n_bins=self.n_bins,
                strategy=wanted,
                level=self.level,
                sample_weight=self.sample_weight,
                groups=self.groups,
                n_resamples=self.n_resamples,
                seed=self.seed,
            )
        return self._bins[wanted]

    def by_confidence(self, scores: RowScores) -> tuple[RowScores, Design]:
        """Return scores and design with the rows sorted by rising confidence."""
        order = np.argsort(scores.confidence, kind="stable")
        weight, groups = self.sample_weight, self.groups
        return scores.take(order), replace(
            self,
            sample_weight=None if weight is None else weight[order],
            groups=None if groups is None else groups[order],
            _bins={},
            _kept={},
        )

    def kept(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what several metrics of these scores share, made once."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def residuals(
        self, scores: RowScores, n_draws: int, rng: np.random.Generator
    ) -> FloatArray:
        """Draw residuals, confidence minus outcome, as a calibrated model has them.

        Outcomes are drawn from the confidences. With groups the residuals that were
        seen keep their size and each group draws one common sign (wild cluster
        bootstrap).

        Returns
        -------
        ndarray of shape (n_draws, n)
        """
        confidence = scores.confidence
        if self.groups is None:
            drawn = rng.random((n_draws, len(scores)), dtype=np.float32)
            return np.asarray(confidence - (drawn < confidence))
        unit = self.unit(len(scores))
        n_units = int(unit.max(initial=0)) + 1
        signs = rng.integers(0, 2, size=(n_draws, n_units)) * 2.0 - 1.0
        return np.asarray(signs[:, unit] * (confidence - scores.outcome))

    @property
    def null_words(self) -> str:
        """Say how the null range was made."""
        made = "simulations of outcomes drawn from the confidences"
        if self.groups is not None:
            made = "sign draws per group (wild cluster bootstrap)"
        return f"null: {self.n_resamples:,} {made}, seed {self.seed}"

    @property
    def bootstrap_words(self) -> str:
        """Say how the bootstrap was made."""
        unit = "rows" if self.groups is None else "groups"
        return f"bootstrap of {unit}, {self.n_resamples:,} resamples, seed {self.seed}"


def null_draws(
    scores: RowScores, design: Design, statistic: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Return a statistic of residuals under the null, the same draws for every one.

    Parameters
    ----------
    scores : RowScores
        In the order that the statistic expects; sort them with
        `Design.by_confidence`, so that all statistics see the same draws.
    design : Design
        In the same order.
    statistic : callable
        From residuals of shape (b, n) to values of shape (b, ...).

    Returns
    -------
    ndarray of shape (n_resamples, ...)
    """
    rng = np.random.default_rng(design.seed + 1)
    step = max(1, _CELLS // max(len(scores), 1))
    found = []
    for start in range(0, design.n_resamples, step):
        size = min(step, design.n_resamples - start)
        design.progress(start / design.n_resamples, "Simulating")
        found.append(statistic(design.residuals(scores, size, rng)))
    return np.concatenate(found)


def null_estimate(
    value: float,
    draws: FloatArray,
    scores: RowScores,
    design: Design,
    words: str = "",
    *,
    observed: float | None = None,
    notes: tuple[Note, ...] = (),
) -> Estimate:
    """Return a plug-in distance with its null range and p-value, never an interval.

    `observed` is the value that the draws compare with, where it differs from the
    one that is reported (by rounding of a grid).
    """
    low, high = percentile_interval(draws, design.level)
    reached = value if observed is None else observed
    return Estimate(
        value=value,
        level=design.level,
        n=len(scores),
        null_low=low,
        null_high=high,
        p_value=tail_share(draws, reached),
        method=f"{words}; {design.null_words}" if words else design.null_words,
        notes=notes,
    )


def resampled(
    scores: RowScores, design: Design, statistic: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Return bootstrap draws of a function of weights, shape (b, n) -> (b, ...)."""
    return bootstrap(
        {"draws": statistic},
        len(scores),
        n_resamples=design.n_resamples,
        seed=design.seed,
        sample_weight=design.sample_weight,
        groups=design.groups,
        progress=design.progress,
    )["draws"]


def shifted_interval(
    value: float,
    draws: FloatArray,
    level: float,
    n_units: float,
    *,
    bias_factor: float = 1.0,
) -> tuple[float, float]:
    """Return the percentile interval, with the bias of value and draws taken off.

    Plug-in components grow with noise: resamples, which have twice the noise of the
    sample, exceed it by as much as it exceeds the truth, so that the percentile
    interval lies too high by twice the bias. Where the bias grows more slowly than the
    noise, `bias_factor` times that excess is the bias. The tails stay on their sides:
    the spread grows with the component, so that reflected they would be too short
    where the value came out low.
    """
    low, high = percentile_interval(draws, level, n_units)
    kept = draws[np.isfinite(draws)]
    mean = float(kept.mean()) if kept.size else value
    shift = value - bias_factor * (mean - value) - mean
    return low + shift, high + shift
