"""Memory of the server: what nobody needs any more is found cheaply, and given back."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import streamlit as st
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx

__all__ = ["Visit", "forget_widgets", "give_back", "left", "let_go", "tidy"]

# Streamlit forgets a session that does not come back, but only when another one
# leaves: on a quiet server the rows would stay. So it is closed a little earlier.
_SHARE_OF_TTL = 0.9


def tidy() -> None:
    """Free what nothing refers to any more, and give it back to the system.

    Streamlit collects garbage after every run. What is alive now, the modules above
    all, is left out of these collections, which take a tenth of a second otherwise.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    give_back()


def give_back() -> None:
    """Give what was freed already back to the system."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """A session, and where Streamlit keeps what its pages made.

    The server's loop holds on to the session that it served last, so that these are
    emptied when it ends.

    Parameters
    ----------
    session : str
        Its id.
    values : SessionState
        Of session and widgets.
    fragments : FragmentStorage
        Functions with all that they refer to.
    """

    session: str
    values: Any
    fragments: Any

    @classmethod
    def now(cls) -> Visit | None:
        """Return the visit that this run of the app belongs to."""
        context = get_script_run_ctx()
        if context is None:
            return None
        values = _values(context)
        return cls(context.session_id, values, context.fragment_storage)

    def end(self) -> None:
        """Empty what the session left behind."""
        self.values.clear()
        self.values._new_widget_state.widget_metadata.clear()
        self.fragments.clear()


def forget_widgets() -> None:
    """Forget what widgets that are gone refer to: the study they were drawn for.

    Streamlit keeps the callbacks of every widget that a session ever had.
    """
    context = get_script_run_ctx()
    if context is not None:
        widgets = _values(context)._new_widget_state
        for gone in set(widgets.widget_metadata) - set(widgets.states):
            del widgets.widget_metadata[gone]


def _values(context: Any) -> Any:
    return context.session_state._state


def let_go(uploads: Iterable[Any]) -> None:
    """Free the bytes of uploads that were taken elsewhere.

    Streamlit keeps them until the session ends, or the browser says otherwise.
    """
    context = get_script_run_ctx()
    manager = None if context is None else context.uploaded_file_mgr
    for upload in uploads:
        if context is not None and isinstance(manager, MemoryUploadedFileManager):
            manager.remove_file(context.session_id, upload.file_id)
        upload.close()


def left(visit: Visit) -> None:
    """Close a session some time after its page was closed, unless it came back.

    Parameters
    ----------
    visit : Visit
    """
    try:
        loop = asyncio.get_running_loop()  # Streamlit's own: there sessions end
    except RuntimeError:
        return
    seconds = _SHARE_OF_TTL * st.get_option("server.disconnectedSessionTTL")
    loop.call_later(seconds, _end, visit)


def _end(visit: Visit) -> None:
    instance = runtime.get_instance()
    if not instance.is_active_session(visit.session):
        instance.close_session(visit.session)
        visit.end()
        asyncio.get_running_loop().call_soon(tidy)
