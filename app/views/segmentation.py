"""Segmentation maps: one temperature, or one for every pixel; by image, held out."""

from __future__ import annotations

import json
from functools import partial

import streamlit as st

from app import bar, jobs, opening, state
from components import display, reliability, segmentation, tables
from core.export.maps import MapArtefact, export_maps
from core.loading.maps import SAVE_MAPS, read_maps
from core.map_evaluation import MapAnalysis, evaluate_maps
from core.messages import DataError, FitError, Progress, part_of
from core.settings import Settings

USES = {
    "python": "from local_temperature import calibrate, temperatures\n\n"
    "probabilities = calibrate(logits)  # both (n, classes, height, width)\n"
    "t = temperatures(logits)  # (n, height, width)",
    "json": "import json\n\nwith open('local_temperature.json') as file:\n"
    "    found = json.load(file)  # found['convention'] is the formula",
}
TITLES = {"python": "Python module", "json": "JSON"}
WORDS = {
    "python": "Needs NumPy only.",
    "json": "Parameters, with the formula in words and what they were fitted on.",
}


def uploader(label: str) -> None:
    """Draw the uploader of maps; what it gets is taken off its hands."""
    widget = state.key("upload_maps")
    st.file_uploader(
        label,
        key=widget,
        on_change=opening.open_maps,
        args=(widget,),
        help="NPZ or safetensors with logits (n, classes, height, width) and labels "
        "(n, height, width).",
    )


def sample_button(*, is_first: bool) -> None:
    """Offer the bundled maps."""
    st.button(
        "Open the sample maps",
        key=state.key("use_sample_maps"),
        icon=":material/science:",
        type="primary" if is_first else "secondary",
        on_click=opening.open_sample_maps,
    )


def empty() -> None:
    """Say what the page is for, and what goes in."""
    st.markdown(
        "**A class for every pixel?** Scores next to boundaries are often surer than "
        "they should be. See whether a temperature of its own for every pixel beats "
        "one for all, on images that were held out."
    )
    left, right = st.columns(2, gap="large")
    with left:
        uploader("Drop your maps")
        sample_button(is_first=True)
    with right:
        first, _, code = SAVE_MAPS.partition("\n")
        st.caption(first)
        st.code(code, language="python")


def choices(file: opening.Source) -> int | None:
    """Draw the line with the file and what may be changed; return the ignored label."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        badge = " :violet-badge[Sample]" if file.kind == "sample" else ""
        st.markdown(f"**{display.escape_markdown(file.name)}**{badge}", width="content")
        with bar.file_popover("Open", "open_file_maps"):
            uploader("Other maps")
            if file.kind != "sample":
                sample_button(is_first=False)
        with st.popover("Ignored label", icon=":material/block:", type="tertiary"):
            found = st.number_input(
                "Label of pixels that do not count",
                value=None,
                step=1,
                min_value=-1000,
                max_value=100_000,
                placeholder="the file's, else -1, -100 and 255",
                key=state.key("ignored_label"),
                persist_state="session",
            )
    return None if found is None else int(found)


def analysed(
    file: opening.Source, ignored: int | None, chosen: Settings
) -> tuple[MapAnalysis, tuple[MapArtefact, ...]] | None:
    """Read, fit, measure and export as a job; None while it is under way."""

    def work(report: Progress) -> tuple[MapAnalysis, tuple[MapArtefact, ...]]:
        maps = read_maps(
            file.path,
            name=file.name,
            ignore_index=ignored,
            progress=part_of(report, 0.0, 0.1),
        )
        found = evaluate_maps(maps, chosen, part_of(report, 0.1, 0.8))
        report(0.8, "Running the exported files on your maps")
        return found, tuple(export_maps(found, kind) for kind in ("python", "json"))

    fields = ("n_bins", "level", "n_resamples", "seed", "n_folds")
    named = json.dumps([getattr(chosen, name) for name in fields])
    key = f"maps {file.number} {ignored} {named}"
    return jobs.run(key, "Fitting temperatures of pixels", work, slot="maps")


def numbers(found: MapAnalysis, stem: str) -> None:
    """Show the three side by side."""
    st.subheader(segmentation.changes_sentence(found), anchor=False)
    row = display.table(
        segmentation.measured_frame(found),
        alt="Numbers on held-out images: uncalibrated, one temperature, local ones",
        data=partial(segmentation.numbers_table, found),
        name=f"{stem}-numbers",
        key=state.key("get_map_numbers"),
    )
    with row:
        display.download_table(
            found.by_image, f"{stem}-images", state.key("get_map_images"), "By image"
        )
        columns = {
            segmentation.LABELS[name]: result.estimates
            for name, result in found.results.items()
        }
        lines = [
            display.escape_markdown(
                f"{found.split_sentence[:1].upper()}{found.split_sentence[1:]}."
            ),
            "Pixels of an image are not independent: intervals and null ranges draw "
            "whole images. Differences are paired on the same draws.",
        ]
        display.provenance(columns, lines, state.key("get_map_provenance"))
    st.caption(
        f"Small: {found.settings.level:.0%} intervals over images; for the ECE the "
        "range that a perfectly calibrated model would show. Green is better, orange "
        "worse, beyond chance. No prediction changes."
    )


@st.fragment
def pictures(found: MapAnalysis, stem: str) -> None:
    """Show the temperatures of an image beside its errors."""
    st.subheader("Where", anchor=False)
    shown = found.image(
        st.selectbox(
            "Image",
            [item.number for item in found.images],
            format_func=lambda number: f"Image {number + 1}",
            key=state.key(f"map_image_{found.maps.fingerprint[:12]}"),
            width=240,
            label_visibility="collapsed",
        )
    )
    with st.container(width=1040):  # squares, with their scales beside them
        left, right = st.columns(2, gap="large")
    name = f"{stem}-image-{shown.number + 1}"
    with left:
        st.markdown("**Temperature**  \n:small[:gray[High: made less sure]]")
        display.chart(
            segmentation.temperatures_figure(shown),
            alt=segmentation.temperatures_alt(shown),
            name=f"{name}-temperature",
            key=state.key("figure_temperatures"),
        )
    with right:
        st.markdown("**Errors**  \n:small[:gray[Prediction against label]]")
        display.chart(
            segmentation.errors_figure(shown, found.maps.classes),
            alt=segmentation.errors_alt(shown),
            name=f"{name}-errors",
            key=state.key("figure_errors"),
        )
    st.caption(segmentation.image_sentence(shown))
    display.downloads(
        partial(segmentation.pixels_table, shown, found.maps.classes),
        f"{name}-pixels",
        state.key("get_map_pixels"),
        "Every pixel",
    )


def diagram(found: MapAnalysis, stem: str) -> None:
    """Draw the reliability of the three over each other."""
    bins = {name: result.bins for name, result in found.results.items()}
    gaps = {name: item.estimates["gap"] for name, item in found.results.items()}
    st.subheader("Reliability", anchor=False)
    display.figure(
        segmentation.reliability_of_pixels(found),
        alt=reliability.reliability_alt(gaps, segmentation.LABELS),
        name=f"{stem}-reliability",
        key=state.key("figure_map_reliability"),
        table=partial(reliability.reliability_table, bins, segmentation.LABELS),
    )


def takeaway(made: tuple[MapArtefact, ...]) -> None:
    """Offer the files that were run on the user's maps."""
    st.subheader("Take it home", anchor=False)
    for item in made:
        proof = item.verification
        with st.container(border=True, gap="small"):
            st.markdown(f"**{TITLES[item.kind]}**  \n:small[:gray[{WORDS[item.kind]}]]")
            if not proof.ok:
                st.error(
                    display.escape_markdown(proof.problem),
                    title="Not offered: the file does not say what was shown",
                    icon=":material/error:",
                )
                continue
            st.markdown(
                ":green[:material/check_circle:] :small[largest difference "
                f"{proof.max_difference:.1e} over "
                f"{tables.count_of(proof.n_pixels, 'pixel')}, {proof.seconds:.1f} s]"
            )
            with st.container(horizontal=True, gap="small"):
                st.download_button(
                    "Download",
                    data=item.text,
                    file_name=item.file_name,
                    icon=":material/download:",
                    key=state.key(f"get_maps_{item.kind}"),
                    on_click="ignore",
                    help=item.file_name,
                )
                with st.popover("How to use it", type="tertiary"):
                    st.code(USES[item.kind], language="python")


st.header("Segmentation", anchor=False)
file: opening.Source | None = st.session_state.get("_maps")
if file is None:
    empty()
    st.stop()
with st.container(gap="xsmall"):
    ignored = choices(file)
    try:
        done = analysed(file, ignored, state.settings())
    except (DataError, FitError) as error:
        display.error_box(error, example=False, key=state.key("maps_problem"))
        st.stop()
    if done is None:
        st.stop()
    found, made = done
    words = display.escape_markdown(segmentation.understood(found))
    st.markdown(f":small[:gray[{words}]]")
stem = display.file_stem(file.name)
numbers(found, stem)
pictures(found, stem)
left, right = st.columns([3, 2], gap="large")
with left:
    diagram(found, stem)
with right:
    takeaway(made)
display.notes(found.notes)
