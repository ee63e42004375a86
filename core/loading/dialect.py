"""How a text file is written: encoding, delimiter, decimal mark, header."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath

from core.loading.names import MISSING, NAMES, parse_score_name, plain
from core.loading.rules import rule_below, without_rules
from core.loading.sources import damaged, find_encoding
from core.messages import DataError, Note

__all__ = [
    "DELIMITERS",
    "Dialect",
    "check_names",
    "check_width",
    "decode_start",
    "find_dialect",
    "is_number",
    "long_cells",
    "skipped_note",
]

DELIMITERS = {",": "csv", "\t": "tsv", ";": "csv", "|": "csv", " ": "txt"}
"""Delimiter -> what a file with it is called."""
MOST_COLUMNS = 50_000
"""A table with more columns is refused: it belongs into an array."""
_WORDS = {
    ",": "commas",
    "\t": "tabs",
    ";": "semicolons",
    "|": "vertical bars",
    " ": "spaces",
}
_PROMISED = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_LONGEST_CELL = 8 << 20
_KNOWN = {name for role, names in NAMES.items() if "head" not in role for name in names}
_LINE = re.compile(r"([^\r\n]*)(?:\r\n|\r|\n)")
_NOTHING = re.compile(r"[ \t,;|]*(?:sep=.)?", re.IGNORECASE)
_COMMENT = re.compile(r"\s*#(?!\s*[,;|\t])")
_SPACED = re.compile(r'\s+".*"\s*', re.DOTALL)
_COMMA = re.compile(r"\s*[-+]?\d*,\d+(?:[eE][-+]?\d+)?\s*")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a text file is written.

    Parameters
    ----------
    delimiter, encoding, decimal : str
        Between cells, of the bytes, and before the fraction of a number.
    names : tuple of str
        Names of the columns.
    has_header, has_quotes : bool
        Whether a line names the columns; whether cells are quoted.
    longest_line, n_above : int
        Bytes of the longest line looked at; lines above the table.
    skipped : tuple of int
        Those of the lines above that hold something.
    beyond : {"", "row names", "trailing"}
        Why the rows have one cell more than the header.
    is_header_apart : bool
        Whether the header is a comment above the table.
    is_spaced, is_ruled : bool
        Whether quotes stand after spaces; whether psql wrote a rule and a footer.
    """

    delimiter: str
    encoding: str
    decimal: str
    names: tuple[str, ...]
    has_header: bool
    has_quotes: bool
    longest_line: int
    n_above: int
    skipped: tuple[int, ...] = ()
    beyond: str = ""
    is_header_apart: bool = False
    is_spaced: bool = False
    is_ruled: bool = False

    @property
    def n_header(self) -> int:
        """Rows of the table itself that name the columns."""
        return int(self.has_header and not self.is_header_apart)

    def notes(self, name: str) -> list[Note]:
        """Return what is unusual about the text of a file of this name."""
        found = []
        packed = (".gz", ".zst")
        suffixes = [s.lower() for s in PurePath(name).suffixes if s not in packed]
        promised = _PROMISED.get(next(iter(suffixes[-1:]), ""), self.delimiter)
        if promised != self.delimiter and len(self.names) > 1:
            text = f"The cells are separated by {_WORDS[self.delimiter]}."
            found.append(Note("delimiter", "info", text))
        if self.decimal == ",":
            text = "Numbers are written with a decimal comma; 0,5 was read as 0.5."
            found.append(Note("decimal-comma", "info", text))
        if self.encoding == "cp1252":
            text = (
                "The file is not UTF-8; it was read as Windows-1252, which is Latin-1 "
                "with more quotes and dashes (check accents in names)."
            )
            found.append(Note("latin-1", "info", text))
        elif self.encoding != "utf-8":
            text = "The file is UTF-16 and was read as such."
            found.append(Note("utf-16", "info", text))
        if self.skipped:
            found.append(skipped_note(self.skipped, "above the table"))
        if self.is_header_apart:
            text = (
                "The names of the columns were taken from the comment above the rows."
            )
            found.append(Note("commented-header", "info", text))
        if self.is_spaced:
            text = "Spaces between a delimiter and quotes were left out."
            found.append(Note("spaced-quotes", "info", text))
        if self.beyond == "row names":
            text = (
                "The rows have one cell more than the header: the first was taken for "
                "row names, as R writes them."
            )
            found.append(Note("row-names", "info", text))
        return found


def find_dialect(text: str, encoding: str, name: str) -> Dialect:
    """Return how a text is written.

    Parameters
    ----------
    text : str
        Whole lines from the start of the file.
    encoding : str
        What the bytes were decoded from.
    name : str
        Name of the file, for messages.

    Raises
    ------
    DataError
        If it cannot be cut into columns.
    """
    above, start, comment = _lines_above(text)
    table = text[start:]
    is_ruled = rule_below(table)
    delimiter, rows = _delimiter(without_rules(table) if is_ruled else table, name)
    is_spaced = not is_ruled and _has_spaced_quotes(rows)
    if is_spaced:
        with long_cells():
            lines = io.StringIO(table, newline="")
            cut = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            rows = [
                row for row in itertools.islice(cut, 51) if any(map(str.strip, row))
            ]
    first = rows[0]
    check_width(len(first), name)
    has_header = _is_header(rows)
    apart = [] if has_header else next(csv.reader([comment], delimiter=delimiter), [])
    is_apart = len(apart) == len(first) > 1 and _is_header([apart, *rows])
    beyond = _cell_beyond(rows) if has_header else ""
    if has_header or is_apart:
        cells = apart if is_apart else first
        ends = {"row names": ("", *cells), "trailing": (*cells, "")}
        names = _clean_names([*ends.get(beyond, cells)], name)
    else:
        names = tuple(f"column {i + 1}" for i in range(len(first)))
    return Dialect(
        delimiter=delimiter,
        encoding=encoding,
        decimal=_decimal(rows, delimiter),
        names=names,
        has_header=has_header or is_apart,
        has_quotes='"' in table,
        longest_line=max(map(len, text.encode("utf-8").split(b"\n"))),
        n_above=len(above),
        skipped=tuple(i for i, line in enumerate(above, start=1) if line.strip()),
        beyond=beyond,
        is_header_apart=is_apart,
        is_spaced=is_spaced,
        is_ruled=is_ruled,
    )


def skipped_note(lines: Sequence[int], why: str) -> Note:
    """Return the note that names lines of the file that were not read."""
    runs: list[list[int]] = []
    for line in lines:
        if runs and line == runs[-1][-1] + 1:
            runs[-1].append(line)
        else:
            runs.append([line])
    shown = ", ".join(
        f"{run[0]:,}" + (f" to {run[-1]:,}" if run[1:] else "") for run in runs
    )
    what = f"Lines {shown} were" if len(lines) > 1 else f"Line {shown} was"
    return Note("skipped-lines", "info", f"{what} skipped: {why}.")


def _lines_above(text: str) -> tuple[list[str], int, str]:
    """Return the lines above the table, where it starts, and the last comment."""
    above: list[str] = []
    start, comment = 0, ""
    for line in _LINE.finditer(text):
        if _COMMENT.match(line[1]):
            comment = line[1].strip().lstrip("#").strip()
        elif _NOTHING.fullmatch(line[1]) is None:
            break
        above.append(line[1])
        start = line.end()
    return above, start, comment


def _cell_beyond(rows: list[list[str]]) -> str:
    """Return why every row has one cell more than the header, if it is known."""
    width, body = len(rows[0]), rows[1:]
    if width < 2 or {len(row) for row in body} != {width + 1}:
        return ""
    if not any(row[-1].strip() for row in body):
        return "trailing"
    firsts = [row[0].strip() for row in body]
    is_text = not any(map(is_number, firsts))
    is_counted = firsts in (
        [str(i + start) for i in range(len(firsts))] for start in (0, 1)
    )
    is_unique = len(set(firsts)) == len(firsts)
    return "row names" if is_unique and (is_text or is_counted) else ""


def decode_start(head: bytes, *, is_whole: bool) -> tuple[str, str]:
    """Return the whole lines at the start of a text file, and their encoding."""
    encoding = find_encoding(head)
    if encoding.startswith("utf-16"):
        text = head.decode(encoding, "ignore")  # half a character may end the head
        return (text if is_whole else text[: text.rfind("\n") + 1]), encoding
    lines = head if is_whole else head[: head.rfind(b"\n") + 1]
    try:
        return lines.decode("utf-8-sig"), encoding
    except UnicodeDecodeError:
        return lines.decode("cp1252", "latin-1"), "cp1252"


def _delimiter(text: str, name: str) -> tuple[str, list[list[str]]]:
    """Return the delimiter that cuts the first lines into most columns, and those."""
    best: tuple[tuple[float, float], str, list[list[str]]] = ((0.0, 0.0), ",", [])
    refused = csv.Error("it holds no cells")
    with long_cells():
        for delimiter in DELIMITERS:
            if delimiter == " " and best[0][0] > 1:
                continue  # names may hold spaces
            lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            try:
                rows = [
                    row
                    for row in itertools.islice(lines, 51)
                    if any(map(str.strip, row))
                ]
            except csv.Error as error:
                refused = error
                continue
            if not rows:
                continue
            width = len(rows[0])
            is_even = sum(len(row) == width for row in rows) >= 0.8 * len(rows)
            is_even |= _cell_beyond(rows) != ""
            if delimiter == " " and not (is_even and all(map(all, rows))):
                continue
            # Between equals, more numbers decide: 0,5;0,5;1 has three.
            share = sum(is_number(cell) for row in rows for cell in row) / len(rows)
            score = (width if is_even else width / 2, share)
            if score > best[0]:
                best = (score, delimiter, rows)
    if not best[2]:
        raise damaged(name, "table", refused)
    return best[1], best[2]


def _has_spaced_quotes(rows: list[list[str]]) -> bool:
    """Whether a space stands before quotes, so that they are part of the cell."""
    if any(map(_SPACED.fullmatch, rows[0])):
        return True
    columns = zip(*rows[1:], strict=False)
    return any(all(map(_SPACED.fullmatch, column)) for column in columns)


@contextmanager
def long_cells() -> Iterator[None]:
    """Let the csv module read cells longer than its usual limit."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _decimal(rows: list[list[str]], delimiter: str) -> str:
    """Return the decimal mark of the first lines: a comma only where no point is.

    Between commas a cell such as "0,5" must be quoted and be the usual thing.
    """
    cells = [cell for row in rows for cell in row]
    n_comma = sum(_COMMA.fullmatch(cell) is not None for cell in cells)
    numbers = [cell for cell in cells if is_number(cell)]
    if any("." in cell for cell in numbers):
        return "."
    # Labels such as NA and null, and infinity, say nothing of the mark.
    n_digits = sum(any(map(str.isdigit, cell)) for cell in numbers)
    is_usual = delimiter != "," or n_comma > n_digits / 2
    return "," if n_comma and is_usual else "."


def _is_header(rows: list[list[str]]) -> bool:
    first = rows[0]
    numeric = [cell.strip() for cell in first if is_number(cell)]
    others = [cell for cell in first if not is_number(cell) and cell.strip()]
    # Arrays written by pandas have the header 0,1,2,...
    is_counted = numeric == [str(i) for i in range(len(numeric))] and len(numeric) > 1
    if not others:
        below = rows[1] if len(rows) > 1 else []
        return is_counted and any(not _is_whole(cell) for cell in below)
    if not numeric or is_counted:
        return True
    if any(plain(cell) in _KNOWN or parse_score_name(cell) for cell in others):
        return True
    # Text above text is a value; text above numbers is a name.
    return any(
        not is_number(name) and is_number(cell)
        for row in rows[1:2]
        for name, cell in zip(first, row, strict=False)
    )


def is_number(cell: str) -> bool:
    """Whether a cell is a number or stands for a missing one."""
    try:
        float(cell)
    except ValueError:
        is_gap = cell.strip().lower() in MISSING[1:]
        return is_gap or _COMMA.fullmatch(cell) is not None
    return "_" not in cell


def _is_whole(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d+\s*", cell) is not None


def _clean_names(cells: list[str], where: str) -> tuple[str, ...]:
    names = [
        " ".join(cell.split()) or f"unnamed {i + 1}" for i, cell in enumerate(cells)
    ]
    check_names(names, where)
    return tuple(names)


def check_width(n_columns: int, where: str) -> None:
    """Refuse a table of more than `MOST_COLUMNS`."""
    if n_columns > MOST_COLUMNS:
        raise DataError(
            f"The table has {n_columns:,} columns; the limit is {MOST_COLUMNS:,}.",
            where,
            "Save that many scores as an array: NPZ with logits and labels.",
        )


def check_names(names: list[str], where: str) -> None:
    """Refuse two columns of one name."""
    seen: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if name in seen:
            raise DataError(
                f"Two columns are called {name!r} (columns {seen[name]} and "
                f"{position}).",
                f"{where}, column {name}",
                "Give every column a name of its own, or remove the copy.",
            )
        seen[name] = position
