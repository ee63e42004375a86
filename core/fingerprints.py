"""Arrays that nobody can change, and digests that tell contents apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["fingerprint_of", "frozen", "rows_of", "update_digest"]

FloatArray = NDArray[np.floating[Any]]


def frozen(array: NDArray[Any] | None) -> Any:
    """Return a read-only view of an array that is made read-only itself."""
    if array is None:
        return None
    # A view of an array that is read-only itself cannot be made writable again.
    array.setflags(write=False)
    return array.view()


def rows_of(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return rows of an array, without a copy where they are one block."""
    n = rows.size
    if n and rows[-1] - rows[0] == n - 1 and (n == 1 or (np.diff(rows) == 1).all()):
        return array[rows[0] : rows[-1] + 1]
    found: NDArray[Any] = array[rows]
    return found


def fingerprint_of(
    arrays: Mapping[str, NDArray[Any] | None],
    features: FloatArray | Mapping[str, FloatArray] | None,
    table: pd.DataFrame,
    classes: tuple[str, ...],
    roles: Any,
    input_kind: str,
) -> str:
    """Return the sha256 over arrays, features, table, classes and roles."""
    digest = hashlib.sha256(repr((classes, roles, input_kind)).encode())
    for key, array in arrays.items():
        if array is not None:
            update_digest(digest, key, array)
    layers = features if isinstance(features, Mapping) else {"features": features}
    for key, layer in layers.items():
        if layer is not None:
            update_digest(digest, key, layer)
    if table.shape[1]:
        # The types too: 1 and "1" read alike as text, but not as times.
        kinds = tuple((name, str(kind)) for name, kind in table.dtypes.items())
        digest.update(repr(kinds).encode())
        hashes = pd.util.hash_pandas_object(table.astype(str), index=False)
        digest.update(hashes.to_numpy(np.uint64).tobytes())
    return digest.hexdigest()


def update_digest(digest: Any, key: str, array: NDArray[Any]) -> None:
    """Add an array with its name, shape and type to a digest."""
    digest.update(f"{key}:{array.shape}:{array.dtype.str}\n".encode())
    digest.update(np.ascontiguousarray(array).data.cast("B"))
