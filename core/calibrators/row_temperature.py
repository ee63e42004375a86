"""What calibrators share that give each row a temperature of its own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import Calibrator
from core.calibrators.network import (
    Found,
    Layer,
    Network,
    Plan,
    fit_network,
    layers_from,
    layers_state,
    output_of,
)
from core.calibrators.row_losses import RowLoss
from core.calibrators.scaling import HIGHEST, LOWEST, fitted_temperature
from core.messages import Note, Progress
from core.parallel import map_rows
from core.registry import Param
from core.softmax import log_softmax

__all__ = [
    "BOUND",
    "LOWEST_LOG",
    "NETWORK_PARAMS",
    "NetworkTemperature",
    "RowTemperature",
    "sorted_log_probabilities",
    "top_places",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

BOUND = 2.0
"""A row's temperature lies within a factor exp(2) = 7.4 of the common one."""

LOWEST_LOG = -30.0
"""Lowest logarithm of a probability that networks see."""

NETWORK_PARAMS = (
    Param(
        "ridge",
        "Ridge",
        "float",
        1e-2,
        minimum=0.0,
        maximum=1e3,
        help="How strongly the weights of the network are held to 0.",
    ),
    Param(
        "restarts",
        "Starts",
        "int",
        3,
        minimum=1,
        maximum=50,
        help="Random starts; cross-validation inside the fit rows chooses one.",
    ),
    Param(
        "seed",
        "Seed",
        "int",
        0,
        minimum=0,
        maximum=2**32 - 1,
        help="Seed of the starts and of their folds.",
    ),
)
"""What every calibrator with a network may be asked."""

_N_FOLDS = 3
_FEW_ROWS = 10  # right or wrong fit rows below which a network has nothing to learn


class RowTemperature(Calibrator):
    """Base of calibrators that divide the logits of a row by a number of its own.

    The order of the classes of a row never changes; rows may change places.
    """

    is_accuracy_preserving = True
    is_order_preserving = True

    @abstractmethod
    def _temperatures(self, logits: FloatArray, **extra: Any) -> FloatArray:
        """Return one temperature per row, in double precision."""

    def temperatures(self, logits: FloatArray, **extra: Any) -> FloatArray:
        """Return the temperature of each row.

        Parameters
        ----------
        logits : array-like of shape (n, k)
        **extra : array-like
            Features or copies, as for `transform`.

        Returns
        -------
        ndarray of shape (n,)
        """
        scores = self._checked(logits, reset=False)
        given = (extra.get("features"), extra.get("copies"))
        return self._temperatures(
            scores, **self._extra(self.reads, *given, scores.shape)
        )

    def _transform(self, logits: FloatArray, **extra: Any) -> FloatArray:
        return divided(logits, self._temperatures(logits, **extra))


def divided(logits: FloatArray, temperature: FloatArray) -> FloatArray:
    """Return the log-softmax of rows divided by a temperature each."""
    result = np.empty(logits.shape, logits.dtype)

    def rows(start: int, stop: int) -> None:
        z = logits[start:stop].astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        z /= temperature[start:stop, None]
        result[start:stop] = log_softmax(z, algorithm="three-pass")

    map_rows(rows, len(logits), 24 * logits.shape[1] + 64)
    return result


def top_places(logits: FloatArray, count: int) -> IndexArray:
    """Return the columns of the largest logits of each row, largest first.

    Of equal ones the first column comes first; `count` is at most k.
    """
    rows = np.arange(len(logits))
    left = np.maximum(logits, np.finfo(logits.dtype).min)  # -inf marks what is taken
    found = np.empty((len(logits), count), dtype=np.int64)
    for place in range(count):
        found[:, place] = left.argmax(axis=1)
        left[rows, found[:, place]] = -np.inf
    return found


def sorted_log_probabilities(logits: FloatArray, count: int) -> FloatArray:
    """Return the largest log-probabilities of each row, none below `LOWEST_LOG`.

    Parameters
    ----------
    logits : ndarray of shape (n, k)
    count : int
        At most k.

    Returns
    -------
    ndarray of shape (n, count)
        Largest first, in double precision.
    """
    result = np.empty((len(logits), count))

    def rows(start: int, stop: int) -> None:
        z = logits[start:stop].astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        total = np.exp(z).sum(axis=1, keepdims=True)
        best = np.take_along_axis(z, top_places(z, count), axis=1)
        result[start:stop] = np.maximum(best - np.log(total), LOWEST_LOG)

    map_rows(rows, len(logits), 32 * logits.shape[1] + 64)
    return result


class NetworkTemperature(RowTemperature):
    """Base of T = T0 exp(bounded g(x)), g a small network that starts at 0.

    Attributes
    ----------
    temperature_ : float
        T0, of temperature scaling on the same rows: where the fit starts.
    layers_ : list of Layer
        Of the network; empty where T0 is used for every row.
    loss_before_, loss_after_ : float
        Mean loss of the fit rows at T0 and after the fit, without the ridge.
    compared_ : tuple of float
        Cross-validated loss of T0, then of each start of the network.
    gradient_ : float
        Largest derivative where the fit stopped.
    n_iterations_ : int
        Evaluations of the loss, all starts included.
    """

    ridge: float
    restarts: int
    seed: int

    temperature_: float
    layers_: list[Layer]
    loss_before_: float
    loss_after_: float
    compared_: tuple[float, ...]
    gradient_: float
    n_iterations_: int

    _hidden: tuple[int, ...]
    _network: type[Network] = Network

    @property
    def n_fitted_(self) -> int:
        """Numbers that this fit chose: T0 and the network's."""
        return 1 + sum(w.size + b.size for w, b in self.layers_)

    @property
    @abstractmethod
    def _n_inputs(self) -> int:
        """Return the number of inputs of the network of this fit."""

    @abstractmethod
    def _inputs(self, logits: FloatArray, **extra: Any) -> FloatArray:
        """Return what the network reads of each row, (n, d), in double precision."""

    def _fit_rows(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        loss: tuple[str, float],
        *,
        by_outcome: tuple[float, float] = (1.0, 1.0),
        groups: IndexArray | None,
        progress: Progress,
        **extra: Any,
    ) -> None:
        """Fit T0 and the network.

        Parameters
        ----------
        loss : tuple of str and float
            Kind and share of `RowLoss`.
        by_outcome : tuple of float
            What the weights of right and of wrong rows are multiplied by.
        """
        if not 0.0 <= float(self.ridge) < np.inf or int(self.restarts) < 1:
            msg = (
                "ridge must be a finite number, 0 or more, and restarts 1 or more, got "
                f"{self.ridge!r} and {self.restarts!r}"
            )
            raise ValueError(msg)
        start = fitted_temperature(logits, y, sample_weight, groups, progress)
        self.notes_ += start.notes_
        self.temperature_, self.layers_ = start.temperature_, []
        self.loss_before_ = self.loss_after_ = start.nll_after_
        self.compared_, self.gradient_, self.n_iterations_ = (), 0.0, 0
        possible = np.isfinite(logits[np.arange(y.size), y])
        used = np.flatnonzero(possible & (sample_weight > 0))
        right = logits[used].argmax(axis=1) == y[used]
        n_few = int(min(right.sum(), (~right).sum()))
        if start.is_at_bound_ or n_few < _FEW_ROWS:
            self._say_common(int(right.sum()), right.size)
            return
        logits, y = logits[used], y[used]
        weight = sample_weight[used] * np.where(right, *by_outcome)
        rows_of = RowLoss(logits, y, weight, *loss)
        common = np.log(self.temperature_)

        def objective(output: FloatArray, rows: IndexArray) -> tuple[float, FloatArray]:
            bent = np.tanh(output / BOUND)
            value, slope = rows_of(common + BOUND * bent, rows)
            return value, slope * (1.0 - bent**2)

        extra = {
            name: None if a is None else a[:, used] if name == "copies" else a[used]
            for name, a in extra.items()
        }
        given = (self._hidden, self.ridge, self.restarts, _N_FOLDS, self.seed)
        plan = Plan(*given, self._network)
        found = fit_network(
            self._inputs(logits, **extra),
            objective,
            plan,
            progress,
            None if groups is None else groups[used],
        )
        self._keep(found)

    def _keep(self, found: Found) -> None:
        self.loss_before_ = self.loss_after_ = found.loss_before
        self.compared_ = found.compared
        self.gradient_, self.n_iterations_ = found.gradient, found.n_passes
        if found.is_used:
            self.layers_, self.loss_after_ = found.layers, found.loss_after
            return
        text = (
            "No network did better than the common temperature on fit rows that it "
            f"had not seen, so that T = {self.temperature_:.4g} for every row."
        )
        self.notes_.append(Note("common-temperature", "info", text))

    def _say_common(self, n_right: int, n: int) -> None:
        text = (
            f"Every row gets the common temperature: {n_right:,} of {n:,} fit rows "
            "are right, and a network learns from what sets right and wrong ones apart "
            f"(at least {_FEW_ROWS} of each, and a T within its bounds)."
        )
        self.notes_.append(Note("common-temperature", "warning", text))

    def _output(self, inputs: FloatArray) -> FloatArray:
        """Return what the fitted network says of each row."""
        return output_of(self.layers_, inputs)

    def _temperatures(self, logits: FloatArray, **extra: Any) -> FloatArray:
        if not self.layers_:
            return np.full(len(logits), self.temperature_)
        output = self._output(self._inputs(logits, **extra))
        return np.asarray(self.temperature_ * np.exp(BOUND * np.tanh(output / BOUND)))

    def parameters(self) -> dict[str, Any]:
        """Return the common temperature and the size of the network."""
        return {"temperature": self.temperature_, "n_parameters": self.n_fitted_}

    def _state(self) -> dict[str, Any]:
        """Return what T = T0 exp(b tanh(g(x) / b)) of each row is made of.

        "temperature" T0; "bound" b; "layers" of g, each with "weights" (n_in, n_out)
        and "bias" (n_out,): tanh in between, x first; no layer where T = T0.
        """
        return {
            "temperature": self.temperature_,
            "bound": BOUND,
            "layers": layers_state(self.layers_),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.temperature_ = float(state["temperature"])
        if not LOWEST <= self.temperature_ <= HIGHEST:
            msg = f"temperature {self.temperature_!r} is outside its bounds"
            raise ValueError(msg)
        if float(state["bound"]) != BOUND:
            msg = f"the bound {state['bound']!r} is not {BOUND}"
            raise ValueError(msg)
        layers = state["layers"]
        self.layers_ = layers_from(layers, self._n_inputs) if layers else []
