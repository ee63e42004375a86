"""The section of the Calibrators page that shows what was learned and changed."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import state
from components import calibrators, display, learned_maps
from core.analysis import UNCALIBRATED, Analysis
from core.learned_maps import class_changes, class_curves, confidence_map

__all__ = ["section"]


@st.fragment
def section(analysis: Analysis, stem: str) -> None:
    """Draw what became of confidences, the curves of a class, and what changed."""
    compared, split = analysis.comparison, analysis.overview.split
    if compared is None or split is None:
        return
    order = [name for name, _, _ in compared.ranking if name != UNCALIBRATED]
    labels = {name: calibrators.method_label(name) for name in order}
    before = analysis.overview.rows.take(split.test)
    st.subheader("Learned maps", anchor=False)
    left, right = st.columns(2, gap="large")
    with left:
        maps = {
            name: confidence_map(before, analysis.fitted[name].rows) for name in order
        }
        display.figure(
            learned_maps.confidence_figure(maps, labels),
            alt=learned_maps.confidence_alt(maps, labels),
            name=f"{stem}-confidences",
            key=state.key("figure_confidences"),
            table=learned_maps.confidence_table(maps, labels),
        )
        band = ""
        if len(maps) <= learned_maps.BANDS:
            band = " The band holds the middle 80 % of a bin."
        st.caption(
            "Confidence of the predicted class: medians of rows that the calibrator "
            f"never saw, bins with fewer than ten rows in grey.{band} On the dashed "
            "line nothing changes."
        )
    with right:
        curves(analysis, labels, stem)
    changed(analysis, labels, before, stem)


def curves(analysis: Analysis, labels: dict[str, str], stem: str) -> None:
    """Draw the curves of one class, for calibrators that have them."""
    classes = analysis.study.evaluation.classes
    column = 1
    place = st.container()
    if not any(class_curves(analysis.fitted[name].calibrator, [1]) for name in labels):
        why = "what becomes of one probability depends on the others."
        if len(classes) == 2:
            why = "the map of the confidence is all there is."
        st.info(
            f"None of these calibrators has a curve of its own for each class: {why}",
            icon=":material/info:",
        )
        return
    if len(classes) > 2:
        column = st.selectbox(
            "Class",
            range(len(classes)),
            format_func=lambda number: classes[number],
            key=state.key("curve_class"),
        )
    found: dict[str, Any] = {}
    for name in labels:
        for curve in class_curves(analysis.fitted[name].calibrator, [column]):
            found[name] = curve
    with place:
        display.figure(
            learned_maps.curves_figure(found, labels, classes[column]),
            alt=learned_maps.curves_alt(found, labels, classes[column]),
            name=f"{stem}-curves",
            key=state.key("figure_curves"),
            table=learned_maps.curves_table(found, labels, classes[column]),
        )
        words = "The curves that the exports hold, fitted on all fit rows."
        if len(classes) > 2:
            words += " Afterwards the classes of a row are rescaled to sum to 1."
        st.caption(words)


def changed(analysis: Analysis, labels: dict[str, str], before: Any, stem: str) -> None:
    """Show what one calibrator changed, class by class."""
    classes = analysis.study.evaluation.classes
    st.markdown("**What changed per class**")
    method = st.selectbox(
        "Calibrator",
        list(labels),
        format_func=lambda name: labels[name],
        key=state.key(f"changes_of_{'_'.join(sorted(labels))}"),
    )
    found = class_changes(before, analysis.fitted[method].rows, len(classes))
    st.markdown(learned_maps.changes_sentence(labels[method], found))
    display.table(
        learned_maps.changes_frame(found, classes),
        alt=f"What {labels[method]} changed, by predicted class",
        data=learned_maps.changes_table(found, classes),
        name=f"{stem}-changes-{method}",
        key=state.key("get_changes"),
        label="All classes, as CSV",
    )
    shown = min(len(classes), learned_maps.SHOWN)
    st.caption(
        f"By the class predicted before, the {shown} that changed most first; on rows "
        "that the calibrator never saw. Left and joined: rows whose predicted class "
        "changed from or to this one."
    )
