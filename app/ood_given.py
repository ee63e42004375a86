"""Scores that another library computed, measured on the out-of-distribution page."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import jobs, opening, state
from components import display, ood, ood_tables
from core.loading import read_given_scores
from core.messages import DataError, Progress, part_of
from core.ood import GIVEN, INSIDE, Scored, densities, measure_given
from core.settings import Settings

__all__ = ["draw"]

WORDS = (
    "Files with `conf` and `label`, as OpenOOD writes them: the label is -1 for OOD "
    "rows, and `conf` is larger for the others; it is turned round. A set per file. "
    "Half of the in-distribution rows, drawn at random, set the threshold."
)
_KEPT = "_given_scores"


def draw(chosen: Settings) -> None:
    """Take files of scores, and show what they are worth."""
    files: list[opening.Source] = st.session_state.get(_KEPT, [])
    with st.expander(
        "Scores of another library",
        icon=":material/upload_file:",
        expanded=bool(files),
        key=state.key("ood_given"),
    ):
        left, right = st.columns([3, 2], gap="large")
        widget = state.key("upload_given")
        with left:
            st.file_uploader(
                "Files of scores",
                accept_multiple_files=True,
                key=widget,
                on_change=_open,
                args=(widget,),
            )
        with right:
            st.caption(WORDS)
            if files:
                st.button(
                    "Remove them",
                    key=state.key("drop_given"),
                    on_click=lambda: st.session_state.pop(_KEPT, None),
                    icon=":material/delete:",
                    type="tertiary",
                )
        if not files:
            return
        try:
            found = _measured(files, chosen)
        except DataError as error:
            display.error_box(error, example=False, key=state.key("given_problem"))
            return
        if found is not None:
            _show(found)


def _open(widget: str) -> None:
    uploads = st.session_state.get(widget)
    if uploads:
        before = st.session_state.get(_KEPT, [])
        st.session_state[_KEPT] = [*before, *map(opening.kept, uploads)]
        opening.empty_uploaders()


def _measured(files: list[opening.Source], chosen: Settings) -> Scored | None:
    """Read and measure as a job; None while that is under way."""
    plain = chosen if chosen.threshold_rule == "tpr" else Settings()
    asked = Settings(
        threshold_target=plain.threshold_target,
        level=chosen.level,
        n_resamples=chosen.n_resamples,
        seed=chosen.seed,
        near_sets=chosen.near_sets,
        far_sets=chosen.far_sets,
    )

    def work(report: Progress) -> Scored:
        items = []
        for number, file in enumerate(files):
            report(0.3 * number / len(files), "Reading the scores")
            item = read_given_scores(file.path, name=file.name)
            if item is None:
                raise DataError(
                    "These are not scores of another library.",
                    file.name,
                    "Give the columns conf and label, and label OOD rows -1; files of "
                    "logits and features go in above.",
                )
            items.append((item.name, item))
        return measure_given(items, asked, part_of(report, 0.3, 1.0))

    numbers = [file.number for file in files]
    return jobs.run(
        f"ood given {numbers} {asked.to_json()}", "Measuring", work, slot="ood-given"
    )


def _show(found: Scored) -> None:
    results = {GIVEN: found}
    display.table(
        ood_tables.sets_frame(results, "auroc"),
        alt="AUROC of the uploaded scores",
        data=partial(ood_tables.evaluation_table, results),
        name="uploaded-scores-ood",
        key=state.key("get_given"),
        label="Every number, as CSV",
    )
    left, right = st.columns([10, 11], gap="large")
    with left:
        for of in found.scores.ood:
            frame = ood_tables.numbers_frame(results, of)
            frame.insert(0, "Set", display.escape_markdown(of))
            display.table(
                frame.drop(columns=ood_tables.SCORE),
                alt=f"Every number of the uploaded scores on {of}",
            )
        display.table(
            ood_tables.rates_frame(found),
            alt="Share of each set that the threshold accepts",
            data=partial(ood_tables.rates_table, results),
            name="uploaded-scores-thresholds",
            key=state.key("get_given_rates"),
        )
    with right:
        label = ood.score_label(GIVEN)
        made = densities({INSIDE: found.scores.test, **found.scores.ood})
        display.figure(
            ood.densities_figure(made, found.threshold.value, label=label),
            alt=ood.densities_alt(found.rates, label),
            name="uploaded-scores-densities",
            key=state.key("figure_given"),
            table=partial(ood.densities_table, made),
        )
    display.notes([*found.notes, *found.threshold.notes])
