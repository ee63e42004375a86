"""A Bayesian bootstrap inside each of several sets of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from core.messages import Progress
from core.ood.separation import Separation, separations
from core.parallel import map_rows
from core.uncertainty import Estimate, percentile_interval

__all__ = ["Basis", "binned", "draws_of"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_MOST_BINS = 1024  # of scores, where rows are resampled
_LANES = 16  # resamples at once: their weights stay in the cache
_BLOCKS = 8  # of them between two reports of progress


@dataclass(frozen=True, slots=True)
class Basis:
    """What all estimates of one set share."""

    level: float
    n: int
    rows: str
    n_resamples: int
    seed: int
    by_group: bool
    has_interval: bool

    def estimate(self, value: float, draws: FloatArray) -> Estimate:
        """Return a value with the percentile interval of its resamples.

        The first draw is the value in bins; the others are moved by what binning
        changes.
        """
        moved = np.clip(draws[1:] + (value - draws[0]), 0.0, 1.0)
        low, high = percentile_interval(moved, self.level)
        is_given = self.has_interval and math.isfinite(low)
        return Estimate(
            value=float(value),
            low=min(low, value) if is_given else None,
            high=max(high, value) if is_given else None,
            level=self.level,
            n=self.n,
            rows=self.rows,
            method=f"Bayesian bootstrap{' of groups' if self.by_group else ''}, "
            f"{self.n_resamples} resamples, seed {self.seed}",
        )


def binned(
    inside: FloatArray, outside: FloatArray, edges: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return counts of both sets for each distinct score, or each bin; (1, m)."""
    if edges is None:
        edges = np.unique(np.concatenate([inside, outside]))
    return (
        _counts(inside, edges)[None, :],
        _counts(outside, edges)[None, :],
    )


def _counts(values: FloatArray, edges: FloatArray) -> FloatArray:
    place = np.searchsorted(edges, values, side="left")
    return np.bincount(place, minlength=edges.size).astype(np.float64)


def _edges(pooled: FloatArray) -> FloatArray:
    """Return the upper ends of at most 1,024 bins that keep equal scores together."""
    distinct = np.unique(pooled)
    if distinct.size <= _MOST_BINS:
        return distinct
    places = np.linspace(0, pooled.size - 1, _MOST_BINS).round().astype(np.int64)
    return np.unique(np.sort(pooled)[places])


def draws_of(
    inside: FloatArray,
    outside: Mapping[str, FloatArray],
    n_resamples: int,
    seed: int,
    id_groups: IndexArray | None,
    ood_groups: Mapping[str, IndexArray],
    progress: Progress,
) -> dict[str, Separation]:
    """Return every number of every set on the same resamples; the first is none."""
    edges = _edges(np.concatenate([inside, *outside.values()]))
    own = _Resampler(inside, edges, id_groups)
    sets = {
        name: _Resampler(values, edges, ood_groups.get(name))
        for name, values in outside.items()
    }

    def draw(start: int, stop: int) -> dict[str, Separation]:
        # Each block has random numbers of its own, whatever thread it is on.
        rng = np.random.default_rng([seed, start])
        drawn = own.draw(stop - start, rng)
        return {
            name: separations(drawn, item.draw(stop - start, rng))
            for name, item in sets.items()
        }

    parts = [
        {
            name: separations(own.counts[None, :], item.counts[None, :])
            for name, item in sets.items()
        }
    ]
    step = _LANES * _BLOCKS
    for start in range(0, n_resamples, step):
        progress(start / n_resamples, "Resampling")
        size = min(step, n_resamples - start)
        shifted = partial(_moved, draw, start)
        parts += map_rows(shifted, size, 1, chunk_bytes=_LANES)
    return {
        name: Separation.concatenate([part[name] for part in parts]) for name in sets
    }


def _moved(
    draw: Callable[[int, int], dict[str, Separation]], by: int, start: int, stop: int
) -> dict[str, Separation]:
    return draw(by + start, by + stop)


class _Resampler:
    """Draws weights of the rows of one set, or of whole groups, summed over bins.

    The Bayesian bootstrap: every row weighs an exponential number, so that a bin
    weighs a gamma number of its count.
    """

    def __init__(
        self, values: FloatArray, edges: FloatArray, groups: IndexArray | None
    ) -> None:
        self.counts = _counts(values, edges)
        self._members: sparse.csr_array | None = None
        if groups is not None:
            names, unit = np.unique(groups, return_inverse=True)
            place = np.searchsorted(edges, values, side="left")
            self._members = sparse.csr_array(
                (np.ones(values.size), (unit, place)), shape=(names.size, edges.size)
            )

    def draw(self, size: int, rng: np.random.Generator) -> FloatArray:
        """Return weights of shape (size, m) of as many resamples."""
        if self._members is None:
            return rng.standard_gamma(self.counts, size=(size, self.counts.size))
        weights = rng.standard_exponential((size, self._members.shape[0]))
        return np.asarray(weights @ self._members, dtype=np.float64)
