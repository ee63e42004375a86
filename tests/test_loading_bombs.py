"""Small files that announce or unpack to more than memory: refused, in plain words."""

from __future__ import annotations

import io
import json
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from core.loading import read_predictions, sources
from core.messages import DataError

ENOUGH = 400 << 20  # bytes of memory, for files that are mostly of some kilobytes
ROWS = 10


def safetensors(header: dict, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(shape: list[int], start: int, stop: int, kind: str = "F32") -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


def npz_that_lies() -> bytes:
    """Return an archive whose directory says 200 bytes of an array of 50 MB."""
    buffer = io.BytesIO()
    array = io.BytesIO()
    np.save(array, np.zeros((2_500_000, 5), dtype=np.float32))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logits.npy", array.getvalue())
    packed = bytearray(buffer.getvalue())
    place = packed.rfind(b"PK\x01\x02")
    packed[place + 24 : place + 28] = struct.pack("<I", 200)
    return bytes(packed)


def arrow(compression: str | None = None, n: int = ROWS) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"label": np.zeros(n, int), "logit_a": np.zeros(n)})
    table = table.append_column("logit_b", pa.array(np.ones(n)))
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def replaced(content: bytes, number: int) -> bytes:
    """Return a file in which a length of 64 bits has become 2 ** 40 everywhere."""
    old = struct.pack("<q", number)
    assert old in content
    return content.replace(old, struct.pack("<q", 2**40))


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink)
    return bytes(sink.getvalue())


def parquet_of_long_texts() -> bytes:
    """Return a million rows of one text of a million characters."""
    indices = pa.array(np.zeros(10**6, np.int32))
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 10**6]))
    return parquet(
        pa.table(
            {"label": texts, "logit_a": np.zeros(10**6), "logit_b": np.ones(10**6)}
        )
    )


BOMBS = {
    "npz, lying directory": ("a.npz", npz_that_lies()),
    "safetensors, offsets beyond the end": (
        "a.safetensors",
        safetensors({"logits": tensor([10**9, 1000], 0, 4 * 10**12)}, b"1234"),
    ),
    "safetensors, shape beyond the bytes": (
        "a.safetensors",
        safetensors({"logits": tensor([10**9, 1000], 0, 4)}, b"1234"),
    ),
    "safetensors, shape that overflows": (
        "a.safetensors",
        safetensors({"logits": tensor([2**32, 2**32], 0, 0, "F64")}),
    ),
    "safetensors, arrays over each other": (
        "a.safetensors",
        safetensors({n: tensor([25, 10], 0, 1000) for n in ("a", "b")}, bytes(1000)),
    ),
    "safetensors, header beyond the end": (
        "a.safetensors",
        struct.pack("<Q", 2**26) + b"{" + b" " * 100,
    ),
    "arrow, rows": ("a.arrow", replaced(arrow(), ROWS)),
    "arrow, buffers": ("a.arrow", replaced(arrow(), 8 * ROWS)),
    "arrow, unpacked length": (
        "a.arrow",
        replaced(arrow("zstd", 4_000_000), 8 * 4_000_000),
    ),
    "parquet, long texts": ("a.parquet", parquet_of_long_texts()),
}


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


@pytest.mark.parametrize("name", BOMBS)
def test_it_is_refused_and_takes_little_memory(name: str) -> None:
    file, content = BOMBS[name]
    is_linux = sys.platform == "linux"
    if is_linux:
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_predictions(content, name=file)
    assert file in caught.value.where
    assert caught.value.how_to_fix
    if is_linux:
        assert status("VmHWM") - before < ENOUGH


@pytest.mark.parametrize("is_plain_at_first", [False, True])
def test_packed_text_stops_at_the_limit(
    is_plain_at_first: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 30 << 20)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(b"label,logit_a,logit_b\n")
        if is_plain_at_first:  # what the first lines say of the size is wrong then
            rng = np.random.default_rng(0)
            for line in rng.normal(size=(120_000, 2)).tolist():
                packed.write(f"0,{line[0]!r},{line[1]!r}\n".encode())
        for _ in range(8):
            packed.write(b"0,1.5,2.5\n" * 1_000_000)
    with pytest.raises(DataError, match="would take about"):
        read_predictions(bytes(sink.getvalue()), name="a.csv.zst")


def test_a_group_of_rows_beyond_the_limit_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = parquet(pa.table({"label": [0] * 9000, "logit_a": [0.5] * 9000}))
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 100_000)
    with pytest.raises(DataError, match="would take about"):
        read_predictions(content, name="a.parquet")
