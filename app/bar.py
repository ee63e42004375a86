"""The line above every page: what was understood, how to change it, undo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app import compute, opening, state
from components import controls, display, tables
from core.calibrators import CALIBRATORS
from core.loading import Schema
from core.predictions import Study
from core.settings import Settings

__all__ = [
    "BINNINGS",
    "CONFIDENCES_ONLY",
    "QUIET_IN_FIELDS",
    "ROLE_LABELS",
    "draw",
    "has_scores",
    "kind_button",
    "label_choice",
    "lacks_scores",
    "problem",
    "understood",
    "uploader",
]

ROLE_LABELS = {
    "label": "Label",
    "group": "Group",
    "split": "Split",
    "id": "Id",
    "weight": "Weight",
    "time": "Time",
}
CONFIDENCES_ONLY = (
    "The file has one confidence per row: it can be measured. To fit or apply a "
    "calibrator takes the scores of every class."
)
OF_OTHER_FILES = ("segmentation",)
"""Pages with files of their own kind: the rows do not concern them."""
WITHOUT_SCORES = ("out-of-distribution", "data", "methods", *OF_OTHER_FILES)
"""Pages for which a file of features alone will do."""
OTHER_KIND = {"logits": "probabilities", "probabilities": "logits"}
# Ctrl+Z belongs to the text field that somebody writes in.
UNDO, REDO = "Alt+Z", "Alt+Shift+Z"
# With Alt, Streamlit's shortcuts go off in text fields too, where Alt writes letters.
QUIET_IN_FIELDS = """<script>
if (!window.plumblineFields) {
  window.plumblineFields = true;
  window.addEventListener("keydown", (event) => {
    const field = event.target.closest?.(
      "textarea, [contenteditable=true], input:not([type=range], [type=checkbox]," +
      " [type=radio], [type=button], [type=file])");
    if (event.altKey && event.code === "KeyZ" && field) event.stopPropagation();
  }, true);
}
document.currentScript?.remove();
</script>"""
BINNINGS = {"uniform": "Equal widths", "quantile": "Equal counts"}


def draw(page: str) -> None:
    """Draw the line above a page with the settings that every page shares."""
    study, schema = state.study(), state.schema()
    assigned = state.fill(page)
    if page in OF_OTHER_FILES:
        study = schema = None
    with st.container(
        horizontal=True,
        horizontal_alignment="distribute",
        vertical_alignment="center",
        gap="small",
    ):
        with st.container(width="stretch"):
            if study is not None:
                words = understood(
                    study, schema, state.settings(), is_sample=state.is_sample()
                )
                st.markdown(words)
        with st.container(
            horizontal=True, width="content", gap="xsmall", vertical_alignment="center"
        ):
            if page not in ("data", *OF_OTHER_FILES):
                with file_popover("Open", "open_file"):
                    uploader("upload_bar", "Predictions")
            if study is not None and schema is not None and page != "data":
                with st.popover("Change", icon=":material/edit:", type="tertiary"):
                    _roles(study, schema)
            with st.popover("Settings", icon=":material/tune:", type="tertiary"):
                _shared(assigned)
            state.pull()
            if state.can_undo():
                st.button(
                    "Undo",
                    icon=":material/undo:",
                    type="tertiary",
                    key=state.key("undo"),
                    on_click=state.undo,
                    shortcut=UNDO,
                    help=f"Take back the last change ({UNDO}).",
                )
            if state.can_redo():
                st.button(
                    "Redo",
                    icon=":material/redo:",
                    type="tertiary",
                    key=state.key("redo"),
                    on_click=state.redo,
                    shortcut=REDO,
                    help=f"Make it again ({REDO}).",
                )
    problem()
    text = state.message()
    if text:
        st.toast(text, icon=":material/check:")


def lacks_scores(page: str, title: str) -> bool:
    """Say that a page needs scores, where the file has features alone."""
    study = state.study()
    if study is None or page in WITHOUT_SCORES or has_scores(study):
        return False
    st.header(title, anchor=False)
    st.markdown(
        f"**{display.escape_markdown(study.evaluation.name)} has features and no "
        "scores.** There is no confidence to measure."
    )
    st.page_link("views/ood.py", label="Tell rows that are out of distribution")
    st.page_link("views/data.py", label="Say which columns are the scores")
    return True


def has_scores(study: Study) -> bool:
    """Whether the rows have class scores or confidences, and not features alone."""
    own = study.evaluation
    return own.logits is not None or own.confidence is not None


def file_popover(label: str, name: str) -> Any:
    """Return an uploader's popover; called open_file... it shuts after an upload."""
    return st.popover(
        label,
        icon=":material/upload_file:",
        type="tertiary",
        key=state.key(name),
    )


def uploader(name: str, label: str, *, is_bare: bool = False) -> None:
    """Draw an uploader; what it gets is read at once and taken off its hands.

    It takes any file: a pickle deserves to hear why it is not opened.
    """
    widget = state.key(name)
    st.file_uploader(
        label,
        key=widget,
        label_visibility="collapsed" if is_bare else "visible",
        accept_multiple_files=True,
        on_change=opening.open_upload,
        args=(widget,),
        help="CSV or TSV (also .gz and .zst), Parquet, Arrow, JSON, NPZ, NPY or "
        "safetensors with one row per prediction: logits or probabilities of every "
        "class, and the label. Several files that belong together go in at once: "
        "scores and labels, or val and test.",
    )


def label_choice() -> None:
    """Ask for the label column, where none was found."""
    schema = state.schema()
    if schema is None:
        return
    columns = [item.name for item in schema.columns if item.role != "score"]
    with st.container(width=360):
        controls.role_select(
            "Label column",
            state.key("ask_label", resets=True),
            columns,
            schema.column("label"),
            lambda field, value: state.change(**{field: value}),
            "label_column",
        )


def problem() -> None:
    """Show what went wrong with the last wish, above whatever is still there."""
    found = state.problem()
    if found is None:
        return
    display.error_box(
        found.error,
        on_answer=state.answer,
        on_dismiss=state.dismiss,
        example=found.source is not None,
    )


def understood(
    study: Study, schema: Schema | None, settings: Settings, *, is_sample: bool = False
) -> str:
    """Return one line of Markdown: the file, its rows, columns and their division.

    It says on what evidence scores are taken for what they are, and what there is not.
    """
    own = study.evaluation
    is_confidence = own.input_kind == "confidence"
    kind = "confidences" if is_confidence else own.input_kind
    if not has_scores(study):
        kind = "features alone"
    elif schema is not None:
        kind += f" ({display.escape_markdown(schema.input_evidence)})"
    parts = [tables.count_of(len(own), "row")]
    if own.logits is not None:
        parts.append(tables.count_of(own.n_classes, "class", "classes"))
    parts += [kind, _truth(study, schema)]
    group = own.roles.group
    parts.append(f"group {display.code(group)}" if group else "no group column")
    for role in ("weight", "time"):
        found = getattr(own.roles, role)
        if found:
            parts.append(f"{role} {display.code(found)}")
    division = compute.division(study, settings)
    if division is not None and own.logits is not None:  # else nothing is fitted
        parts.append(division.sentence)
    parts.append(f"{tables.count_of(len(own.left_out), 'row')} left out")
    line = "\u2002\u00b7\u2002".join(parts)
    name = f"**{display.escape_markdown(own.name)}**"
    badge = " :violet-badge[Sample]" if is_sample else ""
    return f"{name}{badge}\u2002 :small[:gray[{line}]]"


def _truth(study: Study, schema: Schema | None) -> str:
    """Return which column says what came true, or that none does."""
    own = study.evaluation
    if schema is not None:
        for role, word in (("correct", "outcome"), ("label", "label")):
            found = schema.column(role)
            if found and (role == "label" or own.input_kind == "confidence"):
                return f"{word} {display.code(found)}"
    is_labelled = own.labels is not None or own.correct is not None
    return "labelled" if is_labelled else "**no label column**"


def kind_button(schema: Schema, key: str, take: Callable[..., None]) -> None:
    """Offer to read the scores the other way, in one click."""
    other = OTHER_KIND.get(schema.input_kind)
    if other is not None:
        st.button(
            f"Read as {other}",
            key=key,
            icon=":material/swap_horiz:",
            on_click=take,
            kwargs={"input_kind": other},
        )


def _roles(study: Study, schema: Schema) -> None:
    """Draw the columns with a role, each one changeable."""
    st.markdown(f"**{display.escape_markdown(study.evaluation.name)}**")
    taken = set(schema.names("score"))
    columns = [item.name for item in schema.columns if item.name not in taken]
    left, right = st.columns(2)
    for number, (role, label) in enumerate(ROLE_LABELS.items()):
        with (left, right)[number % 2]:
            controls.role_select(
                label,
                state.key(f"bar_{role}", resets=True),
                columns,
                schema.column(role),
                lambda field, value: state.change(**{field: value}),
                f"{role}_column",
            )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        evidence = display.escape_markdown(schema.input_evidence)
        words = f"Scores are **{schema.input_kind}**: {evidence}"
        if schema.input_kind == "features":
            words = evidence.capitalize()
        st.markdown(f":small[{words}.]", width="content")
        kind_button(schema, state.key("bar_flip"), state.change)
    st.page_link("views/data.py", label="Everything else", icon=":material/table_view:")


def _shared(assigned: set[str]) -> None:
    """Draw the settings that are in the URL."""
    plain = Settings()
    left, right = st.columns(2)
    with left:
        controls.number(
            "Bins",
            state.key("bins"),
            plain.n_bins,
            1,
            1000,
            is_assigned="bins" in assigned,
            on_change=state.touch,
            help="Of reliability diagrams and of the ECE beside them.",
        )
        controls.number(
            "Level of intervals",
            state.key("level"),
            plain.level,
            0.5,
            0.999,
            step=0.01,
            is_assigned="level" in assigned,
            on_change=state.touch,
        )
    with right:
        controls.choice(
            "Bin edges",
            state.key("binning"),
            list(BINNINGS),
            plain.strategy,
            names=BINNINGS,
            is_assigned="binning" in assigned,
            on_change=state.touch,
        )
        controls.method_choice(
            "Calibrator to export",
            state.key("method"),
            CALIBRATORS,
            plain.method,
            is_assigned="method" in assigned,
            on_change=state.touch,
        )
    st.segmented_control(
        "Figures are saved as",
        ["PNG", "SVG"],
        default="PNG",
        required=True,
        key=state.key(display.PICTURE),
        persist_state="session",
        help="By the camera in the corner of each figure.",
    )
