"""Rows in chunks over one shared thread pool: the only place that makes threads.

The kernels are serial and release the GIL; this module calls them on chunks of
rows from several threads. Chunk boundaries follow from the number and the bytes of
rows alone, so that a result never depends on how many threads there were. Where matrix
products are part of that work, `one_blas_thread` keeps BLAS from adding threads of its
own.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from core.messages import DataError

__all__ = [
    "CHUNK_BYTES",
    "chunk_bounds",
    "configure",
    "map_rows",
    "one_blas_thread",
    "take_turns",
    "thread_count",
]

Result = TypeVar("Result")

CHUNK_BYTES = 1 << 20
"""Bytes of one chunk: two to four tenths of a millisecond of work for a kernel.

Smaller chunks pay for Python between them, larger ones leave threads idle at the
end. Of 512 KiB, 1 and 2 MiB in turn, from 2,500 x 100 to 25,000 x 1,000, the first
took up to 9 % longer than this one in most, and 1.5 to 2 times as long for a softmax of
2,500 x 100; the last took 8 % more to 5 % less with two threads, a fit of 2,500 x 100 a
fifth less, and leaves more threads without work.
Work of less than this many bytes never touches the pool.
"""

_PATIENCE = 0.0003
"""Seconds to look again and again whether the last helper is done, before sleeping.

A core that sleeps takes 0.07 ms to wake where it is a virtual one. Against sleeping at
once, 0.85 ms of softmax became 0.80 and a fit of 2.3 ms 2.2.
"""

_LOOKS = 4000
"""How often a kernel looks whether the helpers are done, 0.03 microseconds each."""

_THREADS_VARIABLE = "PLUMBLINE_NUM_THREADS"

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_n_threads: int | None = None
_worker = threading.local()

_blas_lock = threading.Lock()
_blas_threads: list[int] = []
_n_blas_limits = 0


def _available_threads() -> int:
    """Return the number of threads asked for, else of cores this process may use."""
    text = os.environ.get(_THREADS_VARIABLE, "").strip()
    if not text:
        if hasattr(os, "sched_getaffinity"):
            return max(1, len(os.sched_getaffinity(0)))
        return os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        what = f"The number of threads is {text!r}, not a whole number of at least 1."
        where = f"environment variable {_THREADS_VARIABLE}"
        raise DataError(what, where, "Set it to 1 or more, or leave it unset.")
    return int(text)


def thread_count() -> int:
    """Return how many threads work on one call, the calling thread included.

    Returns
    -------
    int
        ``PLUMBLINE_NUM_THREADS`` if set, else the cores this process may run on.

    Raises
    ------
    DataError
        If ``PLUMBLINE_NUM_THREADS`` is not a whole number of at least 1.
    """
    global _n_threads
    with _lock:
        if _n_threads is None:
            _n_threads = _available_threads()
        return _n_threads


def configure(n_threads: int | None = None) -> None:
    """Set the number of threads and drop the pool; it is made again on demand.

    Parameters
    ----------
    n_threads : int or None, default=None
        Threads per call, the calling thread included. None reads
        ``PLUMBLINE_NUM_THREADS`` and the number of cores again.

    Raises
    ------
    DataError
        If ``n_threads`` is below 1.
    """
    if n_threads is not None and n_threads < 1:
        what = f"The number of threads is {n_threads}."
        raise DataError(what, "configure(n_threads)", "Use at least 1 thread.")
    global _n_threads, _pool
    with _lock:
        old, _pool, _n_threads = _pool, None, n_threads
    if old is not None:
        old.shutdown(wait=False)


def _mark_worker() -> None:
    _worker.is_inside = True


def _submit(n_helpers: int, function: Callable[[], Any]) -> list[Future[Any]]:
    """Start `function` on up to `n_helpers` pool threads."""
    global _pool
    with _lock:
        # Under the lock, so that `configure` cannot shut this pool down meanwhile.
        if _pool is None:
            _pool = ThreadPoolExecutor(
                max(1, (_n_threads or n_helpers + 1) - 1),
                thread_name_prefix="plumbline-rows",
                initializer=_mark_worker,
            )
        return [_pool.submit(function) for _ in range(n_helpers)]


def _forget_pool() -> None:
    """Drop the pool in a forked child: its threads exist in the parent only."""
    global _lock, _blas_lock, _pool
    _lock, _blas_lock = threading.Lock(), threading.Lock()
    _pool = None
    _worker.is_inside = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def chunk_bounds(
    n_rows: int, row_bytes: int, *, chunk_bytes: int = CHUNK_BYTES
) -> list[tuple[int, int]]:
    """Cut rows into chunks of at most `chunk_bytes`, whatever the number of threads.

    They are as equal as can be and, beyond one, of an even number: two threads with
    nine chunks to share would be idle a tenth of the time.

    Parameters
    ----------
    n_rows : int
        Number of rows, 0 or more.
    row_bytes : int
        Bytes read per row.
    chunk_bytes : int, default=CHUNK_BYTES
        Largest size of a chunk. A longer row makes a chunk of its own.

    Returns
    -------
    list of (int, int)
        Half-open ranges ``(start, stop)`` in order; empty without rows.
    """
    step = max(1, chunk_bytes // max(1, row_bytes))
    if n_rows > step:
        pairs = -(-n_rows // (2 * step))
        step = -(-n_rows // (2 * pairs))
    return [(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


class _Job:
    """The chunks of one call, handed out one by one to whoever is free."""

    def __init__(
        self, function: Callable[[int, int], Any], bounds: list[tuple[int, int]]
    ) -> None:
        self._function = function
        self._bounds = bounds
        self._lock = threading.Lock()
        self._next = 0
        self.results: list[Any] = [None] * len(bounds)
        self.failures: list[tuple[int, BaseException]] = []

    def _take(self) -> int | None:
        with self._lock:
            if self._next >= len(self._bounds):
                return None
            self._next += 1
            return self._next - 1

    def work(self) -> None:
        """Do chunks until none is left; a failure leaves the later ones undone."""
        while (chunk := self._take()) is not None:
            start, stop = self._bounds[chunk]
            try:
                self.results[chunk] = self._function(start, stop)
            except BaseException as failure:
                with self._lock:
                    self.failures.append((chunk, failure))
                    self._next = len(self._bounds)


def map_rows(
    function: Callable[[int, int], Result],
    n_rows: int,
    row_bytes: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> list[Result]:
    """Call ``function(start, stop)`` on chunks of rows, on all threads.

    Parameters
    ----------
    function : callable (start: int, stop: int) -> Result
        Works on rows ``start <= i < stop``. It should spend its time without the
        GIL and write only to those rows of its outputs.
    n_rows : int
        Number of rows; 0 calls nothing.
    row_bytes : int
        Bytes read per row, which decide the size of a chunk.
    chunk_bytes : int, default=CHUNK_BYTES
        Largest size of a chunk.

    Returns
    -------
    list
        The results, in the order of the rows.

    Raises
    ------
    BaseException
        Whatever `function` raised; of several failures, the one of the first chunk.

    Notes
    -----
    The calling thread works too, and helpers that no pool thread has started by
    the end are cancelled: a busy pool only means fewer helpers, never a wait. A
    call from inside another one runs serially: the pool, which is busy, would keep
    its cancelled helpers in the queue with all that they refer to.
    """
    bounds = chunk_bounds(n_rows, row_bytes, chunk_bytes=chunk_bytes)
    n_helpers = min(thread_count(), len(bounds)) - 1
    if n_helpers <= 0 or getattr(_worker, "is_inside", False):
        return [function(start, stop) for start, stop in bounds]
    job = _Job(function, bounds)
    helpers = _submit(n_helpers, job.work)
    _worker.is_inside = True
    job.work()
    _worker.is_inside = False
    _finish([helper for helper in helpers if not helper.cancel()])
    if job.failures:
        raise min(job.failures, key=lambda failure: failure[0])[1]
    return job.results


def take_turns(turn: Callable[[int], bool], n_bytes: int) -> None:
    """Call ``turn(patience)`` on all threads, for work that they share by themselves.

    Parameters
    ----------
    turn : callable (patience: int) -> bool
        Does what nobody has begun yet, and looks up to `patience` times whether what
        others have begun is done. Returns whether all is.
    n_bytes : int
        Bytes read: helpers are asked for where there is a chunk for each.

    Raises
    ------
    BaseException
        Whatever `turn` raised on this thread, or on one that left work undone.

    Notes
    -----
    As of `map_rows`, helpers that no pool thread has started by the end are cancelled,
    and a call from inside another one has none.
    """
    n_helpers = min(thread_count() - 1, n_bytes // CHUNK_BYTES)
    if n_helpers <= 0 or getattr(_worker, "is_inside", False):
        turn(0)
        return
    helpers = _submit(n_helpers, functools.partial(turn, 0))
    _worker.is_inside = True
    try:
        is_over = turn(_LOOKS)
    finally:
        _worker.is_inside = False
    helpers = [helper for helper in helpers if not helper.cancel()]
    if not is_over:
        for helper in helpers:
            helper.result()


def _finish(helpers: list[Future[None]]) -> None:
    """Wait for helpers, of which each is doing its last chunk."""
    patience = time.perf_counter() + _PATIENCE
    while not all(helper.done() for helper in helpers):
        if time.perf_counter() > patience:
            wait(helpers)
            return
        time.sleep(0)  # gives the GIL away, not the core


@functools.cache
def _blas() -> Any:
    """Return what sets the threads of linear algebra; to find it takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _set_blas_threads(numbers: Iterable[int]) -> None:
    for library, number in zip(_blas().lib_controllers, numbers, strict=True):
        # Of some releases, only the thread that was the first to set it can.
        release = getattr(library, "clear_controlling_thread", lambda **_: None)
        release(force=True)
        library.set_num_threads(number)
        release(force=True)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep matrix products to the thread that asks for them.

    Notes
    -----
    The threads of BLAS wait for work without giving up their core: beside those of
    the pool they cost a fit three quarters of its speed. Their number belongs to the
    process, so it is set by whoever comes first, of any thread and depth, and given
    back by whoever leaves last.
    """
    global _blas_threads, _n_blas_limits
    with _blas_lock:
        if _n_blas_limits == 0:
            _blas_threads = [lib.num_threads for lib in _blas().lib_controllers]
            _set_blas_threads(1 for _ in _blas_threads)
        _n_blas_limits += 1
    try:
        yield
    finally:
        with _blas_lock:
            _n_blas_limits -= 1
            if _n_blas_limits == 0:
                _set_blas_threads(_blas_threads)
