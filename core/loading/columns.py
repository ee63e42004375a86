"""The roles of the columns found so far, and what the cells of a column look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from core.loading.names import NAMES, plain
from core.loading.sources import Raw
from core.loading.values import is_percent

__all__ = [
    "Roles",
    "has_names",
    "is_reserved",
    "named",
    "without_index",
]

_ARRAY_ROLES = ("features", "classes", "head_weight", "head_bias")
_NEVER_DECIMAL = ("id", "group", "split")
_ENOUGH = 0.5  # share of a score column's cells that are numbers
_ALTERNATIVES = {
    "array": ("score", "features", "other"),
    "decimal": ("score", "confidence", "weight", "time", "label", "other"),
    "whole": ("label", "score", "id", "group", "weight", "time", "slice", "other"),
    "text": ("label", "id", "group", "split", "time", "slice", "other"),
}


@dataclass(slots=True)
class Roles:
    """Roles found so far, each with its evidence.

    Parameters
    ----------
    raw : Raw
    found : dict of str to (str, str)
        Column -> role and evidence.
    chosen_scores : list of str
        Score columns in class order.
    unread_label : str or None
        Column that is named as a label where the user wants none: it helps to
        recognise the scores, and is not read as a label.
    classes : tuple of str
        Classes that are known before the file is read.
    needs_outcome : bool
        Whether a file of confidences must say which predictions were right.
    """

    raw: Raw
    found: dict[str, tuple[str, str]] = field(default_factory=dict)
    chosen_scores: list[str] = field(default_factory=list)
    unread_label: str | None = None
    classes: tuple[str, ...] = ()
    needs_outcome: bool = True
    _kinds: dict[str, str] = field(default_factory=dict)
    _words: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def scores(self) -> tuple[str, ...]:
        """Score columns in class order."""
        return tuple(self.chosen_scores)

    def give(self, name: str, role: str, evidence: str) -> None:
        """Let a column play a role."""
        self.found[name] = (role, evidence)
        if role == "score":
            self.chosen_scores.append(name)

    def column(self, role: str) -> str | None:
        """Return the column that plays a role, or None."""
        return next(
            (name for name, item in self.found.items() if item[0] == role), None
        )

    @property
    def label(self) -> str | None:
        """The column that scores are recognised by."""
        return self.column("label") or self.unread_label

    def class_words(self) -> frozenset[str]:
        """Return the classes that are known, else those of the label, caseless."""
        label = self.label
        if self.classes or label is None or label in self.raw.arrays:
            return frozenset(name.strip().casefold() for name in self.classes)
        if label not in self._words:  # asked for once per column
            values = self.distinct(label)
            self._words[label] = frozenset(value.casefold() for value in values)
        return self._words[label]

    def free(self) -> list[str]:
        """Return the columns without a role, in the order of the file."""
        return [name for name in self.raw.table.column_names if name not in self.found]

    def kind(self, name: str) -> str:
        """Return "array", "decimal", "whole" or "text"."""
        if name not in self._kinds:
            self._kinds[name] = self._kind(name)
        return self._kinds[name]

    def _kind(self, name: str) -> str:
        if name in self.raw.arrays:
            return "array"
        column = self.raw.table[name]
        if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
            return "whole"
        if pa.types.is_floating(column.type):
            whole = pc.all(pc.equal(pc.floor(column), column)).as_py()
            return "whole" if whole else "decimal"
        return "text"

    def is_numeric(self, name: str) -> bool:
        """Whether most cells are numbers (a text column may hold a few strays)."""
        column = self.raw.table[name]
        if not pa.types.is_string(column.type):
            kind = column.type
            return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
        cells = column.slice(0, 1000).to_pandas().dropna()
        if cells.empty:
            return True
        numbers = pd.to_numeric(cells.str.strip(), errors="coerce").notna()
        return bool(numbers.mean() >= _ENOUGH) or is_percent(column)

    def distinct(self, name: str) -> list[str]:
        """Return the distinct values of a column as text, missing ones left out."""
        return self.raw.distinct(name)

    def alternatives(self, name: str, role: str) -> tuple[str, ...]:
        """Return the other roles that a column's values would allow."""
        kinds = _ALTERNATIVES[self.kind(name)]
        return tuple(other for other in kinds if other != role)


def named(roles: Roles, names: Sequence[str]) -> str | None:
    """Return the free column whose name comes first among `names`."""
    free = {plain(name): name for name in reversed(roles.free())}
    return next((free[name] for name in names if name in free), None)


def has_names(roles: Roles) -> bool:
    """Whether the columns have names; those that pandas counts from 0 are none."""
    if not roles.raw.has_header:
        return False
    names = without_index(roles.raw.table.column_names)
    is_counted = names == [str(i) for i in range(len(names))] and len(names) > 1
    return not (is_counted and roles.raw.is_table)


def without_index(names: list[str]) -> list[str]:
    """Return names without the one that an index written by pandas lacks."""
    return names[1:] if names[:1] == ["unnamed 1"] else names


def is_reserved(roles: Roles, name: str) -> bool:
    """Whether a name speaks of another role, which the values could play."""
    word = plain(name)
    said = {role for role, names in NAMES.items() if word in names}
    if roles.raw.is_table:
        # Only arrays are called w, b or features; of a table these are classes.
        said = set() if len(word) == 1 else said.difference(_ARRAY_ROLES)
    if roles.kind(name) == "decimal":
        said.difference_update(_NEVER_DECIMAL)
    return bool(said)
