"""What a session holds: its Settings, its study, undo; the only place with keys.

One frozen `Settings` is the whole state. Widgets, the URL, the session file and undo
all end in `change` or `put`; a change that concerns reading the file becomes a
candidate, and the study that is there stays until the candidate could be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import compute
from core.loading import READING_FIELDS, Schema
from core.messages import Answer, DataError
from core.predictions import Study
from core.settings import Settings

if TYPE_CHECKING:
    from app.opening import Source

__all__ = [
    "COLUMN_ROLES",
    "Problem",
    "accept",
    "amend",
    "answer",
    "assign",
    "can_redo",
    "can_undo",
    "change",
    "dismiss",
    "fill",
    "give_role",
    "is_sample",
    "key",
    "message",
    "problem",
    "pull",
    "put",
    "reading",
    "reads_alike",
    "redo",
    "refuse",
    "remember",
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


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What went wrong with the last wish; the study before it is still there."""

    error: DataError
    source: Source | None
    settings: Settings | None


def key(name: str, *, resets: bool = False) -> str:
    """Return the key of a widget.

    Uploaders get a new one after each upload, and so do the popovers that they are in
    (which are shut by it), widgets that reset after each refusal.
    """
    if name.startswith(("upload", "open_file")):
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


def is_sample(*, is_first: bool = False) -> bool:
    """Whether the study is a bundled sample, or the one that a session starts with."""
    found = source()
    kinds = ("sample",) if is_first else ("sample", "sample-ood")
    return found is not None and found.kind in kinds


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
        refuse(error)
        return
    is_first = not st.session_state.get("_pulled", False)
    st.session_state["_pulled"] = True
    if wanted != now:
        if not is_first:  # a link says where a session starts: nothing to undo
            remember(now)
        st.session_state["_settings"] = wanted


def change(**fields: Any) -> None:
    """Change some fields of the Settings; for callbacks, or before a rerun.

    Reading fields have the file read again; if that fails, nothing has changed.
    """
    try:
        wanted = settings().replace(**fields)
    except DataError as error:
        refuse(error)
        return
    put(wanted)


def put(wanted: Settings) -> None:
    """Take other Settings as a whole."""
    now, file = settings(), source()
    if wanted == now:
        return
    dismiss()
    if file is not None and reading(wanted) != reading(now):
        st.session_state["_candidate"] = (file, wanted)
        return
    remember(now)
    accept(wanted)


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
    if file is not None and reading(wanted) != reading(now):
        st.session_state["_candidate"] = (file, wanted)
        st.session_state["_is_step"] = True
        return
    accept(wanted)


def answer(chosen: Answer) -> None:
    """Answer the question that a file raised, and read it again."""
    amend(**chosen.change)


def amend(**fields: Any) -> None:
    """Change how a file is read: the one that failed, else the one that is there."""
    found = problem()
    if found is None or found.source is None or found.settings is None:
        change(**fields)
        return
    try:
        wanted = found.settings.replace(**fields)
    except DataError as error:
        refuse(error, found.source, found.settings)
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


def assign(name: str, value: Any) -> None:
    """Give a widget a value; for callbacks."""
    st.session_state[key(name)] = value


def refuse(
    error: DataError, file: Source | None = None, wanted: Settings | None = None
) -> None:
    """Keep what went wrong, to be shown."""
    st.session_state["_problem"] = Problem(error, file, wanted)
    st.session_state["_refusals"] = st.session_state.get("_refusals", 0) + 1


def reading(of: Settings) -> tuple[Any, ...]:
    """Return those of the Settings that say how a file is read."""
    return tuple(getattr(of, name) for name in READING_FIELDS)


def reads_alike(other: Settings) -> bool:
    """Whether other Settings read the file as the present ones do."""
    return reading(other) == reading(settings())


def remember(before: Settings) -> None:
    """Make a change one that can be taken back."""
    st.session_state["_undo"] = [*st.session_state["_undo"][-19:], before]
    st.session_state["_redo"] = []


def accept(wanted: Settings) -> None:
    """Make Settings the present ones; the widgets follow."""
    if wanted != settings():
        st.session_state["_settings"] = wanted
        st.session_state["_push"] = True
