"""What the functions over logits accept: an array, labels, a temperature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.messages import DataError

__all__ = ["checked_labels", "checked_logits", "checked_temperature", "raise_bad_row"]


def checked_logits(logits: ArrayLike) -> NDArray[Any]:
    """Return logits as a C-contiguous, read-only float array of two dimensions."""
    try:
        array = np.asarray(logits)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        what = "The logits are not an array of numbers."
        raise DataError(what, "logits", "Give one number per row and class.") from None
    if array.ndim != 2 or array.shape[1] == 0:
        what = f"The logits have shape {array.shape}."
        raise DataError(what, "logits", "Give an array (n_samples, n_classes).")
    # native byte order, C order and read-only: one specialisation of each kernel
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).view()
    array.flags.writeable = False
    return array


def checked_temperature(temperature: float) -> float:
    """Return a temperature as a finite number above 0."""
    is_number = isinstance(temperature, (int, float, np.number))
    value = float(temperature) if is_number else np.nan
    if not 0 < value < np.inf:
        what = f"The temperature is {temperature!r}."
        raise DataError(what, "temperature", "Use a finite number above 0.")
    return value


def checked_labels(
    labels: ArrayLike, n_rows: int, n_classes: int, lowest: int
) -> NDArray[np.int64]:
    """Return labels, columns from `lowest` on, as a read-only array of int64."""
    array = np.asarray(labels)
    if array.shape != (n_rows,):
        what = f"The labels have shape {array.shape} for {n_rows} rows."
        raise DataError(what, "labels", "Give one label per row.")
    if array.dtype.kind not in "iu" and array.size:
        what = f"The labels have dtype {array.dtype}."
        raise DataError(what, "labels", "Give column numbers of the logits (integers).")
    if array.size and not lowest <= array.min() <= array.max() < n_classes:
        row = int(np.argmax((array < lowest) | (array >= n_classes)))
        unlabelled = ", or -1 for unlabelled rows" if lowest < 0 else ""
        raise DataError(
            f"A label is {array[row]}, but there are {n_classes} classes.",
            f"labels, row {row + 1}",
            f"Use column numbers from 0 to {n_classes - 1}{unlabelled}.",
        )
    array = np.ascontiguousarray(array, dtype=np.int64).view()
    array.flags.writeable = False
    return array


def raise_bad_row(logits: NDArray[Any], bad_rows: Iterable[int]) -> None:
    """Raise for the first bad row that the chunks reported, in order; -1 is none."""
    row = next((bad for bad in bad_rows if bad >= 0), -1)
    if row < 0:
        return
    values = logits[row]
    if np.isnan(values).any():
        column = int(np.argmax(np.isnan(values)))
        what = "A logit is NaN."
    elif (values == np.inf).any():
        column = int(np.argmax(values))
        what = "A logit is +inf."
    else:
        column = 0
        what = "Every logit of a row is -inf."
    raise DataError(
        what,
        f"logits, row {row + 1}, class column {column + 1}",
        "Give finite logits; -inf is allowed for classes that are ruled out, "
        "as long as one class of the row is left.",
    )
