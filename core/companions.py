"""What a calibrator reads beside the logits: features, and transformed copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators import Calibrator, CalibratorMethod
from core.predictions import Features, Predictions, Study, matching_rows

__all__ = ["Companions", "companions_of", "copies_problem", "last_layer"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Companions:
    """Arrays that belong to the rows of one file, by what a method reads.

    Parameters
    ----------
    names : frozenset of str
        What is read, within {"features", "copies"}.
    features : ndarray of shape (n, d) or None
    copies : tuple of (Predictions, ndarray of int64 of shape (n,))
        Each transformed copy, and its row of each row of the file.
    """

    names: frozenset[str]
    features: FloatArray | None
    copies: tuple[tuple[Predictions, IndexArray], ...]

    def take(self, rows: IndexArray | slice) -> dict[str, FloatArray | None]:
        """Return the keywords of `Calibrator.fit` and `transform` for some rows."""
        found: dict[str, FloatArray | None] = {}
        if "features" in self.names:
            found["features"] = None if self.features is None else self.features[rows]
        if "copies" in self.names:
            stack = [
                copy.logits[places[rows]]
                for copy, places in self.copies
                if copy.logits is not None
            ]
            found["copies"] = np.stack(stack) if stack else None
        return found


def companions_of(
    study: Study, source: Predictions, method: CalibratorMethod | Calibrator
) -> Companions:
    """Return what a calibrator reads beside the logits of the rows of one file.

    Parameters
    ----------
    study : Study
    source : Predictions
        Its evaluation rows, or its calibration rows of their own.
    method : CalibratorMethod or Calibrator
    """
    names = method.requires | method.accepts
    if isinstance(method, Calibrator):
        names = method.reads
    names -= {"logits"}
    copies: tuple[tuple[Predictions, IndexArray], ...] = ()
    if "copies" in names and copies_problem(study) is None:
        given = study.copies if source is study.evaluation else study.fit_copies
        copies = tuple((item, matching_rows(source, item)) for item in given)
    features = last_layer(source.features) if "features" in names else None
    return Companions(names, features, copies)


def copies_problem(study: Study) -> str | None:
    """Return why the transformed copies of a study cannot be used, or None."""
    if not study.copies:
        return "No transformed copies of the rows were uploaded."
    if study.fit is None:
        return None
    n, n_fit = len(study.copies), len(study.fit_copies)
    if not n_fit:
        return "No transformed copies of the calibration rows were uploaded."
    if n != n_fit:
        return f"There are {n} copies of the rows and {n_fit} of the calibration rows."
    return None


def last_layer(features: Features | None) -> FloatArray | None:
    """Return the activations nearest to the logits: of several layers, the last."""
    if isinstance(features, Mapping):
        return list(features.values())[-1]
    return features
