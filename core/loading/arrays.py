"""NumPy files: NPZ and NPY, never with pickled objects in them."""

from __future__ import annotations

import zipfile
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.loading.names import ARRAY_LABELS, ARRAY_SCORES, NAMES, plain
from core.loading.sources import Raw, Source, check_size, damaged
from core.messages import DataError, Note, Progress

__all__ = ["read_arrays"]

_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError),
    *(NotImplementedError, RuntimeError, KeyError, MemoryError, SyntaxError),
)
_LONGEST_HEADER = 1 << 14
# Not one value per row, even where there are as many rows as classes.
_NOT_ROWS = {*NAMES["classes"], *NAMES["head_weight"], *NAMES["head_bias"]}


def read_arrays(source: Source, kind: str, progress: Progress) -> Raw:
    """Read every array of an NPZ, or the one array of an NPY file."""
    try:
        found = (
            {"scores": _read_npy(source)}
            if kind == "npy"
            else _read_npz(source, progress)
        )
    except DataError:
        raise
    except _UNREADABLE as error:
        raise damaged(source.name, f"{kind.upper()} file", error) from None
    return _as_raw(source.name, kind, found)


def _read_npy(source: Source) -> NDArray[Any]:
    with source.open() as file:
        _check_header(file, source.name, "the array", source.size)
        file.seek(0)
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _read_npz(source: Source, progress: Progress) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    with source.open() as file, zipfile.ZipFile(file) as archive:
        members = [i for i in archive.infolist() if i.filename.endswith(".npy")]
        total = sum(member.file_size for member in members)
        check_size(total, source.name, 1)
        done = 0
        for member in members:
            key = member.filename.removesuffix(".npy")
            if key in found:
                raise DataError(
                    f"Two arrays are called {key!r}.",
                    f"{source.name}, array {key}",
                    "Give every array a name of its own.",
                )
            with archive.open(member) as packed:
                _check_header(packed, source.name, key, member.file_size)
            with archive.open(member) as packed:
                found[key] = np.lib.format.read_array(packed, allow_pickle=False)
            done += member.file_size
            progress(0.8 * done / max(1, total), f"Reading {key}")
    return found


def _check_header(file: Any, name: str, key: str, n_bytes: int) -> None:
    """Refuse objects and shapes that the bytes cannot fill, before any is read."""
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file, max_header_size=_LONGEST_HEADER)
    where = f"{name}, array {key}"
    if dtype.hasobject:
        raise DataError(
            "The array holds Python objects, which are pickles inside the file; it "
            "was not opened.",
            where,
            "Save numbers with a numeric type and text with array.astype(str).",
        )
    if dtype.kind not in "fiubUSM":
        raise DataError(
            f"The array has the type {dtype}.", where, "Save numbers or text."
        )
    needed = float(dtype.itemsize)
    for length in shape:
        needed *= length
    check_size(needed, where, 1)
    if needed > n_bytes:
        raise DataError(
            f"The array is cut off: {needed:,.0f} bytes were announced, "
            f"{n_bytes:,} are there.",
            where,
            "Write or upload the file again.",
        )


def _as_raw(name: str, kind: str, found: dict[str, NDArray[Any]]) -> Raw:
    arrays = {key: _squeezed(_native(array)) for key, array in found.items()}
    n_rows = _n_rows(arrays)
    if n_rows == 0:
        raise DataError(
            "The file holds no rows of numbers; its arrays are "
            + (", ".join(f"{k} {a.shape}" for k, a in arrays.items()) or "none")
            + ".",
            name,
            "Save logits of shape (rows, classes) and labels of shape (rows,).",
        )
    columns: dict[str, Any] = {}
    others: dict[str, NDArray[Any]] = {}
    notes = []
    for key, array in arrays.items():
        if plain(key) in ARRAY_LABELS:
            array = _checked_labels(array, n_rows, f"{name}, array {key}")
        is_column = array.ndim == 1 and len(array) == n_rows
        if is_column and plain(key) not in _NOT_ROWS:
            columns[key] = _arrow(array, f"{name}, array {key}")
        else:
            others[key] = array
    idle = [k for k, a in others.items() if a.ndim != 2 and plain(k) in ARRAY_SCORES]
    if idle:
        text = f"{idle[0]} has the shape {others[idle[0]].shape} and is not used."
        notes.append(Note("array-not-used", "warning", text))
    table = pa.table(columns) if columns else pa.table({})
    return Raw(name, kind, table, n_rows, others, notes=notes)


def _checked_labels(array: NDArray[Any], n_rows: int, where: str) -> NDArray[Any]:
    """Return one label per row, also from one column of 0 or 1 per class."""
    if array.ndim == 2 and len(array) == n_rows and array.dtype.kind in "biuf":
        is_one_hot = np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()
        if is_one_hot:
            return np.asarray(array.argmax(axis=1))
    if array.shape != (n_rows,):
        raise DataError(
            f"The labels have shape {array.shape}, the scores {n_rows:,} rows.",
            where,
            "Save one label per row of the scores.",
        )
    return array


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Return float32 or float64 in the machine's byte order; text as str."""
    if array.dtype.kind == "f":
        wanted = np.float32 if array.dtype.itemsize <= 4 else np.float64
        return array.astype(wanted, copy=False)
    if array.dtype.kind == "S":
        return np.char.decode(array, "latin-1")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _squeezed(array: NDArray[Any]) -> NDArray[Any]:
    """Return (n, 1) as (n,)."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _n_rows(arrays: dict[str, NDArray[Any]]) -> int:
    """Return the length of the scores, of the labels, else of the longest array."""
    by_name = {plain(key): array for key, array in arrays.items() if array.ndim}
    for wanted in (*ARRAY_SCORES, *ARRAY_LABELS):
        if wanted in by_name and by_name[wanted].ndim <= 2:
            return len(by_name[wanted])
    tables = [array for array in arrays.values() if array.ndim == 2] or [
        array for array in arrays.values() if array.ndim == 1
    ]
    return max(map(len, tables), default=0)


def _arrow(array: NDArray[Any], where: str) -> Any:
    try:
        if array.dtype.kind == "M":
            array = np.datetime_as_string(array)
        return pa.array(array)
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise damaged(where, "array", error) from None
