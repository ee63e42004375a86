"""Lanes brought to other lanes, and numbers that threads count: against NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_allclose, assert_array_equal

from core.kernels.shuffles import (
    lower_half,
    spread,
    spread_code,
    sums_of_short_rows,
    upper_half,
)
from core.kernels.turns import are_over, count_up, new_turns, next_chunk
from core.kernels.vectors import load, load_half, store, width

DTYPES = (np.float32, np.float64)


@njit
def _sums(x, k, out):  # type: ignore[no-untyped-def]
    store(out, np.uintp(0), sums_of_short_rows(x, np.uintp(0), k))


@njit
def _spread(x, lanes, out):  # type: ignore[no-untyped-def]
    half = width(x) // 2
    codes = np.empty_like(x)
    for i in range(half):
        codes[i] = spread_code(lanes[i], x)
    names = load_half(codes, np.uintp(0))
    value = load(x, np.uintp(0))
    store(out, np.uintp(0), spread(lower_half(value), names))
    store(out, np.uintp(half), spread(upper_half(value), names))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_short_rows(dtype: Any) -> None:
    lanes = 64 // np.dtype(dtype).itemsize
    x = np.random.default_rng(0).random(lanes * lanes + lanes).astype(dtype)
    out = np.empty(lanes, dtype)
    for k in range(1, lanes + 1):
        _sums(x, k, out)
        assert_allclose(out, x[: lanes * k].reshape(lanes, k).sum(axis=1), 1e-6)
    x[lanes:] = np.nan  # what is behind a row is not in its sum
    _sums(x, 1, out)
    assert_array_equal(out, x[:lanes])


def test_spread_takes_the_lanes_that_are_named() -> None:
    x = np.arange(10.0, 26.0, dtype=np.float32)
    out = np.empty_like(x)
    for seed in range(20):
        named = np.random.default_rng(seed).integers(0, 8, 8)
        _spread(x, named, out)
        assert_array_equal(out, np.concatenate([x[named], x[8 + named]]))


@pytest.mark.jit
def test_spread_on_any_processor() -> None:
    """Also where there is no instruction for it."""
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    call = "import test_shuffles as t; t.test_spread_takes_the_lanes_that_are_named()"
    folders = (str(Path(__file__).parent), str(Path(__file__).parents[1]))
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    subprocess.run([sys.executable, "-c", call], env=environment, check=True)


@njit(nogil=True)
def _count(turns, n):  # type: ignore[no-untyped-def]
    for _ in range(n):
        count_up(turns, 0)


def test_threads_count_together() -> None:
    turns = new_turns()
    n = 200_000 if not os.environ.get("NUMBA_DISABLE_JIT") else 200
    _count(turns, 0)
    threads = [threading.Thread(target=_count, args=(turns, n)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns[0] == 4 * n


@njit
def _chunk(turns, end, share):  # type: ignore[no-untyped-def]
    return next_chunk(turns, end, share)


def test_chunks_are_handed_out_once() -> None:
    turns, share, end, found = new_turns(), (10, 4, 0), 0, []
    while True:
        begin, end = _chunk(turns, end, share)
        if begin == end:
            break
        assert not are_over(turns, 10, 4)
        found.append((begin, end))
    assert found == [(0, 4), (4, 8), (8, 10)]
    assert are_over(turns, 10, 4)
    assert _chunk(turns, 0, share) == (10, 10)
    assert are_over(new_turns(), 0, 4)
