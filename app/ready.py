"""What a cold server does while a browser loads the page: it imports modules.

That takes a second or two, and so does the part of the page that draws charts; neither
waits for the other.
"""

from __future__ import annotations

import gc
import importlib
import threading
import time

import streamlit as st
from streamlit import delta_generator, runtime
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime import RuntimeState

__all__ = ["begin", "draw_ahead"]

_MODULES = (
    "pandas",
    "app.opening",
    "app.bar",
    "app.fold_line",
    "app.provenance",
    "app.snapshots",
)
_lock = threading.Lock()
_is_done = threading.Event()
_is_drawn = threading.Event()


def begin() -> None:
    """Import the modules as soon as the server listens, in a thread of its own."""
    # Before its first element Streamlit asks whether this is a console, and looks for
    # that at the files of all modules: a quarter of a second.
    delta_generator._use_warning_has_been_displayed = True
    threading.Thread(
        target=_when_listening, name="plumbline-ready", daemon=True
    ).start()


def _when_listening() -> None:
    # earlier, what is imported here would keep the server from starting
    while not runtime.exists() or runtime.get_instance().state is RuntimeState.INITIAL:
        time.sleep(0.01)
    _make_ready()


def _make_ready() -> None:
    """Import everything that the first page draws with, once."""
    with _lock:
        if _is_done.is_set():
            return
        # Nothing of what is made here is garbage, nor will it be.
        gc.disable()
        try:
            for name in _MODULES:
                importlib.import_module(name)
            # what Plotly and Numba import when the first figure and kernel are there
            importlib.import_module("components.reliability").diagram((), None, "", "")
            importlib.import_module("core.kernels.start").start()
            gc.freeze()
        finally:
            gc.enable()
        _is_done.set()


def draw_ahead() -> DeltaGenerator:
    """Have the first browser fetch what draws charts; import what is missing.

    Returns
    -------
    DeltaGenerator
        What is drawn for it, hidden; to be emptied when the page is there.
    """
    place = st.empty()
    if "_settings" in st.session_state:
        _is_drawn.set()
    # a run may be cut short by the next one, which draws it again
    if not _is_drawn.is_set():
        # Plotly asks of the modules that there are what a value is: none of them may be
        # half imported by the other thread.
        importlib.import_module("pandas")
        with place.container(key="ahead"):
            st.html("<style>.st-key-ahead { display: none }</style>")
            st.plotly_chart([{"x": [], "y": []}], key="chart_ahead")
    _make_ready()
    return place
