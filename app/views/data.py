"""Which file, what was understood of it, and which rows play which role."""

from functools import partial

import streamlit as st

from app import bar, compute, copies, jobs, opening, relevant, snapshots, state
from components import controls, display, tables
from core.loading import ColumnGuess, Schema
from core.loading.snippets import SNIPPETS
from core.predictions import Study
from core.settings import Settings

SHOWN_COLUMNS = 24
ROLES = (*state.COLUMN_ROLES, "slice", "score", "other")
ROLE_NAMES = {
    **bar.ROLE_LABELS,
    "slice": "Slice",
    "score": "Score",
    "other": "Not used",
    "confidence": "Confidence",
    "correct": "Outcome",
    "predicted": "Prediction",
    "features": "Features",
    "head": "Last layer",
    "classes": "Class names",
}
SPLITS = {
    "auto": "Automatic: the split column if there is one, else cross-fit",
    "file": "As the split column says",
    "cross-fit": "Cross-fit: every row is tested by a calibrator that never saw it",
    "holdout": "Random holdout",
    "time": "By time: fit on the past, test on the future",
}


def file_section() -> None:
    """Take a file: upload, path of this machine, or the sample."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        bar.uploader("upload_data", "Your predictions")
    with right:
        if opening.is_local():
            path = st.text_input(
                "Or a path on this machine",
                key=state.key("path"),
                placeholder="/data/predictions.npz",
                on_change=lambda: opening.open_path(st.session_state["path"].strip()),
            )
            del path
        with st.container(horizontal=True, gap="small"):
            st.button(
                "Use the sample",
                key=state.key("use_sample"),
                on_click=opening.open_sample,
                disabled=state.is_sample(is_first=True),
                icon=":material/science:",
            )
            with st.popover("What a file looks like", type="tertiary"):
                st.markdown(
                    "One row per prediction: a column of logits or probabilities for "
                    "every class, named `logit_…`, `prob_…` or like the class, and the "
                    "label. Columns such as `id`, `group`, `split`, `time` and "
                    "`weight` are recognised by name. NPZ: arrays `logits` and "
                    "`labels`."
                )
                st.code(display.MINIMAL_EXAMPLE, language=None)
                st.download_button(
                    "Download this file",
                    data=display.MINIMAL_EXAMPLE,
                    file_name="example.csv",
                    mime="text/csv",
                    key=state.key("example"),
                    on_click="ignore",
                    icon=":material/download:",
                    type="tertiary",
                )


def privacy_section() -> None:
    """Say where a file goes, and forget it on demand."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("Where does my file go?", type="tertiary"):
            where = (
                "this machine" if opening.is_local() else "the machine of this server"
            )
            st.markdown(
                f"It stays on {where}: read into memory, kept in a temporary file of "
                "your session, sent nowhere else. Both go when you forget it, open "
                "another file, or close this page. Nobody else's session sees it."
            )
        st.button(
            "Forget my data",
            key=state.key("forget"),
            icon=":material/delete:",
            type="tertiary",
            on_click=opening.forget,
            disabled=state.is_sample(),
            help="Drop the file, what was computed of it, and every choice.",
        )
        st.markdown(
            ":small[:gray[A reload of the page forgets uploads; a session file keeps "
            "the choices.]]",
            width="content",
        )


def snippets_section() -> None:
    """Show how to save logits from the libraries that people train with."""
    with st.expander("Save logits from your library", icon=":material/code:"):
        tabs = st.tabs([snippet.label for snippet in SNIPPETS.values()])
        for tab, snippet in zip(tabs, SNIPPETS.values(), strict=True):
            tab.code(snippet.code, language="python")


def kind_section(schema: Schema) -> None:
    """Say what the scores were taken for, and why; one click says otherwise."""
    evidence = display.escape_markdown(schema.input_evidence)
    names = schema.names("score")
    if not names and schema.input_kind != "confidence":
        words = "**No score columns were found.** Give them a role below"
        if schema.input_kind == "features":
            words += "; without them, the features do for Out-of-distribution"
        st.markdown(f"{words}.")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"Scores are **{schema.input_kind}**: {evidence}.", width="content")
        bar.kind_button(schema, state.key("flip"), state.amend)
    if len(names) > 1:
        ends = f"{display.code(names[0])} to {display.code(names[-1])}"
        st.markdown(f":small[:gray[{len(names):,} score columns, {ends}]]")


def positive_section(study: Study, chosen: Settings) -> None:
    """Choose the class that binary results speak of."""
    own = study.evaluation
    if own.n_classes != 2:
        return
    with st.container(width=360):
        controls.setting_choice(
            "Positive class",
            state.key("positive", resets=True),
            list(own.classes),
            chosen.positive_class or own.classes[1],
            lambda value: state.change(positive_class=value),
        )


def columns_section(schema: Schema) -> None:
    """List the columns that are not scores, each with its role and why."""
    listed = [item for item in schema.columns if item.role != "score"]
    if len(schema.names("score")) <= 2:
        listed = list(schema.columns)
    with st.container(gap="xsmall", width=760):
        for number, item in enumerate(listed[:SHOWN_COLUMNS]):
            column_line(number, item)
    if listed[SHOWN_COLUMNS:]:
        more = tables.count_of(len(listed) - SHOWN_COLUMNS, "column")
        st.caption(f"Not listed: {more}.")


def column_line(number: int, item: ColumnGuess) -> None:
    """Show a column with the choice of its role, and why it has it."""
    options = [
        role
        for role in ROLES
        if role in item.alternatives or role in (item.role, "other")
    ]
    if item.role not in options:
        options.insert(0, item.role)
    name, role = st.columns([7, 4], vertical_alignment="center", wrap=False)
    why = f":small[:gray[{display.escape_markdown(item.evidence)}]]"
    name.markdown(f"{display.code(item.name)}\u2002 {why}")
    with role:
        controls.setting_choice(
            f"Role of {display.escape_markdown(item.name)}",
            state.key(f"role_{number}", resets=True),
            options,
            item.role,
            lambda value: state.give_role(item.name, item.role, value),
            names=ROLE_NAMES,
            label_visibility="collapsed",
        )


def doubts_section(study: Study, chosen: Settings) -> None:
    """Show the remarks on the file, those that its numbers raise included."""
    notes = list(study.evaluation.notes)
    wanted = relevant.to_first_page(study, chosen)
    name = f"measure {study.identity} {wanted.to_json()}"
    first = jobs.run(
        name, "Checking the rows", partial(compute.overview, study, wanted), slot="data"
    )
    if first is not None:
        notes += first.notes
    display.notes(notes)


def split_section(study: Study, chosen: Settings) -> None:
    """Choose how rows are divided, and show the sizes; say where there is no need."""
    if study.evaluation.confidence is not None:
        st.markdown(f":gray[:material/block: {bar.CONFIDENCES_ONLY}]")
        return
    if not study.evaluation.is_labelled.any():
        st.markdown("**No labels, nothing to divide.** Choose the label column:")
        bar.label_choice()
        st.page_link(
            "views/export.py",
            label="Apply a saved calibrator to these rows",
            icon=":material/tune:",
        )
        return
    left, right = st.columns(2, gap="large")
    with left:
        controls.setting_choice(
            "How rows are divided",
            state.key("split_kind", resets=True),
            list(SPLITS),
            chosen.split,
            lambda value: state.change(split=value),
            names=SPLITS,
        )
        with st.container(horizontal=True, gap="small"):
            if chosen.split in ("auto", "file", "cross-fit"):
                # The folds of a fixed split only rank calibrators.
                number("Folds", "n_folds", chosen, 2, 50)
            else:
                number("Fit share", "fit_fraction", chosen, 0.05, 0.95, step=0.05)
            number("Threshold share", "threshold_fraction", chosen, 0.0, 0.9, step=0.05)
            number("Seed", "seed", chosen, 0, 2**32 - 1)
    with right:
        division = compute.division(study, chosen)
        problem = compute.division_problem(study, chosen)
        if division is None:
            if problem is not None:
                display.fit_error(problem)
            return
        sizes = compute.role_sizes(study, chosen)
        with st.container(horizontal=True, gap="large"):
            for role, size in sizes.items():
                st.metric(role, f"{size:,}", width="content")
        st.caption(display.escape_markdown(division.sentence))
        display.notes(division.notes)


def number(
    label: str, field: str, chosen: Settings, low: float, high: float, step: float = 1
) -> None:
    """Draw the field of one number of the Settings."""
    controls.setting_number(
        label,
        state.key(f"set_{field}", resets=True),
        getattr(chosen, field),
        low,
        high,
        lambda value: state.change(**{field: value}),
        step=step,
        width=150,
    )


def left_out_section(study: Study, chosen: Settings) -> None:
    """Show the rows that could not be used, and what happens to such rows."""
    own = study.evaluation
    choices = {"refuse": "Refuse the file and say where", "leave-out": "Leave them out"}
    with st.container(width=360):
        controls.setting_choice(
            "Rows with missing or unreadable scores",
            state.key("invalid_rows", resets=True),
            list(choices),
            chosen.invalid_rows,
            lambda value: state.amend(invalid_rows=value),
            names=choices,
        )
    if own.left_out.empty:
        st.caption("No row of this file was left out.")
        return
    were = "was" if len(own.left_out) == 1 else "were"
    number_of = tables.count_of(len(own.left_out), "row")
    st.markdown(f"**{number_of} {were} left out.**")
    st.dataframe(
        own.left_out.head(200),
        hide_index=True,
        height=220,
        alt=f"{number_of} that {were} left out, with the reason",
        placeholder="\N{EN DASH}",
    )
    stem = display.file_stem(own.name)
    display.downloads(own.left_out, f"{stem}-left-out", "left_out", "All of them")


def session_section(chosen: Settings) -> None:
    """Save every setting to a file, or open such a file."""
    left, right = st.columns(2, gap="large", vertical_alignment="bottom")
    with left:
        st.markdown("A session file holds every choice, and none of your rows.")
        st.download_button(
            "Save session",
            data=chosen.to_json(),
            file_name="plumbline-session.json",
            mime="application/json",
            icon=":material/save:",
            key=state.key("save_session"),
            on_click="ignore",
        )
    with right:
        widget = state.key("upload_session")
        st.file_uploader(
            "Open a session file",
            type=["json"],
            key=widget,
            on_change=opening.open_session,
            args=(widget,),
        )


st.header("Data", anchor=False)
file_section()
snippets_section()
privacy_section()

schema = state.target_schema()
failed = state.problem()
if schema is not None:
    st.subheader("What was understood", anchor=False)
    if failed is not None and failed.source is not None:
        st.markdown(
            f"Of {display.code(failed.source.name)}, which could not be read yet:"
        )
    kind_section(schema)
    columns_section(schema)

study = state.study()
if study is not None:
    if failed is None:
        positive_section(study, state.settings())
    if bar.has_scores(study):
        doubts_section(study, state.settings())
    st.subheader("Split", anchor=False)
    split_section(study, state.settings())
    copies.draw(study)
    st.subheader("Rows left out", anchor=False)
    left_out_section(study, state.settings())
st.subheader("Session", anchor=False)
session_section(state.settings())
snapshots.draw(study)
