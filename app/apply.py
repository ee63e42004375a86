"""Apply a calibrator to new rows: the one fitted here, or one that was saved."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import streamlit as st

from app import compute, jobs, opening, state
from components import display, tables
from core.analysis import UNCALIBRATED
from core.calibrators import CALIBRATORS, Calibrator
from core.export import (
    apply_calibrator,
    export_metadata,
    exported_calibrator,
    from_json,
    read_new_rows,
)
from core.loading import READING_FIELDS
from core.messages import (
    Answer,
    Cancelled,
    DataError,
    FitError,
    Note,
    Progress,
    part_of,
)
from core.predictions import Study
from core.settings import Settings

__all__ = ["Applied", "Saved", "draw"]

FIRST_ROWS = 20
WITH = {"fitted": "The calibrator above", "saved": "A saved calibrator"}

_numbers = itertools.count()


@dataclass(frozen=True, eq=False)
class Saved:
    """A calibrator that was read from a JSON file.

    Parameters
    ----------
    name : str
        Of the file.
    calibrator : Calibrator
    metadata : dict
        What the file says of its origin.
    """

    name: str
    calibrator: Calibrator
    metadata: dict[str, Any]
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def label(self) -> str:
        """How the page names the method."""
        return CALIBRATORS[self.calibrator.method_id].label


@dataclass(frozen=True, eq=False)
class Applied:
    """Calibrated rows.

    Parameters
    ----------
    frame : DataFrame
    notes : tuple of Note
        Made while the rows were read.
    n_left_out : int
        Rows that could not be read.
    """

    frame: pd.DataFrame
    notes: tuple[Note, ...]
    n_left_out: int


def draw(study: Study, wanted: Settings | None) -> None:
    """Draw the section of the Export page.

    Parameters
    ----------
    study : Study
        The file that is open.
    wanted : Settings or None
        Name the calibrator to fit; None where nothing can be fitted, so that only a
        saved one can be applied.
    """
    st.subheader("Apply to new rows", anchor=False)
    way = "saved"
    if wanted is not None:
        way = st.segmented_control(
            "With",
            list(WITH),
            default="fitted",
            required=True,
            format_func=lambda name: WITH[name],
            key=state.key("apply_with"),
            label_visibility="collapsed",
        )
    saved = None
    if way == "saved" or wanted is None:
        saved = _saved_section()
        if saved is None:
            return
    widget = state.key("upload_new")
    st.file_uploader(
        "New predictions of the same model; no labels needed",
        key=widget,
        on_change=_open_rows,
        args=(widget, saved is None),
    )
    _apply(study, wanted, saved)


def _saved_section() -> Saved | None:
    """Take a JSON file of a calibrator, and say what it is."""
    problem: DataError | None = st.session_state.get("_saved_problem")
    widget = state.key("upload_saved")
    st.file_uploader(
        "Calibrator (the JSON file of an export)",
        type=["json"],
        key=widget,
        on_change=_open_saved,
        args=(widget,),
    )
    if problem is not None:
        display.error_box(problem, example=False, key=state.key("saved_problem"))
    saved: Saved | None = st.session_state.get("_saved")
    if saved is not None:
        st.markdown(saved_words(saved))
    return saved


def saved_words(saved: Saved) -> str:
    """Return what a saved calibrator is and where it comes from, as Markdown."""
    known = saved.metadata
    parts = [tables.count_of(len(known["classes"]), "class", "classes")]
    if known.get("file"):
        rows = tables.count_of(int(known.get("n_fit_rows") or 0), "row")
        parts.append(f"fitted on {rows} of {display.code(known['file'])}")
    if known.get("date"):
        parts.append(display.escape_markdown(str(known["date"])[:10]))
    codes = {item.get("code") for item in known.get("notes", [])}
    badge = " :orange-badge[tuned on test]" if "tuned-on-test" in codes else ""
    line = " \u00b7 ".join(parts)
    label = display.escape_markdown(saved.label)
    return f"**{label}** :small[:gray[{line}]]{badge}"


def _open_saved(widget: str) -> None:
    upload = opening.given_file(widget)
    if upload is None:
        return
    now = st.session_state
    opening.empty_uploaders()
    now.pop("_saved", None)
    now.pop("_saved_problem", None)
    try:
        calibrator, metadata = from_json(upload.getvalue())
        now["_saved"] = Saved(upload.name, calibrator, metadata)
    except DataError as error:
        now["_saved_problem"] = DataError(error.what, upload.name, error.how_to_fix)


def _open_rows(widget: str, is_fitted_here: bool) -> None:  # noqa: FBT001 - a callback
    """Take rows without labels from an uploader."""
    upload, known = opening.given_file(widget), state.study()
    if upload is None or known is None:
        return
    plain, now = Settings(), state.settings()
    own = {name: getattr(plain, name) for name in READING_FIELDS}
    own["label_column"] = ""  # labels play no part
    if is_fitted_here:
        own["score_columns"] = now.score_columns
        own["input_kind"] = known.evaluation.input_kind
    st.session_state["_new_rows"] = (opening.kept(upload), plain.replace(**own))
    opening.empty_uploaders()


def _amend(chosen: Answer) -> None:
    """Answer the question that the new rows raised, and read them again."""
    found = st.session_state.get("_new_rows")
    if found is not None:
        file, before = found
        wanted = before.replace(**chosen.change)
        st.session_state["_new_rows"] = (file, wanted)


def _apply(study: Study, wanted: Settings | None, saved: Saved | None) -> None:
    """Calibrate the rows that were given, else those of the open file."""
    given: tuple[opening.Source, Settings] | None = st.session_state.get("_new_rows")
    has_own = saved is not None and not state.is_sample()
    if given is None and not (has_own and study.evaluation.logits is not None):
        return
    name = study.evaluation.name if given is None else given[0].name

    def work(report: Progress) -> Applied:
        calibrator, metadata = _calibrator(study, wanted, saved, report)
        rows = study.evaluation
        if given is not None:
            file, reading = given
            rows = read_new_rows(
                file.path,
                metadata,
                name=file.name,
                progress=part_of(report, 0.6, 0.9),
                **{name: getattr(reading, name) for name in READING_FIELDS},
            )
        report(0.9, "Calibrating")
        frame = apply_calibrator(calibrator, metadata, rows)
        return Applied(frame, rows.notes, len(rows.left_out))

    rows = "" if given is None else f"{given[0].number} {given[1]!r}"
    by = "" if wanted is None else wanted.to_json()
    by = by if saved is None else f"saved {saved.number}"
    try:
        done = jobs.run(
            f"apply {study.identity} {by} {rows}",
            "Calibrating the new rows",
            work,
            slot="apply",
        )
    except (DataError, FitError) as error:
        on_answer = None if given is None else _amend
        display.error_box(
            error,
            on_answer=on_answer,
            key=state.key("new_rows_problem"),
        )
        return
    except Cancelled:
        return
    if done is not None:
        label = saved.label if saved else CALIBRATORS[_method(wanted)].label
        _show(done, name, label)


def _method(wanted: Settings | None) -> str:
    return UNCALIBRATED if wanted is None else CALIBRATORS[wanted.method].id


def _calibrator(
    study: Study, wanted: Settings | None, saved: Saved | None, report: Progress
) -> tuple[Calibrator, dict[str, Any]]:
    """Return the calibrator to apply with what is known of it; fitted where needed."""
    if saved is not None:
        return saved.calibrator, saved.metadata
    assert wanted is not None  # noqa: S101 - then only saved ones are offered
    method = _method(wanted)
    found = compute.analysis(study, wanted, part_of(report, 0.0, 0.6))
    if method != UNCALIBRATED and method not in found.fitted:
        raise FitError(
            "This calibrator could not be fitted.",
            study.evaluation.name,
            "Choose another one, or a saved one.",
        )
    return exported_calibrator(found, method), export_metadata(found, method)


def _show(done: Applied, name: str, label: str) -> None:
    """Show the first calibrated rows, and give away all of them."""
    n_left_out = done.n_left_out
    st.markdown(
        f"**{tables.count_of(len(done.frame), 'row')}** of {display.code(name)} "
        f"calibrated by {display.escape_markdown(label)}"
        + (f"; {tables.count_of(n_left_out, 'row')} left out." if n_left_out else ".")
    )
    first = done.frame.head(FIRST_ROWS)
    st.dataframe(
        first,
        hide_index=True,
        height=min(36 * (len(first) + 1) + 2, 420),
        alt=f"Calibrated rows, the first {len(first)}",
        placeholder="\N{EN DASH}",
    )
    row = display.downloads(
        done.frame,
        f"{display.file_stem(name)}-calibrated",
        state.key("get_applied"),
        "Download calibrated CSV",
    )
    with row:
        if len(done.frame) > len(first):
            st.markdown(
                f":small[:gray[The first {len(first)} rows are shown.]]",
                width="content",
            )
    display.notes(done.notes)
