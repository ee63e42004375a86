"""Fit calibrators, compare them on the same rows, try a temperature by hand."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import streamlit as st

from app import (
    bar,
    compute,
    correctness,
    jobs,
    learned_maps,
    learning,
    several,
    state,
)
from app import ranking as ranks
from app.live_temperature import live_temperature
from components import calibrators, controls, display, methods, reliability, tables
from components.calibrators import FittedTemperature
from components.live_temperature import payload, temperature_at
from core.analysis import UNCALIBRATED, Analysis, Comparison
from core.by_hand import temperature_by_hand, temperatures_by_hand
from core.calibrators import CALIBRATORS, TemperatureScaling
from core.export import Kind, export
from core.fitting import unusable_reason
from core.messages import FitError, Progress, part_of
from core.predictions import Study
from core.registry import Method
from core.settings import Settings
from core.sweep import TemperatureSweep, sweep_temperature
from core.temperature_grid import TemperatureGrid

VIEWS = {"top-label": "Predicted class", "positive-class": "Positive class"}
OVERLAID = ("gap", "ece")
SHOWN = 3  # calibrators that the overlay starts with


class Trial(NamedTuple):
    """What shows a tried temperature: loss of fit rows, numbers of test rows."""

    sweep: TemperatureSweep
    grid: TemperatureGrid


class Results(NamedTuple):
    """What a click on "Fit" leads to."""

    analysis: Analysis
    lab: Analysis | None
    trial: Trial | None


def choice(study: Study, chosen: Settings) -> dict[str, str | None]:
    """Choose calibrators; return why the greyed ones cannot be, None for the others."""
    reasons = {name: unusable_reason(study, name) for name in CALIBRATORS}
    keep = st.toggle(
        "Keep my predictions",
        key=state.key("keep_predictions"),
        help="Only calibrators that never change which class is predicted.",
        on_change=take_keep,
        persist_state="session",
    )
    if keep:
        reasons |= {
            name: reasons[name] or "It may change which class is predicted."
            for name, method in CALIBRATORS.items()
            if not method.is_accuracy_preserving
        }
    offered = [CALIBRATORS[name] for name in CALIBRATORS if name != UNCALIBRATED]
    offered.sort(key=methods.reading_order)
    is_usable = not all(reasons[method.id] for method in offered)
    first = [method for method in offered if method.tier == "default"]
    more = [method for method in offered if method.tier != "default"]
    with st.form("choice", enter_to_submit=False):
        grid(first, chosen, reasons)
        if more:
            with st.expander("More methods"):
                grid(more, chosen, reasons)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.form_submit_button(
                "Fit and compare",
                type="primary",
                icon=":material/play_arrow:",
                key=state.key("fit"),
                on_click=take_choice,
                disabled=not is_usable,
            )
            if is_usable:
                st.caption("The uncalibrated scores always take part.", width="content")
    return reasons


def grid(
    members: Sequence[Method], chosen: Settings, reasons: dict[str, str | None]
) -> None:
    """Draw the boxes of some calibrators, three in a row."""
    for start in range(0, len(members), 3):
        row = members[start : start + 3]
        for column, method in zip(st.columns(3, gap="medium"), row, strict=False):
            with column:
                box(method, chosen, reasons[method.id])


def box(method: Method, chosen: Settings, reason: str | None) -> None:
    """Draw the box of one calibrator with its summary, or why it is greyed."""
    widget = state.key(f"pick_{method.id}")
    is_chosen = method.id in chosen.calibrators and reason is None
    if st.session_state.get(widget) != is_chosen:
        state.assign(widget, is_chosen)
    with st.container(gap="xxsmall"):
        st.checkbox(method.label, key=widget, disabled=reason is not None)
        words = display.escape_markdown(reason or method.summary)
        icon = ":material/block: " if reason else ""
        st.caption(f"{icon}{words}")
        if not method.params:
            return
        options = chosen.method_options(method.id)
        with st.popover(
            f"Options of {method.label}", type="tertiary", disabled=reason is not None
        ):
            for param in method.params:
                controls.param_widget(
                    param,
                    state.key(f"option_{method.id}_{param.name}"),
                    options.get(param.name, param.default),
                )


def take_keep() -> None:
    """Drop the calibrators that may change predictions, where that was asked for."""
    if st.session_state[state.key("keep_predictions")]:
        chosen = state.settings().calibrators
        kept = (name for name in chosen if CALIBRATORS[name].is_accuracy_preserving)
        state.change(calibrators=tuple(kept))


def take_choice() -> None:
    """Take the boxes and options into the Settings."""
    now = st.session_state
    picked = tuple(
        name for name in CALIBRATORS if now.get(state.key(f"pick_{name}")) is True
    )
    options = tuple(
        (name, param.name, now[widget])
        for name in CALIBRATORS
        for param in CALIBRATORS[name].params
        for widget in [state.key(f"option_{name}_{param.name}")]
        if widget in now and now[widget] != param.default
    )
    state.change(calibrators=picked, options=options)


def results(
    study: Study, chosen: Settings, reasons: dict[str, str | None]
) -> Results | None:
    """Fit and compare as a job; None while it is under way."""
    usable = tuple(
        name
        for name in dict.fromkeys(CALIBRATORS[name].id for name in chosen.calibrators)
        if name != UNCALIBRATED and reasons[name] is None
    )
    # What is exported does not concern the comparison, nor what it is set against.
    wanted = chosen.replace(
        calibrators=usable,
        baseline=UNCALIBRATED,
        method="temperature",
        temperature=None,
    )
    key = f"calibrators {study.identity} {wanted.to_json()}"
    arrivals = ranks.arrivals_of(key, study, wanted)

    def work(report: Progress) -> Results:
        part = part_of(report, 0.0, 0.8)
        found = compute.analysis(study, wanted, part, arrivals.take)
        split = found.overview.split
        if split is None or unusable_reason(study, "temperature"):
            return Results(found, None, None)
        alone = wanted.replace(calibrators=("temperature",))
        lab = compute.analysis(study, alone, part_of(report, 0.8, 0.9))
        if "temperature" not in lab.fitted:
            return Results(found, None, None)
        center = FittedTemperature.of(lab.fitted["temperature"], chosen.level).value
        sweep = sweep_temperature(
            study, split, center, progress=part_of(report, 0.9, 0.95)
        )
        report(0.95, "Trying temperatures")
        grid = temperatures_by_hand(study, chosen, found.overview, center)
        return Results(found, lab, Trial(sweep, grid))

    done = jobs.run(key, "Fitting and comparing", work, slot="calibrators")
    if done is None and usable:
        ranks.show_arrivals(arrivals)
    return done


def overlay(analysis: Analysis, compared: Comparison, view: str, stem: str) -> None:
    """Draw the reliability diagrams of the chosen calibrators over each other."""
    found, chosen = compared.views[view], analysis.settings
    order = [name for name, _, _ in compared.ranking]
    best = [name for name in order if name != UNCALIBRATED][:SHOWN]
    labels = {name: calibrators.method_label(name) for name in order}
    st.subheader("Reliability", anchor=False)
    shown = st.pills(
        "Shown",
        order,
        selection_mode="multi",
        default=[UNCALIBRATED, *best],
        format_func=lambda name: labels[name],
        key=state.key(f"shown_{'_'.join(sorted(order))}"),
    ) or [UNCALIBRATED]
    left, right = st.columns([11, 10], gap="large")
    drawn = [name for name in order if name in shown]
    bins = {name: found[name].bins for name in drawn}
    x_title, y_title = "Confidence", "Accuracy"
    if view == "positive-class":
        own = analysis.study.evaluation
        positive = own.classes[compute.positive_class(analysis)]
        x_title, y_title = f"Probability of {positive}", f"Share of {positive}"
    gaps = {name: found[name].estimates["gap"] for name in drawn}
    with left:
        display.figure(
            reliability.reliability_figure(
                bins, labels=labels, x_title=x_title, y_title=y_title
            ),
            alt=reliability.reliability_alt(gaps, labels),
            name=f"{stem}-calibrators-{view}",
            key=state.key(f"figure_overlay_{view}"),
            table=partial(reliability.reliability_table, bins, labels),
        )
    with right:
        display.table(
            calibrators.measured_frame(analysis, view, drawn, OVERLAID),
            alt="Gap and ECE of the calibrators in the diagram",
            data=partial(
                tables.estimates_frame,
                {
                    name: {metric: found[name].estimates[metric] for metric in OVERLAID}
                    for name in drawn
                },
            ),
            name=f"{stem}-calibrators-{view}-overlay",
            key=state.key("get_overlay"),
        )
        st.caption(
            "On the dashed line a calibrator keeps its word; below it, it is "
            f"overconfident. Bars are {chosen.level:.0%} intervals of each bin; bins "
            "with fewer than ten rows are grey. Underneath, the rows of each of the "
            f"{chosen.n_bins} bins."
        )


def certificate(fit: TemperatureScaling, temperature: FittedTemperature) -> None:
    """Say what T is, how sure that is, and the proof that it is the optimum."""
    if fit.is_at_bound_:
        st.markdown(f"**T = {temperature.value:g}**, at its bound.")
    else:
        st.markdown(
            f"**T = {temperature.value:.3f}** :gray[({temperature.level:.0%} interval "
            f"{temperature.low:.3f} to {temperature.high:.3f})]"
        )
    where = "there" if fit.is_at_bound_ else "at the optimum"
    words = [
        f"NLL of the fit rows {fit.nll_after_:.4f}",
        f"gradient {where} {abs(fit.gradient_):.0e} per row",
        tables.count_of(fit.n_iterations_, "pass", "passes"),
        "at a bound" if fit.is_at_bound_ else "no bound hit",
    ]
    if len(temperature.folds) > 1:
        folds = ", ".join(f"{value:.3f}" for value in temperature.folds)
        words.append(f"T of each fold {folds}")
    st.caption(" \u00b7 ".join(words))


@st.fragment
def laboratory(lab: Analysis, compared: Comparison, trial: Trial, stem: str) -> None:
    """Try a temperature: only this part of the page runs again."""
    study, chosen = lab.study, lab.settings
    fitted = FittedTemperature.of(lab.fitted["temperature"], chosen.level)
    known = compared.views["top-label"]["temperature"]
    if state.key("try_temperature") not in st.session_state:
        state.assign("try_temperature", 0)
    step = st.session_state[state.key("try_temperature")]
    tried = None if step == 0 else temperature_at(fitted.value, step)
    columns, bins = {"Fitted": known.estimates}, {"temperature": known.bins}
    labels = {"temperature": f"Fitted, T = {fitted.value:.3g}"}
    preview = None
    if tried is not None:
        preview = compute.preview(study, chosen, tried)
        columns["Tried"], bins["tried"] = preview.estimates, preview.bins
        labels["tried"] = f"Tried, T = {tried:.3g}"
    left, right = st.columns([10, 11], gap="large")
    # what somebody waits for comes first, then the figure beside it
    with right:
        content = payload(
            trial.grid,
            known,
            fitted.value,
            step=step,
            tried=preview,
            norm=chosen.norm,
            n_classes=study.evaluation.n_classes,
        )
        live = state.key("live_temperature")
        live_temperature(content, key=live, on_step=partial(take_step, live))
        row = display.downloads(
            partial(tables.estimates_frame, columns),
            "temperature-tried",
            state.key("get_tried_numbers"),
            "Numbers",
        )
        with row:
            shown = partial(reliability.reliability_table, bins, labels)
            key = state.key("get_figure_tried")
            display.download_table(shown, f"{stem}-tried", key, "Bins")
            display.download_json(shown, f"{stem}-tried", f"{key}_json")
            st.button(
                "Fitted T",
                key=state.key("use_fitted"),
                on_click=state.assign,
                args=("try_temperature", 0),
                disabled=step == 0,
                type="tertiary",
                icon=":material/undo:",
                help="Go back to the fitted temperature.",
            )
        if tried is not None:
            st.markdown(
                ":orange-badge[:material/warning: tuned on test] :small[:gray[Chosen "
                "by looking at the rows it is measured on, it flatters itself there: "
                "no intervals.]]"
            )
            tried_downloads(lab, round(tried, 4))
    with left:
        fit = lab.fitted["temperature"].calibrator
        if isinstance(fit, TemperatureScaling):
            certificate(fit, fitted)
        display.figure(
            calibrators.sweep_figure(trial.sweep, fitted, tried),
            alt=calibrators.sweep_alt(fitted),
            name=f"{stem}-temperature",
            key=state.key("figure_sweep"),
            table=partial(calibrators.sweep_table, trial.sweep),
        )


def take_step(live: str) -> None:
    """Take the step at which somebody let go of the slider."""
    step = st.session_state[live].step
    if step is not None:
        state.assign("try_temperature", int(step))


def tried_downloads(lab: Analysis, temperature: float) -> None:
    """Offer a calibrator with the temperature that was tried, marked as such."""

    def take(kind: Kind) -> str:
        made = export(temperature_by_hand(lab, temperature), "temperature", kind)
        if not made.verification.ok:
            raise FitError("The export did not pass its own test.", "export")
        return made.text

    with st.container(horizontal=True, gap="small"):
        offered: tuple[tuple[Kind, str, str], ...] = (
            ("python", "Python", "py"),
            ("json", "JSON", "json"),
        )
        for kind, label, suffix in offered:
            st.download_button(
                f"{label}, T = {temperature:.4g}",
                data=partial(take, kind),
                file_name=f"temperature_tuned_on_test.{suffix}",
                key=state.key(f"get_tried_{kind}"),
                on_click="ignore",
                icon=":material/download:",
                help='With the mark "tuned on test"; tested on your rows.',
            )


def nothing_fitted(analysis: Analysis) -> None:
    """Say why there is no comparison."""
    if not analysis.overview.views:
        st.markdown("**No labels, nothing to fit.** Choose the label column:")
        bar.label_choice()
    elif all(unusable_reason(analysis.study, name) for name in CALIBRATORS):
        st.markdown(f"**No calibrator can use this file.** {bar.CONFIDENCES_ONLY}")
        with st.container(horizontal=True, gap="medium"):
            st.page_link("views/overview.py", label="See its verdict")
    elif not analysis.settings.calibrators:
        st.markdown("**Nothing is chosen.** Tick a calibrator and fit it.")
    else:
        st.markdown("**No calibrator could be fitted on these rows.**")
    display.notes(analysis.notes)


study = state.study()
st.header("Calibrators", anchor=False)
if study is None:
    bar.uploader("upload_first", "Drop your file")
    st.stop()

reasons = choice(study, state.settings())
found = results(study, state.settings(), reasons)
if found is None:
    st.stop()
compared = found.analysis.comparison
if compared is None:
    nothing_fitted(found.analysis)
    st.stop()

stem = display.file_stem(study.evaluation.name)
ranks.ranking(found.analysis, compared, stem)
shown_view = "top-label"
if len(compared.views) > 1:
    shown_view = (
        st.segmented_control(
            "View",
            list(VIEWS),
            default="top-label",
            required=True,
            format_func=lambda name: VIEWS[name],
            key=state.key("view"),
            bind="query-params",
            label_visibility="collapsed",
        )
        or "top-label"
    )
ranks.numbers(found.analysis, compared, shown_view, stem)
overlay(found.analysis, compared, shown_view, stem)
learned_maps.section(found.analysis, stem)
correctness.section(found.analysis, stem)
learning.section(found.analysis, stem)
several.section(found.analysis, stem)
if found.lab is not None and found.lab.comparison and found.trial is not None:
    st.subheader("Temperature", anchor=False)
    laboratory(found.lab, found.lab.comparison, found.trial, stem)
said = {note for item in found.analysis.fitted.values() for note in item.notes}
display.notes(note for note in found.analysis.notes if note not in said)
