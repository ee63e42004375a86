"""Quotes that are not closed: they take whole rows of a text file into one cell."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.loading.dialect import long_cells
from core.messages import DataError, Note

__all__ = ["check_quotes", "has_line_ends"]


def has_line_ends(table: Any) -> bool:
    """Whether a cell of a table of text and numbers holds more than one line."""
    return any(
        pc.any(pc.match_substring(column, end)).as_py()
        for column in table.columns
        if pa.types.is_string(column.type)
        for end in "\n\r"
    )


def check_quotes(
    lines: Iterable[str],
    delimiter: str,
    width: int,
    name: str,
    *,
    is_spaced: bool = False,
) -> list[Note]:
    """Refuse a quote that is not closed where its cell ends.

    Parameters
    ----------
    lines : iterable of str
        The file, with its line ends.
    delimiter : str
    width : int
        Number of columns.
    name : str
        Name of the file, for messages.
    is_spaced : bool, default=False
        Whether quotes may stand after a space.

    Returns
    -------
    list of Note
        A warning where a cell is closed and yet holds lines that could be rows.

    Raises
    ------
    DataError
        If a quote takes in lines and is never closed, or closed within another cell.
    """
    start, found = 0, []
    with long_cells():
        # Strict: text after a closing quote and an end within quotes are errors.
        rows = csv.reader(
            lines, delimiter=delimiter, strict=True, skipinitialspace=is_spaced
        )
        while True:
            try:
                row = next(rows)
            except StopIteration:
                break
            except csv.Error:
                if rows.line_num > start + 1:
                    raise _open_quote(name, start + 1) from None
                row = []
            if _hold_rows(row, delimiter, width):
                found.append(start + 1)
            start = rows.line_num
    if not found:
        return []
    text = (
        f"Within quotes stand lines that look like rows, first on line {found[0]:,}. "
        "They were read as text of a cell; if they are rows, a quote is missing there."
    )
    return [Note("rows-in-quotes", "warning", text)]


def _hold_rows(cells: list[str], delimiter: str, width: int) -> bool:
    """Whether a line within a cell has as many delimiters as the header."""
    return any(
        line.count(delimiter) == width - 1 > 0
        for cell in cells
        if "\n" in cell or "\r" in cell
        for line in cell.splitlines()[1:]
    )


def _open_quote(name: str, line: int) -> DataError:
    return DataError(
        "A quote opens here and is not closed where its cell ends, so that the lines "
        "below it would be lost.",
        f"{name}, line {line:,}",
        'Close the quote; write a quote that belongs to the text twice ("").',
    )
