"""JSON tables as pandas writes them: records, lines, by index, or split."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pandas as pd
import pyarrow as pa

from core.loading.columnar import raw_of_table
from core.loading.dialect import check_names
from core.loading.sources import Raw, Source, check_size, damaged
from core.messages import DataError, Progress

__all__ = ["read_json"]

_UNREADABLE = (
    *(pa.ArrowException, ValueError, TypeError, KeyError, AttributeError),
    *(OverflowError, RecursionError),
)
_SPLIT = re.compile(r'\s*\{\s*"(?:columns|index|data)"\s*:\s*\[')
_LINES = re.compile(r"\s*\{[^\n]*\}\s*(?:\n\s*\{|\Z)")
_BYTES_EACH = 12  # of memory for each byte of text, as a rule of thumb


def read_json(source: Source, progress: Progress) -> Raw:
    """Read a JSON table; anything else raises DataError."""
    check_size(source.size, source.name, _BYTES_EACH)
    progress(0.1, "Reading")
    try:
        with source.open() as file:
            text = file.read().decode("utf-8-sig")
        frame = _frame(text)
        frame.columns = frame.columns.astype(str)
        check_names(list(frame.columns), source.name)
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise damaged(source.name, "JSON table", error) from None
    progress(0.8, "Reading")
    return raw_of_table(source.name, "json", table)


def _frame(text: str) -> Any:
    plain: dict[str, Any] = {"dtype": False, "precise_float": True}
    if _SPLIT.match(text):
        document = json.loads(text)
        if any(len(row) != len(document["columns"]) for row in document["data"]):
            msg = "its rows and its columns differ in length"
            raise ValueError(msg)
        return pd.DataFrame(document["data"], columns=document["columns"])
    if text.lstrip().startswith("["):
        return pd.read_json(io.StringIO(text), orient="records", **plain)
    if _LINES.match(text):
        return pd.read_json(io.StringIO(text), lines=True, **plain)
    frame = pd.read_json(io.StringIO(text), orient="index", convert_axes=False, **plain)
    # timm writes the names of the files as keys, and its index is the class.
    is_timm = any(str(name).startswith("index") for name in frame.columns)
    frame.index.name = "filename" if is_timm else "id"
    return frame.reset_index()
