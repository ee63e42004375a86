"""Top-versus-all with curves: one for the confidence, whatever the class is."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.histogram import HistogramBinning
from core.calibrators.isotonic import IsotonicCalibration
from core.calibrators.logistic import BetaCalibration, PlattScaling
from core.calibrators.one_vs_rest import LOWEST_LOG, Chances, OneVsRest
from core.calibrators.row_losses import is_right
from core.calibrators.row_temperature import divided
from core.calibrators.scaling import fitted_temperature
from core.calibrators.top_label import COMMON, TopLabel, checked_temperature
from core.calibrators.top_rows import KEPT_GAP, Top, raised, top_of
from core.messages import Note, Progress

__all__ = [
    "TopCurve",
    "TopVersusAllBeta",
    "TopVersusAllHistogram",
    "TopVersusAllIsotonic",
    "TopVersusAllPlatt",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_NOTABLE = 0.01  # share of rows held at the runner-up from which a note says so


class TopCurve(TopLabel):
    """Base: a calibrator of two classes maps the confidence, the rest is rescaled.

    Attributes
    ----------
    temperature_ : float
        T of temperature scaling on the same rows, which comes first: it decides the
        ratios of the other classes.
    curve_ : Calibrator
        Fitted on the confidence at T against right or wrong.
    """

    temperature_: float

    _curve: ClassVar[type[OneVsRest]]

    curve_: OneVsRest

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        start = fitted_temperature(logits, y, sample_weight, groups, progress)
        self.temperature_ = start.temperature_
        top = top_of(logits, self.temperature_)
        right = is_right(logits, y)
        curve = self._curve(**self._curve_options())
        curve.notes_ = []
        curve.classes_, curve.n_features_in_ = np.arange(2), 2
        used = np.flatnonzero((sample_weight > 0) & np.isfinite(top.log_rest))
        outcome, weight = right[used].astype(np.float64), sample_weight[used]
        if used.size and 0.0 < outcome.mean() < 1.0:
            # On the very numbers that `_log_odds` gets: a curve can be steep.
            pair = np.maximum(top.pair[used], LOWEST_LOG)
            found = Chances(pair[:, 1].copy(), pair[:, 0].copy())
            curve._keep([curve._fit_curve(found, outcome, weight)], weight)
        else:
            curve._fit(
                *(top.pair, right.astype(np.int64), sample_weight),
                groups=groups,
                progress=progress,
            )
        self.curve_ = curve
        self._remark(top, right)

    def _curve_options(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def _log_odds(self, log_q: FloatArray, log_rest: FloatArray) -> FloatArray:
        """Return the log-odds that the curve gives, from ln q and ln(1 - q).

        A curve can be steep: the steps are those of the exported module.
        """

    def _remark(self, top: Top, right: NDArray[np.bool_]) -> None:
        """Add what a user should know; the curve speaks of two classes, not of k."""
        if right.all() or not right.any():
            text = (
                f"All fit rows are {'right' if right.all() else 'wrong'}: nothing sets "
                "right and wrong ones apart."
            )
            self.notes_.append(Note("one-outcome", "warning", text))
        kept = {"not-converged", "flat-curves", "separable", "thin-bins"}
        self.notes_ += [note for note in self.curve_.notes_ if note.code in kept]
        wanted = self._change(top)
        n_held = int((wanted < -np.maximum(top.gap - KEPT_GAP, 0.0)).sum())
        if n_held > _NOTABLE * wanted.size:
            text = (
                f"In {n_held:,} of {wanted.size:,} fit rows the confidence should be "
                "so low that another class would be predicted; it stays just above "
                "the runner-up."
            )
            self.notes_.append(Note("held-at-runner-up", "info", text))

    def _change(self, top: Top) -> FloatArray:
        """Return what the curve adds to the log-odds of each confidence."""
        is_open = np.isfinite(top.log_rest)
        change = np.zeros(top.log_rest.size)
        log_rest, log_q = top.pair[is_open].T
        change[is_open] = self._log_odds(log_q, log_rest) + top.log_rest[is_open]
        return change

    def _transform(self, logits: FloatArray) -> FloatArray:
        top = top_of(logits, self.temperature_)
        even = np.full(len(logits), self.temperature_)
        return raised(divided(logits, even), top.place, self._change(top))

    def parameters(self) -> dict[str, Any]:
        """Return what a person may want to read of the curve."""
        return {"temperature": self.temperature_} | self.curve_.parameters()

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T and the curve of q, the largest of softmax(z / T).

        With lists of one: "slope" A and "intercept" B, sigmoid(A logit(q) + B); or "a",
        "b" and "c", sigmoid(a log q - b log(1 - q) + c); or "mixing" m and "maps" of
        knots "x" and "y", (1 - m) f(q) + m q; or "maps" of "edges" and "values", the
        value of the bin (lo, hi] of q. The others share the rest in their ratios; the
        log-probability of the largest stays 1e-6 above the second's.
        """
        return {"temperature": self.temperature_} | self.curve_._state()

    def _restore(self, state: dict[str, Any]) -> None:
        self.temperature_ = checked_temperature(state)
        curve = self._curve(**self._curve_options())
        curve.classes_, curve.n_features_in_ = np.arange(2), 2
        curve.notes_ = []
        curve._restore(state)
        self.curve_ = curve


def _logistic_log_odds(
    self: TopVersusAllPlatt | TopVersusAllBeta, log_q: FloatArray, log_rest: FloatArray
) -> FloatArray:
    a, b, c = self.curve_.coefficients_[0]
    log_q, log_rest = np.maximum(log_q, LOWEST_LOG), np.maximum(log_rest, LOWEST_LOG)
    return np.asarray(a * log_q - b * log_rest + c)


@CALIBRATORS.register(
    "top-versus-all-platt",
    label="Top-versus-all Platt",
    **COMMON,
    formula=(
        r"q \to \sigma\!\left(A \ln \tfrac{q}{1 - q} + B\right),\quad "
        r"q = \max_k p_k,\ p = \mathrm{softmax}(z / T),\quad \text{other ratios kept}"
    ),
    aliases=("tva-platt",),
)
class TopVersusAllPlatt(TopCurve):
    """Map the confidence by one logistic curve; the other classes share the rest.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    curve_ : PlattScaling
        Of two classes: the prediction is wrong, or right.

    Notes
    -----
    The question is only whether the prediction is right, with one curve for all
    classes, however many there are [1]_. What differs: temperature scaling comes
    first, as ratios of overconfident scores cost much log loss when the curve lowers
    a confidence; and a confidence cannot fall below the runner-up's (it stays just
    above), so that the prediction never changes.

    References
    ----------
    .. [1] A. Le Coz, S. Herbin and F. Adjed, "Confidence calibration of classifiers
       with many classes", NeurIPS 2024, arXiv:2411.02988.
    """

    curve_: PlattScaling

    _curve = PlattScaling

    _log_odds = _logistic_log_odds

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 3: T, slope and intercept."""
        return 3


@CALIBRATORS.register(
    "top-versus-all-beta",
    label="Top-versus-all beta",
    **COMMON,
    formula=(
        r"q \to \sigma\!\left(a \ln q - b \ln(1 - q) + c\right),\quad "
        r"q = \max_k p_k,\ p = \mathrm{softmax}(z / T),\quad \text{other ratios kept}"
    ),
    aliases=("tva-beta",),
)
class TopVersusAllBeta(TopCurve):
    """Map the confidence by one beta curve; the other classes share the rest.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    curve_ : BetaCalibration
        Of two classes: the prediction is wrong, or right.

    Notes
    -----
    As "top-versus-all-platt", with the beta curve of Kull et al. [1]_.

    References
    ----------
    .. [1] A. Le Coz, S. Herbin and F. Adjed, "Confidence calibration of classifiers
       with many classes", NeurIPS 2024, arXiv:2411.02988.
    """

    curve_: BetaCalibration

    _curve = BetaCalibration

    _log_odds = _logistic_log_odds

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 4: T, a, b and c."""
        return 4


@CALIBRATORS.register(
    "top-versus-all-isotonic",
    label="Top-versus-all isotonic",
    **COMMON,
    formula=(
        r"q \to f(q),\quad f \text{ non-decreasing, least squares},\quad "
        r"q = \max_k p_k,\ p = \mathrm{softmax}(z / T),\quad \text{other ratios kept}"
    ),
    aliases=("tva-isotonic",),
)
class TopVersusAllIsotonic(TopCurve):
    """Map the confidence by one rising curve; the other classes share the rest.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    curve_ : IsotonicCalibration
        Of two classes: the prediction is wrong, or right.

    Notes
    -----
    As "top-versus-all-platt", with isotonic regression; like there, the curve is mixed
    with 1 / (n + 1) of the confidence itself, so that it reaches neither 0 nor 1.

    References
    ----------
    .. [1] A. Le Coz, S. Herbin and F. Adjed, "Confidence calibration of classifiers
       with many classes", NeurIPS 2024, arXiv:2411.02988.
    """

    _curve = IsotonicCalibration

    curve_: IsotonicCalibration

    def _log_odds(self, log_q: FloatArray, log_rest: FloatArray) -> FloatArray:
        q, rest = np.exp(log_q), np.exp(np.maximum(log_rest, LOWEST_LOG))
        found, share = np.interp(q, *self.curve_.maps_[0]), self.curve_.mixing_
        right = (1.0 - share) * found + share * q
        wrong = (1.0 - share) * (1.0 - found) + share * rest
        return np.asarray(np.log(right) - np.log(wrong))

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 2: T and the curve, which has as many knots as the rows ask for."""
        return 2

    @property
    def n_fitted_(self) -> int:
        """T and the number of knots."""
        return 1 + self.curve_.n_fitted_


@CALIBRATORS.register(
    "top-versus-all-histogram",
    label="Top-versus-all histogram",
    **COMMON,
    formula=(
        r"q \to v_{b(q)},\quad v_b = \frac{\#\{\text{right in bin } b\} + 1}{n_b + 2},"
        r"\quad q = \max_k p_k,\ p = \mathrm{softmax}(z / T)"
    ),
    params=tuple(
        p for p in CALIBRATORS["histogram"].params if p.name in ("n_bins", "strategy")
    ),
    tier="more",
    aliases=("tva-histogram",),
)
class TopVersusAllHistogram(TopCurve):
    """Replace the confidence by the share of right rows in its bin; rescale the rest.

    Parameters
    ----------
    n_bins : int, default=15
        Bins of the confidence.
    strategy : {"quantile", "uniform"}, default="quantile"
        Equal counts of fit rows, or equal widths.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    curve_ : HistogramBinning
        Of two classes: the prediction is wrong, or right.

    Notes
    -----
    As "top-versus-all-platt", with the histogram binning of this registry: a bin says
    (hits + 1) / (rows + 2).

    References
    ----------
    .. [1] A. Le Coz, S. Herbin and F. Adjed, "Confidence calibration of classifiers
       with many classes", NeurIPS 2024, arXiv:2411.02988.
    """

    _curve = HistogramBinning

    curve_: HistogramBinning

    def _log_odds(self, log_q: FloatArray, log_rest: FloatArray) -> FloatArray:
        del log_rest  # the bins are those of q
        value = self.curve_.map_probability(np.exp(log_q))
        return np.asarray(np.log(value) - np.log(1.0 - value))

    def __init__(
        self, *, n_bins: int = 15, strategy: str = "quantile", input: str = "logits"
    ) -> None:
        self.n_bins = n_bins
        self.strategy = strategy
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return T and the values of all bins, at the default number of bins."""
        return 16

    def _curve_options(self) -> dict[str, Any]:
        return {"n_bins": self.n_bins, "strategy": self.strategy}
