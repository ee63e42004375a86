"""Prior shift: classes are more or less common than where the model was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.checks import possible_weight
from core.calibrators.one_vs_rest import effective_rows
from core.messages import Note, Progress, no_progress
from core.parallel import map_rows
from core.registry import Param
from core.softmax import log_softmax, softmax

__all__ = ["PriorShift", "estimated_prevalence"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_LARGEST = 50.0  # nats; no offset of a fit or of a file is beyond it
_MAX_STEPS = 2000
_STILL = 1e-10  # change of a share at which EM stops
ESTIMATES = ("labels", "em")


@CALIBRATORS.register(
    "prior-shift",
    label="Prior-shift correction",
    reference="Saerens, Latinne and Decaestecker 2002; Alexandari et al. 2020",
    formula=(
        r"q_k \propto p_k \frac{\pi_k}{\rho_k},\quad \rho: \text{prevalence in "
        r"training},\ \pi: \text{prevalence now}"
    ),
    params=(
        Param(
            "estimate",
            "Prevalence",
            "choice",
            "labels",
            choices=ESTIMATES,
            help="From the labels of the fit rows, or by EM from their scores alone.",
        ),
    ),
    tier="more",
    aliases=("label-shift", "saerens"),
    when="Classes are more or less common than in training, and nothing else changed.",
    not_when="Confidence is off for another reason: add a temperature (BCTS).",
    cost="Milliseconds; one number per class.",
)
class PriorShift(Calibrator):
    """Re-weight the classes by how common they are now against in training.

    Parameters
    ----------
    estimate : {"labels", "em"}, default="labels"
        "labels": the ratios pi / rho of largest likelihood, with a ridge of K / n
        towards 1, whatever rho is. "em": pi of largest likelihood of the scores alone,
        without a look at the labels, given rho = `source`.
    prevalence : sequence of float of length k, optional
        A known pi; then nothing is estimated.
    source : sequence of float of length k, optional
        rho, the prevalence where the scores are right. By default equal shares with
        "em", and the shares of the fit rows with a known `prevalence`.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    bias_ : ndarray of shape (k,)
        log(pi / rho), added to the logits.
    prevalence_ : ndarray of shape (k,)
        pi: as given, by EM, or the shares of the fit rows (with one row more, as
        uniform).

    Notes
    -----
    Exact if rows of a class look as they did in training and the scores were right
    there; EM needs both [1]_. Calibrate first where they were not [2]_. For rows
    without labels from yet another place, `adapted` estimates their prevalence by EM.
    A class without fit rows keeps its weight with "labels".

    References
    ----------
    .. [1] M. Saerens, P. Latinne and C. Decaestecker, "Adjusting the outputs of a
       classifier to new a priori probabilities", Neural Computation 14 (2002).
    .. [2] A. Alexandari, A. Kundaje and A. Shrikumar, "Maximum likelihood with
       bias-corrected calibration is hard-to-beat at label shift adaptation", ICML
       2020, arXiv:1901.06852.
    """

    bias_: FloatArray
    prevalence_: FloatArray

    def __init__(
        self,
        *,
        estimate: str = "labels",
        prevalence: Sequence[float] | None = None,
        source: Sequence[float] | None = None,
        input: str = "logits",
    ) -> None:
        self.estimate = estimate
        self.prevalence = prevalence
        self.source = source
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return 1 less than the number of classes: shares sum to 1."""
        return k - 1

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,  # noqa: ARG002 - shares have no interval here
        progress: Progress,
    ) -> None:
        if self.estimate not in ESTIMATES:
            msg = f"estimate must be one of {ESTIMATES}, got {self.estimate!r}"
            raise ValueError(msg)
        k = logits.shape[1]
        weight = possible_weight(logits, y, sample_weight)
        weight = weight if weight.any() else sample_weight
        share = weight / weight.sum()
        n = effective_rows(weight)
        mass = np.asarray(np.bincount(y, share, minlength=k), np.float64)
        self.prevalence_ = (n * mass + 1.0 / k) / (n + 1.0)
        source = None if self.source is None else _shares(self.source, k, "source")
        if self.prevalence is not None:
            rho = self.prevalence_ if source is None else source
            self.prevalence_ = _shares(self.prevalence, k, "prevalence")
            self.bias_ = _offsets(self.prevalence_, rho)
        elif self.estimate == "em":
            rho = np.full(k, 1.0 / k) if source is None else source
            p = softmax(logits.astype(np.float64))
            self.prevalence_ = estimated_prevalence(p, rho, weight, progress=progress)
            self.bias_ = _offsets(self.prevalence_, rho)
        else:
            p = softmax(logits.astype(np.float64))
            self.bias_ = _likeliest_offsets(p, mass, share, k / n, progress)
        if (np.abs(self.bias_) >= _LARGEST).any():
            text = "A class's weight is at its bound."
            self.notes_.append(Note("fit-at-bound", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = np.empty(logits.shape, logits.dtype)

        def rows(start: int, stop: int) -> None:
            z = logits[start:stop]
            shifted = z - z.max(axis=1, keepdims=True)
            scores = shifted.astype(np.float64) + self.bias_
            result[start:stop] = log_softmax(scores, algorithm="three-pass")

        map_rows(rows, len(logits), 24 * logits.shape[1] + 64)
        return result

    def adapted(self, logits: ArrayLike, *, progress: Progress = no_progress) -> Self:
        """Return a copy for other rows, their prevalence estimated without labels.

        Parameters
        ----------
        logits : array-like of shape (n, k), or (n, 1) for a binary score
            Rows whose labels are not known.
        progress : callable, optional

        Returns
        -------
        PriorShift
            Fitted: pi by EM on what this calibrator says of the rows, rho its own pi.
        """
        p = self.predict_proba(logits).astype(np.float64)
        found = self.from_dict(self.to_dict())
        assert isinstance(found, type(self))  # noqa: S101 - what to_dict is of
        weight = np.ones(len(p))
        found.prevalence_ = estimated_prevalence(
            p, self.prevalence_, weight, progress=progress
        )
        change = _offsets(found.prevalence_, self.prevalence_)
        found.bias_ = np.clip(self.bias_ + change, -_LARGEST, _LARGEST)
        return found

    def _state(self) -> dict[str, Any]:
        """Return "bias" (k) and "prevalence" (k): softmax(z + bias)."""
        return {"bias": self.bias_.tolist(), "prevalence": self.prevalence_.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        self.bias_ = np.array(state["bias"], dtype=np.float64)
        self.prevalence_ = np.array(state["prevalence"], dtype=np.float64)
        k = self.classes_.size
        _shares(state["prevalence"], k, "prevalence")
        if self.bias_.shape != (k,):
            msg = f"there are {self.bias_.size} offsets for {k} classes"
            raise ValueError(msg)
        if not (np.abs(self.bias_) <= _LARGEST).all():  # nor NaN
            msg = "an offset is out of range"
            raise ValueError(msg)


def estimated_prevalence(
    p: FloatArray,
    source: FloatArray,
    weight: FloatArray,
    *,
    progress: Progress = no_progress,
) -> FloatArray:
    """Return the prevalence of largest likelihood of rows without labels, by EM.

    Parameters
    ----------
    p : ndarray of float64 of shape (n, k)
        Probabilities that are right where classes have the prevalence `source`.
    source : ndarray of shape (k,)
        Positive, sums to 1. It also counts as one more row, which keeps shares off 0.
    weight : ndarray of shape (n,)
    progress : callable, optional

    Returns
    -------
    ndarray of shape (k,)
    """
    share, n = weight / weight.sum(), effective_rows(weight)
    found = source.copy()
    for step in range(_MAX_STEPS):
        if step % 50 == 0:
            progress(min(0.95, step / 500), "Estimating the prevalence")
        ratio = found / source
        seen = ratio * (p.T @ (share / np.maximum(p @ ratio, np.finfo(float).tiny)))
        after = (n * seen + source) / (n * seen.sum() + 1.0)
        still = np.abs(after - found).max() < _STILL
        found = after
        if still:
            break
    return np.asarray(found / found.sum())


def _likeliest_offsets(
    p: FloatArray, mass: FloatArray, share: FloatArray, ridge: float, progress: Progress
) -> FloatArray:
    """Return the offsets of least NLL + ridge / 2 |b|^2; 0 where a class has no row."""
    is_free = mass > 0
    bias = np.zeros(mass.size)
    n_done = 0

    def value(b: FloatArray) -> tuple[float, FloatArray]:
        nonlocal n_done
        progress(min(0.95, n_done / 50), "Fitting the weights of classes")
        n_done += 1
        bias[is_free] = b
        ratio = np.exp(bias)
        whole = np.maximum(p @ ratio, np.finfo(float).tiny)
        seen = ratio * (p.T @ (share / whole))
        loss = float(share @ np.log(whole) - mass @ bias) + 0.5 * ridge * float(b @ b)
        return loss, (seen - mass)[is_free] + ridge * b

    options = {"gtol": 1e-9, "ftol": 0.0, "maxiter": 500, "maxcor": 20}
    start = np.zeros(int(is_free.sum()))
    bounds = [(-_LARGEST, _LARGEST)] * start.size
    found = scipy.optimize.minimize(
        value, start, method="L-BFGS-B", jac=True, bounds=bounds, options=options
    )
    bias[is_free] = found.x
    return bias


def _offsets(prevalence: FloatArray, source: FloatArray) -> FloatArray:
    change = np.log(prevalence) - np.log(source)
    return np.asarray(np.clip(change, -_LARGEST, _LARGEST))


def _shares(values: Sequence[float], k: int, name: str) -> FloatArray:
    """Return positive numbers, one per class, that sum to 1."""
    found = np.array(values, dtype=np.float64)
    if found.shape != (k,) or not ((found > 0) & np.isfinite(found)).all():
        msg = f"{name} must hold {k} positive numbers, got {values!r}"
        raise ValueError(msg)
    return np.asarray(found / found.sum())
