"""Transformed copies of rows: what the same model says of the rows turned or noised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.loading import sources
from core.loading.arrays import read_bag
from core.loading.files import FileSource
from core.loading.names import ARRAY_LABELS, NAMES, part_of, plain
from core.loading.ood_sets import read_rows
from core.loading.sources import as_source
from core.messages import DataError, Progress, no_progress
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings

__all__ = ["add_copies", "copies_beside", "is_copies_name", "read_copies"]

Bag = Mapping[str, NDArray[Any]]

_STACKS = ("copies", "logits_copies", "copy_logits", "transformed", "augmented", "tta")
_SCORES = ("logits_", "logit_", "probs_", "probabilities_", "scores_")
_KNOWN = {name for names in NAMES.values() for name in names} | set(ARRAY_LABELS)
_ADVICE = (
    "Save logits of shape (rows, classes) for each transform, or all of them as one "
    "array `copies` of shape (transforms, rows, classes)."
)


def is_copies_name(name: str) -> bool:
    """Whether an array is called as copies are: a stack of them, or one transform.

    Examples
    --------
    >>> [is_copies_name(n) for n in ("copies", "logits_rot", "logits", "labels")]
    [True, True, False, False]
    """
    own = plain(name)
    is_one = own.startswith(_SCORES) and own not in _KNOWN and not part_of(own)[1]
    return own in _STACKS or is_one


def add_copies(
    study: Study,
    files: Sequence[FileSource],
    settings: Settings,
    *,
    names: Sequence[str | None] | None = None,
    role: Literal["evaluation", "fit"] = "evaluation",
    progress: Progress = no_progress,
) -> Study:
    """Return the study with transformed copies of its rows, after those it has.

    Parameters
    ----------
    study : Study
    files : sequence of bytes, str or Path
        Each with the scores of one transform, or an NPZ or safetensors file with
        several: 2-d arrays, or one of shape (transforms, rows, classes).
    settings : Settings
        How the evaluation file was read.
    names : sequence of str, optional
        To show for bytes.
    role : {"evaluation", "fit"}, default="evaluation"
        Whose rows they are copies of: those of the calibration file for "fit".
    progress : callable, optional

    Raises
    ------
    DataError
        If rows or classes do not match.
    """
    own = study.evaluation
    if role == "fit":
        if study.fit is None:
            raise DataError(
                "There is no calibration file of its own, so it has no copies.",
                "copies",
                "Give these as copies of the rows themselves.",
            )
        own = study.fit
    found = read_copies(own, files, settings, names=names, progress=progress)
    if role == "fit":
        return replace(study, fit_copies=(*study.fit_copies, *found))
    return replace(study, copies=(*study.copies, *found))


def read_copies(
    own: Predictions,
    files: Sequence[FileSource],
    settings: Settings,
    *,
    names: Sequence[str | None] | None = None,
    is_named: bool = False,
    progress: Progress = no_progress,
) -> tuple[Predictions, ...]:
    """Return the transformed copies of rows that files hold, in the order given.

    As `add_copies`, for rows that are no study. With `is_named` only arrays are taken
    that are called as copies are: the files hold the rows themselves too.
    """
    if own.logits is None:
        raise DataError(
            "Copies have the scores of every class; these rows have none.",
            own.name,
            "Give rows with one score column per class.",
        )
    found: list[Predictions] = []
    shown = [None] * len(files) if names is None else list(names)
    for file, name in zip(files, shown, strict=True):
        source = as_source(file, name)
        kind = sources.recognise(source)
        if kind in sources.ARRAY_FORMATS:
            bag, _ = read_bag(source, kind, progress)
            found += _of_bag(own, bag, source.name, is_named=is_named)
            continue
        if is_named:
            continue
        rows, _ = read_rows(
            file,
            settings.replace(label_column="", group_column="", weight_column=""),
            classes=own.classes,
            input_kind=own.input_kind,
            name=name,
            progress=progress,
        )
        if rows.logits is None:
            raise DataError("The file has no class scores.", rows.name, _ADVICE)
        if rows.classes != own.classes and set(rows.classes) == set(own.classes):
            order = [rows.classes.index(name) for name in own.classes]
            rows = _made(own, rows.logits[:, order], rows.column("id"), rows.name)
        found.append(rows)
    return tuple(found)


def copies_beside(own: Predictions, arrays: Bag) -> tuple[Predictions, ...]:
    """Return the copies that lie beside the scores in the file of the rows.

    Parameters
    ----------
    own : Predictions
        Rows of the file; some may have been left out.
    arrays : mapping of str to ndarray
        What the file holds beside them.
    """
    if own.logits is None:
        return ()
    chosen = {key: array for key, array in arrays.items() if is_copies_name(key)}
    n = int(own.file_rows.max())
    is_usable = [
        array.ndim in (2, 3)
        and array.dtype.kind == "f"
        and array.shape[-2] >= n
        and array.shape[-1] == own.n_classes
        for array in chosen.values()
    ]
    if not chosen or not all(is_usable):
        return ()
    found = []
    for key, array in chosen.items():
        stack = array if array.ndim == 3 else array[None]
        for number, scores in enumerate(stack, 1):
            name = f"{own.name}, {key}" + (f" {number}" if array.ndim == 3 else "")
            found.append(_made(own, scores[own.file_rows - 1], own.column("id"), name))
    return tuple(found)


def _of_bag(
    own: Predictions, bag: Bag, where: str, *, is_named: bool
) -> list[Predictions]:
    """Return every copy that a file of arrays holds."""
    ids = next(
        (a for key, a in bag.items() if plain(key) in NAMES["id"] and a.ndim == 1), None
    )
    real = {
        key: array
        for key, array in bag.items()
        if array.dtype.kind == "f" and array.ndim in (2, 3) and plain(key) not in _KNOWN
    }
    # Where some arrays are called as copies are, others are something else.
    named = {key: a for key, a in real.items() if is_copies_name(key)}
    chosen = named if is_named else named or real
    if not chosen and not is_named:
        listed = ", ".join(f"{key} {a.shape}" for key, a in bag.items()) or "none"
        raise DataError(
            f"No copies were found; the arrays are {listed}.", where, _ADVICE
        )
    found = []
    for key, array in chosen.items():
        stack = array if array.ndim == 3 else array[None]
        for number, scores in enumerate(stack, 1):
            name = f"{where}, {key}" + (f" {number}" if len(stack) > 1 else "")
            found.append(_checked(own, scores, ids, name))
    return found


def _checked(
    own: Predictions, scores: NDArray[Any], ids: NDArray[Any] | None, name: str
) -> Predictions:
    n, k = scores.shape
    if k != own.n_classes:
        raise DataError(
            f"The copy has the shape {scores.shape}; {own.name} has "
            f"{own.n_classes} classes.",
            name,
            _ADVICE,
        )
    column = None
    if ids is not None and own.roles.id is not None and len(ids) == n:
        column = pd.Series(ids.astype(str), name=own.roles.id)
    if column is None and n == len(own) + len(own.left_out):
        scores = scores[own.file_rows - 1]  # rows that could not be read
    return _made(own, scores, column, name)


def _made(
    own: Predictions,
    scores: NDArray[Any],
    ids: pd.Series[Any] | None,
    name: str,
) -> Predictions:
    if scores.dtype.itemsize < 4:
        scores = scores.astype(np.float32)
    roles, table = ColumnRoles(), None
    if ids is not None:
        table, roles = pd.DataFrame({str(ids.name): ids}), ColumnRoles(id=str(ids.name))
    return Predictions.from_arrays(
        scores,
        input_kind=own.input_kind,
        classes=own.classes,
        metadata=table,
        roles=roles,
        name=name,
        renormalise=True,
    )
