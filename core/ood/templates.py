"""Scores that compare a row's logits with what each class usually looks like."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from core.messages import FitError, Note, Progress
from core.ood.base import DETECTORS, Detector
from core.ood.logits import known
from core.ood.rows import Rows
from core.registry import Param
from core.softmax import softmax

__all__ = ["KLMatching", "OpenMax", "class_sums", "weibull_fits"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_FLOOR = -745.0  # logarithm of the least positive number of double precision
_BISECTIONS = 70
_TRANSLATION = 10_000.0  # of the tails; libMR moves them so


def class_sums(values: FloatArray, classes: IndexArray, k: int) -> FloatArray:
    """Return the sum of the rows of each class, shape (k, d), in double precision."""
    n = len(classes)
    member = sparse.csr_array(
        (np.ones(n), (classes, np.arange(n))), shape=(k, n), dtype=np.float64
    )
    return np.asarray(member @ values, dtype=np.float64)


@DETECTORS.register(
    "kl-matching",
    label="KL matching",
    reference="Hendrycks et al. 2022, arXiv:1911.11132",
    formula=r"\min_k \mathrm{KL}(p \,\|\, d_k),\quad d_k = \overline{p_i},\;"
    r" \hat y_i = k",
    tier="more",
    aliases=("klm",),
)
class KLMatching(Detector):
    """Divergence from the nearest typical posterior of a predicted class.

    Attributes
    ----------
    templates_ : ndarray of shape (k, k)
        Mean probabilities of the rows predicted as each class; the class itself where
        no row is.
    """

    fits_on = "held-out"
    assumes = "The rows that make the templates did not train the network."

    templates_: FloatArray

    def _fit(self, rows: Rows, progress: Progress) -> None:
        k = self.n_classes_
        sums, count = np.zeros((k, k)), np.zeros(k)
        for block in rows.blocks(progress, "Averaging probabilities"):
            sums += class_sums(softmax(block.logits), block.prediction, k)
            count += np.bincount(block.prediction, minlength=k)
        never = np.flatnonzero(count == 0)
        sums[never, never] = 1.0
        self.templates_ = sums / np.maximum(count, 1.0)[:, None]
        if never.size:
            text = (
                f"{never.size:,} of {k:,} classes are never predicted; their template "
                "is certainty of the class."
            )
            self.notes_.append(Note("class-never-predicted", "info", text))

    def _score(self, rows: Rows) -> FloatArray:
        statistics = rows.statistics()
        p = softmax(rows.logits)
        with np.errstate(divide="ignore"):
            log_templates = np.maximum(np.log(self.templates_), _FLOOR)
        cross = p @ log_templates.T.astype(p.dtype)
        return np.asarray(-known(statistics.entropy) - cross.max(axis=1))

    def _state(self) -> dict[str, Any]:
        return {"templates": self.templates_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.templates_ = np.asarray(state["templates"], dtype=np.float64)


@DETECTORS.register(
    "openmax",
    label="OpenMax",
    reference="Bendale and Boult 2016, arXiv:1511.06233",
    formula=r"P(\text{unknown}),\quad z_c \leftarrow z_c (1 - w_c F_c(\|z - \mu_c\|))",
    params=(
        Param(
            "tail",
            "Tail",
            "int",
            20,
            2,
            10_000,
            help="How many of the largest distances of a class fit its Weibull tail.",
        ),
        Param(
            "alpha",
            "Revised classes",
            "int",
            3,
            1,
            1000,
            help="How many of the top classes are revised.",
        ),
    ),
    tier="more",
)
class OpenMax(Detector):
    """Probability of an added class "unknown", from tails of distances to class means.

    Attributes
    ----------
    means_ : ndarray of shape (k, k)
        Mean logits of the rows that are predicted rightly as each class.
    shape_, scale_, start_ : ndarray of shape (k,)
        Weibull tails of the distances to them; classes with fewer than two such rows
        are not revised (NaN).
    """

    requires = frozenset({"logits", "labels"})
    needs_logit_scale = True
    assumes = "Every class has enough rows that are predicted rightly for a tail."

    means_: FloatArray
    shape_: FloatArray
    scale_: FloatArray
    start_: FloatArray

    def __init__(self, *, tail: int = 20, alpha: int = 3) -> None:
        self.tail = tail
        self.alpha = alpha

    def _fit(self, rows: Rows, progress: Progress) -> None:
        k = self.n_classes_
        sums, count = np.zeros((k, k)), np.zeros(k, dtype=np.int64)
        for block in rows.blocks(progress, "Averaging logits"):
            right = np.flatnonzero(block.prediction == block.labels)
            logits = _finite(block.logits[right])
            sums += class_sums(logits, block.labels[right], k)
            count += np.bincount(block.labels[right], minlength=k)
        if not count.any():
            raise FitError(
                "No reference row is predicted rightly.",
                rows.own.name,
                "Check that the labels are columns of the logits.",
            )
        self.means_ = sums / np.maximum(count, 1)[:, None]
        tails = self._tails(rows, progress)
        self.shape_, self.scale_, self.start_ = weibull_fits(tails)
        few = int((count < 2).sum())
        if few:
            text = (
                f"{few:,} of {k:,} classes have fewer than two rows that are predicted "
                "rightly; they are not revised."
            )
            self.notes_.append(Note("few-right-rows", "warning", text))

    def _tails(self, rows: Rows, progress: Progress) -> list[FloatArray]:
        """Return the largest distances of each class to its mean."""
        distances, classes = [], []
        for block in rows.blocks(progress, "Measuring distances"):
            right = np.flatnonzero(block.prediction == block.labels)
            own = block.labels[right]
            gap = _finite(block.logits[right]) - self.means_[own]
            distances.append(np.sqrt(np.einsum("ij,ij->i", gap, gap)))
            classes.append(own)
        every, label = np.concatenate(distances), np.concatenate(classes)
        order = np.lexsort((every, label))
        every, label = every[order], label[order]
        ends = np.searchsorted(label, np.arange(self.n_classes_ + 1))
        return [
            every[max(first, last - self.tail) : last] for first, last in pairwise(ends)
        ]

    def _score(self, rows: Rows) -> FloatArray:
        logits = _finite(rows.logits)
        k = logits.shape[1]
        alpha = min(self.alpha, k)
        order = _largest_first(logits, alpha)
        revised = np.zeros((len(logits), k + 1))
        revised[:, :k] = logits
        for place in range(alpha):
            classes = order[:, place]
            gap = logits - self.means_[classes]
            distance = np.sqrt(np.einsum("ij,ij->i", gap, gap))
            weight = (alpha - place) / alpha
            tail = self._tail_probability(distance, classes)
            row = np.arange(len(logits))
            kept = logits[row, classes] * (1 - weight * tail)
            revised[:, k] += logits[row, classes] - kept
            revised[row, classes] = kept
        return np.asarray(softmax(revised)[:, k])

    def _tail_probability(
        self, distance: FloatArray, classes: IndexArray
    ) -> FloatArray:
        """Return the Weibull distribution function at distances to class means."""
        # Scales lie close to the translation, shapes are in thousands: a power of the
        # ratio would lose four digits.
        scale = self.scale_[classes]
        reach = distance - self.start_[classes] + (_TRANSLATION - scale)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            log_ratio = np.log1p(np.maximum(reach / scale, -1.0))
            power = np.exp(self.shape_[classes] * log_ratio)
        found: FloatArray = np.nan_to_num(-np.expm1(-power), nan=0.0)
        return found

    def _state(self) -> dict[str, Any]:
        return {
            "means": self.means_,
            "shape": self.shape_,
            "scale": self.scale_,
            "start": self.start_,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name in ("means", "shape", "scale", "start"):
            setattr(self, f"{name}_", np.asarray(state[name], dtype=np.float64))


def _largest_first(logits: FloatArray, n: int) -> IndexArray:
    """Return the n classes of the largest logits, the largest one first."""
    k = logits.shape[1]
    top = np.sort(np.argpartition(logits, k - n, axis=1)[:, k - n :], axis=1)
    values = np.take_along_axis(logits, top, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")  # among equals the first column
    return np.take_along_axis(top, order, axis=1)


def _finite(logits: FloatArray) -> FloatArray:
    """Return logits in double precision; classes at -inf take the row's least one."""
    values = logits.astype(np.float64)
    is_out = np.isneginf(values)
    if is_out.any():
        least = np.where(is_out, np.inf, values).min(axis=1, keepdims=True)
        values = np.where(is_out, least, values)
    return values


def weibull_fits(
    tails: list[FloatArray],
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return shape, scale and start of a Weibull distribution for each tail.

    Each tail is moved so that its least value is 10,000, as the paper's libMR does
    (the fit is then nearly that of a Gumbel distribution), and fitted by maximum
    likelihood: the slope of the likelihood in the shape is monotone
    and is bisected for all tails at once. Tails of fewer than two different values
    have NaN.
    """
    n = len(tails)
    shape, scale, start = (np.full(n, np.nan) for _ in range(3))
    use = [i for i, tail in enumerate(tails) if tail.size > 1 and np.ptp(tail) > 0]
    if not use:
        return shape, scale, start
    start[use] = [tails[i].min() for i in use]
    width = max(tails[i].size for i in use)
    logs = np.full((len(use), width), np.nan)
    for place, i in enumerate(use):
        logs[place, : tails[i].size] = np.log(tails[i] - start[i] + _TRANSLATION)
    is_there = np.isfinite(logs)
    mean = np.nanmean(logs, axis=1)
    top = np.nanmax(logs, axis=1)
    depth = np.where(is_there, logs - top[:, None], -np.inf)  # at most 0
    low, high = np.full(len(use), np.log(1e-3)), np.full(len(use), np.log(1e9))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        c = np.exp(middle)
        mass = np.exp(c[:, None] * depth)
        pull = (mass * np.where(is_there, logs, 0.0)).sum(axis=1) / mass.sum(axis=1)
        is_high = pull - 1.0 / c - mean > 0
        low, high = np.where(is_high, low, middle), np.where(is_high, middle, high)
    c = np.exp((low + high) / 2)
    power = np.exp(c[:, None] * depth).sum(axis=1) / is_there.sum(axis=1)
    shape[use] = c
    scale[use] = np.exp(top + np.log(power) / c)
    return shape, scale, start
