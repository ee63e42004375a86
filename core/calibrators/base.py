"""What every calibrator does: a scikit-learn estimator over logits."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from core.messages import DataError, Note, Progress, no_progress
from core.registry import Method, Registry
from core.row_statistics import RowStatistics
from core.softmax import row_statistics
from core.validation import checked_logits, log_probabilities, two_class_logits

__all__ = [
    "CALIBRATORS",
    "Calibrator",
    "CalibratorMethod",
    "neg_log_loss_scorer",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class CalibratorMethod(Method):
    """A registered calibrator, and what its class says of itself.

    Parameters
    ----------
    target : type
        Subclass of `Calibrator`.
    """

    target: type[Calibrator]

    @property
    def requires(self) -> frozenset[str]:
        """What a fit needs, within {"logits", "features", "copies"}."""
        return self.target.requires

    @property
    def is_accuracy_preserving(self) -> bool:
        """Whether the predicted class never changes."""
        return self.target.is_accuracy_preserving

    def n_parameters(self, k: int) -> int:
        """Return the number of fitted numbers for k classes."""
        return self.target.n_parameters(k)


CALIBRATORS = Registry("calibrator", CalibratorMethod)
"""Calibrators by id; scikit-learn's and probmetrics' spellings are aliases."""

_BLOCK = 1 << 22  # scores transformed at once where only statistics of them are kept


class Calibrator(ClassifierMixin, TransformerMixin, BaseEstimator):
    """Base of all calibrators: fitted on logits and integer labels.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"
        What `fit` and `transform` are given. Probabilities are replaced by their
        logarithms.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        Column numbers; a class that no fit row has keeps its column.
    n_features_in_ : int
        Score columns: k, or 1 for binary scores.
    notes_ : list of Note
        Bounds hit, non-convergence, missing classes.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"logits"})
    is_accuracy_preserving: ClassVar[bool] = False
    is_order_preserving: ClassVar[bool] = False

    classes_: IndexArray
    n_features_in_: int
    notes_: list[Note]

    def __init__(self, *, input: str = "logits") -> None:
        self.input = input

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Scores of nothing in particular, which scikit-learn's checks fit, hold no
        # information about the labels.
        tags.classifier_tags.poor_score = True
        return tags

    @staticmethod
    @abstractmethod
    def n_parameters(k: int) -> int:
        """Return the number of fitted numbers for k classes."""

    @property
    def n_fitted_(self) -> int:
        """Numbers that this fit chose; more than `n_parameters` says where rows do."""
        return self.n_parameters(len(self.classes_))

    @abstractmethod
    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        """Fit on checked arrays; append to `notes_`."""

    @abstractmethod
    def _transform(self, logits: FloatArray) -> FloatArray:
        """Return calibrated log-probabilities of checked logits."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return the fitted numbers as plain JSON values."""

    @abstractmethod
    def _restore(self, state: dict[str, Any]) -> None:
        """Set the fitted numbers from what `_state` returned."""

    def fit(
        self,
        logits: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        features: ArrayLike | None = None,  # noqa: ARG002 - part of the contract
        copies: ArrayLike | None = None,  # noqa: ARG002
        groups: ArrayLike | None = None,
        progress: Progress = no_progress,
    ) -> Self:
        """Fit on calibration rows, which must not be the rows that are reported on.

        Parameters
        ----------
        logits : array-like of shape (n, k), or (n, 1) for a binary score
            float32 or float64; ``-inf`` marks a masked class.
        y : array-like of int of shape (n,)
            Columns of `logits`.
        sample_weight : array-like of shape (n,), optional
        features, copies : optional
            Used by calibrators that name them in `requires`.
        groups : array-like of int of shape (n,), optional
            Rows that belong together; they widen intervals.
        progress : callable, optional
            Told the fraction done and what is being done; may raise `Cancelled`.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If the scores, labels or weights cannot be used.
        """
        self.notes_ = []
        scores = self._checked(logits, reset=True, y=y)
        labels = _checked_labels(y, *scores.shape)
        self.classes_ = np.arange(scores.shape[1])
        weight = _checked_weight(sample_weight, labels.shape[0])
        mass = np.bincount(labels, weights=weight, minlength=scores.shape[1])
        missing = self.classes_[mass == 0]
        if missing.size:
            text = (
                f"{missing.size} of {scores.shape[1]} classes have no fit row; they "
                "get the parameters that all classes share."
            )
            self.notes_.append(Note("missing-class", "warning", text))
        codes = None if groups is None else np.asarray(groups)
        self._fit(scores, labels, weight, groups=codes, progress=progress)
        return self

    def transform(
        self,
        logits: ArrayLike,
        *,
        features: ArrayLike | None = None,  # noqa: ARG002 - part of the contract
        copies: ArrayLike | None = None,  # noqa: ARG002
    ) -> FloatArray:
        """Return calibrated log-probabilities.

        Parameters
        ----------
        logits : array-like of shape (n, k), or (n, 1) for a binary score
        features, copies : optional
            Used by calibrators that name them in `requires`.

        Returns
        -------
        ndarray of shape (n, k)
            In the float type of `logits`.
        """
        check_is_fitted(self)
        return self._transform(self._checked(logits, reset=False))

    def predict_proba(self, logits: ArrayLike) -> FloatArray:
        """Return calibrated probabilities of shape (n, k)."""
        return np.asarray(np.exp(self.transform(logits)))

    def predict(self, logits: ArrayLike) -> IndexArray:
        """Return the most probable class of each row, shape (n,)."""
        best = self.transform(logits).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def row_statistics(
        self, logits: FloatArray, labels: IndexArray | None = None
    ) -> RowStatistics:
        """Return statistics of the calibrated rows, without keeping their matrix.

        Parameters
        ----------
        logits : ndarray of shape (n, k)
        labels : ndarray of int of shape (n,), optional
        """
        step = max(1, _BLOCK // max(1, logits.shape[1]))
        parts = []
        for start in range(0, max(1, logits.shape[0]), step):
            block = slice(start, start + step)
            truth = None if labels is None else labels[block]
            parts.append(row_statistics(self.transform(logits[block]), truth))
        return RowStatistics.concatenate(parts)

    def parameters(self) -> dict[str, Any]:
        """Return the fitted numbers a person may want to read."""
        return self._state()

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted calibrator as plain JSON values, exactly.

        Returns
        -------
        dict
            "method", "options" (constructor arguments), "input", "n_scores",
            "n_classes" and "parameters"; the last by method, with p = softmax(z), lists
            in the order of the classes, and "curve" meaning class, or the second class
            of two:

            - uncalibrated: nothing.
            - temperature: "temperature" T; softmax(z / T).
            - vector: "weights" and "bias" (k); softmax(weights * z + bias).
            - platt: "slope" and "intercept", one per curve;
              sigmoid(slope * (log p - log(1 - p)) + intercept).
            - beta: "a", "b" and "c", one per curve;
              sigmoid(a * log p - b * log(1 - p) + c).
            - histogram: "maps", one per curve, of "edges" (m + 1) and "values" (m); the
              value of the bin (lo, hi] of p, 0 in the first.
            - isotonic: "mixing" and "maps", one per curve, of knots "x" and "y";
              linear between knots, constant outside; the result is
              (1 - mixing) * mapped + mixing * p.

            For all but the first three: log p and log(1 - p) are floored at -700; the
            first of two classes has the rest; classes whose logit is -inf are set to 0;
            rows of more classes are divided by their sum; rows of zeros become uniform
            over the classes that are not ruled out (isotonic: before the mixing).
        """
        check_is_fitted(self)
        return {
            "method": self.method_id,
            "options": {k: v for k, v in self.get_params().items() if k != "input"},
            "input": self.input,
            "n_scores": int(self.n_features_in_),
            "n_classes": int(self.classes_.size),
            "parameters": self._state(),
        }

    @property
    def method_id(self) -> str:
        """Id of this class in the registry."""
        return next(k for k, m in CALIBRATORS.items() if m.target is type(self))

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Calibrator:
        """Return the fitted calibrator that `to_dict` described."""
        try:
            made = CALIBRATORS[values["method"]](
                **values["options"], input=values["input"]
            )
            made.n_features_in_ = int(values["n_scores"])
            made.classes_ = np.arange(int(values["n_classes"]))
            made.notes_ = []
            made._restore(values["parameters"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"This is not a calibrator that this version can read: {error}.",
                "calibrator file",
                "Choose a JSON file that the Export page or `calibrate` wrote.",
            ) from error
        return made  # type: ignore[no-any-return]

    def _checked(
        self, values: ArrayLike, *, reset: bool, y: ArrayLike | None = None
    ) -> FloatArray:
        if self.input not in ("logits", "probabilities"):
            msg = f"input must be 'logits' or 'probabilities', got {self.input!r}"
            raise ValueError(msg)
        both = {"y": y, "multi_output": False} if reset else {}
        found = validate_data(
            self,
            values,
            reset=reset,
            dtype=[np.float64, np.float32],
            order="C",
            ensure_all_finite=False,
            **both,
        )
        scores = found[0] if both else found
        if self.input == "probabilities":
            return log_probabilities(scores, "probabilities", renormalise=True)[0]
        if reset and _looks_like_probabilities(scores):
            text = (
                "Every row lies in 0 to 1 and sums to 1: these look like "
                "probabilities, not logits. Say input='probabilities' if they are."
            )
            self.notes_.append(Note("looks-like-probabilities", "question", text))
            warnings.warn(text, UserWarning, stacklevel=3)
        return two_class_logits(checked_logits(scores, "logits"))


def neg_log_loss_scorer(estimator: Any, X: ArrayLike, y: ArrayLike) -> float:
    """Return minus the mean log loss; survives classes missing from some folds.

    scikit-learn's ``neg_log_loss`` compares the classes of `y` with the columns of
    the probabilities and fails where a fold lacks a class; calibrators always keep
    every column.
    """
    probabilities = estimator.predict_proba(X)
    chosen = probabilities[np.arange(len(probabilities)), np.asarray(y, dtype=np.int64)]
    tiny = np.finfo(np.float64).tiny
    return float(np.log(np.maximum(chosen, tiny)).mean())


def _looks_like_probabilities(scores: FloatArray) -> bool:
    n, k = scores.shape
    if k < 2 or not n:
        return False
    head = scores[:1000]
    if not ((head >= 0) & (head <= 1)).all():
        return False
    return bool((np.abs(head.sum(axis=1) - 1) <= 1e-3).all())


def _checked_labels(y: ArrayLike, n: int, k: int) -> IndexArray:
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iub" or labels.shape != (n,):
        raise DataError(
            f"Unknown label type: labels must be whole numbers, got {labels.dtype} of "
            f"shape {labels.shape}.",
            "y",
            "Give the column number of each row's class.",
        )
    bad = np.flatnonzero((labels < 0) | (labels >= k))
    if bad.size:
        raise DataError(
            f"The label {labels[bad[0]]} is not a column of the {k} scores.",
            f"y, row {bad[0] + 1}",
            "Number the classes from 0 in column order; leave unlabelled rows out.",
        )
    return labels.astype(np.int64)


def _checked_weight(weight: ArrayLike | None, n: int) -> FloatArray:
    if weight is None:
        return np.ones(n)
    values = np.asarray(weight, dtype=np.float64)
    if values.shape != (n,) or not np.isfinite(values).all() or (values < 0).any():
        raise DataError(
            f"sample_weight has shape {values.shape} or holds values that are negative "
            "or not finite.",
            "sample_weight",
            f"Give {n} finite weights, none of them negative.",
        )
    if values.sum() <= 0:
        what = "All weights are zero."
        raise DataError(what, "sample_weight", "Give some rows weight.")
    return values
