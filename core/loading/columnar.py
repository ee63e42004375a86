"""Columnar tables: Parquet, and Arrow files (Feather) and streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.loading.dialect import check_names, check_width
from core.loading.settled import settled
from core.loading.sources import Raw, Source, check_size, damaged
from core.messages import DataError, Progress

__all__ = ["raw_of_table", "read_arrow", "read_parquet"]

_UNREADABLE = (pa.ArrowException, OSError, EOFError, ValueError)
_ROWS = 1 << 14  # of a batch: a list in each may hold a thousand scores
_CELLS = 1 << 22  # of the columns of a row group that are read at once


def read_parquet(source: Source, progress: Progress) -> Raw:
    """Read a Parquet file in blocks of rows and columns."""
    try:
        with source.open() as opened:
            table = _read_parquet(opened, source.name, progress)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise damaged(source.name, "Parquet file", error) from None
    return raw_of_table(source.name, "parquet", table)


def _read_parquet(opened: Any, name: str, progress: Progress) -> Any:
    # It loads what reads remote file systems, which text and arrays do without.
    from pyarrow import parquet

    file = parquet.ParquetFile(opened)
    schema = file.schema_arrow
    _check_columns(schema.names, name)
    lengths = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    if min(lengths, default=0) < 0:
        msg = "a group has less than 0 rows"
        raise ValueError(msg)
    n_rows = max(file.metadata.num_rows, sum(lengths))
    check_size(n_rows * len(schema.names), name)
    # Text is kept as numbers of distinct values: a page of one long value may
    # stand for a million rows.
    texts = [item.name for item in schema if pa.types.is_string(item.type)]
    file = parquet.ParquetFile(opened, read_dictionary=texts)
    n_read, n_bytes = 0, 0
    columns: list[list[Any]] = [[] for _ in schema.names]
    for group, length in enumerate(lengths):
        # A reader holds pages of every column that it was asked for.
        step = max(1, _CELLS // max(1, length))
        for start in range(0, len(columns), step):
            wanted = schema.names[start : start + step]
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=wanted):
                own = batch.select(wanted)  # "a" brings the column "a.b" along
                n_read += own.num_rows * len(wanted)
                n_bytes += _unpacked(own)
                check_size(n_bytes, name, 1)
                for place, part in enumerate(own.columns, start):
                    columns[place].append(part)
                progress(0.8 * n_read / max(1, n_rows * len(columns)), "Reading")
    kinds = file.schema_arrow.types
    arrays = [pa.chunked_array(*item) for item in zip(columns, kinds, strict=True)]
    return pa.table(arrays, schema=file.schema_arrow)


def _unpacked(batch: Any) -> int:
    """Return the bytes of a batch with every dictionary written out."""
    total = 0
    for column in batch.columns:
        if not pa.types.is_dictionary(column.type):
            total += column.nbytes
            continue
        values = column.dictionary
        is_text = pa.types.is_string(values.type) or pa.types.is_large_string(
            values.type
        )
        if is_text and len(values):
            lengths = pc.binary_length(values).cast(pa.int64())
            total += pc.sum(pc.take(lengths, column.indices)).as_py() or 0
        total += 8 * len(column)
    return total


def read_arrow(source: Source, kind: str, progress: Progress) -> Raw:
    """Read an Arrow file (which Feather is) or an Arrow stream, batch by batch."""
    try:
        with source.open() as opened:
            table = _read_batches(opened, source, kind, progress)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise damaged(source.name, "Arrow file", error) from None
    return raw_of_table(source.name, "arrow", table)


def _read_batches(opened: Any, source: Source, kind: str, progress: Progress) -> Any:
    is_stream = kind == "arrow stream"
    reader = (pa.ipc.open_stream if is_stream else pa.ipc.open_file)(opened)
    _check_columns(reader.schema.names, source.name)
    n_bytes = 0
    batches = []
    for batch, share in _batches(reader, opened, source, is_stream=is_stream):
        # Offsets of a damaged file may point anywhere.
        batch.validate(full=True)
        n_bytes += _unpacked(batch)
        check_size(n_bytes, source.name, 1)
        batches.append(batch)
        progress(0.8 * min(1.0, share), "Reading")
    return pa.Table.from_batches(batches, reader.schema)


def _batches(
    reader: Any, opened: Any, source: Source, *, is_stream: bool
) -> Iterator[tuple[Any, float]]:
    """Yield each batch with the share of the file that was read."""
    if is_stream:
        for batch in reader:
            yield batch, opened.tell() / max(1, source.size)
        return
    n_batches = reader.num_record_batches
    for number in range(n_batches):
        yield reader.get_batch(number), (number + 1) / n_batches


def _check_columns(names: list[str], where: str) -> None:
    check_names(names, where)
    check_width(len(names), where)


def raw_of_table(name: str, kind: str, table: Any) -> Raw:
    """Return an Arrow table as rows, its columns in plain types."""
    if table.num_rows == 0:
        raise DataError("The table has no rows.", name, "Write one row per prediction.")
    names = [item or f"unnamed {i + 1}" for i, item in enumerate(table.column_names)]
    table = table.rename_columns(names)
    n_rows = table.num_rows
    try:
        arrays, table = _lists_apart(table)
        plain = _simple_columns(table.replace_schema_metadata(None))
    except _UNREADABLE as error:
        raise damaged(name, "table", error) from None
    return Raw(name, kind, settled(plain), n_rows, arrays)


def _lists_apart(table: Any) -> tuple[dict[str, Any], Any]:
    """Return columns of equally long lists of numbers as arrays, and the others."""
    arrays = {}
    for name in table.column_names:
        array = _as_matrix(table[name])
        if array is not None:
            arrays[name] = array
            table = table.drop_columns([name])
    return arrays, table


def _as_matrix(column: Any) -> Any:
    """Return a column of equally long lists of numbers as an array, else None."""
    kind = column.type
    is_list = (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    )
    if not is_list or column.null_count:
        return None
    inner = kind.value_type
    if not (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
        return None
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        return None
    wanted = np.dtype(inner.to_pandas_dtype())
    if wanted == np.float16:
        wanted = np.dtype(np.float32)
    matrix = np.empty((len(column), lengths[0]), dtype=wanted)
    start = 0
    for chunk in column.chunks:
        flat = chunk.flatten()
        if flat.null_count:
            return None
        stop = start + len(chunk)
        values = flat.to_numpy(zero_copy_only=False)
        matrix[start:stop] = values.reshape(len(chunk), -1)
        start = stop
    return matrix


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
    if pa.types.is_string_view(kind):
        return column.cast(pa.string())
    texts = [None if value is None else str(value) for value in column.to_pylist()]
    return pa.array(texts, pa.string())
