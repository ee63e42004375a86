"""Score columns as one array, what they are, and which rows cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from core.loading.names import parse_score_name, plain
from core.loading.sources import Raw
from core.messages import Progress, no_progress

__all__ = ["Scores", "find_invalid", "gather_scores", "judge_kind"]

FloatArray = NDArray[np.floating[Any]]

HUGE = 1 << 24
"""Scores read from text beyond this number are kept as float32."""

_BLOCK = 1 << 20
_ROUNDING = 1e-3
_ENOUGH = 20  # rows needed to believe the values against the header
_NAMES = {"logits": "logits", "probabilities": "probabilities"}


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
    """

    matrix: FloatArray
    names: tuple[str, ...]
    texts: dict[int, dict[int, str]] = field(default_factory=dict)
    array: str = ""

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
            matrix[:, position], scores.texts[position] = _parsed(column)
        else:
            pieces[position] = column.chunks[::-1]
    del column
    raw.table = raw.table.drop_columns(list(names))
    _fill(matrix, pieces, progress)
    return scores


def _fill(matrix: FloatArray, pieces: dict[int, list[Any]], progress: Progress) -> None:
    """Copy pieces of columns, the last ones first in each list, and let go of them.

    All columns advance together, so that the array grows as the pieces go.
    """
    starts = dict.fromkeys(pieces, 0)
    n_rounds = max(map(len, pieces.values()), default=0)
    for number in range(n_rounds):
        progress(0.85 + 0.05 * number / n_rounds, "Putting the scores together")
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


def _parsed(column: Any) -> tuple[FloatArray, dict[int, str]]:
    text = column.to_pandas()
    numbers = as_numbers(text.str.strip())
    bad = np.flatnonzero(np.isnan(numbers) & text.notna().to_numpy())
    return numbers, {int(row): str(text.iloc[row]) for row in bad}


def as_numbers(text: pd.Series[Any]) -> FloatArray:
    """Return text as float64, rounded to the nearest; NaN where it is no number."""
    found = pd.to_numeric(text, errors="coerce")
    numbers = np.array(found, dtype=np.float64)
    # pandas says what a number is, but 3.0 gets the last bits of some wrong.
    known = np.flatnonzero(np.isfinite(numbers))
    numbers[known] = text.to_numpy(object)[known].astype(np.float64)
    return numbers


@dataclass(slots=True)
class _Range:
    """What the values look like, from one trip over them."""

    low: float = np.inf
    high: float = -np.inf
    n_inside: int = 0
    n_given: int = 0
    n_whole_rows: int = 0
    n_sum_to_one: int = 0
    worst_gap: float = 0.0
    is_fraction: bool = False


def _measure(matrix: FloatArray) -> _Range:
    found = _Range()
    step = max(1, _BLOCK // matrix.shape[1])
    for start in range(0, len(matrix), step):
        block = matrix[start : start + step]
        given = block[~np.isnan(block)]
        if not given.size:
            continue
        found.low = min(found.low, float(given.min()))
        found.high = max(found.high, float(given.max()))
        found.n_given += given.size
        found.n_inside += int(((given >= 0) & (given <= 1 + 1e-6)).sum())
        found.is_fraction |= bool(((given > 0) & (given < 1)).any())
        with np.errstate(invalid="ignore"):
            sums = block.sum(axis=1, dtype=np.float64)
        gaps = np.abs(sums[np.isfinite(sums)] - 1)
        close = gaps <= _ROUNDING
        found.n_whole_rows += int((~np.isnan(sums)).sum())
        found.n_sum_to_one += int(close.sum())
        found.worst_gap = max(found.worst_gap, float(gaps[close].max(initial=0.0)))
    return found


def judge_kind(scores: Scores) -> tuple[str, str]:
    """Return "logits" or "probabilities" and the evidence for it."""
    said, header = _said_by_names(scores)
    matrix = scores.matrix
    found = _measure(matrix)
    is_inside = found.n_inside == found.n_given > 0
    if matrix.shape[1] == 1:
        if said == "logits" or (found.n_given and not is_inside and not said):
            return "logits", header or _outside(found)
        if is_inside:
            return "probabilities", header or "all values lie in 0..1"
        return said or "logits", header or "there are no values to judge by"
    sums = found.n_sum_to_one / max(1, found.n_whole_rows)
    if is_inside and sums >= 0.99:
        believed = found.n_whole_rows >= _ENOUGH and found.is_fraction and sums == 1
        if said != "logits" or believed:
            gap = max(found.worst_gap, 1e-16)
            text = f"rows sum to 1 within {gap:.0e} and all values lie in 0..1"
            if sums < 1:
                text = f"{sums:.1%} of the rows sum to 1 and all values lie in 0..1"
            if said == "logits":
                text += f", although {header}"
            return "probabilities", text.replace("e-0", "e-")
    if said:
        return said, header
    if is_inside and found.is_fraction:
        return "probabilities", "all values lie in 0..1, but rows do not sum to 1"
    return "logits", _outside(found)


def _outside(found: _Range) -> str:
    if not found.n_given:
        return "there are no values to judge by"
    text = f"values run from {found.low:.3g} to {found.high:.3g}"
    is_outside = found.n_inside < found.n_given
    return text + (", outside 0..1" if is_outside else ", and rows do not sum to 1")


def _said_by_names(scores: Scores) -> tuple[str, str]:
    """Return what the header says the scores are, and the sentence for it."""
    if scores.array:
        stem = plain(scores.array)
        parsed = parse_score_name(stem)
        kind = parsed.kind if parsed else ""
        return kind, f"the array is called {scores.array}" if kind else ""
    parsed_names = [parse_score_name(name) for name in scores.names]
    kinds = {item.kind if item else "" for item in parsed_names}
    kind = kinds.pop() if len(kinds) == 1 else ""
    if not kind or parsed_names[0] is None:
        return "", ""
    if len(scores.names) == 1:
        return kind, f"the column is called {scores.names[0]}"
    return kind, f"the columns are called {parsed_names[0].stem}_*"


def find_invalid(scores: Scores, kind: str) -> pd.DataFrame:
    """Return one line per row that cannot be used: row, column, value, reason.

    Rows are counted from 0; the first bad cell of a row stands for it.
    """
    parts = []
    matrix = scores.matrix
    step = max(1, _BLOCK // matrix.shape[1])
    for start in range(0, len(matrix), step):
        block = matrix[start : start + step]
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
    is_bad = ~((block >= 0) & (block <= 1 + 1e-6))
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
    return f"{value:g}", "is not a probability (0 to 1)"
