"""What every calibrator does: a scikit-learn estimator over logits."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.calibrators.checks import (
    checked_features,
    checked_labels,
    checked_weight,
    looks_like_probabilities,
    validated,
)
from core.calibrators.keeping import keep_predictions
from core.estimator import Estimator
from core.messages import DataError, Note, Progress, no_progress
from core.parallel import one_blas_thread
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
    def accepts(self) -> frozenset[str]:
        """What a fit reads where it is there, within {"features", "copies"}."""
        return self.target.accepts

    @property
    def is_accuracy_preserving(self) -> bool:
        """Whether the predicted class never changes."""
        return self.target.is_accuracy_preserving

    @property
    def chooses(self) -> bool:
        """Whether it chooses another calibrator, which is what exports write."""
        return self.target.exported is not Calibrator.exported

    def n_parameters(self, k: int) -> int:
        """Return the number of fitted numbers for k classes."""
        return self.target.n_parameters(k)


CALIBRATORS = Registry("calibrator", CalibratorMethod)
"""Calibrators by id; scikit-learn's and probmetrics' spellings are aliases."""

_KEPT = "keeps_predictions"
_BLOCK = 1 << 22  # scores transformed at once where only statistics of them are kept


class Calibrator(Estimator):
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
    keeps_predictions_ : bool
        Whether `transform` puts the class with the largest logit first again where
        the map would not (`core.calibrators.keeping`). False after `fit`; who chooses
        a calibrator may set it.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"logits"})
    accepts: ClassVar[frozenset[str]] = frozenset()
    is_accuracy_preserving: ClassVar[bool] = False
    is_order_preserving: ClassVar[bool] = False

    classes_: IndexArray
    n_features_in_: int
    notes_: list[Note]
    keeps_predictions_: bool = False

    def __init__(self, *, input: str = "logits") -> None:
        self.input = input

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn asks, which is then imported already.
        from sklearn import utils

        # Scores of nothing in particular, which scikit-learn's checks fit, hold no
        # information about the labels.
        return utils.Tags(
            estimator_type="classifier",
            target_tags=utils.TargetTags(required=True),
            transformer_tags=utils.TransformerTags(),
            classifier_tags=utils.ClassifierTags(poor_score=True),
        )

    @staticmethod
    @abstractmethod
    def n_parameters(k: int) -> int:
        """Return the number of fitted numbers for k classes."""

    @property
    def reads(self) -> frozenset[str]:
        """What `transform` reads: what the fit had, of what it could have had."""
        return self.requires | self.accepts

    @property
    def n_fitted_(self) -> int:
        """Numbers that this fit chose; more than `n_parameters` says where rows do."""
        return self.n_parameters(len(self.classes_))

    @property
    def keeps_predictions(self) -> bool:
        """Whether this fit never changes which class is predicted."""
        return self.is_accuracy_preserving or self.keeps_predictions_

    @property
    def exported(self) -> Calibrator:
        """What exports write: this calibrator, or the one that it chose."""
        return self

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
        """Fit on checked arrays; append to `notes_`.

        Those that name "features" or "copies" in `requires` or `accepts` get them as
        keywords, here and in `_transform`: (n, d), and (m, n, k) or None.
        """

    @abstractmethod
    def _transform(self, logits: FloatArray) -> FloatArray:
        """Return calibrated log-probabilities of checked logits."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return the fitted numbers as plain JSON values.

        Each class says here what they are: the names of the values, their shapes, and
        the formula that they belong to.
        """

    @abstractmethod
    def _restore(self, state: dict[str, Any]) -> None:
        """Set the fitted numbers from what `_state` returned."""

    def fit(
        self,
        logits: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        features: ArrayLike | None = None,
        copies: ArrayLike | None = None,
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
        features : array-like of shape (n, d), optional
            Activations; read by calibrators that name them in `requires`.
        copies : array-like of shape (m, n, k), optional
            Scores of m transformed copies of every row, given as the logits are.
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
        labels = checked_labels(y, *scores.shape)
        self.classes_ = np.arange(scores.shape[1])
        weight = checked_weight(sample_weight, labels.shape[0])
        mass = np.bincount(labels, weights=weight, minlength=scores.shape[1])
        missing = self.classes_[mass == 0]
        if missing.size:
            text = (
                f"{missing.size} of {scores.shape[1]} classes have no fit row; they "
                "get the parameters that all classes share."
            )
            self.notes_.append(Note("missing-class", "warning", text))
        codes = None if groups is None else np.asarray(groups)
        names = self.requires | self.accepts
        extra = self._extra(names, features, copies, scores.shape)
        with one_blas_thread():
            self._fit(scores, labels, weight, groups=codes, progress=progress, **extra)
        return self

    def fit_transform(
        self, logits: ArrayLike, y: ArrayLike, **fit_params: Any
    ) -> FloatArray:
        """Fit on rows and return what `transform` makes of them."""
        return self.fit(logits, y, **fit_params).transform(logits)

    def transform(
        self,
        logits: ArrayLike,
        *,
        features: ArrayLike | None = None,
        copies: ArrayLike | None = None,
    ) -> FloatArray:
        """Return calibrated log-probabilities.

        Parameters
        ----------
        logits : array-like of shape (n, k), or (n, 1) for a binary score
        features, copies : optional
            As for `fit`.

        Returns
        -------
        ndarray of shape (n, k)
            In the float type of `logits`.
        """
        self._check_is_fitted()
        scores = self._checked(logits, reset=False)
        extra = self._extra(self.reads, features, copies, scores.shape)
        found = self._transform(scores, **extra)
        return keep_predictions(found, scores) if self.keeps_predictions_ else found

    def predict_proba(
        self,
        logits: ArrayLike,
        *,
        features: ArrayLike | None = None,
        copies: ArrayLike | None = None,
    ) -> FloatArray:
        """Return calibrated probabilities of shape (n, k)."""
        found = self.transform(logits, features=features, copies=copies)
        return np.asarray(np.exp(found))

    def predict(
        self,
        logits: ArrayLike,
        *,
        features: ArrayLike | None = None,
        copies: ArrayLike | None = None,
    ) -> IndexArray:
        """Return the most probable class of each row, shape (n,)."""
        found = self.transform(logits, features=features, copies=copies)
        return np.asarray(self.classes_[found.argmax(axis=1)])

    def score(
        self, logits: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy, which is what scikit-learn's classifiers score."""
        is_right = self.predict(logits) == np.asarray(y)
        weight = None if sample_weight is None else np.asarray(sample_weight)
        return float(np.average(is_right, weights=weight))

    def row_statistics(
        self,
        logits: FloatArray,
        labels: IndexArray | None = None,
        *,
        features: FloatArray | None = None,
        copies: FloatArray | None = None,
    ) -> RowStatistics:
        """Return statistics of the calibrated rows, without keeping their matrix.

        Parameters
        ----------
        logits : ndarray of shape (n, k)
        labels : ndarray of int of shape (n,), optional
        features, copies : optional
            As for `fit`.
        """
        step = max(1, _BLOCK // max(1, logits.shape[1]))
        parts = []
        for start in range(0, max(1, logits.shape[0]), step):
            block = slice(start, start + step)
            truth = None if labels is None else labels[block]
            found = self.transform(
                logits[block],
                features=None if features is None else features[block],
                copies=None if copies is None else copies[:, block],
            )
            parts.append(row_statistics(found, truth))
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
            "n_classes" and "parameters". What the last holds stands, with its formula,
            in the docstring of each class's `_state`. There p = softmax(z), lists are
            in the order of the classes, and "curve" means class, or the second class
            of two.

            For all that have curves: log p and log(1 - p) are floored at -700; the
            first of two classes has the rest; classes whose logit is -inf are set to 0;
            rows of more classes are divided by their sum; rows of zeros become uniform
            over the classes that are not ruled out (isotonic: before the mixing).

            With "keeps_predictions" among the parameters, rows whose largest class is
            no longer that of z are capped (`core.calibrators.keeping`).
        """
        self._check_is_fitted()
        state = self._state()
        if self.keeps_predictions_:
            state[_KEPT] = True
        return {
            "method": self.method_id,
            "options": {k: v for k, v in self.get_params().items() if k != "input"},
            "input": self.input,
            "n_scores": int(self.n_features_in_),
            "n_classes": int(self.classes_.size),
            "parameters": state,
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
            state = dict(values["parameters"])
            made.keeps_predictions_ = state.pop(_KEPT, False) is True
            made._restore(state)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"This is not a calibrator that this version can read: {error}.",
                "calibrator file",
                "Choose a JSON file that the Export page or `calibrate` wrote.",
            ) from error
        return made  # type: ignore[no-any-return]

    def _extra(
        self,
        names: frozenset[str],
        features: ArrayLike | None,
        copies: ArrayLike | None,
        shape: tuple[int, ...],
    ) -> dict[str, Any]:
        """Return what is read beside the logits, checked."""
        given = {"features": features, "copies": copies}
        found: dict[str, Any] = {}
        for name in sorted(names - {"logits"}):
            value = given[name]
            if value is None and name in self.requires:
                raise DataError(
                    f"This calibrator needs {name}.",
                    type(self).__name__,
                    f"Give {name} for the same rows, or choose another calibrator.",
                )
            if value is None:
                found[name] = None
            elif name == "copies":
                found[name] = self._checked_copies(value, shape)
            else:
                found[name] = checked_features(value, shape[0])
        return found

    def _checked_copies(
        self, value: ArrayLike, shape: tuple[int, ...]
    ) -> FloatArray | None:
        """Return the logits of copies (m, n, k); they are given as the logits are."""
        array = np.asarray(value)
        n, k = shape
        width = self.n_features_in_
        is_shaped = array.ndim == 3 and array.shape[0] > 0 and array.shape[1] == n
        if not is_shaped or array.shape[2] not in (width, k):
            raise DataError(
                f"copies has shape {array.shape}.",
                "copies",
                f"Give numbers of shape (m, {n}, {width}), for the same rows as the "
                "logits.",
            )
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
        found: FloatArray = np.empty((len(array), n, k), array.dtype)
        for place, copy in enumerate(array):
            if self.input == "probabilities":
                found[place], _ = log_probabilities(copy, "copies", renormalise=True)
            else:
                found[place] = two_class_logits(checked_logits(copy, "copies"))
        return found

    def _checked(
        self, values: ArrayLike, *, reset: bool, y: ArrayLike | None = None
    ) -> FloatArray:
        if self.input not in ("logits", "probabilities"):
            msg = f"input must be 'logits' or 'probabilities', got {self.input!r}"
            raise ValueError(msg)
        scores = validated(self, values, y, reset=reset)
        if self.input == "probabilities":
            return log_probabilities(scores, "probabilities", renormalise=True)[0]
        if reset and looks_like_probabilities(scores):
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
