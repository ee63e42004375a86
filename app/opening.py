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
from streamlit.runtime.uploaded_file_manager import DeletedFile

from app import compute, jobs, memory, state
from core.calibrators import CALIBRATORS
from core.loading import (
    READING_FIELDS,
    Schema,
    add_copies,
    add_head,
    add_ood,
    add_reference,
    open_study,
)
from core.messages import Cancelled, DataError, Progress, part_of
from core.predictions import Study
from core.registry import Registry
from core.settings import Settings

__all__ = [
    "Source",
    "begin",
    "drop_beside",
    "drop_copies",
    "empty_uploaders",
    "ensure_study",
    "forget",
    "given_file",
    "is_local",
    "kept",
    "open_beside",
    "open_copies",
    "open_maps",
    "open_model",
    "open_path",
    "open_rankings",
    "open_sample",
    "open_sample_copies",
    "open_sample_maps",
    "open_sample_strangers",
    "open_session",
    "open_upload",
]

BESIDE = ("copies", "fit_copies", "reference", "ood", "head")
"""What files beside the rows are for: fields of `Source`."""

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
    kind : {"sample", "sample-ood", "upload", "path"}
    more : tuple of Source
        The other files of the same upload.
    copies, fit_copies : tuple of Source
        Files of transformed copies of the rows, and of the calibration file's rows.
    reference, ood, head : tuple of Source
        Files of the rows that detectors are fitted on, of out-of-distribution sets (one
        or more each), and of the last layer of the network (one).
    """

    name: str
    path: Path
    kind: str
    number: int = field(default_factory=lambda: next(_numbers))
    holder: Any = None
    more: tuple[Source, ...] = ()
    copies: tuple[Source, ...] = ()
    fit_copies: tuple[Source, ...] = ()
    reference: tuple[Source, ...] = ()
    ood: tuple[Source, ...] = ()
    head: tuple[Source, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of every file that is read together."""
        return (self.path, *(item.path for item in self.more))

    @property
    def beside(self) -> tuple[tuple[str, int], ...]:
        """Role and number of every file that is read beside the rows."""
        return tuple((r, item.number) for r in BESIDE for item in getattr(self, r))

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
    now = memory.Visit.now()
    if now is not None:
        compute.visit(now.session, now)
    if session.pop("_is_new", False):  # the page before was drawn for other rows
        memory.forget_widgets()
        memory.tidy()
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
    uploads = given_files(widget)
    if not uploads:
        return
    first, *others = [kept(upload) for upload in uploads]
    _open(replace(first, more=tuple(others)))
    empty_uploaders()
    memory.let_go(uploads)


def open_copies(widget: str, role: str) -> None:
    """Take files of transformed copies from an uploader; the rows are read again.

    Parameters
    ----------
    widget : str
    role : {"copies", "fit_copies"}
        Which field of the source they are added to.
    """
    open_beside(widget, role)


def drop_copies(role: str) -> None:
    """Drop the uploaded copies."""
    drop_beside(role)


def open_beside(widget: str, role: str) -> None:
    """Take files that are read beside the rows from an uploader.

    Parameters
    ----------
    widget : str
    role : str
        Of `BESIDE`. Copies and OOD sets join those that are there; a reference and a
        last layer take their place.
    """
    uploads, file = given_files(widget), state.source()
    if not uploads or file is None:
        return
    found = tuple(kept(upload) for upload in uploads)
    if role not in ("reference", "head"):
        found = (*getattr(file, role), *found)
    _read_again(_with(file, role, found))
    empty_uploaders()
    memory.let_go(uploads)


def drop_beside(role: str, number: int | None = None) -> None:
    """Drop the files of a role, or the one of a number."""
    file = state.source()
    if file is not None:
        left = (i for i in getattr(file, role) if i.number != number)
        _read_again(_with(file, role, () if number is None else tuple(left)))


def open_sample_copies() -> None:
    """Take the copies that come with the sample."""
    file = state.source()
    if file is not None:
        bundled = Source(compute.SAMPLE_COPIES.name, compute.SAMPLE_COPIES, "path")
        _read_again(replace(file, copies=(bundled,)))


def open_sample_strangers() -> None:
    """Read the bundled out-of-distribution sets, with their reference rows."""
    rows = Source(compute.SAMPLE_STRANGERS.name, compute.SAMPLE_STRANGERS, "sample-ood")
    path = compute.SAMPLE_REFERENCE
    _open(replace(rows, reference=(Source(path.name, path, "path"),)))


def _with(file: Source, role: str, files: tuple[Source, ...]) -> Source:
    """Return a source with other files of one role."""
    changed: dict[str, Any] = {role: files}
    return replace(file, **changed)


def _read_again(file: Source) -> None:
    """Read the same rows once more, with other files beside them."""
    state.dismiss()
    st.session_state["_candidate"] = (file, state.settings())


def open_session(widget: str) -> None:
    """Take the Settings of a session file from an uploader."""
    upload = given_file(widget)
    if upload is None:
        return
    empty_uploaders()
    # The first chart does not wait for the detectors.
    from core.ood import DETECTORS

    try:
        wanted = Settings.from_json(upload.getvalue().decode("utf-8", "replace"))
        wanted = wanted.replace(
            method=_known(wanted.method),
            calibrators=tuple(_known(name) for name in wanted.calibrators),
            detector=_known(wanted.detector, DETECTORS),
            detectors=tuple(_known(name, DETECTORS) for name in wanted.detectors),
        )
    except DataError as error:
        state.refuse(error)
        return
    state.put(wanted)
    st.session_state["_message"] = "Session opened."


def open_model(widget: str) -> None:
    """Take the user's own ONNX model from an uploader; it stays with the session."""
    upload = given_file(widget)
    if upload is not None:
        st.session_state["_model"] = kept(upload)
        empty_uploaders()


def open_maps(widget: str) -> None:
    """Take a file of segmentation maps from an uploader; it stays with the session."""
    upload = given_file(widget)
    if upload is not None:
        st.session_state["_maps"] = kept(upload)
        empty_uploaders()


def open_sample_maps() -> None:
    """Take the maps that are bundled."""
    path = compute.SAMPLE.with_name("digit_scenes.npz")
    st.session_state["_maps"] = Source(path.name, path, "sample")


def open_rankings(widget: str) -> None:
    """Take comparisons, or predictions, of further data sets from an uploader."""
    uploads = given_files(widget)
    if uploads:
        found = tuple(kept(upload) for upload in uploads)
        now = st.session_state.get("_rankings", ())
        st.session_state["_rankings"] = (*now, *found)
        empty_uploaders()
        memory.let_go(uploads)


def given_files(widget: str) -> list[Any]:
    """Return the files that an uploader holds, without those that were read before."""
    found = st.session_state.get(widget) or []
    files = found if isinstance(found, list) else [found]
    return [file for file in files if not isinstance(file, DeletedFile)]


def given_file(widget: str) -> Any:
    """Return the one file that an uploader holds, or None."""
    return next(iter(given_files(widget)), None)


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
    name = f"read {file.number} {file.beside} {state.reading(wanted)!r}"
    base = _base(file, wanted)

    def read(progress: Progress) -> tuple[Study, Schema]:
        if base is not None:
            made, schema, before = base
            return _beside(made, file, wanted, before, progress), schema
        part = part_of(progress, 0.0, 0.5) if file.beside else progress
        is_plain = state.reading(wanted) == state.reading(Settings())
        if file.kind == "sample" and is_plain:
            made, schema = compute.sample()
        else:
            made, schema = open_study(
                file.paths,
                wanted,
                name=file.names,
                needs_scores=False,
                progress=part,
            )
        rest = part_of(progress, 0.5, 1.0)
        return _beside(made, file, wanted, frozenset(), rest), schema

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


def _base(
    file: Source, wanted: Settings
) -> tuple[Study, Schema, frozenset[int]] | None:
    """Return the study that is there, where only more files come beside its rows.

    With it comes what was understood, and the numbers of the files that are read.
    """
    made, schema, before = state.study(), state.schema(), state.source()
    if made is None or schema is None or before is None:
        return None
    is_same = before.number == file.number and state.reads_alike(wanted)
    if not is_same or not set(before.beside) <= set(file.beside):
        return None
    return made, schema, frozenset(number for _, number in before.beside)


def _beside(
    made: Study,
    file: Source,
    wanted: Settings,
    before: frozenset[int],
    progress: Progress,
) -> Study:
    """Return a study with the files beside its rows, but for those it has already."""

    def new(files: tuple[Source, ...]) -> list[Source]:
        return [item for item in files if item.number not in before]

    for item in new(file.head):
        made = add_head(made, item.path, name=item.name)
    if found := new(file.reference):
        made = add_reference(
            made,
            [item.path for item in found],
            wanted,
            name=[item.name for item in found],
            progress=part_of(progress, 0.0, 0.4),
        )
    found = new(file.ood)
    for place, item in enumerate(found):
        start, stop = (0.4 + 0.4 * i / len(found) for i in (place, place + 1))
        report = part_of(progress, start, stop)
        made = add_ood(made, item.path, wanted, name=item.name, progress=report)
    for files, is_fit in ((file.copies, False), (file.fit_copies, True)):
        if found := new(files):
            made = add_copies(
                made,
                [item.path for item in found],
                wanted,
                names=[item.name for item in found],
                role="fit" if is_fit else "evaluation",
                progress=part_of(progress, 0.8, 1.0),
            )
    return made


def _take(file: Source, wanted: Settings, made: Study, understood: Schema) -> None:
    session = st.session_state
    before = state.source()
    if before is not None and before.number != file.number:
        session["_undo"], session["_redo"] = [], []
    elif before is not None and not session.get("_is_step"):
        state.remember(state.settings())
    session["_study"], session["_schema"], session["_source"] = made, understood, file
    if before is None:
        memory.give_back()
    else:
        # Nobody goes back to rows without reading them: results and widgets let go.
        compute.forget()
        jobs.forget_all()
        memory.forget_widgets()
        memory.tidy()
        session["_is_new"] = True
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


def _known(method: str, registry: Registry[Any] = CALIBRATORS) -> str:
    try:
        return str(registry[method].id)
    except KeyError:
        raise DataError(
            f"The session names a {registry.family} that this version does not know: "
            f"{method!r}.",
            "session file",
            f"Use one of: {', '.join(registry)}.",
        ) from None
