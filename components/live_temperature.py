"""What a browser needs to draw diagram and numbers at any tried temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import tables, theme
from core.analysis import ViewResult
from core.binning import THIN
from core.temperature_grid import TemperatureGrid

__all__ = ["METRICS_SHOWN", "STEPS", "payload", "temperature_at"]

STEPS = 80
"""Of the slider, from the fitted temperature to ten times it."""

METRICS_SHOWN = ("gap", "nll", "brier", "ece")


def temperature_at(center: float, step: int) -> float:
    """Return the temperature of a step of the slider, evenly spaced in the logarithm.

    Parameters
    ----------
    center : float
        The fitted temperature, at step 0.
    step : int
    """
    return center * 10 ** (step / STEPS)


def payload(
    grid: TemperatureGrid,
    fitted: ViewResult,
    center: float,
    *,
    step: int = 0,
    tried: ViewResult | None = None,
    norm: str = "l1",
    n_classes: int = 0,
) -> dict[str, Any]:
    """Return what the browser draws from.

    Parameters
    ----------
    grid : TemperatureGrid
        On the rows of `fitted`.
    fitted, tried : ViewResult
        Exact numbers and bins at the fitted temperature, and at the step that was
        let go of.
    center : float
        The fitted temperature.
    step : int, default=0
    norm : str, default="l1"
        Of the calibration error.
    n_classes : int
        With 2 the Brier score is that of the positive class, half the sum.

    Returns
    -------
    dict
        Bins as weight, weight * confidence and weight * accuracy: these may be mixed.
    """
    mass = grid.weight
    confidence = np.nan_to_num(grid.confidence) * mass
    accuracy = np.nan_to_num(grid.accuracy) * mass
    numbers = np.column_stack(
        [
            confidence.sum(axis=1) - accuracy.sum(axis=1),
            grid.nll,
            grid.brier / 2 if n_classes == 2 else grid.brier,
            grid.error(norm),
        ]
    )
    return {
        "center": center,
        "step": step,
        "steps": STEPS,
        "n": grid.n,
        "thin": THIN,
        "colors": {
            "fitted": theme.AFTER.color,
            "tried": theme.TRIED.color,
            "thin": theme.THIN,
        },
        "measures": [_measure(name, n_classes) for name in METRICS_SHOWN],
        "grid": {
            "temperatures": _numbers(grid.temperature),
            "numbers": _numbers(numbers),
            "weight": _numbers(mass),
            "confidence": _numbers(confidence),
            "accuracy": _numbers(accuracy),
        },
        "fitted": _exact(fitted)
        | {
            "words": [
                tables.small_print(name, fitted.estimates[name])
                for name in METRICS_SHOWN
            ],
            "low": _numbers(fitted.bins.low),
            "high": _numbers(fitted.bins.high),
        },
        "exact": None if tried is None else _exact(tried),
    }


def _exact(view: ViewResult) -> dict[str, Any]:
    bins = view.bins
    mass = bins.weight
    return {
        "numbers": [view.estimates[name].value for name in METRICS_SHOWN],
        "weight": _numbers(mass),
        "confidence": _numbers(np.nan_to_num(bins.confidence) * mass),
        "accuracy": _numbers(np.nan_to_num(bins.accuracy) * mass),
    }


def _measure(name: str, n_classes: int) -> dict[str, Any]:
    is_in_points = name in ("gap", "ece")
    return {
        "label": tables.metric_label(name, n_classes),
        "factor": 100 if is_in_points else 1,
        "digits": 1 if is_in_points else 3,
        "isSigned": name == "gap",
    }


def _numbers(values: NDArray[Any] | Sequence[float]) -> list[Any]:
    """Return values in seven digits, nothing that JSON has not."""
    array = np.nan_to_num(np.asarray(values, dtype=np.float64))
    scale = 10.0 ** (6 - np.floor(np.log10(np.maximum(np.abs(array), 1e-9))))
    found: list[Any] = (np.round(array * scale) / scale).tolist()
    return found
