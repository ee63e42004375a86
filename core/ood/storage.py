"""Detectors as JSON: arrays travel as base64 of their bytes, exactly."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np

from core.messages import DataError
from core.ood.base import Detector
from core.ood.thresholds import Threshold

__all__ = [
    "detector_text",
    "from_json",
    "plain_values",
    "read_detector",
    "to_json",
    "with_arrays",
]

FORMAT, VERSION = "plumbline-detector", 1
_KINDS = {"<f4", "<f8", "<i8", "|b1"}
_KEYS = {"dtype", "shape", "base64"}


def plain_values(value: Any) -> Any:
    """Return plain JSON values; an array becomes its type, shape and bytes."""
    if isinstance(value, dict):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if isinstance(value, np.ndarray):
        ready = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        return {
            "dtype": ready.dtype.str,
            "shape": list(value.shape),
            "base64": base64.b64encode(ready.tobytes()).decode("ascii"),
        }
    if isinstance(value, np.generic):
        return value.item()
    return value


def with_arrays(value: Any) -> Any:
    """Return what `plain_values` was given.

    Raises
    ------
    ValueError
        If bytes do not fill the shape of an array.
    """
    if isinstance(value, list):
        return [with_arrays(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) != _KEYS:
        return {key: with_arrays(item) for key, item in value.items()}
    if value["dtype"] not in _KINDS:
        msg = f"an array has the type {value['dtype']!r}"
        raise ValueError(msg)
    data = base64.b64decode(value["base64"], validate=True)
    array = np.frombuffer(data, dtype=value["dtype"]).reshape(value["shape"])
    return array.astype(array.dtype.newbyteorder("="))


def to_json(values: dict[str, Any]) -> str:
    """Return a dictionary of plain values and arrays as strict JSON."""
    return json.dumps(plain_values(values), allow_nan=False) + "\n"


def from_json(text: str) -> dict[str, Any]:
    """Return the dictionary that `to_json` wrote; anything else raises DataError."""
    try:
        found = with_arrays(json.loads(text))
        if isinstance(found, dict):
            return found
        reason = "it holds no object"
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        reason = str(error)
    raise DataError(
        f"This is not a detector file: {reason}.",
        "detector file",
        "Choose a JSON file that `ood fit` wrote.",
    )


def detector_text(
    detector: Detector, threshold: Threshold, metadata: dict[str, Any]
) -> str:
    """Return the file of a fitted detector with its threshold.

    Parameters
    ----------
    detector : Detector
    threshold : Threshold
    metadata : dict
        What is known of the rows: classes, input_kind and the like.
    """
    document = {
        "format": FORMAT,
        "version": VERSION,
        "metadata": metadata,
        "threshold": threshold.to_dict(),
        "detector": detector.to_dict(),
    }
    return to_json(document)


def read_detector(text: str) -> tuple[Detector, Threshold, dict[str, Any]]:
    """Return detector, threshold and metadata of a file; others raise DataError."""
    found = from_json(text)
    if found.get("format") != FORMAT or found.get("version") != VERSION:
        raise DataError(
            "This is not a detector file of this version.",
            "detector file",
            f'Choose a JSON file that starts with "format": "{FORMAT}", version '
            f"{VERSION}.",
        )
    threshold = Threshold.from_dict(found.get("threshold") or {})
    detector = Detector.from_dict(found.get("detector") or {})
    metadata = found.get("metadata")
    return detector, threshold, metadata if isinstance(metadata, dict) else {}
