"""The section of the Reliability page with every metric that is not shown at once."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import compute, jobs, state
from components import display, tables
from core.analysis import Analysis
from core.on_demand import MORE_METRICS

__all__ = ["section"]


def section(analysis: Analysis, view: str, method: str, label: str, stem: str) -> None:
    """Offer more metrics, measured once the section is opened.

    Parameters
    ----------
    analysis : Analysis
    view, method, label : str
        Whose metrics: "top-label" or "positive-class", the calibrator's id, and what
        its scores are called on the page.
    stem : str
        Starts the names of its downloads.
    """
    box = st.expander("More metrics", key=state.key("more_metrics"), on_change="rerun")
    if not box.open:
        return
    study, chosen = analysis.study, analysis.settings
    with box:
        found = jobs.run(
            f"metrics {study.identity} {view} {method} {chosen.to_json()}",
            "Measuring more metrics",
            partial(compute.more_metrics, study, chosen, method, view, MORE_METRICS),
            slot="more",
        )
        if found is None:
            return
        n_classes = study.evaluation.n_classes
        first = next(iter(found.values()))
        st.caption(
            f"{label}, {tables.rows_of(first.n, first.rows)}. {chosen.level:.0%} "
            "intervals. Distances have no valid interval, but a null range, where a "
            "calibrated model of this size would lie, and its p-value."
        )
        row = display.table(
            tables.metrics_frame(found, n_classes),
            alt="More metrics, one per line",
            data=partial(tables.described_frame, {label: found}),
            name=f"{stem}-more-metrics-{view}-{method}",
            key=state.key("get_more_metrics"),
        )
        with row:
            st.page_link("views/methods.py", label="Formulas and sources")
