"""Files of segmentation maps: scores (n, classes, height, width) and their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.loading.arrays import read_bag
from core.loading.sources import as_source, recognise
from core.messages import DataError, Note, Progress, no_progress
from core.segmentation import SegmentationMaps

__all__ = ["IGNORED", "SAVE_MAPS", "read_maps"]

Array = NDArray[Any]

IGNORED = (-1, -100, 255)
"""Labels that never count where they are not classes: torch's, and that of PNGs."""

_SCORES = ("logits", "scores", "predictions", "arr_0")
_LABELS = ("labels", "targets", "masks", "ground_truth", "y_true", "arr_1")
_TEST_WORDS = ("test", "held-out", "holdout", "evaluation")
SAVE_MAPS = """\
Save both in one NPZ file.
import numpy as np

np.savez(
    "maps.npz",
    logits=logits,  # (images, classes, height, width)
    labels=labels,  # (images, height, width), from 0
    ignore_index=255,
)"""


def read_maps(
    source: Any,
    *,
    name: str | None = None,
    ignore_index: int | None = None,
    progress: Progress = no_progress,
) -> SegmentationMaps:
    """Read the maps of an NPZ or safetensors file, everything checked.

    The file holds ``logits`` (n, k, h, w) and ``labels`` (n, h, w), and may hold
    ``classes`` (k names), ``split`` (n times "calibration" or "test") and
    ``ignore_index``. Channels in the last place are moved.

    Parameters
    ----------
    source : path or bytes
    name : str, optional
        To show.
    ignore_index : int, optional
        Label of pixels that do not count; by default the file's, else those of
        `IGNORED` that are not classes.
    progress : callable, optional
        Told the share that was read; may raise `Cancelled`.

    Raises
    ------
    DataError
        If something is missing or does not fit.
    """
    given = as_source(source, name)
    kind = recognise(given)
    if kind not in ("npz", "safetensors"):
        raise DataError(
            "Segmentation maps are read from an NPZ file.", given.name, SAVE_MAPS
        )
    bag, notes = read_bag(given, kind, progress)
    logits = _named(bag, _SCORES, given.name, "scores")
    labels = _named(bag, _LABELS, given.name, "labels")
    logits, labels, moved = _laid_out(logits, labels, given.name)
    _refuse_probabilities(logits, given.name)
    if ignore_index is None and "ignore_index" in bag:
        ignore_index = _whole(bag["ignore_index"], given.name)
    labels, n_ignored = _without_ignored(
        labels, logits.shape[1], ignore_index, given.name
    )
    if n_ignored:
        text = f"{n_ignored:,} of {labels.size:,} pixels do not count: ignored labels."
        notes.append(Note("pixels-ignored", "info", text))
    progress(1.0, "Checking the maps")
    return SegmentationMaps.from_arrays(
        logits.astype(np.float32) if logits.dtype == np.float16 else logits,
        labels,
        classes=_classes(bag, logits.shape[1], given.name),
        name=given.name,
        is_test=_roles(bag, len(logits), given.name),
        notes=(*notes, *moved),
    )


def _named(
    bag: Mapping[str, Array], names: tuple[str, ...], where: str, what: str
) -> Array:
    for name in names:
        if name in bag:
            return bag[name]
    there = ", ".join(f"{key} {value.shape}" for key, value in bag.items()) or "nothing"
    raise DataError(
        f"There is no array {names[0]!r} with the {what} of the maps.",
        f"{where}, which holds: {there}",
        SAVE_MAPS,
    )


def _laid_out(
    logits: Array, labels: Array, where: str
) -> tuple[Array, Array, tuple[Note, ...]]:
    """Return scores with the classes in the second place, and labels of pixels."""
    if labels.ndim == 4 and 1 in (labels.shape[1], labels.shape[-1]):
        labels = labels.squeeze(1 if labels.shape[1] == 1 else -1)
    if logits.ndim == 3 and labels.ndim == 2:
        logits, labels = logits[None], labels[None]
    shape = labels.shape
    if logits.ndim == 4 and labels.ndim == 3 and 0 not in logits.shape:
        first = (logits.shape[0], *logits.shape[2:])
        if first == shape:
            return logits, labels, ()
        if logits.shape[:3] == shape:
            text = "The classes stood in the last place; they were moved to the second."
            note = Note("channels-last", "info", text)
            return np.moveaxis(logits, -1, 1), labels, (note,)
    raise DataError(
        f"Scores of shape {logits.shape} and labels of shape {shape} are not maps of "
        "the same pixels.",
        where,
        SAVE_MAPS,
    )


def _refuse_probabilities(logits: Array, where: str) -> None:
    if logits.dtype.kind not in "fiu":
        raise DataError(
            f"The scores have the type {logits.dtype}.", where, "Give numbers."
        )
    first = logits[0].astype(np.float64)
    is_share = bool(((first >= 0) & (first <= 1)).all())
    if is_share and np.allclose(first.sum(axis=0), 1.0, atol=1e-2):
        raise DataError(
            "The scores are probabilities: they lie between 0 and 1 and sum to 1.",
            where,
            "Give the logits before the softmax, or the logarithms of the "
            "probabilities.",
        )


def _whole(value: Array, where: str) -> int:
    if value.size != 1 or value.dtype.kind not in "iu":
        raise DataError(
            "ignore_index is not one whole number.", where, "Give one, such as 255."
        )
    return int(value.reshape(-1)[0])


def _without_ignored(
    labels: Array, k: int, ignore_index: int | None, where: str
) -> tuple[Array, int]:
    """Return labels with -1 where a pixel does not count, and how many do not."""
    if labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all()):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"The labels have the type {labels.dtype}.",
            where,
            "Give whole numbers: the class of each pixel, from 0.",
        )
    y = labels.astype(np.int64)
    # A label that is asked to be ignored may be a class, such as an unwanted 0.
    values = IGNORED if ignore_index is None else (-1, ignore_index)
    is_ignored = np.isin(y, [v for v in values if v == ignore_index or not 0 <= v < k])
    strange = np.unique(y[~is_ignored & ((y < 0) | (y >= k))])
    if strange.size:
        shown = ", ".join(map(str, strange[:5])) + (", ..." if strange.size > 5 else "")
        raise DataError(
            f"Some labels are not one of the {k} classes 0 to {k - 1}: {shown}.",
            where,
            "Number the classes from 0 in the order of the scores, and name the label "
            "of pixels that do not count as ignore index.",
        )
    if is_ignored.all():
        raise DataError(
            "No pixel counts: every label is ignored.",
            where,
            "Give labels, or another ignore index.",
        )
    return np.where(is_ignored, -1, y), int(is_ignored.sum())


def _classes(bag: Mapping[str, Array], k: int, where: str) -> tuple[str, ...] | None:
    if "classes" not in bag:
        return None
    names = tuple(str(name) for name in bag["classes"].reshape(-1))
    if len(names) != k or len(set(names)) != k:
        raise DataError(
            f"There are {len(set(names))} different class names for {k} classes.",
            f"{where}, array classes",
            f"Give {k} names.",
        )
    return names


def _roles(bag: Mapping[str, Array], n: int, where: str) -> NDArray[np.bool_] | None:
    """Return which images are held out, where the file says so."""
    if "split" not in bag:
        return None
    words = np.char.lower(bag["split"].reshape(-1).astype(str))
    is_test = np.isin(words, _TEST_WORDS)
    if words.size != n or is_test.all() or not is_test.any():
        raise DataError(
            "The array split does not give images to both the fit and the test.",
            f"{where}, array split",
            f'Give {n} words, "calibration" or "test", or leave it out.',
        )
    return is_test
