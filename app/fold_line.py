"""The fold line of the Overview: worst class, worst slice, rows to review."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from app import compute, jobs, state
from components import display, tables
from core.analysis import Analysis
from core.findings import Findings, StandOut
from core.predictions import Predictions
from core.uncertainty import Estimate

__all__ = ["draw"]

SHOWN_ROWS = 5
HELP = {
    "Worst predicted class": "Rows predicted as one class: their mean confidence minus "
    "their accuracy. Each class on the Reliability page is another number: its "
    "probability on all rows minus the share of rows that have it.",
    "Worst slice": "Found on one half of the labelled rows and measured on the other, "
    "whose rows are counted here: a slice that was searched for looks worse than it is "
    "where it was found.",
}
LONGEST = 60  # characters of a name
COLUMNS: dict[str, Any] = {
    "label": st.column_config.Column("Label", width=display.NAME_WIDTH),
    "prediction": st.column_config.Column("Predicted", width=display.NAME_WIDTH),
    "confidence": st.column_config.NumberColumn("Confidence", format="%.3f"),
    "probability_of_label": st.column_config.NumberColumn(
        "Probability of the label", format="%.2g"
    ),
    "file_row": "Row",
}
OURS = (*COLUMNS, "correct")


def draw(analysis: Analysis, stem: str) -> None:
    """Draw the cards that the file allows: before any repair, all labelled rows."""
    study, chosen = analysis.study, analysis.settings
    found = jobs.run(
        f"findings {study.identity} {chosen.to_json()}",
        "Looking at classes, slices and rows",
        partial(compute.findings, study, chosen),
        slot="findings",
    )
    if found is None:
        return
    own = study.evaluation
    st.subheader("Worth a look", anchor=False)
    cards = []
    if own.logits is not None:
        cards.append(("Worst predicted class", found.worst_class, found.class_reason))
    if own.roles.slices:
        cards.append(("Worst slice", found.worst_slice, found.slice_reason))
    if cards:
        columns = st.columns(2, gap="small")
        for column, (title, item, reason) in zip(columns, cards, strict=False):
            with column, st.container(border=True, height="stretch", gap="xsmall"):
                st.markdown(
                    f"**{title}**\u2002{finding_words(item, reason)}",
                    help=HELP.get(title),
                )
                if item is not None:
                    _why(item, title)
    _to_review(found, own, stem)


def finding_words(found: StandOut | None, reason: str) -> str:
    """Return what was found, or that nothing is detectable, as Markdown."""
    if found is None:
        return f":gray[{reason}]"
    if not found.is_detectable:
        n = tables.count_of(found.difference.n, "row")
        return f":gray[{found.sentence.rstrip('.')} ({n}).]"
    name = f"{found.column} = {found.value}" if found.column else found.value
    if len(name) > LONGEST:
        name = name[: LONGEST - 3] + "..."
    return (
        f"{display.code(name)}: gap **{_points(found.gap)}** points "
        f":gray[({_ends(found.gap)}; {found.gap.n:,} rows)]; all other rows "
        f"{_points(found.rest)} :gray[({_ends(found.rest)}; {found.rest.n:,} rows)]."
    )


def _points(item: Estimate) -> str:
    return tables.format_value("gap", item.value)


def _ends(item: Estimate) -> str:
    return tables.format_interval("gap", item)


def _why(found: StandOut, title: str) -> None:
    columns = {
        "Inside": {"gap": found.gap},
        "All other rows": {"gap": found.rest},
        "Difference": {"gap": found.difference},
    }
    key = state.key(f"get_{title.lower().replace(' ', '_')}")
    display.provenance(columns, [found.how], key)


def _to_review(found: Findings, own: Predictions, stem: str) -> None:
    """List the wrong rows whose label the model thought least likely.

    Where the file has one confidence per row, its other columns say what each row is.
    """
    frame = found.review
    has_classes = own.logits is not None
    shown = [] if own.roles.id is None else [own.roles.id]
    if not has_classes:
        shown += [name for name in frame if name not in (*shown, *OURS)]
    shown += COLUMNS
    least = "labels that the model thought least likely"
    surest = "wrong predictions that the model was surest of"
    with st.container(border=True, gap="small"):
        st.markdown(
            f"**Rows to review**\u2002The {least if has_classes else surest}: "
            "wrong labels, hard rows, or a blind spot. "
            f":gray[({tables.count_of(found.n_wrong, 'wrong row')})]"
        )
        if not found.n_wrong:
            return
        st.dataframe(
            frame.head(SHOWN_ROWS),
            hide_index=True,
            column_order=[name for name in shown if name in frame],
            column_config=COLUMNS,
            alt=f"The {min(SHOWN_ROWS, len(frame))} most surprising rows",
            placeholder="\N{EN DASH}",
        )
        row = display.downloads(
            frame,
            f"{stem}-review",
            state.key("get_review"),
            f"The first {len(frame):,}, as CSV",
        )
        with row:
            st.page_link("views/reliability.py", label="See the rows of each bin")
