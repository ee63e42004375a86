"""Tables: CSV with comma, tab or semicolon (also .gz), and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from core.loading import sources
from core.loading.names import NAMES, parse_score_name, plain
from core.loading.sources import Raw, Source, check_size, damaged, shortened
from core.loading.values import as_numbers
from core.messages import DataError, Note, Progress

__all__ = ["MISSING", "read_parquet", "read_text"]

MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "none", "?", "-")
"""Cells that mean "no value" in a column of numbers, in lower case."""

_HEAD = 4 << 20
_MOST_TRIES = 4
_DELIMITERS = {",": "csv", "\t": "tsv", ";": "csv"}
_KNOWN = {name for role, names in NAMES.items() if "head" not in role for name in names}
_UNREADABLE = (pa.ArrowException, OSError, EOFError, ValueError, zlib.error)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a text file is written."""

    delimiter: str
    encoding: str
    names: tuple[str, ...]
    has_header: bool
    has_quotes: bool
    longest_line: int
    n_blank: int


class _Stream(io.RawIOBase):
    """Unpack on the way if need be, count what was read, stop at the limit."""

    def __init__(self, source: Source, *, is_packed: bool) -> None:
        super().__init__()
        self._name = source.name
        self._size = max(1, source.size)
        self._file = source.open()
        self._is_packed = is_packed
        self._plain: BinaryIO | gzip.GzipFile = (
            gzip.GzipFile(fileobj=self._file) if is_packed else self._file
        )
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._plain.read(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        if self._is_packed:
            check_size(self._count, self._name, 1)
        return len(data)

    def fraction(self) -> float:
        """Share of the file that was read."""
        return min(1.0, self._file.tell() / self._size)

    def close(self) -> None:
        self._file.close()
        super().close()


def read_text(source: Source, *, is_packed: bool, progress: Progress) -> Raw:
    """Read delimited text; what cannot be read raises DataError."""
    layout, head, share = _inspect_text(source, is_packed=is_packed)
    n_lines = max(1, head.count(b"\n")) / share
    check_size(n_lines * len(layout.names), source.name)
    if layout.has_header and not re.search(rb"[\r\n]", head.strip()):
        raise _no_rows(source.name)  # without a line end Arrow sees half a row
    try:
        types = _column_types(head, layout)
        table, layout = _read_blocks(
            source, layout, types, progress, is_packed=is_packed
        )
    except _UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        if "Expected" in str(error) and "Row #" not in str(error):
            error = _with_row(source, layout, is_packed=is_packed) or error
        raise _text_error(source.name, error, layout) from None
    if table.num_rows == 0:
        raise _no_rows(source.name)
    raw = Raw(
        name=source.name,
        format=_DELIMITERS[layout.delimiter] + (".gz" if is_packed else ""),
        table=_settled(table),
        n_rows=table.num_rows,
        delimiter=layout.delimiter,
        has_header=layout.has_header,
    )
    if layout.encoding != "utf-8":
        text = "The file is not UTF-8; it was read as Latin-1 (check accents in names)."
        raw.notes.append(Note("latin-1", "info", text))
    return raw


def _no_rows(name: str) -> DataError:
    return DataError(
        "The file has a header and no rows.",
        name,
        "Write one row per prediction under the header.",
    )


def _inspect_text(source: Source, *, is_packed: bool) -> tuple[_Layout, bytes, float]:
    """Return how the text is written, its first lines, and their share of the file."""
    try:
        with _Stream(source, is_packed=is_packed) as stream:
            buffered = io.BufferedReader(stream, _HEAD)
            head = buffered.read(_HEAD)
            is_whole = not buffered.peek(1)
            share = 1.0 if is_whole else stream.fraction()
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(source.name, "gzip file", error) from None
    if is_packed:
        sources.recognise(source, head)
    if not is_whole:
        end = head.rfind(b"\n") + 1
        if end == 0:
            raise DataError(
                f"The first {_HEAD >> 20} MiB hold no line end: this is not a table.",
                source.name,
                "Write one row per line.",
            )
        head = head[:end]
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(
            "The file is empty.",
            source.name,
            "Give a file with a header and one row per prediction.",
        )
    return _layout(head, source.name), head, share


def _layout(head: bytes, name: str) -> _Layout:
    encoding = "utf-8"
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = "latin-1"
        text = head.decode("latin-1")
    delimiter, rows = _delimiter(text, name)
    has_header = _is_header(rows)
    first = rows[0]
    names = (
        _clean_names(first, name)
        if has_header
        else tuple(f"column {i + 1}" for i in range(len(first)))
    )
    longest = max(map(len, head.split(b"\n")))
    blank = text[: len(text) - len(text.lstrip())]
    n_blank = len(re.findall(r"\r\n|\r|\n", blank))
    return _Layout(
        delimiter, encoding, names, has_header, b'"' in head, longest, n_blank
    )


def _delimiter(text: str, name: str) -> tuple[str, list[list[str]]]:
    """Return the delimiter that cuts the first lines into most columns, and those."""
    best: tuple[float, str, list[list[str]]] = (0.0, ",", [])
    refused = csv.Error("it holds no cells")
    for delimiter in _DELIMITERS:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            rows = [
                row for row in itertools.islice(lines, 51) if any(map(str.strip, row))
            ]
        except csv.Error as error:  # a cell of 128 KiB: not cut at all
            refused = error
            continue
        if not rows:
            continue
        width = len(rows[0])
        is_even = sum(len(row) == width for row in rows) >= 0.8 * len(rows)
        score = width if is_even else width / 2
        if score > best[0]:
            best = (score, delimiter, rows)
    if not best[2]:
        raise damaged(name, "table", refused)
    return best[1], best[2]


def _is_header(rows: list[list[str]]) -> bool:
    first = rows[0]
    numeric = [cell.strip() for cell in first if _is_number(cell)]
    others = [cell for cell in first if not _is_number(cell) and cell.strip()]
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
        not _is_number(name) and _is_number(cell)
        for row in rows[1:2]
        for name, cell in zip(first, row, strict=False)
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in MISSING[1:]
    return "_" not in cell


def _is_whole(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d+\s*", cell) is not None


def _clean_names(cells: list[str], where: str) -> tuple[str, ...]:
    names = [
        " ".join(cell.split()) or f"unnamed {i + 1}" for i, cell in enumerate(cells)
    ]
    check_names(names, where)
    return tuple(names)


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


def _options(layout: _Layout, types: dict[str, Any]) -> dict[str, Any]:
    return {
        "read_options": pyarrow.csv.ReadOptions(
            column_names=list(layout.names),
            skip_rows=layout.n_blank,
            skip_rows_after_names=int(layout.has_header),
            encoding="utf8" if layout.encoding == "utf-8" else "latin-1",
            block_size=max(1 << 20, 4 * layout.longest_line),
        ),
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=layout.delimiter, newlines_in_values=layout.has_quotes
        ),
        # Empty cells are missing; "NA" stays text, because it may name a class.
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            true_values=[],
            false_values=[],
        ),
    }


def _column_types(head: bytes, layout: _Layout) -> dict[str, Any]:
    """Return types seen in the first block; text stays as it was written.

    Dates and codes with leading zeros stay text, so that the user's own file comes
    back as it was.
    """
    seen = pyarrow.csv.read_csv(io.BytesIO(head), **_options(layout, {}))
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
        as_text = pyarrow.csv.read_csv(
            io.BytesIO(start),
            **_options(layout, dict.fromkeys(layout.names, pa.string())),
        )
        for name in types:
            coded = pc.match_substring_regex(as_text[name], r"^\s*0\d")
            if pc.any(coded).as_py() and pa.types.is_integer(types[name]):
                types[name] = pa.string()
    return types


def _read_blocks(
    source: Source,
    layout: _Layout,
    types: dict[str, Any],
    progress: Progress,
    *,
    is_packed: bool,
) -> tuple[Any, _Layout]:
    """Read block by block; when a later block shows other types, read again."""
    for n_tries in itertools.count(1):
        options = _options(layout, types)
        try:
            with _Stream(source, is_packed=is_packed) as stream:
                reader = pyarrow.csv.open_csv(stream, **options)
                batches = []
                for batch in reader:
                    batches.append(batch)
                    progress(0.8 * stream.fraction(), "Reading")
                return pa.Table.from_batches(batches, reader.schema), layout
        except pa.ArrowInvalid as error:
            if "invalid UTF8" in str(error) and layout.encoding == "utf-8":
                layout = replace(layout, encoding="latin-1")
                continue
            # One thread knows the row, several do not.
            known = r"CSV column #(\d+): (?:Row #\d+: )?CSV conversion error"
            found = re.search(known, str(error))
            if found is None or types[layout.names[int(found[1])]] == pa.string():
                raise
            types = _widened(types, layout.names[int(found[1])], n_tries)
    raise AssertionError  # the loop above has no other end


def _widened(types: dict[str, Any], name: str, n_tries: int) -> dict[str, Any]:
    """Return types that hold more: decimals, then text; after some tries all text."""
    if n_tries > _MOST_TRIES:
        return dict.fromkeys(types, pa.string())
    is_code = plain(name) in NAMES["id"] + NAMES["group"]
    is_whole = pa.types.is_integer(types[name]) and not is_code
    return types | {name: pa.float64() if is_whole else pa.string()}


def _settled(table: Any) -> Any:
    """Turn text columns that hold nothing but numbers and gaps into numbers."""
    for i, field in enumerate(table.schema):
        if not pa.types.is_string(field.type):
            continue
        column = table.column(i)
        if not _looks_numeric(column.slice(0, 1000)):
            continue
        text = column.to_pandas().str.strip()
        numbers = as_numbers(text)
        gaps = text.isna() | text.str.lower().isin(MISSING)
        is_coded = text.str.match(r"0\d").fillna(value=False).any()
        if bool((~np.isnan(numbers) | gaps).all()) and not is_coded:
            ready = pa.array(numbers, from_pandas=True)
            table = table.set_column(i, field.name, ready)
    return table


def _looks_numeric(column: Any) -> bool:
    cells: Iterable[str | None] = column.to_pylist()
    given = [cell for cell in cells if cell and cell.strip().lower() not in MISSING]
    return bool(given) and all(map(_is_number, given))


def _text_error(name: str, error: BaseException, layout: _Layout) -> DataError:
    text = shortened(error)
    ragged = re.search(
        r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", str(error)
    )
    if ragged is None:
        return damaged(name, "table", error)
    row = int(ragged[1]) - layout.has_header if ragged[1] else 0
    content = text.partition(f"got {ragged[3]}: ")[2]
    return DataError(
        f"A row has {ragged[3]} cells, the header {ragged[2]}"
        + (f": {content}" if content else "")
        + ".",
        name + (f", row {row}" if row else ""),
        "Give every row the same number of cells; quote text that holds the "
        f"delimiter {layout.delimiter!r}.",
    )


def _with_row(
    source: Source, layout: _Layout, *, is_packed: bool
) -> BaseException | None:
    """Return the error of a ragged row once more, from one thread, which counts."""
    options = _options(layout, dict.fromkeys(layout.names, pa.string()))
    options["read_options"].use_threads = False
    try:
        with _Stream(source, is_packed=is_packed) as stream:
            for _ in pyarrow.csv.open_csv(stream, **options):
                pass
    except _UNREADABLE as error:
        return error
    return None


def read_parquet(source: Source, progress: Progress) -> Raw:
    """Read a Parquet file in blocks of rows."""
    try:
        with source.open() as opened, pyarrow.parquet.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            check_names(names, source.name)
            n_rows = file.metadata.num_rows
            check_size(n_rows * file.metadata.num_columns, source.name)
            batches = []
            n_read = 0
            for batch in file.iter_batches():
                batches.append(batch)
                n_read += batch.num_rows
                progress(0.8 * n_read / max(1, n_rows), "Reading")
            table = pa.Table.from_batches(batches, file.schema_arrow)
            table = _simple_columns(table.replace_schema_metadata(None))
    except DataError:
        raise
    except _UNREADABLE as error:
        raise damaged(source.name, "Parquet file", error) from None
    if table.num_rows == 0:
        raise DataError(
            "The table has no rows.", source.name, "Write one row per prediction."
        )
    return Raw(source.name, "parquet", _settled(table), table.num_rows)


def _simple_columns(table: Any) -> Any:
    """Return every column as numbers, times or text."""
    columns = [_simple(table.column(i)) for i in range(table.num_columns)]
    return pa.table(columns, names=table.column_names)


def _simple(column: Any) -> Any:
    """Return dictionaries, decimals, dates and nested values in a plainer type."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    is_plain = (
        pa.types.is_integer(kind)
        or pa.types.is_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_timestamp(kind)
        or kind in (pa.float32(), pa.float64())
    )
    if is_plain:
        return column
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return column.cast(pa.float64())
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("ms"))
    if pa.types.is_null(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    texts = [None if value is None else str(value) for value in column.to_pylist()]
    return pa.array(texts, pa.string())
