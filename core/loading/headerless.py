"""Columns without names: which number is the label, which an id, which a score."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.loading.columns import Roles, without_index
from core.loading.score_families import sum_to_one
from core.messages import DataError, Note
from core.settings import Settings

__all__ = ["find_headerless"]

_FEW = 5  # rows whose logits may all be whole by chance
_FAR = 10.0  # times the largest score: no score any more


def find_headerless(roles: Roles, settings: Settings) -> None:
    """Find label, id and scores by their places and values.

    Raises
    ------
    DataError
        If a column of whole numbers beside decimals may be anything.
    """
    names = without_index(roles.free())
    first = _front_id(roles, names)
    if first is not None:
        names.remove(first)
    label = _end_label(roles, names) if settings.label_column is None else None
    if label is not None:
        where = "last" if label == names[-1] else "first"
        roles.give(label, "label", f"the {where} column, and columns have no names")
        names.remove(label)
    scores = [name for name in names if roles.is_numeric(name)]
    if first is not None and not scores:
        scores, first = [first], None  # a score cannot do without a column
    if first is not None:
        is_free = settings.id_column is None
        role = "id" if is_free else "other"
        roles.give(first, role, "whole numbers that tell the rows apart")
        text = (
            f"{first} holds whole numbers that tell the rows apart, and was read as "
            "an id, not as a score. Otherwise choose the score columns."
        )
        roles.raw.notes.append(Note("id-without-name", "info", text))
    _refuse_strays(roles, scores)
    if label is None and len(scores) == 1 and settings.label_column is None:
        _refuse_two_labels(roles, [name for name in names if name not in scores])
    for name in scores:
        roles.give(name, "score", "a column of numbers beside the label")


def _front_id(roles: Roles, names: list[str]) -> str | None:
    """Return the first column if it is an id or counts the rows, else None."""
    others = [name for name in names[1:] if roles.is_numeric(name)]
    if len(names) < 2 or not others or roles.kind(names[0]) != "whole":
        return None
    cells = _cells(roles, names[0])
    if not cells.size or len(np.unique(cells)) < len(cells):
        return None
    steps = np.diff(cells)
    is_counting = bool(steps.size) and bool((steps == 1).all())
    decimals = [name for name in others if roles.kind(name) == "decimal"]
    if not decimals:
        # Whole scores, as percent are; the last column may be the label.
        is_id = is_counting and len(cells) >= _FEW and len(others) > 1
        return names[0] if is_id else None
    if sum_to_one(roles, [names[0], *decimals]):
        return None
    n_classes = max(2, len(decimals))
    is_label = len(decimals) == len(names) - 1 and len(cells) <= n_classes
    if is_counting and not is_label:
        return names[0]
    largest = max(float(np.abs(_cells(roles, n)).max(initial=0)) for n in decimals)
    is_far = bool((np.abs(cells) > _FAR * max(1.0, largest)).all())
    span = float(cells.max() - cells.min())
    is_dense = len(cells) >= _FEW and span < 2 * len(cells)
    return names[0] if is_far or (is_dense and not is_label) else None


def _refuse_strays(roles: Roles, scores: list[str]) -> None:
    """Refuse whole numbers beside decimals, which may be anything."""
    whole = [name for name in scores if roles.kind(name) == "whole"]
    is_mixed = 0 < len(whole) < len(scores) and roles.raw.n_rows >= _FEW
    if not is_mixed or sum_to_one(roles, scores):
        return
    rest = [name for name in scores if name not in whole]
    if all(not _cells(roles, name).any() for name in whole):
        return  # the score of a class that never was
    raise DataError(
        f"{whole[0]} holds whole numbers only, beside scores with decimals: it may be "
        "an id, a predicted class or a score.",
        f"{roles.raw.name}, {whole[0]}",
        f"Write a header above the columns, or choose the scores, such as "
        f"{', '.join(rest)}.",
    )


def _refuse_two_labels(roles: Roles, names: list[str]) -> None:
    """Refuse a score beside two columns of the same words: truth and prediction."""
    words = {name: set(roles.distinct(name)) for name in names}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found = next((pair for pair in pairs if words[pair[0]] & words[pair[1]]), None)
    if found is None:
        return
    raise DataError(
        f"{found[0]} and {found[1]} hold the same words: one may be the true label, "
        "the other the prediction.",
        f"{roles.raw.name}, {found[0]} and {found[1]}",
        "Write a header above the columns, such as true_label, pred_label, confidence.",
    )


def _cells(roles: Roles, name: str) -> NDArray[np.float64]:
    cells = pd.to_numeric(roles.raw.table[name].to_pandas(), errors="coerce")
    numbers = cells.to_numpy(np.float64)
    kept: NDArray[np.float64] = numbers[np.isfinite(numbers)]
    return kept


def _end_label(roles: Roles, names: list[str]) -> str | None:
    """Return the last column, or the first one before decimals, if it holds labels."""
    if len(names) < 2:
        return None
    if roles.kind(names[-1]) in {"whole", "text"}:
        return names[-1]
    is_first = roles.kind(names[0]) in {"whole", "text"}
    others = {roles.kind(name) for name in names[1:]}
    return names[0] if is_first and others == {"decimal"} else None
