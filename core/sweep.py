"""The loss along a line of temperatures: how sharp the optimum of a fit is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.messages import FitError, Progress, no_progress
from core.predictions import Study
from core.softmax import temperature_objective
from core.splitting import Split

__all__ = ["MAX_CELLS", "TemperatureSweep", "sweep_temperature"]

FloatArray = NDArray[np.floating[Any]]

MAX_CELLS = 4_000_000
"""Rows x classes that a sweep reads; of more, evenly spaced rows."""


@dataclass(frozen=True, slots=True, eq=False)
class TemperatureSweep:
    """Mean NLL of the fit rows at each of several temperatures.

    Parameters
    ----------
    temperature, nll : ndarray of shape (m,)
        Ascending temperatures and the NLL in nats at each.
    n_rows, n_total : int
        Rows that were read, and fit rows there are.
    """

    temperature: FloatArray
    nll: FloatArray
    n_rows: int
    n_total: int


def sweep_temperature(
    study: Study,
    split: Split,
    center: float,
    *,
    n_points: int = 61,
    progress: Progress = no_progress,
) -> TemperatureSweep:
    """Return the NLL of the fit rows from a tenth to ten times a temperature.

    Parameters
    ----------
    study : Study
    split : Split
        Says which rows fit.
    center : float
        Usually the fitted temperature, which is one of the points.
    n_points : int, default=61
        An odd number of points, evenly spaced in the logarithm.
    progress : callable, optional
        May raise `Cancelled`.

    Raises
    ------
    FitError
        If there are no class scores or no labels.
    """
    is_apart = split.kind == "fit-file" and study.fit is not None
    own = study.fit if is_apart and study.fit is not None else study.evaluation
    if own.logits is None or own.labels is None or not split.fit.size:
        raise FitError("A temperature needs labelled rows with class scores.", own.name)
    rows = split.fit
    n = min(rows.size, max(1, MAX_CELLS // own.logits.shape[1]))
    some = rows[np.linspace(0, rows.size - 1, n).round().astype(np.int64)]
    logits, labels = own.logits[some], own.labels[some]
    weight = own.sample_weight()
    mass = np.ones(n) if weight is None else weight[some]
    temperatures = center * np.logspace(-1, 1, n_points)
    losses = np.empty(n_points)
    for number, temperature in enumerate(temperatures):
        progress(number / n_points, "Trying temperatures")
        loss = temperature_objective(logits, labels, 1.0 / temperature).loss
        # As in the fit: a label at -inf is beyond the help of any temperature.
        possible = np.isfinite(loss)
        share = np.where(possible, mass, 0.0) / mass.sum()
        losses[number] = share @ np.where(possible, loss, 0.0)
    return TemperatureSweep(temperatures, losses, n, rows.size)
