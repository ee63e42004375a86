"""Z-scores of logits: how far a class stands out in its row, whatever the scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.messages import DataError
from core.validation import checked_logits

__all__ = ["rank_offset", "z_losses", "z_scores"]

FloatArray = NDArray[np.floating[Any]]


def z_scores(logits: ArrayLike, y: ArrayLike | None = None) -> FloatArray:
    """Return how many standard deviations one logit of each row lies above the mean.

    Parameters
    ----------
    logits : array-like of shape (n, k)
        ``-inf`` marks a class that is ruled out: it counts neither in the mean nor in
        the standard deviation, and its own z-score is -inf.
    y : array-like of int of shape (n,), optional
        The class that is asked about; by default the one with the largest logit,
        which needs no labels.

    Returns
    -------
    ndarray of float64 of shape (n,)
        At most sqrt(k - 1); 0 where all open logits are equal. Neither a temperature
        nor a constant added to a row changes it: it ranks rows and says nothing of how
        sure one may be.
    """
    z = checked_logits(np.asarray(logits), "logits").astype(np.float64)
    n, k = z.shape
    place = z.argmax(axis=1) if y is None else np.asarray(y)
    if place.shape != (n,) or place.dtype.kind not in "iu":
        what = f"Labels have shape {place.shape} and type {place.dtype}."
        raise DataError(what, "y", f"Give {n} column numbers.")
    if n and not (place.min() >= 0 and place.max() < k):
        what = f"A label is not a column of the {k} scores."
        raise DataError(what, "y", "Number the classes from 0 in column order.")
    is_open = z > -np.inf
    # Relative to the largest one: large logits keep their digits.
    z = z - z.max(axis=1, keepdims=True)
    kept = np.where(is_open, z, 0.0)
    count = is_open.sum(axis=1)
    mean = kept.sum(axis=1) / count
    off = np.where(is_open, z - mean[:, None], 0.0)
    spread = np.sqrt((off**2).sum(axis=1) / count)
    lead = z[np.arange(n), place] - mean
    # A spread that is rounding noise is none.
    flat = spread <= 1e-14 * np.abs(mean)
    found = np.divide(lead, spread, out=np.zeros(n), where=~flat & np.isfinite(lead))
    found[np.isneginf(lead)] = -np.inf
    return np.asarray(found)


def z_losses(
    logits: ArrayLike, y: ArrayLike, *, sharpness: float = 1.0, offset: float = 0.0
) -> FloatArray:
    """Return the Z-loss of each row: a smooth hinge of the z-score of its label.

    Parameters
    ----------
    logits : array-like of shape (n, k)
    y : array-like of int of shape (n,)
    sharpness : float, default=1.0
        a > 0; the larger, the more the loss is a hinge.
    offset : float, default=0.0
        b, the z-score where the hinge sits; `rank_offset` puts it at a rank, so that
        the loss stands for the top-k error.

    Returns
    -------
    ndarray of float64 of shape (n,)
        log(1 + exp(a (b - z))) / a. Invariant to temperature and shift: it compares
        rankings, not probabilities. It is not the "z-loss" of language models, a
        penalty on the squared log-sum-exp.

    References
    ----------
    .. [1] A. de Brébisson and P. Vincent, "The Z-loss: a shift and scale invariant
       classification loss belonging to the spherical family", arXiv:1604.08859.
    """
    if not 0.0 < float(sharpness) < np.inf:
        msg = f"sharpness must be a positive number, got {sharpness!r}"
        raise ValueError(msg)
    short = float(sharpness) * (float(offset) - z_scores(logits, y))
    return np.asarray(np.logaddexp(0.0, short) / float(sharpness))


def rank_offset(logits: ArrayLike, rank: int) -> float:
    """Return the mean z-score of the class at a rank, 1 for the largest logit.

    Rows with fewer open classes do not count; NaN where none has as many.
    """
    z = checked_logits(np.asarray(logits), "logits").astype(np.float64)
    if not 1 <= rank <= z.shape[1]:
        msg = f"rank must be from 1 to {z.shape[1]}, got {rank!r}"
        raise ValueError(msg)
    place = np.argsort(-z, axis=1, kind="stable")[:, rank - 1]
    found = z_scores(z, place)
    found = found[np.isfinite(found)]
    return float(found.mean()) if found.size else float("nan")
