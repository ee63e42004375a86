"""When two spellings mean one class: as text, as a number, as a truth value."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["as_whole", "counted_names", "folded", "meant_truth", "value_of"]

_BOOLEANS = {"true": 1, "false": 0}
_MEANT = {
    **_BOOLEANS,
    **dict.fromkeys(("yes", "y", "t", "pos", "positive"), 1),
    **dict.fromkeys(("no", "n", "f", "neg", "negative"), 0),
}


def folded(name: str) -> str:
    """Return a name in small letters, its words one space apart as in a header."""
    return " ".join(unicodedata.normalize("NFC", name).split()).casefold()


def value_of(name: str) -> float | None:
    """Return the number that a name writes, 1 for true and 0 for false, or None."""
    word = folded(name)
    if word in _BOOLEANS:
        return float(_BOOLEANS[word])
    is_number = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", word, re.ASCII)
    return float(word) if is_number else None


def meant_truth(name: str) -> int | None:
    """Return 1 for true, yes or positive, 0 for their opposites, None for others."""
    return _MEANT.get(folded(name))


def as_whole(values: Iterable[str]) -> dict[str, int] | None:
    """Return the whole number of each cell, or None if one is something else."""
    try:
        numbers = {value: float(value) for value in values}
        return (
            {v: int(x) for v, x in numbers.items()}
            if all(x == int(x) for x in numbers.values())
            else None
        )
    except (ValueError, OverflowError):
        return None


def counted_names(names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the numbers that end names alike but for these (V1, V2), or None."""
    found = [re.fullmatch(r"(.*\D)(\d{1,9})", name, re.ASCII) for name in names]
    parts = [item.groups() for item in found if item]
    numbers = tuple(int(number) for _, number in parts)
    is_alike = len(parts) == len(names) and len({stem for stem, _ in parts}) == 1
    return numbers if is_alike and len(set(numbers)) == len(numbers) else None
