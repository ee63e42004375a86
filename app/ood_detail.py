"""One out-of-distribution score in detail: threshold, figures, rows, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from app import ood_export, ood_mixture, state
from components import controls, display, ood, ood_tables
from components.ood import score_label
from core.messages import FitError
from core.ood import (
    DETECTORS,
    INSIDE,
    Detection,
    Scored,
    densities,
    hardest_rows,
    precision_recall_points,
    rejected_rows,
    roc_points,
    scatter,
    with_threshold,
)
from core.ood.evaluation import SetsEvaluation
from core.predictions import Study
from core.settings import Settings

__all__ = ["section"]

RULES = {
    "tpr": "Accept known",
    "fpr": "Let OOD through",
    "cost": "Least cost",
}
TARGETS = {"tpr": 0.95, "fpr": 0.05}
LISTED = 50
ALIKE = 1e-9  # a score that is the confidence, turned round, is not drawn against it


def section(study: Study, found: Detection, chosen: Settings, stem: str) -> None:
    """Draw the details of the chosen score."""
    names = ood_tables.in_order(found.results)
    st.subheader("One score", anchor=False)
    now = chosen.detector if chosen.detector in names else names[0]
    with st.container(width=360):
        controls.setting_choice(
            "Score",
            state.key("ood_detector", resets=True),
            names,
            now,
            lambda name: state.change(detector=name),
            names={name: score_label(name) for name in names},
            label_visibility="collapsed",
        )
    method = DETECTORS[now]
    words = (
        f"{method.summary} Assumes: {method.assumes[:1].lower()}{method.assumes[1:]}"
    )
    st.caption(display.escape_markdown(words))
    try:
        own = with_threshold(found.results[now], chosen, found.rows)
    except FitError as error:
        threshold_controls(study, chosen)
        display.fit_error(error, key="ood-threshold-problem")
        return
    display.notes([*own.notes, *own.threshold.notes])
    with_own = Detection(found.rows, {**found.results, now: own}, found.skipped)
    left, right = st.columns([10, 11], gap="large")
    with left:
        threshold(study, with_own, now, chosen, stem)
    with right:
        density(own, stem)
    if own.evaluation is not None:
        drawn = scatter(with_own, now, most=400)
        if (drawn["score"] + drawn["confidence"]).abs().max() < ALIKE:
            curves(with_own, now, own.evaluation, stem)
        else:
            left, right = st.columns(2, gap="large")
            with left:
                curves(with_own, now, own.evaluation, stem)
            with right:
                confidences(with_own, now, drawn, stem)
    rows_to_look_at(with_own, now, stem)
    if own.evaluation is not None:
        ood_mixture.section(study, with_own, now, chosen, stem)
    ood_export.section(study, with_own, now, chosen, stem)


# ----------------------------------------------------------------------- threshold


def threshold_controls(study: Study, chosen: Settings) -> None:
    """Choose what the threshold is for."""
    if study.ood:
        rule = state.key(f"ood_rule:{chosen.threshold_rule}")
        st.segmented_control(
            "Threshold",
            list(RULES),
            default=chosen.threshold_rule,
            required=True,
            format_func=RULES.__getitem__,
            key=rule,
            on_change=lambda: _take_rule(st.session_state[rule]),
        )
    with st.container(horizontal=True, gap="small"):
        if chosen.threshold_rule == "cost":
            _number("Cost of an accepted OOD row", "miss_cost", chosen, 1e-6, 1e6, 0.5)
            _number("Share of OOD rows to expect", "ood_share", chosen, 0, 1, 0.05)
        else:
            label = "Share of known rows to accept"
            if chosen.threshold_rule == "fpr":
                label = "Share of OOD rows to let through"
            _number(label, "threshold_target", chosen, 0.0, 1.0, 0.01)
    if chosen.threshold_rule != "tpr":
        st.caption(
            f"{chosen.ood_validation:.0%} of each OOD set are set aside for this and "
            "are in no number."
        )


def _take_rule(rule: str) -> None:
    state.change(
        threshold_rule=rule,
        threshold_target=TARGETS.get(rule, state.settings().threshold_target),
    )


def _number(
    label: str, field: str, chosen: Settings, low: float, high: float, step: float
) -> None:
    controls.setting_number(
        label,
        state.key(f"ood_{field}", resets=True),
        getattr(chosen, field),
        low,
        high,
        lambda value: state.change(**{field: value}),
        step=step,
        width=240,
    )


def threshold(
    study: Study, found: Detection, method: str, chosen: Settings, stem: str
) -> None:
    """Show the threshold, what it promises, and what it accepts."""
    own = found.results[method]
    threshold_controls(study, chosen)
    promised = own.threshold.acceptance
    bound = f"{promised.low:.1%} to {promised.high:.1%}, exact"
    st.markdown(
        f"Accept where the score is at most **{own.threshold.value:.6g}**: "
        f"**{promised.value:.1%}** of new in-distribution rows :gray[({bound}, from "
        f"{promised.n:,} threshold rows that did not fit the score)]."
    )
    every = {
        name: with_threshold(item, chosen, found.rows)
        for name, item in found.results.items()
    }
    display.table(
        ood_tables.rates_frame(own),
        alt="Share of each set that the threshold accepts",
        data=partial(ood_tables.rates_table, every),
        name=f"{stem}-ood-thresholds",
        key=state.key("get_ood_rates"),
        label="Thresholds of every score, as CSV",
    )


# ------------------------------------------------------------------------- figures


def density(own: Scored, stem: str) -> None:
    """Draw the densities of every set."""
    label = score_label(own.method)
    made = densities({INSIDE: own.scores.test, **own.scores.ood})
    display.figure(
        ood.densities_figure(made, own.threshold.value, label=label, height=440),
        alt=ood.densities_alt(own.rates, label),
        name=f"{stem}-{own.method}-densities",
        key=state.key("figure_ood_densities"),
        table=partial(ood.densities_table, made),
    )


@st.fragment
def curves(
    found: Detection, method: str, evaluation: SetsEvaluation, stem: str
) -> None:
    """Draw curves of this score and some others on one set."""
    of, kind = next(iter(evaluation.sets)), "roc"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        of = st.selectbox(
            "Set",
            list(evaluation.sets),
            key=state.key(f"ood_curve_set_{len(evaluation.sets)}"),
            width=220,
            label_visibility="collapsed",
        )
        kind = st.segmented_control(
            "Curve",
            list(ood.CURVE_NAMES),
            default="roc",
            required=True,
            format_func=ood.CURVE_NAMES.__getitem__,
            key=state.key("ood_curve"),
            persist_state="session",
            label_visibility="collapsed",
        )
    shown = dict.fromkeys([method, *_others(found, method)])
    made, areas = {}, {}
    for name in shown:
        item = found.results[name]
        if item.evaluation is None:
            continue
        made[name] = _points(item.scores.test, item.scores.ood[of], kind)
        numbers = item.evaluation.sets[of].estimates
        area = {"roc": "auroc", "pr-out": "aupr_out", "pr-in": "aupr_in"}[kind]
        areas[name] = numbers[area].value
    display.figure(
        ood.curve_figure(made, kind, prevalence=evaluation.sets[of].prevalence),
        alt=ood.curve_alt(areas, kind, of),
        name=f"{stem}-{kind}",
        key=state.key("figure_ood_curve"),
        table=partial(ood.curve_table, made, kind, of),
    )


def _others(found: Detection, method: str) -> list[str]:
    """Return the scores that are drawn beside one: the first ones in order."""
    names = [name for name in ood_tables.in_order(found.results) if name != method]
    return names[:2]


def _points(inside: Any, outside: Any, kind: str) -> tuple[Any, Any, Any]:
    if kind == "roc":
        return roc_points(inside, outside)
    positive = "ood" if kind == "pr-out" else "in-distribution"
    return precision_recall_points(inside, outside, positive=positive)


def confidences(found: Detection, method: str, made: pd.DataFrame, stem: str) -> None:
    """Draw the score against the confidence of some rows."""
    if made["confidence"].isna().all():
        st.caption("Rows without class scores have no confidence to draw.")
        return
    cut, label = found.results[method].threshold.value, score_label(method)
    display.figure(
        ood.scatter_figure(made, cut, label=label, height=420),
        alt=ood.scatter_alt(made, cut, label),
        name=f"{stem}-{method}-confidence",
        key=state.key("figure_ood_scatter"),
        table=partial(scatter, found, method),
    )


# ---------------------------------------------------------------------------- rows


def rows_to_look_at(found: Detection, method: str, stem: str) -> None:
    """List the OOD rows that pass most easily, and the known rows that do not."""
    lists: Mapping[str, tuple[str, Any]] = {
        "hardest": ("OOD rows that look most familiar", hardest_rows),
        "rejected": ("Known rows that look strangest", rejected_rows),
    }
    frames = {name: take(found, method, LISTED) for name, (_, take) in lists.items()}
    shown = {name: frame for name, frame in frames.items() if not frame.empty}
    columns = st.columns(2, gap="large")
    for column, (name, frame) in zip(columns, shown.items(), strict=False):
        title, take = lists[name]
        with column:
            st.markdown(f"**{title}**")
            st.dataframe(
                ood_tables.rows_table(frame),
                hide_index=True,
                height=260,
                column_config={
                    "Confidence": st.column_config.NumberColumn(format="%.3f"),
                    "Score": st.column_config.NumberColumn(format="%.4g"),
                    "Known rows above": st.column_config.NumberColumn(
                        format="percent",
                        help="Share of the in-distribution test rows with a larger "
                        "score.",
                    ),
                },
                alt=title,
                placeholder="\N{EN DASH}",
            )
            display.downloads(
                partial(take, found, method, 1000),
                f"{stem}-{method}-{name}",
                state.key(f"get_ood_{name}"),
                "Up to 1,000 of them, as CSV",
            )
