"""Thresholds on a score, from rows that did not fit it, with exact bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from core.messages import DataError, FitError, Note
from core.ood.delong import checked_scores
from core.uncertainty import Estimate

__all__ = ["RULES", "Threshold", "binomial_share", "choose_threshold"]

FloatArray = NDArray[np.floating[Any]]

RULES = ("tpr", "fpr", "cost")
"""Accept a share of the in-distribution rows, let through a share of OOD ones, or
minimise a cost."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Threshold:
    """Rows whose score is at most `value` are accepted.

    Parameters
    ----------
    value : float
    rule : {"tpr", "fpr", "cost"}
    target : float
        The share or the cost that was asked for.
    acceptance : Estimate
        Share of new in-distribution rows that are accepted: 1 minus the false alarms.
    miss : Estimate or None
        Share of new OOD rows that are accepted; None without OOD rows.
    notes : tuple of Note
    """

    value: float
    rule: str
    target: float
    acceptance: Estimate
    miss: Estimate | None = None
    notes: tuple[Note, ...] = ()

    def accepts(self, score: ArrayLike) -> NDArray[np.bool_]:
        """Return which scores are accepted as in-distribution."""
        return np.asarray(np.asarray(score, dtype=np.float64) <= self.value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; `from_dict` reads them."""
        return {
            **asdict(self),
            "acceptance": self.acceptance.to_dict(),
            "miss": None if self.miss is None else self.miss.to_dict(),
            "notes": [note.to_dict() for note in self.notes],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Threshold:
        """Return what `to_dict` described."""
        try:
            return cls(
                value=float(values["value"]),
                rule=str(values["rule"]),
                target=float(values["target"]),
                acceptance=_estimate(values["acceptance"]),
                miss=None if values["miss"] is None else _estimate(values["miss"]),
                notes=tuple(Note(**note) for note in values["notes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"This is not a threshold that this version can read: {error}.",
                "detector file",
                "Choose a JSON file that `ood fit` wrote.",
            ) from error


def choose_threshold(
    score_id: ArrayLike,
    score_ood: ArrayLike | None = None,
    *,
    rule: str = "tpr",
    target: float = 0.95,
    cost: float = 1.0,
    ood_share: float = 0.5,
    level: float = 0.95,
    is_grouped: bool = False,
) -> Threshold:
    """Return a threshold from rows that neither fitted the score nor are reported on.

    Parameters
    ----------
    score_id : array-like of shape (n,)
        Of in-distribution rows.
    score_ood : array-like of shape (m,), optional
        Of OOD rows; "fpr" and "cost" need them, "tpr" does not.
    rule : {"tpr", "fpr", "cost"}, default="tpr"
        Accept `target` of the in-distribution rows; let `target` of the OOD rows
        through; or minimise the mean cost.
    target : float, default=0.95
    cost : float, default=1
        Of an OOD row that is accepted; that of an in-distribution row that is rejected
        is 1.
    ood_share : float, default=0.5
        Share of OOD rows to expect, for "cost".
    level : float, default=0.95
        Of the bounds.
    is_grouped : bool, default=False
        Whether rows belong together, so that the bounds are too narrow.

    Raises
    ------
    FitError
        If OOD rows are needed and none are given.

    Notes
    -----
    The k-th smallest of n scores of in-distribution rows accepts a share of new rows
    that is Beta(k, n + 1 - k) distributed, whatever the scores are: the bounds are
    exact. k = ceil(target (n + 1)), so that the expected share is at least the target.
    """
    if rule not in RULES:
        msg = f"rule must be one of {RULES}, got {rule!r}"
        raise ValueError(msg)
    inside = np.sort(checked_scores(score_id, "threshold"))
    outside = None
    if score_ood is not None:
        outside = np.sort(checked_scores(score_ood, "OOD"))
    if rule != "tpr" and outside is None:
        raise FitError(
            f"The rule {rule!r} needs out-of-distribution rows to choose on.",
            "threshold",
            "Give an OOD set, or ask for a share of accepted in-distribution rows.",
        )
    notes = []
    if is_grouped:
        text = "The rows that set the threshold come in groups: its bounds are narrow."
        notes.append(Note("grouped-threshold", "warning", text))
    if rule == "tpr" or outside is None:
        value, acceptance, more = _accepting(inside, target, level)
        notes += more
        miss = None if outside is None else _share(outside, value, level)
    elif rule == "fpr":
        value, miss = _rejecting(outside, target, level)
        acceptance = _share(inside, value, level)
    else:
        value = _cheapest(inside, outside, cost, ood_share)
        acceptance, miss = (_share(x, value, level) for x in (inside, outside))
        text = "The rows that chose the threshold also measure it: a little optimistic."
        notes.append(Note("cost-in-sample", "info", text))
        target = cost
    return Threshold(float(value), rule, target, acceptance, miss, tuple(notes))


def binomial_share(
    hits: int, n: int, *, level: float = 0.95, rows: str = "test"
) -> Estimate:
    """Return a share with its exact (Clopper-Pearson) interval."""
    if not n:
        return Estimate(math.nan, level=level, rows=rows, method="no rows")
    tail = (1 - level) / 2
    low = float(special.betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    method = "exact binomial interval"
    return Estimate(hits / n, low, high, level, n, rows=rows, method=method)


def _accepting(
    inside: FloatArray, target: float, level: float
) -> tuple[float, Estimate, list[Note]]:
    n, notes = inside.size, []
    k = math.ceil(target * (n + 1) - _ROUNDING)
    if k > n:
        needed = math.ceil(target / (1 - target) - _ROUNDING) if target < 1 else 0
        wanted = f"{needed:,} rows would" if needed else "no number of rows would"
        text = (
            f"{n:,} threshold rows cannot promise to accept {target:.1%}: the largest "
            f"score was taken; {wanted}."
        )
        notes.append(Note("few-threshold-rows", "warning", text))
        k = n
    k = max(k, 1)
    value = float(inside[k - 1])
    upto = int(np.searchsorted(inside, value, side="right"))
    tail = (1 - level) / 2
    acceptance = Estimate(
        value=k / (n + 1),
        low=float(special.betaincinv(k, n + 1 - k, tail)),
        high=float(special.betaincinv(upto, n + 1 - upto, 1 - tail)),
        level=level,
        n=n,
        rows="threshold",
        method="exact bound of an order statistic (Beta)",
    )
    return value, acceptance, notes


def _rejecting(
    outside: FloatArray, target: float, level: float
) -> tuple[float, Estimate]:
    m = outside.size
    j = math.floor(target * (m + 1) + _ROUNDING)
    value = float(outside[min(j, m) - 1]) if j else float(outside[0])
    # Equal scores stand or fall together.
    upto = int(np.searchsorted(outside, value, side="right"))
    if upto > j:
        value = float(np.nextafter(value, -np.inf))
    return value, _share(outside, value, level)


def _cheapest(
    inside: FloatArray, outside: FloatArray, cost: float, ood_share: float
) -> float:
    cuts = np.unique(np.concatenate([inside, outside]))
    cuts = np.append(np.nextafter(cuts[0], -np.inf), cuts)
    alarms = 1 - np.searchsorted(inside, cuts, side="right") / inside.size
    misses = np.searchsorted(outside, cuts, side="right") / outside.size
    total = (1 - ood_share) * alarms + ood_share * cost * misses
    return float(cuts[int(total.argmin())])


def _share(values: FloatArray, value: float, level: float) -> Estimate:
    hits = int(np.searchsorted(values, value, side="right"))
    return binomial_share(hits, values.size, level=level, rows="threshold")


def _estimate(values: Mapping[str, Any]) -> Estimate:
    known = {**values, "notes": tuple(Note(**note) for note in values["notes"])}
    return Estimate(**known)
