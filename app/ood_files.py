"""The files of the out-of-distribution page: what is there, and where more goes in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from app import bar, opening, state
from components import display, tables
from core.ood import INSIDE
from core.ood.evaluation import shift_of
from core.ood.rows import layers_of
from core.predictions import Predictions, Study
from core.settings import Settings

__all__ = ["draw", "way_on"]

NONE = "None yet"
HELP = {
    "reference": "In-distribution rows that fit scores, such as the training rows: "
    "logits, features (one array for each layer) and labels. Without them some of the "
    "rows at the left fit.",
    "ood": "Rows that the model should not trust itself with: logits and features of "
    "the same network. A set for each file, or for each name in its column dataset. "
    "Names that start with near or far are averaged as such.",
    "head": "Weight and bias of the last layer as NPZ or safetensors; a whole network "
    "will do.",
}


def draw(study: Study) -> None:
    """Draw a column for each role."""
    own = study.evaluation
    columns = st.columns(4, gap="medium")
    with columns[0], st.container(gap="xsmall"):
        _role("In-distribution rows", _described(own))
        with bar.file_popover("Open", "open_file_inside"):
            bar.uploader("upload_inside", "Logits, features and labels")
    with columns[1], st.container(gap="xsmall"):
        reference = study.reference
        words = "Some of the in-distribution rows"
        _role("Reference rows", words if reference is None else _described(reference))
        with _add("reference"):
            _uploader("reference", "Reference rows", is_several=True)
            _remove("reference")
    with columns[2], st.container(gap="xsmall"):
        sets = [f"{_code(n)} {len(rows):,}" for n, rows in study.ood.items()]
        _role("OOD sets", ", ".join(sets) or NONE)
        with _add("ood"):
            _uploader("ood", "Out-of-distribution sets", is_several=True)
            _remove("ood")
            if len(study.ood) > 1:
                shifts(study, state.settings())
    with columns[3], st.container(gap="xsmall"):
        head = study.head
        shape = () if head is None else head.weight.shape
        _role("Last layer", NONE if head is None else _sizes(*shape))
        with _add("head"):
            _uploader("head", "Weights and bias of the last layer")
            _remove("head")


def way_on(study: Study) -> None:
    """Say what to do next, where there is nothing to compare with."""
    if study.ood:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            "**No out-of-distribution set yet.** Thresholds need none. Add a set to "
            "see what each score catches.",
            width="content",
        )
        sample_button()


def sample_button() -> None:
    """Offer the bundled sets."""
    st.button(
        "Open the sample OOD sets",
        key=state.key("use_sample_ood"),
        icon=":material/science:",
        on_click=opening.open_sample_strangers,
    )


def shifts(study: Study, chosen: Settings) -> None:
    """Choose which sets are averaged as near and as far ones."""
    for kind, field, others in (
        ("near", "near_sets", "far_sets"),
        ("far", "far_sets", "near_sets"),
    ):
        listed = getattr(chosen, field)
        apart = getattr(chosen, others)
        now = [
            name
            for name in study.ood
            if name in listed or (name not in apart and shift_of(name) == kind)
        ]
        widget = state.key(f"ood_{field}:{now}")
        st.multiselect(
            f"Averaged as {kind}",
            list(study.ood),
            default=now,
            key=widget,
            on_change=partial(_take_shift, study, widget, kind),
        )


def _take_shift(study: Study, widget: str, kind: str) -> None:
    """Take the sets of one kind; what was of the other kind leaves it."""
    chosen, picked = state.settings(), tuple(st.session_state[widget])
    other = "far" if kind == "near" else "near"
    left = [
        name
        for name in study.ood
        if name not in picked
        and (
            name in getattr(chosen, f"{other}_sets")
            or (name not in getattr(chosen, f"{kind}_sets") and shift_of(name) == other)
        )
    ]
    state.change(**{f"{kind}_sets": picked, f"{other}_sets": tuple(left)})


def _add(role: str) -> Any:
    """Return the popover that takes the files of a role."""
    return bar.file_popover("Add", f"ood_add_{role}")


def _sizes(n_classes: int, n_features: int) -> str:
    return f"{n_classes:,} classes, {n_features:,} features"


def _role(title: str, words: str) -> None:
    st.markdown(f"**{title}**  \n:small[:gray[{words}]]")


def _described(rows: Predictions) -> str:
    """Return a file with its rows, classes and layers, as Markdown."""
    parts = [f"{_code(rows.name)}: {tables.count_of(len(rows), 'row')}"]
    if rows.logits is not None:
        parts.append(tables.count_of(rows.n_classes, "class", "classes"))
    elif rows.confidence is not None:
        parts.append("confidences")
    layers = layers_of(rows.features)
    for name, array in layers.items():
        parts.append(f"{_code(name)} {array.shape[1]:,}")
    if not layers:
        parts.append("no features")
    return ", ".join(parts)


def _code(name: str) -> str:
    return display.code(name if name != INSIDE else "in")


def _uploader(role: str, label: str, *, is_several: bool = False) -> None:
    widget = state.key(f"upload_{role}")
    take: Callable[..., None] = opening.open_beside
    st.file_uploader(
        label,
        accept_multiple_files=is_several,
        key=widget,
        on_change=take,
        args=(widget, role),
        help=HELP[role],
    )


def _remove(role: str) -> None:
    """List the uploaded files of a role, each with a button that takes it away."""
    source = state.source()
    for item in () if source is None else getattr(source, role):
        st.button(
            f"Remove {display.escape_markdown(item.name)}",
            key=state.key(f"drop_{role}_{item.number}"),
            on_click=opening.drop_beside,
            args=(role, item.number),
            icon=":material/delete:",
            type="tertiary",
        )
