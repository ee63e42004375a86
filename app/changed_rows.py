"""Single rows before and after a calibrator, on the Calibrators page."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import state
from components import changed_rows as figures
from components import display
from core.analysis import Analysis
from core.changed_rows import changed_rows

__all__ = ["section"]


def section(analysis: Analysis, method: str, label: str, stem: str) -> None:
    """Draw each row's confidence before and after, and list the changed rows.

    Parameters
    ----------
    analysis : Analysis
    method, label : str
        Id of a fitted calibrator, and its name on the page.
    stem : str
        Starts the names of its downloads.
    """
    box = st.expander("Row by row", key=state.key("row_by_row"), on_change="rerun")
    split = analysis.overview.split
    if not box.open or split is None:
        return
    before = analysis.overview.rows.take(split.test)
    found = figures.scatter_table(before, analysis.fitted[method].rows)
    with box:
        left, right = st.columns([10, 11], gap="large")
        with left:
            display.figure(
                figures.scatter_figure(found),
                alt=figures.scatter_alt(found),
                name=f"{stem}-rows-{method}",
                key=state.key("figure_row_by_row"),
                table=found,
            )
            more = ""
            if len(found) > figures.MOST_POINTS:
                more = f" {figures.MOST_POINTS:,} of {len(found):,} rows are drawn."
            st.caption(f"{label}, rows that it never saw.{more}")
        with right:
            moved = changed_rows(analysis, method)
            st.markdown("**Rows whose prediction changed**")
            if moved.empty:
                st.markdown("None.")
                return
            display.table(
                figures.rows_frame(moved),
                alt="Rows whose predicted class changed, the surest first",
                data=partial(changed_rows, analysis, method),
                name=f"{stem}-changed-{method}",
                key=state.key("get_changed_rows"),
            )
            shown = min(len(moved), figures.SHOWN)
            st.caption(f"{shown:,} of {len(moved):,}, the surest after it first.")
