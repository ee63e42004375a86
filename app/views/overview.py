"""From a file to a verdict: how far the confidence can be trusted, and the repair."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import streamlit as st

from app import bar, compute, fold_line, jobs, opening, provenance, relevant, state
from components import calibrators, display, reliability, tables, theme
from core.analysis import Analysis, Comparison, ViewResult
from core.calibrators import TemperatureScaling
from core.fitting import unusable_reason
from core.messages import FitError
from core.uncertainty import Estimate

MARKS = (":orange[\N{BLACK CIRCLE}] Before", ":blue[\N{BLACK DIAMOND}] After")
AT_BOUND = "fit-at-bound"  # the note that says why T has no optimum
FIRST = ("gap", "ece")  # what both views of a binary file show at once
VIEWS = {"top-label": "Predicted class", "positive-class": "Positive class"}


def invitation() -> None:
    """Say that this is a sample, and take the visitor's file."""
    with st.container(border=True):
        left, right = st.columns([5, 6], vertical_alignment="center", gap="large")
        with left:
            st.markdown(
                "**This is a sample:** a small network reads noisy digits. "
                "Drop your own file to get its verdict.  \n"
                ":small[:gray[One row per prediction: a score for every class, and "
                "the label.]]"
            )
        with right:
            bar.uploader("upload_sample", "Drop your file", is_bare=True)


def take_home(analysis: Analysis, kind: str) -> str:
    """Return an exported calibrator, run in a clean interpreter first."""
    # The first chart does not wait for what writes files.
    from core.export import export

    made = export(analysis, "temperature", "json" if kind == "json" else "python")
    if not made.verification.ok:
        raise FitError("The export did not pass its own test.", "export")
    return made.text


def repaired_rows(analysis: Analysis) -> bytes:
    """Return the rows with their repaired probabilities, as CSV."""
    from core.export import annotate, write_csv

    return write_csv(annotate(analysis, "temperature"))


def downloads(analysis: Analysis, stem: str, *, is_offered: bool) -> None:
    """Offer the repaired rows, and the repair itself."""
    with st.container(horizontal=True, gap="small"):
        st.download_button(
            "Download calibrated CSV",
            data=lambda: repaired_rows(analysis),
            file_name=f"{stem}-calibrated.csv",
            mime="text/csv",
            type="primary",
            icon=":material/download:",
            key="get_csv",
            on_click="ignore",
            disabled=not is_offered,
        )
        st.download_button(
            "Python",
            data=lambda: take_home(analysis, "python"),
            file_name="temperature_calibrator.py",
            mime="text/x-python",
            key="get_python",
            on_click="ignore",
            disabled=not is_offered,
            help="A module that needs NumPy only; tested on your rows.",
        )
        st.download_button(
            "JSON",
            data=lambda: take_home(analysis, "json"),
            file_name="temperature_calibrator.json",
            mime="application/json",
            key="get_json",
            on_click="ignore",
            disabled=not is_offered,
            help="The calibrator as data; read it with any language.",
        )


def fit_of(analysis: Analysis) -> TemperatureScaling | None:
    """Return the fitted temperature, or None where no temperature fits."""
    made = analysis.fitted.get("temperature")
    if made is None or not isinstance(made.calibrator, TemperatureScaling):
        return None
    return None if made.calibrator.is_at_bound_ else made.calibrator


def repaired(analysis: Analysis) -> Comparison | None:
    """Return the numbers before and after, or None where there is no repair."""
    return None if fit_of(analysis) is None else analysis.comparison


def no_fit_words(analysis: Analysis) -> str:
    """Return why there is no repair."""
    made = analysis.fitted.get("temperature")
    if made is None:
        if analysis.study.evaluation.logits is None:
            return bar.CONFIDENCES_ONLY
        reason = unusable_reason(analysis.study, "temperature")
        return reason or "No temperature could be fitted on these rows."
    why = [note.text for note in made.notes if note.code == AT_BOUND]
    return " ".join(["No temperature fits these rows.", *why])


def repair(analysis: Analysis) -> None:
    """Say what one temperature does, and give it away."""
    own = analysis.study.evaluation
    fit = fit_of(analysis)
    with st.container(border=True, gap="small"):
        if fit is None:
            words = display.escape_markdown(no_fit_words(analysis))
            st.markdown(f":gray[**No repair.** {words}]")
        else:
            low, high = fit.interval(analysis.settings.level)
            st.markdown(f"**{display.escape_markdown(analysis.repair)}**")
            if analysis.remains:
                st.markdown(f":orange[{display.escape_markdown(analysis.remains)}]")
            split = analysis.overview.split
            n_fit = 0 if split is None else split.fit.size
            st.caption(
                f"T lies between {low:.2f} and {high:.2f} "
                f"({analysis.settings.level:.0%} interval, {n_fit:,} fit rows). "
                "No prediction changes, only how sure it is."
            )
        downloads(analysis, display.file_stem(own.name), is_offered=fit is not None)


def view_title(analysis: Analysis, view: str) -> str:
    """Return the heading of one view of a binary file, as Markdown."""
    if view == "top-label":
        return VIEWS[view]
    own = analysis.study.evaluation
    name = display.code(own.classes[compute.positive_class(analysis)])
    return f"{VIEWS[view]} {name}"


def view_sentence(analysis: Analysis, view: str, gap: float) -> str:
    """Return what one view of a binary file says, in a sentence."""
    own = analysis.study.evaluation
    side = "above" if gap >= 0 else "below"
    points = f"**{abs(100 * gap):.1f}** points {side}"
    if view == "positive-class":
        name = display.code(own.classes[compute.positive_class(analysis)])
        return (
            f"The probability of {name} lies on average {points} the share of rows "
            "where it came true."
        )
    return (
        "The probability of whichever class is predicted lies on average "
        f"{points} the share of right predictions."
    )


def results_of(analysis: Analysis, view: str) -> Mapping[str, ViewResult]:
    """Return one view before and, where there is a repair, after it: the same rows."""
    done = repaired(analysis)
    if done is None:
        return {"uncalibrated": analysis.overview.views[view]}
    return done.views[view]


def both_views(analysis: Analysis) -> None:
    """Show what a binary file says of the predicted and of the positive class."""
    n_classes = analysis.study.evaluation.n_classes
    views = analysis.overview.views
    for column, view in zip(st.columns(len(views), gap="large"), views, strict=True):
        results = results_of(analysis, view)
        found = {
            name: {metric: results[method].estimates[metric] for metric in FIRST}
            for name, method in zip(MARKS, ("uncalibrated", "temperature"), strict=True)
            if method in results
        }
        plain = dict(zip(("Before", "After"), found.values(), strict=False))
        gap = found[MARKS[0]]["gap"]
        kind = "rows" if gap.rows == "all" else f"{gap.rows} rows"
        with column, st.container(gap="xsmall"):
            st.markdown(
                f"##### {view_title(analysis, view)}\u2002 "
                f":small[:gray[{gap.n:,} {kind}]]"
            )
            st.markdown(view_sentence(analysis, view, gap.value))
            display.table(
                calibrators.tried_frame(found, FIRST, n_classes),
                alt=f"Gap and ECE of the {VIEWS[view].lower()}",
                data=partial(tables.estimates_frame, plain),
                name=f"{display.file_stem(analysis.study.evaluation.name)}-{view}",
                key=state.key(f"get_{view}"),
            )


def numbers(analysis: Analysis, view: str) -> None:
    """Show the diagram and, beside it, the numbers before and after."""
    own = analysis.study.evaluation
    done = repaired(analysis)
    results = results_of(analysis, view)
    labels = {"uncalibrated": "Before"}
    fit = fit_of(analysis)
    if fit is not None:
        labels["temperature"] = f"After, T = {fit.temperature_:.2f}"
    bins = {name: item.bins for name, item in results.items()}
    gaps = {name: item.estimates["gap"] for name, item in results.items()}
    stem = display.file_stem(own.name)
    x_title, y_title = "Confidence", "Accuracy"
    if view == "positive-class":
        name = own.classes[compute.positive_class(analysis)]
        x_title, y_title = f"Probability of {name}", f"Share of {name}"
    left, right = st.columns(2, gap="large")
    with left:
        fig = reliability.reliability_figure(
            bins, labels=labels, x_title=x_title, y_title=y_title
        )
        display.figure(
            fig,
            alt=reliability.reliability_alt(gaps, labels),
            name=f"{stem}-reliability-{view}",
            key=f"figure-{view}",
            table=partial(reliability.reliability_table, bins, labels),
        )
    with right:
        before = results["uncalibrated"].estimates
        columns = {"Before": before}
        alt = f"Calibration measures on {tables.count_of(before['gap'].n, 'row')}"
        if done is None:
            display.table(
                tables.single_frame(before, own.n_classes, name=MARKS[0]), alt
            )
        else:
            after = results["temperature"].estimates
            change = done.changes[view]["temperature"]
            columns |= {"After": after, "Change": change}
            display.table(
                tables.before_after_frame(
                    before, after, change, own.n_classes, names=MARKS
                ),
                alt,
            )
        first = before["gap"]
        st.caption(rows_words(analysis, first.n, first.rows))
        row = display.downloads(
            partial(tables.estimates_frame, columns),
            f"{stem}-numbers-{view}",
            f"n-{view}",
        )
        with row:
            display.provenance(
                columns | other_numbers(analysis, view),
                made_of(analysis),
                f"p-{view}",
                bins=f"bins: {provenance.bins_words(analysis.settings)}",
                more=partial(provenance.other_libraries, analysis, f"p-{view}", stem),
            )
        seen = [
            note if done is None else replace(note, text=f"{name}: {note.text}")
            for name, found in columns.items()
            if name != "Change"
            for item in found.values()
            for note in item.notes
        ]
        made = analysis.fitted.get("temperature")
        known = [*analysis.notes, *(made.notes if made else ())]
        # Why no temperature fits is said where the repair would be.
        known = [note for note in known if note.code != AT_BOUND]
        display.notes([*known, *seen])


def rows_words(analysis: Analysis, n: int, rows: str) -> str:
    """Return which rows the numbers come from, and what the small print means."""
    level = f"{analysis.settings.level:.0%}"
    which = {
        "test": "test rows, none of which the temperature was fitted on",
        "cross-fitted": "cross-fitted rows: each one scaled by a temperature fitted "
        "on other rows",
    }.get(rows, "rows")
    n_all = int(analysis.overview.used.size)
    others = "" if n == n_all else f" The headline counts all {n_all:,}."
    return (
        f"{n:,} {which}.{others} Small figures: {level} intervals; for the ECE the "
        "range that a perfectly calibrated model of this size would show."
    )


def other_numbers(analysis: Analysis, view: str) -> dict[str, dict[str, Estimate]]:
    """Return the numbers of the other view of a binary file that the page shows."""
    return {
        f"{VIEWS[other]} {name}": {key: found.estimates[key] for key in FIRST}
        for other in analysis.overview.views
        if other != view
        for name, found in zip(
            ("before", "after"), results_of(analysis, other).values(), strict=False
        )
    }


def made_of(analysis: Analysis) -> list[str]:
    """Return how bins, split and temperature were made, as Markdown."""
    split = analysis.overview.split
    lines = [provenance.draws_words(analysis.settings)]
    # Nothing is fitted to confidences, so that their division says nothing.
    if split is not None and analysis.fitted:
        lines.append(f"Rows: {display.escape_markdown(split.sentence)}.")
    fit = fit_of(analysis)
    if fit is not None:
        lines.append(
            f"T = {fit.temperature_:.6g} minimises the NLL of the fit rows "
            f"({fit.nll_after_:.4f}; gradient "
            f"{abs(fit.gradient_):.1e} after "
            f"{tables.count_of(fit.n_iterations_, 'pass', 'passes')})."
        )
    elif "temperature" in analysis.fitted:
        lines.append(display.escape_markdown(no_fit_words(analysis)))
    return lines


study = state.study()
if study is None:
    st.title("How far can its confidence be trusted?", anchor=False)
    bar.uploader("upload_first", "Drop your file")
    st.button("Use the sample", key="use_sample", on_click=opening.open_sample)
    st.stop()

if state.is_sample():
    invitation()

wanted = relevant.to_first_page(study, state.settings())
name = f"{study.identity} {wanted.to_json()}"
first = jobs.run(
    f"measure {name}",
    "Measuring",
    partial(compute.overview, study, wanted),
    slot="overview",
)
if first is None:
    st.stop()

said = first.verdict
known = first.views.get("top-label")
left, right = st.columns(2, gap="large", vertical_alignment="center")
with left, st.container(gap="small"):
    display.verdict(said.headline, said.sentence, theme.VERDICT_COLORS[said.kind])
    if known is not None:
        st.caption(
            "Before any repair, on all "
            f"{tables.count_of(known.estimates['gap'].n, 'labelled row')}."
        )
if known is None:
    bar.label_choice()
    with st.container(horizontal=True, gap="medium"):
        st.page_link("views/data.py", label="Check what was understood")
        st.page_link("views/export.py", label="Apply a calibrator to these rows")
    display.notes([*study.evaluation.notes, *first.notes])
    st.stop()

with right:
    result = jobs.run(
        f"analysis {name}",
        "Looking for a repair",
        partial(compute.analysis, study, wanted),
        slot="overview",
    )
    if result is None:
        st.stop()
    repair(result)

shown = "top-label"
if len(first.views) > 1:
    both_views(result)
    shown = st.segmented_control(
        "In full",
        list(VIEWS),
        default="top-label",
        required=True,
        format_func=lambda view: VIEWS[view],
        key=state.key("view"),
        bind="query-params",
        label_visibility="collapsed",
    )
numbers(result, shown)
fold_line.draw(result, display.file_stem(study.evaluation.name))
