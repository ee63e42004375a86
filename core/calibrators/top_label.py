"""Top-versus-all: calibrators of the one question whether the prediction is right."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.histogram import HistogramBinning
from core.calibrators.isotonic import IsotonicCalibration
from core.calibrators.logistic import BetaCalibration, PlattScaling
from core.calibrators.one_vs_rest import LOWEST_LOG, Chances, OneVsRest
from core.calibrators.row_losses import TOP_LABEL, RowLoss, is_right
from core.calibrators.row_temperature import divided
from core.calibrators.scaling import HIGHEST, LOWEST, TemperatureScaling
from core.messages import Note, Progress
from core.parallel import map_rows
from core.softmax import log_softmax

__all__ = [
    "KEPT_GAP",
    "TopVersusAll",
    "TopVersusAllBeta",
    "TopVersusAllHistogram",
    "TopVersusAllIsotonic",
    "TopVersusAllPlatt",
    "raised",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

KEPT_GAP = 1e-6
"""How far the log-probability of the prediction stays above the runner-up's."""

_COMMON: dict[str, Any] = {
    "reference": "Le Coz, Herbin and Adjed 2024, arXiv:2411.02988",
    "when": "Only the confidence of the predicted class matters.",
    "not_when": "Probabilities of the other classes are used.",
    "cost": "Milliseconds; one curve for all classes.",
}
_N_GRID = 25  # temperatures tried before the search between two of them
_NOTABLE = 0.01  # share of rows held at the runner-up from which a note says so


class _Top(NamedTuple):
    """A row's prediction against all other classes; shapes (n,).

    Attributes
    ----------
    place : ndarray of int64
        Column of the prediction.
    gap : ndarray
        Its log-probability minus the largest other one; infinite where no other class
        is open.
    log_rest : ndarray
        ln((1 - q) / q), exact where q rounds to 1; -inf where no other class is open.
    """

    place: IndexArray
    gap: FloatArray
    log_rest: FloatArray

    @property
    def pair(self) -> FloatArray:
        """Log-probabilities of "wrong" and "right", shape (n, 2)."""
        log_right = -np.logaddexp(0.0, self.log_rest)
        return np.stack([self.log_rest + log_right, log_right], axis=1)


def top_of(logits: FloatArray, temperature: float) -> _Top:
    """Return what the confidence of each row at T is made of, in double precision."""
    n = len(logits)
    place = logits.argmax(axis=1)
    gap, log_rest = np.empty(n), np.empty(n)

    def rows(start: int, stop: int) -> None:
        z = logits[start:stop].astype(np.float64)
        here = np.arange(stop - start)
        top = z[here, place[start:stop]].copy()
        z[here, place[start:stop]] = -np.inf
        second = z.max(axis=1)
        is_open = second > -np.inf
        z = (z - np.where(is_open, second, 0.0)[:, None]) / temperature
        with np.errstate(divide="ignore"):
            log_mass = np.log(np.exp(z).sum(axis=1))
        lead = (top - second) / temperature
        gap[start:stop] = lead
        log_rest[start:stop] = np.where(is_open, log_mass - lead, -np.inf)

    map_rows(rows, n, 24 * logits.shape[1] + 64)
    return _Top(place, gap, log_rest)


def raised(
    log_p: FloatArray, place: IndexArray, change: FloatArray | float
) -> FloatArray:
    """Return rows in which the log-odds of one class are changed; it stays the largest.

    Parameters
    ----------
    log_p : ndarray of shape (n, k)
        Log-probabilities, or logits.
    place : ndarray of int64 of shape (n,)
        Column of the largest one.
    change : float or ndarray of shape (n,)
        What is added to its log-odds. A fall stops `KEPT_GAP` above the runner-up,
        at once where that is nearer.

    Returns
    -------
    ndarray of shape (n, k)
        Log-probabilities; the other classes keep their ratios.
    """
    result = np.empty(log_p.shape, log_p.dtype)
    wanted = np.broadcast_to(change, place.shape)

    def rows(start: int, stop: int) -> None:
        z = log_p[start:stop].astype(np.float64)
        here, columns = np.arange(stop - start), place[start:stop]
        top = z[here, columns].copy()
        z[here, columns] = -np.inf
        fall = np.maximum(top - z.max(axis=1) - KEPT_GAP, 0.0)
        z[here, columns] = top + np.maximum(wanted[start:stop], -fall)
        result[start:stop] = log_softmax(z, algorithm="three-pass")

    map_rows(rows, len(log_p), 32 * log_p.shape[1] + 64)
    return result


class _TopLabel(Calibrator):
    """Base: the prediction and the order of the classes never change."""

    is_accuracy_preserving = is_order_preserving = True


@CALIBRATORS.register(
    "top-versus-all",
    label="Top-versus-all temperature",
    **_COMMON,
    formula=(
        r"\mathrm{softmax}(z / T),\quad T = \arg\min_{T>0} \sum_i "
        r"-c_i \ln q_i - (1 - c_i) \ln(1 - q_i),\quad q = \max_k p_k"
    ),
    aliases=("tva", "top-versus-all-temperature"),
)
class TopVersusAll(_TopLabel):
    """Divide the logits by the T whose confidences say best which rows are right.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    temperature_ : float
        T; above 1 it lowers confidence.
    loss_before_, loss_after_ : float
        Mean log loss of the confidence on the fit rows, at T = 1 and at the optimum.
    is_at_bound_ : bool

    Notes
    -----
    Temperature scaling asks for the probability of the true class, this for the
    probability that the prediction is right: rows that are wrong say nothing about
    which class is right instead [1]_. The loss is not convex in T: 25 temperatures
    from 0.001 to 1000 are tried, and the best neighbourhood is searched.

    References
    ----------
    .. [1] A. Le Coz, S. Herbin and F. Adjed, "Confidence calibration of classifiers
       with many classes", NeurIPS 2024, arXiv:2411.02988.
    """

    temperature_: float
    loss_before_: float
    loss_after_: float
    is_at_bound_: bool

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 1."""
        return 1

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,  # noqa: ARG002 - T has no interval here
        progress: Progress,
    ) -> None:
        # Rows with one open class are right or wrong at any temperature.
        is_usable = (logits > -np.inf).sum(axis=1) > 1
        used = np.flatnonzero((sample_weight > 0) & is_usable)
        self.temperature_, self.is_at_bound_ = 1.0, not used.size
        self.loss_before_ = self.loss_after_ = float("nan")
        if used.size:
            self._search(logits[used], y[used], sample_weight[used], progress)
        right = is_right(logits[used], y[used])
        if self.is_at_bound_:
            why = "the confidences say nothing about which rows are right"
            if right.all() or not right.any():
                why = f"all fit rows are {'right' if right.all() else 'wrong'}"
            text = f"T is at its bound {self.temperature_:g}: {why}."
            self.notes_.append(Note("fit-at-bound", "warning", text))

    def _search(
        self, logits: FloatArray, y: IndexArray, weight: FloatArray, progress: Progress
    ) -> None:
        loss = RowLoss(logits, y, weight, TOP_LABEL)
        rows = np.arange(y.size)
        n_done = 0

        def value(log_t: float) -> float:
            nonlocal n_done
            n_done += 1
            progress(min(0.95, n_done / 50), "Fitting the temperature")
            return loss(np.full(rows.size, log_t), rows)[0]

        grid = np.linspace(np.log(LOWEST), np.log(HIGHEST), _N_GRID)
        values = np.array([value(point) for point in grid])
        best = int(values.argmin())
        self.loss_before_ = value(0.0)
        self.is_at_bound_ = best in (0, _N_GRID - 1)
        found, self.loss_after_ = float(grid[best]), float(values[best])
        if not self.is_at_bound_:
            low, high = grid[best - 1], grid[best + 1]
            options = {"xatol": 1e-8, "maxiter": 100}
            near = scipy.optimize.minimize_scalar(
                value, bounds=(low, high), method="bounded", options=options
            )
            if near.fun <= self.loss_after_:
                found, self.loss_after_ = float(near.x), float(near.fun)
        self.temperature_ = float(np.clip(np.exp(found), LOWEST, HIGHEST))

    def _transform(self, logits: FloatArray) -> FloatArray:
        return divided(logits, np.full(len(logits), self.temperature_))

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T: softmax(z / T)."""
        return {"temperature": self.temperature_}

    def _restore(self, state: dict[str, Any]) -> None:
        self.temperature_ = _checked_temperature(state)


def _checked_temperature(state: dict[str, Any]) -> float:
    value = float(state["temperature"])
    if not LOWEST <= value <= HIGHEST:
        msg = f"temperature {value!r} is outside its bounds"
        raise ValueError(msg)
    return value


class TopCurve(_TopLabel):
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
        start = TemperatureScaling()
        start.notes_ = []
        start._fit(logits, y, sample_weight, groups=groups, progress=progress)
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

    def _remark(self, top: _Top, right: NDArray[np.bool_]) -> None:
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

    def _change(self, top: _Top) -> FloatArray:
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
        self.temperature_ = _checked_temperature(state)
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
    **_COMMON,
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
    **_COMMON,
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
    **_COMMON,
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
    **_COMMON,
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
