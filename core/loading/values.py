"""Score columns as one array, what they are, and which rows cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from core.loading.names import MISSING
from core.loading.sources import Raw
from core.messages import Progress, no_progress, part_of

__all__ = [
    "SLACK",
    "FloatArray",
    "Scores",
    "blocks",
    "find_invalid",
    "gather_scores",
    "is_percent",
]

FloatArray = NDArray[np.floating[Any]]

HUGE = 1 << 24
"""Scores read from text beyond this number are kept as float32."""

SLACK = 1e-6
"""How far outside 0..1 rounding may put a probability."""

_BLOCK = 1 << 20
_PERCENT = r"\s*\d*[.,]?\d+\s*%\s*"


@dataclass(slots=True)
class Scores:
    """The scores of every row of the file.

    Parameters
    ----------
    matrix : ndarray of shape (n, k)
        NaN where a cell is empty or is not a number.
    names : tuple of str
        Names of the columns; empty for an array of an NPZ.
    texts : dict of int to dict of int to str
        Column -> row -> cell, for cells that are not numbers.
    array : str
        Name of the array of an NPZ.
    percent : str
        A cell that was written with a percent sign, where some were.
    whole : int
        What the values of the file were divided by.
    """

    matrix: FloatArray
    names: tuple[str, ...]
    texts: dict[int, dict[int, str]] = field(default_factory=dict)
    array: str = ""
    percent: str = ""
    whole: int = 1

    def column(self, position: int) -> str:
        """Return how a column is called in a message."""
        if self.array:
            return f"{self.array}[:, {position}]"
        return self.names[position]


def gather_scores(
    raw: Raw, names: tuple[str, ...], progress: Progress = no_progress
) -> Scores:
    """Return the score columns as one C-contiguous array, and take them off the file.

    Parameters
    ----------
    raw : Raw
        Its table loses the columns, so that they are not in memory twice.
    names : tuple of str
    progress : callable, optional
    """
    if len(names) == 1 and names[0] in raw.arrays:
        array = raw.arrays[names[0]]
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
        return Scores(np.ascontiguousarray(array), (), array=names[0])
    matrix = np.empty((raw.n_rows, len(names)), dtype=_dtype(raw, names))
    scores = Scores(matrix, names)
    pieces: dict[int, list[Any]] = {}
    for position, name in enumerate(names):
        column = raw.table[name]
        if pa.types.is_string(column.type):
            found = _parsed(column)
            matrix[:, position], scores.texts[position], percent = found
            scores.percent = scores.percent or percent
        else:
            pieces[position] = column.chunks[::-1]
    del column
    raw.take_off(names)
    _fill(matrix, pieces, part_of(progress, raw.read_share, raw.gathered_share))
    return scores


def _fill(matrix: FloatArray, pieces: dict[int, list[Any]], progress: Progress) -> None:
    """Copy pieces of columns, the last ones first in each list, and let go of them.

    All columns advance together, so that the array grows as the pieces go.
    """
    starts = dict.fromkeys(pieces, 0)
    n_rounds = max(map(len, pieces.values()), default=0)
    for number in range(n_rounds):
        progress(number / n_rounds, "Putting the scores together")
        for position, waiting in pieces.items():
            if not waiting:
                continue
            chunk, start = waiting.pop(), starts[position]
            starts[position] += len(chunk)
            values = chunk.cast(pa.float64()) if chunk.null_count else chunk
            matrix[start : starts[position], position] = values.to_numpy(
                zero_copy_only=False
            )
        del chunk, values
        pa.default_memory_pool().release_unused()


def _dtype(raw: Raw, names: tuple[str, ...]) -> type[np.floating[Any]]:
    is_single = all(raw.table.schema.field(name).type == pa.float32() for name in names)
    return np.float32 if is_single or raw.n_rows * len(names) > HUGE else np.float64


def _parsed(column: Any) -> tuple[FloatArray, dict[int, str], str]:
    """Return numbers, the cells that are none, and one written as a percentage."""
    text = column.to_pandas().str.strip()
    bare = text
    percent = ""
    if is_percent(column):
        has_sign = text.str.endswith("%").fillna(value=False).astype(bool)
        percent = str(text[has_sign].iloc[0])
        bare = text.where(has_sign).str.rstrip("% ").str.replace(",", ".")
    numbers = as_numbers(bare)
    if percent:
        numbers /= 100
    bad = np.flatnonzero(np.isnan(numbers) & text.notna().to_numpy())
    return numbers, {int(row): str(text.iloc[row]) for row in bad}, percent


def is_percent(column: Any) -> bool:
    """Whether every given cell of a text column is a number with a percent sign."""
    cells = column.slice(0, 1000).to_pandas().str.strip()
    given = cells[~cells.fillna("").str.lower().isin(MISSING)]
    return bool(len(given)) and bool(given.str.fullmatch(_PERCENT).all())


def as_numbers(text: pd.Series[Any]) -> FloatArray:
    """Return text as float64, rounded to the nearest; NaN where it is no number."""
    found = pd.to_numeric(text, errors="coerce")
    numbers = np.array(found, dtype=np.float64)
    # pandas says what a number is, but 3.0 gets the last bits of some wrong.
    known = np.flatnonzero(np.isfinite(numbers))
    numbers[known] = text.to_numpy(object)[known].astype(np.float64)
    return numbers


def blocks(matrix: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Yield views of some rows each, with the row they start at."""
    step = max(1, _BLOCK // matrix.shape[1])
    for start in range(0, len(matrix), step):
        yield start, matrix[start : start + step]


def find_invalid(scores: Scores, kind: str) -> pd.DataFrame:
    """Return one line per row that cannot be used: row, column, value, reason.

    Rows are counted from 0; the first bad cell of a row stands for it.
    """
    parts = []
    for start, block in blocks(scores.matrix):
        is_bad = _bad_cells(block, kind)
        rows = np.flatnonzero(is_bad.any(axis=1))
        if rows.size:
            columns = is_bad[rows].argmax(axis=1)
            parts.append(np.column_stack([rows + start, columns]))
    if not parts:
        return pd.DataFrame({"row": [], "column": [], "value": [], "reason": []})
    lines = []
    for row, column in np.concatenate(parts).tolist():
        value, reason = _reason(scores, row, column, kind)
        lines.append((row, scores.column(column), value, reason))
    return pd.DataFrame(lines, columns=["row", "column", "value", "reason"])


def _bad_cells(block: FloatArray, kind: str) -> NDArray[np.bool_]:
    is_bad: NDArray[np.bool_]
    if kind == "logits":
        is_bad = np.isnan(block) | (block == np.inf)
        is_bad[(block == -np.inf).all(axis=1), 0] = True
        return is_bad
    is_bad = ~((block >= 0) & (block <= 1 + SLACK))
    if block.shape[1] > 1:
        is_bad[(block == 0).all(axis=1), 0] = True
    return is_bad


def _reason(scores: Scores, row: int, column: int, kind: str) -> tuple[str, str]:
    text = scores.texts.get(column, {}).get(row)
    if text is not None:
        return text, "is not a number"
    value = float(scores.matrix[row, column])
    if np.isnan(value):
        return "", "is empty or NaN"
    if kind == "logits":
        every = " in every class" if value == -np.inf else ""
        return f"{value:g}", f"is infinite{every}"
    if value == 0:
        return "0", "is 0 in every class"
    return f"{value * scores.whole:g}", "is not a probability (0 to 1)"
