"""What every detector does: fitted on reference rows, it scores any others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from core.estimator import Estimator
from core.head import Head, check_head
from core.messages import DataError, FitError, Note, Progress, no_progress
from core.ood.rows import EVERYTHING, PERTURBED, Rows, layers_of
from core.predictions import Predictions
from core.registry import Method, Registry

__all__ = ["DETECTORS", "Detector", "DetectorMethod", "score_all"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_LOOK_AT = 2000  # rows that are looked at for what a score assumes
_ALIKE = 1e-2  # how far the last layer may be from the logits, relative to their spread


@dataclass(frozen=True, slots=True, eq=False)
class DetectorMethod(Method):
    """A registered detector, and what its class says of itself.

    Parameters
    ----------
    target : type
        Subclass of `Detector`.
    """

    target: type[Detector]

    @property
    def requires(self) -> frozenset[str]:
        """What fit and score read, within {"logits", "features", "labels", "head"}."""
        return self.target.requires

    @property
    def assumes(self) -> str:
        """What the score takes for granted, as a sentence."""
        return self.target.assumes

    @property
    def fits_on(self) -> str:
        """Which rows it is fitted on: "nothing", "reference" or "held-out"."""
        return self.target.fits_on

    @property
    def is_tunable(self) -> bool:
        """Whether rows known to be out-of-distribution may tune it (`tune`)."""
        return self.target.is_tunable


DETECTORS = Registry("detector", DetectorMethod)
"""Out-of-distribution detectors by id."""


class Detector(Estimator):
    """Base of all detectors: larger scores are more out-of-distribution, always.

    Attributes
    ----------
    notes_ : list of Note
        What the fit noticed: assumptions that the rows break, ranks, missing classes.
    n_reference_ : int
        Rows that the fit used.
    n_classes_ : int
    layers_ : dict of str to int
        Layers that are read, with their widths.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"logits"})
    accepts: ClassVar[frozenset[str]] = frozenset()
    fits_on: ClassVar[str] = "reference"
    assumes: ClassVar[str] = ""
    needs_logit_scale: ClassVar[bool] = False
    needs_non_negative: ClassVar[bool] = False
    takes_confidences: ClassVar[bool] = False
    is_tunable: ClassVar[bool] = False

    notes_: list[Note]
    n_reference_: int
    n_classes_: int
    layers_: dict[str, int]
    head_: Head | None = None

    # ------------------------------------------------------------ for subclasses

    def _fit(self, rows: Rows, progress: Progress) -> None:
        """Fit on rows that were checked; append to `notes_`."""

    @abstractmethod
    def _score(self, rows: Rows) -> FloatArray:
        """Return the scores of a block of rows that were checked."""

    def _state(self) -> dict[str, Any]:
        """Return what was fitted: numbers, texts, arrays and dictionaries of them."""
        return {}

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Set what was fitted from what `_state` returned."""

    def _chosen_layers(self, features: Mapping[str, FloatArray]) -> tuple[str, ...]:
        """Return the layers to read; by default the one nearest to the logits."""
        names = [name for name in features if not name.endswith(PERTURBED)]
        names = names or list(features)
        if self.head_ is not None:
            width = self.head_.weight.shape[1]
            fitting = [name for name in names if features[name].shape[1] == width]
            names = fitting or names
        return tuple(names[-1:])

    @property
    def layer_(self) -> str:
        """The one layer that is read."""
        return next(iter(self.layers_))

    # -------------------------------------------------------------------- public

    @property
    def method_id(self) -> str:
        """Id of this class in the registry."""
        return next(k for k, m in DETECTORS.items() if m.target is type(self))

    def fit(
        self,
        reference: Predictions,
        *,
        head: Head | None = None,
        progress: Progress = no_progress,
    ) -> Self:
        """Fit on in-distribution rows, which must not be the rows reported on.

        Parameters
        ----------
        reference : Predictions
            Rows known to be out-of-distribution are left out; so are unlabelled ones
            where labels are needed.
        head : Head, optional
            Last layer of the network, where `requires` names it.
        progress : callable, optional
            Told the fraction done; may raise `Cancelled`.

        Returns
        -------
        self

        Raises
        ------
        FitError
            If something that the score requires is missing, or too few rows are left.
        """
        return self.fit_rows(Rows(reference), head, progress)

    def fit_rows(
        self, given: Rows, head: Head | None = None, progress: Progress = no_progress
    ) -> Self:
        """Fit on some rows of a file; as `fit`."""
        own = given.own
        self.notes_ = []
        self.head_ = self._checked_head(own, head)
        reason = self.unusable_reason(own, has_head=self.head_ is not None)
        if reason is not None:
            how = "Give what is missing, or choose another score."
            raise FitError(reason, own.name, how)
        rows = self._usable(given)
        self.n_reference_ = len(rows)
        self.n_classes_ = len(own.classes)
        features = layers_of(own.features)
        self.layers_ = {}
        if "features" in self.requires:
            names = self._chosen_layers(features)
            self.layers_ = {name: int(features[name].shape[1]) for name in names}
        self._look_at(rows)
        self._fit(rows, progress)
        return self

    def tune(self, *ood: Predictions) -> Self:  # noqa: ARG002 - for those that can
        """Choose weights by rows known to be OOD, where `is_tunable`; else nothing."""
        return self

    def score(self, p: Predictions, *, progress: Progress = no_progress) -> FloatArray:
        """Return one score for each row; larger = more out-of-distribution.

        Parameters
        ----------
        p : Predictions
            With what `requires` names, but for labels.
        progress : callable, optional

        Returns
        -------
        ndarray of float64 of shape (n,)

        Raises
        ------
        DataError
            If classes or layers differ from those of the fit.
        """
        return score_all({"": self}, p, progress)[""]

    @classmethod
    def unusable_reason(cls, own: Predictions, *, has_head: bool) -> str | None:
        """Return why these rows cannot fit this detector, or None if they can."""
        reason = cls.unscorable_reason(own)
        if reason is not None:
            return reason
        if "head" in cls.requires and not has_head:
            return "The last layer (weights and bias) was not given."
        if "labels" in cls.requires and not own.is_labelled.any():
            return f"{own.name} has no labels."
        return None

    @classmethod
    def unscorable_reason(cls, own: Predictions) -> str | None:
        """Return why these rows cannot be scored by this detector, or None."""
        if "logits" in cls.requires and own.logits is None:
            is_top = own.confidence is not None
            if not (is_top and cls.takes_confidences):
                return f"{own.name} has no scores of every class."
        if cls.needs_logit_scale and own.input_kind == "probabilities":
            return (
                f"{own.name} has probabilities: the scale of the logits, which this "
                "score measures, cannot be recovered from them."
            )
        if "features" in cls.requires and own.features is None:
            return f"{own.name} has no features."
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted detector: plain values, and arrays as they are.

        `core.ood.storage` writes it as JSON. A last layer that is needed is inside.
        """
        self._check_is_fitted()
        head = self.head_
        return {
            "method": self.method_id,
            "options": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in self.get_params().items()
            },
            "n_reference": self.n_reference_,
            "n_classes": self.n_classes_,
            "layers": dict(self.layers_),
            "head": None
            if head is None
            else {"weight": head.weight, "bias": head.bias},
            "notes": [note.to_dict() for note in self.notes_],
            "parameters": self._state(),
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Detector:
        """Return the fitted detector that `to_dict` described."""
        try:
            made: Detector = DETECTORS[values["method"]](**values["options"])
            made.n_reference_ = int(values["n_reference"])
            made.n_classes_ = int(values["n_classes"])
            made.layers_ = {str(k): int(v) for k, v in values["layers"].items()}
            head = values["head"]
            if head is not None:
                made.head_ = Head(np.asarray(head["weight"]), np.asarray(head["bias"]))
            made.notes_ = [Note(**note) for note in values["notes"]]
            made._restore(values["parameters"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"This is not a detector that this version can read: {error}.",
                "detector file",
                "Choose a JSON file that `ood fit` wrote.",
            ) from error
        return made

    # ------------------------------------------------------------------- private

    def _checked_head(self, own: Predictions, head: Head | None) -> Head | None:
        if "head" not in self.requires | self.accepts or head is None:
            return None
        k = len(own.classes)
        widths = [a.shape[1] for a in layers_of(own.features).values()]
        if widths and head.weight.shape[1] not in widths:
            raise FitError(
                f"The last layer takes {head.weight.shape[1]} features, {own.name} "
                f"has {', '.join(map(str, widths))}.",
                f"{own.name}, head",
                "Give the features that enter the last layer.",
            )
        check_head(head, k, None, own.name)
        if head.weight.shape[0] == 1 and k == 2:
            zero = np.zeros_like(head.weight)
            bias = np.concatenate([np.zeros(1), head.bias])
            return Head(np.vstack([zero, head.weight]), bias)
        return head

    def _usable(self, given: Rows) -> Rows:
        """Return in-distribution rows, labelled ones where labels are needed."""
        own = given.own
        keep = np.ones(len(given), dtype=bool)
        if own.is_ood is not None:
            keep &= ~own.is_ood[given.index]
            if not keep.all():
                text = (
                    f"{int((~keep).sum()):,} rows of {own.name} are marked as "
                    "out-of-distribution and were left out of the fit."
                )
                self.notes_.append(Note("ood-in-reference", "warning", text))
        if "labels" in self.requires:
            is_labelled = given.labels >= 0
            n_open = int((keep & ~is_labelled).sum())
            keep &= is_labelled
            if n_open:
                text = f"{n_open:,} rows without a label were left out of the fit."
                self.notes_.append(Note("unlabelled-reference", "info", text))
        if not keep.any():
            raise FitError(
                f"No row of {own.name} is left to fit on.",
                own.name,
                "Give in-distribution rows, labelled where the score needs labels.",
            )
        return given if keep.all() else given.part(np.flatnonzero(keep))

    def _look_at(self, rows: Rows) -> None:
        """Note what the score takes for granted and these rows break."""
        few = next(iter(rows.blocks()))
        if self.needs_non_negative:
            values = few.features(self.layer_)[:_LOOK_AT]
            share = float((values < 0).mean())
            if share > 0:
                text = (
                    f"{share:.1%} of the features are negative. This score was made "
                    "for features that are at least 0, as after a ReLU: expect little "
                    "of it here."
                )
                self.notes_.append(Note("negative-features", "warning", text))
        has_both = self.head_ is not None and rows.own.logits is not None
        if has_both and self.layers_:
            self._compare_head(few)

    def _compare_head(self, rows: Rows) -> None:
        """Say so where the last layer does not make the logits of the file."""
        assert self.head_ is not None  # noqa: S101 - the caller has looked
        made = rows.head_logits(self.head_, self.layer_)[:_LOOK_AT]
        given = rows.logits[:_LOOK_AT]
        # Up to a number per row: the file may hold log-probabilities.
        gap = made - given
        gap -= np.where(np.isfinite(gap), gap, 0).mean(axis=1, keepdims=True)
        spread = float(np.std(made, axis=1).mean()) or 1.0
        worst = float(np.abs(gap[np.isfinite(gap)]).max(initial=0.0))
        if worst > _ALIKE * spread:
            text = (
                f"The last layer does not make the logits of {rows.own.name} from "
                f"these features (they differ by up to {worst:.3g}). Are features and "
                "weights of the same network, and the features those that enter it?"
            )
            self.notes_.append(Note("head-mismatch", "question", text))

    def _check_is_fitted(self) -> None:
        if hasattr(self, "notes_"):
            return
        if self.fits_on != "nothing":
            raise FitError(
                "The detector was not fitted.",
                type(self).__name__,
                "Call fit with in-distribution reference rows first.",
            )
        self.notes_, self.layers_ = [], {}
        self.n_reference_ = self.n_classes_ = 0

    def check_rows(self, p: Predictions) -> None:
        """Refuse rows that are not as those of the fit."""
        self._check_is_fitted()
        reason = self.unscorable_reason(p)
        if reason is not None:
            how = "Give rows like those that the detector was fitted on."
            raise DataError(reason, p.name, how)
        k = self.n_classes_
        if "logits" in self.requires and k and p.n_classes and p.n_classes != k:
            raise DataError(
                f"The rows have {p.n_classes} classes, the detector was fitted on {k}.",
                p.name,
                "Give logits of the same classes.",
            )
        for name, width in self.layers_.items():
            found = Rows(p, slice(0, 1)).features(name).shape[1]
            if found != width:
                raise DataError(
                    f"The layer {name!r} has {found} features, the detector was "
                    f"fitted on {width}.",
                    p.name,
                    "Give features of the same layer of the same network.",
                )


def score_all(
    detectors: Mapping[str, Detector],
    p: Predictions,
    progress: Progress = no_progress,
) -> dict[str, FloatArray]:
    """Return the scores of several detectors from one trip over the rows.

    Parameters
    ----------
    detectors : mapping of str to Detector
    p : Predictions
    progress : callable, optional
        Told the fraction done; may raise `Cancelled`.

    Returns
    -------
    dict of str to ndarray of float64 of shape (n,)

    Raises
    ------
    DataError
        If a detector cannot read these rows, or makes a score that is no number.
    """
    for detector in detectors.values():
        detector.check_rows(p)
    found: dict[str, FloatArray] = {name: np.empty(len(p)) for name in detectors}
    done, every = 0, [d.requires or EVERYTHING for d in detectors.values()]
    reads = frozenset[str]().union(*every)
    for block in Rows(p).blocks(progress, "Scoring the rows", reads=reads):
        stop = done + len(block)
        for name, detector in detectors.items():
            found[name][done:stop] = detector._score(block)
        done = stop
    for name, values in found.items():
        bad = np.flatnonzero(np.isnan(values))
        if bad.size:
            raise DataError(
                f"The score {name or type(detectors[name]).__name__} of a row is not "
                "a number.",
                f"{p.name}, row {p.file_rows[bad[0]]}",
                "Look for absurd values among the features and logits of this row.",
            )
    return found
