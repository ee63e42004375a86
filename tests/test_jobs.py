"""Long work off the script thread: what two runs of a page do to one job."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import jobs
from core.messages import Cancelled


def test_work_that_a_newer_run_cancels_while_it_is_waited_for(monkeypatch) -> None:
    registry = jobs.Registry(ThreadPoolExecutor(1))
    free = threading.Event()
    registry.executor.submit(free.wait)  # so that the job cannot start
    monkeypatch.setattr(jobs, "_registry", lambda: registry)
    monkeypatch.setattr(jobs, "wait", lambda *_: registry.cancel("mine"))
    try:
        with pytest.raises(Cancelled):
            jobs.run("mine", "Measuring", lambda _: 1, again=False)
        assert not registry.jobs
    finally:
        free.set()
        registry.executor.shutdown()
