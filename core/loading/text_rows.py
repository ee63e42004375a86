"""Rows of delimited text through Arrow: from a stream, or in parts on all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from core.loading.dialect import Dialect
from core.loading.sources import Source, check_size
from core.loading.streams import ArrowStream
from core.parallel import map_rows

__all__ = ["IN_PARTS_FROM", "arrow_options", "batches_of", "read_rows"]

_BLOCK = 1 << 21
_TOGETHER = 1 << 24  # bytes of rows that become one piece of each column
# Bytes of a file that a thread reads at once: of 4 to 32 MiB as fast as any.
_PART = 1 << 23
IN_PARTS_FROM = 2 * _PART  # bytes of a text that is read on all threads


def arrow_options(dialect: Dialect, types: dict[str, Any]) -> dict[str, Any]:
    """Return the options of Arrow, which gets every text as UTF-8."""
    return {
        "read_options": pyarrow.csv.ReadOptions(
            column_names=list(dialect.names),
            skip_rows=dialect.n_above,
            skip_rows_after_names=dialect.n_header,
            block_size=max(_BLOCK, 4 * dialect.longest_line),
        ),
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=dialect.has_quotes
        ),
        # Empty cells are missing; "NA" stays text, because it may name a class.
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            decimal_point=dialect.decimal,
            true_values=[],
            false_values=[],
        ),
    }


def read_rows(
    source: Source,
    dialect: Dialect,
    types: dict[str, Any],
    packing: str,
    report: Callable[[int, float], None],
) -> Any:
    """Return the rows of a text as a table; `report` is told rows and share read."""
    if not packing and dialect.encoding == "utf-8" and source.size > IN_PARTS_FROM:
        try:
            return _in_parts(source, dialect, types, report)
        except _QuotedError:
            pass
        except pa.ArrowInvalid as error:
            # Which column needs another type is all that is to be known of it.
            if "conversion error" in str(error) and "UTF8" not in str(error):
                raise
            # A part does not know the number of its row, as the stream does.
    return _streamed(source, dialect, types, packing, report)


class _QuotedError(Exception):
    """A quote below the header: a line may end within a cell."""


def _in_parts(
    source: Source,
    dialect: Dialect,
    types: dict[str, Any],
    report: Callable[[int, float], None],
) -> Any:
    """Read the lines that begin in each stretch of a file, on all threads."""
    asking = threading.get_ident()
    done: list[tuple[int, int, int]] = []  # rows, bytes in memory, bytes of the file

    def read(start: int, stop: int) -> Any:
        with source.open() as file:
            first, last = _line_start(file, start), _line_start(file, stop)
            file.seek(first)
            text = file.read(last - first)
        n_above = dialect.n_above + dialect.n_header if first == 0 else 0
        if b'"' in _below(text, n_above):
            raise _QuotedError
        if not text.strip(b"\r\n"):
            return None
        options = arrow_options(dialect, types)
        options["read_options"].use_threads = False
        options["read_options"].block_size = max(_BLOCK, len(text) + 1)
        if first > 0:
            options["read_options"].skip_rows = 0
            options["read_options"].skip_rows_after_names = 0
        table = pyarrow.csv.read_csv(pa.BufferReader(text), **options)
        done.append((table.num_rows, table.nbytes, stop - start))
        n_rows, n_bytes, n_read = map(sum, zip(*done, strict=True))
        check_size(n_bytes, source.name, 1)
        if threading.get_ident() == asking:
            report(n_rows, n_read / source.size)
        return table

    tables = map_rows(read, source.size, 1, chunk_bytes=_PART)
    return pa.concat_tables([table for table in tables if table is not None])


def _line_start(file: BinaryIO, place: int) -> int:
    """Return where the first line begins that begins at `place` or later."""
    if place > 0:
        file.seek(place - 1)
        file.readline()
    return file.tell()


def _below(text: bytes, n_lines: int) -> bytes:
    """Return a text without its first lines."""
    for _ in range(n_lines):
        text = text.partition(b"\n")[2]
    return text


def _streamed(
    source: Source,
    dialect: Dialect,
    types: dict[str, Any],
    packing: str,
    report: Callable[[int, float], None],
) -> Any:
    """Read a text from its begin, on one thread, which counts the rows."""
    pieces: list[Any] = []
    batches: list[Any] = []
    n_bytes = n_rows = 0
    options = arrow_options(dialect, types)
    for batch, share in batches_of(source, dialect, packing, options):
        batches.append(batch)
        n_bytes += batch.nbytes
        if n_bytes > _TOGETHER:
            pieces.append(_piece(batches))
            batches, n_bytes = [], 0
        n_rows += batch.num_rows
        report(n_rows, share)
    return pa.concat_tables([*pieces, _piece(batches)] if batches else pieces)


def batches_of(
    source: Source, dialect: Dialect, packing: str, options: dict[str, Any]
) -> Iterator[tuple[Any, float]]:
    """Yield rows and the share of the file that was read."""
    stream = ArrowStream(source, packing, dialect.encoding)
    reader = pyarrow.csv.open_csv(stream.file, **options)
    yield pa.RecordBatch.from_pylist([], reader.schema), 0.0
    n_bytes = 0
    for batch in reader:
        n_bytes += batch.nbytes
        check_size(n_bytes, source.name, 1)
        yield batch, stream.fraction()


def _piece(batches: list[Any]) -> Any:
    """Return batches as one table: many short pieces of columns take much memory."""
    return pa.Table.from_batches(batches).combine_chunks()
