"""The section of the Calibrators page about temperatures of single rows."""

from __future__ import annotations

import streamlit as st

from app import compute, jobs, relevant, state
from components import calibrators, correctness, display
from core.analysis import Analysis
from core.calibrators import CALIBRATORS, RowTemperature
from core.correctness import (
    METHOD,
    NARROW,
    OURS,
    PAPER,
    LossEffects,
    row_temperatures,
)

__all__ = ["section"]


def section(analysis: Analysis, stem: str) -> None:
    """Draw T per row, and side by side what each loss does to wrong rows."""
    split = analysis.overview.split
    own = [
        name
        for name in analysis.fitted
        if issubclass(CALIBRATORS[name].target, RowTemperature)
    ]
    if not own or split is None:
        return
    st.subheader("A temperature for each row", anchor=False)
    left, right = st.columns(2, gap="large")
    with left:
        _temperatures(analysis, own, stem)
    with right:
        display.figure(
            correctness.pulls_figure(),
            alt=correctness.pulls_alt(),
            name=f"{stem}-losses",
            key=state.key("figure_pulls"),
            table=correctness.pulls_table(),
        )
        st.caption(
            "Why the loss matters: how hard each one pulls at the temperature of a "
            "wrong row of two classes, as a share of its own largest pull. The log "
            "loss spends itself on confidently wrong rows; the correctness-aware loss "
            "attends to the narrowly wrong ones, and gives the confident ones up."
        )
    if METHOD in own:
        _losses(analysis, stem)


def _temperatures(analysis: Analysis, own: list[str], stem: str) -> None:
    """Draw T of each test row."""
    split = analysis.overview.split
    assert split is not None  # noqa: S101 - section has looked
    labels = {name: calibrators.method_label(name) for name in own}
    shown = own[0]
    if len(own) > 1:
        shown = (
            st.segmented_control(
                "Calibrator",
                own,
                default=own[0],
                required=True,
                format_func=lambda name: labels[name],
                key=state.key(f"row_temperature_{'_'.join(own)}"),
                label_visibility="collapsed",
            )
            or own[0]
        )
    found = row_temperatures(analysis.study, split, analysis.fitted[shown])
    display.figure(
        correctness.temperatures_figure(found),
        alt=correctness.temperatures_alt(found),
        name=f"{stem}-{shown}-temperatures",
        key=state.key("figure_temperatures"),
        table=correctness.temperatures_table(found),
    )
    st.caption(
        f"{labels[shown]}: T of rows that the calibrator never saw. Where it can tell "
        "them apart, wrong rows lie above right ones of the same confidence; on the "
        "dashed line is the one temperature of all fit rows."
    )


def _losses(analysis: Analysis, stem: str) -> None:
    """Fit every loss as a job and show the results side by side."""
    study, chosen = analysis.study, analysis.settings
    wanted = relevant.to_fit(chosen, METHOD)
    found = jobs.run(
        f"losses {study.identity} {wanted.to_json()}",
        "Fitting each loss",
        lambda report: compute.losses(study, wanted, report),
        slot="losses",
    )
    if found is None:
        return
    st.markdown("**What each loss makes of right and wrong rows**")
    _tables(found, stem)


def _tables(found: LossEffects, stem: str) -> None:
    display.table(
        correctness.effects_frame(found),
        alt="Mean confidence of right, narrowly wrong and clearly wrong rows by loss",
        data=correctness.effects_data(found),
        name=f"{stem}-losses",
        key=state.key("get_losses"),
    )
    source = "transformed copies" if found.has_copies else "the row's own scores"
    st.caption(
        f"Mean confidence of the {found.rows} rows; T from {source}. Narrowly wrong: "
        f"the true class comes second, at most {NARROW:.0%} behind, at the common "
        "temperature."
    )
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown(":small[Ours]")
        display.table(
            correctness.numbers_frame(found, OURS), alt="Log loss, Brier score and ECE"
        )
    with right:
        st.markdown(":small[The paper's, 25 bins]")
        display.table(
            correctness.numbers_frame(found, PAPER),
            alt="ECE, ACE, top-label Brier score, KS and AUC",
        )
    st.caption(
        "BS is the squared distance of the confidence from right or wrong. KS sorts by "
        "confidence; the released code of the paper sorts by correctness, and its MCE "
        "is weighted: neither is reproduced here."
    )
