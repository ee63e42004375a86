"""Several scores as one: weights with or without out-of-distribution rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.folds import fold_numbers
from core.messages import Note
from core.ood.rows import Rows

__all__ = ["WeightedSum", "held_out_fifth", "logistic_weights"]

FloatArray = NDArray[np.floating[Any]]

TUNED, UNTUNED = "tuned-on-ood", "not-tuned-on-ood"
_FOLDS = 5
_FEWEST = 20  # rows of which a fifth can be held out


@dataclass(frozen=True, slots=True, eq=False)
class WeightedSum:
    """A weighted sum of standardised scores, one column a layer or a detector.

    Parameters
    ----------
    names : tuple of str
        Of the columns.
    mean, scale : ndarray of shape (m,)
        Of in-distribution rows that did not fit the scores.
    weight : ndarray of shape (m,)
    n_ood : int
        Out-of-distribution rows that chose the weights; 0 where they are equal.
    held_out : ndarray of shape (n, m)
        Scores of those in-distribution rows, kept for a later `tuned`.
    """

    names: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray
    weight: FloatArray
    n_ood: int = 0
    held_out: FloatArray = field(default_factory=lambda: np.empty((0, 0)))

    @classmethod
    def untuned(cls, names: tuple[str, ...], scores: FloatArray) -> WeightedSum:
        """Return equal weights of the standardised scores: no OOD row is needed."""
        scale = scores.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        weight = np.full(len(names), 1 / len(names))
        return cls(names, scores.mean(axis=0), scale, weight, held_out=scores)

    def tuned(self, ood: FloatArray) -> WeightedSum:
        """Return weights by logistic regression of OOD against held-out rows."""
        inside = (self.held_out - self.mean) / self.scale
        outside = (ood - self.mean) / self.scale
        weight = logistic_weights(inside, outside)
        return WeightedSum(
            self.names, self.mean, self.scale, weight, len(ood), self.held_out
        )

    def combine(self, scores: FloatArray) -> FloatArray:
        """Return one score for each row of scores of shape (n, m)."""
        return np.asarray(((scores - self.mean) / self.scale) @ self.weight)

    @property
    def note(self) -> Note:
        """Which rows chose the weights."""
        shown = ", ".join(
            f"{name} {weight:.3g}"
            for name, weight in zip(self.names, self.weight, strict=True)
        )
        if self.n_ood:
            text = (
                f"Tuned on out-of-distribution data: {self.n_ood:,} validation rows "
                f"chose the weights ({shown})."
            )
            return Note(TUNED, "info", text)
        text = (
            "Not tuned on out-of-distribution data: the standardised scores of "
            f"{', '.join(self.names)} count alike."
        )
        return Note(UNTUNED, "info", text)

    def to_dict(self) -> dict[str, Any]:
        """Return every field; arrays as they are."""
        return {
            "names": list(self.names),
            "mean": self.mean,
            "scale": self.scale,
            "weight": self.weight,
            "n_ood": self.n_ood,
            "held_out": self.held_out,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WeightedSum:
        """Return what `to_dict` described."""
        names = tuple(values["names"])
        arrays = {
            key: np.asarray(values[key], dtype=np.float64)
            for key in ("mean", "scale", "weight", "held_out")
        }
        held_out = arrays.pop("held_out").reshape(-1, len(names))
        return cls(names, **arrays, n_ood=int(values["n_ood"]), held_out=held_out)


def held_out_fifth(rows: Rows) -> tuple[Rows, Rows] | None:
    """Return four fifths of the rows and the others, whole groups together.

    None where there are too few rows or groups.
    """
    if len(rows) < _FEWEST:
        return None
    codes = rows.own.group_codes()
    groups = None if codes is None else codes[rows.index]
    if groups is not None and np.unique(groups).size < _FOLDS:
        return None
    strata = np.maximum(rows.labels, 0)
    is_apart = fold_numbers(strata, groups, _FOLDS, 0) == 0
    return rows.part(np.flatnonzero(~is_apart)), rows.part(np.flatnonzero(is_apart))


def logistic_weights(inside: FloatArray, outside: FloatArray) -> FloatArray:
    """Return the weights of a logistic regression that tells two sets of rows apart.

    Both sets count alike, whatever their sizes; scores should be standardised.
    """
    # Importing scikit-learn is slow, and few detectors learn weights.
    from sklearn.linear_model import LogisticRegression

    scores = np.vstack([inside, outside])
    is_ood = np.repeat([0, 1], [len(inside), len(outside)])
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    return np.asarray(model.fit(scores, is_ood).coef_[0], dtype=np.float64)
