"""A network of a few units, its exact gradient, and how it is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from core.messages import Progress

__all__ = [
    "Found",
    "Layer",
    "Network",
    "Plan",
    "fit_network",
    "layers_from",
    "layers_state",
    "output_of",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]
Objective = Callable[[FloatArray, IndexArray], tuple[float, FloatArray]]

MAX_ITERATIONS = 100
_TOLERANCE = 1e-6  # of the gradient, in units of the loss
_STOP = 1e-6  # fall of the loss in one step below which a fit ends
_MOST_COMPARED = 5_000  # rows on which starts are compared
_LARGEST = 1e9  # no weight of a file may be beyond it


class Layer(NamedTuple):
    """What one layer does: inputs @ weights + bias.

    Attributes
    ----------
    weights : ndarray of shape (n_in, n_out)
    bias : ndarray of shape (n_out,)
    """

    weights: FloatArray
    bias: FloatArray


class Network:
    """Layers with tanh in between and one number at the end.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, units of each hidden layer, and 1.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.shapes = list(pairwise(sizes))
        self.n_in_layers = sum((rows + 1) * columns for rows, columns in self.shapes)
        self.n_parameters = self.n_in_layers

    def start(self, rng: np.random.Generator) -> FloatArray:
        """Return parameters that say 0 everywhere: the last layer is zero."""
        parts = [
            rng.normal(scale=1.0 / np.sqrt(rows), size=(rows + 1, columns))
            for rows, columns in self.shapes
        ]
        parts[-1][:] = 0.0
        return np.concatenate([part.ravel() for part in parts])

    def layers(self, flat: FloatArray) -> list[Layer]:
        """Return views of the layers in a flat vector of parameters."""
        found, place = [], 0
        for rows, columns in self.shapes:
            part = flat[place : place + (rows + 1) * columns]
            block = part.reshape(rows + 1, columns)
            found.append(Layer(block[:-1], block[-1]))
            place += part.size
        return found

    def value(
        self, flat: FloatArray, inputs: FloatArray
    ) -> tuple[FloatArray, list[FloatArray]]:
        """Return the output of each row, and what entered each layer."""
        entered = [inputs]
        *hidden, last = self.layers(flat)
        for layer in hidden:
            entered.append(np.tanh(entered[-1] @ layer.weights + layer.bias))
        return (entered[-1] @ last.weights + last.bias)[:, 0], entered

    def gradient(
        self, flat: FloatArray, entered: list[FloatArray], slope: FloatArray
    ) -> FloatArray:
        """Return the derivatives in the parameters of a sum over rows.

        Parameters
        ----------
        flat : ndarray of shape (n_parameters,)
        entered : list of ndarray
            From `value`.
        slope : ndarray of shape (m,)
            Derivatives of the sum in the output of each row.
        """
        found: list[FloatArray] = []
        back = slope[:, None]
        for number, layer in reversed(list(enumerate(self.layers(flat)))):
            block = np.vstack([entered[number].T @ back, back.sum(axis=0)])
            found.insert(0, block.ravel())
            if number:
                back = (back @ layer.weights.T) * (1.0 - entered[number] ** 2)
        return np.concatenate(found)


class Plan(NamedTuple):
    """How a network is fitted.

    Attributes
    ----------
    sizes : tuple of int
        Units of each hidden layer.
    ridge : float
        Times half the sum of squared weights; offsets are free.
    n_starts, n_folds : int
        Random starts, and the folds that compare them.
    seed : int
    make : callable
        The network of its sizes, inputs and the final 1 included.
    """

    sizes: tuple[int, ...]
    ridge: float
    n_starts: int
    n_folds: int
    seed: int
    make: Callable[[Sequence[int]], Network] = Network


class Found(NamedTuple):
    """A fitted network.

    Attributes
    ----------
    layers : list of Layer
        For inputs as they are, not standardised.
    others : ndarray
        Parameters that are in no layer.
    loss_before, loss_after : float
        Mean loss of the fit rows where the network says 0, and of the fit.
    compared : tuple of float
        Cross-validated loss without a network, then of each start.
    gradient : float
        Largest derivative at the end, ridge included.
    n_passes : int
        Evaluations of the loss, all starts included.
    """

    layers: list[Layer]
    others: FloatArray
    loss_before: float
    loss_after: float
    compared: tuple[float, ...]
    gradient: float
    n_passes: int

    @property
    def is_used(self) -> bool:
        """Whether some start was better on rows that it was not fitted on."""
        return len(self.compared) < 2 or min(self.compared[1:]) < self.compared[0]


def fit_network(
    inputs: FloatArray,
    objective: Objective,
    plan: Plan,
    progress: Progress,
    groups: IndexArray | None = None,
) -> Found:
    """Fit a network by full-batch L-BFGS, its start chosen by cross-validation.

    Parameters
    ----------
    inputs : ndarray of shape (n, d)
    objective : callable
        Called with the output of some rows and their places; returns their mean loss
        and its derivatives in the outputs.
    plan : Plan
    progress : callable
        May raise `Cancelled`.
    groups : ndarray of int64 of shape (n,), optional
        Rows that belong together stay in one fold.
    """
    fit = _Fit(inputs, objective, plan, progress)
    everything = np.arange(len(inputs))
    starts = [fit.start(number) for number in range(plan.n_starts)]
    compared: tuple[float, ...] = ()
    best = 0
    unit = np.arange(len(inputs)) if groups is None else groups
    unit = np.unique(unit, return_inverse=True)[1]
    if 1 < plan.n_folds <= (unit.max() + 1) // 2:
        compared = fit.compare(starts, unit)
        best = int(np.argmin(compared[1:]))
    flat = fit.minimise(starts[best], everything)
    nothing = np.zeros(fit.network.n_parameters)
    loss_before, loss_after = (fit.loss(x, everything) for x in (nothing, flat))
    gradient = float(np.abs(fit.penalised(flat, everything)[1]).max())
    return Found(
        fit.unscaled(flat),
        flat[fit.network.n_in_layers :],
        *(loss_before, loss_after, compared, gradient, fit.n_passes),
    )


class _Fit:
    """One network on standardised inputs."""

    def __init__(
        self,
        inputs: FloatArray,
        objective: Objective,
        plan: Plan,
        progress: Progress,
    ) -> None:
        self.center = inputs.mean(axis=0)
        spread = inputs.std(axis=0)
        # A constant input says nothing; what rounding makes of it neither.
        is_constant = spread <= 1e-12 * (1.0 + np.abs(self.center))
        self.scale = np.where(is_constant, 1.0, spread)
        self.inputs = np.where(is_constant, 0.0, (inputs - self.center) / self.scale)
        self.objective, self.plan, self.progress = objective, plan, progress
        self.network = plan.make((inputs.shape[1], *plan.sizes, 1))
        self.is_weight = np.zeros(self.network.n_parameters, bool)
        for layer in self.network.layers(self.is_weight):
            layer.weights[:] = True
        n_compared = plan.n_starts * plan.n_folds if plan.n_folds > 1 else 0
        self.n_fits, self.n_done = n_compared + 1, 0
        self.n_passes = 0

    def start(self, number: int) -> FloatArray:
        """Return the parameters that a fit starts from."""
        return self.network.start(np.random.default_rng([self.plan.seed, number]))

    def loss(self, flat: FloatArray, rows: IndexArray) -> float:
        """Return the mean loss of some rows, without the ridge."""
        output, _ = self.network.value(flat, self.inputs[rows])
        return self.objective(output, rows)[0]

    def penalised(
        self, flat: FloatArray, rows: IndexArray, inputs: FloatArray | None = None
    ) -> tuple[float, FloatArray]:
        """Return the mean loss of some rows with the ridge, and its gradient."""
        given = self.inputs[rows] if inputs is None else inputs
        output, entered = self.network.value(flat, given)
        loss, slope = self.objective(output, rows)
        self.n_passes += 1
        held = self.plan.ridge * np.where(self.is_weight, flat, 0.0)
        gradient = self.network.gradient(flat, entered, slope)
        return loss + 0.5 * float(held @ flat), gradient + held

    def minimise(self, start: FloatArray, rows: IndexArray) -> FloatArray:
        """Return the parameters of a local minimum."""
        inputs = self.inputs[rows]
        done = self.n_done
        n_steps = 0

        def value(flat: FloatArray) -> tuple[float, FloatArray]:
            nonlocal n_steps
            share = (done + min(1.0, n_steps / MAX_ITERATIONS)) / self.n_fits
            self.progress(0.1 + 0.9 * share, "Fitting the network")
            n_steps += 1
            return self.penalised(flat, rows, inputs)

        found = scipy.optimize.minimize(
            value,
            start,
            method="L-BFGS-B",
            jac=True,
            options={
                "gtol": _TOLERANCE,
                "ftol": _STOP,
                "maxcor": 20,
                "maxiter": MAX_ITERATIONS,
                "maxfun": 2 * MAX_ITERATIONS,
            },
        )
        self.n_done += 1
        return np.asarray(found.x)

    def compare(self, starts: list[FloatArray], unit: IndexArray) -> tuple[float, ...]:
        """Return cross-validated losses: without a network, and of each start."""
        n = len(self.inputs)
        step = max(1, -(-n // _MOST_COMPARED))
        rows = np.arange(0, n, step)
        rng = np.random.default_rng([self.plan.seed, len(starts)])
        fold = (rng.permutation(unit.max() + 1) % self.plan.n_folds)[unit[rows]]
        nothing = np.zeros(self.network.n_parameters)
        losses = np.zeros(len(starts) + 1)
        for number in range(self.plan.n_folds):
            fitted, held_out = rows[fold != number], rows[fold == number]
            share = held_out.size / rows.size
            losses[0] += share * self.loss(nothing, held_out)
            for place, start in enumerate(starts, 1):
                flat = self.minimise(start, fitted)
                losses[place] += share * self.loss(flat, held_out)
        return tuple(losses.tolist())

    def unscaled(self, flat: FloatArray) -> list[Layer]:
        """Return the layers for inputs that are not standardised."""
        first, *others = self.network.layers(flat)
        weights = first.weights / self.scale[:, None]
        bias = first.bias - self.center @ weights
        return [Layer(weights, bias), *(Layer(w.copy(), b.copy()) for w, b in others)]


def output_of(layers: Sequence[Layer], inputs: FloatArray) -> FloatArray:
    """Return what fitted layers say of each row, shape (n,)."""
    found = inputs
    for layer in layers[:-1]:
        found = np.tanh(found @ layer.weights + layer.bias)
    last = layers[-1]
    return np.asarray((found @ last.weights + last.bias)[:, 0])


def layers_state(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Return layers as plain JSON values."""
    return [{"weights": w.tolist(), "bias": b.tolist()} for w, b in layers]


def layers_from(state: Sequence[dict[str, Any]], n_inputs: int) -> list[Layer]:
    """Return layers from what `layers_state` wrote.

    Raises
    ------
    ValueError
        If shapes do not follow each other or a number is out of range.
    """
    found = []
    width = n_inputs
    for item in state:
        weights = np.array(item["weights"], dtype=np.float64)
        bias = np.array(item["bias"], dtype=np.float64)
        is_shaped = bias.ndim == 1 and weights.shape == (width, bias.size) and bias.size
        both = np.concatenate([weights.ravel(), bias.ravel()])
        if not is_shaped or not (np.abs(both) <= _LARGEST).all():  # nor NaN
            msg = "the layers of the network do not fit or are out of range"
            raise ValueError(msg)
        found.append(Layer(weights, bias))
        width = bias.size
    if width != 1 or not found:
        msg = "the network does not end in one number"
        raise ValueError(msg)
    return found
