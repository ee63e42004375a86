"""Intra-order-preserving maps: the gaps between sorted logits are rescaled."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.one_vs_rest import effective_rows
from core.calibrators.ridged import Ridged
from core.calibrators.scaling import fitted_temperature
from core.messages import Note, Progress
from core.parallel import map_rows
from core.registry import Param
from core.softmax import log_softmax

__all__ = ["IntraOrderPreserving"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_LEAST = 1e-3  # a factor may not fall below this share of the common one
_TOLERANCE = 1e-6  # of the gradient, in units in which the common factor is 1
_MAX_ITERATIONS = 300
_LARGEST = 1e9  # no factor of a file may be beyond it


@CALIBRATORS.register(
    "intra-order-preserving",
    label="Intra-order-preserving",
    reference="Rahimi et al. 2020, arXiv:2003.06820",
    formula=(
        r"\mathrm{softmax}(f),\quad f_{(i)} = \sum_{j \ge i} m_j "
        r"\left(z_{(j)} - z_{(j+1)}\right),\quad m_j > 0,\quad z_{(1)} \ge z_{(2)} \ge "
        r"\dots"
    ),
    params=(
        Param(
            "ridge",
            "Ridge",
            "float",
            1.0,
            minimum=0.0,
            maximum=1e6,
            help=(
                "How strongly the factors of the gaps are held to the common inverse "
                "temperature; 0 leaves them free."
            ),
        ),
    ),
    aliases=("iop", "order-preserving"),
    when="All ranks of the classes must stay, yet one temperature is too little.",
    not_when="Few rows and many classes.",
    cost="Tens of milliseconds; one number per gap.",
)
class IntraOrderPreserving(Ridged):
    """Rescale the gap between each two neighbours of a row's sorted logits.

    Parameters
    ----------
    ridge : float, default=1.0
        lambda, 0 or more: (lambda / n) |T m - 1|^2 is added to the mean NLL.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    factors_ : ndarray of shape (k - 1,)
        m: of the gap between the largest and the second logit, and so on; all are 1 / T
        at the start of the fit.
    temperature_ : float
        T of temperature scaling on the same rows.
    gradient_ : float
        Largest derivative at the end among factors that are off their bound, in units
        in which the common factor is 1: the certificate, at most 1e-6.
    nll_before_, nll_after_ : float
        Mean NLL of the fit rows at T and at the optimum, without the ridge.
    n_iterations_ : int
        Evaluations of the objective.

    Notes
    -----
    The map of [1]_ with constant factors instead of a network of the sorted logits:
    then the objective is convex and the optimum unique. The order of the classes of a
    row never changes; factors stay above 0.001 / T. n is the effective number of rows.
    Where classes of a row are ruled out (-inf), it has fewer gaps.

    References
    ----------
    .. [1] A. Rahimi, A. Shaban, C.-A. Cheng, R. Hartley and B. Boots, "Intra
       order-preserving functions for calibration of multi-class neural networks",
       NeurIPS 2020, arXiv:2003.06820.
    """

    is_accuracy_preserving = True
    is_order_preserving = True

    factors_: FloatArray
    temperature_: float
    gradient_: float
    nll_before_: float
    nll_after_: float
    n_iterations_: int

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return one per gap."""
        return k - 1

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        self._check_ridge()
        start = fitted_temperature(logits, y, sample_weight, groups, progress)
        self.notes_ += start.notes_
        self.temperature_ = start.temperature_
        k = logits.shape[1]
        common = np.full(k - 1, 1.0 / start.temperature_)
        self.factors_, self.gradient_, self.n_iterations_ = common, 0.0, 0
        self.nll_before_ = self.nll_after_ = start.nll_after_
        possible = np.isfinite(logits[np.arange(y.size), y])
        used = np.flatnonzero(possible & (sample_weight > 0))
        if start.is_at_bound_ or not used.size:
            return
        fit = _GapFit(logits[used], y[used], sample_weight[used], common[0], self.ridge)
        scaled = fit.minimise(progress)
        self.factors_ = scaled * common
        self.gradient_, self.n_iterations_ = fit.certificate, fit.n_passes
        self.nll_before_ = fit.objective(np.ones(k - 1), ridge=0.0)[0]
        self.nll_after_ = fit.objective(scaled, ridge=0.0)[0]
        self._remark(scaled)

    def _remark(self, scaled: FloatArray) -> None:
        if not self.gradient_ <= 10 * _TOLERANCE:
            text = (
                f"The fit stopped with a gradient of {self.gradient_:.2g} after "
                f"{self.n_iterations_} passes."
            )
            self.notes_.append(Note("not-converged", "warning", text))
        n_least = int((scaled <= _LEAST * (1 + 1e-9)).sum())
        if n_least:
            text = (
                f"{n_least:,} of {scaled.size:,} factors are at their lower bound: "
                "those gaps between neighbours say next to nothing."
            )
            self.notes_.append(Note("fit-at-bound", "info", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = np.empty(logits.shape, logits.dtype)

        def rows(start: int, stop: int) -> None:
            z = logits[start:stop].astype(np.float64)
            order = np.argsort(-z, axis=1, kind="stable")
            falls = gaps(np.take_along_axis(z, order, axis=1)) * self.factors_
            scores = np.zeros(z.shape)
            scores[:, 1:] = -np.cumsum(falls, axis=1)
            found = np.empty(z.shape)
            np.put_along_axis(found, order, scores, axis=1)
            found[np.isneginf(z)] = -np.inf
            result[start:stop] = log_softmax(found, algorithm="three-pass")

        map_rows(rows, len(logits), 64 * logits.shape[1] + 64)
        return result

    def _state(self) -> dict[str, Any]:
        """Return the "factors" m (k - 1) of the gaps between sorted logits.

        With z_(1) >= z_(2) >= ...: softmax of f, f_(i) = -sum over j < i of
        m_j (z_(j) - z_(j+1)).
        """
        return {"factors": self.factors_.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        self.factors_ = np.array(state["factors"], dtype=np.float64)
        if self.factors_.shape != (self.classes_.size - 1,):
            msg = f"there are {self.factors_.size} factors for {self.classes_.size - 1}"
            raise ValueError(msg)
        if not ((self.factors_ > 0) & (self.factors_ <= _LARGEST)).all():  # nor NaN
            msg = "a factor is out of range"
            raise ValueError(msg)


def gaps(ordered: FloatArray) -> FloatArray:
    """Return the gaps between neighbours of descending rows; 0 beside a -inf."""
    with np.errstate(invalid="ignore"):
        found = ordered[:, :-1] - ordered[:, 1:]
    found[np.isneginf(ordered[:, 1:])] = 0.0
    return np.asarray(found)


class _GapFit:
    """Minimises mean NLL + ridge in factors relative to the common one."""

    def __init__(
        self,
        logits: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        beta: float,
        ridge: float,
    ) -> None:
        z = logits.astype(np.float64)
        order = np.argsort(-z, axis=1, kind="stable")
        ordered = np.take_along_axis(z, order, axis=1)
        self.gaps = beta * gaps(ordered)
        self.is_open = ordered > -np.inf
        # Whether the label lies below each gap.
        rank = (order == y[:, None]).argmax(axis=1)
        self.is_below = rank[:, None] > np.arange(z.shape[1] - 1)
        self.weight = weight / weight.sum()
        self.penalty = ridge / effective_rows(weight)
        self.n_passes = 0
        self.certificate = 0.0

    def objective(
        self, factors: FloatArray, ridge: float | None = None
    ) -> tuple[float, FloatArray]:
        """Return mean NLL + ridge, and the gradient."""
        penalty = self.penalty if ridge is None else ridge
        n, k = self.is_open.shape
        parts = map_rows(
            lambda start, stop: self._part(factors, slice(start, stop)), n, 64 * k
        )
        loss = sum(part[0] for part in parts)
        gradient = np.sum([part[1] for part in parts], axis=0)
        bent = factors - 1.0
        return (
            float(loss + penalty * (bent @ bent)),
            np.asarray(gradient + 2.0 * penalty * bent),
        )

    def _part(self, factors: FloatArray, rows: slice) -> tuple[float, FloatArray]:
        """Return the sums over some rows."""
        falls, is_below = self.gaps[rows], self.is_below[rows]
        scaled = falls * factors
        p = np.empty(self.is_open[rows].shape)
        p[:, 0] = 0.0
        np.cumsum(scaled, axis=1, out=p[:, 1:])
        p = np.where(self.is_open[rows], np.exp(-p), 0.0)
        total = p.sum(axis=1)
        weight = self.weight[rows]
        # Probability of everything below each gap, summed from the small end.
        below = np.cumsum(p[:, :0:-1], axis=1)[:, ::-1] / total[:, None]
        loss = np.log(total) + (scaled * is_below).sum(axis=1)
        return float(weight @ loss), weight @ (falls * (is_below - below))

    def minimise(self, progress: Progress) -> FloatArray:
        """Return factors relative to the common one."""
        n_factors = self.gaps.shape[1]

        def value(factors: FloatArray) -> tuple[float, FloatArray]:
            self.n_passes += 1
            progress(min(0.95, self.n_passes / 60), "Fitting the factors of the gaps")
            return self.objective(factors)

        found = scipy.optimize.minimize(
            value,
            np.ones(n_factors),
            method="L-BFGS-B",
            jac=True,
            bounds=[(_LEAST, None)] * n_factors,
            options={
                "gtol": _TOLERANCE,
                "ftol": 0.0,
                "maxcor": 20,
                "maxiter": _MAX_ITERATIONS,
                "maxfun": 2 * _MAX_ITERATIONS,
            },
        )
        gradient = self.objective(found.x)[1]
        is_held = (found.x <= _LEAST) & (gradient > 0)
        self.certificate = float(np.abs(gradient[~is_held]).max(initial=0.0))
        return np.asarray(found.x)
