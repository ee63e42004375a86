"""Transformed copies of the rows on the Data page: add them, list them, drop them."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import opening, state
from components import display, tables
from core.companions import copies_problem
from core.predictions import Predictions, Study

__all__ = ["draw"]

WORDS = (
    "What the same model says of the same rows turned, shifted or noised. Calibrators "
    "such as **correctness-aware** read in them how sure the model really is. Give one "
    "file per transform, or one NPZ with several arrays (`copies` of shape "
    "`(transforms, rows, classes)`, or `logits_rotated`, `logits_noisy`, …). Rows "
    "match by id where both have one, else by order."
)


def draw(study: Study) -> None:
    """Draw the section."""
    st.subheader("Transformed copies", anchor=False)
    own = study.evaluation
    if own.logits is None:
        st.caption("Copies belong to rows with the scores of every class.")
        return
    st.markdown(f":small[:gray[{WORDS}]]", width=760)
    _one_role("copies", "Copies of these rows", study.copies)
    if study.fit is not None:
        name = display.code(study.fit.name)
        _one_role("fit_copies", f"Copies of the rows of {name}", study.fit_copies)
    has_some = bool(study.copies or study.fit_copies)
    problem = copies_problem(study) if has_some else None
    if problem is not None:
        st.markdown(f":orange[:material/warning: {problem}]")


def _one_role(role: str, label: str, found: tuple[Predictions, ...]) -> None:
    """Draw the uploader and the list of the copies of one file."""
    left, right = st.columns([3, 2], gap="large")
    widget = state.key(f"upload_{role}")
    with left:
        st.file_uploader(
            label,
            accept_multiple_files=True,
            key=widget,
            on_change=opening.open_copies,
            args=(widget, role),
        )
    with right:
        if not found:
            st.caption("None yet.")
        else:
            frame = pd.DataFrame(
                {
                    "Copy": [item.name for item in found],
                    "Rows": [len(item) for item in found],
                    "Matched by": [
                        "order" if item.roles.id is None else "id" for item in found
                    ],
                }
            )
            st.dataframe(
                frame,
                hide_index=True,
                height=min(36 * (len(frame) + 1) + 2, 220),
                alt=f"{tables.count_of(len(found), 'copy', 'copies')} of the rows",
            )
        source = state.source()
        with st.container(horizontal=True, gap="small"):
            if role == "copies" and state.is_sample(is_first=True) and not found:
                st.button(
                    "Use the sample's copies",
                    key=state.key("use_sample_copies"),
                    on_click=opening.open_sample_copies,
                    icon=":material/science:",
                )
            if source is not None and getattr(source, role):
                st.button(
                    "Remove them",
                    key=state.key(f"drop_{role}"),
                    on_click=opening.drop_copies,
                    args=(role,),
                    icon=":material/delete:",
                    type="tertiary",
                )
