"""Which columns hold the scores, or the one confidence: from clear to weak evidence."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd

from core.loading.class_values import folded
from core.loading.columns import Roles, has_names, is_reserved, named
from core.loading.headerless import find_headerless
from core.loading.names import NAMES, common_stem, parse_score_name, plain
from core.loading.score_families import (
    find_families,
    is_statistic,
    sum_to_one,
    take_family,
)
from core.messages import DataError, Note
from core.settings import Settings

__all__ = [
    "BY_LABEL_VALUES",
    "find_confidence",
    "find_scores",
    "take_chosen_confidence",
]

_PREDICTIONS = (
    *("prediction", "predictions", "pred", "predicted", "preds", "y_pred", "yhat"),
    *("y_hat",),
)
"""Names of predictions that may be scores."""
BY_LABEL_VALUES = "named like a value of the label column"
"""Evidence of scores that are called like classes."""


def take_chosen_confidence(roles: Roles, settings: Settings) -> None:
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
    predicted = roles.column("predicted") or named(roles, NAMES["predicted"])
    correct = named(roles, NAMES["correct"])
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


def find_confidence(roles: Roles, settings: Settings) -> None:
    """Recognise files that hold only the top confidence and whether it was right."""
    if roles.column("confidence") is not None:
        _find_outcome(roles)
        return
    name = named(roles, NAMES["confidence"])
    is_asked = settings.input_kind == "confidence"
    predicted = roles.column("predicted")
    if name is None and predicted is not None:
        name = _top_score(roles, predicted)
    if name is None and not is_asked:
        return
    families = find_families(roles)
    has_rows = bool(roles.scores) or any(len(f) > 1 for f in families.values())
    if is_asked and name is None:
        singles = [f[0][0] for f in families.values() if len(f) == 1]
        name = next(iter(singles), None)
    if name is None or not roles.is_numeric(name):
        if is_asked and roles.needs_outcome:
            raise DataError(
                "No column of confidences was found.",
                roles.raw.name,
                "Name one confidence, or choose it as the only score column.",
            )
        return
    if has_rows and not is_asked:
        return
    correct = named(roles, NAMES["correct"])
    label = roles.column("label")
    predicted = predicted or named(roles, NAMES["predicted"])
    if correct is None and (label is None or predicted is None):
        if not is_asked:
            return
        if roles.needs_outcome:
            raise _no_outcome(roles)
        roles.give(name, "confidence", "its name, and the study has confidences")
        return
    roles.give(name, "confidence", "its name, beside the outcome of the prediction")
    if correct is not None:
        roles.give(correct, "correct", "its name")
    if predicted is not None:
        roles.give(predicted, "predicted", "its name")


def _top_score(roles: Roles, predicted: str) -> str | None:
    """Return the one score that may be that of the predicted class, or None."""
    columns = [name for family in find_families(roles).values() for name, _ in family]
    label = roles.column("label")
    if len(columns) != 1 or label is None:
        return None
    n_classes = len({*roles.distinct(label), *roles.distinct(predicted)})
    cells = pd.to_numeric(roles.raw.table[columns[0]].to_pandas(), errors="coerce")
    is_top = cells.min() >= 1 / max(2, n_classes) and cells.max() <= 1
    return columns[0] if is_top else None


def _find_outcome(roles: Roles) -> None:
    """Find what says whether the top class, which the layout names, was right."""
    correct = named(roles, NAMES["correct"])
    if correct is not None:
        roles.give(correct, "correct", "its name")
    elif roles.column("label") is None:
        raise _no_outcome(roles)


def find_scores(roles: Roles, settings: Settings) -> None:
    """Look for score columns, from the clearest evidence to the weakest."""
    if not has_names(roles):
        find_headerless(roles, settings)
        return
    families = find_families(roles)
    single: tuple[str, str] | None = None
    if families:
        stem = max(families, key=lambda s: (len(families[s]), _is_logit(s)))
        if len(families[stem]) > 1:
            take_family(roles, stem)
            return
        single = (stem, families[stem][0][0])
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
            _doubt_direction(roles, columns)
            return
    label = roles.label
    is_many = label is not None and len(roles.distinct(label)) > 2
    if single is not None and len(single[1]) == 1 and is_many:
        _by_values(roles)  # p or z is one letter among others
    if single is not None and not roles.scores:
        take_family(roles, single[0])
    if roles.scores:
        return
    _by_values(roles)
    confidence = named(roles, NAMES["confidence"])
    if not roles.scores and confidence is not None and roles.is_numeric(confidence):
        text = "a confidence that nothing says the outcome of"
        roles.give(confidence, "score", text)


def _is_logit(stem: str) -> int:
    parsed = parse_score_name(stem)
    return ("", "probabilities", "logits").index(parsed.kind if parsed else "")


def _doubt_direction(roles: Roles, columns: list[str]) -> None:
    """Ask about scores whose name says that they fall where a class is likelier."""
    stem = plain(common_stem(tuple(columns)))
    if stem not in _REVERSED:
        return
    text = (
        f"The scores are called {stem}, but were read as logits: a larger one speaks "
        "for its class. If a smaller one does, change their sign in the file."
    )
    roles.raw.notes.append(Note("reversed-scores", "question", text))


_REVERSED = {
    *("cost", "costs", "distance", "distances", "dist", "loss", "energy", "error"),
    *("rank", "ranks", "dissimilarity"),
}
_EVIDENCE = {
    "_by_label_values": BY_LABEL_VALUES,
    "_by_common_stem": "a common stem and the name of a class",
}


def _numbers(roles: Roles) -> list[str]:
    return [
        name
        for name in roles.free()
        if not is_reserved(roles, name)
        and not is_statistic(roles, name)
        and roles.is_numeric(name)
    ]


def _by_label_values(roles: Roles) -> list[str]:
    """Return columns named like the classes or the values of the label column."""
    values = roles.class_words()
    numbers = [name for name in roles.free() if roles.is_numeric(name)]
    # The name of a class is what it is, also where other files mean a role by it.
    named = [name for name in numbers if folded(name) in values]
    if roles.classes:
        return named if len(named) == len(roles.classes) > 1 else []
    if len(named) < 2 or len(named) < len(values) / 2:
        return []
    decimals = [n for n in numbers if n in named or roles.kind(n) == "decimal"]
    certain = [n for n in decimals if n in named or not is_reserved(roles, n)]
    # A class that no row has stands between or beside the others.
    order = roles.raw.table.column_names
    low, high = (order.index(name) for name in _with_neighbours(named, certain))
    between, wider = (
        [name for name in names if low <= order.index(name) <= high]
        for names in (certain, decimals)
    )
    tried = (certain, between, decimals, wider)
    return next((names for names in tried if sum_to_one(roles, names)), between)


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
    values = roles.class_words()
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
        if is_named or (has_decimals and (counted or sum_to_one(roles, columns))):
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
        predicted = named(roles, _PREDICTIONS)
        if predicted is not None and roles.kind(predicted) == "decimal":
            roles.give(predicted, "score", "decimals in a column of predictions")
        return
    label = roles.label
    n_values = len(roles.distinct(label)) if label is not None else 0
    is_single = len(decimals) == 1 and n_values in {0, 1, 2}
    is_full = len(decimals) > 1 and (
        n_values == len(decimals) or sum_to_one(roles, decimals)
    )
    if is_single or is_full:
        text = "the only column" if is_single else "the only columns"
        for name in decimals:
            roles.give(name, "score", f"{text} of decimals")
