"""The rows whose predicted class a calibrator changed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.analysis import Analysis
from core.listing import list_rows

__all__ = ["changed_rows"]


def changed_rows(analysis: Analysis, method: str) -> pd.DataFrame:
    """Return the test rows whose predicted class changed, the surest of them first.

    Parameters
    ----------
    analysis : Analysis
    method : str
        Id of a fitted calibrator.

    Returns
    -------
    DataFrame
        As `core.listing.list_rows` lists them, with `prediction_after`,
        `confidence_after` and `became` ("right", "wrong", or empty where a wrong
        prediction became another wrong one).
    """
    split = analysis.overview.split
    assert split is not None  # noqa: S101 - something was fitted
    rows = split.test
    before, after = analysis.overview.rows.take(rows), analysis.fitted[method].rows
    assert before.prediction is not None  # noqa: S101 - class scores
    assert after.prediction is not None  # noqa: S101
    assert before.correct is not None  # noqa: S101 - test rows are labelled
    assert after.correct is not None  # noqa: S101
    moved = np.flatnonzero(before.prediction != after.prediction)
    moved = moved[np.argsort(-after.confidence[moved], kind="stable")]
    own = analysis.study.evaluation
    table = list_rows(own, before.take(moved), rows[moved])
    names = np.array(own.classes, dtype=object)
    gained = after.correct[moved] & ~before.correct[moved]
    lost = before.correct[moved] & ~after.correct[moved]
    ours = {
        "prediction_after": names[after.prediction[moved]],
        "confidence_after": after.confidence[moved],
        "became": np.where(gained, "right", np.where(lost, "wrong", "")),
    }
    table = table.drop(columns=[name for name in ours if name in table])
    place = list(table.columns).index("confidence")
    for number, (name, values) in enumerate(ours.items(), place + 1):
        table.insert(number, name, values)
    return table
