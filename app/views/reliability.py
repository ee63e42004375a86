"""Reliability bin by bin: of the predicted class, the positive one, or each class."""

from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from app import (
    bar,
    compute,
    curves,
    each_class,
    jobs,
    more_metrics,
    provenance,
    relevant,
    state,
)
from components import controls, display, reliability, tables, theme
from core.analysis import Analysis, ViewResult, scores_of
from core.binning import BinStatistics, assign_bins
from core.listing import list_rows
from core.predictions import Study
from core.row_statistics import RowStatistics
from core.settings import Settings

VIEWS = {
    "top-label": "Predicted class",
    "positive-class": "Positive class",
    "each-class": "Each class",
}
SCORES = {"uncalibrated": "Before", "temperature": "After"}
MOST_ROWS = 200


def chosen_view(study: Study) -> str:
    """Choose what the diagram is about."""
    own = study.evaluation
    views = ["top-label"]
    if own.n_classes == 2:
        views.append("positive-class")
    elif own.n_classes > 2:
        views.append("each-class")
    if len(views) == 1:
        return views[0]
    return st.segmented_control(
        "Reliability of",
        views,
        default="top-label",
        required=True,
        format_func=lambda name: VIEWS[name],
        key=state.key("reliability_of"),
        persist_state="session",
        label_visibility="collapsed",
    )


def chosen_scores(analysis: Analysis) -> str:
    """Choose between the scores as they are and after temperature scaling."""
    if "temperature" not in analysis.fitted:
        return "uncalibrated"
    return st.segmented_control(
        "Scores",
        list(SCORES),
        default="uncalibrated",
        required=True,
        format_func=lambda name: SCORES[name],
        key=state.key("reliability_scores"),
        persist_state="session",
        label_visibility="collapsed",
        help="After: temperature scaling, on rows it was not fitted on.",
    )


def binning_choice(chosen: Settings) -> None:
    """Choose between bins of equal widths and of equal counts."""
    controls.setting_choice(
        "Bin edges",
        state.key("reliability_bins"),
        list(bar.BINNINGS),
        chosen.strategy,
        lambda value: state.change(strategy=value),
        names=bar.BINNINGS,
        label_visibility="collapsed",
        width=180,
    )


def result_of(analysis: Analysis, view: str, method: str) -> ViewResult:
    """Return numbers and bins of the chosen scores: of the same rows, if compared."""
    if analysis.comparison is None:
        return analysis.overview.views[view]
    return analysis.comparison.views[view][method]


def statistics_of(
    analysis: Analysis, method: str
) -> tuple[RowStatistics, np.ndarray[Any, Any]]:
    """Return the statistics of the rows in a diagram, and which rows they are."""
    overview = analysis.overview
    if analysis.comparison is None or overview.split is None:
        return overview.rows.take(overview.used), overview.used
    test = overview.split.test
    if method == "uncalibrated":
        return overview.rows.take(test), test
    return analysis.fitted[method].rows, test


def axis_titles(analysis: Analysis, view: str) -> tuple[str, str]:
    """Return the titles of the axes of a view."""
    if view != "positive-class":
        return "Confidence", "Accuracy"
    name = analysis.study.evaluation.classes[compute.positive_class(analysis)]
    return f"Probability of {name}", f"Share of {name}"


def diagram(analysis: Analysis, view: str, method: str, kind: str, stem: str) -> None:
    """Draw one diagram with its numbers; a click on a bin lists its rows."""
    found = result_of(analysis, view, method)
    names = reliability.bin_names(found.bins)
    chart_key = state.key(f"reliability_{view}_{method}_{kind}")
    # Another binning has other bins: what was chosen among the old ones is void.
    picked = state.key(f"bin_{view}_{method}_{found.bins.n_bins}")

    def on_bin() -> None:
        points = st.session_state[chart_key].selection.points
        if points:
            number = reliability.bin_at(found.bins, float(points[0]["x"]))
            st.session_state[picked] = number if number in names else None

    left, right = st.columns([11, 9], gap="large")
    titles = axis_titles(analysis, view)
    label, line = SCORES[method], None
    name = f"{stem}-reliability-{view}-{label.lower()}"
    with left:
        if kind == curves.BINS:
            draw_bins(found, method, titles, name, key=chart_key, on_bin=on_bin)
        else:
            line = curves.of_view(analysis, view, method, kind)
        if line is not None:
            curves.draw(
                line,
                kind,
                theme.style_of(method),
                label,
                found.bins,
                titles=titles,
                name=f"{name}-{kind}",
                key=chart_key,
                on_bin=on_bin,
            )
            curves.about(line, kind)
    with right:
        numbers(analysis, view, method, found, stem, is_binned=kind == curves.BINS)
        if line is not None:
            curves.parts(analysis, view, method, kind, f"{stem}-{view}-{label.lower()}")
    more_metrics.section(analysis, view, method, label, stem)
    bin_rows(analysis, view, method, found.bins, names, picked, stem)


def draw_bins(
    found: ViewResult, method: str, titles: tuple[str, str], name: str, **options: Any
) -> None:
    """Draw the bins of one set of scores."""
    bins, labels = {method: found.bins}, {method: SCORES[method]}
    display.figure(
        reliability.reliability_figure(
            bins,
            labels=labels,
            styles={method: theme.style_of(method)},
            x_title=titles[0],
            y_title=titles[1],
        ),
        alt=reliability.reliability_alt({method: found.estimates["gap"]}, labels),
        name=name,
        table=partial(reliability.reliability_table, bins, labels),
        **options,
    )


def numbers(
    analysis: Analysis,
    view: str,
    method: str,
    found: ViewResult,
    stem: str,
    *,
    is_binned: bool,
) -> None:
    """Show the numbers of one set of scores, and how they came about."""
    label, chosen = SCORES[method], analysis.settings
    n_classes = analysis.study.evaluation.n_classes
    display.table(
        tables.single_frame(found.estimates, n_classes, name=label),
        alt=f"Calibration measures, {label.lower()}",
    )
    gap = found.estimates["gap"]
    words = rows_words(gap.n, gap.rows, chosen.level, is_binned=is_binned)
    if analysis.comparison is not None:
        words += " Before and after: the same rows."
    st.caption(words)
    columns = {label: found.estimates}
    frame = partial(tables.estimates_frame, columns)
    name = f"{stem}-numbers-{view}"
    with display.downloads(frame, name, state.key("get_reliability")):
        key = f"why-{view}-{method}"
        lines = [provenance.draws_words(chosen)]
        split = analysis.overview.split
        if analysis.comparison is not None and split is not None:
            lines.append(f"Rows: {display.escape_markdown(split.sentence)}.")
        display.provenance(
            columns,
            lines,
            key,
            bins=f"bins: {provenance.bins_words(chosen)}",
            more=partial(provenance.other_libraries, analysis, key, stem),
        )


def rows_words(n: int, kind: str, level: float, *, is_binned: bool) -> str:
    """Return which rows are shown, and what the marks mean."""
    words = (
        f"{tables.rows_of(n, kind)}. On the dashed line the model keeps its word; "
        "below it, it promises too much."
    )
    if is_binned:
        words += f" Bars: {level:.0%} intervals; grey: fewer than ten rows."
    return words


def bin_rows(
    analysis: Analysis,
    view: str,
    method: str,
    bins: BinStatistics,
    names: dict[int, str],
    picked: str,
    stem: str,
) -> None:
    """List the rows of the bin that was clicked or chosen, the wrong ones first."""
    st.subheader("Rows of a bin", anchor=False)
    number = st.selectbox(
        "Click a point or a bar, or choose a bin",
        list(names),
        index=None,
        format_func=lambda item: names[item],
        key=picked,
        placeholder="No bin chosen",
        width=360,
    )
    if number is None:
        return
    own = analysis.study.evaluation
    statistics, rows = statistics_of(analysis, method)
    scores = scores_of(own, statistics, analysis.settings, view)
    inside = np.flatnonzero(assign_bins(scores.confidence, bins.edges) == number)
    wrong_first = np.lexsort((-scores.confidence[inside], scores.outcome[inside]))
    inside = inside[wrong_first]
    frame = list_rows(own, statistics.take(inside), rows[inside])
    st.dataframe(
        frame.head(MOST_ROWS),
        hide_index=True,
        height=min(35 * (len(frame) + 1) + 2, 380),
        alt=f"Rows of the bin {names[number]}",
        placeholder="\N{EN DASH}",
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        name = f"{stem}-bin-{number + 1}"
        display.download_table(frame, name, state.key("get_bin"), "All rows of the bin")
        display.download_json(frame, name, state.key("get_bin_json"))
        if len(frame) > MOST_ROWS:
            st.caption(f"The first {MOST_ROWS} are shown.", width="content")


study = state.study()
st.header("Reliability", anchor=False)
if study is None:
    bar.uploader("upload_first", "Drop your file")
    st.stop()

now = relevant.to_first_page(study, state.settings())
analysis = jobs.run(
    f"analysis {study.identity} {now.to_json()}",
    "Measuring",
    partial(compute.analysis, study, now),
    slot="reliability",
)
if analysis is None:
    st.stop()
if not analysis.overview.views:
    st.markdown("**No labels, no diagram.** Choose the label column:")
    bar.label_choice()
    st.stop()

with st.container(horizontal=True, vertical_alignment="center", gap="small"):
    view = chosen_view(study)
    method = chosen_scores(analysis)
    kind = curves.choice()
    if kind == curves.BINS:
        binning_choice(state.settings())
stem = display.file_stem(study.evaluation.name)
if view == "each-class":
    each_class.section(
        analysis, method, SCORES[method], theme.style_of(method), kind, stem
    )
else:
    diagram(analysis, view, method, kind, stem)
display.notes(analysis.notes)
