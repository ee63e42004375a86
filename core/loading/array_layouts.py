"""What named arrays mean together: parts of a split, tokens, one-hot labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.loading.names import (
    ARRAY_LABELS,
    ARRAY_SCORES,
    NAMES,
    is_features_name,
    part_of,
    plain,
)
from core.loading.sources import Raw, damaged
from core.messages import DataError, Note

__all__ = ["is_one_hot", "raw_of_arrays"]

Bag = dict[str, NDArray[Any]]

# Not one value per row, even where there are as many rows as classes.
_NOT_ROWS = {*NAMES["classes"], *NAMES["head_weight"], *NAMES["head_bias"]}
_ROWS = {
    name
    for role in ("id", "group", "weight", "time", "ood", "dataset")
    for name in NAMES[role]
}
_IGNORED = -100  # label that PyTorch and Hugging Face leave out of the loss


def raw_of_arrays(name: str, kind: str, found: Bag, notes: list[Note]) -> Raw:
    """Return named arrays as rows: columns, and arrays that are not one value each.

    Parameters
    ----------
    name, kind : str
        Name of the file and its format.
    found : dict of str to ndarray
    notes : list of Note
        Remarks made while reading.
    """
    arrays = {key: _squeezed(_native(array)) for key, array in found.items()}
    notes = list(notes)
    arrays = _joined_parts(arrays, name, notes)
    arrays = _flat_tokens(arrays, notes)
    arrays = _in_order(arrays, notes)
    arrays = _upright(arrays, notes)
    _refuse_maps(arrays, name)
    n_rows = _n_rows(arrays)
    if n_rows == 0:
        raise DataError(
            "The file holds no rows of numbers; its arrays are "
            + (", ".join(f"{k} {a.shape}" for k, a in arrays.items()) or "none")
            + ".",
            name,
            "Save logits of shape (rows, classes) and labels of shape (rows,).",
        )
    columns: dict[str, Any] = {}
    others: Bag = {}
    for key, array in arrays.items():
        if plain(key) in ARRAY_LABELS:
            array = _checked_labels(array, n_rows, f"{name}, array {key}", notes)
        is_column = array.ndim == 1 and len(array) == n_rows
        if is_column and plain(key) not in _NOT_ROWS:
            columns[key] = _arrow(array, f"{name}, array {key}")
        else:
            others[key] = array
    idle = [k for k, a in others.items() if a.ndim != 2 and plain(k) in ARRAY_SCORES]
    if idle:
        text = f"{idle[0]} has the shape {others[idle[0]].shape} and is not used."
        notes.append(Note("array-not-used", "warning", text))
    table = pa.table(columns) if columns else pa.table({})
    return Raw(name, kind, table, n_rows, others, notes=notes)


def _refuse_maps(arrays: Bag, name: str) -> None:
    """Send scores of pixels where images are the rows."""
    by_name = {plain(key): array for key, array in arrays.items()}
    scores = next((by_name[k] for k in ARRAY_SCORES if k in by_name), None)
    if scores is not None and scores.ndim == 4 and min(scores.shape) > 1:
        raise DataError(
            f"These are segmentation maps: scores of shape {scores.shape}.",
            name,
            "Open them on the Segmentation page, or with `python -m app segment`.",
        )


def _joined_parts(arrays: Bag, name: str, notes: list[Note]) -> Bag:
    """Put logits_val, labels_val, logits_test, ... together, with a split column.

    Keys may start or end with the part (`core.loading.names.part_of`). One part
    alone loses its suffix and makes no split.
    """
    parts: dict[str, Bag] = {}
    rest: Bag = {}
    for key, array in arrays.items():
        base, part = part_of(key)
        is_rows = plain(base) in {*ARRAY_SCORES, *ARRAY_LABELS, *_ROWS}
        is_rows = is_rows or is_features_name(base)
        if not part or not is_rows or not array.ndim:
            rest[key] = array
        elif base in parts.setdefault(part, {}):
            raise DataError(
                f"Two arrays hold {base} of the {part} rows.",
                f"{name}, array {key}",
                "Keep one of them.",
            )
        else:
            parts[part][base] = array
    if not parts:
        return arrays
    if len(parts) == 1:
        own = next(iter(parts.values()))
        return arrays if set(own) & set(rest) else rest | own
    return rest | _stacked(parts, name, notes)


def _stacked(parts: dict[str, Bag], name: str, notes: list[Note]) -> Bag:
    keys = {frozenset(bag) for bag in parts.values()}
    if len(keys) > 1:
        listed = "; ".join(f"{part}: {', '.join(bag)}" for part, bag in parts.items())
        raise DataError(
            f"The parts do not hold the same arrays ({listed}).",
            name,
            "Save the same arrays of every part, such as logits_val, labels_val, "
            "logits_test and labels_test.",
        )
    found: Bag = {}
    for key in next(iter(parts.values())):
        pieces = [bag[key] for bag in parts.values()]
        shapes = ", ".join(str(piece.shape) for piece in pieces)
        if len({(piece.ndim, piece.shape[1:]) for piece in pieces}) > 1:
            raise DataError(
                f"The parts of {key} have the shapes {shapes}.",
                f"{name}, array {key}",
                "Save the same classes for every part.",
            )
        found[key] = np.concatenate(pieces)
    lengths = {}
    for part, bag in parts.items():
        sizes = {len(array) for array in bag.values()}
        if len(sizes) > 1:
            shown = ", ".join(f"{key} {array.shape}" for key, array in bag.items())
            raise DataError(
                f"The arrays of {part} have different lengths: {shown}.",
                name,
                "Save arrays of the same rows.",
            )
        lengths[part] = sizes.pop()
    found["split"] = np.repeat(list(lengths), list(lengths.values()))
    counted = " and ".join(f"{n:,} {part} rows" for part, n in lengths.items())
    text = f"The names of the arrays say the split: {counted}."
    notes.append(Note("split-from-names", "info", text))
    return found


def _flat_tokens(arrays: Bag, notes: list[Note]) -> Bag:
    """Take scores of tokens (n, length, k) as rows, without those marked -100."""
    by_name = {plain(key): key for key in arrays}
    score = next((by_name[k] for k in ARRAY_SCORES if k in by_name), None)
    label = next((by_name[k] for k in ARRAY_LABELS if k in by_name), None)
    if score is None or label is None:
        return arrays
    scores, labels = arrays[score], arrays[label]
    if scores.ndim != 3 or labels.shape != scores.shape[:2]:
        return arrays
    is_used = labels != _IGNORED
    sequence = np.repeat(np.arange(len(labels)), is_used.sum(axis=1))
    text = (
        f"{score} has the shape {scores.shape}: each of the {is_used.sum():,} tokens "
        f"is a row, {(~is_used).sum():,} marked {_IGNORED} are left out, and the "
        "tokens of a sequence are a group."
    )
    notes.append(Note("tokens", "info", text))
    rest = {k: a for k, a in arrays.items() if k not in {score, label}}
    return rest | {score: scores[is_used], label: labels[is_used], "group": sequence}


def is_one_hot(array: NDArray[Any]) -> bool:
    """Whether every row holds one 1 and zeros."""
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        return False
    is_hard = np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()
    return bool(is_hard)


def _in_order(arrays: Bag, notes: list[Note]) -> Bag:
    """Swap arr_0 and arr_1 where the labels were saved first."""
    first, second = arrays.get("arr_0"), arrays.get("arr_1")
    if first is None or second is None or len(arrays) != 2:
        return arrays
    is_whole = first.ndim == 1 and first.dtype.kind in "biuUf" and _is_whole(first)
    is_scores = second.ndim in {1, 2} and second.dtype.kind == "f"
    if not is_whole or not is_scores or len(first) not in second.shape:
        return arrays
    if _is_whole(second):
        return arrays
    text = "arr_0 holds the labels and arr_1 the scores: they were saved labels first."
    notes.append(Note("labels-first", "info", text))
    return {"arr_0": second, "arr_1": first}


def _is_whole(array: NDArray[Any]) -> bool:
    if array.dtype.kind != "f":
        return True
    return bool((np.floor(array) == array).all())


def _upright(arrays: Bag, notes: list[Note]) -> Bag:
    """Turn scores of shape (classes, rows), as the labels say they are."""
    by_name = {plain(key): key for key in arrays}
    score = next((by_name[k] for k in ARRAY_SCORES if k in by_name), None)
    label = next((by_name[k] for k in ARRAY_LABELS if k in by_name), None)
    if score is None or label is None or arrays[score].ndim != 2:
        return arrays
    n_classes, n_rows = arrays[score].shape
    if arrays[label].shape != (n_rows,) or not 2 <= n_classes < n_rows:
        return arrays
    text = (
        f"{score} has the shape ({n_classes:,}, {n_rows:,}) and there are {n_rows:,} "
        "labels: its columns were read as rows."
    )
    notes.append(Note("transposed", "warning", text))
    return arrays | {score: np.ascontiguousarray(arrays[score].T)}


def _checked_labels(
    array: NDArray[Any], n_rows: int, where: str, notes: list[Note]
) -> NDArray[Any]:
    """Return one label per row, also from one column of 0 or 1 per class."""
    if len(array) == n_rows and is_one_hot(array):
        text = f"The labels have the shape {array.shape}: the 1 says the class."
        notes.append(Note("one-hot-labels", "info", text))
        return np.asarray(array.argmax(axis=1))
    if array.shape != (n_rows,):
        raise DataError(
            f"The labels have shape {array.shape}, the scores {n_rows:,} rows.",
            where,
            "Save one label per row of the scores.",
        )
    return array


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Return float32 or float64 in the machine's byte order; text as str."""
    if array.dtype.kind == "f":
        wanted = np.float32 if array.dtype.itemsize <= 4 else np.float64
        return array.astype(wanted, copy=False)
    if array.dtype.kind == "S":
        return np.char.decode(array, "latin-1")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _squeezed(array: NDArray[Any]) -> NDArray[Any]:
    """Return (n, 1) as (n,)."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _n_rows(arrays: dict[str, NDArray[Any]]) -> int:
    """Return the length of the scores, of the labels, else of the longest array."""
    by_name = {plain(key): array for key, array in arrays.items() if array.ndim}
    for wanted in (*ARRAY_SCORES, *ARRAY_LABELS):
        if wanted in by_name and by_name[wanted].ndim <= 2:
            return len(by_name[wanted])
    tables = [array for array in arrays.values() if array.ndim == 2] or [
        array for array in arrays.values() if array.ndim == 1
    ]
    return max(map(len, tables), default=0)


def _arrow(array: NDArray[Any], where: str) -> Any:
    try:
        if array.dtype.kind == "M":
            array = np.datetime_as_string(array)
        return pa.array(array)
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise damaged(where, "array", error) from None
