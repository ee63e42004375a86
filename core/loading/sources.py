"""Where a file comes from, what its first bytes say, and what is never opened."""

from __future__ import annotations

import codecs
import io
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.messages import DataError, Note

__all__ = [
    "ARRAY_FORMATS",
    "MEMORY_LIMIT",
    "Raw",
    "Source",
    "as_source",
    "check_size",
    "shortened",
]

MEMORY_LIMIT = 8 * 2**30
"""Bytes that the cells of one file may take in memory (8 per cell)."""

_PICKLE_NAMES = (
    *(".pkl", ".pickle", ".p", ".dill", ".joblib", ".sav"),
    *(".pt", ".pth", ".ckpt"),
)
# Protocol 0 is text: a container or a global right at the start, and what it is for.
_OLD_PICKLE = re.compile(
    rb"\A(?:\(?[dl]p\d+\n|\([dlt]p?\d*\n|c[\w.]+\n[\w.]+\n(?:p\d+\n|q\x00|\())"
)
_MAGIC = (
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x93NUMPY", "npy"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ", "xz archive"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x89HDF", "HDF5 file"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow stream"),
    (b"FEA1", "Feather file of version 1"),
    (b"version https://git-lfs", "Git LFS pointer"),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HOW = {
    "HDF5 file": "Save the arrays with numpy.savez, or the table as CSV or Parquet.",
    "Feather file of version 1": "Write it again as Feather 2, Parquet or CSV.",
    "Git LFS pointer": "Fetch the real file with `git lfs pull` and give that one.",
}
_JSON = re.compile(rb"\s*(?:\{\s*[\"}]|\[\s*[\[{\"\d])")
_ACCEPTED = (
    "Give a CSV or TSV (also .gz or .zst), a Parquet, Arrow, JSON, NPZ, NPY or "
    "safetensors file."
)
_PACKINGS = {"gzip", "zstd"}
_TABLES = {"parquet", "arrow", "arrow stream", "json"}
_ARRAYS = {"npy", "safetensors"}
ARRAY_FORMATS = _ARRAYS | {"npz"}
"""Formats of named arrays; the others are tables."""


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes of an upload or a path on this machine.

    Parameters
    ----------
    name : str
        Name to show; never used as a path.
    path : Path or None
        File on this machine.
    data : bytes or None
        The whole upload.
    """

    name: str
    path: Path | None = None
    data: bytes | None = None

    @property
    def size(self) -> int:
        """Number of bytes."""
        if self.path is None:
            return len(self.data or b"")
        return self.path.stat().st_size

    def open(self) -> BinaryIO:
        """Open the bytes for reading; a path that cannot be read raises DataError."""
        if self.path is None:
            return io.BytesIO(self.data or b"")
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DataError(
                f"The file cannot be read: {error.strerror}.",
                self.name,
                "Check the permissions of the file.",
            ) from None

    def head(self, n_bytes: int = 4096) -> bytes:
        """Return the first bytes."""
        with self.open() as file:
            return file.read(n_bytes)


@dataclass(slots=True)
class Raw:
    """A file as it was read, before anything in it has a role.

    Parameters
    ----------
    name, format : str
        Name to show and what the file is.
    table : pyarrow.Table
        Every column with one value per row.
    n_rows : int
        Rows of the file.
    arrays : dict of str to ndarray
        Arrays that are not one value per row (NPZ): scores, features, last layer.
    delimiter : str or None
        Only for text.
    has_header : bool
        Whether the first line names the columns.
    notes : list of Note
        Remarks made while reading.
    known : dict of str to (str, str)
        Roles that the layout of the file decides, with the evidence.
    read_share : float
        Share of the work that is done when the file is read; the rest is to put scores
        together and to check them.
    """

    name: str
    format: str
    table: Any
    n_rows: int
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    delimiter: str | None = None
    has_header: bool = True
    notes: list[Note] = field(default_factory=list)
    known: dict[str, tuple[str, str]] = field(default_factory=dict)
    read_share: float = 0.85

    @property
    def gathered_share(self) -> float:
        """Share of the work that is done when the scores are together."""
        return self.read_share + 2 / 3 * (1 - self.read_share)

    @property
    def is_table(self) -> bool:
        """Whether this was a table, not a file of named arrays."""
        return self.format not in ARRAY_FORMATS

    @property
    def names(self) -> list[str]:
        """Names of every column and array, in the order of the file."""
        return [*self.table.column_names, *self.arrays]

    def take_off(self, names: Iterable[str]) -> None:
        """Take columns off the table, all at once (Arrow copies it for each)."""
        taken = set(names)
        kept = [name for name in self.table.column_names if name not in taken]
        self.table = self.table.select(kept)

    def text(self, name: str) -> Any:
        """Return a column as pandas strings (see `as_text`)."""
        return as_text(self.table[name])

    def factorised(self, name: str) -> tuple[NDArray[np.int64], list[str | None]]:
        """Return a column as numbers of its distinct values, and those as text."""
        column = self.table[name].combine_chunks().dictionary_encode()
        values = as_text(pa.chunked_array([column.dictionary]))
        texts = [None if missing else str(v) for v, missing in _with_gaps(values)]
        indices = column.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
        return indices.astype(np.int64), [*texts, None]

    def distinct(self, name: str) -> list[str]:
        """Return the distinct values of a column as text, missing ones left out."""
        values = as_text(pa.chunked_array([self.table[name].unique()]))
        return [str(value) for value in values.dropna().unique()]


def _with_gaps(values: Any) -> Any:
    return zip(values, values.isna(), strict=True)


def as_text(column: Any) -> Any:
    """Return an Arrow column as pandas strings, whole floats as whole numbers.

    Missing values stay missing; 3.0 becomes "3", so that labels written by different
    programs compare equal.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        series = column.to_pandas()
        whole = series.dropna()
        is_whole = bool((whole == np.floor(whole)).all())
        if is_whole and bool((whole.abs() < 2**53).all()):
            return series.astype("Int64").astype("str").where(series.notna())
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    if not pa.types.is_string(kind):
        column = column.cast(pa.string())
    return column.to_pandas().str.strip()


def as_source(source: Any, name: str | None) -> Source:
    """Return bytes or a path as a Source that can be read."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        shown = PurePath(name or "upload").name or "upload"
        found = Source(name=shown, data=bytes(source))
    elif isinstance(source, (str, Path)):
        path = Path(source)
        found = Source(name=name or path.name or str(path), path=path)
        _check_path(path, found.name)
    else:
        raise DataError(
            f"Predictions are read from a path or from bytes, not from "
            f"{type(source).__name__}.",
            name or "",
            "Give a path, or the bytes of the file.",
        )
    if found.size == 0:
        raise DataError(
            "The file is empty.",
            found.name,
            "Give a file with a header and one row per prediction.",
        )
    return found


def _check_path(path: Path, name: str) -> None:
    try:
        is_folder, is_there = path.is_dir(), path.is_file()
        is_other = path.exists() and not (is_folder or is_there)
    except (OSError, ValueError):  # a name too long, a null byte
        is_folder = is_there = is_other = False
    if is_other:
        raise DataError(
            "This is a pipe or a device, which can be read only once.",
            str(path),
            "Write what comes out of it to a file, and give that.",
        )
    if is_folder:
        raise DataError("This is a folder.", name, "Give one file.")
    if not is_there:
        raise DataError(
            "There is no such file.", str(path), "Check the path and its spelling."
        )


def recognise(source: Source, head: bytes | None = None) -> str:
    """Return "text", "gzip", "zstd", "parquet", "arrow", "npz", "npy" or the like.

    The first bytes decide, not the name; a name of a pickle is refused all the same,
    and so is every kind that is not known.
    """
    is_inner = head is not None
    first = source.head() if head is None else head[:4096]
    kind = next((kind for magic, kind in _MAGIC if first.startswith(magic)), "text")
    if kind == "text" and _is_safetensors(first):
        kind = "safetensors"
    elif kind != "Git LFS pointer":
        _refuse_pickles(source.name, first)
    if kind == "zip" and not is_inner:
        return _kind_of_zip(source)
    if kind == "text" and _JSON.match(first):
        kind = "json"
    known = _PACKINGS | _TABLES | _ARRAYS
    if kind in known - {"json"} | {"zip"} and is_inner:
        raise DataError(
            f"The compressed file holds another {kind} file.",
            source.name,
            "Unpack it and give the file inside.",
        )
    if kind not in known | {"text"}:
        fix = _HOW.get(kind, f"Unpack it. {_ACCEPTED}")
        article = "an" if kind[0] in "AH" else "a"
        raise DataError(f"This is {article} {kind}.", source.name, fix)
    if kind == "text" and b"\0" in first and find_encoding(first) == "utf-8":
        raise DataError(
            f"This is not a table: it starts with {first[:8]!r}.",
            source.name,
            _ACCEPTED,
        )
    return kind


def _is_safetensors(head: bytes) -> bool:
    """Whether the file starts with the length of a JSON header, and that header."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 27


def find_encoding(head: bytes) -> str:
    """Return the encoding that a byte order mark or the zeros of UTF-16 show."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    # In UTF-16 every other byte of plain digits and letters is 0.
    pairs = len(head) // 2
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        others = head[1 - start : 2 * pairs : 2].count(0)
        if pairs > 1 and not others and head[start::2].count(0) > 0.9 * pairs:
            return encoding
    return "utf-8"


def _refuse_pickles(name: str, head: bytes) -> None:
    suffixes = [part.lower() for part in PurePath(name).suffixes[-2:]]
    is_pickle = (
        (len(head) > 1 and head[0] == 0x80 and 1 <= head[1] <= 5)
        or _OLD_PICKLE.match(head) is not None
        or any(suffix in _PICKLE_NAMES for suffix in suffixes[-1:])
        or (suffixes[-1:] == [".gz"] and suffixes[0] in _PICKLE_NAMES)
        or _is_deflated(head)
    )
    if is_pickle:
        raise _pickle_error(name)


def _is_deflated(head: bytes) -> bool:
    """Whether this is a bare zlib stream, as joblib writes with compress=True."""
    if len(head) < 2 or head[0] != 0x78 or int.from_bytes(head[:2]) % 31:
        return False
    return any(byte > 0x7E or byte < 9 for byte in head[2:64])


def _pickle_error(name: str) -> DataError:
    is_torch = PurePath(name).suffix.lower() in {".pt", ".pth", ".ckpt"}
    load = (
        'torch.load("FILE", map_location="cpu", weights_only=True)'
        if is_torch
        else 'joblib.load("FILE")  # or pickle.load(open("FILE", "rb"))'
    )
    module = "torch" if is_torch else "joblib"
    return DataError(
        "This is a pickle (.pkl, .joblib, .pt or .pth). Opening one can run any "
        "program hidden in it, so it was not opened.",
        name,
        "Convert it where you trust it, and give the new file:\n"
        f"import numpy as np, {module}\n"
        f"saved = {load}\n"
        'np.savez("predictions.npz", logits=np.asarray(saved["logits"]), '
        'labels=np.asarray(saved["labels"]))',
    )


def _kind_of_zip(source: Source) -> str:
    try:
        with source.open() as file, zipfile.ZipFile(file) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise damaged(source.name, "NPZ or zip file", error) from None
    if any(PurePath(member).suffix in _PICKLE_NAMES for member in members):
        raise _pickle_error(source.name)
    if any(member.endswith(".npy") for member in members):
        return "npz"
    is_workbook = "[Content_Types].xml" in members
    raise DataError(
        "This is a spreadsheet workbook."
        if is_workbook
        else "This is a zip archive without NumPy arrays.",
        source.name,
        "Save the sheet as CSV." if is_workbook else f"Unpack it. {_ACCEPTED}",
    )


def damaged(name: str, what: str, error: BaseException) -> DataError:
    """Return the error for a file that its library could not read."""
    return DataError(
        f"The {what} is damaged or incomplete: {shortened(error)}.",
        name,
        "Write or upload the file again; the copy may have been cut off.",
    )


def shortened(error: BaseException, length: int = 160) -> str:
    """Return the first line of a library's message, cut to a readable length."""
    lines = str(error).strip().splitlines()
    text = (lines[0] if lines else type(error).__name__).rstrip(".")
    printable = "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return printable if len(printable) <= length else printable[:length] + "..."


def clipped(value: object, length: int = 80) -> str:
    """Return a value of the file as it is quoted in a message, cut to a length."""
    text = str(value)
    return repr(text if len(text) <= length else text[:length] + "...")


def check_size(n_cells: float, name: str, n_bytes_each: float = 8) -> None:
    """Refuse a file whose cells would not fit into the memory limit."""
    needed = n_cells * n_bytes_each
    if needed > MEMORY_LIMIT:
        raise DataError(
            f"The file would take about {needed / 2**30:,.1f} GiB in memory; the "
            f"limit is {MEMORY_LIMIT / 2**30:,.1f} GiB.",
            name,
            "Give fewer rows, or save float32 logits as NPZ.",
        )
