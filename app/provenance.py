"""How numbers came about: bins, and what other libraries make of the same rows."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import compute, jobs, relevant, state
from components import display, peers, tables
from core.analysis import Analysis
from core.settings import Settings

__all__ = ["bins_words", "draws_words", "other_libraries"]


def bins_words(chosen: Settings) -> str:
    """Return how many bins there are, and of which kind."""
    widths = "equal widths" if chosen.strategy == "uniform" else "equal counts"
    return f"{chosen.n_bins} of {widths}, (lo, hi]"


def draws_words(chosen: Settings) -> str:
    """Return bins, norm, resamples and seed in one line."""
    return (
        f"Bins: {bins_words(chosen)}, norm {chosen.norm}. "
        f"Resamples: {chosen.n_resamples:,}. Seed: {chosen.seed}."
    )


def other_libraries(analysis: Analysis, key: str, stem: str) -> None:
    """Offer what other libraries would print, and why it differs.

    It is computed once somebody opens it.

    Parameters
    ----------
    analysis : Analysis
    key : str
        Starts the keys of its widgets.
    stem : str
        Starts the names of its downloads.
    """
    box = st.expander(
        "What other libraries print", key=state.key(f"{key}-others"), on_change="rerun"
    )
    if not box.open:
        return
    study, chosen = analysis.study, analysis.settings
    with box:
        found = jobs.run(
            f"peers {study.identity} {relevant.to_scores(chosen).to_json()}",
            "Computing as other libraries do",
            partial(compute.peers, study, chosen),
            slot="peers",
        )
        if found is None:
            return
        n = tables.count_of(int(analysis.overview.used.size), "labelled row")
        st.caption(f"On all {n}, before any repair, as `evaluate --peers` has it.")
        display.table(
            peers.peers_frame(found),
            alt="What scikit-learn, netcal, torchmetrics, MAPIE and relplot print on "
            "these rows, our number beside it, and why they differ",
            data=partial(peers.peers_table, found),
            name=f"{stem}-other-libraries",
            key=state.key(f"{key}-peers"),
        )
