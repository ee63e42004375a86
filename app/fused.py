"""A user's own ONNX model with something behind it: taken, verified and offered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from app import jobs, opening, state
from components import display, tables
from core.export import Verification
from core.export.detectors import DetectorVerification
from core.messages import Cancelled, DataError, FitError, Progress

__all__ = ["Written", "model_file", "offer", "proof", "take_model", "written"]


@dataclass(frozen=True, eq=False)
class Written:
    """A model with a calibrator, a detector or both behind it.

    Parameters
    ----------
    name : str
        Of the file to download.
    data : bytes
    words : str
        What of the model is read, as Markdown.
    verification : Verification or DetectorVerification
    """

    name: str
    data: bytes
    words: str
    verification: Verification | DetectorVerification


def take_model(name: str) -> None:
    """Take the user's model; the pages that want one share it."""
    widget = state.key(name)
    st.file_uploader(
        "Your model, in one file",
        type=["onnx"],
        max_upload_size=512,
        key=widget,
        on_change=opening.open_model,
        args=(widget,),
    )


def model_file() -> opening.Source | None:
    """Return the model that was taken."""
    found: opening.Source | None = st.session_state.get("_model")
    return found


def written(
    key: str, work: Callable[[Progress], Written], slot: str, problem: str
) -> Written | None:
    """Write and verify off the script thread; None while that is under way.

    Parameters
    ----------
    key : str
        Of the job: what the file depends on.
    work : callable
    slot, problem : str
        Of the job, and the key of the box that says why there is no file.
    """
    try:
        return jobs.run(key, "Putting it behind your model", work, slot=slot)
    except (DataError, FitError) as error:
        display.error_box(error, example=False, key=state.key(problem))
    except Cancelled:
        pass
    return None


def proof(found: Verification | DetectorVerification) -> None:
    """Say what the verification of a file found."""
    said = display.escape_markdown(found.sentence)
    if not found.is_run:
        st.markdown(f":small[:gray[:material/info: {said}]]")
    elif found.ok:
        rows = tables.count_of(found.n_rows, "row")
        rows += " of made-up inputs" if found.is_made_up else ""
        if isinstance(found, DetectorVerification):
            changes = tables.count_of(found.n_decision_changes, "decision")
            rows += f", {changes} changed"
        st.markdown(
            ":green[:material/check_circle:] :small[largest difference "
            f"{found.max_difference:.1e} over {rows}, {found.seconds:.1f} s]"
        )
    elif found.is_offered:
        st.warning(said, title="Not within the tolerance", icon=":material/warning:")
    else:
        st.error(said, title="Not offered", icon=":material/error:")


def offer(made: Written, name: str) -> None:
    """Offer the file, where its verification allows it."""
    if made.verification.is_offered:
        st.download_button(
            "Download",
            data=made.data,
            file_name=made.name,
            mime="application/octet-stream",
            icon=":material/download:",
            key=state.key(name),
            on_click="ignore",
            help=made.name,
        )
