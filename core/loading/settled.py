"""Text columns that hold nothing but numbers and gaps become numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.loading.dialect import is_number
from core.loading.names import MISSING
from core.loading.values import as_numbers

__all__ = ["settled", "with_points"]

_EXACT = 2.0**53


def settled(table: Any) -> Any:
    """Turn text columns that hold nothing but numbers and gaps into numbers."""
    columns = list(table.columns)
    for i, column in enumerate(columns):
        if not pa.types.is_string(column.type):
            continue
        if not _looks_numeric(column.slice(0, 1000)):
            continue
        text = column.to_pandas().str.strip()
        numbers = as_numbers(text)
        gaps = text.isna() | text.str.lower().isin(MISSING)
        is_coded = text.str.match(r"0\d").fillna(value=False).any()
        if bool((~np.isnan(numbers) | gaps).all()) and not is_coded:
            columns[i] = _as_array(text, numbers)
    return _with_columns(table, columns)


def _with_columns(table: Any, columns: list[Any]) -> Any:
    """Return a table with other columns (Arrow's set_column copies it for each)."""
    return pa.table(columns, names=table.column_names) if columns else table


def _as_array(text: Any, numbers: Any) -> Any:
    """Return whole numbers as integers, so that 1 and 1.0 stay apart."""
    given = numbers[~np.isnan(numbers)]
    is_written_whole = (
        not text.str.contains(r"[.eE]", regex=True).fillna(value=False).any()
    )
    is_exact = bool((np.abs(given) < _EXACT).all() and (given % 1 == 0).all())
    ready = pa.array(numbers, from_pandas=True)
    return ready.cast(pa.int64()) if is_written_whole and is_exact else ready


def with_points(table: Any) -> Any:
    """Write the decimal commas of columns of numbers that stayed text as points."""
    columns = list(table.columns)
    for i, column in enumerate(columns):
        if pa.types.is_string(column.type) and _has_commas(column):
            columns[i] = pc.replace_substring_regex(
                column, r"^\s*([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)\s*$", r"\1.\2"
            )
    return _with_columns(table, columns)


def _has_commas(column: Any) -> bool:
    """Whether most of the first cells are numbers, so that a comma is a decimal."""
    cells: Iterable[str | None] = column.slice(0, 1000).to_pylist()
    given = [cell for cell in cells if cell]
    return sum(map(is_number, given)) >= max(1, len(given) / 2)


def _looks_numeric(column: Any) -> bool:
    cells: Iterable[str | None] = column.to_pylist()
    given = [cell for cell in cells if cell and cell.strip().lower() not in MISSING]
    return bool(given) and all(map(is_number, given))
