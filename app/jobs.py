"""Long work off the script thread: executor, progress, cancel token, polling."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx

from components import display
from core.messages import Cancelled, Progress

__all__ = ["forget", "is_started", "run"]

T = TypeVar("T")

GRACE = 0.8  # seconds that a page waits before it shows a progress bar
POLL = 0.4
KEPT = 6  # finished jobs whose results stay at hand
_REGISTRY = "_jobs"


@dataclass(eq=False)
class Job:
    """One piece of work of one session.

    Parameters
    ----------
    slot : str
        What it is for; a new job takes the place of an unfinished one in its slot.
    label : str
        Shown above the progress bar.
    """

    slot: str
    label: str
    future: Future[Any] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)
    fraction: float = 0.0
    message: str = ""
    started: float = field(default_factory=time.monotonic)

    def cancel(self) -> None:
        """Ask the work to stop at its next report of progress."""
        self.cancelled.set()


@dataclass(eq=False)
class Registry:
    """The jobs of one session by key, the oldest first."""

    executor: ThreadPoolExecutor
    jobs: OrderedDict[str, Job] = field(default_factory=OrderedDict)

    def drop_finished(self) -> None:
        """Forget the oldest finished jobs."""
        finished = [key for key, job in self.jobs.items() if job.future.done()]
        for key in finished[:-KEPT]:
            del self.jobs[key]


def run(
    key: str,
    label: str,
    work: Callable[[Progress], T],
    *,
    slot: str = "page",
    again: bool = True,
) -> T | None:
    """Return the result of some work, or None while a progress bar stands for it.

    Quick work comes back at once. Longer work shows its progress and a button that
    cancels it; when it is done the app is run again, and this call returns the
    result.

    Parameters
    ----------
    key : str
        What the result depends on: fingerprint, Settings and what is done.
    label : str
        What the user is told, such as "Fitting".
    work : callable
        Takes a progress callback; runs in a thread of its own.
    slot : str, default="page"
        Unfinished work in the same slot is cancelled first.
    again : bool, default=True
        Whether cancelled work offers to start again, instead of raising Cancelled.

    Raises
    ------
    DataError, FitError
        Whatever the work raised.
    """
    registry = _registry()
    job = registry.jobs.get(key)
    if job is None:
        job = _start(registry, key, Job(slot, label), work)
        wait([job.future], GRACE)
    if not job.future.done():
        _watch(key)
        return None
    registry.jobs.move_to_end(key)
    registry.drop_finished()
    try:
        return job.future.result()
    except Cancelled:
        if not again:
            raise
        display.stopped(label, lambda: forget(key), key=f"again-{slot}")
        return None


def forget(key: str) -> None:
    """Forget a job, so that the work starts again."""
    _registry().jobs.pop(key, None)


def is_started(key: str) -> bool:
    """Whether some work was asked for before, so that its result may be shown."""
    return key in _registry().jobs


def _registry() -> Registry:
    if _REGISTRY not in st.session_state:
        pool = ThreadPoolExecutor(2, thread_name_prefix="plumbline-job")
        st.session_state[_REGISTRY] = Registry(pool)
    registry: Registry = st.session_state[_REGISTRY]
    return registry


def _start(
    registry: Registry, key: str, job: Job, work: Callable[[Progress], Any]
) -> Job:
    for old_key, old in list(registry.jobs.items()):
        if old.slot == job.slot and not old.future.done():
            old.cancel()
            del registry.jobs[old_key]
    context = get_script_run_ctx()
    session = None if context is None else context.session_id

    def report(fraction: float, message: str) -> None:
        if job.cancelled.is_set() or _is_gone(session):
            raise Cancelled
        job.fraction, job.message = min(max(fraction, 0.0), 1.0), message

    def body() -> Any:
        # Session-scoped caches ask the thread whose session it works for.
        add_script_run_ctx(threading.current_thread(), context)
        report(0.0, "")
        return work(report)

    job.future = registry.executor.submit(body)
    registry.jobs[key] = job
    return job


def _is_gone(session: str | None) -> bool:
    if session is None or not runtime.exists():
        return False
    return not runtime.get_instance().is_active_session(session)


@st.fragment(run_every=POLL)
def _watch(key: str) -> None:
    """Draw the progress of a job; when it is done, run the app again."""
    job = _registry().jobs.get(key)
    if job is None or job.future.done():
        st.rerun(scope="app")
        return
    display.progress(
        job.label,
        job.fraction,
        job.message,
        seconds=time.monotonic() - job.started,
        cancel=job.cancel,
        key=f"cancel-{job.slot}",
    )
