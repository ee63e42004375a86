"""Random valid files load to the arrays they were written from, in every format."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from core.loading import read_predictions

DELIMITERS = (",", ";", "\t", "|", " ")
# Words that stand for a missing value or a number elsewhere may name a class.
WORDS = ("NA", "None", "true", "FALSE", "null", "N/A", "e", "a,b", "5 %", 'so-"called"')
LETTERS = "abcxyzÄéßñü"


@dataclass(frozen=True)
class Rows:
    """What a file is written from, and what it must load to."""

    scores: Any
    labels: Any
    classes: tuple[str, ...]
    ids: tuple[str, ...]


def names(alphabet=LETTERS, words=WORDS):
    plain = st.text(alphabet, min_size=1, max_size=8)
    spaced = st.tuples(plain, plain).map(" ".join)
    return st.one_of(plain, spaced, st.sampled_from(words))


@st.composite
def any_rows(draw, dtype=np.float64, masked=True, scores=None):
    """Draw logits of any size, names of classes and ids with leading zeros."""
    n, k = draw(st.integers(3, 12)), draw(st.integers(2, 5))
    classes = draw(
        st.lists(names(), min_size=k, max_size=k, unique_by=lambda s: s.casefold())
    )
    width = 32 if dtype == np.float32 else 16 if dtype == np.float16 else 64
    number = st.floats(-100, 100, width=width) if scores is None else scores
    z = draw(st.lists(st.lists(number, min_size=k, max_size=k), min_size=n, max_size=n))
    z = np.array(z, dtype=dtype)
    if masked and draw(st.booleans()):
        z[draw(st.integers(0, n - 1)), draw(st.integers(0, k - 1))] = -np.inf
    labels = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    ids = draw(st.lists(st.integers(0, 999), min_size=n, max_size=n, unique=True))
    ids = tuple(f"{i:04d}" for i in ids)
    return Rows(z, np.array(labels), tuple(classes), ids)


def table_of(rows, dtype=None):
    scores = rows.scores if dtype is None else rows.scores.astype(dtype)
    table = pd.DataFrame(scores, columns=[f"logit_{name}" for name in rows.classes])
    table.insert(0, "id", rows.ids)
    return table.assign(label=[rows.classes[i] for i in rows.labels])


def check(found, rows, *, names=True, ids=True):
    """Assert that a file loads to what it was written from, to the last bit."""
    expected = rows.scores
    if expected.dtype == np.float16:
        expected = expected.astype(np.float64)
    assert found.input_kind == "logits"
    np.testing.assert_array_equal(found.logits, expected)
    np.testing.assert_array_equal(found.labels, rows.labels)
    if names:
        assert found.classes == rows.classes
    if ids:
        assert found.column("id").astype(str).tolist() == list(rows.ids)


# ------------------------------------------------------------------------ text


@dataclass(frozen=True)
class Writing:
    """How a text file is written."""

    delimiter: str
    decimal: str
    quoting: int
    line_end: str
    encoding: str
    packing: str
    digits: str


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


@st.composite
def writings(draw):
    delimiter = draw(st.sampled_from(DELIMITERS))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    is_open = delimiter != "," or quoting == csv.QUOTE_ALL
    return Writing(
        delimiter,
        draw(st.sampled_from([".", ","] if is_open else ["."])),
        quoting,
        draw(st.sampled_from(["\n", "\r\n"])),
        draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])),
        draw(st.sampled_from(["", "gz", "zst"])),
        draw(st.sampled_from(["", ".6f", ".17e", ".9g"])),
    )


def written(rows, how):
    """Return a text file, and the rows as its digits say them."""
    text, cells = io.StringIO(), []
    for row in rows.scores:
        said = [format(x, how.digits) if how.digits else repr(float(x)) for x in row]
        cells.append(said)
    writer = csv.writer(
        text,
        delimiter=how.delimiter,
        quoting=how.quoting,
        lineterminator=how.line_end,
    )
    writer.writerow(["id", *(f"logit_{name}" for name in rows.classes), "label"])
    for key, row, label in zip(rows.ids, cells, rows.labels, strict=True):
        numbers = [cell.replace(".", how.decimal) for cell in row]
        writer.writerow([key, *numbers, rows.classes[label]])
    data = text.getvalue().encode(how.encoding)
    if how.packing == "gz":
        data = gzip.compress(data)
    elif how.packing == "zst":
        data = zstd(data)
    scores = np.array([[float(cell) for cell in row] for row in cells])
    return data, Rows(scores, rows.labels, rows.classes, rows.ids)


def check_text(rows, how):
    data, expected = written(rows, how)
    suffix = f".{how.packing}" if how.packing else ""
    check(read_predictions(data, name=f"rows.csv{suffix}"), expected)


TEXT = {"rows": any_rows(), "how": writings()}


@given(**TEXT)
@settings(max_examples=120)
def test_text_loads_to_what_was_written(rows, how):
    check_text(rows, how)


@pytest.mark.slow
@given(**TEXT)
@settings(max_examples=6000, derandomize=False)
def test_text_loads_to_what_was_written_for_long(rows, how):
    check_text(rows, how)


# ------------------------------------------------------------------ typed tables


def parquet(table, compression="snappy"):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression=compression)
    return buffer.getvalue()


def feather(table, compression="lz4"):
    buffer = io.BytesIO()
    pyarrow.feather.write_feather(table, buffer, compression=compression)
    return buffer.getvalue()


def stream(table):
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


TABLES = {
    "parquet": parquet,
    "parquet, zstd": lambda table: parquet(table, "zstd"),
    "parquet, plain": lambda table: parquet(table, "none"),
    "feather": feather,
    "feather, plain": lambda table: feather(table, "uncompressed"),
    "arrow stream": stream,
}
LABEL_KINDS = ("text", "dictionary", "int8", "int64", "float64")


def check_table(rows, kind, label_kind, n_chunks):
    frame = table_of(rows)
    base = "auto" if label_kind in ("text", "dictionary") else "0"
    if label_kind == "dictionary":
        frame["label"] = frame["label"].astype("category")
    elif label_kind != "text":
        frame["label"] = rows.labels.astype(label_kind)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    size = -(-len(frame) // n_chunks)
    pieces = [table.slice(i, size) for i in range(0, len(frame), size)]
    data = TABLES[kind](pa.concat_tables(pieces))
    check(read_predictions(data, label_base=base), rows)


def draw_table(data, dtypes=(np.float64, np.float32, np.float16)):
    rows = data.draw(any_rows(data.draw(st.sampled_from(dtypes))))
    return rows, data.draw(st.sampled_from(LABEL_KINDS)), data.draw(st.integers(1, 3))


@pytest.mark.parametrize("kind", TABLES)
@given(data=st.data())
@settings(max_examples=15)
def test_tables_load_bit_for_bit(kind, data):
    rows, label_kind, n_chunks = draw_table(data)
    check_table(rows, kind, label_kind, n_chunks)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
@given(data=st.data())
@settings(max_examples=600, derandomize=False)
def test_tables_load_bit_for_bit_for_long(kind, data):
    rows, label_kind, n_chunks = draw_table(data)
    check_table(rows, kind, label_kind, n_chunks)


# ------------------------------------------------------------------------ arrays


def npz(arrays, *, is_packed=False):
    buffer = io.BytesIO()
    (np.savez_compressed if is_packed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def check_arrays(rows, kind, order, integers):
    scores = np.asarray(rows.scores, order=order)
    labels = rows.labels.astype(integers)
    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, scores)
        found = read_predictions(buffer.getvalue(), input_kind="logits")
        assert found.labels is None
        np.testing.assert_array_equal(found.logits, rows.scores)
        return
    arrays = {"logits": scores, "labels": labels}
    if kind == "safetensors":
        arrays["logits"] = np.ascontiguousarray(scores)
        data = safetensors.numpy.save(arrays)
        found = read_predictions(data, label_base="0")
        check(found, rows, names=False, ids=False)
        return
    arrays |= {"class_names": np.array(rows.classes), "id": np.array(rows.ids)}
    data = npz(arrays, is_packed=kind == "npz, packed")
    check(read_predictions(data, label_base="0"), rows)


ARRAYS = ("npz", "npz, packed", "npy", "safetensors")


def draw_arrays(data):
    rows = data.draw(
        any_rows(data.draw(st.sampled_from([np.float64, np.float32, np.float16])))
    )
    order = data.draw(st.sampled_from("CF"))
    return rows, order, data.draw(st.sampled_from(["int64", "int32", "uint8"]))


@pytest.mark.parametrize("kind", ARRAYS)
@given(data=st.data())
@settings(max_examples=20)
def test_arrays_load_bit_for_bit(kind, data):
    rows, order, integers = draw_arrays(data)
    check_arrays(rows, kind, order, integers)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARRAYS)
@given(data=st.data())
@settings(max_examples=800, derandomize=False)
def test_arrays_load_bit_for_bit_for_long(kind, data):
    rows, order, integers = draw_arrays(data)
    check_arrays(rows, kind, order, integers)


# -------------------------------------------------------------------------- JSON

JSON = ("records", "lines", "split", "lines, gz", "lines, zst")


def check_json(rows, kind):
    table = table_of(rows)
    form, _, packing = kind.partition(", ")
    cells = [dict(zip(table, row, strict=True)) for row in table.to_numpy().tolist()]
    if form == "lines":
        text = "".join(json.dumps(row) + "\n" for row in cells)
    elif form == "records":
        text = json.dumps(cells)
    else:
        text = json.dumps({"columns": list(table), "data": table.to_numpy().tolist()})
    data = text.encode()
    if packing:
        data = gzip.compress(data) if packing == "gz" else zstd(data)
    check(read_predictions(data), rows)


@pytest.mark.parametrize("kind", JSON)
@given(rows=any_rows(masked=False))
@settings(max_examples=15)
def test_json_loads_bit_for_bit(kind, rows):
    check_json(rows, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", JSON)
@given(rows=any_rows(masked=False))
@settings(max_examples=600, derandomize=False)
def test_json_loads_bit_for_bit_for_long(kind, rows):
    check_json(rows, kind)
