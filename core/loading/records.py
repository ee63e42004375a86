"""JSON tables as pandas writes them: records, lines, by index, or split."""

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
from core.loading.sources import Raw, Source, check_size, damaged
from core.loading.text import opened
from core.messages import DataError, Progress

__all__ = ["read_json"]

_UNREADABLE = (
    *(pa.ArrowException, ValueError, TypeError, KeyError, AttributeError),
    *(OverflowError, RecursionError, OSError, EOFError, zlib.error),
)
_SPLIT = re.compile(r'\s*\{\s*"(?:columns|index|data)"\s*:\s*\[')
_LINES = re.compile(r"\s*\{[^\n]*\}\s*(?:\n\s*\{|\Z)")
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
    if _SPLIT.match(text):
        document = json.loads(text)
        if any(len(row) != len(document["columns"]) for row in document["data"]):
            msg = "its rows and its columns differ in length"
            raise ValueError(msg)
        return pd.DataFrame(document["data"], columns=document["columns"])
    if text.lstrip().startswith("["):
        return pd.DataFrame.from_records(_objects(json.loads(text)))
    if _LINES.match(text):
        lines = [json.loads(line) for line in text.split("\n") if line.strip()]
        return pd.DataFrame.from_records(_objects(lines))
    document = json.loads(text)
    frame = pd.DataFrame.from_records(_objects(list(document.values())))
    # timm writes the names of the files as keys, and its index is the class.
    is_timm = any(str(name).startswith("index") for name in frame.columns)
    frame.index = pd.Index(list(document), name="filename" if is_timm else "id")
    return frame.reset_index()


def _objects(rows: list[Any]) -> list[dict[str, Any]]:
    """Return the rows, each a mapping of names to values."""
    if not all(isinstance(row, dict) for row in rows):
        msg = "a row does not name its columns"
        raise ValueError(msg)
    return rows
