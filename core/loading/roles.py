"""Which column plays which role: the user's choice first, then names, then values."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from core.loading.columns import Roles
from core.loading.names import (
    ARRAY_LABELS,
    ARRAY_SCORES,
    NAMES,
    class_names,
    common_stem,
    parse_score_name,
    plain,
)
from core.loading.sources import Raw
from core.messages import DataError
from core.settings import Settings

__all__ = ["BY_LABEL_VALUES", "MOST_SLICES", "UNCLAIMED_DECIMALS", "find_roles"]

MOST_SLICES = 20
"""A column with more distinct values is not offered as a slice."""
BY_LABEL_VALUES = "named like a value of the label column"
"""Evidence of scores that are called like classes."""
UNCLAIMED_DECIMALS = "decimals that no name speaks for"
"""Evidence of decimals without a role."""
_COLUMN_ROLES = ("id", "group", "weight", "time", "split")
_ARRAY_ROLES = ("features", "classes", "head_weight", "head_bias")
_NEVER_DECIMAL = ("id", "group", "split")


def find_roles(raw: Raw, settings: Settings) -> Roles:
    """Give every column a role."""
    roles = Roles(raw)
    chosen = _take_chosen(roles, settings)
    _take_known(roles, settings)
    if settings.label_column == "":
        _set_label_aside(roles)
    if raw.arrays or not raw.is_table:
        _find_arrays(roles, settings)
    if raw.has_header:
        _find_label(roles, settings, NAMES["label"])
    if settings.input_kind == "confidence" and settings.score_columns:
        _take_chosen_confidence(roles, settings)
    elif settings.input_kind in {"auto", "confidence"} and not settings.score_columns:
        _find_confidence(roles, settings)
    if roles.column("confidence") is None and not roles.scores:
        _find_scores(roles, settings)
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


def _named(roles: Roles, names: Sequence[str]) -> str | None:
    """Return the free column whose name comes first among `names`."""
    free = {plain(name): name for name in reversed(roles.free())}
    return next((free[name] for name in names if name in free), None)


def _find_label(roles: Roles, settings: Settings, names: Sequence[str]) -> None:
    if settings.label_column is not None:
        return
    name = _label_named(roles, names)
    if name is not None:
        roles.give(name, "label", "its name")


def _label_named(roles: Roles, names: Sequence[str]) -> str | None:
    """Return the column named as a label; of decimals only where no other is.

    Decimals under one letter, such as y, are the scores of a class of that name.
    """
    free = {plain(name): name for name in reversed(roles.free())}
    there = [free[name] for name in names if name in free]
    sure = [name for name in there if roles.kind(name) != "decimal"]
    if not sure and _is_table(roles):
        there = [name for name in there if len(plain(name)) > 1]
    return next(iter(sure or there), None)


def _set_label_aside(roles: Roles) -> None:
    """Keep what is surely a label from the scores, where the user wants no label."""
    if _has_names(roles):
        names = NAMES["label"] if _is_table(roles) else ARRAY_LABELS
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
            if plain(name) in NAMES[key] and fits and name not in roles.found:
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
    by_name = {plain(name): name for name in tables}
    best = next((by_name[key] for key in ARRAY_SCORES if key in by_name), None)
    if best is not None:
        roles.give(best, "score", f"its name and its shape {raw.arrays[best].shape}")
    elif len(tables) == 1:
        roles.give(tables[0], "score", "the only array of rows and columns")


def _take_chosen_confidence(roles: Roles, settings: Settings) -> None:
    """Take the chosen score column as confidence, the label as its outcome."""
    if len(settings.score_columns) > 1:
        raise DataError(
            f"{len(settings.score_columns)} columns are chosen as one confidence.",
            roles.raw.name,
            "Choose one column, or say that the scores are logits or probabilities.",
        )
    name = settings.score_columns[0]
    roles.chosen_scores.clear()
    roles.give(name, "confidence", "chosen")
    predicted = _named(roles, NAMES["predicted"])
    correct = _named(roles, NAMES["correct"])
    label = roles.column("label")
    if correct is None and label is not None and predicted is None:
        correct = label
    if correct is not None:
        roles.give(correct, "correct", "it says which predictions were right")
    elif predicted is not None and label is not None:
        roles.give(predicted, "predicted", "its name")
    else:
        raise _no_outcome(roles)


def _no_outcome(roles: Roles) -> DataError:
    return DataError(
        "A file of confidences needs to say which predictions were right.",
        roles.raw.name,
        "Give a column correct (0 or 1), or both true_label and pred_label; or, "
        "together with this file, a second one with the same id and the true label.",
    )


def _find_confidence(roles: Roles, settings: Settings) -> None:
    """Recognise files that hold only the top confidence and whether it was right."""
    if roles.column("confidence") is not None:
        _find_outcome(roles)
        return
    name = _named(roles, NAMES["confidence"])
    is_asked = settings.input_kind == "confidence"
    if name is None and not is_asked:
        return
    families = _families(roles)
    has_rows = bool(roles.scores) or any(len(f) > 1 for f in families.values())
    if is_asked and name is None:
        singles = [f[0][0] for f in families.values() if len(f) == 1]
        name = next(iter(singles), None)
    if name is None or not roles.is_numeric(name):
        if is_asked:
            raise DataError(
                "No column of confidences was found.",
                roles.raw.name,
                "Name one confidence, or choose it as the only score column.",
            )
        return
    if has_rows and not is_asked:
        return
    correct = _named(roles, NAMES["correct"])
    label = roles.column("label")
    predicted = _named(roles, NAMES["predicted"])
    if correct is None and (label is None or predicted is None):
        if not is_asked:
            return
        raise _no_outcome(roles)
    roles.give(name, "confidence", "its name, beside the outcome of the prediction")
    if correct is not None:
        roles.give(correct, "correct", "its name")
    if predicted is not None:
        roles.give(predicted, "predicted", "its name")


def _find_outcome(roles: Roles) -> None:
    """Find what says whether the top class, which the layout names, was right."""
    correct = _named(roles, NAMES["correct"])
    if correct is not None:
        roles.give(correct, "correct", "its name")
    elif roles.column("label") is None:
        raise _no_outcome(roles)


def _families(roles: Roles) -> dict[str, list[tuple[str, str]]]:
    """Return stem -> (column, class) for columns that are named as scores."""
    families: dict[str, list[tuple[str, str]]] = {}
    reserved = {
        name for role in ("predicted", "confidence", "correct") for name in NAMES[role]
    } - {"pred", "prediction", "predictions", "predicted", "preds"}
    label = roles.label
    known = [] if label is None else roles.distinct(label)
    for name in roles.free():
        parsed = parse_score_name(name)
        if parsed is None or plain(name) in reserved:
            continue
        # Text in a column that is surely a score is an error to report.
        is_class = parsed.suffix.isdigit() or parsed.suffix in known
        if not roles.is_numeric(name) and not (parsed.kind and is_class):
            continue
        families.setdefault(parsed.stem, []).append((name, parsed.suffix))
    return families


def _find_scores(roles: Roles, settings: Settings) -> None:
    """Look for score columns, from the clearest evidence to the weakest."""
    if not _has_names(roles):
        _find_headerless(roles, settings)
        return
    families = _families(roles)
    single: tuple[str, str] | None = None
    if families:
        stem = max(families, key=lambda s: (len(families[s]), _is_logit(s)))
        if len(families[stem]) > 1:
            for name, _ in families[stem]:
                roles.give(name, "score", f"named {stem}_<class>")
            return
        single = families[stem][0]
    steps: tuple[Callable[[Roles], list[str]], ...] = (
        _by_label_values,
        _by_common_stem,
    )
    for step in steps:
        columns = step(roles)
        if columns:
            evidence = _EVIDENCE[step.__name__]
            for name in columns:
                roles.give(name, "score", evidence)
            return
    label = roles.label
    is_many = label is not None and len(roles.distinct(label)) > 2
    if single is not None and len(single[0]) == 1 and is_many:
        _by_values(roles)  # p or z is one letter among others
    if single is not None and not roles.scores:
        roles.give(single[0], "score", "the only column named as a score")
    if roles.scores:
        return
    _by_values(roles)
    confidence = _named(roles, NAMES["confidence"])
    if not roles.scores and confidence is not None and roles.is_numeric(confidence):
        text = "a confidence that nothing says the outcome of"
        roles.give(confidence, "score", text)


def _is_logit(stem: str) -> int:
    parsed = parse_score_name(stem)
    return ("", "probabilities", "logits").index(parsed.kind if parsed else "")


_EVIDENCE = {
    "_by_label_values": BY_LABEL_VALUES,
    "_by_common_stem": "a common stem and the name of a class",
}


def _is_table(roles: Roles) -> bool:
    return roles.raw.is_table


def _reserved(roles: Roles, name: str) -> bool:
    """Whether a name speaks of another role, which the values could play."""
    word = plain(name)
    said = {role for role, names in NAMES.items() if word in names}
    if _is_table(roles):
        # Only arrays are called w, b or features; of a table these are classes.
        said = set() if len(word) == 1 else said.difference(_ARRAY_ROLES)
    if roles.kind(name) == "decimal":
        said.difference_update(_NEVER_DECIMAL)
    return bool(said)


def _numbers(roles: Roles) -> list[str]:
    return [n for n in roles.free() if not _reserved(roles, n) and roles.is_numeric(n)]


def _by_label_values(roles: Roles) -> list[str]:
    """Return columns named exactly like the values of the label column."""
    label = roles.label
    if label is None or label not in roles.raw.table.column_names:
        return []
    values = {value.casefold() for value in roles.distinct(label)}
    numbers = [name for name in roles.free() if roles.is_numeric(name)]
    # The name of a class is what it is, also where other files mean a role by it.
    named = [name for name in numbers if name.strip().casefold() in values]
    if len(named) < 2 or len(named) < len(values) / 2:
        return []
    decimals = [n for n in numbers if n in named or roles.kind(n) == "decimal"]
    certain = [n for n in decimals if n in named or not _reserved(roles, n)]
    # A class that no row has stands between or beside the others.
    order = roles.raw.table.column_names
    low, high = (order.index(name) for name in _with_neighbours(named, certain))
    between, wider = (
        [name for name in names if low <= order.index(name) <= high]
        for names in (certain, decimals)
    )
    tried = (certain, between, decimals, wider)
    return next((names for names in tried if _sum_to_one(roles, names)), between)


def _with_neighbours(named: list[str], others: list[str]) -> tuple[str, str]:
    """Return first and last name, going on where they count: A, B, C or 0, 1, 2."""
    ends = []
    for start, step in ((named[0], -1), (named[-1], 1)):
        end = start
        while (following := _counted_on(end, step)) in others:
            end = following
        ends.append(end)
    return ends[0], ends[1]


def _counted_on(name: str, step: int) -> str:
    if re.fullmatch(r"\d{1,9}", name, re.ASCII):
        return str(int(name) + step)
    is_letter = re.fullmatch(r"[A-Za-z]", name) is not None
    return chr(ord(name) + step) if is_letter else ""


def _by_common_stem(roles: Roles) -> list[str]:
    """Return the most columns with one stem whose rests are classes."""
    label = roles.label
    values: set[str] = set()
    if label is not None:
        values = {value.casefold() for value in roles.distinct(label)}
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in _numbers(roles):
        for cut in re.finditer(r"[_.:= -]", name):
            stem, rest = name[: cut.start()], name[cut.end() :]
            groups.setdefault(stem, []).append((name, rest.casefold()))
    fitting = []
    for stem, members in groups.items():
        columns = [name for name, _ in members]
        rests = {rest for _, rest in members}
        counted = rests in (
            {str(i) for i in range(len(members))},
            {str(i + 1) for i in range(len(members))},
        )
        if len(rests) < 2 or len(rests) < len(members):
            continue
        has_decimals = any(roles.kind(name) == "decimal" for name in columns)
        is_named = values <= rests if values else _values_of(roles, stem) & rests
        if is_named or (has_decimals and (counted or _sum_to_one(roles, columns))):
            fitting.append(columns)
    return max(fitting, key=len, default=[])


def _values_of(roles: Roles, name: str) -> set[str]:
    """Return the values of a text column, an empty set where there is none."""
    if name not in roles.free() or roles.kind(name) == "decimal":
        return set()
    return {value.casefold() for value in roles.distinct(name)}


def _by_values(roles: Roles) -> None:
    """Take the only decimals of the file, when the label or their sums agree."""
    decimals = [n for n in _numbers(roles) if roles.kind(n) == "decimal"]
    if not decimals:
        predicted = _named(roles, ("prediction", "predictions", "pred", "predicted"))
        if predicted is not None and roles.kind(predicted) == "decimal":
            roles.give(predicted, "score", "decimals in a column of predictions")
        return
    label = roles.label
    n_values = len(roles.distinct(label)) if label is not None else 0
    is_single = len(decimals) == 1 and n_values in {0, 1, 2}
    is_full = len(decimals) > 1 and (
        n_values == len(decimals) or _sum_to_one(roles, decimals)
    )
    if is_single or is_full:
        text = "the only column" if is_single else "the only columns"
        for name in decimals:
            roles.give(name, "score", f"{text} of decimals")


def _sum_to_one(roles: Roles, names: list[str]) -> bool:
    """Whether the first rows of these columns sum to 1."""
    if len(names) < 2:
        return False
    total: Any = 0.0
    for name in names:
        cells = roles.raw.table[name].slice(0, 10_000).to_pandas()
        total = total + pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    total = total[~np.isnan(total)]
    return bool(total.size) and bool((np.abs(total - 1) <= 1e-3).mean() >= 0.99)


def _has_names(roles: Roles) -> bool:
    """Whether the columns have names; those that pandas counts from 0 are none."""
    if not roles.raw.has_header:
        return False
    names = _without_index(roles.raw.table.column_names)
    is_counted = names == [str(i) for i in range(len(names))] and len(names) > 1
    return not (is_counted and _is_table(roles))


def _without_index(names: list[str]) -> list[str]:
    return names[1:] if names[:1] == ["unnamed 1"] else names


def _find_headerless(roles: Roles, settings: Settings) -> None:
    names = _without_index(roles.free())
    label = _end_label(roles, names) if settings.label_column is None else None
    if label is not None:
        where = "last" if label == names[-1] else "first"
        roles.give(label, "label", f"the {where} column, and columns have no names")
        names.remove(label)
    for name in names:
        if roles.is_numeric(name):
            roles.give(name, "score", "a column of numbers beside the label")


def _end_label(roles: Roles, names: list[str]) -> str | None:
    """Return the last column, or the first one before decimals, if it holds labels."""
    if len(names) < 2:
        return None
    if roles.kind(names[-1]) in {"whole", "text"}:
        return names[-1]
    is_first = roles.kind(names[0]) in {"whole", "text"}
    others = {roles.kind(name) for name in names[1:]}
    return names[0] if is_first and others == {"decimal"} else None


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
        if _reserved(roles, name) or roles.kind(name) == "decimal":
            continue
        values = {value.casefold() for value in roles.distinct(name)}
        numbered = values <= {str(i) for i in range(n_classes)}
        if values and (values <= known or numbered):
            fitting.append(name)
    if len(fitting) == 1:
        roles.give(fitting[0], "label", "the only column whose values are classes")


def _find_named(roles: Roles, settings: Settings, decided: set[str]) -> None:
    predicted = _named(roles, NAMES["predicted"])
    if predicted is not None and roles.column("predicted") is None:
        roles.give(predicted, "predicted", "its name")
    for role in ("confidence", "correct"):
        name = _named(roles, NAMES[role])
        if name is not None and not _is_slice(settings, name):
            roles.give(name, "other", "repeats what scores and label say")
    for role in _COLUMN_ROLES:
        name = _named_id(roles) if role == "id" else _named(roles, NAMES[role])
        if role in decided or name is None or _is_slice(settings, name):
            continue
        if role == "weight" and roles.kind(name) == "text":
            continue
        if role == "time" and not _is_time(roles.raw.table[name].to_pandas()):
            roles.give(name, "other", "named as a time, but some values are not times")
            continue
        roles.give(name, role, "its name")


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
