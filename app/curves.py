"""Reliability curves without bins, as the Reliability page shows them."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from app import compute, jobs, state
from components import curves, display, tables
from components.theme import Style
from core.analysis import Analysis
from core.binning import BinStatistics
from core.messages import Progress, part_of
from core.metrics import CURVES, METRICS, Curve

__all__ = ["BINS", "about", "choice", "draw", "of_classes", "of_view", "parts"]

BINS = "bins"
KINDS = {BINS: "Bins"} | {name: item.label for name, item in CURVES.items()}


def choice() -> str:
    """Choose between bins and the curves that need none."""
    return st.segmented_control(
        "Drawn with",
        list(KINDS),
        default=BINS,
        required=True,
        format_func=lambda name: KINDS[name],
        key=state.key("reliability_curve"),
        persist_state="session",
        label_visibility="collapsed",
        help="\n\n".join(
            f"**{item.label}**: {item.summary}" for item in CURVES.values()
        ),
    )


def of_view(analysis: Analysis, view: str, method: str, kind: str) -> Curve | None:
    """Return the curve of one view, or None while it is made."""
    study, chosen = analysis.study, analysis.settings
    return jobs.run(
        f"curve {study.identity} {view} {method} {kind} {chosen.to_json()}",
        f"Drawing the {CURVES[kind].label} curve",
        partial(compute.curve, study, chosen, method, view, kind),
        slot="reliability",
    )


def draw(
    curve: Curve,
    kind: str,
    style: Style,
    label: str,
    bins: BinStatistics,
    *,
    titles: tuple[str, str],
    name: str,
    **options: Any,
) -> None:
    """Draw one curve in full, with the counts of the bins under it.

    Parameters
    ----------
    curve : Curve
    kind : str
        Id in `core.metrics.CURVES`.
    style, label : Style and str
        Of the scores.
    bins : BinStatistics
    titles : tuple of str
        Of the axes.
    name : str
        Of its downloads.
    **options
        Of `components.display.figure`.
    """
    display.figure(
        curves.curve_figure(
            curve,
            kind,
            style,
            label,
            bins=bins,
            x_title=titles[0],
            y_title=titles[1],
        ),
        alt=curves.curve_alt(curve, kind, label),
        name=name,
        table=partial(curves.curve_table, {label: curve}, kind),
        **options,
    )


def about(curve: Curve, kind: str) -> None:
    """Say what line and band are; formula and source are in the tooltip."""
    line = {
        "corp": "Line: isotonic regression, the best rising fit (CORP).",
        "smooth": "Line: confidence less the error of the rows around it, averaged by "
        "a Gaussian kernel.",
    }[kind]
    st.caption(
        f"{line} Band: where {curve.level:.0%} of the curves of a calibrated model of "
        "this size lie, at each confidence by itself.",
        help=display.method_tip(CURVES[kind]),
    )


def parts(analysis: Analysis, view: str, method: str, kind: str, stem: str) -> None:
    """Show the numbers that belong beside a curve, each with its interval or null."""
    study, chosen = analysis.study, analysis.settings
    names = CURVES[kind].traits["metrics"]
    found = jobs.run(
        f"parts {study.identity} {view} {method} {kind} {chosen.to_json()}",
        f"Numbers of the {CURVES[kind].label} curve",
        partial(compute.more_metrics, study, chosen, method, view, names),
        slot="parts",
    )
    if found is None:
        return
    label = CURVES[kind].label
    first = next(iter(found.values()))
    rows = tables.rows_of(first.n, first.rows)
    words = f"**{label}**\u2002 :small[:gray[{rows}]]"
    tips = [
        f"**{METRICS[metric].label}** {display.method_tip(METRICS[metric])}"
        for metric in found
        if not metric.startswith("log-")
    ]
    with st.container(gap="xsmall"):
        st.markdown(words, help="\n\n".join(tips))
        display.table(
            curves.parts_frame(found),
            alt=f"Numbers of the {label} reliability curve",
            data=partial(tables.described_frame, {label: found}),
            name=f"{stem}-{kind}-numbers",
            key=state.key("get_parts"),
        )
        if kind == "corp":
            st.caption(
                "Both scores judge one probability against what came true; NLL and "
                "the Brier score in sum form judge the probabilities of all classes. "
                "Score of the confidence = miscalibration \N{MINUS SIGN} "
                "discrimination + uncertainty. Recalibration can remove the first; "
                "confidence earns the second."
            )


def of_classes(
    analysis: Analysis, method: str, columns: tuple[int, ...], kind: str
) -> dict[int, Curve] | None:
    """Return the curves of some classes, or None while they are made."""
    study, chosen = analysis.study, analysis.settings

    def work(report: Progress) -> dict[int, Curve]:
        found = {}
        for number, column in enumerate(columns):
            ends = (place / len(columns) for place in (number, number + 1))
            part = part_of(report, *ends)
            part(0.0, f"Class {study.evaluation.classes[column]}")
            asked = (study, chosen, method, column, kind)
            found[column] = compute.class_curve(*asked, part)
        return found

    return jobs.run(
        f"class curves {study.identity} {method} {kind} {columns} {chosen.to_json()}",
        f"Drawing {CURVES[kind].label} curves",
        work,
        slot="class-curves",
    )
