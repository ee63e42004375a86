"""Checks of score arrays where they enter: afterwards nothing validates again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from core.messages import Answer, DataError, Note
from core.parallel import map_rows

__all__ = [
    "as_scores",
    "as_times",
    "check_weights",
    "checked_confidence",
    "checked_labels",
    "checked_logits",
    "file_row",
    "given_probabilities",
    "log_probabilities",
    "optional_rows",
    "two_class_logits",
]

FloatArray = NDArray[np.floating[Any]]
FileRows = NDArray[Any] | None

_BLOCK = 1 << 20  # scores looked at per step, so that no mask is as large as the file
_SUMMED_BYTES = 1 << 22  # half of it takes 0.1 ms, hardly more than to wake a thread
_SILENT = 1e-3  # rounding in text files; larger departures from 1 are mentioned
_TOLERATED = 1e-2
_SMALLEST = 1e-12
_DIGITS = (4, 6, 9, 12, 16, 17, 18)  # decimals at which a logarithm is undone


def file_row(position: int, file_rows: FileRows = None) -> int:
    """Return the row of the file, counted from 1, at a position of the arrays."""
    if file_rows is None or position >= len(file_rows):
        return int(position) + 1
    return int(file_rows[position])


def as_scores(values: ArrayLike | None, where: str) -> FloatArray:
    """Return scores as a C-contiguous float32 or float64 array of shape (n, k)."""
    try:
        array = np.asarray(values)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(
            "The scores are not numbers.", where, "Give one number per class and row."
        ) from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(
            f"The scores have shape {array.shape}.",
            where,
            "Give one row per prediction and one column per class.",
        )
    return np.ascontiguousarray(array)


def checked_logits(
    values: ArrayLike | None, where: str, file_rows: FileRows = None
) -> FloatArray:
    """Return logits as floats; NaN, +inf or a row of only -inf raises DataError."""
    array = as_scores(values, where)

    def total(start: int, stop: int) -> float:
        # NaN and infinity would be in the sum, which is faster than `sum`
        return float(np.einsum("i->", array[start:stop].reshape(-1)))

    row_bytes = array[:1].nbytes
    totals = map_rows(total, len(array), row_bytes, chunk_bytes=_SUMMED_BYTES)
    if np.isfinite(totals).all():
        return array
    for start, block in _blocks(array):
        is_bad = np.isnan(block) | (block == np.inf)
        bad = np.flatnonzero(is_bad.any(axis=1) | (block == -np.inf).all(axis=1))
        if bad.size:
            row = int(bad[0])
            columns = np.flatnonzero(is_bad[row])
            column = int(columns[0]) if columns.size else 0
            raise DataError(
                f"A logit is {block[row, column]:g}"
                + (" in every class." if not columns.size else "."),
                f"{where}, score column {column + 1}, "
                f"row {file_row(start + row, file_rows)}",
                "Logits are finite numbers; -inf is allowed for masked classes.",
                answers=(Answer("Leave such rows out", "invalid_rows", "leave-out"),),
            )
    return array


def two_class_logits(logits: FloatArray) -> FloatArray:
    """Return one column z as the two-class logits (0, z); others unchanged.

    The temperature of (0, z) is the one of Guo et al. (2017); the pair (-z, z) that
    some libraries build doubles it.
    """
    if logits.shape[1] != 1:
        return logits
    return np.hstack([np.zeros_like(logits), logits])


def log_probabilities(
    values: ArrayLike | None,
    where: str,
    *,
    renormalise: bool = False,
    file_rows: FileRows = None,
) -> tuple[FloatArray, list[Note]]:
    """Return logarithms of probabilities, with exact zeros floored and counted.

    Zeros take the smallest positive probability of the file, at most 1e-12. One
    column p becomes ``(log1p(-p), log(p))``.
    """
    array = as_scores(values, where)
    for start, block in _blocks(array):
        is_bad = ~((block >= 0) & (block <= 1 + 1e-6))
        if not is_bad.any():
            continue
        row, column = (int(i) for i in np.argwhere(is_bad)[0])
        row += start
        raise DataError(
            f"A probability is {array[row, column]:g}.",
            f"{where}, score column {column + 1}, row {file_row(row, file_rows)}",
            "Probabilities lie between 0 and 1. If these are logits, say so.",
            answers=(
                Answer("These are logits", "input_kind", "logits"),
                Answer("Leave such rows out", "invalid_rows", "leave-out"),
            ),
        )
    if array.shape[1] == 1:
        p = np.minimum(array[:, 0], 1)
        with np.errstate(divide="ignore"):
            logits = np.column_stack([np.log1p(-p), np.log(p)])
        return _floored(logits, _floor(p, 1 - p), where, file_rows)
    notes = _check_sums(array, where, file_rows, renormalise=renormalise)
    with np.errstate(divide="ignore"):
        logits = np.log(array)
    logits, more = _floored(logits, _floor(array), where, file_rows)
    return logits, notes + more


def given_probabilities(logits: FloatArray, floor: float | None = None) -> FloatArray:
    """Return the probabilities of a file, of which `log_probabilities` took logarithms.

    Parameters
    ----------
    logits : ndarray of shape (n, k)
    floor : float, optional
        The logarithm that exact zeros took, the least of the file.

    Returns
    -------
    ndarray of shape (n, k), of the type of `logits`
        The shortest decimal number that has this logarithm, 0 where one was floored.
        Numbers of 12 decimals and fewer come back exactly, others but for the last
        digit.
    """
    probabilities = np.exp(logits)
    is_open = np.ones(logits.shape, dtype=np.bool_)
    with np.errstate(divide="ignore"):
        for digits in _DIGITS:
            rounded = np.round(probabilities.astype(np.float64), digits)
            rounded = rounded.astype(logits.dtype)
            is_it = is_open & (np.log(rounded) == logits)
            np.copyto(probabilities, rounded, where=is_it)
            is_open &= ~is_it
    if floor is not None:
        probabilities[logits <= floor] = 0.0
    return probabilities


def _blocks(array: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Yield the first row and the rows of each block."""
    step = max(1, _BLOCK // max(1, array.shape[1]))
    for start in range(0, len(array), step):
        yield start, array[start : start + step]


def _floor(*probabilities: FloatArray) -> float:
    """Return the smallest positive probability, at most 1e-12."""
    columns = [p.reshape(len(p), -1) for p in probabilities]
    positive = [
        block[block > 0].min(initial=_SMALLEST)
        for column in columns
        for _, block in _blocks(column)
    ]
    return float(min(positive, default=_SMALLEST))


def _floored(
    logits: FloatArray, smallest: float, where: str, file_rows: FileRows
) -> tuple[FloatArray, list[Note]]:
    count = 0
    for start, block in _blocks(logits):
        is_zero = np.isneginf(block)
        count += int(is_zero.sum())
        is_empty = is_zero.all(axis=1)
        block[is_zero] = np.log(smallest)
        if not is_empty.any():
            continue
        row = start + int(np.flatnonzero(is_empty)[0])
        raise DataError(
            "All probabilities of a row are 0.",
            f"{where}, row {file_row(row, file_rows)}",
            "Leave the row out, or write its probabilities.",
            answers=(Answer("Leave such rows out", "invalid_rows", "leave-out"),),
        )
    if not count:
        return logits, []
    text = (
        f"{count:,} probabilities are exactly 0 (or 1 for a binary score); "
        f"they count as {smallest:.3g} so that the log loss stays finite."
    )
    return logits, [Note("exact-zero", "info", text)]


def _check_sums(
    array: FloatArray, where: str, file_rows: FileRows, *, renormalise: bool
) -> list[Note]:
    sums = array.sum(axis=1, dtype=np.float64)
    gaps = np.abs(sums - 1)
    worst = int(gaps.argmax()) if gaps.size else 0
    largest = float(gaps.max(initial=0.0))
    if largest <= _SILENT:
        return []
    n_far = int((gaps > _SILENT).sum())
    said = f"{n_far:,} rows of probabilities do not sum to 1"
    if largest > _TOLERATED and not renormalise:
        raise DataError(
            f"{said}; the furthest sums to {sums[worst]:.4g}.",
            f"{where}, row {file_row(worst, file_rows)}",
            "If these are logits, say so; if the rows may be rescaled to 1, say so.",
            answers=(
                Answer("These are logits", "input_kind", "logits"),
                Answer("Rescale the rows to 1", "renormalise", "yes"),
            ),
        )
    text = f"{said} (the furthest: {sums[worst]:.4g}); they were rescaled."
    return [Note("renormalised", "warning", text)]


def checked_confidence(
    confidence: ArrayLike | None,
    correct: ArrayLike | None,
    where: str,
    file_rows: FileRows = None,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return confidences in [0, 1] and whether each prediction was right."""
    if confidence is None or correct is None:
        raise DataError(
            "A file of confidences needs to say which predictions were right.",
            where,
            "Give the columns confidence and correct (0 or 1).",
        )
    values = as_scores(confidence, where)[:, 0].astype(np.float64)
    hits = np.asarray(correct)
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if bad.size:
        raise DataError(
            f"A confidence is {values[bad[0]]:g}.",
            f"{where}, column confidence, row {file_row(bad[0], file_rows)}",
            "Confidences lie between 0 and 1 (divide percentages by 100).",
            answers=(Answer("Leave such rows out", "invalid_rows", "leave-out"),),
        )
    if hits.shape != values.shape:
        raise DataError(
            f"There are {values.size:,} confidences, and correct has shape "
            f"{hits.shape}.",
            f"{where}, column correct",
            "Give one value of each per row.",
        )
    is_flag = np.isin(hits, (0, 1))
    if not is_flag.all():
        row = int(np.flatnonzero(~is_flag)[0])
        raise DataError(
            "The column correct must hold 0 or 1 in every row.",
            f"{where}, column correct, row {file_row(row, file_rows)}",
            "Write 1 where the prediction was right and 0 where it was wrong.",
        )
    return values, hits.astype(bool)


def check_weights(
    column: pd.Series[Any], where: str, file_rows: FileRows = None
) -> None:
    """Refuse weights that are negative, not finite, or all 0."""
    where = f"{where}, column {column.name}"
    weights = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if bad.size:
        row = int(bad[0])
        raise DataError(
            f"Weights must be finite and not negative, got {column.iloc[row]}.",
            f"{where}, row {file_row(row, file_rows)}",
            "Correct the column, or choose no weight column.",
        )
    if weights.sum() <= 0:
        raise DataError(
            "All weights are 0.", where, "Give some rows weight, or choose no column."
        )


def as_times(
    column: pd.Series[Any], where: str, file_rows: FileRows = None
) -> pd.Series[Any]:
    """Return numbers or timestamps; what is neither raises DataError."""
    times = column
    if not pd.api.types.is_numeric_dtype(column):
        times = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
    if times.isna().any():
        row = int(np.flatnonzero(times.isna())[0])
        raise DataError(
            f"{column.iloc[row]!r} is not a time.",
            f"{where}, column {column.name}, row {file_row(row, file_rows)}",
            "Write times as numbers or as 2026-01-31 or 2026-01-31T12:00.",
        )
    return times


def checked_labels(
    labels: ArrayLike | None,
    n_rows: int,
    n_classes: int,
    where: str,
    file_rows: NDArray[Any] | None,
) -> NDArray[np.int64] | None:
    """Return labels as int64, -1 where unlabelled; others raise DataError."""
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (n_rows,) or array.dtype.kind not in "iu":
        raise DataError(
            f"Labels have shape {array.shape} and type {array.dtype}.",
            where,
            f"Give {n_rows:,} whole numbers, one per row.",
        )
    bad = np.flatnonzero((array < -1) | (array >= n_classes))
    if bad.size:
        raise DataError(
            f"The label {array[bad[0]]} is not one of the {n_classes} classes "
            f"(0 to {n_classes - 1}); {bad.size:,} rows have such a label.",
            f"{where}, row {file_row(bad[0], file_rows)}",
            "Number the classes from 0 in the order of the score columns; "
            "-1 means unlabelled.",
        )
    return array.astype(np.int64)


def optional_rows(
    values: ArrayLike | None, dtype: Any, n_rows: int, what: str, where: str
) -> NDArray[Any] | None:
    """Return one value per row in a type, or None; other shapes raise DataError."""
    if values is None:
        return None
    array = np.array(values, dtype=dtype)
    if array.shape != (n_rows,):
        raise DataError(
            f"{what} has shape {array.shape}, there are {n_rows:,} rows.",
            where,
            "Give one value per row.",
        )
    return array
