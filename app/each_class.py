"""Each class against the rest: small diagrams, and all classes in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from app import compute, curves, jobs, state
from components import classes, display, reliability, tables, theme
from components.curves import (
    curve_alt,
    curve_figure,
    curve_table,
    small_curve_figure,
)
from components.theme import Style
from core.analysis import Analysis
from core.binning import BinStatistics
from core.messages import Progress, part_of
from core.metrics import Curve
from core.per_class import ClassGaps
from core.report import CLASSWISE
from core.uncertainty import Estimate

__all__ = ["section"]

CLASS_COLUMNS = {
    "class": "Class",
    "rows_with_label": "Rows with this label",
    "mean_probability": "Mean probability",
    "share": "Share",
    "gap": "One-vs-rest gap",
    "gap_low": "low",
    "gap_high": "high",
}
FIRST_CLASSES = 6
MOST_CLASSES = 12


def section(
    analysis: Analysis, method: str, label: str, style: Style, kind: str, stem: str
) -> None:
    """Draw the classes against the rest, the clearest gaps first.

    Parameters
    ----------
    analysis : Analysis
    method, label, style : str, str and Style
        Calibrator whose scores are shown, what the page calls them, their look.
    kind : str
        "bins" or an id in `core.metrics.CURVES`.
    stem : str
        Starts the names of its downloads.
    """
    study, chosen = analysis.study, analysis.settings
    own = study.evaluation

    def work(report: Progress) -> Any:
        report(0.1, "Probabilities of every class")
        gaps = compute.class_gaps(study, chosen, method)
        scores = compute.class_scores(study, chosen, method)
        asked = (study, chosen, method, "top-label", CLASSWISE)
        return gaps, scores, compute.more_metrics(*asked, part_of(report, 0.4, 1.0))

    made = jobs.run(
        f"classes {study.identity} {method} {chosen.to_json()}",
        "Looking at each class",
        work,
        slot="reliability",
    )
    if made is None:
        return
    gaps, scores, classwise = made
    order = [int(item) for item in classes.clearest_first(gaps)]
    shown = st.multiselect(
        "Classes, the clearest gap first",
        order,
        default=order[:FIRST_CLASSES],
        format_func=lambda item: own.classes[item],
        max_selections=MOST_CLASSES,
        key=state.key(f"classes_{method}_{study.fingerprint[:8]}"),
    )
    st.caption(
        f"{tables.rows_of(gaps.n, scores.kind)}, each class against the rest. Across: "
        f"its probability; up: its share. {gaps.level:.0%} intervals, one class at a "
        "time.",
        help="One-vs-rest gap: the mean probability of the class on all these rows "
        "minus the share of them that have it. The worst predicted class of the "
        "Overview is another number: rows predicted as one class, confidence minus "
        "accuracy.",
    )
    bins = {item: compute.class_bins(scores, item, chosen) for item in shown}
    lines = None
    if kind != curves.BINS and shown:
        lines = curves.of_classes(analysis, method, tuple(shown), kind)
    if kind == curves.BINS or lines is not None:
        figures(analysis, kind, gaps, bins, lines, partial(figure, label, style), stem)
    every_class(gaps, classwise, own.classes, label, stem)


def figures(
    analysis: Analysis,
    kind: str,
    gaps: ClassGaps,
    bins: Mapping[int, BinStatistics],
    lines: Mapping[int, Curve] | None,
    drawn: Callable[..., Any],
    stem: str,
) -> None:
    """Draw some classes, small and side by side; a single one in full."""
    names = analysis.study.evaluation.classes
    columns, is_alone = list(bins), len(bins) == 1
    for start in range(0, len(columns), 3):
        row = columns[start : start + 3]
        places = st.columns([11, 9] if is_alone else 3, gap="medium")
        for place, item in zip(places, row, strict=False):
            with place, st.container(gap="xxsmall"):
                st.markdown(class_words(names[item], gaps, item))
                line = None if lines is None else lines[item]
                display.chart(
                    drawn(names[item], bins[item], line, kind, is_alone=is_alone),
                    alt=classes.class_alt(names[item], gaps, item)
                    if line is None
                    else curve_alt(line, kind, names[item]),
                    name=f"{stem}-class-{item}-{kind}",
                    key=state.key(f"figure_class_{item}_{is_alone}_{kind}"),
                )
    if not columns:
        return
    if lines is None:
        shown = {names[i]: b for i, b in bins.items()}
        frame = partial(reliability.reliability_table, shown)
    else:
        curves.about(next(iter(lines.values())), kind)
        drawn_lines = {names[i]: line for i, line in lines.items()}
        frame = partial(curve_table, drawn_lines, kind)
    display.downloads(
        frame,
        f"{stem}-class-{kind}",
        state.key("get_class_bins"),
        "Numbers in these figures",
    )


def class_words(name: str, gaps: ClassGaps, item: int) -> str:
    """Return the heading of one class: its gap, interval and rows, as Markdown."""
    gap, *ends = (
        tables.format_value("gap", value[item])
        for value in (gaps.gap, gaps.low, gaps.high)
    )
    shown = display.escape_markdown(theme.shortened(name))
    return (
        f"**{shown}**\u2002 :small[one-vs-rest gap {gap} "
        f":gray[({' to '.join(ends)}), {gaps.count[item]:,} rows]]"
    )


def figure(
    label: str,
    style: Style,
    name: str,
    bins: BinStatistics,
    line: Curve | None,
    kind: str,
    *,
    is_alone: bool,
) -> Any:
    """Return the figure of one class: bins or a curve, small or in full."""
    if not is_alone:
        if line is None:
            return classes.class_figure(bins, style, name)
        return small_curve_figure(line, kind, style, name, classes.SMALL)
    x_title, y_title = f"Probability of {name}", f"Share of {name}"
    if line is not None:
        return curve_figure(
            line, kind, style, label, bins=bins, x_title=x_title, y_title=y_title
        )
    return reliability.reliability_figure(
        {label: bins}, styles={label: style}, x_title=x_title, y_title=y_title
    )


def every_class(
    gaps: ClassGaps,
    classwise: Mapping[str, Estimate],
    names: Sequence[str],
    label: str,
    stem: str,
) -> None:
    """Show the classes together, in two numbers and in a table."""
    st.subheader("Every class", anchor=False)
    if classwise:
        with st.container(width=560):
            display.table(
                tables.single_frame(classwise, len(names), name=label),
                alt="Calibration over all classes",
                data=partial(tables.described_frame, {label: classwise}),
                name=f"{stem}-classwise",
                key=state.key("get_classwise"),
            )
    frame = classes.class_table(gaps, names)
    st.dataframe(
        frame,
        hide_index=True,
        height=min(36 * (len(frame) + 1) + 2, 420),
        column_order=list(CLASS_COLUMNS),
        column_config={
            name: st.column_config.Column(label, width=display.NAME_WIDTH)
            if name == "class"
            else label
            if name == "rows_with_label"
            else st.column_config.NumberColumn(label, format="%.4f")
            for name, label in CLASS_COLUMNS.items()
        },
        alt="Gap of every class with its interval, the clearest first",
        placeholder="\N{EN DASH}",
    )
    display.downloads(
        frame, f"{stem}-classes", state.key("get_classes"), "Every class, as CSV"
    )
