"""Probabilities of many classes, made a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["ProbabilityRows"]

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityRows:
    """What NumPy takes for an array; whole, it is larger than the file.

    Parameters
    ----------
    shape : tuple of int
        Rows and classes.
    make : callable (start: int, stop: int) -> ndarray of shape (stop - start, k)
        Makes some rows, from any thread.
    """

    shape: tuple[int, int]
    make: Callable[[int, int], FloatArray]

    def __getitem__(self, rows: Any) -> FloatArray:
        """Return some rows; only those of a slice are made alone."""
        if not isinstance(rows, slice):
            return np.asarray(np.asarray(self)[rows])
        start, stop, step = rows.indices(self.shape[0])
        return self.make(start, max(start, stop))[::step]

    def __array__(
        self,
        dtype: DTypeLike | None = None,
        copy: bool | None = None,  # noqa: FBT001 - NumPy's own
    ) -> FloatArray:
        """Return all rows."""
        del copy  # it is new every time
        found = self.make(0, self.shape[0])
        return found if dtype is None else found.astype(dtype, copy=False)
