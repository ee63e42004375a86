"""Class names, and labels as columns of the scores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from core.loading.class_values import (
    as_whole,
    counted_names,
    folded,
    meant_truth,
    value_of,
)
from core.loading.names import MISSING, parse_score_name
from core.loading.sources import clipped
from core.messages import Answer, DataError

__all__ = ["LabelMap", "encode", "map_binary", "map_labels"]


_BY_ORDER = "the second label in sorted order"
_CLASS_WORD = re.compile(r"\s*class[_=:\s]*", re.IGNORECASE)
_UNLABELLED = (-1, -100)  # -100 is what PyTorch and Hugging Face ignore


@dataclass(frozen=True, slots=True)
class LabelMap:
    """How the cells of the label column become columns of the scores.

    Parameters
    ----------
    classes : tuple of str
        Class names in the order of the scores.
    codes : dict of str to int
        Cell -> column of the scores; -1 for cells that mean "unlabelled".
    unknown : tuple of str
        Cells that are none of the classes.
    evidence : str
        How labels and classes were matched.
    question : str
        What the user should confirm about it; empty where it is certain.
    """

    classes: tuple[str, ...]
    codes: dict[str, int] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    evidence: str = ""
    question: str = ""


def _given(values: Iterable[str], classes: tuple[str, ...] = ()) -> list[str]:
    """Return the cells that name a class; "NA" may be a class called NA."""
    return [v for v in values if v in classes or v.lower() not in MISSING]


def map_labels(
    values: tuple[str, ...],
    classes: tuple[str, ...],
    base: str = "auto",
    where: str = "",
    *,
    is_counted: bool = False,
) -> LabelMap:
    """Match distinct labels to two or more score columns, by name or by number.

    Parameters
    ----------
    values, classes : tuple of str
        Distinct labels; class names in the order of the scores.
    base : {"auto", "0", "1"}, default="auto"
        Number of the first class where labels are numbers; "auto" takes names first.
    where : str, default=""
        File and label column, for messages.
    is_counted : bool, default=False
        Whether the classes are but the places of columns without names.

    Raises
    ------
    DataError
        With answers, where labels may count from 0 or from 1.
    """
    if base != "auto":
        return _numbered(values, classes, int(base))
    given = _given(values, classes)
    if is_counted:
        _refuse_no_first(given, classes, where)
    blank = dict.fromkeys(set(values).difference(given), -1)
    by_name = {name: i for i, name in enumerate(classes)}
    by_word = {folded(name): i for i, name in enumerate(classes)}
    if len(by_word) < len(classes):
        by_word = by_name
    found: dict[str, int] = {}
    for value in given:
        parsed = parse_score_name(value)
        short = parsed.suffix if parsed else _CLASS_WORD.sub("", value)
        code = by_name.get(value, by_word.get(folded(value)))
        code = by_word.get(folded(short)) if code is None else code
        if code is not None:
            found[value] = code
    if given and len(found) == len(given):
        return LabelMap(classes, found | blank, (), "labels are the class names")
    if given and (by_value := _by_value(given, classes)) is not None:
        return replace(by_value, codes=by_value.codes | blank)
    whole = as_whole(given)
    if whole is not None:
        _refuse_either_base(whole, classes, where)
        whole = {v: -1 if x in _UNLABELLED else x for v, x in whole.items()}
        if all(-1 <= x < len(classes) for x in whole.values()):
            text = f"labels number the {len(classes)} score columns from 0"
            return LabelMap(classes, whole | blank, (), text)
        if not found:
            found = {v: x for v, x in whole.items() if -1 <= x < len(classes)}
        found |= {v: -1 for v, x in whole.items() if x == -1}
    unknown = tuple(value for value in given if value not in found)
    return LabelMap(classes, found | blank, unknown, "labels are the class names")


def _by_value(given: list[str], classes: tuple[str, ...]) -> LabelMap | None:
    """Match labels to names that are the same number or truth value, or None."""
    wanted = {v: value_of(v) for v in given}
    unlabelled = {v for v, x in wanted.items() if x in _UNLABELLED}
    readings: tuple[tuple[tuple[float | None, ...], str, str], ...] = (
        (tuple(map(value_of, classes)), "labels equal the class names as values", ""),
        (
            tuple(map(meant_truth, classes)),
            "1 means yes or positive",
            "Labels 1 and 0 were read as {} and {}, by what these words mean, not by "
            "the order of the columns. If 0 is the first column instead, choose "
            "--label-base 0.",
        ),
        (
            counted_names(classes) or (),
            "labels are the numbers in the class names",
            "Labels were read as the numbers that end the names of the columns, which "
            "are not in this order. If they count the columns instead, choose "
            "--label-base 0 or --label-base 1.",
        ),
    )
    for values, evidence, question in readings:
        if len(set(values)) < len(classes) or None in values:
            continue
        places = {x: i for i, x in enumerate(values)}
        codes = {v: -1 if v in unlabelled else places.get(x) for v, x in wanted.items()}
        found = {v: code for v, code in codes.items() if code is not None}
        if len(found) < len(given) or len(found) == len(unlabelled):
            continue
        in_order = values == tuple(range(len(classes)))
        if question and (in_order or values == tuple(range(1, len(classes) + 1))):
            continue  # places say the same, or it is asked where they start
        names = [classes[places[x]] for x in (1, 0) if x in places]
        text = question.format(*names) if len(names) == 2 else question
        return LabelMap(classes, found, (), evidence, text)
    return None


def _refuse_either_base(
    whole: dict[str, int], classes: tuple[str, ...], where: str
) -> None:
    """Ask where columns count from 1 and the labels could count from 0 or from 1."""
    numbers = set(whole.values()) - set(_UNLABELLED)
    k = len(classes)
    if not numbers or not numbers <= set(range(1, k)):
        return
    if counted_names(classes) != tuple(range(1, k + 1)):
        return
    first = min(numbers)
    raise DataError(
        f"No label is 0 and none is {k}: label {first} may be {classes[first - 1]} or "
        f"{classes[first]}.",
        where,
        "Say whether labels count from 1 or from 0, or write them as the class names.",
        answers=(*_FROM_ONE, Answer("Labels count from 0", "label_base", "0")),
    )


def _refuse_no_first(given: list[str], classes: tuple[str, ...], where: str) -> None:
    """Ask where columns have no names and every label but 0 and the last is there."""
    whole = as_whole(given) or {}
    k = len(classes)
    if k < 3 or set(whole.values()) - set(_UNLABELLED) != set(range(1, k)):
        return
    raise DataError(
        f"The labels are 1 to {k - 1}, and there are {k} columns without names: either "
        "no row is of the first class, or labels count from 1 and none is of the last.",
        where,
        "Say whether labels count from 1 or from 0.",
        answers=(*_FROM_ONE, Answer("Labels count from 0", "label_base", "0")),
    )


def _numbered(values: tuple[str, ...], classes: tuple[str, ...], base: int) -> LabelMap:
    """Return labels as places of the score columns, counted from `base`."""
    given = _given(values)
    codes: dict[str, int] = dict.fromkeys(set(values).difference(given), -1)
    for value in given:
        whole = as_whole([value])
        place = None if whole is None else whole[value] - base
        if whole is not None and whole[value] in _UNLABELLED:
            codes[value] = -1
        elif place is not None and 0 <= place < len(classes):
            codes[value] = place
    unknown = tuple(value for value in given if value not in codes)
    text = f"labels number the {len(classes)} score columns from {base}, as chosen"
    return LabelMap(classes, codes, unknown, text)


def map_binary(
    values: tuple[str, ...], suffix: str, positive: str | None, where: str
) -> LabelMap:
    """Name the two classes of a file with one score column.

    Parameters
    ----------
    values : tuple of str
        Distinct labels.
    suffix : str
        Class that the name of the score column speaks of, such as "malignant".
    positive : str or None
        Class that the user says the score is for.
    where : str
        File and label column, for messages.
    """
    given = _given(values)
    _refuse_missing_class(values, given, suffix, positive, where)
    if positive is not None:
        given = [v for v in values if v in given or _same(positive, v)]
    whole = as_whole(given)
    if whole is not None and set(whole.values()) != {-1, 1}:
        minus = [v for v, x in whole.items() if x in _UNLABELLED]
        given = [v for v in given if v not in minus]
        whole = {v: x for v, x in whole.items() if v in given}
    blank = dict.fromkeys(set(values).difference(given), -1)
    if len(given) > 2:
        known = {v: x for v, x in (whole or {}).items() if x in (0, 1)}
        unknown = tuple(value for value in given if value not in known)
        return LabelMap(("0", "1"), known | blank, unknown, "labels are 0 and 1")
    if not given or (whole is not None and set(whole.values()) <= {0, 1}):
        codes = whole or {}
        if given and positive is None:
            positive = _negative_named(suffix, where)
        names = (
            (f"not {suffix}", suffix) if suffix and not suffix.isdigit() else ("0", "1")
        )
        text = f"1 means {names[1]}" if suffix else "1 is the positive class"
        if _same(positive, "0") and meant_truth(suffix) == 0:
            codes = {v: 1 - x for v, x in codes.items()}
            text = f"0 means {suffix}"
        elif _same(positive, "0") or _same(positive, names[0]):
            codes, names = {v: 1 - x for v, x in codes.items()}, names[::-1]
            text = f"the score is for {names[1]}, as chosen"
        elif positive is not None and not given:
            names = (f"not {positive.strip()}", positive.strip())
        elif positive is not None and not any(
            _same(positive, name) for name in ("1", names[1])
        ):
            raise _bad_positive(positive, ("0", "1"), where)
        return LabelMap(names, codes | blank, (), text)
    one, evidence = _positive_of(given, suffix, positive, where)
    others = [value for value in given if value != one]
    zero = others[0] if others else f"not {one}"
    codes = {value: int(value == one) for value in given}
    text = _asked_order(zero, one) if evidence.endswith(_BY_ORDER) else ""
    return LabelMap((zero, one), codes | blank, (), evidence, text)


def _asked_order(zero: str, one: str) -> str:
    """Return the question which of two numbers one score is for, or nothing."""
    values = {value_of(zero), value_of(one)}
    if values & {-1.0, 0.0} or None in values:
        return ""
    return (
        f"A high score was read as speaking for label {one}, the larger of {zero} and "
        f"{one}. If it speaks for {zero}, choose --positive-class {zero}."
    )


def _negative_named(suffix: str, where: str) -> str | None:
    """Return the class of a score named False or 0, or ask which it is."""
    if folded(suffix) == "false":
        return "0"
    is_zero = suffix.isdigit() and int(suffix) == 0
    if not is_zero and meant_truth(suffix) != 0:
        return None
    raise DataError(
        f"The one score column speaks of {suffix}: it may be the score of label 0, or "
        + ("the first output, that of label 1." if is_zero else "of label 1."),
        where,
        "Choose the label that a high score speaks for.",
        answers=tuple(
            Answer(f"The score is for label {label}", "positive_class", label)
            for label in ("0", "1")
        ),
    )


def _refuse_missing_class(
    values: Iterable[str],
    given: list[str],
    suffix: str,
    positive: str | None,
    where: str,
) -> None:
    """Ask whether NA or None, beside one class that the score names, is a class."""
    words = [v for v in values if v not in given and v.isalpha() and v.lower() != "nan"]
    is_one = len(given) == 1 and suffix and _same(suffix, given[0])
    if not is_one or len(words) != 1 or positive is not None:
        return
    raise DataError(
        f"Labels are {given[0]} and {words[0]}, and {words[0]} may be a class or mean "
        "that the label is missing.",
        where,
        f"If it is a class, write its name in full (not {given[0]}). If the label is "
        "missing, say so with the positive class, or leave the cell empty.",
        answers=(Answer(f"{words[0]} means no label", "positive_class", given[0]),),
    )


def _same(left: str | None, right: str) -> bool:
    return left is not None and left.strip().casefold() == right.strip().casefold()


def _positive_of(
    given: list[str], suffix: str, positive: str | None, where: str
) -> tuple[str, str]:
    if positive is not None:
        chosen = [value for value in given if _same(positive, value)]
        if chosen:
            return chosen[0], f"the score is for {chosen[0]}, as chosen"
        if len(given) == 2:
            raise _bad_positive(positive, tuple(given), where)
        return positive.strip(), f"the score is for {positive.strip()}, as chosen"
    named = [value for value in given if suffix and _same(suffix, value)]
    if named:
        return named[0], f"the score column names {named[0]}"
    if len(given) == 1:
        if suffix and not suffix.isdigit():
            return suffix, f"the score column names {suffix}"
        raise DataError(
            f"Every label is {clipped(given[0])}, so it is unknown whether the score "
            "is for or against it.",
            where,
            "Choose the positive class, or name it in the score column "
            f"(prob_{given[0]}).",
        )
    last = _meant_positive(given)
    if last is not None:
        return last, f"the score is for {last}, by what the labels mean"
    if as_whole(given) is None:
        raise DataError(
            f"Labels are {' and '.join(map(clipped, given))}, and nothing says which "
            "of them the score is for.",
            where,
            "Choose the positive class, or name it in the score column "
            f"(prob_{given[0]}).",
            answers=tuple(
                Answer(f"The score is for {value}", "positive_class", value)
                for value in sorted(given, key=_sort_key)
            ),
        )
    last = max(given, key=_sort_key)
    return last, f"the score is for {last}, {_BY_ORDER}"


def _meant_positive(given: list[str]) -> str | None:
    """Return yes of no and yes, ill of "not ill" and ill, or None."""
    for one, other in (given, given[::-1]):
        if meant_truth(one) == 1 and meant_truth(other) == 0:
            return one
        words = re.split(r"[\s_-]+", folded(other), maxsplit=1)
        if words[0] in {"not", "non", "no"} and words[1:] == [folded(one)]:
            return one
    return None


def _sort_key(value: str) -> tuple[float, str]:
    whole = as_whole([value])
    return (float(whole[value]) if whole else np.inf, value)


def _bad_positive(positive: str, classes: tuple[str, ...], where: str) -> DataError:
    return DataError(
        f"The positive class {positive!r} is not a label; the labels are "
        f"{' and '.join(classes)}.",
        where,
        f"Choose {' or '.join(classes)}.",
    )


def encode(
    indices: NDArray[np.int64], texts: list[str | None], labels: LabelMap, where: str
) -> NDArray[np.int64]:
    """Return labels as columns of the scores, -1 where unlabelled.

    Parameters
    ----------
    indices : ndarray of int64 of shape (n,)
        Which of `texts` each row holds.
    texts : list of str or None
        The distinct cells; None for a missing one.
    labels : LabelMap
        What each cell means.
    where : str
        File and column, for messages.

    Raises
    ------
    DataError
        Naming the first label outside the classes, its row and how many there are.
    """
    if labels.unknown:
        unknown = set(labels.unknown)
        is_unknown = np.array([text in unknown for text in texts])[indices]
        row = int(np.flatnonzero(is_unknown)[0])
        value, n_bad = texts[indices[row]], int(is_unknown.sum())
        names = ", ".join(name[:80] for name in labels.classes[:10])
        more = len(labels.classes) - 10
        raise DataError(
            f"The label {clipped(value)} is not one of the {len(labels.classes)} "
            f"classes ({names}{f' and {more} more' if more > 0 else ''}); {n_bad:,} "
            f"{'row has' if n_bad == 1 else 'rows have'} such a label.",
            f"{where}, row {row + 1}",
            _label_fix(labels),
            answers=_FROM_ONE if _counts_from_one(labels) else (),
        )
    codes = [-1 if text is None else labels.codes[text] for text in texts]
    return np.array(codes, dtype=np.int64)[indices]


_FROM_ONE = (Answer("Labels count from 1", "label_base", "1"),)


def _counts_from_one(labels: LabelMap) -> bool:
    """Whether labels that number the classes from 1 would all be classes."""
    if labels.evidence == "labels are 0 and 1" or "as chosen" in labels.evidence:
        return False
    blank = {v for v, code in labels.codes.items() if code == -1}
    whole = as_whole({*labels.codes, *labels.unknown} - blank)
    places = range(1, len(labels.classes) + 1)
    return bool(whole) and set((whole or {}).values()) <= set(places)


def _label_fix(labels: LabelMap) -> str:
    n_classes = len(labels.classes)
    if labels.evidence == "labels are 0 and 1":
        return (
            "One score column is a binary score and needs two labels. Choose the "
            "label column, or give one score column per class."
        )
    is_numbered = labels.classes == tuple(str(i) for i in range(n_classes))
    if is_numbered and as_whole(labels.unknown) is None:
        return (
            "The scores have no class names: call the columns logit_<class>, or save "
            "the names in the order of the scores as the array classes of an NPZ."
        )
    if _counts_from_one(labels):
        return (
            "The labels seem to count from 1. If they do, say so, or subtract 1, so "
            f"that they run from 0 to {n_classes - 1}."
        )
    return (
        "Write labels as the class names in the score columns (label cat for "
        f"logit_cat), or number them from 0 to {n_classes - 1}; leave unknown labels "
        "empty."
    )
