"""Named arrays: NPZ, NPY and safetensors, never with pickled objects in them."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import PurePath
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from core.loading.array_layouts import raw_of_arrays
from core.loading.names import ARRAY_LABELS, ARRAY_SCORES, plain
from core.loading.sources import Raw, Source, check_size, damaged
from core.messages import DataError, Note, Progress

__all__ = ["read_arrays", "read_bag"]

Bag = dict[str, NDArray[Any]]

_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError),
    *(NotImplementedError, RuntimeError, KeyError, MemoryError, SyntaxError),
    *(safetensors.SafetensorError, TypeError, tokenize.TokenError),
)
_LONGEST_HEADER = 1 << 14
_BLOCK = 1 << 20


class _Counted:
    """A file whose every read reports the share of the whole that was read."""

    def __init__(
        self, file: Any, start: float, total: float, label: str, progress: Progress
    ) -> None:
        self._file = file
        self._done, self._total = start, max(1.0, total)
        self._label, self._progress = label, progress
        self._reported = 0.0

    def read(self, size: int = -1) -> bytes:
        """Read on, and report at most a hundred times."""
        data: bytes = self._file.read(size)
        self._done += len(data)
        share = self._done / self._total
        if share - self._reported >= 0.01:
            self._reported = share
            self._progress(0.8 * min(1.0, share), f"Reading {self._label}")
        return data


def read_arrays(source: Source, kind: str, progress: Progress) -> Raw:
    """Read a file of arrays as rows (see `core.loading.array_layouts`)."""
    bag, notes = read_bag(source, kind, progress)
    return raw_of_arrays(source.name, kind, bag, notes)


def read_bag(source: Source, kind: str, progress: Progress) -> tuple[Bag, list[Note]]:
    """Read every array of a file by name; the one of an NPY is called as the file."""
    notes: list[Note] = []
    try:
        if kind == "npy":
            found = _read_npy(source, progress)
        elif kind == "safetensors":
            found = _read_safetensors(source, progress)
        else:
            found = _read_npz(source, progress, notes)
    except DataError:
        raise
    except _UNREADABLE as error:
        what = kind if kind == "safetensors" else kind.upper()
        raise damaged(source.name, f"{what} file", error) from None
    return found, notes


def _read_npy(source: Source, progress: Progress) -> Bag:
    stem = PurePath(source.name).stem or "scores"
    with source.open() as file:
        _check_header(file, source.name, stem, source.size)
        file.seek(0)
        counted = _Counted(file, 0, source.size, stem, progress)
        return {stem: _read_array(counted)}


def _read_array(file: Any) -> NDArray[Any]:
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _read_npz(source: Source, progress: Progress, notes: list[Note]) -> Bag:
    found: Bag = {}
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
                if _is_idle_object(packed, key):
                    text = f"{key} holds Python objects and was not opened."
                    notes.append(Note("array-not-used", "info", text))
                    continue
            with archive.open(member) as packed:
                _check_header(packed, source.name, key, member.file_size)
            with archive.open(member) as packed:
                found[key] = _read_array(_Counted(packed, done, total, key, progress))
            done += member.file_size
    return found


def _is_idle_object(file: BinaryIO | Any, key: str) -> bool:
    """Whether an array is one Python object, such as the metrics of a trainer."""
    shape, dtype = _header(file)
    return bool(
        dtype.hasobject
        and shape == ()
        and plain(key) not in {*ARRAY_SCORES, *ARRAY_LABELS}
    )


def _read_safetensors(source: Source, progress: Progress) -> Bag:
    if source.path is None:
        check_size(source.size, source.name, 1)
        return dict(safetensors.numpy.load(source.data or b""))
    found: Bag = {}
    with safetensors.safe_open(source.path, framework="np") as file:
        keys = list(file.keys())
        check_size(source.size, source.name, 1)
        for number, key in enumerate(keys):
            part = file.get_slice(key)
            shape = part.get_shape()
            if not shape or part.get_dtype() == "BF16":
                found[key] = file.get_tensor(key)
                continue
            step = max(1, _BLOCK // max(1, int(np.prod(shape[1:]))))
            array = None
            for start in range(0, max(1, shape[0]), step):
                stop = min(start + step, shape[0])
                block = part[start:stop]
                if array is None:
                    array = np.empty(shape, dtype=block.dtype)
                array[start:stop] = block
                share = stop / max(1, shape[0])
                progress(0.8 * (number + share) / len(keys), f"Reading {key}")
            found[key] = np.empty(shape) if array is None else array
    return found


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file, max_header_size=_LONGEST_HEADER)
    return shape, dtype


def _check_header(file: Any, name: str, key: str, n_bytes: int) -> None:
    """Refuse objects and shapes that the bytes cannot fill, before any is read."""
    shape, dtype = _header(file)
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
