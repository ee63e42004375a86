"""Text that is written anew before it is read: tables of psql, quotes after spaces."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

__all__ = ["rule_below", "without_rules", "written_anew"]

_RULE = re.compile(r"\s*-+(?:\+-+)+\s*")
_FOOTER = re.compile(r"\s*\(\d+ rows?\)\s*")


def rule_below(table: str) -> bool:
    """Whether the second line is the rule of psql: ------+------."""
    lines = table.split("\n", 2)
    return len(lines) > 1 and "|" in lines[0] and _RULE.fullmatch(lines[1]) is not None


def without_rules(table: str) -> str:
    """Return a table of psql without its rule and its footer."""
    return "".join(line for line in table.splitlines(keepends=True) if not _drop(line))


def _drop(line: str) -> bool:
    return _RULE.fullmatch(line) is not None or _FOOTER.fullmatch(line) is not None


def written_anew(
    lines: Iterable[str], delimiter: str, *, is_ruled: bool
) -> tuple[bytes, list[int]]:
    """Return a table as plain UTF-8 text, and the lines that were left out.

    Parameters
    ----------
    lines : iterable of str
        The table, with its line ends.
    delimiter : str
    is_ruled : bool
        Whether it is a table of psql, which has a rule and a footer, but no quotes.
    """
    made, dropped = io.StringIO(newline=""), []
    writer = csv.writer(made, delimiter=delimiter, lineterminator="\n")
    kept: Iterable[str] = lines
    if is_ruled:
        every = list(lines)
        dropped = [i for i, line in enumerate(every, start=1) if _drop(line)]
        kept = (line for line in every if not _drop(line))
    rows = csv.reader(
        kept,
        delimiter=delimiter,
        skipinitialspace=True,
        quoting=csv.QUOTE_NONE if is_ruled else csv.QUOTE_MINIMAL,
    )
    for row in rows:
        writer.writerow(map(str.strip, row) if is_ruled else row)
    return made.getvalue().encode(), dropped
