"""Tables as files: CSV that no spreadsheet runs, and JSON with every digit."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

__all__ = ["write_csv", "write_json"]

_CSV_CELLS = 1 << 20
_FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"
_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"


def write_csv(frame: pd.DataFrame, destination: Path | None = None) -> bytes:
    """Return a table as CSV (UTF-8) in which no text starts like a formula.

    Text cells and headers that start with ``= + - @``, a tab or a line end get an
    apostrophe in front, so that no spreadsheet runs them; numbers stay numbers, and
    so do texts that are nothing but a number.

    Parameters
    ----------
    frame : DataFrame
        Its index is not written.
    destination : Path, optional
        File to write to; nothing is returned then.

    Returns
    -------
    bytes
        Empty where a destination was given.

    Examples
    --------
    >>> frame = pd.DataFrame({"name": ["=1+1", "-5"], "gap": [-0.5, None]})
    >>> print(write_csv(frame).decode())
    "name","gap"
    "'=1+1",-0.5
    "-5",
    <BLANKLINE>
    """
    if destination is not None:
        with destination.open("wb") as file:
            _write(frame, file)
        return b""
    buffer = io.BytesIO()
    _write(frame, buffer)
    return buffer.getvalue()


def write_json(frame: pd.DataFrame) -> bytes:
    """Return a table as strict JSON (UTF-8), one object per line of the table.

    Numbers are written so that they are read back to the last bit; what is missing,
    NaN or infinite becomes null, and times are in ISO 8601.

    Parameters
    ----------
    frame : DataFrame
        Its index is not written; its columns have different names.

    Returns
    -------
    bytes

    Examples
    --------
    >>> frame = pd.DataFrame({"name": ["a", None], "p": [1.2345678901234e-10, 1.0]})
    >>> print(write_json(frame).decode())
    [
    {"name": "a", "p": 1.2345678901234e-10},
    {"name": null, "p": 1.0}
    ]
    <BLANKLINE>
    """
    names = [str(name) for name in frame.columns]
    cells = [_plain(frame.iloc[:, place]) for place in range(len(names))]
    lines = (
        json.dumps(
            dict(zip(names, line, strict=True)), ensure_ascii=False, allow_nan=False
        )
        for line in zip(*cells, strict=True)
    )
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def _write(frame: pd.DataFrame, file: BinaryIO) -> None:
    names = _neutral(pd.Series([str(name) for name in frame.columns], dtype="str"))
    columns = [frame.iloc[:, place] for place in range(frame.shape[1])]
    types = [_arrow_type(column) for column in columns]
    schema = pa.schema(list(zip(names, types, strict=True)))
    # Text is always quoted: no separator or line end of another locale splits it.
    options = arrow_csv.WriteOptions(quoting_style="needed")
    with arrow_csv.CSVWriter(file, schema, write_options=options) as writer:
        for start in _starts(frame):
            stop = start + max(1, _CSV_CELLS // max(1, frame.shape[1]))
            arrays = [
                _arrow(column.iloc[start:stop], kind)
                for column, kind in zip(columns, types, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _starts(frame: pd.DataFrame) -> Iterator[int]:
    yield from range(0, len(frame), max(1, _CSV_CELLS // max(1, frame.shape[1])))


def _is_text(column: pd.Series[Any]) -> bool:
    kinds = pd.api.types
    is_number = kinds.is_numeric_dtype(column) or kinds.is_bool_dtype(column)
    return not (is_number or kinds.is_datetime64_any_dtype(column))


def _arrow_type(column: pd.Series[Any]) -> Any:
    if _is_text(column):
        return pa.string()
    return pa.array(column.iloc[:0], from_pandas=True).type


def _arrow(column: pd.Series[Any], kind: Any) -> Any:
    if _is_text(column):
        column = _neutral(column.astype(object).where(column.notna(), None))
    return pa.array(column, type=kind, from_pandas=True)


def _neutral(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return text as str, with an apostrophe before what looks like a formula."""
    text = column.map(str, na_action="ignore").astype("str")
    is_risky = text.str.contains(_FORMULA, regex=True, na=False)
    is_risky &= ~text.str.contains(_NUMBER, regex=True, na=False)
    return text.where(~is_risky, "'" + text)


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Return the cells of a column in the types of JSON."""
    cells: list[Any]
    if pd.api.types.is_float_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
        cells = values.tolist()
        for place in np.flatnonzero(~np.isfinite(values)).tolist():
            cells[place] = None
        return cells
    cells = column.astype(object).tolist()
    missing = column.isna().tolist()
    is_time = pd.api.types.is_datetime64_any_dtype(column)
    if is_time or _is_text(column):
        write: Callable[[Any], str] = pd.Timestamp.isoformat if is_time else str
        cells = [
            cell if gap else write(cell)
            for cell, gap in zip(cells, missing, strict=True)
        ]
    return [None if gap else cell for cell, gap in zip(cells, missing, strict=True)]
