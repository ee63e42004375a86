"""Rows as a person reads them: id, what is known of them, label, prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.predictions import Predictions
from core.row_statistics import RowStatistics

__all__ = ["list_rows", "most_surprising"]

IndexArray = NDArray[np.int64]


def list_rows(
    own: Predictions, statistics: RowStatistics, rows: IndexArray
) -> pd.DataFrame:
    """Return rows of the file with their metadata and what the model said of them.

    Parameters
    ----------
    own : Predictions
    statistics : RowStatistics
        Of exactly these rows, in this order.
    rows : ndarray of int64 of shape (n,)
        Positions in `own`.

    Returns
    -------
    DataFrame
        The id first, then `file_row`, `label`, `prediction`, `confidence`, `correct`,
        `probability_of_label`, and every other column of the file.
    """
    table = own.metadata.iloc[rows].reset_index(drop=True)
    found: dict[str, Any] = {}
    if own.roles.id is not None:
        found[own.roles.id] = table.pop(own.roles.id)
    found["file_row"] = own.file_rows[rows]
    names = np.array([*own.classes, ""], dtype=object)  # -1: no label
    if own.labels is not None:
        found["label"] = names[own.labels[rows]]
    if statistics.prediction is not None:
        found["prediction"] = names[statistics.prediction]
    found["confidence"] = statistics.confidence
    if statistics.correct is not None:
        found["correct"] = statistics.correct
    if statistics.label_log_probability is not None:
        found["probability_of_label"] = np.exp(statistics.label_log_probability)
    ours = pd.DataFrame(found)
    table = table.drop(columns=[name for name in table if name in ours])
    return pd.concat([ours, table], axis=1)


def most_surprising(statistics: RowStatistics, rows: IndexArray, n: int) -> IndexArray:
    """Return the rows whose label the model thought least likely, worst first.

    Without class scores these are the wrong rows, the most confident first.
    """
    known = statistics.label_log_probability
    if known is None:
        assert statistics.correct is not None  # noqa: S101 - labelled rows
        known = np.where(statistics.correct, 0.0, -statistics.confidence)
    order = np.argsort(known[rows], kind="stable")
    return np.asarray(rows[order[:n]], dtype=np.int64)
