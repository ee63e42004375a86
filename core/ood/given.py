"""Scores that were uploaded, measured like those of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.decisions import halves
from core.given_scores import GivenScores
from core.messages import DataError, Note, Progress, no_progress
from core.ood.base import Detector
from core.ood.detection import Scored, SetScores, measure_scores
from core.ood.mahalanobis import Mahalanobis
from core.ood.rows import Rows
from core.ood.thresholds import Threshold
from core.predictions import Predictions
from core.settings import Settings

__all__ = ["GIVEN", "measure_given", "scored_table"]

FloatArray = NDArray[np.floating[Any]]

GIVEN = "uploaded"
"""Name of scores that somebody else computed."""


def measure_given(
    files: Sequence[tuple[str, GivenScores]],
    settings: Settings,
    progress: Progress = no_progress,
) -> Scored:
    """Return the numbers of uploaded scores.

    Half of the in-distribution rows, drawn at random, set the threshold; the numbers
    are of the others.

    Parameters
    ----------
    files : sequence of (str, GivenScores)
        Name of the set that the OOD rows of a file are, and the file.
    settings : Settings
    progress : callable, optional

    Raises
    ------
    DataError
        If there are no in-distribution rows or no OOD rows.
    """
    inside = np.concatenate([item.score[~item.is_ood] for _, item in files])
    ood: dict[str, FloatArray] = {}
    for name, item in files:
        if item.is_ood.any():
            key = name if name not in ood else f"{name} ({len(ood) + 1})"
            ood[key] = item.score[item.is_ood]
    if inside.size < 2 or not ood:
        missing = "out-of-distribution" if inside.size >= 2 else "in-distribution"
        raise DataError(
            f"There are too few {missing} rows among the scores.",
            ", ".join(name for name, _ in files),
            "Give scores of both; OOD rows have the label -1.",
        )
    parts = halves(np.arange(inside.size), None, settings.seed)
    scores = SetScores(inside[parts.choose], inside[parts.measure], ood)
    found = measure_scores(GIVEN, scores, settings, progress=progress)
    text = (
        f"{scores.threshold.size:,} in-distribution rows, drawn at random, set the "
        f"threshold; the numbers are of the other {scores.test.size:,}."
    )
    notes = [note for _, item in files for note in item.notes]
    return replace(found, notes=(*notes, Note("threshold-rows", "info", text)))


def scored_table(
    own: Predictions,
    detector: Detector,
    threshold: Threshold,
    progress: Progress = no_progress,
    *,
    classes: Sequence[str] = (),
) -> pd.DataFrame:
    """Return each row with its score and whether it is accepted.

    Parameters
    ----------
    own : Predictions
    detector : Detector
    threshold : Threshold
    progress : callable, optional
    classes : sequence of str, optional
        Names of the classes that the detector was fitted on; by default those of the
        rows.

    Returns
    -------
    DataFrame
        row (of the file), the id where there is one, prediction and confidence where
        there are class scores, nearest_class where the detector has class means,
        ood_score and accepted.
    """
    score = detector.score(own, progress=progress)
    frame = pd.DataFrame({"row": own.file_rows})
    ids = own.column("id")
    if ids is not None:
        frame[str(ids.name)] = ids.to_numpy()
    if own.logits is not None or own.confidence is not None:
        statistics = Rows(own).statistics()
        if statistics.prediction is not None:
            names = np.array(list(own.classes), dtype=object)
            frame["prediction"] = names[statistics.prediction]
        frame["confidence"] = statistics.confidence
    if isinstance(detector, Mahalanobis):
        known = list(classes or own.classes)
        known += [f"class {i}" for i in range(len(known), detector.n_classes_)]
        frame["nearest_class"] = np.array(known, dtype=object)[detector.predict(own)]
    frame["ood_score"] = score
    frame["accepted"] = threshold.accepts(score)
    return frame
