"""A row's prediction against all other classes, and its confidence changed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.parallel import map_rows
from core.softmax import log_softmax

__all__ = ["KEPT_GAP", "Top", "raised", "top_of"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

KEPT_GAP = 1e-6
"""How far the log-probability of the prediction stays above the runner-up's."""


class Top(NamedTuple):
    """A row's prediction against all other classes; shapes (n,).

    Attributes
    ----------
    place : ndarray of int64
        Column of the prediction.
    gap : ndarray
        Its log-probability minus the largest other one; infinite where no other class
        is open.
    log_rest : ndarray
        ln((1 - q) / q), exact where q rounds to 1; -inf where no other class is open.
    """

    place: IndexArray
    gap: FloatArray
    log_rest: FloatArray

    @property
    def pair(self) -> FloatArray:
        """Log-probabilities of "wrong" and "right", shape (n, 2)."""
        log_right = -np.logaddexp(0.0, self.log_rest)
        return np.stack([self.log_rest + log_right, log_right], axis=1)


def top_of(logits: FloatArray, temperature: float) -> Top:
    """Return what the confidence of each row at T is made of, in double precision."""
    n = len(logits)
    place = logits.argmax(axis=1)
    gap, log_rest = np.empty(n), np.empty(n)

    def rows(start: int, stop: int) -> None:
        z = logits[start:stop].astype(np.float64)
        here = np.arange(stop - start)
        top = z[here, place[start:stop]].copy()
        z[here, place[start:stop]] = -np.inf
        second = z.max(axis=1)
        is_open = second > -np.inf
        z = (z - np.where(is_open, second, 0.0)[:, None]) / temperature
        with np.errstate(divide="ignore"):
            log_mass = np.log(np.exp(z).sum(axis=1))
        lead = (top - second) / temperature
        gap[start:stop] = lead
        log_rest[start:stop] = np.where(is_open, log_mass - lead, -np.inf)

    map_rows(rows, n, 24 * logits.shape[1] + 64)
    return Top(place, gap, log_rest)


def raised(
    log_p: FloatArray, place: IndexArray, change: FloatArray | float
) -> FloatArray:
    """Return rows in which the log-odds of one class are changed; it stays the largest.

    Parameters
    ----------
    log_p : ndarray of shape (n, k)
        Log-probabilities, or logits.
    place : ndarray of int64 of shape (n,)
        Column of the largest one.
    change : float or ndarray of shape (n,)
        What is added to its log-odds. A fall stops `KEPT_GAP` above the runner-up,
        at once where that is nearer.

    Returns
    -------
    ndarray of shape (n, k)
        Log-probabilities; the other classes keep their ratios.
    """
    result = np.empty(log_p.shape, log_p.dtype)
    wanted = np.broadcast_to(change, place.shape)

    def rows(start: int, stop: int) -> None:
        z = log_p[start:stop].astype(np.float64)
        here, columns = np.arange(stop - start), place[start:stop]
        top = z[here, columns].copy()
        z[here, columns] = -np.inf
        fall = np.maximum(top - z.max(axis=1) - KEPT_GAP, 0.0)
        z[here, columns] = top + np.maximum(wanted[start:stop], -fall)
        result[start:stop] = log_softmax(z, algorithm="three-pass")

    map_rows(rows, len(log_p), 32 * log_p.shape[1] + 64)
    return result
