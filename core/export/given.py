"""Scores as the user of an export has them, and rows for its self-test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators import Calibrator
from core.softmax import softmax
from core.validation import log_probabilities

__all__ = [
    "as_given",
    "copies_as_given",
    "examples_of",
    "fed",
    "made_up_examples",
    "predict_given",
]

FloatArray = NDArray[np.floating[Any]]

_N_EXAMPLES = 5
_EXAMPLE_CELLS = 20_000


def as_given(logits: FloatArray, input_kind: str) -> FloatArray:
    """Return scores as the user of an export has them, in float64."""
    rows = np.asarray(logits, dtype=np.float64)
    return np.exp(rows) if input_kind == "probabilities" else rows


def copies_as_given(copies: FloatArray | None, input_kind: str) -> FloatArray | None:
    """Return the scores of copies (m, n, k) likewise.

    Copies may be logits where the rows are probabilities; then theirs are taken.
    """
    if copies is None or input_kind != "probabilities":
        return None if copies is None else np.asarray(copies, dtype=np.float64)
    return np.stack([softmax(np.asarray(copy, np.float64)) for copy in copies])


def predict_given(
    calibrator: Calibrator,
    scores: FloatArray,
    input_kind: str,
    copies: FloatArray | None = None,
    features: FloatArray | None = None,
) -> FloatArray:
    """Return the calibrated probabilities of scores as the user has them."""
    if input_kind == "probabilities":
        scores, _ = log_probabilities(scores, "scores", renormalise=True)
        if copies is not None:
            logs = [log_probabilities(c, "copies", renormalise=True) for c in copies]
            copies = np.stack([log for log, _ in logs])
    more: dict[str, FloatArray] = {}
    if features is not None:
        more["features"] = features
    if copies is not None:
        more["copies"] = np.stack([fed(calibrator, copy) for copy in copies])
    return calibrator.predict_proba(fed(calibrator, scores), **more)


def fed(calibrator: Calibrator, logits: FloatArray) -> FloatArray:
    """Return logits of all classes as what a calibrator was fitted on."""
    width = calibrator.n_features_in_
    if calibrator.input == "probabilities":
        return np.asarray(np.exp(logits)[:, -width:])
    if width == 1 and logits.shape[1] == 2:
        return np.asarray(logits[:, 1:] - logits[:, :1])
    return logits


def examples_of(
    calibrator: Calibrator,
    logits: FloatArray,
    beside: Mapping[str, FloatArray | None],
    input_kind: str,
) -> dict[str, Any]:
    """Return up to five rows, as given, with what is read beside them, for self-tests.

    Where a curve is steep, the last bit of an exponential, which differs between
    machines, moves the result; such rows are passed over.
    """
    n, k = logits.shape
    some = np.unique(np.linspace(0, n - 1, min(n, 64)).astype(np.int64))
    scores = as_given(logits[some], input_kind)
    copies, features = beside.get("copies"), beside.get("features")
    more = copies_as_given(None if copies is None else copies[:, some], input_kind)
    own = None if features is None else np.asarray(features[some], dtype=np.float64)
    change = np.abs(
        predict_given(calibrator, scores, input_kind, more, own)
        - predict_given(calibrator, scores * (1.0 - 1e-13), input_kind, more, own)
    ).max(axis=1)
    steady = np.flatnonzero(change <= 1e-10)
    n_wanted = max(1, min(_N_EXAMPLES, _EXAMPLE_CELLS // k))
    if steady.size < n_wanted:
        steady = np.sort(np.argsort(change, kind="stable")[:n_wanted])
    places = np.linspace(0, steady.size - 1, min(n_wanted, steady.size)).astype(int)
    kept = steady[places]
    found: dict[str, Any] = {"examples": [_json_floats(row) for row in scores[kept]]}
    if own is not None:
        found["example_features"] = own[kept].tolist()
    if more is None:
        return found
    rows = [[_json_floats(row) for row in copy[kept]] for copy in more]
    return found | {"example_copies": rows}


def _json_floats(row: FloatArray) -> list[float | str]:
    """JSON has no infinity; the text "-inf" is read back by float()."""
    return [value if np.isfinite(value) else "-inf" for value in row.tolist()]


def made_up_examples(
    k: int, input_kind: str, n_copies: int, n_features: int
) -> dict[str, Any]:
    """Return made-up rows, and what is read beside them, for a self-test."""
    rows = np.linspace(-2.0, 2.0, k)[None, :] * np.array([[0.0], [1.0], [-2.0]])
    copies = [rows * 0.5**number for number in range(n_copies)]
    if input_kind == "probabilities":
        rows, copies = softmax(rows), [softmax(copy) for copy in copies]
    found: dict[str, Any] = {"examples": rows.tolist()}
    if n_copies:
        found["example_copies"] = [copy.tolist() for copy in copies]
    if n_features:
        found["example_features"] = np.zeros((len(rows), n_features)).tolist()
    return found
