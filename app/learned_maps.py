"""The section of the Calibrators page that shows what was learned and changed."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from app import changed_rows, state
from components import calibrators, display, learned_maps
from components import class_weights as class_weights_figures
from core.analysis import UNCALIBRATED, Analysis
from core.calibrators import Calibrator
from core.learned_maps import (
    class_changes,
    class_curves,
    class_weights,
    confidence_map,
)

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
            table=partial(learned_maps.confidence_table, maps, labels),
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
    weights(analysis, labels, stem)
    changed(analysis, labels, before, stem)


def mapped(analysis: Analysis, name: str) -> Calibrator:
    """Return the calibrator that maps: the chosen one where one chose."""
    return analysis.fitted[name].calibrator.exported


def weights(analysis: Analysis, labels: dict[str, str], stem: str) -> None:
    """Draw the linear maps of logits, for calibrators that have them."""
    found = {name: class_weights(mapped(analysis, name)) for name in labels}
    known = {name: item for name, item in found.items() if item is not None}
    if not known:
        return
    box = st.expander(
        "Slopes and offsets of classes", key=state.key("weights"), on_change="rerun"
    )
    if not box.open:
        return
    classes = analysis.study.evaluation.classes
    with box:
        shown = next(iter(known))
        if len(known) > 1:
            shown = st.selectbox(
                "Calibrator",
                list(known),
                format_func=lambda name: labels[name],
                key=state.key(f"weights_of_{'_'.join(sorted(known))}"),
            )
        item = known[shown]
        display.figure(
            class_weights_figures.figure(item, classes),
            alt=class_weights_figures.alt(item, classes, labels[shown]),
            name=f"{stem}-weights-{shown}",
            key=state.key("figure_weights"),
            table=partial(class_weights_figures.table, item, classes),
        )
        words = "Slope and offset of each class; the dashed lines change nothing."
        if item.is_matrix:
            words = (
                "How much of the old logit of a column goes into the new logit of a "
                "row, beyond the identity; the last column is the offset."
            )
        st.caption(words)


def curves(analysis: Analysis, labels: dict[str, str], stem: str) -> None:
    """Draw the curves of one class, for calibrators that have them."""
    classes = analysis.study.evaluation.classes
    column = 1
    place = st.container()
    if not any(class_curves(mapped(analysis, name), [1]) for name in labels):
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
        for curve in class_curves(mapped(analysis, name), [column]):
            found[name] = curve
    with place:
        display.figure(
            learned_maps.curves_figure(found, labels, classes[column]),
            alt=learned_maps.curves_alt(found, labels, classes[column]),
            name=f"{stem}-curves",
            key=state.key("figure_curves"),
            table=partial(learned_maps.curves_table, found, labels, classes[column]),
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
        data=partial(learned_maps.changes_table, found, classes),
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
    changed_rows.section(analysis, method, labels[method], stem)
