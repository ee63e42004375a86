"""What a session holds: its Settings, its study, undo; the only place with keys.

One frozen `Settings` is the whole state. Widgets, the URL, the session file and undo
all end in `change` or `put`; a change that concerns reading the file becomes a
candidate, and the study that is there stays until the candidate could be read.
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

from app import compute, jobs
from core.calibrators import CALIBRATORS
from core.loading import READING_FIELDS, Schema, open_study
from core.messages import Answer, Cancelled, DataError
from core.predictions import Study
from core.settings import Settings

__all__ = [
    "COLUMN_ROLES",
    "Problem",
    "Source",
    "amend",
    "answer",
    "assign",
    "begin",
    "can_redo",
    "can_undo",
    "change",
    "dismiss",
    "ensure_study",
    "fill",
    "forget",
    "give_role",
    "is_local",
    "is_sample",
    "kept",
    "key",
    "message",
    "open_path",
    "open_sample",
    "open_session",
    "open_upload",
    "problem",
    "pull",
    "put",
    "reads_alike",
    "redo",
    "schema",
    "settings",
    "source",
    "study",
    "target_schema",
    "touch",
    "undo",
]

# Widgets that are in the URL on every page: key, a public name -> field of Settings.
URL_KEYS = {
    "bins": "n_bins",
    "binning": "strategy",
    "level": "level",
    "method": "method",
}
COLUMN_ROLES = ("label", "group", "split", "id", "weight", "time")
"""Roles that one column plays, each a field of Settings."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What went wrong with the last wish; the study before it is still there."""

    error: DataError
    source: Source | None
    settings: Settings | None


def key(name: str, *, resets: bool = False) -> str:
    """Return the key of a widget.

    Uploaders get a new one after each upload, widgets that reset after each refusal.
    """
    if name.startswith("upload"):
        return f"{name}-{st.session_state.setdefault('_upload_round', 0)}"
    return f"{name}-{st.session_state.get('_refusals', 0)}" if resets else name


def settings() -> Settings:
    """Return everything that this session chose."""
    found: Settings = st.session_state["_settings"]
    return found


def study() -> Study | None:
    """Return what is analysed, or None before the first file could be read."""
    return st.session_state.get("_study")


def schema() -> Schema | None:
    """Return what was understood of the file."""
    return st.session_state.get("_schema")


def source() -> Source | None:
    """Return where the study came from."""
    return st.session_state.get("_source")


def is_sample() -> bool:
    """Whether the study is the bundled sample."""
    found = source()
    return found is not None and found.kind == "sample"


def problem() -> Problem | None:
    """Return what went wrong with the last wish."""
    return st.session_state.get("_problem")


def message() -> str | None:
    """Return a short confirmation once."""
    return st.session_state.pop("_message", None)


def can_undo() -> bool:
    """Whether there is a change to take back."""
    return any(item != settings() for item in st.session_state.get("_undo", []))


def can_redo() -> bool:
    """Whether there is a change to make again."""
    return any(item != settings() for item in st.session_state.get("_redo", []))


def begin() -> None:
    """Start a run; on a first visit open the sample, or the file that was asked for."""
    state = st.session_state
    if "_settings" not in state:
        state["_settings"] = Settings()
        state["_undo"], state["_redo"] = [], []
        path = os.environ.get("PLUMBLINE_FILE", "")
        if path:
            open_path(path, trusted=True)
        else:
            open_sample()


def fill(page: str) -> set[str]:
    """Put changed Settings into the widgets of the URL, before they are drawn.

    A change of page empties the URL; what is assigned comes back into it.

    Returns
    -------
    set of str
        Keys that were assigned: such a widget must not have a default too.
    """
    state = st.session_state
    # A run may be interrupted before the widgets are drawn: what it assigned counts.
    assigned: set[str] = state.get("_assigned", set())
    is_elsewhere = state.get("_page", page) != page
    state["_page"] = page
    if state.pop("_push", False) or is_elsewhere:
        plain = Settings()
        for widget, name in URL_KEYS.items():
            value = getattr(settings(), name)
            is_lost = is_elsewhere and value != getattr(plain, name)
            if is_lost or widget in assigned or state.get(widget) != value:
                state[widget] = value
                assigned.add(widget)
    state["_drawn"], state["_assigned"] = True, assigned
    return assigned


def touch(widget: str) -> None:
    """Remember that somebody changed a widget of the URL."""
    st.session_state["_touched"] = {*st.session_state.get("_touched", ()), widget}


def pull() -> None:
    """Take the values of the widgets in the URL into the Settings.

    The browser's Back may bring an address without them: nobody chose that, so the
    Settings stay and come back into the address.
    """
    now, touched = settings(), st.session_state.pop("_touched", set())
    st.session_state.pop("_assigned", None)
    values, is_lost = {}, False
    for widget, name in URL_KEYS.items():
        value = st.session_state.get(widget)
        if value is None or value == getattr(now, name):
            continue
        if widget in touched or widget in st.query_params:
            values[name] = value
        else:
            is_lost = True
    if is_lost:
        st.session_state["_push"] = True
        st.session_state["_assigned"] = set(URL_KEYS)  # the address set them all
        st.rerun()
    try:
        wanted = now.replace(**values)
    except DataError as error:
        _refuse(error)
        return
    is_first = not st.session_state.get("_pulled", False)
    st.session_state["_pulled"] = True
    if wanted != now:
        if not is_first:  # a link says where a session starts: nothing to undo
            _remember(now)
        st.session_state["_settings"] = wanted


def change(**fields: Any) -> None:
    """Change some fields of the Settings; for callbacks, or before a rerun.

    Reading fields have the file read again; if that fails, nothing has changed.
    """
    try:
        wanted = settings().replace(**fields)
    except DataError as error:
        _refuse(error)
        return
    put(wanted)


def put(wanted: Settings) -> None:
    """Take other Settings as a whole."""
    now, file = settings(), source()
    if wanted == now:
        return
    dismiss()
    if file is not None and _reading(wanted) != _reading(now):
        st.session_state["_candidate"] = (file, wanted)
        return
    _remember(now)
    _accept(wanted)


def undo() -> None:
    """Take back the last change of the Settings."""
    _step("_undo", "_redo")


def redo() -> None:
    """Make the change again that was taken back last."""
    _step("_redo", "_undo")


def _step(stack: str, other: str) -> None:
    """Take the newest Settings of one stack, and put the present ones on the other."""
    now, file = settings(), source()
    kept = [item for item in st.session_state[stack] if item != now]
    if not kept:
        return
    wanted = kept.pop()
    st.session_state[stack] = kept
    st.session_state[other] = [*st.session_state[other][-19:], now]
    dismiss()
    if file is not None and _reading(wanted) != _reading(now):
        st.session_state["_candidate"] = (file, wanted)
        st.session_state["_is_step"] = True
        return
    _accept(wanted)


def answer(chosen: Answer) -> None:
    """Answer the question that a file raised, and read it again."""
    amend(**{chosen.setting: chosen.value})


def amend(**fields: Any) -> None:
    """Change how a file is read: the one that failed, else the one that is there."""
    found = problem()
    if found is None or found.source is None or found.settings is None:
        change(**fields)
        return
    try:
        wanted = found.settings.replace(**fields)
    except DataError as error:
        _refuse(error, found.source, found.settings)
        return
    st.session_state["_candidate"] = (found.source, wanted)
    dismiss()


def give_role(column: str, before: str, after: str) -> None:
    """Give a column another role, and take the old one from it."""
    found = problem()
    base = (found.settings if found else None) or settings()
    known = target_schema()
    fields: dict[str, Any] = {}
    for role, is_given in ((before, False), (after, True)):
        if role in COLUMN_ROLES:
            fields[f"{role}_column"] = column if is_given else ""
        elif role in ("slice", "score") and known is not None:
            now = getattr(base, f"{role}_columns") or known.names(role)
            others = tuple(name for name in now if name != column)
            fields[f"{role}_columns"] = (*others, column) if is_given else others
    amend(**fields)


def target_schema() -> Schema | None:
    """Return what was understood of the file whose roles are being chosen."""
    found = problem()
    if found is None or found.source is None or found.settings is None:
        return schema()
    own = found.source
    try:
        paths = tuple(map(str, own.paths))
        return compute.inspected(paths, own.names, own.number, found.settings)
    except DataError:
        return schema() if study() is not None and source() is own else None


def dismiss() -> None:
    """Forget what went wrong."""
    st.session_state.pop("_problem", None)


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
        _refuse(error)
        return
    put(wanted)
    st.session_state["_message"] = "Session opened."


def kept(upload: Any) -> Source:
    """Put the bytes of an upload into a temporary file that goes with the session."""
    holder = _Spool(upload.getvalue())
    return Source(upload.name, holder.path, "upload", holder=holder)


def empty_uploaders() -> None:
    """Give every uploader a new key, so that it is empty at its next drawing."""
    st.session_state["_upload_round"] = st.session_state.get("_upload_round", 0) + 1


def assign(name: str, value: Any) -> None:
    """Give a widget a value; for callbacks."""
    st.session_state[key(name)] = value


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
    name = f"read {file.number} {_reading(wanted)!r}"

    def read(progress: Any) -> tuple[Study, Schema]:
        if file.kind == "sample" and _reading(wanted) == _reading(Settings()):
            return compute.sample()
        return open_study(file.paths, wanted, name=file.names, progress=progress)

    try:
        found = jobs.run(name, "Reading the file", read, slot="read", again=False)
    except DataError as error:
        _refuse(error, file, wanted)
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
    state = st.session_state
    before = source()
    if before is not None and before.number != file.number:
        state["_undo"], state["_redo"] = [], []
    elif before is not None and not state.get("_is_step"):
        _remember(settings())
    state["_study"], state["_schema"], state["_source"] = made, understood, file
    dismiss()
    _accept(wanted)


def _refuse(
    error: DataError, file: Source | None = None, wanted: Settings | None = None
) -> None:
    st.session_state["_problem"] = Problem(error, file, wanted)
    st.session_state["_refusals"] = st.session_state.get("_refusals", 0) + 1


def _end_of_wish(name: str) -> None:
    st.session_state.pop("_candidate", None)
    st.session_state.pop("_is_step", None)
    jobs.forget(name)


def _open(file: Source) -> None:
    """Make a file the candidate; what it does not concern stays as chosen."""
    dismiss()
    plain = Settings()
    own = {name: getattr(plain, name) for name in READING_FIELDS}
    own["split"] = plain.split
    st.session_state["_candidate"] = (file, settings().replace(**own))


def _reading(of: Settings) -> tuple[Any, ...]:
    return tuple(getattr(of, name) for name in READING_FIELDS)


def reads_alike(other: Settings) -> bool:
    """Whether other Settings read the file as the present ones do."""
    return _reading(other) == _reading(settings())


def _remember(before: Settings) -> None:
    st.session_state["_undo"] = [*st.session_state["_undo"][-19:], before]
    st.session_state["_redo"] = []


def _accept(wanted: Settings) -> None:
    if wanted != settings():
        st.session_state["_settings"] = wanted
        st.session_state["_push"] = True


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
