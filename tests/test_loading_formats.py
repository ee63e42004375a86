"""Every container and encoding loads to the same arrays, in blocks, within limits."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
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

from core.loading import DataError, inspect_file, read_predictions
from core.loading import sources as sources_module
from core.messages import Cancelled

LOGITS = np.array([[1.5, -2.0, 0.25], [0.0, 3.5, -1.0], [2.0, 1.0, 4.5], [9.0, 0, 1]])
LABELS = np.array([0, 1, 2, 0])
TABLE = pd.DataFrame(LOGITS, columns=["logit_cat", "logit_dog", "logit_emü"]).assign(
    label=["cat", "dog", "emü", "cat"]
)
CLASSES = ("cat", "dog", "emü")


def text(**options: Any) -> str:
    return TABLE.to_csv(index=False, **options)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def arrow(kind: str, compression: str | None = None) -> bytes:
    table = pa.Table.from_pandas(TABLE, preserve_index=False)
    buffer = io.BytesIO()
    if kind == "stream":
        with pa.ipc.new_stream(buffer, table.schema) as writer:
            writer.write_table(table)
    else:
        pyarrow.feather.write_feather(table, buffer, compression=compression)
    return buffer.getvalue()


FILES: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "rows.csv.zst": (
        lambda: pa.compress(text().encode(), codec="zstd", asbytes=True),
        [],
    ),
    "rows.feather": (lambda: arrow("file", "lz4"), []),
    "plain.arrow": (lambda: arrow("file", "uncompressed"), []),
    "rows.arrows": (lambda: arrow("stream"), []),
    "bars.csv": (lambda: text(sep="|").encode(), ["delimiter"]),
    "spaces.txt": (lambda: text(sep=" ").encode(), []),
    "tabs.csv": (lambda: text(sep="\t").encode(), ["delimiter"]),
    "commas.tsv": (lambda: text().encode(), ["delimiter"]),
    "comma.csv": (
        lambda: text(sep=";", decimal=",").encode(),
        ["delimiter", "decimal-comma"],
    ),
    "quoted.csv": (lambda: text(decimal=",", quoting=1).encode(), ["decimal-comma"]),
    "utf16.csv": (lambda: text().encode("utf-16"), ["utf-16"]),
    "utf16be.csv": (lambda: ("\ufeff" + text()).encode("utf-16-be"), ["utf-16"]),
    "unmarked.csv": (lambda: text().encode("utf-16-le"), ["utf-16"]),
    "excel.csv": (
        lambda: text(sep="\t", decimal=",", lineterminator="\r\n").encode("utf-16"),
        ["delimiter", "decimal-comma", "utf-16"],
    ),
    "latin.csv": (lambda: text().encode("latin-1"), ["latin-1"]),
    "mixed.csv": (lambda: text().replace("\n", "\r\n", 2).encode(), []),
    "single.csv": (lambda: text(quoting=1, quotechar='"').encode(), []),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_rows_from_bytes_and_path(name: str, tmp_path: Path) -> None:
    make, codes = FILES[name]
    path = tmp_path / name
    path.write_bytes(make())
    for rows in (read_predictions(make(), name=name), read_predictions(path)):
        np.testing.assert_array_equal(rows.logits, LOGITS)
        np.testing.assert_array_equal(rows.labels, LABELS)
        assert rows.classes == CLASSES
        assert [note.code for note in rows.notes] == codes


def test_decimal_commas_beside_text_and_gaps() -> None:
    data = "logit_a;logit_b;age;note;label\n0,5;1,5;7,5;1,2,3;a\n-1,25;x;;b;b\n"
    rows = read_predictions(data.encode(), invalid_rows="leave-out")
    np.testing.assert_array_equal(rows.logits, [[0.5, 1.5]])
    assert rows.left_out["value"].tolist() == ["x"]
    assert rows.metadata["note"].tolist() == ["1,2,3"]
    assert rows.metadata["age"].tolist() == [7.5]


def test_headerless_decimal_commas() -> None:
    rows = read_predictions(b"0,25;0,75;1\n0,5;0,5;0\n")
    np.testing.assert_allclose(np.exp(rows.logits), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_array_equal(rows.labels, [1, 0])


def test_quoted_decimal_commas_beside_classes_that_look_missing() -> None:
    rows = [["0,5", "1,5", "NA"], ["-inf", "2,5", "NA"], ["0,25", "0,5", "b"]]
    lines = [["logit_NA", "logit_b", "label"], *rows]
    text = "\n".join(",".join(f'"{cell}"' for cell in line) for line in lines)
    found = read_predictions(text.encode())
    np.testing.assert_array_equal(
        found.logits, [[0.5, 1.5], [-np.inf, 2.5], [0.25, 0.5]]
    )
    assert found.classes == ("NA", "b")
    np.testing.assert_array_equal(found.labels, [0, 0, 1])


def test_savetxt(tmp_path: Path) -> None:
    path = tmp_path / "logits.txt"
    np.savetxt(path, np.c_[LOGITS, LABELS])
    rows = read_predictions(path)
    np.testing.assert_array_equal(rows.logits, LOGITS)
    np.testing.assert_array_equal(rows.labels, LABELS)


@pytest.mark.parametrize("from_path", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_safetensors(from_path: bool, dtype: Any, tmp_path: Path) -> None:
    found = {"logits": LOGITS.astype(dtype), "labels": LABELS[:, None]}
    data = safetensors.numpy.save(found)
    path = tmp_path / "rows.safetensors"
    path.write_bytes(data)
    rows = read_predictions(path if from_path else data)
    np.testing.assert_array_equal(rows.logits, LOGITS)
    np.testing.assert_array_equal(rows.labels, LABELS)
    assert inspect_file(path).format == "safetensors"


def test_safetensors_cut_off_or_of_a_strange_type(tmp_path: Path) -> None:
    data = safetensors.numpy.save({"logits": LOGITS})
    path = tmp_path / "rows.safetensors"
    for cut in (data[:-8], data[:40]):
        path.write_bytes(cut)
        for source in (cut, path):
            with pytest.raises(DataError, match="safetensors file is damaged"):
                read_predictions(source)
    brain = data.replace(b'"F64"', b'"U64"')
    assert len(read_predictions(brain)) == 4


def test_columns_of_lists_are_arrays() -> None:
    buffer = io.BytesIO()
    table = pa.table({"logits": LOGITS.tolist(), "label": LABELS, "id": list("abcd")})
    pyarrow.parquet.write_table(table, buffer)
    rows = read_predictions(buffer.getvalue())
    np.testing.assert_array_equal(rows.logits, LOGITS)
    np.testing.assert_array_equal(rows.labels, LABELS)
    assert rows.roles.id == "id"


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors", "parquet", "arrow"])
def test_progress_is_true_and_cancels(kind: str, tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(400_000, 10))
    path = tmp_path / f"rows.{kind}"
    frame = pd.DataFrame(table, columns=[f"logit_{i}" for i in range(10)])
    if kind == "npy":
        np.save(path, table)
    elif kind == "npz":
        np.savez(path, logits=table)
    elif kind == "safetensors":
        safetensors.numpy.save_file({"logits": table}, path)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        pyarrow.feather.write_feather(frame, path)
    seen: list[float] = []
    read_predictions(path, progress=lambda fraction, _: seen.append(fraction))
    assert seen == sorted(seen)
    reading = [x for x in seen if x < 0.8]
    assert len(reading) >= 2
    assert min(reading) < 0.5

    def stop(fraction: float, message: str) -> None:
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        read_predictions(path, progress=stop)


def test_long_text_of_few_values_counts_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pd.DataFrame({"logit_a": np.ones(2000), "logit_b": 0.0, "why": "x" * 500})
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    monkeypatch.setattr(sources_module, "MEMORY_LIMIT", 200_000)
    with pytest.raises(DataError, match="GiB"):
        read_predictions(buffer.getvalue())
    buffer = io.BytesIO()
    table[["logit_a", "logit_b"]].to_parquet(buffer)
    assert len(read_predictions(buffer.getvalue())) == 2000


def test_truncated_zstd_is_refused() -> None:
    data = pa.compress(text().encode() * 50, codec="zstd", asbytes=True)
    with pytest.raises(DataError, match="damaged"):
        read_predictions(data[:-12])


def test_packed_tables_of_another_kind_are_refused() -> None:
    for inner in (npz(logits=LOGITS), arrow("file", "lz4")):
        data = pa.compress(inner, codec="zstd", asbytes=True)
        with pytest.raises(DataError, match="compressed file holds another"):
            read_predictions(data)


@pytest.mark.parametrize("n_columns", range(2, 60, 3))
def test_safetensors_headers_are_not_taken_for_pickles(n_columns: int) -> None:
    found = {f"layer_{i}": np.ones((4, 1)) for i in range(n_columns)}
    data = safetensors.numpy.save(found | {"logits": LOGITS})
    assert len(read_predictions(data)) == 4


def test_feather_of_version_1_is_refused() -> None:
    with pytest.raises(DataError, match="version 1"):
        read_predictions(b"FEA1" + bytes(60))


JSON = TABLE.to_json(orient="records").encode()
SEEDS = [
    *(make() for make, _ in FILES.values()),
    *(JSON, TABLE.to_json(orient="split").encode(), TABLE.to_parquet()),
    *(safetensors.numpy.save({"logits": LOGITS}), npz(logits_val=LOGITS, y=LABELS)),
]


@pytest.mark.filterwarnings("ignore:Reading .*npy:UserWarning")
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_damaged_files_end_in_data_errors(seed: bytes, data: st.DataObject) -> None:
    content = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 4))] = data.draw(
            st.sampled_from([b"", b"\0", b"\xff", b",", b'"', b"\n", b"9", b"[", b"-"])
        )
    with contextlib.suppress(DataError):
        assert len(read_predictions(bytes(content), name="upload")) > 0


def test_an_arrow_file_with_wild_offsets_is_refused() -> None:
    data = bytearray(arrow("file", "uncompressed"))
    cells = b"catdog"
    place = data.find(cells)
    offsets = np.frombuffer(bytes(data[place - 64 : place]), np.int32)
    assert 3 in offsets
    at = place - 64 + 4 * int(np.flatnonzero(offsets == 3)[0])
    data[at : at + 4] = (2**30).to_bytes(4, "little")
    with pytest.raises(DataError, match="Arrow file is damaged"):
        read_predictions(bytes(data))
