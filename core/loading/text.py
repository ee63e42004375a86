"""Delimited text: CSV and TSV in any usual encoding, also packed (.gz, .zst)."""

from __future__ import annotations

import csv
import io
import itertools
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from core.loading import sources, values
from core.loading.dialect import (
    DELIMITERS,
    Dialect,
    decode_start,
    find_dialect,
    long_cells,
    skipped_note,
)
from core.loading.names import NAMES, plain
from core.loading.quotes import check_quotes, has_line_ends
from core.loading.rules import written_anew
from core.loading.settled import settled, with_points
from core.loading.sources import Raw, Source, check_size, damaged, shortened
from core.loading.streams import Stream, opened
from core.loading.text_rows import arrow_options, batches_of, read_rows
from core.messages import DataError, Note, Progress

__all__ = ["packed_kind", "read_text"]

_HEAD = 4 << 20
_MOST_TRIES = 4
_PACKED = {"gzip": ".gz", "zstd": ".zst"}
_UNREADABLE = (
    *(pa.ArrowException, OSError, EOFError, ValueError, zlib.error, LookupError),
)


def packed_kind(source: Source, packing: str) -> str:
    """Return "text" or "json", what is packed; anything else raises DataError."""
    try:
        with opened(source, packing) as file:
            head = file.read(4096)
    except _UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        raise damaged(source.name, f"{packing} file", error) from None
    return sources.recognise(source, head)


def read_text(source: Source, packing: str, progress: Progress) -> Raw:
    """Read delimited text; what cannot be read raises DataError.

    Parameters
    ----------
    source : Source
    packing : {"", "gzip", "zstd"}
        What the bytes are packed with.
    progress : callable
    """
    dialect, head, share = _inspect_text(source, packing)
    given: Dialect | None = None
    more: list[Note] = []
    kind = DELIMITERS[dialect.delimiter] + _PACKED.get(packing, "")
    if dialect.is_spaced or dialect.is_ruled:
        given = dialect
        source, more = _written_anew(source, dialect, packing)
        packing = ""
        dialect, head, share = _inspect_text(source, packing)
    n_lines = max(1, head.count(b"\n")) / share
    check_size(n_lines * len(dialect.names), source.name)
    if dialect.has_header and not re.search(rb"[\r\n]", head.strip()):
        raise _no_rows(source.name)  # without a line end Arrow sees half a row
    try:
        types = _column_types(head, dialect)
        if n_lines * len(dialect.names) > values.HUGE:
            types = _narrowed(types)

        def report(n_rows: int, share: float) -> None:
            # Arrow reads ahead of the rows that it gives.
            progress(0.8 * min(share, n_rows / n_lines), "Reading")

        table, dialect = _read_blocks(source, dialect, types, report, packing)
    except _UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        if dialect.has_quotes:
            _quote_notes(source, dialect, packing)
        if "Expected" in str(error) and "Row #" not in str(error):
            error = _with_row(source, dialect, packing) or error
        raise _text_error(source.name, error, dialect) from None
    if table.num_rows == 0:
        raise _no_rows(source.name)
    given = given or dialect
    notes = [*given.notes(source.name), *more]
    if dialect.beyond == "trailing":
        table = _without_last(table, source.name)
    if has_line_ends(table):
        notes += _quote_notes(source, dialect, packing)
    if dialect.decimal == ",":
        table = with_points(table)
    return Raw(
        name=source.name,
        format=kind,
        table=settled(table),
        n_rows=table.num_rows,
        delimiter=dialect.delimiter,
        has_header=given.has_header,
        notes=notes,
    )


def _without_last(table: Any, name: str) -> Any:
    """Drop the empty column that a delimiter at the end of every row makes."""
    last = table.column(table.num_columns - 1)
    if last.null_count < len(last):
        row = int(pc.index(last.is_valid(), value=True).as_py()) + 1
        raise DataError(
            f"The header has {table.num_columns - 1} cells; other rows end with the "
            "delimiter, and this one has a cell behind it.",
            f"{name}, row {row}",
            "Give every row as many cells as the header.",
        )
    return table.select(table.column_names[:-1])


def _written_anew(
    source: Source, dialect: Dialect, packing: str
) -> tuple[Source, list[Note]]:
    """Return a source in memory that any reader of delimited text can read."""
    notes = [] if dialect.is_ruled else _quote_notes(source, dialect, packing)
    with _lines(source, dialect, packing) as lines:
        for _ in range(dialect.n_above):
            next(lines)
        try:
            with long_cells():
                data, dropped = written_anew(
                    lines, dialect.delimiter, is_ruled=dialect.is_ruled
                )
        except (*_UNREADABLE, csv.Error) as error:
            if isinstance(error, DataError):
                raise
            raise damaged(source.name, "table", error) from None
    if dropped:
        numbers = [line + dialect.n_above for line in dropped]
        notes.append(skipped_note(numbers, "the rule and the footer of psql"))
    return Source(source.name, data=data), notes


def _lines(source: Source, dialect: Dialect, packing: str) -> io.TextIOWrapper:
    """Open a text by lines, with their ends."""
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    file = opened(source, packing)
    return io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")


def _quote_notes(source: Source, dialect: Dialect, packing: str) -> list[Note]:
    """Look at the quotes of a whole file (see `check_quotes`)."""
    width = len(dialect.names)
    try:
        with _lines(source, dialect, packing) as lines:
            return check_quotes(
                lines,
                dialect.delimiter,
                width,
                source.name,
                is_spaced=dialect.is_spaced,
            )
    except _UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        return []  # the error that Arrow met says more


def _no_rows(name: str) -> DataError:
    return DataError(
        "The file has a header and no rows.",
        name,
        "Write one row per prediction under the header.",
    )


def _inspect_text(source: Source, packing: str) -> tuple[Dialect, bytes, float]:
    """Return how the text is written, its first lines, and their share of the file."""
    try:
        with Stream(source, packing) as stream:
            buffered = io.BufferedReader(stream, _HEAD)
            head = buffered.read(_HEAD)
            share = stream.fraction()  # before anything is read ahead
            is_whole = not buffered.peek(1)
            share = 1.0 if is_whole else share
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(source.name, f"{packing} file", error) from None
    if packing:
        sources.recognise(source, head)
    text, encoding = decode_start(head, is_whole=is_whole)
    if not text and head:
        raise DataError(
            f"The first {_HEAD >> 20} MiB hold no line end: this is not a table.",
            source.name,
            "Write one row per line.",
        )
    if not text.strip("\ufeff \t\r\n"):
        raise DataError(
            "The file is empty.",
            source.name,
            "Give a file with a header and one row per prediction.",
        )
    dialect = find_dialect(text.removeprefix("\ufeff"), encoding, source.name)
    return dialect, text.encode("utf-8"), share


def _column_types(head: bytes, dialect: Dialect) -> dict[str, Any]:
    """Return types seen in the first block; text stays as it was written.

    Dates and codes with leading zeros stay text, so that the user's own file comes
    back as it was.
    """
    seen = pyarrow.csv.read_csv(pa.py_buffer(head), **arrow_options(dialect, {}))
    start = head[: 1 << 16].rpartition(b"\n")[0] + b"\n"
    has_codes = re.search(rb"(?:\A|[\s,;\"])0\d", start) is not None
    codes = NAMES["id"] + NAMES["group"]
    types = {}
    for field in seen.schema:
        kind = pa.string()
        if pa.types.is_floating(field.type) and plain(field.name) not in codes:
            kind = field.type
        if pa.types.is_integer(field.type):
            kind = field.type
        types[field.name] = kind
    if has_codes:
        every = dict.fromkeys(dialect.names, pa.string())
        as_text = pyarrow.csv.read_csv(
            pa.py_buffer(start), **arrow_options(dialect, every)
        )
        for name in types:
            coded = pc.match_substring_regex(as_text[name], r"^\s*0\d")
            if pc.any(coded).as_py() and pa.types.is_integer(types[name]):
                types[name] = pa.string()
    return types


def _read_blocks(
    source: Source,
    dialect: Dialect,
    types: dict[str, Any],
    report: Callable[[int, float], None],
    packing: str,
) -> tuple[Any, Dialect]:
    """Read block by block; when a later block shows other types, read again."""
    for n_tries in itertools.count(1):
        try:
            return read_rows(source, dialect, types, packing, report), dialect
        except pa.ArrowInvalid as error:
            if "invalid UTF8" in str(error) and dialect.encoding == "utf-8":
                dialect = replace(dialect, encoding="cp1252")
                continue
            # One thread knows the row, several do not.
            known = r"CSV column #(\d+): (?:Row #\d+: )?CSV conversion error"
            found = re.search(known, str(error))
            if found is None or types[dialect.names[int(found[1])]] == pa.string():
                raise
            types = _widened(types, dialect.names[int(found[1])], n_tries)
    raise AssertionError  # the loop above has no other end


def _narrowed(types: dict[str, Any]) -> dict[str, Any]:
    """Return float32 for decimals that may be scores, as huge files are kept."""
    named = {word for words in NAMES.values() for word in words}
    return {
        name: pa.float32()
        if kind == pa.float64() and plain(name) not in named
        else kind
        for name, kind in types.items()
    }


def _widened(types: dict[str, Any], name: str, n_tries: int) -> dict[str, Any]:
    """Return types that hold more: decimals, then text; after some tries all text."""
    if n_tries > _MOST_TRIES:
        return dict.fromkeys(types, pa.string())
    is_code = plain(name) in NAMES["id"] + NAMES["group"]
    is_whole = pa.types.is_integer(types[name]) and not is_code
    return types | {name: pa.float64() if is_whole else pa.string()}


def _text_error(name: str, error: BaseException, dialect: Dialect) -> DataError:
    text = shortened(error)
    ragged = re.search(
        r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", str(error)
    )
    if ragged is None:
        return damaged(name, "table", error)
    n_above = dialect.n_above + dialect.n_header  # which Arrow counts too
    row = int(ragged[1]) - n_above if ragged[1] else 0
    fix = (
        "Give every row the same number of cells; quote text that holds the "
        f"delimiter {dialect.delimiter!r}"
    )
    if int(ragged[3]) == int(ragged[2]) + 1:
        fix += (
            "; leave out row names (in R: row.names = FALSE) and a delimiter at the "
            "end of a row"
        )
    elif row == 1:
        fix += "; remove comments and other lines above the header"
    others = "other rows" if dialect.beyond else "the header"
    content = text.partition(f"got {ragged[3]}: ")[2]
    return DataError(
        f"A row has {ragged[3]} cells, {others} {ragged[2]}"
        + (f": {content}" if content else "")
        + ".",
        name + (f", row {row}" if row else ""),
        f"{fix}.",
    )


def _with_row(source: Source, dialect: Dialect, packing: str) -> BaseException | None:
    """Return the error of a ragged row once more, from one thread, which counts."""
    options = arrow_options(dialect, dict.fromkeys(dialect.names, pa.string()))
    options["read_options"].use_threads = False
    try:
        for _ in batches_of(source, dialect, packing, options):
            pass
    except _UNREADABLE as error:
        return error
    return None
