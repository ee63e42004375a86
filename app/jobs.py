"""Long work off the script thread: executor, progress, cancel token, polling."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import (
    RerunException,
    add_script_run_ctx,
    get_script_run_ctx,
)
from streamlit.runtime.scriptrunner_utils.script_run_context_attr import (
    SCRIPT_RUN_CONTEXT_ATTR_NAME,
)

from components import display
from core.messages import Cancelled, Progress

__all__ = ["Publish", "follow", "forget", "forget_all", "is_started", "run", "waiting"]

T = TypeVar("T")
Publish = Callable[[Any], None]
"""Takes what some work has so far, to be shown while it goes on."""

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
    is_large : bool, default=False
        Whether a new job in its slot takes its place when it is finished, too: its
        result would keep rows in memory, and is cached elsewhere.
    """

    slot: str
    label: str
    is_large: bool = False
    future: Future[Any] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)
    fraction: float = 0.0
    message: str = ""
    started: float = field(default_factory=time.monotonic)
    so_far: Any = None
    version: int = 0

    def publish(self, found: Any) -> None:
        """Keep what there is so far; the page that waits is drawn again."""
        self.so_far = found
        self.version += 1

    def cancel(self) -> None:
        """Keep the work from starting, or stop it at its next report of progress."""
        self.cancelled.set()
        self.future.cancel()


@dataclass(eq=False)
class Registry:
    """The jobs of one session by key, the oldest first.

    Parameters
    ----------
    executor : ThreadPoolExecutor
    jobs : OrderedDict of str to Job
    asked : set of str
        Keys that the present run of the page has asked for.
    """

    executor: ThreadPoolExecutor
    jobs: OrderedDict[str, Job] = field(default_factory=OrderedDict)
    asked: set[str] = field(default_factory=set)

    def cancel(self, key: str) -> None:
        """Stop a job that nobody waits for any more; asked for again, it starts anew.

        Jobs that are done are kept.
        """
        if not self.jobs[key].future.done():
            self.jobs.pop(key).cancel()

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
        What the result depends on: study, Settings and what is done.
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
    job = _asked(key, Job(slot, label), lambda _, report: work(report))
    if not job.future.done():
        _watch(key)
        return None
    try:
        return job.future.result()
    except (Cancelled, CancelledError):
        if not again:
            raise Cancelled from None
        display.stopped(label, lambda: forget(key), key=f"again-{slot}")
        return None


def follow(
    key: str,
    label: str,
    work: Callable[[Progress, Publish], T],
    *,
    slot: str = "page",
) -> tuple[T | None, bool]:
    """Return what some work has so far, and whether it has ended.

    The app is run again whenever there is more of it. What was published stays where
    somebody cancels the work, until other work is followed in the same slot.

    Parameters
    ----------
    key, label, slot : str
        As in `run`.
    work : callable
        Takes a progress callback and `Publish`, and returns what it published last.

    Raises
    ------
    DataError, FitError
        Whatever the work raised.
    """
    new = Job(slot, label, is_large=True)
    job = _asked(key, new, lambda own, report: work(report, own.publish))
    version = job.version  # before what it is of: a redraw too many does no harm
    found = job.so_far
    if not job.future.done():
        _watch(key, version)
        return found, False
    try:
        return job.future.result(), True
    except (Cancelled, CancelledError):
        display.stopped(label, lambda: forget(key), key=f"again-{slot}")
        return job.so_far, True


@contextmanager
def waiting() -> Iterator[None]:
    """Cancel the jobs that a whole run of the app, inside the block, did not ask for.

    The user has left their page, or changed what they depend on: nobody waits for
    them, and they would keep the session's threads from newer work.
    """
    registry = _registry()
    registry.asked.clear()
    is_whole = True
    try:
        yield
    except RerunException:  # cut short: the next run says what it waits for
        is_whole = False
        raise
    finally:
        if is_whole:
            for key in set(registry.jobs) - registry.asked:
                registry.cancel(key)


def forget(key: str) -> None:
    """Forget a job, so that the work starts again."""
    _registry().jobs.pop(key, None)


def forget_all() -> None:
    """Stop and forget every job of this session."""
    for job in _registry().jobs.values():
        job.cancel()
    _registry().jobs.clear()


def is_started(key: str) -> bool:
    """Whether some work was asked for before, so that its result may be shown."""
    return key in _registry().jobs


def _registry() -> Registry:
    if _REGISTRY not in st.session_state:
        pool = ThreadPoolExecutor(2, thread_name_prefix="plumbline-job")
        st.session_state[_REGISTRY] = Registry(pool)
    registry: Registry = st.session_state[_REGISTRY]
    return registry


def _asked(key: str, new: Job, work: Callable[[Job, Progress], Any]) -> Job:
    """Return the job of a key; a new one is started, and gets a moment to end."""
    registry = _registry()
    registry.asked.add(key)
    job = registry.jobs.get(key)
    if job is None:
        job = _start(registry, key, new, work)
        wait([job.future], GRACE)
    if job.future.done():
        # a newer run of the page may have cancelled it meanwhile
        if registry.jobs.get(key) is job:
            registry.jobs.move_to_end(key)
        registry.drop_finished()
    return job


def _start(
    registry: Registry, key: str, job: Job, work: Callable[[Job, Progress], Any]
) -> Job:
    for old_key, old in list(registry.jobs.items()):
        if old.slot == job.slot:
            registry.cancel(old_key)
            if old.is_large:
                registry.jobs.pop(old_key, None)
    context = get_script_run_ctx()
    session = None if context is None else context.session_id

    def report(fraction: float, message: str) -> None:
        if job.cancelled.is_set() or _is_gone(session):
            raise Cancelled
        job.fraction, job.message = min(max(fraction, 0.0), 1.0), message

    def body() -> Any:
        # Session-scoped caches ask the thread whose session it works for. It may not
        # know it any longer than that: the thread would keep the session's rows.
        thread = threading.current_thread()
        add_script_run_ctx(thread, context)
        try:
            report(0.0, "")
            return work(job, report)
        finally:
            setattr(thread, SCRIPT_RUN_CONTEXT_ATTR_NAME, None)

    job.future = registry.executor.submit(body)
    registry.jobs[key] = job
    return job


def _is_gone(session: str | None) -> bool:
    if session is None or not runtime.exists():
        return False
    return not runtime.get_instance().is_active_session(session)


@st.fragment(run_every=POLL)
def _watch(key: str, version: int = 0) -> None:
    """Draw the progress of a job; when it has more, or is done, run the app again."""
    job = _registry().jobs.get(key)
    if job is None or job.future.done() or job.version != version:
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
