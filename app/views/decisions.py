"""What predictions decide: the confusion matrix, and thresholds with what they cost."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

from app import bar, compute, jobs, relevant, state
from components import decisions, display, tables
from core.analysis import Analysis, positive_index
from core.messages import FitError
from core.operating_points import OperatingPoint

RATE_COLUMNS = {
    "class": "Class",
    "recall_rows": "Rows with this label",
    "recall": "Recall",
    "recall_low": "low",
    "recall_high": "high",
    "precision_rows": "Rows predicted",
    "precision": "Precision",
    "precision_low": "low ",
    "precision_high": "high ",
}


def matrix_section(analysis: Analysis, stem: str) -> None:
    """Draw the matrix of the rows in use, and the rates of each class."""
    own, level = analysis.study.evaluation, analysis.settings.level
    k, codes = own.n_classes, own.roles.group
    made = compute.decisions(analysis.study, analysis.settings)
    matrix, found = made.matrix, made.confused
    left, right = st.columns(2, gap="large")
    with left:
        if k <= decisions.MOST_DRAWN:
            display.figure(
                decisions.confusion_figure(matrix, own.classes),
                alt=decisions.confusion_alt(matrix),
                name=f"{stem}-confusion",
                key=state.key("figure_confusion"),
                table=partial(decisions.confusion_frame, matrix, own.classes),
            )
        else:
            st.markdown(
                f":gray[{k:,} classes: the matrix is not drawn, the most frequent "
                "confusions are listed.]"
            )
            display.downloads(
                partial(decisions.confusion_frame, matrix, own.classes),
                f"{stem}-confusion",
                state.key("get_confusion"),
                "The matrix",
            )
    with right:
        st.markdown("**Most frequent confusions**")
        st.dataframe(
            found.assign(share=100 * found["share"]),
            hide_index=True,
            height=min(35 * (len(found) + 1) + 2, 420),
            column_config={
                "label": st.column_config.Column("Label", width=display.NAME_WIDTH),
                "prediction": st.column_config.Column(
                    "Predicted", width=display.NAME_WIDTH
                ),
                "rows": "Rows",
                "rows_with_label": "of",
                "share": st.column_config.NumberColumn("%", format="%.1f"),
            },
            alt="The most frequent confusions",
            placeholder="\N{EN DASH}",
        )
        display.downloads(found, f"{stem}-confusions", state.key("get_confusions"))
        st.caption(
            f"{tables.count_of(int(matrix.sum()), 'labelled row')}. Temperature "
            "scaling changes none of these predictions."
        )
    st.subheader("Each class", anchor=False)
    frame = decisions.rates_table(made.rates, own.classes)
    st.dataframe(
        frame,
        hide_index=True,
        height=min(35 * (len(frame) + 1) + 2, 420),
        column_order=list(RATE_COLUMNS),
        column_config={
            name: st.column_config.Column(label, width=display.NAME_WIDTH)
            if name == "class"
            else label
            if name.endswith("rows")
            else st.column_config.NumberColumn(label, format="%.3f")
            for name, label in RATE_COLUMNS.items()
        },
        alt="Recall and precision of every class with intervals, lowest recall first",
        placeholder="\N{EN DASH}",
    )
    with display.downloads(frame, f"{stem}-rates", state.key("get_rates")):
        groups = "" if codes is None else ", by group"
        st.caption(f"Wilson intervals at {level:.0%}{groups}.", width="content")


def points_section(analysis: Analysis, stem: str) -> None:
    """Show thresholds that were chosen on some rows and measured on others."""
    st.subheader("Operating points", anchor=False)
    own, overview = analysis.study.evaluation, analysis.overview
    is_after = "temperature" in analysis.fitted and overview.split is not None
    name = "uncalibrated"
    if is_after:
        name = st.segmented_control(
            "Scores",
            ["uncalibrated", "temperature"],
            default="uncalibrated",
            required=True,
            format_func={"uncalibrated": "Before", "temperature": "After"}.__getitem__,
            key=state.key("decision_scores"),
            persist_state="session",
            label_visibility="collapsed",
        )
    study, chosen = analysis.study, analysis.settings
    found = jobs.run(
        f"operating points {study.identity} {name} {chosen.to_json()}",
        "Choosing thresholds",
        partial(compute.operating_points, study, chosen, name),
        slot="operating-points",
    )
    if found is None:
        return
    if isinstance(found, FitError):
        st.markdown(f":gray[{display.escape_markdown(found.what)}]")
        return
    st.caption(found.sentence)
    st.markdown("**Act only where the confidence is high**")
    show_points(
        found.tables["selective"],
        "Wanted accuracy",
        "Least confidence",
        f"{stem}-selective",
    )
    if "sensitivity" not in found.tables:
        return
    positive = display.code(own.classes[positive_index(own, chosen)])
    st.markdown(f"**Call it {positive} above a threshold**")
    show_points(
        found.tables["sensitivity"],
        "Wanted sensitivity",
        "Threshold",
        f"{stem}-sensitivity",
    )


def show_points(
    made: Sequence[OperatingPoint], wanted: str, threshold: str, name: str
) -> None:
    """Show one table of operating points with its downloads."""
    display.table(
        decisions.points_frame(made, wanted, threshold),
        alt=f"Operating points by {wanted.lower()}",
        data=partial(decisions.points_table, made),
        name=name,
        key=state.key(f"get_points_{wanted.split()[-1]}"),
    )


study = state.study()
st.header("Decisions", anchor=False)
if study is None:
    bar.uploader("upload_first", "Drop your file")
    st.stop()

wanted = relevant.to_first_page(study, state.settings())
result = jobs.run(
    f"analysis {study.identity} {wanted.to_json()}",
    "Measuring",
    partial(compute.analysis, study, wanted),
    slot="decisions",
)
if result is None:
    st.stop()
if not result.overview.views:
    st.markdown("**No labels, nothing to count.** Choose the label column:")
    bar.label_choice()
    st.stop()

file_stem = display.file_stem(study.evaluation.name)
if study.evaluation.logits is None:
    st.markdown(
        ":gray[:material/block: The file has one confidence per row: which class was "
        "taken for which is not in it.]"
    )
else:
    matrix_section(result, file_stem)
points_section(result, file_stem)
