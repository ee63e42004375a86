"""The Calibrators page: what arrives while fits are under way, ranking and numbers."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import state
from components import calibrators, contrasts, display, tables
from core.analysis import UNCALIBRATED, Analysis, Comparison
from core.calibrators import CALIBRATORS
from core.contrasts import WHY_NOT_ECE
from core.fitting import Fitted
from core.predictions import Study
from core.settings import Settings
from core.standings import Arrival, arrival_of

__all__ = ["Arrivals", "arrivals_of", "numbers", "ranking", "show_arrivals"]

_KEPT = "_arrivals"
_POLL = 0.5  # seconds


class Arrivals:
    """What the fits of one job have led to so far; filled by its thread.

    Parameters
    ----------
    study : Study
    settings : Settings
        Of the job: which calibrators are fitted, in which order.
    """

    def __init__(self, study: Study, settings: Settings) -> None:
        self.study, self.settings = study, settings
        self.found: dict[str, Arrival | None] = {}

    def take(self, method: str, fitted: Fitted | None) -> None:
        """Note a calibrator that is through."""
        made = None
        if fitted is not None:
            made = arrival_of(self.study, self.settings, fitted)
        self.found[method] = made


def arrivals_of(key: str, study: Study, settings: Settings) -> Arrivals:
    """Return what belongs to a job; those of other jobs are forgotten."""
    kept: tuple[str, Arrivals] | None = st.session_state.get(_KEPT)
    if kept is None or kept[0] != key:
        kept = (key, Arrivals(study, settings))
        st.session_state[_KEPT] = kept
    return kept[1]


@st.fragment(run_every=_POLL)
def show_arrivals(arrivals: Arrivals) -> None:
    """Draw the calibrators of a job that is under way, as they arrive."""
    frame = contrasts.arrivals_frame(
        arrivals.settings.calibrators, dict(arrivals.found)
    )
    display.table(frame, alt="Calibrators that were fitted so far")
    st.caption("Intervals, test rows and the ranking follow when all are fitted.")


def ranking(analysis: Analysis, compared: Comparison, stem: str) -> None:
    """Show which calibrator is best, and whether that can be told."""
    with st.container(gap="small"):
        st.subheader("Ranking", anchor=False)
        st.markdown(
            display.escape_markdown(calibrators.ranking_sentence(analysis)),
            help=WHY_NOT_ECE,
        )
        for item in analysis.fitted.values():
            for note in item.notes:
                if note.code == "auto-choice":
                    st.caption(display.escape_markdown(note.text))
        row = display.table(
            calibrators.ranking_frame(analysis),
            alt="Calibrators by cross-validated NLL, best first",
            data=partial(calibrators.comparison_frame, analysis),
            name=f"{stem}-calibrators",
            key=state.key("get_comparison"),
            label="Everything compared, as CSV",
        )
        with row:
            columns = {
                calibrators.method_label(name): compared.validated[name]
                for name, _, _ in compared.ranking
            }
            lines = [
                "Ranked by the NLL of rows that the calibrator never saw; the Brier "
                "score breaks ties. Differences are paired: the same resamples for "
                "all.",
                "They compare these fitted calibrators, not the methods in general.",
                WHY_NOT_ECE,
            ]
            display.provenance(columns, lines, state.key("get_ranking"))


def numbers(analysis: Analysis, compared: Comparison, view: str, stem: str) -> None:
    """Show the numbers on the test rows, the differences, and what was fitted."""
    gap = compared.views[view][UNCALIBRATED].estimates["gap"]
    kind = "cross-fitted" if gap.rows == "cross-fitted" else "test"
    baseline = state.settings().baseline
    if baseline not in compared.views[view]:
        baseline = UNCALIBRATED
    values, moves, fits = st.tabs([f"On {kind} rows", "Differences", "Fits and refits"])
    with values:
        display.table(
            calibrators.measured_frame(analysis, view),
            alt=f"Numbers of each calibrator on the {kind} rows",
            data=partial(
                tables.estimates_frame,
                {name: item.estimates for name, item in compared.views[view].items()},
            ),
            name=f"{stem}-calibrators-{view}-numbers",
            key=state.key("get_measured"),
        )
        st.caption(
            f"{gap.n:,} {kind} rows. Small figures: {gap.level:.0%} intervals; for "
            "the ECE the range that a perfectly calibrated model of this size would "
            "show."
        )
    with moves:
        differences(analysis, compared, view, stem, baseline)
    with fits:
        display.table(
            calibrators.fits_frame(analysis, baseline),
            alt="What was fitted, and its variation over refits",
            data=partial(calibrators.fits_table, analysis),
            name=f"{stem}-calibrators-fits",
            key=state.key("get_fits"),
        )
        words = calibrators.refits_sentence(analysis)
        if words:
            other = contrasts.baseline_words(baseline)
            st.caption(f"{words} Its change: of the NLL, from {other}, split by split.")
        found = [note for item in analysis.fitted.values() for note in item.notes]
        display.notes(found)


def differences(
    analysis: Analysis, compared: Comparison, view: str, stem: str, baseline: str
) -> None:
    """Show the paired differences to a baseline that the user chooses."""
    # Other calibrators are other choices: a widget of their own.
    order = sorted(compared.views[view], key=list(CALIBRATORS).index)
    widget = state.key(f"baseline_{'_'.join(order)}")
    if st.session_state.get(widget) != baseline:
        state.assign(widget, baseline)
    with st.container(width=320):
        st.selectbox(
            "Compared with",
            order,
            format_func=calibrators.method_label,
            key=widget,
            on_change=take_baseline,
            args=(widget,),
        )
    display.table(
        contrasts.contrasts_frame(analysis, view, baseline),
        alt="Paired differences of each calibrator from "
        f"{contrasts.baseline_words(baseline)}",
        data=partial(contrasts.contrasts_data, analysis, view, baseline),
        name=f"{stem}-calibrators-{view}-changes",
        key=state.key("get_moves"),
    )
    st.caption(
        "For these fitted calibrators, paired on the same rows. The p-values of NLL, "
        "Brier score and accuracy are corrected for the number of calibrators (Holm) "
        "and decide the colour: green is better, orange is worse."
    )


def take_baseline(widget: str) -> None:
    """Take the baseline into the Settings."""
    state.change(baseline=st.session_state[widget])
