"""Logistic regression on one or two inputs of many rows, to the last digit."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from core.calibrators.one_vs_rest import effective_rows
from core.kernels.logistic import (
    _logistic_kernel,
    _logistic_loss_kernel,
    _newton_kernel,
    new_work,
)

__all__ = ["LogisticFit", "counted", "fit_logistic", "is_separable", "smoothed"]

FloatArray = NDArray[np.floating[Any]]

TOLERANCE = 1e-8
"""Of the mean gradient, the certificate of an optimum."""

_RIDGE = 1e-12  # keeps the Hessian regular where two inputs say the same
_AIM = 1e-13  # where rounding takes over
_MAX_STEPS = 50
_MAX_HALVINGS = 8
_MAX_ITERATIONS = 200


class LogisticFit(NamedTuple):
    """sigmoid(slope @ inputs + intercept), and how it was found."""

    slope: tuple[float, ...]
    intercept: float
    loss: float
    gradient: float


def counted(weight: FloatArray) -> FloatArray:
    """Return weights that sum to the effective number of rows."""
    found: FloatArray = weight * (effective_rows(weight) / weight.sum())
    return found


def smoothed(target: FloatArray, mass: FloatArray) -> FloatArray:
    """Return Platt's targets: as if each side had one more row of the other."""
    n_positive = (mass * target).sum()
    n_negative = mass.sum() - n_positive
    high = (n_positive + 1.0) / (n_positive + 2.0)
    return np.asarray(np.where(target > 0, high, 1.0 / (n_negative + 2.0)))


def is_separable(score: FloatArray, target: FloatArray) -> bool:
    """Whether no negative lies above a positive: then no finite optimum exists."""
    is_positive = target > 0
    lowest = score[is_positive].min(initial=np.inf)
    return bool(score[~is_positive].max(initial=-np.inf) <= lowest)


def fit_logistic(
    features: FloatArray,
    target: FloatArray,
    mass: FloatArray,
    used: tuple[int, ...] | None = None,
) -> LogisticFit:
    """Fit sigmoid(slope @ features + intercept) to targets in [0, 1].

    Parameters
    ----------
    features : ndarray of shape (m, n), m 1 or 2
    target, mass : ndarray of shape (n,)
    used : tuple of int, optional
        Features that may have a slope other than 0.

    Returns
    -------
    LogisticFit
        With the mean loss, and the largest derivative where every feature has mean 0
        and standard deviation 1, in which the optimum is looked for.
    """
    weight = mass / mass.sum()
    centre = (features * weight).sum(axis=1)
    spread = np.sqrt(((features - centre[:, None]) ** 2 * weight).sum(axis=1))
    # A spread that is rounding noise is none.
    has_spread = spread > 1e-12 * np.maximum(np.abs(centre), 1.0)
    wanted = range(len(features)) if used is None else used
    places = [i for i in wanted if has_spread[i]]
    inputs = np.zeros((2, target.size))
    for row, place in enumerate(places):
        inputs[row] = (features[place] - centre[place]) / spread[place]
    objective = _Objective(inputs, target, weight)
    start = np.zeros(3)
    n_positive = float((mass * target).sum())
    start[2] = np.log((n_positive + 1.0) / (mass.sum() - n_positive + 1.0))
    found = objective.minimise(start)
    slope = np.zeros(len(features))
    slope[places] = found[: len(places)] / spread[places]
    intercept = float(found[2] - slope @ centre)
    gradient = float(np.abs(objective.gradient(found)).max())
    return LogisticFit(
        tuple(slope.tolist()), intercept, objective.loss(found), gradient
    )


class _Objective:
    """Mean log loss of a logistic curve, its gradient and its Hessian.

    An input without a slope is a row of zeros: a ridge keeps its slope at 0.
    """

    def __init__(
        self, inputs: FloatArray, target: FloatArray, weight: FloatArray
    ) -> None:
        self.rows = (inputs, np.ascontiguousarray(target), weight)

    def loss(self, point: FloatArray) -> float:
        found = float(_logistic_loss_kernel(*self.rows, point))
        return found + 0.5 * _RIDGE * float(point @ point)

    def gradient(self, point: FloatArray) -> FloatArray:
        return self._derivatives(point)[0]

    def hessian(self, point: FloatArray) -> FloatArray:
        return self._derivatives(point)[1]

    def _derivatives(self, point: FloatArray) -> tuple[FloatArray, FloatArray]:
        slope, curvature = np.empty(3), np.empty((3, 3))
        work, _ = new_work()
        _logistic_kernel(*self.rows, _RIDGE, point, work, slope, curvature)
        return slope, curvature + np.tril(curvature, -1).T

    def minimise(self, start: FloatArray) -> FloatArray:
        """Return the minimiser: by damped Newton steps, else by a trust region first.

        A Newton step is a way down for the size of the gradient too, so that no loss
        is needed. Where it leads nowhere, the trust region compares losses, whose last
        digits hide the last steps: Newton's finish it.
        """
        point = start.copy()
        if self._newton(point) <= TOLERANCE:
            return point
        near: FloatArray = scipy.optimize.minimize(
            self.loss,
            start,
            method="trust-exact",
            jac=self.gradient,
            hess=self.hessian,
            options={"gtol": 1e-7, "maxiter": _MAX_ITERATIONS, "max_trust_radius": 1e4},
        ).x
        point = near.copy()
        self._newton(point)
        return point

    def _newton(self, point: FloatArray) -> float:
        """Move a point to where steps no longer help; return the gradient's size."""
        options = (_RIDGE, _AIM, _MAX_STEPS, _MAX_HALVINGS)
        return float(_newton_kernel(*self.rows, *options, *new_work(), point))
