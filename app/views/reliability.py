"""Reliability bin by bin: of the predicted class, the positive one, or each class."""

from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from app import bar, compute, jobs, state
from components import classes, controls, display, reliability, tables, theme
from core.analysis import Analysis, ViewResult, scores_of
from core.binning import BinStatistics, assign_bins
from core.listing import list_rows
from core.messages import Progress
from core.predictions import Study
from core.settings import Settings
from core.softmax import RowStatistics

VIEWS = {
    "top-label": "Predicted class",
    "positive-class": "Positive class",
    "each-class": "Each class",
}
SCORES = {"uncalibrated": "Before", "temperature": "After"}
CLASS_COLUMNS = {
    "class": "Class",
    "rows_with_label": "Rows with this label",
    "mean_probability": "Mean probability",
    "share": "Share",
    "gap": "Gap",
    "gap_low": "Gap, low",
    "gap_high": "Gap, high",
}
FIRST_CLASSES = 6
MOST_CLASSES = 12
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
    """Return numbers and bins of the chosen scores."""
    if method == "uncalibrated" or analysis.comparison is None:
        return analysis.overview.views[view]
    return analysis.comparison.views[view][method]


def statistics_of(
    analysis: Analysis, method: str
) -> tuple[RowStatistics, np.ndarray[Any, Any]]:
    """Return the statistics of the rows in a diagram, and which rows they are."""
    overview = analysis.overview
    if method == "uncalibrated" or overview.split is None:
        return overview.rows.take(overview.used), overview.used
    return analysis.fitted[method].rows, overview.split.test


def axis_titles(analysis: Analysis, view: str) -> tuple[str, str]:
    """Return the titles of the axes of a view."""
    if view != "positive-class":
        return "Confidence", "Accuracy"
    name = analysis.study.evaluation.classes[compute.positive_class(analysis)]
    return f"Probability of {name}", f"Share of {name}"


def diagram(analysis: Analysis, view: str, method: str, stem: str) -> None:
    """Draw one diagram with its numbers; a click on a bin lists its rows."""
    found = result_of(analysis, view, method)
    names = reliability.bin_names(found.bins)
    chart_key = state.key(f"reliability_{view}_{method}")
    # Another binning has other bins: what was chosen among the old ones is void.
    picked = state.key(f"bin_{view}_{method}_{found.bins.n_bins}")

    def on_bin() -> None:
        points = st.session_state[chart_key].selection.points
        if points:
            number = reliability.bin_at(found.bins, float(points[0]["x"]))
            st.session_state[picked] = number if number in names else None

    left, right = st.columns([11, 9], gap="large")
    x_title, y_title = axis_titles(analysis, view)
    gaps = {method: found.estimates["gap"]}
    labels = {method: SCORES[method]}
    with left:
        display.figure(
            reliability.reliability_figure(
                {method: found.bins},
                labels=labels,
                styles={
                    method: theme.BEFORE if method == "uncalibrated" else theme.AFTER
                },
                x_title=x_title,
                y_title=y_title,
            ),
            alt=reliability.reliability_alt(gaps, labels),
            name=f"{stem}-reliability-{view}-{SCORES[method].lower()}",
            key=chart_key,
            table=reliability.reliability_table({method: found.bins}, labels),
            on_bin=on_bin,
        )
    with right:
        columns = {SCORES[method]: found.estimates}
        display.table(
            tables.single_frame(
                found.estimates,
                analysis.study.evaluation.n_classes,
                name=SCORES[method],
            ),
            alt=f"Calibration measures, {SCORES[method].lower()}",
        )
        gap = found.estimates["gap"]
        st.caption(rows_words(gap.n, gap.rows, analysis.settings.level))
        with st.container(horizontal=True, gap="small"):
            frame = tables.estimates_frame(columns)
            name = f"{stem}-numbers-{view}"
            display.download_table(frame, name, state.key("get_reliability"))
            display.download_json(frame, name, state.key("get_reliability_json"))
    bin_rows(analysis, view, method, found.bins, names, picked, stem)


def rows_words(n: int, kind: str, level: float) -> str:
    """Return which rows are shown, and what the marks mean."""
    rows = tables.count_of(n, "row" if kind == "all" else f"{kind} row")
    return (
        f"{rows}. On the dashed line the model keeps its word; below it, it is "
        f"overconfident. Bars: {level:.0%} intervals; grey: fewer than ten rows."
    )


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
        height=min(36 * (len(frame) + 1) + 2, 380),
        alt=f"Rows of the bin {names[number]}",
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        name = f"{stem}-bin-{number + 1}"
        display.download_table(frame, name, state.key("get_bin"), "All rows of the bin")
        display.download_json(frame, name, state.key("get_bin_json"))
        if len(frame) > MOST_ROWS:
            st.caption(f"The first {MOST_ROWS} are shown.", width="content")


def each_class(analysis: Analysis, method: str, stem: str) -> None:
    """Draw the classes against the rest, the clearest gaps first."""
    study, chosen = analysis.study, analysis.settings
    own = study.evaluation

    def work(report: Progress) -> Any:
        report(0.1, "Probabilities of every class")
        gaps = compute.class_gaps(study, chosen, method)
        return gaps, compute.class_scores(study, chosen, method)

    made = jobs.run(
        f"classes {study.identity} {method} {chosen.to_json()}",
        "Looking at each class",
        work,
        slot="reliability",
    )
    if made is None:
        return
    gaps, scores = made
    order = [int(item) for item in classes.clearest_first(gaps)]
    shown = st.multiselect(
        "Classes, the clearest gap first",
        order,
        default=order[:FIRST_CLASSES],
        format_func=lambda item: own.classes[item],
        max_selections=MOST_CLASSES,
        key=state.key(f"classes_{method}_{study.fingerprint[:8]}"),
    )
    kind = "row" if scores.kind == "all" else f"{scores.kind} row"
    st.caption(
        f"{tables.count_of(gaps.n, kind)}, each class against the rest. Across: its "
        f"probability; up: its share. {gaps.level:.0%} intervals, one class at a time."
    )
    style = theme.BEFORE if method == "uncalibrated" else theme.AFTER
    bins = {}
    for start in range(0, len(shown), 3):
        row = shown[start : start + 3]
        for column, item in zip(st.columns(3, gap="medium"), row, strict=False):
            name = own.classes[item]
            bins[name] = compute.class_bins(scores, item, chosen)
            with column, st.container(gap="xxsmall"):
                gap = tables.format_value("gap", gaps.gap[item])
                ends = " to ".join(
                    tables.format_value("gap", end[item])
                    for end in (gaps.low, gaps.high)
                )
                st.markdown(
                    f"**{display.escape_markdown(name)}**\u2002 :small[gap {gap} "
                    f":gray[({ends}), {gaps.count[item]:,} rows]]"
                )
                display.chart(
                    classes.class_figure(bins[name], style, name),
                    alt=classes.class_alt(name, gaps, item),
                    name=f"{stem}-class-{item}",
                    key=state.key(f"figure_class_{item}"),
                )
    st.subheader("Every class", anchor=False)
    frame = classes.class_table(gaps, own.classes)
    st.dataframe(
        frame,
        hide_index=True,
        height=min(36 * (len(frame) + 1) + 2, 420),
        column_order=list(CLASS_COLUMNS),
        column_config={
            name: label
            if name in ("class", "rows_with_label")
            else st.column_config.NumberColumn(label, format="%.4f")
            for name, label in CLASS_COLUMNS.items()
        },
        alt="Gap of every class with its interval, the clearest first",
    )
    with st.container(horizontal=True, gap="small"):
        display.download_table(
            frame, f"{stem}-classes", state.key("get_classes"), "Every class, as CSV"
        )
        display.download_json(frame, f"{stem}-classes", state.key("get_classes_json"))
        if bins:
            display.download_table(
                reliability.reliability_table(bins),
                f"{stem}-class-bins",
                state.key("get_class_bins"),
                "Bins of the classes shown",
            )


study = state.study()
st.header("Reliability", anchor=False)
if study is None:
    bar.uploader("upload_first", "Drop your file")
    st.stop()

now = compute.temperature_settings(study, state.settings())
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
    binning_choice(state.settings())
stem = display.file_stem(study.evaluation.name)
if view == "each-class":
    each_class(analysis, method, stem)
else:
    diagram(analysis, view, method, stem)
display.notes(analysis.notes)
