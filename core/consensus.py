"""One order out of several rankings: Kemeny's consensus, Borda, critical differences.

Scores of different data sets or metrics have different scales: they are never averaged,
only their ranks are compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FEWEST_DATA_SETS",
    "Consensus",
    "CriticalDifference",
    "consensus",
    "critical_difference",
]

FloatArray = NDArray[np.floating[Any]]

FEWEST_DATA_SETS = 5  # below it, tests over data sets have nothing to stand on
_MOST_EXACT = 15  # methods in one cycle that are ordered exactly: 2^n subsets


@dataclass(frozen=True, slots=True)
class Consensus:
    """The order that agrees best with several rankings.

    Parameters
    ----------
    order : tuple of str
        Kemeny's consensus, best first; where several are equally good, the one that
        Borda prefers.
    mean_rank : mapping of str to float
        Borda: the mean rank of each, 1 for the best; ties share their ranks.
    n_rankings : int
    agreement : float
        Share of the pairs of all rankings that the order agrees with; ties count half.
    is_condorcet : bool
        Whether no majority is overruled: then the order is the best one for certain.
    is_exact : bool
        Whether it is Kemeny's optimum; large cycles are searched from Borda's order.
    stability : float
        Least Kendall's tau between the order and the one without any one ranking;
        NaN with fewer than three.
    """

    order: tuple[str, ...]
    mean_rank: dict[str, float]
    n_rankings: int
    agreement: float
    is_condorcet: bool
    is_exact: bool
    stability: float

    @property
    def borda_order(self) -> tuple[str, ...]:
        """The order by mean rank."""
        return tuple(sorted(self.mean_rank, key=lambda name: self.mean_rank[name]))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "kemeny": list(self.order),
            "borda": list(self.borda_order),
            "mean_rank": dict(self.mean_rank),
            "n_rankings": self.n_rankings,
            "agreement": self.agreement,
            "is_condorcet": self.is_condorcet,
            "is_exact": self.is_exact,
            "stability": None if math.isnan(self.stability) else self.stability,
        }


@dataclass(frozen=True, slots=True)
class CriticalDifference:
    """Which mean ranks over data sets differ by more than luck.

    Parameters
    ----------
    p_value : float
        Friedman's test that all methods rank alike.
    distance : float
        Nemenyi's critical difference of two mean ranks.
    groups : tuple of tuple of str
        Largest sets of methods whose mean ranks are closer than that, best first.
    level : float
    n_data_sets : int
    """

    p_value: float
    distance: float
    groups: tuple[tuple[str, ...], ...]
    level: float
    n_data_sets: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "friedman_p": self.p_value,
            "critical_difference": self.distance,
            "groups": [list(group) for group in self.groups],
            "level": self.level,
            "n_data_sets": self.n_data_sets,
        }


def consensus(names: Sequence[str], scores: ArrayLike) -> Consensus:
    """Return the order of the methods that agrees best with every ranking.

    Parameters
    ----------
    names : sequence of str
        Of the m methods.
    scores : array-like of shape (m, t)
        One ranking per column (a data set or a metric), lower is better, finite or
        infinite. Scales may differ.

    Raises
    ------
    ValueError
        If a score is missing or the shapes do not fit.

    Notes
    -----
    Kemeny's order has the fewest pairs of methods, summed over rankings, that it
    orders the other way round. Methods that no cycle of majorities joins are ordered
    by their majorities; inside a cycle of up to 15 methods all subsets are tried
    (dynamic programming), larger ones are searched by moving single methods.

    References
    ----------
    Kemeny (1959), "Mathematics without numbers", Daedalus 88. Colombo et al. (2022),
    "What are the best systems? New perspectives on NLP benchmarking",
    arXiv:2202.03799. Truchon (1998), "An extension of the Condorcet criterion and
    Kemeny orders".
    """
    values = _checked(names, scores)
    ranks = scipy.stats.rankdata(values, axis=0)
    wins = _wins(values)
    order, is_exact = _kemeny(wins, ranks.mean(axis=1))
    n, t = values.shape
    above = wins[np.ix_(order, order)]
    kept = float(np.triu(above, 1).sum())
    n_pairs = t * n * (n - 1) / 2
    tied = n_pairs - float(np.triu(above + above.T, 1).sum())
    best = float(np.triu(np.maximum(wins, wins.T), 1).sum())
    stability = math.nan
    if t >= 3 and n >= 2:
        stability = min(_tau(order, _without(values, j)) for j in range(t))
    return Consensus(
        order=tuple(names[i] for i in order),
        mean_rank={
            name: float(rank) for name, rank in zip(names, ranks.mean(1), strict=True)
        },
        n_rankings=t,
        agreement=(kept + tied / 2) / n_pairs if n_pairs else 1.0,
        is_condorcet=kept >= best,
        is_exact=is_exact,
        stability=stability,
    )


def critical_difference(
    names: Sequence[str], scores: ArrayLike, level: float = 0.95
) -> CriticalDifference | None:
    """Return which mean ranks differ over data sets, or None where they are too few.

    Parameters
    ----------
    names : sequence of str
        Of the m methods, at least two.
    scores : array-like of shape (m, t)
        One column per data set, all of one metric, lower is better.
    level : float, default=0.95

    Notes
    -----
    Columns must be independent: data sets, never several metrics of the same rows.

    References
    ----------
    Demsar (2006), "Statistical comparisons of classifiers over multiple data sets",
    JMLR 7: Friedman's test in the form of Iman and Davenport, Nemenyi's distance.
    """
    values = _checked(names, scores)
    m, t = values.shape
    if t < FEWEST_DATA_SETS or m < 2:
        return None
    ranks = scipy.stats.rankdata(values, axis=0)
    mean = ranks.mean(axis=1)
    # Friedman's statistic with ties, as the ratio of two sums of squares.
    between = t * float(((mean - (m + 1) / 2) ** 2).sum())
    within = float(((ranks - (m + 1) / 2) ** 2).sum()) / (t * (m - 1))
    chi2 = between / within if within > 0 else 0.0
    remainder = t * (m - 1) - chi2
    f = math.inf if remainder <= 0 else (t - 1) * chi2 / remainder
    p = float(scipy.stats.f.sf(f, m - 1, (m - 1) * (t - 1)))
    quantile = float(scipy.stats.studentized_range.ppf(level, m, np.inf)) / math.sqrt(2)
    distance = quantile * math.sqrt(m * (m + 1) / (6 * t))
    order = np.argsort(mean, kind="stable")
    groups: list[tuple[int, int]] = []
    for start in range(m):
        stop = int((mean[order] <= mean[order[start]] + distance).sum())
        if stop - start > 1 and (not groups or stop > groups[-1][1]):
            groups.append((start, stop))
    return CriticalDifference(
        p_value=p,
        distance=distance,
        groups=tuple(tuple(names[i] for i in order[a:b]) for a, b in groups),
        level=level,
        n_data_sets=t,
    )


def _checked(names: Sequence[str], scores: ArrayLike) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != len(names) or not values.size:
        msg = f"scores must have shape ({len(names)}, t), got {values.shape}"
        raise ValueError(msg)
    if np.isnan(values).any():
        msg = "scores must not be missing: leave such methods out"
        raise ValueError(msg)
    return values


def _wins(values: FloatArray) -> FloatArray:
    """Return in how many rankings the method of the row is above that of the column."""
    return np.asarray(
        (values[:, None, :] < values[None, :, :]).sum(axis=2), dtype=np.float64
    )


def _kemeny(wins: FloatArray, mean_rank: FloatArray) -> tuple[list[int], bool]:
    beats = wins > wins.T
    n_parts, part = scipy.sparse.csgraph.connected_components(
        scipy.sparse.csr_array(beats), connection="strong"
    )
    members = [np.flatnonzero(part == number) for number in range(n_parts)]
    # Between parts majorities all point one way; those that nobody left beats come
    # first, the best by Borda among them.
    order: list[int] = []
    is_exact = True
    left = set(range(n_parts))
    while left:
        free = [
            a
            for a in left
            if not any(
                beats[np.ix_(members[b], members[a])].any() for b in left if b != a
            )
        ]
        first = min(free, key=lambda a: float(mean_rank[members[a]].mean()))
        left.remove(first)
        inside = members[first][np.argsort(mean_rank[members[first]], kind="stable")]
        own = wins[np.ix_(inside, inside)]
        if inside.size <= _MOST_EXACT:
            places = _best_order(own)
        else:
            places, is_exact = _searched(own), False
        order += [int(inside[i]) for i in places]
    return order, is_exact


def _best_order(wins: FloatArray) -> list[int]:
    """Try every subset: the best order of a set ends with some member of it."""
    n = len(wins)
    subsets = np.arange(1 << n)
    best = np.full(1 << n, -np.inf)
    best[0] = 0.0
    last = np.zeros(1 << n, dtype=np.int64)
    size = np.array([int(s).bit_count() for s in subsets])
    # gain[j] of a subset: what its members win against j, which comes after them.
    has = (subsets[:, None] >> np.arange(n)) & 1
    gain = has @ wins
    for count in range(1, n + 1):
        these = subsets[size == count]
        for j in range(n - 1, -1, -1):
            own = these[has[these, j] == 1]
            before = own ^ (1 << j)
            value = best[before] + gain[before, j]
            is_better = value > best[own]
            best[own[is_better]] = value[is_better]
            last[own[is_better]] = j
    order = []
    subset = (1 << n) - 1
    while subset:
        order.append(int(last[subset]))
        subset ^= 1 << order[-1]
    return order[::-1]


def _searched(wins: FloatArray) -> list[int]:
    """Move single methods to better places until none is left to move."""
    order = list(range(len(wins)))
    lead = wins - wins.T
    is_moving = True
    while is_moving:
        is_moving = False
        for item in range(len(wins)):
            at = order.index(item)
            rest = order[:at] + order[at + 1 :]
            # Gain of standing before rest[i:] and after rest[:i], for every i.
            steps = np.concatenate([[0.0], np.cumsum(-lead[item, rest])])
            best = int(steps.argmax())
            if steps[best] > steps[at] + 1e-9:
                order = [*rest[:best], item, *rest[best:]]
                is_moving = True
    return order


def _without(values: FloatArray, column: int) -> list[int]:
    kept = np.delete(values, column, axis=1)
    return _kemeny(_wins(kept), scipy.stats.rankdata(kept, axis=0).mean(axis=1))[0]


def _tau(first: Sequence[int], second: Sequence[int]) -> float:
    return float(
        scipy.stats.kendalltau(np.argsort(first), np.argsort(second)).statistic
    )
