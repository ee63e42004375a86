"""What out-of-distribution rows do to calibration, and what rejecting them mends."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import jobs, state
from components import display, ood, reliability, theme
from components.ood import score_label
from core.messages import Progress
from core.ood import Detection, MixturePoint, mixtures
from core.ood.mixture import SHARES
from core.predictions import Predictions, Study
from core.settings import Settings

__all__ = ["section"]

STYLES = {"all": theme.BEFORE, "kept": theme.AFTER}
STARTS_AT = 0.2


@st.fragment
def section(
    study: Study, found: Detection, method: str, chosen: Settings, stem: str
) -> None:
    """Draw the calibration of mixtures, without and with rejection.

    Parameters
    ----------
    study : Study
    found : Detection
        With the threshold that rejects.
    method : str
        Score that rejects.
    chosen : Settings
    stem : str
        Starts the names of downloads.
    """
    inside = found.rows.test
    sets = [n for n, item in found.rows.ood.items() if _has_confidence(item)]
    if not sets or not _has_confidence(inside) or not inside.is_labelled.any():
        return
    st.subheader("What strangers do to calibration", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        of = st.selectbox(
            "Set that comes",
            sets,
            key=state.key(f"ood_mixture_set_{len(sets)}"),
            width=260,
        )
        share = st.select_slider(
            "Share of OOD rows",
            SHARES,
            value=STARTS_AT,
            format_func=lambda value: f"{value:.0%}",
            key=state.key("ood_mixture_share"),
            width=260,
        )
    own = found.results[method]
    accepted = tuple(
        own.threshold.accepts(scores)
        for scores in (own.scores.test, own.scores.ood[of])
    )
    asked = f"{method} {of} {own.threshold.value!r} {chosen.to_json()}"

    def work(_: Progress) -> list[MixturePoint]:
        first, second = accepted
        return mixtures(inside, found.rows.ood[of], (first, second), chosen)

    points = jobs.run(
        f"ood mixture {study.identity} {asked}", "Mixing", work, slot="ood-mixture"
    )
    if points is None:
        return
    left, right = st.columns(2, gap="large")
    with left:
        display.figure(
            ood.mixture_figure(points, height=480),
            alt=ood.mixture_alt(points),
            name=f"{stem}-{method}-mixture",
            key=state.key("figure_ood_mixture"),
            table=partial(ood.mixture_table, points),
        )
    here = {"kept" if p.is_rejecting else "all": p for p in points if p.share == share}
    with right:
        bins = {name: p.bins for name, p in here.items() if p.bins is not None}
        labels = {"all": "All rows", "kept": "Accepted rows"}
        display.figure(
            reliability.reliability_figure(
                bins, labels=labels, styles=STYLES, height=480, has_counts=False
            ),
            alt=ood.mixture_alt(list(here.values())),
            name=f"{stem}-{method}-reliability",
            key=state.key("figure_ood_reliability"),
            table=partial(reliability.reliability_table, bins, labels),
        )
    st.caption(
        f"With {share:.0%} of {display.escape_markdown(of)}: {_words(here['all'])}. "
        f"Of the {here['kept'].coverage:.0%} that "
        f"{display.escape_markdown(score_label(method))} accepts: "
        f"{_words(here['kept'])}. Whatever is predicted of an OOD row counts as wrong; "
        "before any repair."
    )


def _words(point: MixturePoint) -> str:
    """Return gap and error of a mixture."""
    if point.bins is None:
        return "no row is left"
    return (
        f"confidence minus accuracy {100 * point.gap:+.1f} points, ECE "
        f"{100 * point.ece:.1f}"
    )


def _has_confidence(rows: Predictions) -> bool:
    return rows.logits is not None or rows.confidence is not None
