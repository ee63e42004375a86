"""Chunks of rows that threads take in turn inside of a kernel, without the GIL.

A thread that needed the GIL between two chunks would wait for another one, and the core
of a virtual machine that sleeps meanwhile takes 0.05 ms to wake: of 0.75 ms of softmax
of 100,000 x 10 with two threads, 0.1 was that.

A kernel does the rows begin..end, which are what is left of a chunk, none (0, 0) at
first, and then all chunks that nobody has taken. It returns the first row of a block
that is not in its exact range, and the end of its chunk; the number of rows twice when
no chunk is left. `share` is (rows, rows of a chunk, how often to look whether others
are done), `turns` the numbers of chunks that are taken and that are done.

Numba's cache on disk does not notice changes here: `exp.source_stamp` has them.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types

from core.kernels.exp import _SMALL
from core.kernels.vectors import _call, _operation, _pointer

__all__ = ["are_over", "count_up", "new_turns", "next_chunk", "number_now", "wait_for"]

_TAKEN, _DONE = 0, 1
_lock = threading.Lock()  # of interpreted kernels


def new_turns() -> Any:
    """Return the numbers of chunks that were taken and that are done."""
    return np.zeros(2, np.int64)


def are_over(turns: Any, n_rows: int, chunk: int) -> bool:
    """Whether all chunks are done."""
    return int(turns[_DONE]) >= -(-n_rows // chunk)


def _count_up(turns, i):
    with _lock:
        turns[i] += 1
        return int(turns[i]) - 1


@_operation(_count_up)
def count_up(typingctx, turns, i):  # noqa: ARG001
    """Add 1 to a number that other threads change too; return what it was."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        place = _pointer(context, builder, turns, *arguments)
        return builder.atomic_rmw("add", place, ir.IntType(64)(1), "seq_cst")

    return types.int64(turns, types.intp), make


@_operation(lambda turns, i: int(turns[i]))
def number_now(typingctx, turns, i):  # noqa: ARG001
    """Return a number that other threads change."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        place = _pointer(context, builder, turns, *arguments)
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(turns, types.intp), make


@_operation(lambda: time.sleep(0))
def pause(typingctx):  # noqa: ARG001
    """Leave the core to the other thread that it may run, for a moment."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        if context.codegen().magic_tuple()[0].startswith("x86_64"):
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.none(), make


@njit(**_SMALL)
def next_chunk(turns, end, share):
    """Return the rows of a chunk that nobody has taken, or the number of rows twice.

    end: of the chunk that is done, or 0.
    """
    if end > 0:
        count_up(turns, _DONE)
    begin = min(count_up(turns, _TAKEN) * share[1], share[0])
    return begin, min(begin + share[1], share[0])


@njit(**_SMALL)
def wait_for(turns, share):
    """Look until all chunks are done, or as often as `share` says."""
    n_chunks = -(-share[0] // share[1])
    for _ in range(share[2]):
        if number_now(turns, _DONE) >= n_chunks:
            break
        pause()
