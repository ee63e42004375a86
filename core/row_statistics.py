"""What one trip over the logits finds out about every row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.messages import DataError

__all__ = ["RowStatistics"]


@dataclass(frozen=True, slots=True, eq=False)
class RowStatistics:
    """What is known of every row of predictions; arrays of length n, read-only.

    Every field except `confidence` may be None: files that hold only confidences do
    not know the rest, and unlabelled rows have no `correct`.

    Parameters
    ----------
    confidence : ndarray of float64
        Largest probability.
    prediction : ndarray of int64 or None
        Column of the largest logit, the first one on ties.
    margin : ndarray of float64 or None
        Largest minus second largest probability; the confidence if there is one class.
    max_logit : ndarray of float64 or None
        Largest logit, not divided by the temperature.
    logsumexp : ndarray of float64 or None
        Logarithm of the sum of exp(logits / temperature).
    entropy : ndarray of float64 or None
        Entropy in nats.
    squared_sum : ndarray of float64 or None
        Sum of the squared probabilities (for the Brier score).
    correct : ndarray of bool or None
        Whether the prediction is the label; False where unlabelled.
    label_log_probability : ndarray of float64 or None
        Log-probability of the label; NaN where unlabelled.
    label_rank : ndarray of int64 or None
        Number of classes before the label, by logit and then by column (0 = top);
        -1 where unlabelled.
    """

    confidence: NDArray[np.float64]
    prediction: NDArray[np.int64] | None = None
    margin: NDArray[np.float64] | None = None
    max_logit: NDArray[np.float64] | None = None
    logsumexp: NDArray[np.float64] | None = None
    entropy: NDArray[np.float64] | None = None
    squared_sum: NDArray[np.float64] | None = None
    correct: NDArray[np.bool_] | None = None
    label_log_probability: NDArray[np.float64] | None = None
    label_rank: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.confidence)
        for field in dataclasses.fields(self):
            array = getattr(self, field.name)
            if array is None:
                continue
            if array.shape != (n,):
                what = f"{field.name} has shape {array.shape} for {n} rows."
                raise DataError(what, "RowStatistics", "Give one value per row.")
            # a view: the caller's array keeps its own flag
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, field.name, view)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.confidence)

    def __len__(self) -> int:
        return self.n

    def take(self, indices: ArrayLike) -> RowStatistics:
        """Return the statistics of some rows.

        Parameters
        ----------
        indices : array_like of int or bool, shape (m,) or (n,)
            Rows to take, in this order, or a mask over all rows.

        Returns
        -------
        RowStatistics
            Copies of the rows.
        """
        rows = np.asarray(indices, None if np.size(indices) else np.int64)
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        taken: dict[str, Any] = {
            k: None if a is None else a[rows] for k, a in fields.items()
        }
        return RowStatistics(**taken)

    @staticmethod
    def concatenate(parts: Sequence[RowStatistics]) -> RowStatistics:
        """Return the statistics of several blocks of rows, one after the other.

        Parameters
        ----------
        parts : sequence of RowStatistics
            At least one; a field is kept where every part has it.

        Returns
        -------
        RowStatistics
        """
        joined: dict[str, Any] = {}
        for field in dataclasses.fields(RowStatistics):
            arrays = [getattr(part, field.name) for part in parts]
            has_all = all(array is not None for array in arrays)
            joined[field.name] = np.concatenate(arrays) if has_all else None
        return RowStatistics(**joined)
