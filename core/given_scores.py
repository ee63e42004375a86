"""GivenScores: out-of-distribution scores that somebody else computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.messages import DataError, Note

__all__ = ["GivenScores"]

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class GivenScores:
    """One score per row of a file; larger = more out-of-distribution.

    Parameters
    ----------
    name : str
        Of the file, without its ending.
    score : ndarray of shape (n,)
    labels : ndarray of int64 of shape (n,)
        As the file has them; -1 where a row has none of the classes.
    is_ood : ndarray of bool of shape (n,)
    notes : tuple of Note
    """

    name: str
    score: FloatArray
    labels: NDArray[np.int64]
    is_ood: NDArray[np.bool_]
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        n = self.score.shape
        if self.labels.shape != n or self.is_ood.shape != n:
            raise DataError(
                f"There are {self.score.size:,} scores, {self.labels.size:,} labels "
                f"and {self.is_ood.size:,} marks.",
                self.name,
                "Give one of each per row.",
            )
