"""Chunks of rows over one pool: order, errors, nesting, numbers of threads."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from core import parallel
from core.messages import DataError


@pytest.fixture(autouse=True)
def _own_pool() -> Iterator[None]:
    yield
    parallel.configure()


def test_chunks_cover_the_rows_in_order() -> None:
    bounds = parallel.chunk_bounds(10, 100, chunk_bytes=300)
    assert bounds == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert parallel.chunk_bounds(0, 100) == []
    assert parallel.chunk_bounds(3, 0) == [(0, 3)]


def test_a_row_longer_than_a_chunk_is_a_chunk() -> None:
    assert parallel.chunk_bounds(2, 10**9) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("n_threads", [1, 2, 3, 16])
def test_results_come_in_the_order_of_the_rows(n_threads: int) -> None:
    parallel.configure(n_threads)
    result = parallel.map_rows(lambda a, b: (a, b), 1000, 8, chunk_bytes=80)
    assert result == parallel.chunk_bounds(1000, 8, chunk_bytes=80)


def test_no_rows_call_nothing() -> None:
    assert parallel.map_rows(lambda a, b: 1 / 0, 0, 8) == []


def test_little_work_makes_no_pool() -> None:
    parallel.configure(4)
    names = parallel.map_rows(lambda a, b: threading.current_thread().name, 500, 1000)
    assert names == [threading.current_thread().name]
    assert parallel._pool is None


def test_several_threads_take_part() -> None:
    parallel.configure(2)
    meeting = threading.Barrier(2, timeout=10)

    def work(start: int, stop: int) -> str:
        meeting.wait()
        return threading.current_thread().name

    names = parallel.map_rows(work, 2, parallel.CHUNK_BYTES)
    assert len(set(names)) == 2
    assert any(name.startswith("plumbline-rows") for name in names)


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_the_failure_of_the_first_chunk_is_raised(n_threads: int) -> None:
    parallel.configure(n_threads)

    def work(start: int, stop: int) -> None:
        if start >= 3:
            raise ValueError(start)

    with pytest.raises(ValueError, match=r"^3$"):
        parallel.map_rows(work, 100, 10, chunk_bytes=10)


def test_a_pool_survives_failures() -> None:
    parallel.configure(2)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            parallel.map_rows(lambda a, b: 1 // 0, 100, 10, chunk_bytes=10)
    assert sum(parallel.map_rows(lambda a, b: b - a, 100, 10, chunk_bytes=10)) == 100


def test_nested_calls_do_not_wait_for_each_other() -> None:
    parallel.configure(2)

    def inner(start: int, stop: int) -> int:
        return stop - start

    def outer(start: int, stop: int) -> int:
        return sum(parallel.map_rows(inner, 50, 10, chunk_bytes=10))

    assert parallel.map_rows(outer, 40, 10, chunk_bytes=10) == [50] * 40


def test_nested_calls_keep_nothing_while_the_pool_is_busy() -> None:
    parallel.configure(2)
    caller, both, done = threading.get_ident(), threading.Barrier(2), threading.Event()
    alive: list[int] = []

    def outer(start: int, stop: int) -> None:
        both.wait(timeout=30)
        if threading.get_ident() != caller:
            done.wait(timeout=30)
            return
        blocks = []
        for _ in range(5):
            block = np.zeros(3)
            parallel.map_rows(lambda a, b, x=block: x[a:b], 3, 10, chunk_bytes=10)
            blocks.append(weakref.ref(block))
            del block
        alive.append(sum(item() is not None for item in blocks))
        done.set()

    parallel.map_rows(outer, 2, 10, chunk_bytes=10)
    assert alive == [0]


class Shared:
    """Pieces of work that threads take in turn, each done when its event is set."""

    def __init__(self, n: int) -> None:
        self.lock, self.left, self.done = threading.Lock(), list(range(n)), [False] * n
        self.names: set[str] = set()

    def turn(self, patience: int) -> bool:
        self.names.add(threading.current_thread().name)
        while True:
            with self.lock:
                if not self.left:
                    return all(self.done)
                piece = self.left.pop()
            self.work(piece)
            self.done[piece] = True

    def work(self, piece: int) -> None:
        """Do nothing."""


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_turns_do_everything(n_threads: int) -> None:
    parallel.configure(n_threads)
    for n_bytes in (0, 1 << 10, 100 * parallel.CHUNK_BYTES):
        shared = Shared(50)
        parallel.take_turns(shared.turn, n_bytes)
        assert all(shared.done)


def test_turns_are_taken_by_several_threads_of_much_work_only() -> None:
    parallel.configure(2)
    little = Shared(4)
    parallel.take_turns(little.turn, parallel.CHUNK_BYTES - 1)
    assert little.names == {threading.current_thread().name}
    assert parallel._pool is None
    much, meeting = Shared(2), threading.Barrier(2, timeout=10)
    much.work = lambda piece: meeting.wait() and None  # type: ignore[method-assign]
    parallel.take_turns(much.turn, 2 * parallel.CHUNK_BYTES)
    assert len(much.names) == 2


def test_turns_that_take_long_are_waited_for() -> None:
    parallel.configure(2)
    shared, begun = Shared(2), threading.Event()
    caller = threading.get_ident()

    def work(piece: int) -> None:
        if threading.get_ident() == caller:
            begun.wait(10)
        else:
            begun.set()
            time.sleep(0.2)

    shared.work = work  # type: ignore[method-assign]
    parallel.take_turns(shared.turn, 2 * parallel.CHUNK_BYTES)
    assert all(shared.done)


@pytest.mark.parametrize("on_caller", [True, False])
def test_a_failed_turn_is_raised(on_caller: bool) -> None:
    parallel.configure(2)
    shared, meeting = Shared(2), threading.Barrier(2, timeout=10)
    caller = threading.get_ident()

    def work(piece: int) -> None:
        meeting.wait()
        if (threading.get_ident() == caller) is on_caller:
            raise ValueError("it failed")

    shared.work = work  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="it failed"):
        parallel.take_turns(shared.turn, 2 * parallel.CHUNK_BYTES)
    assert sum(parallel.map_rows(lambda a, b: b - a, 100, 10, chunk_bytes=10)) == 100


def test_turns_inside_of_another_call_have_no_helpers() -> None:
    parallel.configure(2)

    def outer(start: int, stop: int) -> set[str]:
        shared = Shared(20)
        parallel.take_turns(shared.turn, 100 * parallel.CHUNK_BYTES)
        assert all(shared.done)
        return shared.names

    for names in parallel.map_rows(outer, 10, 10, chunk_bytes=10):
        assert len(names) == 1


def test_many_callers_at_once() -> None:
    parallel.configure(3)
    failures: list[BaseException] = []

    def call() -> None:
        try:
            for _ in range(20):
                chunks = parallel.map_rows(lambda a, b: a, 64, 10, chunk_bytes=10)
                assert chunks == list(range(64))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


def test_threads_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_NUM_THREADS", " 3 ")
    parallel.configure()
    assert parallel.thread_count() == 3
    monkeypatch.delenv("PLUMBLINE_NUM_THREADS")
    parallel.configure()
    assert 1 <= parallel.thread_count() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_threads_is_explained(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("PLUMBLINE_NUM_THREADS", text)
    parallel.configure()
    with pytest.raises(DataError, match="PLUMBLINE_NUM_THREADS"):
        parallel.thread_count()
    monkeypatch.undo()


def test_configure_rejects_no_threads() -> None:
    with pytest.raises(DataError, match="at least 1"):
        parallel.configure(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_its_own_pool() -> None:
    parallel.configure(2)
    parallel.map_rows(lambda a, b: a, 4, parallel.CHUNK_BYTES)
    child = os.fork()
    if child == 0:
        try:
            chunks = parallel.map_rows(lambda a, b: a, 4, parallel.CHUNK_BYTES)
            os._exit(0 if chunks == [0, 1, 2, 3] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _blas_threads() -> set[int]:
    libraries = parallel._blas().info()
    return {library["num_threads"] for library in libraries}


def test_blas_gets_its_threads_back_from_whoever_leaves_last() -> None:
    with threadpool_limits(2, "blas"):
        before = _blas_threads()
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with parallel.one_blas_thread():
                entered.set()
                leave.wait(60)

        other = threading.Thread(target=hold)
        with parallel.one_blas_thread():
            with parallel.one_blas_thread():
                assert _blas_threads() <= {1}
            other.start()
            assert entered.wait(60)
        assert _blas_threads() <= {1}
        leave.set()
        other.join(60)
        assert _blas_threads() == before
        with pytest.raises(ZeroDivisionError), parallel.one_blas_thread():
            1 / 0  # noqa: B018
        assert _blas_threads() == before
