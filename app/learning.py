"""The section of the Calibrators page about more labels, on demand."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import jobs, state
from components import calibrators, display, learning
from core.analysis import UNCALIBRATED, Analysis
from core.learning_curve import learning_curves

__all__ = ["section"]

SHOWN = 3  # calibrators, the best first


def section(analysis: Analysis, stem: str) -> None:
    """Offer the loss over the number of fit rows, computed once it is opened."""
    compared = analysis.comparison
    if compared is None:
        return
    box = st.expander(
        "Would more labels help?", key=state.key("learning"), on_change="rerun"
    )
    if not box.open:
        return
    study, chosen = analysis.study, analysis.settings
    order = [name for name, _, _ in compared.ranking if name != UNCALIBRATED][:SHOWN]
    wanted = tuple(order)
    with box:
        found = jobs.run(
            f"learning {study.identity} {wanted} {chosen.to_json()}",
            "Fitting on fewer rows",
            partial(learning_curves, study, chosen, wanted),
            slot="learning",
        )
        if found is None:
            return
        labels = {name: calibrators.method_label(name) for name in found}
        nll = compared.validated[UNCALIBRATED]["nll"].value
        display.figure(
            learning.figure(found, labels, nll),
            alt=learning.alt(found),
            name=f"{stem}-learning",
            key=state.key("figure_learning"),
            table=partial(learning.table, found, labels),
        )
        st.markdown("  \n".join(item.sentence for item in found.values()))
        st.caption(
            "NLL of rows that no fit saw, inside the fit rows, over the number of rows "
            f"that were fitted on; bands are {chosen.level:.0%} intervals over those "
            "rows, the same at every size: differences are surer than they look. What "
            "twice as many would bring: half of the last gain, if the excess falls as "
            "1 / n."
        )
