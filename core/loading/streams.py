"""The bytes of a text file: unpacked and counted, for Python and for Arrow."""

from __future__ import annotations

import codecs
import gzip
import io
import os
from typing import Any, BinaryIO

import pyarrow as pa

from core.loading.sources import Source, check_size

__all__ = ["ArrowStream", "Stream", "opened"]

_CHUNK = 1 << 22


def _as_control(error: UnicodeError) -> tuple[str, int]:
    """Read the five bytes that Windows-1252 lacks as Latin-1 does, as browsers do."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("latin-1", _as_control)


class Stream(io.RawIOBase):
    """Unpack on the way if need be, count what was read, stop at the limit.

    Parameters
    ----------
    source : Source
    packing : {"", "gzip", "zstd"}
        What the bytes are packed with.
    """

    def __init__(self, source: Source, packing: str) -> None:
        super().__init__()
        self._name = source.name
        self._size = max(1, source.size)
        self._file = source.open()
        self._is_packed = bool(packing)
        self._plain: BinaryIO | gzip.GzipFile | Any = self._file
        if packing == "gzip":
            self._plain = gzip.GzipFile(fileobj=self._file)
        elif packing == "zstd":
            self._plain = pa.CompressedInputStream(
                pa.PythonFile(self._file, "r"), "zstd"
            )
        self._count = 0

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, as `io.RawIOBase` has it."""
        data: bytes = self._plain.read(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        if self._is_packed:
            check_size(self._count, self._name, 1)
        return len(data)

    def fraction(self) -> float:
        """Share of the file that was read."""
        return min(1.0, self._file.tell() / self._size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class ArrowStream:
    """A text file for a reader with threads of its own, which run no Python.

    A thread that waits for Python when the process ends hangs or aborts it: after an
    error, Arrow goes on to read the next block. So it reads files by itself, and text
    in another encoding from memory, and is never told to close them.

    Parameters
    ----------
    source : Source
    packing : {"", "gzip", "zstd"}
        What the bytes are packed with.
    encoding : str, default="utf-8"
        What the text is written in; Arrow gets UTF-8.
    """

    def __init__(self, source: Source, packing: str, encoding: str = "utf-8") -> None:
        self._size = max(1, source.size)
        self._raw: Any
        if encoding != "utf-8":
            self._raw = _recoded(source, packing, encoding)
            self._size = max(1, self._raw.size())
            packing = ""
        elif source.path is not None:
            self._raw = pa.OSFile(os.fsencode(source.path), "rb")
        else:
            self._raw = pa.BufferReader(source.data)
        self.file = (
            pa.CompressedInputStream(self._raw, packing) if packing else self._raw
        )

    def fraction(self) -> float:
        """Share of the file that was read."""
        return min(1.0, float(self._raw.tell()) / self._size)


def _recoded(source: Source, packing: str, encoding: str) -> Any:
    """Return a text in memory as UTF-8."""
    errors = "latin-1" if encoding == "cp1252" else "strict"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    made = pa.BufferOutputStream()
    with opened(source, packing) as file:
        while data := file.read(_CHUNK):
            made.write(decoder.decode(data).encode())
        made.write(decoder.decode(b"", final=True).encode())
    return pa.BufferReader(made.getvalue())


def opened(source: Source, packing: str) -> io.BufferedReader:
    """Open a file for reading, unpacked on the way."""
    return io.BufferedReader(Stream(source, packing))
