"""Which column plays which role: the user's choice first, then names, then values."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from core.loading.array_layouts import is_one_hot
from core.loading.columns import Roles, has_names, is_reserved, named
from core.loading.names import (
    ARRAY_LABELS,
    ARRAY_SCORES,
    NAMES,
    class_names,
    common_stem,
    is_features_name,
    plain,
)
from core.loading.score_columns import (
    find_confidence,
    find_scores,
    take_chosen_confidence,
)
from core.loading.sources import Raw
from core.messages import Answer, DataError, Note
from core.settings import Settings

__all__ = ["MARKS", "MOST_SLICES", "UNCLAIMED_DECIMALS", "find_roles"]

MOST_SLICES = 20
"""A column with more distinct values is not offered as a slice."""
UNCLAIMED_DECIMALS = "decimals that no name speaks for"
"""Evidence of decimals without a role."""
MARKS = {
    **dict.fromkeys(("1", "true", "yes", "t", "y"), True),
    **dict.fromkeys(("0", "false", "no", "f", "n"), False),
}
"""Cells of a column that marks rows, in lower case."""
_SURE_LABELS = ("true_label", "true_labels", "y_true", "true_class", "ground_truth")
_COLUMN_ROLES = ("id", "group", "weight", "time", "split", "ood", "dataset")


def find_roles(
    raw: Raw,
    settings: Settings,
    classes: tuple[str, ...] = (),
    *,
    needs_outcome: bool = True,
) -> Roles:
    """Give every column a role; score columns may be called as known classes."""
    roles = Roles(raw, classes=classes, needs_outcome=needs_outcome)
    chosen = _take_chosen(roles, settings)
    _take_known(roles, settings)
    if settings.label_column == "":
        _set_label_aside(roles)
    if raw.arrays or not raw.is_table:
        _find_arrays(roles, settings)
    if raw.has_header:
        _find_label(roles, settings, NAMES["label"])
        if settings.label_column:
            rival = _rival(roles, settings.label_column, NAMES["label"])
            if rival is not None:
                roles.give(rival, "predicted", "holds the classes of the label")
    if settings.input_kind == "confidence" and settings.score_columns:
        take_chosen_confidence(roles, settings)
    elif settings.input_kind in {"auto", "confidence"} and not settings.score_columns:
        find_confidence(roles, settings)
    if roles.column("confidence") is None and not roles.scores:
        find_scores(roles, settings)
    if not roles.column("label") and settings.label_column is None and roles.scores:
        _find_label_by_values(roles)
    if roles.unread_label is not None:
        del roles.found[roles.unread_label]
    if raw.has_header:
        _find_named(roles, settings, chosen)
    _find_slices(roles, settings)
    return roles


def _take_chosen(roles: Roles, settings: Settings) -> set[str]:
    """Enter the user's choices; return the roles they decided."""
    decided = set()
    columns = roles.raw.table.column_names
    anything = dict.fromkeys(roles.raw.names)
    for role in ("label", *_COLUMN_ROLES):
        name = getattr(settings, f"{role}_column")
        if name is None:
            continue
        decided.add(role)
        if name:
            _check_there(roles.raw, name, f"{role}_column", columns)
            _check_free(roles, name, role)
            roles.give(name, role, "chosen")
    for name in settings.score_columns:
        _check_there(roles.raw, name, "score_columns", anything)
        _check_free(roles, name, "score")
        roles.give(name, "score", "chosen")
    for name in settings.slice_columns or ():
        _check_there(roles.raw, name, "slice_columns", columns)
        if name not in roles.found:
            roles.give(name, "slice", "chosen")
    return decided


def _take_known(roles: Roles, settings: Settings) -> None:
    """Enter what the layout of the file decides, where the user chose nothing else."""
    has_scores = bool(settings.score_columns)
    for name, (role, evidence) in roles.raw.known.items():
        is_score = role in {"score", "confidence"}
        if name in roles.found or (is_score and has_scores):
            continue
        if role == "confidence" and settings.input_kind not in {"auto", "confidence"}:
            continue
        if role == "label" and settings.label_column is not None:
            continue
        roles.give(name, role, evidence)


def _check_there(raw: Raw, name: str, setting: str, names: Collection[str]) -> None:
    if name not in names:
        some = ", ".join(list(names)[:20]) + (" ..." if len(names) > 20 else "")
        raise DataError(
            f"There is no column {name!r} to use as {setting.replace('_', ' ')}.",
            raw.name,
            f"Choose one of: {some}.",
        )


def _check_free(roles: Roles, name: str, role: str) -> None:
    if name in roles.found:
        raise DataError(
            f"The column {name!r} is chosen as {roles.found[name][0]} and as {role}.",
            f"{roles.raw.name}, column {name}",
            "Choose a column for each of the two, or none for one of them.",
        )


def _find_label(roles: Roles, settings: Settings, names: Sequence[str]) -> None:
    if settings.label_column is not None:
        return
    name = _label_named(roles, names)
    if name is None:
        return
    rival = _rival(roles, name, names)
    if rival is None:
        roles.give(name, "label", "its name")
        return
    raise DataError(
        f"Both {name} and {rival} are named as labels, hold the same classes and "
        "differ in some rows: one of them may be the prediction.",
        f"{roles.raw.name}, columns {name} and {rival}",
        "Choose the column that holds the true label.",
        answers=tuple(
            Answer(f"{other} is the true label", "label_column", other)
            for other in (name, rival)
        ),
    )


def _rival(roles: Roles, name: str, names: Sequence[str]) -> str | None:
    """Return another column named as a label that holds other cells of its classes.

    A name that says it is the truth (true_label, y_true) has no rival.
    """
    if plain(name) in _SURE_LABELS or roles.kind(name) == "decimal":
        return None
    values = set(roles.distinct(name))
    for other in roles.free():
        is_label = other != name and plain(other) in names
        if not is_label or roles.kind(other) == "decimal":
            continue
        others = set(roles.distinct(other))
        is_same = len(values | others) > 1 and (values <= others or others <= values)
        if is_same and others and (roles.raw.text(name) != roles.raw.text(other)).any():
            return other
    return None


def _label_named(roles: Roles, names: Sequence[str]) -> str | None:
    """Return the column named as a label; of decimals only where no other is.

    Decimals under one letter, such as y, are the scores of a class of that name.
    """
    free = {plain(name): name for name in reversed(roles.free())}
    there = [free[name] for name in names if name in free]
    sure = [name for name in there if roles.kind(name) != "decimal"]
    if not sure and roles.raw.is_table:
        there = [name for name in there if len(plain(name)) > 1]
    return next(iter(sure or there), None)


def _set_label_aside(roles: Roles) -> None:
    """Keep what is surely a label from the scores, where the user wants no label."""
    if has_names(roles):
        names = NAMES["label"] if roles.raw.is_table else ARRAY_LABELS
        name = _label_named(roles, names)
    else:
        name = next(iter(roles.free()[-1:]), None)
        has_decimals = any(roles.kind(other) == "decimal" for other in roles.free())
        if name is None or (roles.kind(name) == "whole" and not has_decimals):
            return
    if name is not None and roles.kind(name) != "decimal":
        roles.give(name, "other", "a label that is not read")
        roles.unread_label = name


def _find_arrays(roles: Roles, settings: Settings) -> None:
    """Give the arrays of an NPZ their roles by the names that libraries use."""
    raw = roles.raw
    for name, array in raw.arrays.items():
        for key in ("head_weight", "head_bias", "classes", "features"):
            fits = array.ndim == (2 if key in {"head_weight", "features"} else 1)
            is_named = plain(name) in NAMES[key]
            if key == "features" and not is_named:
                is_named = is_features_name(name) and len(array) == raw.n_rows
            if is_named and fits and name not in roles.found:
                role = key.partition("_")[0]
                roles.give(name, role, f"its name and its shape {array.shape}")
    _find_label(roles, settings, ARRAY_LABELS)
    if roles.scores:
        return
    tables = [
        name
        for name, array in raw.arrays.items()
        if array.ndim == 2
        and len(array) == raw.n_rows
        and array.dtype.kind in "fiu"
        and name not in roles.found
    ]
    tables = _without_hard(roles, tables)
    by_name = {plain(name): name for name in tables}
    best = next((by_name[key] for key in ARRAY_SCORES if key in by_name), None)
    if best is not None:
        roles.give(best, "score", f"its name and its shape {raw.arrays[best].shape}")
    elif len(tables) == 1:
        roles.give(tables[0], "score", "the only array of rows and columns")


def _without_hard(roles: Roles, tables: list[str]) -> list[str]:
    """Leave arrays of one 1 per row aside, where others can be the scores."""
    arrays = roles.raw.arrays
    hard = [
        name
        for name in tables
        if plain(name) in ARRAY_SCORES and is_one_hot(arrays[name])
    ]
    soft = [name for name in tables if name not in hard]
    if not hard or not any(plain(name) in ARRAY_SCORES for name in soft):
        return tables
    for name in hard:
        text = (
            f"{name} holds one 1 in each row and zeros: predicted classes, no scores. "
            "It is not used."
        )
        roles.raw.notes.append(Note("hard-predictions", "info", text))
    return soft


def _find_label_by_values(roles: Roles) -> None:
    """Take the only column whose values could be labels of these scores."""
    if roles.scores[0] in roles.raw.arrays or len(roles.scores) == 1:
        known: set[str] = set()
    else:
        known = {name.casefold() for name in class_names(roles.scores)}
    stem = common_stem(roles.scores).rstrip("_.:= -") if known else ""
    if stem in roles.free():
        roles.give(stem, "label", "named as the stem of the score columns")
        return
    n_classes = max(2, len(roles.scores))
    fitting = []
    for name in roles.free():
        if is_reserved(roles, name) or roles.kind(name) == "decimal":
            continue
        values = {value.casefold() for value in roles.distinct(name)}
        numbered = values <= {str(i) for i in range(n_classes)}
        if values and (values <= known or numbered):
            fitting.append(name)
    if len(fitting) == 1:
        roles.give(fitting[0], "label", "the only column whose values are classes")


def _find_named(roles: Roles, settings: Settings, decided: set[str]) -> None:
    predicted = named(roles, NAMES["predicted"])
    if predicted is not None and roles.column("predicted") is None:
        roles.give(predicted, "predicted", "its name")
    for role in ("confidence", "correct"):
        name = named(roles, NAMES[role])
        if name is not None and not _is_slice(settings, name):
            roles.give(name, "other", "repeats what scores and label say")
    for role in _COLUMN_ROLES:
        name = _named_id(roles) if role == "id" else named(roles, NAMES[role])
        if role in decided or name is None or _is_slice(settings, name):
            continue
        if role == "weight" and roles.kind(name) == "text":
            continue
        if role == "ood" and not _is_mark(roles, name):
            continue
        if role == "dataset" and not _tells_sets(roles, name):
            continue
        if role == "time" and not _is_time(roles.raw.table[name].to_pandas()):
            roles.give(name, "other", "named as a time, but some values are not times")
            continue
        roles.give(name, role, "its name")


def _is_mark(roles: Roles, name: str) -> bool:
    """Whether a column says yes or no of every row."""
    values = {value.casefold() for value in roles.distinct(name)}
    has_gaps = roles.raw.text(name).isna().any()
    return bool(values) and values <= MARKS.keys() and not has_gaps


def _tells_sets(roles: Roles, name: str) -> bool:
    """Whether a column names sets, some of which have no label in any row."""
    if roles.column("ood") is not None:
        return True
    label = roles.column("label")
    if label is None:
        return False
    sets, labels = roles.raw.text(name), roles.raw.text(label)
    is_given = ~(labels.isna() | (labels == "-1")).to_numpy(bool)
    has_label = pd.Series(is_given).groupby(sets.to_numpy()).any()
    return bool(
        has_label.any() and not has_label.all() and len(has_label) <= MOST_SLICES
    )


def _named_id(roles: Roles) -> str | None:
    """Return the column named as an id, one without repeated values before others."""
    free = {plain(name): name for name in reversed(roles.free())}
    there = [free[name] for name in NAMES["id"] if name in free]
    columns = roles.raw.table
    unique = (n for n in there if len(columns[n].unique()) == len(columns[n]))
    return next(unique, next(iter(there), None))


def _is_slice(settings: Settings, name: str) -> bool:
    """Whether the user chose the column as a slice."""
    return name in (settings.slice_columns or ())


def _is_time(column: pd.Series[Any]) -> bool:
    if pd.api.types.is_numeric_dtype(column):
        return not column.isna().any()
    times = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
    return not times.isna().any()


def _find_slices(roles: Roles, settings: Settings) -> None:
    """Offer columns with few values as slices; everything else stays "other"."""
    for name in roles.free():
        column = roles.raw.table[name]
        if roles.kind(name) == "decimal":
            roles.give(name, "other", UNCLAIMED_DECIMALS)
            continue
        n_values = pc.count_distinct(column).as_py()
        is_repeated = 2 <= n_values < len(column)
        if settings.slice_columns is None and is_repeated and n_values <= MOST_SLICES:
            roles.give(name, "slice", f"{n_values} distinct values")
        else:
            roles.give(name, "other", f"{n_values:,} distinct values")
    for name, array in roles.raw.arrays.items():
        if name not in roles.found:
            roles.give(name, "other", f"an array of shape {array.shape}, not used")
