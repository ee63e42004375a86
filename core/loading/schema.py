"""What a file was taken for: every column's role, the evidence, the alternatives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ColumnGuess", "Expected", "Schema"]


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a file before it is read: what a calibrator was fitted on.

    Parameters
    ----------
    classes : tuple of str, default=()
        Classes that score columns may be called after.
    input_kind : {"", "logits", "probabilities", "confidence"}, default=""
        What the scores are where names and values leave it open. Confidences of a
        companion need not say which predictions were right.
    is_companion : bool, default=False
        Whether the rows belong to a study whose classes these are: columns without
        names are its classes in order, and features alone will do.
    """

    classes: tuple[str, ...] = ()
    input_kind: str = ""
    is_companion: bool = False


@dataclass(frozen=True, slots=True)
class ColumnGuess:
    """What one column (or array of an NPZ) was taken for.

    Parameters
    ----------
    name : str
        Name in the file.
    role : str
        "score", "label", "confidence", "correct", "predicted", "id", "group",
        "weight", "time", "split", "ood", "dataset", "slice" or "other"; arrays of an
        NPZ also "features", "head" or "classes".
    evidence : str
        Why, in a few words.
    alternatives : tuple of str
        Other roles that the column could play.
    """

    name: str
    role: str
    evidence: str
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """What was understood of a file, before any row is used.

    Parameters
    ----------
    name, format : str
        Name of the file and what it is ("csv", "tsv", "parquet", "npz", ...).
    n_rows : int
        Rows of the file.
    input_kind : {"logits", "probabilities", "confidence", "features"}
        What the scores are; "features" where there are none and features will do.
    input_evidence : str
        Why they are taken for that.
    columns : tuple of ColumnGuess
        Every column in the order of the file.
    classes : tuple of str
        Class names in the order of the scores; empty for confidences.
    delimiter : str or None
        Only for text.
    has_header : bool
        Whether the first line names the columns.
    """

    name: str
    format: str
    n_rows: int
    input_kind: str
    input_evidence: str
    columns: tuple[ColumnGuess, ...]
    classes: tuple[str, ...]
    delimiter: str | None = None
    has_header: bool = True

    def names(self, role: str) -> tuple[str, ...]:
        """Return the columns that play a role, in the order of the file."""
        return tuple(item.name for item in self.columns if item.role == role)

    def column(self, role: str) -> str | None:
        """Return the first column that plays a role, or None."""
        return next(iter(self.names(role)), None)

    def summary(self) -> str:
        """Return one sentence: rows, classes, kind of scores, label and group."""
        if not self.names("score") and self.input_kind != "confidence":
            return f"{_count(self.n_rows, 'row')}, no score columns found"
        parts = [_count(self.n_rows, "row")]
        if self.input_kind != "confidence":
            parts.append(f"{len(self.classes):,} classes")
        parts.append(f"{self.input_kind} ({self.input_evidence})")
        label = self.column("label")
        outcome = self.column("correct") if self.input_kind == "confidence" else None
        if outcome is not None:
            parts.append(f"outcome `{outcome}`")
        else:
            parts.append("no label column" if label is None else f"label `{label}`")
        group = self.column("group")
        parts.append("no group column" if group is None else f"group `{group}`")
        for role in ("weight", "time", "split"):
            found = self.column(role)
            if found is not None:
                parts.append(f"{role} `{found}`")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return every field as plain data."""
        return asdict(self)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
