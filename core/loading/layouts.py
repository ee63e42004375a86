"""Layouts whose columns mean something only together: timm, CatBoost, one-hot labels.

Each recogniser looks at a table, and either leaves it alone or says what its columns
are (`Raw.known`), before any column is judged by its own name and values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.loading.names import NAMES, parse_score_name, plain
from core.loading.sources import Raw
from core.messages import DataError, Note

__all__ = ["LAYOUTS", "lay_out"]

_FILES = ("filename", "file_name", "file", "path", "image")
_OUTPUTS = {
    "prob": "probabilities",
    "logit": "logits",
    "logits": "logits",
    "output": "",
    "score": "",
}
_RANKED = re.compile(r"(index|label|prob|logit|logits|output|score)_(\d+)")
_TIMM = "timm inference.py"
_LABELS = {
    stem: re.compile(rf"{stem}[_ .:=\-]+(.+)", re.IGNORECASE) for stem in NAMES["label"]
}
_FEW = 20  # rows that may all have another class by chance


def lay_out(raw: Raw) -> Raw:
    """Return a table with the roles that its layout decides."""
    if raw.is_table and raw.has_header:
        for recognise in LAYOUTS.values():
            recognise(raw)
    return raw


def _timm(raw: Raw) -> None:
    """Take filename, index_*, label_*, prob_* of timm as the top classes of a row."""
    names = {plain(name): name for name in raw.names}
    columns = _ranks(names)
    if columns is None:
        return
    is_single = len(columns["output"]) == 1
    if is_single and not any(name in names for name in _FILES):
        return
    output, labels = columns.pop("output"), columns.pop("label", None)
    index, values = _matrix(raw, columns["index"]), _matrix(raw, output)
    if index is None or values is None:
        return
    if is_single and not _is_prediction(raw, index[:, 0], labels):
        return
    kind = _OUTPUTS[re.sub(r"_\d+$", "", plain(output[0]))]
    index = index.astype(np.int64)
    n_ranks = index.shape[1]
    every = np.arange(n_ranks)
    if n_ranks > 1 and (np.sort(index, axis=1) == every).all():
        _take_every_class(raw, index, values, output, columns["index"], labels)
        return
    if kind == "logits" or (values > 1).any() or (values < 0).any():
        raise DataError(
            f"This is an output of {_TIMM} with the {n_ranks} highest logits of each "
            "row; without the others there is no confidence.",
            f"{raw.name}, column {output[0]}",
            "Run inference.py with --topk 0 --results-separate-col, which writes the "
            "scores of every class.",
        )
    _take_top(raw, output, columns["index"], labels)


def _ranks(names: dict[str, str]) -> dict[str, list[str]] | None:
    """Return "index", "label" and "output" -> columns by rank, or None."""
    found: dict[str, list[str]] = {}
    if "index" in names:
        found["index"] = [names["index"]]
        if "label" in names:
            found["label"] = [names["label"]]
        singles = [name for name in _OUTPUTS if name in names]
        found["output"] = [names[singles[0]]] if singles else []
    else:
        for word, name in names.items():
            rank = _RANKED.fullmatch(word)
            if rank is not None:
                key = rank[1] if rank[1] in {"index", "label"} else "output"
                found.setdefault(key, []).append(name)
    lengths = {len(columns) for columns in found.values()}
    is_whole = {"index", "output"} <= set(found) and len(lengths) == 1
    return found if is_whole and 0 not in lengths else None


def _matrix(raw: Raw, names: list[str]) -> NDArray[Any] | None:
    """Return columns of numbers, or one column of lists, as one array."""
    if len(names) == 1 and names[0] in raw.arrays:
        return raw.arrays[names[0]]
    kinds = [raw.table[name].type for name in names if name in raw.table.column_names]
    is_number = [pa.types.is_integer(k) or pa.types.is_floating(k) for k in kinds]
    if len(kinds) < len(names) or not all(is_number):
        return None
    array = np.column_stack([raw.table[name].to_numpy() for name in names])
    return array if np.isfinite(array).all() else None


def _is_prediction(raw: Raw, index: NDArray[Any], labels: list[str] | None) -> bool:
    """Whether index is a class, not a counted row; label must name it if it is there.

    A label that goes its own way is what came true.
    """
    if (index % 1 != 0).any() or (index < 0).any():
        return False
    is_unique = len(np.unique(index)) == len(index) > 1
    if is_unique and (len(index) > _FEW or (np.diff(index) == 1).all()):
        return False
    if labels is None:
        return True
    pairs = {(int(i), name) for i, name in zip(index, raw.text(labels[0]), strict=True)}
    return len(pairs) == len({i for i, _ in pairs}) == len({name for _, name in pairs})


def _take_every_class(
    raw: Raw,
    index: NDArray[np.int64],
    values: NDArray[Any],
    output: list[str],
    indices: list[str],
    labels: list[str] | None,
) -> None:
    """Put ranked scores of every class back into the order of the classes."""
    scores = np.empty_like(values, dtype=np.float64)
    np.put_along_axis(scores, index, values, axis=1)
    stem = re.sub(r"_\d+$", "", output[0])
    classes = [str(i) for i in range(index.shape[1])]
    for rank, name in enumerate(labels or ()):
        if name in raw.table.column_names:
            for i, text in zip(index[:, rank], raw.text(name), strict=True):
                classes[i] = str(text)
    drop = {*output, *indices, *(labels or ())}
    raw.arrays = {k: a for k, a in raw.arrays.items() if k not in drop}
    raw.take_off(drop)
    for number, name in enumerate(classes):
        column = pa.chunked_array([pa.array(scores[:, number])])
        raw.table = raw.table.append_column(f"{stem}_{name}", column)
        raw.known[f"{stem}_{name}"] = ("score", f"{_TIMM}, every class of the ranks")


def _take_top(
    raw: Raw, output: list[str], index: list[str], labels: list[str] | None
) -> None:
    """Keep the confidence of the top class; say what is not there."""
    n_ranks = len(output)
    if output[0] in raw.arrays:
        n_ranks = raw.arrays[output[0]].shape[1]
        for name in (*output, *index):
            column = pa.chunked_array([pa.array(raw.arrays.pop(name)[:, 0])])
            raw.table = raw.table.append_column(name, column)
        labels = None  # text of a list of names
    first = (labels or index)[0]
    raw.known[output[0]] = ("confidence", f"{_TIMM}, score of the top class")
    raw.known[first] = ("predicted", f"{_TIMM}, the top class")
    for name in (*output, *index, *(labels or ())):
        raw.known.setdefault(name, ("other", f"{_TIMM}, another rank"))
    ranks = "class" if n_ranks == 1 else f"{n_ranks} classes"
    text = (
        f"The file holds only the top {ranks} of each row: reliability of the "
        "confidence can be measured, temperature scaling needs every class. "
        "inference.py writes them with --topk 0 --results-separate-col."
    )
    raw.notes.append(Note("top-k-only", "warning", text))


def _catboost(raw: Raw) -> None:
    """Take raw values of CatBoost as the logits; its Class is what was predicted."""
    names = raw.table.column_names
    values = [name for name in names if plain(name).startswith("rawformulaval")]
    if not values:
        return
    for name in names:
        word = plain(name)
        if word.startswith(("probability", "logprobability", "exponent")):
            raw.known[name] = ("other", "the raw values say the same before softmax")
        elif word == "class" and any(plain(other) == "label" for other in names):
            raw.known[name] = ("predicted", "the class that CatBoost predicts")


def _one_hot(raw: Raw) -> None:
    """Take label_a, label_b, ... of 0 and 1, one 1 per row, as one label column."""
    if any(plain(name) in NAMES["label"] for name in raw.names):
        return
    families: dict[str, list[tuple[str, str]]] = {}
    for name in raw.table.column_names:
        for stem, pattern in _LABELS.items():
            found = pattern.fullmatch(name)
            if found is not None:
                families.setdefault(stem, []).append((name, found[1]))
    for stem, members in families.items():
        columns = [name for name, _ in members]
        if len(members) < 2 or stem in raw.table.column_names:
            continue
        if any(raw.known.get(name) for name in columns):
            continue
        rests = {rest.casefold() for _, rest in members}
        if not rests <= _class_words(raw, columns):
            continue  # categories of something else
        flags = _flags(raw, columns)
        if flags is None:
            continue
        classes = pa.array([rest for _, rest in members])
        label = classes.take(pa.array(flags.argmax(axis=1)))
        raw.take_off(columns)
        raw.table = raw.table.append_column(stem, pa.chunked_array([label]))
        raw.known[stem] = ("label", f"{columns[0]} to {columns[-1]}, one 1 per row")
        text = (
            f"{columns[0]} to {columns[-1]} hold one 1 per row and are read as one "
            "label."
        )
        raw.notes.append(Note("one-hot-labels", "info", text))
        return


def _class_words(raw: Raw, columns: list[str]) -> set[str]:
    """Return the numbers of classes, and what other columns name as classes."""
    words = {str(i) for i in range(len(columns) + 1)}
    for name in set(raw.table.column_names).difference(columns):
        parsed = parse_score_name(name)
        words |= {name.casefold(), (parsed.suffix if parsed else name).casefold()}
    return words


def _flags(raw: Raw, columns: list[str]) -> NDArray[Any] | None:
    """Return columns of 0 and 1 with one 1 per row as an array, else None."""
    arrays = []
    for name in columns:
        column = raw.table[name]
        kind = column.type
        if column.null_count or not (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
        ):
            return None
        arrays.append(pc.cast(column, pa.float64()).to_numpy())
    flags = np.column_stack(arrays)
    is_one_hot = np.isin(flags, (0, 1)).all() and (flags.sum(axis=1) == 1).all()
    return flags if is_one_hot else None


LAYOUTS: dict[str, Callable[[Raw], None]] = {
    "timm": _timm,
    "catboost": _catboost,
    "one-hot": _one_hot,
}
"""Recognisers of layouts, in the order they are asked."""
