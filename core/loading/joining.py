"""Two tables of one upload become one: by an id that both have."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pyarrow as pa

from core.loading.names import NAMES, plain
from core.loading.sources import Raw
from core.messages import Answer, DataError, Note

__all__ = ["by_id", "shared_id"]

_COUNT = re.compile(r"unnamed:? \d+", re.IGNORECASE)  # index that pandas wrote
_WORDS = dict.fromkeys(word.replace("_", "") for word in NAMES["id"])
_RANKS = {word: place for place, word in enumerate(_WORDS)}


def shared_id(base: Raw, other: Raw, chosen: str | None) -> tuple[str, str] | None:
    """Return the column of each file that tells the rows of the other apart, or None.

    Parameters
    ----------
    base, other : Raw
    chosen : str or None
        A column that the user chose; empty joins by order where only an index without
        a name is in both.

    Raises
    ------
    DataError
        If only an index without a name is in both, and its values differ.
    """
    shared = [n for n in base.table.column_names if n in other.table.column_names]
    spelled = _spelled_otherwise(base, other)
    for pair in [*((name, name) for name in shared), *spelled]:
        if chosen in pair:
            return pair
    shared.sort(key=lambda column: _RANKS.get(_bare(column), len(_RANKS)))
    column: str
    for column in shared:
        right = other.text(column)
        is_id = _bare(column) in _RANKS
        kind = other.table[column].type
        if (pa.types.is_floating(kind) and not is_id) or plain(column) in NAMES[
            "label"
        ]:
            continue
        if spelled and not is_id:
            continue
        if is_id or (right.is_unique and base.text(column).isin(right).any()):
            if _COUNT.fullmatch(column) is None:
                return column, column
            if set(base.text(column)) == set(right):
                return column, column
            if chosen != "":
                raise _other_index(base, other, column)
    return next(iter(spelled), None)


def _bare(name: str) -> str:
    """Return a name in small letters without anything between its words."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _spelled_otherwise(base: Raw, other: Raw) -> list[tuple[str, str]]:
    """Return pairs of columns named as ids whose names differ in their spelling."""
    left, right = ({}, {})  # type: tuple[dict[str, list[str]], dict[str, list[str]]]
    for raw, found in ((base, left), (other, right)):
        for name in raw.table.column_names:
            found.setdefault(_bare(name), []).append(name)
    return [
        (left[word][0], right[word][0])
        for word in _RANKS
        if len(left.get(word, ())) == len(right.get(word, ())) == 1
        and left[word] != right[word]
    ]


def _other_index(base: Raw, other: Raw, column: str) -> DataError:
    """Ask how rows belong together whose unnamed index differs between the files."""
    answers = [Answer("Join the rows on that index", "id_column", column)]
    how = "Name that column id in both files if it tells the rows apart"
    if base.n_rows == other.n_rows:
        text = "Join the rows in the order of the files"
        answers.append(Answer(text, "id_column", ""))
        how += "; write both without it (index=False) if they are in the same order"
    n_shared = int(base.text(column).isin(other.text(column)).sum())
    return DataError(
        "Both files have an index without a name, and its values are not the same: "
        f"{n_shared:,} of {base.n_rows:,} rows of {base.name} find theirs among the "
        f"{other.n_rows:,} of {other.name}.",
        f"{base.name} + {other.name}",
        f"{how}.",
        answers=tuple(answers),
    )


def by_id(base: Raw, other: Raw, keys: tuple[str, str], notes: list[Note]) -> Any:
    """Return the row of the other table for each row, missing where there is none.

    Parameters
    ----------
    base, other : Raw
    keys : tuple of str
        The column of ids of each.
    notes : list of Note
        Gets a note on how the rows were joined.

    Raises
    ------
    DataError
        If an id of the other table is not unique, or none is in both.
    """
    left, right = base.text(keys[0]), pd.Index(other.text(keys[1]))
    where = f"{other.name}, column {keys[1]}"
    if not right.is_unique:
        raise DataError(
            f"The id {right[right.duplicated()][0]!r} occurs more than once, so rows "
            "cannot be matched.",
            where,
            "Keep one row per id.",
        )
    places = right.get_indexer(left)
    example = ""
    if (places < 0).any() and (bare := _without_zeros(left, right)) is not None:
        closer = bare[1].get_indexer(bare[0])
        if (closer >= 0).sum() > (places >= 0).sum():
            row = int(((closer >= 0) & (places < 0)).argmax())
            example = (
                f"; {left.iloc[row]} and {right[closer[row]]} count as the same id"
            )
            places = closer
    n_missing, n_idle = int((places < 0).sum()), len(right) - len(set(places) - {-1})
    if n_missing == len(left):
        raise DataError(
            f"None of the {len(left):,} ids of {base.name} is in {other.name}; the "
            f"first is {str(left.iloc[0])!r}.",
            where,
            "Give files of the same rows.",
        )
    named = " and ".join(dict.fromkeys(keys))
    text = f"The rows of {base.name} and {other.name} were joined on {named}{example}"
    if n_missing:
        text += f"; {n_missing:,} rows of {base.name} are not in {other.name}"
    if n_idle:
        text += f"; {n_idle:,} rows of {other.name} have no scores and are not used"
    severity = "warning" if n_missing else "info"
    notes.append(Note("joined-by-id", severity, f"{text}."))  # type: ignore[arg-type]
    found = pd.array(places, dtype="Int64")
    found[places < 0] = pd.NA
    return found


def _without_zeros(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Return ids without zeros before a number, or None where some become alike."""
    bare = []
    for ids in (pd.Series(left), pd.Series(right)):
        short = ids.str.replace(r"^0+(?=\d+$)", "", regex=True)
        if short.nunique() < ids.nunique():
            return None
        bare.append(short)
    return bare[0], pd.Index(bare[1])
