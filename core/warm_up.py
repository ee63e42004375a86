"""Compiling every kernel that the first page needs, once."""

from __future__ import annotations

import numpy as np

from core import softmax
from core.metrics.base import RowScores
from core.metrics.selective import ranked

__all__ = ["warm_up"]


def warm_up() -> None:
    """Compile the kernels for both precisions, or load them from Numba's cache."""
    softmax.warm_up()
    scores = RowScores(np.array([0.5, 0.75, 0.75]), np.array([0.0, 1.0, 1.0]))
    for weight in (1.0, 0.5):
        ranked(scores, np.full((1, 3), weight))
