"""JSON tables as pandas writes them: records, lines, columns, index, split, table."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import pandas as pd
import pyarrow as pa

from core.loading import sources
from core.loading.columnar import raw_of_table
from core.loading.dialect import check_names
from core.loading.names import (
    ARRAY_LABELS,
    ARRAY_SCORES,
    NAMES,
    parse_score_name,
    plain,
)
from core.loading.sources import Raw, Source, check_size, damaged
from core.loading.streams import opened
from core.messages import DataError, Progress

__all__ = ["read_json"]

_UNREADABLE = (
    *(pa.ArrowException, ValueError, TypeError, KeyError, AttributeError),
    *(OverflowError, RecursionError, OSError, EOFError, zlib.error),
)
_KNOWN = {*ARRAY_SCORES, *ARRAY_LABELS, *NAMES["predicted"], *NAMES["confidence"]}
_BYTES_EACH = 12  # of memory for each byte of text, as a rule of thumb


def read_json(source: Source, progress: Progress, packing: str = "") -> Raw:
    """Read a JSON table, also packed (.gz, .zst); anything else raises DataError."""
    progress(0.1, "Reading")
    most = int(sources.MEMORY_LIMIT / _BYTES_EACH) + 1
    try:
        with opened(source, packing) as file:
            data = file.read(most)
        check_size(len(data), source.name, _BYTES_EACH)
        text = data.decode("utf-8-sig")
        frame = _frame(text, source.name)
        frame.columns = frame.columns.astype(str)
        check_names(list(frame.columns), source.name)
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise damaged(source.name, "JSON table", error) from None
    progress(0.8, "Reading")
    return raw_of_table(source.name, "json", table)


def _frame(text: str, name: str) -> Any:
    """Return a document of any of the layouts of `pandas.DataFrame.to_json`."""
    try:
        document = json.loads(text)
    except ValueError:
        if not re.match(r"\s*\{[^\n]*\}\s*\n\s*\{", text):
            raise
        document = _lines(text, name)
    if not document:
        raise _refused("The file holds no rows.", name)
    if isinstance(document, list):
        return pd.DataFrame.from_records(_objects(document, name))
    if {"columns", "data"} <= set(document) <= {"columns", "data", "index"}:
        if any(len(row) != len(document["columns"]) for row in document["data"]):
            msg = "its rows and its columns differ in length"
            raise ValueError(msg)
        return pd.DataFrame(document["data"], columns=document["columns"])
    if {"schema", "data"} == set(document):
        frame = pd.DataFrame.from_records(_objects(document["data"], name))
        # An index without a name is only a count, and pandas calls it index.
        is_count = document["schema"].get("primaryKey") == ["index"]
        return frame.drop(columns="index") if is_count else frame
    values = list(document.values())
    if all(isinstance(value, dict) for value in values):
        return _keyed(document, name)
    if all(isinstance(value, list) for value in values):
        return _of_lists(document, name)
    tables = [key for key, value in document.items() if _is_table(value)]
    if tables:
        others = ", ".join(k for k, v in document.items() if not isinstance(v, list))
        raise _refused(f"Beside the rows of {tables[0]} stands {others}.", name)
    return pd.DataFrame.from_records([document])


def _lines(text: str, name: str) -> list[Any]:
    """Return one document per line; a line that is none raises DataError."""
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(
                "The line is not a whole JSON object: "
                f"{error.msg} (character {error.colno:,}).",
                f"{name}, line {number:,}",
                "Write one object per line; the copy may have been cut off here.",
            ) from None
    return found


def _keyed(document: dict[str, dict[str, Any]], name: str) -> Any:
    """Return objects of objects, whose outer keys are columns or rows."""
    outer = list(document)
    inner = list(dict.fromkeys(key for value in document.values() for key in value))
    if not inner:
        raise _refused("The file holds no rows.", name)
    for speaks in (_speaks_of_columns, _are_scores, _are_names):
        is_by_column = speaks(outer)
        if is_by_column != speaks(inner):
            break
    else:
        raise _refused(
            f"The keys do not say whether {outer[0]!r} is a column or a row.", name
        )
    if is_by_column:
        columns = {key: [document[key].get(row) for row in inner] for key in outer}
        frame, index = pd.DataFrame(columns), inner
    else:
        frame, index = pd.DataFrame.from_records(list(document.values())), outer
    # timm writes the names of the files as keys, and its index is the class.
    is_timm = any(str(column).startswith("index") for column in frame.columns)
    frame.index = pd.Index(index, name="filename" if is_timm else "id")
    return frame.reset_index()


def _speaks_of_columns(keys: list[str]) -> bool:
    """Whether one of the keys is a usual name of a column, as label or prob_0 are."""
    return any(re.sub(r"_\d+$", "", plain(key)) in _KNOWN for key in keys)


def _are_scores(keys: list[str]) -> bool:
    """Whether all keys are called as scores are."""
    return all(parse_score_name(key) is not None for key in keys)


def _are_names(keys: list[str]) -> bool:
    """Whether the keys are more than counted rows."""
    return not all(map(str.isdigit, keys))


def _of_lists(document: dict[str, list[Any]], name: str) -> Any:
    """Return columns given as lists: logits of (rows, classes), labels of (rows,)."""
    lengths = {key: len(value) for key, value in document.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{key} {n:,}" for key, n in lengths.items())
        raise DataError(
            f"The lists have different lengths: {shown}.",
            name,
            "Write one entry per row in every list, such as "
            '{"logits": [[2.1, -1.0], [0.3, 1.9]], "labels": [0, 1]}.',
        )
    return pd.DataFrame(document)


def _is_table(value: Any) -> bool:
    """Whether a value holds rows: lists or objects."""
    is_list = isinstance(value, list) and len(value) > 0
    return is_list and all(isinstance(entry, (list, dict)) for entry in value)


def _objects(rows: list[Any], name: str) -> list[dict[str, Any]]:
    """Return the rows, each a mapping of names to values."""
    if not all(isinstance(row, dict) for row in rows):
        raise _refused("A row does not name its columns.", name)
    return rows


def _refused(what: str, name: str) -> DataError:
    return DataError(
        what,
        name,
        "Write one object per row, such as "
        '[{"prob_cat": 0.9, "prob_dog": 0.1, "label": "cat"}]; pandas does so with '
        'to_json(orient="records").',
    )
