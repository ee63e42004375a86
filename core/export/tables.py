"""Calibrated probabilities as tables: of new rows, and of the user's own file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.analysis import UNCALIBRATED, Analysis
from core.calibrators import Calibrator
from core.companions import Companions, companions_of, last_layer
from core.export.methods import n_copies_of
from core.export.portable import exported_calibrator, fed, fitted_of
from core.messages import DataError
from core.predictions import Predictions, matching_rows
from core.splitting import Split

__all__ = ["FLAGS", "annotate", "apply_calibrator"]

FloatArray = NDArray[np.floating[Any]]

_MOST_SCORES = 4_000_000  # given scores that the annotated rows repeat
IndexArray = NDArray[np.int64]

FLAGS = {
    "cross-fitted": "by a calibrator that saw neither the row nor its group",
    "test": "by a calibrator fitted on other rows",
    "threshold": "by a calibrator fitted on other rows; kept for thresholds",
    "in-sample": "by a calibrator that was fitted on this row",
    "unlabelled": "no label; by a calibrator that never saw the row",
    "not-used": "has a label but no part in the split",
    "uncalibrated": "the scores as they came",
    "left-out": "could not be read; no probability",
}
"""What the column `flag` of `annotate` says of a row's probabilities."""

_BLOCK = 1 << 22  # scores worked on at once


class _Calibrated:
    """Calibrated probabilities of all rows, filled in blocks."""

    def __init__(self, logits: FloatArray, beside: Companions | None = None) -> None:
        self.logits, self.beside = logits, beside
        self.probabilities = np.empty(logits.shape, dtype=logits.dtype)
        self.prediction = np.zeros(len(logits), dtype=np.int64)
        self.confidence = np.empty(len(logits), dtype=logits.dtype)

    def fill(self, calibrator: Calibrator, rows: IndexArray | None = None) -> None:
        """Calibrate some rows; all by default."""
        n, k = self.logits.shape
        n = n if rows is None else rows.size
        step = max(1, _BLOCK // k)
        for start in range(0, n, step):
            block = slice(start, start + step)
            where = block if rows is None else rows[block]
            more = {} if self.beside is None else self.beside.take(where)
            logs = _log_probabilities(calibrator, self.logits[where], **more)
            self.prediction[where] = logs.argmax(axis=1)
            found = np.exp(logs, out=logs)
            self.probabilities[where] = found
            self.confidence[where] = found.max(axis=1)

    def columns(self, classes: tuple[str, ...]) -> pd.DataFrame:
        """Return one column per class."""
        names = [f"prob_{name}" for name in classes]
        return pd.DataFrame(self.probabilities, columns=names, copy=False)


def apply_calibrator(
    calibrator: Calibrator,
    metadata: Mapping[str, Any],
    predictions: Predictions,
    copies: Sequence[Predictions] = (),
) -> pd.DataFrame:
    """Return calibrated probabilities of new rows; labels are not needed.

    Parameters
    ----------
    calibrator : Calibrator
    metadata : mapping
        From `from_json` or `export_metadata`.
    predictions : Predictions
        Rows with the same classes. Columns in another order are sorted by name;
        classes that the file does not name ("class 0", "0") are taken by position,
        and of two classes "not X" is the one that is not X.
    copies : sequence of Predictions, default=()
        Transformed copies of the rows, as many as the calibrator was fitted with and in
        that order; matched by id, else by order.

    Returns
    -------
    DataFrame
        The id column if there is one, the row of the file if rows of it were left out,
        `prediction`, `confidence`, and `prob_<class>` for each class.

    Raises
    ------
    DataError
        If the classes differ, or copies that it needs are not there.
    """
    logits = _with_floor_of_fit(predictions, metadata)
    classes = tuple(metadata.get("classes") or predictions.classes)
    if len(classes) != int(calibrator.classes_.size):
        raise DataError(
            f"The calibrator has {calibrator.classes_.size} classes and names "
            f"{len(classes)}.",
            "calibrator file",
            "Choose the file that the Export page or `calibrate` wrote.",
        )
    order = _class_order(predictions, classes)
    if order is not None:
        logits = logits[:, order]
    made = _Calibrated(logits, _beside_of(calibrator, predictions, copies, classes))
    made.fill(calibrator)
    own: dict[str, Any] = {}
    identity = predictions.column("id")
    if identity is not None:
        own[str(identity.name)] = identity
    if len(predictions.left_out):
        own["file_row"] = predictions.file_rows
    ours = pd.DataFrame(
        {"prediction": _names(made.prediction, classes), "confidence": made.confidence}
    )
    return _beside(pd.DataFrame(own, index=ours.index), ours, made.columns(classes))


def _beside_of(
    calibrator: Calibrator,
    predictions: Predictions,
    copies: Sequence[Predictions],
    classes: tuple[str, ...],
) -> Companions | None:
    """Return what is read beside new rows, in the calibrator's order of classes."""
    if "features" in calibrator.reads:
        features = last_layer(predictions.features)
        return Companions(frozenset({"features"}), features, ())
    if "copies" not in calibrator.reads:
        return None
    expected = n_copies_of(calibrator._state())
    if len(copies) != expected:
        raise DataError(
            f"The calibrator was fitted with {expected} transformed copies of each "
            f"row; {len(copies) or 'none'} of these rows "
            f"{'was' if len(copies) == 1 else 'were'} given.",
            predictions.name,
            "Give the same transforms of these rows, in the same order.",
        )
    found = []
    for copy in copies:
        order = _class_order(copy, classes)
        scores = _scores_of(copy) if order is None else _scores_of(copy)[:, order]
        ready = replace(copy, logits=scores, classes=classes)
        found.append((ready, matching_rows(predictions, copy)))
    return Companions(frozenset({"copies"}), None, tuple(found))


def _with_floor_of_fit(
    predictions: Predictions, metadata: Mapping[str, Any]
) -> FloatArray:
    """Return the logits; exact zeros count as they did in the rows of the fit.

    A file of probabilities gives its zeros a floor of its own, no positive
    probability lies below it, and they are the only cells at it. The exported module
    knows one floor for all files: that of the fit.
    """
    logits = _scores_of(predictions)
    floor = metadata.get("log_floor")
    has_zeros = any(note.code == "exact-zero" for note in predictions.notes)
    if floor is None or not has_zeros:
        return logits
    return np.where(logits == logits.min(), logits.dtype.type(floor), logits)


def annotate(analysis: Analysis, method: str) -> pd.DataFrame:
    """Return the user's own rows with calibrated probabilities, and how they came.

    Parameters
    ----------
    analysis : Analysis
    method : str
        Id of a fitted calibrator, or "uncalibrated".

    Returns
    -------
    DataFrame
        Every other column of the file and its scores (`logit_<class>`, or
        `uncalibrated_<class>` for probabilities; left away above 4,000,000 of them,
        as they would double a file of that size), then `label`, `prediction`,
        `confidence`, `confidence_uncalibrated`, `correct`, `fold` (the round that
        tested the row, counted from 1), `role` in the split, `flag` (see `FLAGS`),
        `file_row` and `prob_<class>`. Rows that could not be read are in their place,
        flagged "left-out", with the reason in `left_out_reason`. A column of the file
        whose name is taken is renamed "<name> (file)".

    Raises
    ------
    DataError
        If the calibrator was not fitted or the file has no class scores.

    Notes
    -----
    In cross-fitting each row has the probabilities of the calibrator that never saw
    it. In a fixed split every row has those of the exported calibrator, and rows that
    it was fitted on say "in-sample".
    """
    own, split = analysis.study.evaluation, analysis.overview.split
    fitted = fitted_of(analysis, method)
    calibrator = exported_calibrator(analysis, method)
    beside = companions_of(analysis.study, own, calibrator)
    made = _Calibrated(_scores_of(own), beside)
    if fitted is None or split is None or split.kind != "cross-fit":
        made.fill(calibrator)
    else:
        for number, calibrator in enumerate(fitted.rounds):
            made.fill(calibrator, np.flatnonzero(split.fold == number))
        made.fill(fitted.calibrator, np.flatnonzero(split.fold < 0))
    role, flag = _roles(own, split, is_fitted=fitted is not None)
    fold = np.full(len(own), -1) if split is None else split.fold
    ours = pd.DataFrame(
        {
            "label": _names(_labels(own), own.classes),
            "prediction": _names(made.prediction, own.classes),
            "confidence": made.confidence,
            "confidence_uncalibrated": analysis.overview.rows.confidence,
            "correct": _masked(made.prediction == _labels(own), own.is_labelled),
            "fold": _masked(fold + 1, fold >= 0),
            "role": role,
            "flag": flag,
            "file_row": own.file_rows,
        }
    )
    given = pd.concat([own.metadata, _given_scores(own)], axis=1)
    frame = _beside(given, ours, made.columns(own.classes))
    return _with_left_out(frame, own.left_out)


def _log_probabilities(
    calibrator: Calibrator,
    logits: FloatArray,
    *,
    copies: FloatArray | None = None,
    **more: FloatArray | None,
) -> FloatArray:
    """Return log-probabilities in a new array, whatever the calibrator was fed with."""
    if copies is not None:
        more["copies"] = np.stack([fed(calibrator, copy) for copy in copies])
    return calibrator.transform(fed(calibrator, logits), **more)


def _scores_of(own: Predictions) -> FloatArray:
    if own.logits is None:
        raise DataError(
            "The file has one confidence per row; calibrated probabilities need the "
            "scores of every class.",
            own.name,
            "Give a file with one score column per class.",
        )
    return own.logits


def _class_order(
    predictions: Predictions, classes: tuple[str, ...]
) -> IndexArray | None:
    """Return the score column of each class of the calibrator; None if they agree."""
    given = predictions.classes
    if given == classes:
        return None
    if any(note.code == "one-unnamed-score" for note in predictions.notes):
        return None  # it is the score of the class that the fitted one was of
    if sorted(given) == sorted(classes):
        return np.array([given.index(name) for name in classes], dtype=np.int64)
    is_unnamed = _are_numbers(given) or _are_numbers(classes)
    if len(given) == len(classes) and is_unnamed:
        return None
    positive = _made_positive(given) or _made_positive(classes)
    if positive and len(given) == len(classes):
        ours, theirs = (_place(positive, names) for names in (classes, given))
        if ours is not None and theirs is not None:
            return None if ours == theirs else np.array([1, 0], dtype=np.int64)
    missing = [name for name in classes if name not in given]
    raise DataError(
        f"The file has {len(given)} classes, the calibrator was fitted on "
        f"{len(classes)}"
        + (f"; {missing[0]!r} is not in the file." if missing else "."),
        predictions.name,
        "Give one score column for each class that the calibrator names.",
    )


def _made_positive(names: tuple[str, ...]) -> str:
    """Return X of the classes ("not X", X) of one score column, else nothing."""
    is_made = len(names) == 2 and names[0].casefold() == f"not {names[1]}".casefold()
    return names[1] if is_made else ""


def _place(name: str, names: tuple[str, ...]) -> int | None:
    folded = [item.casefold() for item in names]
    return folded.index(name.casefold()) if name.casefold() in folded else None


def _are_numbers(names: tuple[str, ...]) -> bool:
    """Whether classes have no names of their own, only their place."""
    return all(name in (str(i), f"class {i}") for i, name in enumerate(names))


def _labels(own: Predictions) -> IndexArray:
    return np.full(len(own), -1) if own.labels is None else own.labels


def _names(codes: IndexArray, classes: tuple[str, ...]) -> Any:
    """Return class names of codes, missing where a code is -1."""
    return pd.array(list(classes), dtype="str").take(codes, allow_fill=True)


def _masked(values: NDArray[Any], is_known: NDArray[np.bool_]) -> Any:
    """Return values of a type that keeps its kind where some are missing."""
    kind = "boolean" if values.dtype == bool else "Int64"
    array = pd.array(values, dtype=kind)
    array[~is_known] = pd.NA
    return array


def _roles(
    own: Predictions, split: Split | None, *, is_fitted: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return each row's role in the split, and what its probabilities are."""
    role = np.full(len(own), "", dtype=object)
    flag = np.where(own.is_labelled, "not-used", "unlabelled").astype(object)
    if split is not None and split.kind == "cross-fit":
        role[split.test] = "cross-fit"
        flag[split.test] = "cross-fitted"
    elif split is not None:
        round_ = split.rounds[0]
        # A calibration file of its own has other rows than these.
        fit = round_.fit[:0] if split.kind == "fit-file" else round_.fit
        for name, rows in (("threshold", round_.threshold), ("test", round_.test)):
            role[rows] = flag[rows] = name
        role[fit], flag[fit] = "fit", "in-sample"
    if not is_fitted:
        flag[:] = UNCALIBRATED
    return role, flag


def _given_scores(own: Predictions) -> pd.DataFrame:
    """Return the scores as the file gave them, one column per class."""
    logits = _scores_of(own)
    if logits.size > _MOST_SCORES:
        return pd.DataFrame(index=own.metadata.index)
    is_logits = own.input_kind == "logits"
    stem = "logit" if is_logits else "uncalibrated"
    names = [f"{stem}_{name}" for name in own.classes]
    values = logits if is_logits else np.exp(logits)
    return pd.DataFrame(values, columns=names, index=own.metadata.index)


def _beside(
    given: pd.DataFrame, ours: pd.DataFrame, probabilities: pd.DataFrame
) -> pd.DataFrame:
    """Put tables side by side; columns of the user make way for ours."""
    taken = {*ours.columns, *probabilities.columns, "left_out_reason"}
    names: list[str] = []
    for column in given.columns:
        name = str(column)
        while name in taken:
            name += " (file)"
        taken.add(name)
        names.append(name)
    parts = [given.set_axis(names, axis=1), ours, probabilities]
    return pd.concat(parts, axis=1)


def _with_left_out(frame: pd.DataFrame, left_out: pd.DataFrame) -> pd.DataFrame:
    """Put the rows that could not be read in their places."""
    if left_out.empty:
        return frame
    reason = (
        left_out["column"].astype(str)
        + ": "
        + left_out["value"].map(repr)
        + " "
        + left_out["reason"].astype(str)
    )
    lines = {"file_row": left_out["row"], "flag": "left-out", "left_out_reason": reason}
    joined = pd.concat([frame, pd.DataFrame(lines)], ignore_index=True)
    return joined.sort_values("file_row", kind="stable", ignore_index=True)
