"""How a session gets its study: the sample, uploads and paths, read one at a time.

What somebody opens becomes a candidate; the study that is there stays until the
candidate could be read.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import streamlit as st

from app import compute, jobs, state
from core.calibrators import CALIBRATORS
from core.loading import READING_FIELDS, Schema, open_study
from core.messages import Cancelled, DataError
from core.predictions import Study
from core.settings import Settings

__all__ = [
    "Source",
    "begin",
    "empty_uploaders",
    "ensure_study",
    "forget",
    "is_local",
    "kept",
    "open_path",
    "open_sample",
    "open_session",
    "open_upload",
]

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A file that can be read again with other roles.

    Parameters
    ----------
    name : str
        Name to show; never used as a path.
    path : Path
        Where its bytes are: an upload lies in a temporary file that goes with the
        session, so that its bytes do not stay in memory.
    kind : {"sample", "upload", "path"}
    more : tuple of Source
        The other files of the same upload.
    """

    name: str
    path: Path
    kind: str
    number: int = field(default_factory=lambda: next(_numbers))
    holder: Any = None
    more: tuple[Source, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of every file that is read together."""
        return (self.path, *(item.path for item in self.more))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of every file that is read together."""
        return (self.name, *(item.name for item in self.more))


class _Spool:
    """Bytes in a temporary file, which goes when nobody needs it any more."""

    def __init__(self, content: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix="plumbline-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        self.path = Path(name)
        weakref.finalize(self, self.path.unlink, missing_ok=True)


def begin() -> None:
    """Start a run; on a first visit open the sample, or the file that was asked for."""
    session = st.session_state
    if "_settings" not in session:
        session["_settings"] = Settings()
        session["_undo"], session["_redo"] = [], []
        path = os.environ.get("PLUMBLINE_FILE", "")
        if path:
            open_path(path, trusted=True)
        else:
            open_sample()


def open_sample() -> None:
    """Read the bundled sample."""
    _open(Source(compute.SAMPLE.name, compute.SAMPLE, "sample"))


def open_path(text: str, *, trusted: bool = False) -> None:
    """Read a file of this machine; only where the server is this machine's own."""
    if not text or (not trusted and not is_local()):
        return
    path = Path(text).expanduser()
    _open(Source(path.name or text, path, "path"))


def open_upload(widget: str) -> None:
    """Read the files that an uploader holds; their bytes go to temporary files."""
    uploads = st.session_state.get(widget)
    if not uploads:
        return
    first, *others = [kept(upload) for upload in uploads]
    _open(replace(first, more=tuple(others)))
    empty_uploaders()


def open_session(widget: str) -> None:
    """Take the Settings of a session file from an uploader."""
    upload = st.session_state.get(widget)
    if upload is None:
        return
    empty_uploaders()
    try:
        wanted = Settings.from_json(upload.getvalue().decode("utf-8", "replace"))
        wanted = wanted.replace(
            method=_known(wanted.method),
            calibrators=tuple(_known(name) for name in wanted.calibrators),
        )
    except DataError as error:
        state.refuse(error)
        return
    state.put(wanted)
    st.session_state["_message"] = "Session opened."


def kept(upload: Any) -> Source:
    """Put the bytes of an upload into a temporary file that goes with the session."""
    holder = _Spool(upload.getvalue())
    return Source(upload.name, holder.path, "upload", holder=holder)


def empty_uploaders() -> None:
    """Give every uploader a new key, so that it is empty at its next drawing."""
    st.session_state["_upload_round"] = st.session_state.get("_upload_round", 0) + 1


def forget() -> None:
    """Drop the file, what was computed of it and every choice; the sample is left."""
    kept_round = st.session_state.get("_upload_round", 0) + 1
    compute.forget()
    jobs.forget_all()
    for name in list(st.session_state):
        del st.session_state[name]
    st.session_state["_upload_round"] = kept_round
    st.session_state["_settings"] = Settings()
    st.session_state["_undo"], st.session_state["_redo"] = [], []
    st.session_state["_message"] = "Forgotten."
    open_sample()


def is_local() -> bool:
    """Whether only this machine can reach the server, so that paths are its user's."""
    address = str(st.get_option("server.address") or "")
    address = address or os.environ.get("STREAMLIT_SERVER_ADDRESS", "")
    return address in {"localhost", "127.0.0.1", "::1"}


def ensure_study() -> bool:
    """Read the candidate, if there is one; False while that is under way."""
    wish = st.session_state.get("_candidate")
    if wish is None:
        return True
    file, wanted = wish
    name = f"read {file.number} {state.reading(wanted)!r}"

    def read(progress: Any) -> tuple[Study, Schema]:
        if file.kind == "sample" and state.reading(wanted) == state.reading(Settings()):
            return compute.sample()
        return open_study(file.paths, wanted, name=file.names, progress=progress)

    try:
        found = jobs.run(name, "Reading the file", read, slot="read", again=False)
    except DataError as error:
        state.refuse(error, file, wanted)
        _end_of_wish(name)
        return True
    except Cancelled:
        _end_of_wish(name)
        return True
    if found is None:
        # Widgets that are not drawn meanwhile lose their values.
        st.session_state["_push"] = "_drawn" in st.session_state
        return False
    _take(file, wanted, *found)
    _end_of_wish(name)
    return True


def _take(file: Source, wanted: Settings, made: Study, understood: Schema) -> None:
    session = st.session_state
    before = state.source()
    if before is not None and before.number != file.number:
        session["_undo"], session["_redo"] = [], []
    elif before is not None and not session.get("_is_step"):
        state.remember(state.settings())
    session["_study"], session["_schema"], session["_source"] = made, understood, file
    state.dismiss()
    state.accept(wanted)


def _end_of_wish(name: str) -> None:
    st.session_state.pop("_candidate", None)
    st.session_state.pop("_is_step", None)
    jobs.forget(name)


def _open(file: Source) -> None:
    """Make a file the candidate; what it does not concern stays as chosen."""
    state.dismiss()
    plain = Settings()
    own = {name: getattr(plain, name) for name in READING_FIELDS}
    own["split"] = plain.split
    st.session_state["_candidate"] = (file, state.settings().replace(**own))


def _known(method: str) -> str:
    try:
        return CALIBRATORS[method].id
    except KeyError:
        raise DataError(
            f"The session names a calibrator that this version does not know: "
            f"{method!r}.",
            "session file",
            f"Use one of: {', '.join(CALIBRATORS)}.",
        ) from None
