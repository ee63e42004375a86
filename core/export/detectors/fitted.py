"""A fitted detector with its threshold and what is known of its rows."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.export.portable import as_given
from core.messages import DataError, FitError
from core.ood.base import DETECTORS, Detector
from core.ood.detection import Detection
from core.ood.mahalanobis import Mahalanobis
from core.ood.rows import PERTURBED, Rows
from core.ood.storage import detector_text, read_detector
from core.ood.thresholds import Threshold
from core.predictions import Predictions

__all__ = ["FittedDetector", "Input", "fitted_detector", "from_json"]

FloatArray = NDArray[np.floating[Any]]

MAX_BYTES = 512 * 2**20
"""Largest detector that is written: more than onnxruntime and Python like."""

_RESERVED = {"file", "allow_pickle"}  # what np.savez calls its own arguments
_LOWEST_FLOOR = float(np.log(1e-12))  # as in core.validation


@dataclass(frozen=True, slots=True)
class Input:
    """An array that an exported file reads.

    Parameters
    ----------
    name : str
        "logits", "probabilities", "features", or a layer where several are read.
    holds : {"logits", "probabilities", "features"}
    width : int
        Number of columns.
    layer : str
        Of features.
    """

    name: str
    holds: str
    width: int
    layer: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return every field."""
        found = {"name": self.name, "holds": self.holds, "width": self.width}
        return found | ({"layer": self.layer} if self.layer else {})


@dataclass(frozen=True, slots=True, eq=False)
class FittedDetector:
    """A detector to take home.

    Parameters
    ----------
    detector : Detector
        Fitted.
    threshold : Threshold
    metadata : mapping
        What is known of the rows: classes, input_kind, log_floor, examples and the
        like; kept in every format.
    """

    detector: Detector
    threshold: Threshold
    metadata: Mapping[str, Any]

    @property
    def method(self) -> str:
        """Id of the detector."""
        return self.detector.method_id

    @property
    def input_kind(self) -> str:
        """Whether class scores are "logits" or "probabilities"."""
        is_p = self.metadata.get("input_kind") == "probabilities"
        return "probabilities" if is_p else "logits"

    @property
    def log_floor(self) -> float:
        """Logarithm of a probability of 0."""
        return float(self.metadata.get("log_floor", _LOWEST_FLOOR))

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What an exported file reads, in this order."""
        layers: dict[str, int] = {}
        for item in _with_members(self.detector):
            layers |= item.layers_
        found = []
        if any("logits" in item.requires for item in _with_members(self.detector)):
            kind = self.input_kind
            found.append(Input(kind, kind, self.detector.n_classes_))
        taken = {item.name for item in found} | _RESERVED
        for layer, width in layers.items():
            name = "features" if len(layers) == 1 else layer
            name = f"features_{name}" if name in taken else name
            found.append(Input(name, "features", width, layer))
        return tuple(found)

    def arrays(self, own: Predictions) -> dict[str, FloatArray]:
        """Return the rows of a file as an exported file reads them, in float64.

        Raises
        ------
        DataError
            If something is missing there.
        """
        self.detector.check_rows(own)
        reason = unwritable_reason(self.detector, own)
        if reason is not None:
            how = "Give a file with one score column per class."
            raise DataError(reason, own.name, how)
        found = {}
        for item in self.inputs:
            if item.holds != "features":
                found[item.name] = as_given(Rows(own).logits, self.input_kind)
            else:
                layer = self._read_layer(own, item.layer)
                found[item.name] = Rows(own).features(layer).astype(np.float64)
        return found

    def _read_layer(self, own: Predictions, layer: str) -> str:
        """Return the layer that is read for a fitted one."""
        for item in _with_members(self.detector):
            if isinstance(item, Mahalanobis) and layer in item.layers_:
                return item._scored_layer(Rows(own), layer)
        return layer

    def score(self, arrays: Mapping[str, FloatArray]) -> FloatArray:
        """Return what the detector itself makes of arrays from `arrays`."""
        logits: FloatArray | None = None
        features: dict[str, FloatArray] = {}
        for item in self.inputs:
            values = arrays[item.name]
            if item.holds == "features":
                features[item.layer] = values
            elif item.holds == "probabilities":
                with np.errstate(divide="ignore"):
                    logits = np.where(values > 0, np.log(values), self.log_floor)
            else:
                logits = values
        for one in _with_members(self.detector):
            if isinstance(one, Mahalanobis) and one.preprocessed:
                more = {name + PERTURBED[0]: features[name] for name in one.layers_}
                features |= more
        kind = "features" if logits is None else "logits"
        return self.detector.score(
            Predictions.from_arrays(
                logits, features=features or None, input_kind=kind, copy=False
            )
        )

    def accepts(self, score: FloatArray) -> NDArray[np.bool_]:
        """Return which scores are accepted as in-distribution."""
        return self.threshold.accepts(score)

    @property
    def n_numbers(self) -> int:
        """Numbers that the detector holds."""
        return _size(self.detector.to_dict(), "size")

    def check_size(self) -> None:
        """Refuse a detector that is too large for a file to take home.

        Raises
        ------
        FitError
        """
        n_bytes = _size(self.detector.to_dict(), "nbytes")
        if n_bytes > MAX_BYTES:
            raise FitError(
                f"The detector holds {n_bytes / 2**20:,.0f} MB; files of at most "
                f"{MAX_BYTES / 2**20:,.0f} MB are written.",
                DETECTORS[self.method].label,
                "Keep fewer reference rows (the option n_reference or share), or "
                "choose another score.",
            )

    def to_json(self) -> str:
        """Return the file that `ood score` and `from_json` read."""
        inputs = [item.to_dict() for item in self.inputs]
        metadata = {**self.metadata, "inputs": inputs}
        if self.input_kind == "probabilities":
            metadata["log_floor"] = self.log_floor
        return detector_text(self.detector, self.threshold, metadata)


def from_json(text: str) -> FittedDetector:
    """Read what `FittedDetector.to_json` or `ood fit` wrote.

    Raises
    ------
    DataError
        For anything else.
    """
    return FittedDetector(*read_detector(text))


def fitted_detector(found: Detection, method: str) -> FittedDetector:
    """Return a detector of an analysis, ready to be written.

    Parameters
    ----------
    found : Detection
        From `core.ood.detect`.
    method : str
        Id of one of its detectors.

    Raises
    ------
    DataError
        If it was not fitted there, or its rows hold a confidence each and no class
        scores.
    """
    name = DETECTORS[method].id if method in DETECTORS else method
    result = found.results.get(name)
    if result is None or result.detector is None:
        raise DataError(
            f"The detector {method!r} was not fitted.",
            found.rows.test.name,
            found.skipped.get(name, f"Choose one of: {', '.join(found.results)}."),
        )
    rows, detector = found.rows, result.detector
    own = rows.test
    metadata: dict[str, Any] = {
        "classes": list(own.classes),
        "input_kind": own.input_kind,
        "rows": rows.sentence,
    }
    if own.input_kind == "probabilities":
        known = [p.logits for p in (rows.reference, rows.threshold, own)]
        lowest = min(float(z.min()) for z in known if z is not None)
        metadata["log_floor"] = min(lowest, _LOWEST_FLOOR)
    metadata |= {
        "formula": DETECTORS[name].formula,
        "fingerprint": own.fingerprint,
        "accepted": {key: item.value for key, item in result.rates.items()},
        "auroc": {
            key: item.estimates["auroc"].value
            for key, item in (
                result.evaluation.sets if result.evaluation else {}
            ).items()
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": version("scikit-learn"),
        },
    }
    return FittedDetector(detector, result.threshold, metadata)


def unwritable_reason(detector: Detector, own: Predictions) -> str | None:
    """Return why a detector of these rows cannot be taken home, or None if it can."""
    members = _with_members(detector)
    if own.logits is not None or not any("logits" in m.requires for m in members):
        return None
    return (
        "The file has one confidence per row; an export needs the scores of every "
        "class."
    )


def _size(value: Any, of: str) -> int:
    """Return the size or the bytes of all arrays inside of a value."""
    if isinstance(value, Mapping):
        return sum(_size(item, of) for item in value.values())
    if isinstance(value, list):
        return sum(_size(item, of) for item in value)
    return int(getattr(value, of)) if isinstance(value, np.ndarray) else 0


def _with_members(detector: Detector) -> list[Detector]:
    """Return a detector, or those that it is made of."""
    members: Mapping[str, Detector] | None = getattr(detector, "members_", None)
    if members is None:
        return [detector]
    return [item for member in members.values() for item in _with_members(member)]
