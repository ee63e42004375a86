"""Compiling every kernel that the first page needs, once."""

from __future__ import annotations

import numpy as np

from core import softmax
from core.metrics import RowScores, Sample, estimates
from core.settings import Settings
from core.temperature_grid import temperature_grid

__all__ = ["warm_up"]


def warm_up() -> None:
    """Compile the kernels for both precisions, or load them from Numba's cache."""
    softmax.warm_up()
    for dtype in (np.float32, np.float64):
        temperature_grid(np.zeros((2, 3), dtype), [0, 1], n_runs=1)
    values = np.array([0.5, 0.75, 0.75])
    scores = {"": RowScores(values, np.array([0.0, 1.0, 1.0]), values, values)}
    for weight in (None, values):
        estimates(Sample(scores, Settings(n_resamples=100), sample_weight=weight))
