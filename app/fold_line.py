"""The fold line of the Overview: worst class, worst slice, rows to review."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import compute, state
from components import display, tables
from core.analysis import Analysis
from core.attention import Finding
from core.listing import list_rows, most_surprising

__all__ = ["draw"]

SHOWN_ROWS = 5
TAKEN_ROWS = 100
COLUMNS: dict[str, Any] = {
    "label": "Label",
    "prediction": "Predicted",
    "confidence": st.column_config.NumberColumn("Confidence", format="%.3f"),
    "probability_of_label": st.column_config.NumberColumn(
        "Probability of the label", format="%.2g"
    ),
    "correct": "Correct",
    "file_row": "Row",
}


def draw(analysis: Analysis, stem: str) -> None:
    """Draw the cards that the file allows: before any repair, all labelled rows."""
    study, chosen = analysis.study, analysis.settings
    by_class, by_slice = compute.attention(study, chosen)
    own = study.evaluation
    st.subheader("Worth a look", anchor=False)
    cards = []
    if own.logits is not None and own.n_classes > 2:
        cards.append(("Worst class", by_class, "classes"))
    if own.roles.slices:
        cards.append(("Worst slice", by_slice, "slices"))
    if cards:
        columns = st.columns(2, gap="small")
        for column, (title, found, noun) in zip(columns, cards, strict=False):
            with column, st.container(border=True, height="stretch", gap="xsmall"):
                st.markdown(f"**{title}**\u2002{finding_words(found, noun)}")
                if found is not None:
                    _why(found, chosen.seed)
    _surprising(analysis, stem)


def finding_words(found: Finding | None, noun: str) -> str:
    """Return what was found, or that nothing is detectable, as Markdown."""
    if found is None:
        return f":gray[No {noun} with at least 20 rows in each half.]"
    item = found.estimate
    where = f"{found.n_inside:,} of {tables.count_of(item.n, 'row')}"
    if not found.is_detectable:
        searched = f"among {found.n_searched:,} {noun} ({item.n:,} rows)"
        return f":gray[Nothing detectable {searched}.]"
    side = "above" if item.value > 0 else "below"
    ends = " to ".join(tables.format_value("gap", end) for end in (item.low, item.high))
    size = f"**{abs(100 * item.value):.1f}** points {side}"
    if not found.column:
        return (
            f"{display.code(found.value)} its probability lies {size} its share "
            f":gray[({ends}; {where})]."
        )
    gap = tables.format_value("gap", found.gap)
    return (
        f"{display.code(f'{found.column} = {found.value}')} gap {gap} points, {size} "
        f"that of all other rows :gray[({ends}; {where})]."
    )


def _why(found: Finding, seed: int) -> None:
    with st.popover("Why this number?", type="tertiary"):
        noun = "slices" if found.column else "classes"
        means = (
            "mean confidence minus accuracy inside, minus the same outside"
            if found.column
            else "mean probability of the class minus the share of rows that have it"
        )
        st.markdown(
            f"Found among {found.n_searched:,} {noun} on one half of the rows, whole "
            f"groups together (seed {seed}); measured on the other half: "
            f"{found.estimate.n:,} rows, {found.n_inside:,} of them inside.\n\n"
            f"The number: {means}. {found.estimate.level:.0%} normal interval, by "
            "group where there are groups. What was searched is not what is measured, "
            "so that looking at many costs nothing."
        )


def _surprising(analysis: Analysis, stem: str) -> None:
    """List the rows whose label the model thought least likely."""
    own, overview = analysis.study.evaluation, analysis.overview
    rows = most_surprising(overview.rows, overview.used, TAKEN_ROWS)
    frame = list_rows(own, overview.rows.take(rows), rows)
    shown = [*([own.roles.id] if own.roles.id else []), *COLUMNS]
    with st.container(border=True, gap="small"):
        st.markdown(
            "**Rows to review**\u2002The labels that the model thought least likely: "
            "wrong labels, hard rows, or a blind spot. "
            f":gray[({len(overview.used):,} rows searched)]"
        )
        st.dataframe(
            frame.head(SHOWN_ROWS),
            hide_index=True,
            column_order=[name for name in shown if name in frame],
            column_config=COLUMNS,
            alt=f"The {min(SHOWN_ROWS, len(frame))} most surprising rows",
        )
        with st.container(horizontal=True, gap="small"):
            display.download_table(
                frame,
                f"{stem}-review",
                state.key("get_review"),
                f"The first {len(frame):,}, as CSV",
            )
            st.page_link("views/reliability.py", label="Rows of a bin")
