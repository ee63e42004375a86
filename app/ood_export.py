"""Take an out-of-distribution detector home: every file is verified first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import streamlit as st

from app import fused, jobs, ood_fuse, state
from components import display
from components.ood import score_label
from core.export.detectors import (
    DetectorArtefact,
    DetectorKind,
    export_detector,
    fitted_detector,
    shown_rows,
    unwritable_reason,
)
from core.messages import DataError, FitError, Progress
from core.ood import INSIDE, Detection, scored_table
from core.predictions import Study
from core.settings import Settings

__all__ = ["section"]

KINDS: tuple[DetectorKind, ...] = ("python", "json", "onnx32", "onnx")


@dataclass(frozen=True)
class Card:
    """What the page says of one kind of file."""

    title: str
    icon: str
    words: str
    use: str
    language: str


class Prepared(NamedTuple):
    """The files of one detector; those that could not be written have a reason."""

    inputs: tuple[str, ...]
    files: dict[DetectorKind, DetectorArtefact]
    problems: dict[DetectorKind, str]


_ONNX = (
    "import onnxruntime\n\n"
    'session = onnxruntime.InferenceSession("{file}")\n'
    "score, accepted = session.run(None, {{inputs}})"
)
CARDS: dict[DetectorKind, Card] = {
    "python": Card(
        "Python module",
        ":material/code:",
        "One file that needs NumPy only. Run it, and it tests itself.",
        "# in.npz holds {names}; out.npz gets ood_score and accepted\n"
        "python {file} in.npz out.npz",
        "bash",
    ),
    "json": Card(
        "JSON",
        ":material/data_object:",
        "The detector with its threshold as data; `ood score` reads it.",
        "python -m app ood score {file} new.npz --out scores.csv",
        "bash",
    ),
    "onnx32": Card(
        "ONNX, float32",
        ":material/hub:",
        "To run behind your model in onnxruntime; most models give float32.",
        _ONNX,
        "python",
    ),
    "onnx": Card(
        "ONNX, float64",
        ":material/hub:",
        "The same with the last digits: for scores in float64.",
        _ONNX,
        "python",
    ),
}


@st.fragment
def section(
    study: Study, found: Detection, method: str, chosen: Settings, stem: str
) -> None:
    """Write a detector with its threshold, and offer what passes its test.

    Parameters
    ----------
    study : Study
    found : Detection
        With the threshold that goes into the files.
    method : str
    chosen : Settings
    stem : str
        Starts the name of the scored rows.
    """
    own = found.results[method]
    if own.detector is None:
        return
    st.subheader("Take it home", anchor=False)
    cut = own.threshold.value
    name = f"ood export {study.identity} {chosen.to_json()} {method} {cut!r}"
    label, reason = (
        score_label(method),
        unwritable_reason(own.detector, found.rows.test),
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        is_asked = st.button(
            "Verify and prepare",
            type="primary",
            icon=":material/verified:",
            key=state.key("ood_prepare"),
            disabled=reason is not None,
        )
        display.download_table(
            lambda: _scored_rows(found, method),
            f"{stem}-{method}-rows",
            state.key("get_ood_rows"),
            "Scored rows, as CSV",
        )
        words = (
            f"{display.escape_markdown(label)} with the threshold above. Each file is "
            "run on your rows first."
        )
        if reason is not None:
            words = (
                f":material/block: {reason} `ood fit` and `ood score` take such rows."
            )
        st.caption(words, width="content")
    if is_asked:
        jobs.forget(name)
    if is_asked or jobs.is_started(name):
        _files(found, method, name)
    if found.rows.test.logits is not None or own.detector.layers_:
        ood_fuse.draw(study, found, method, chosen)


def _files(found: Detection, method: str, name: str) -> None:
    """Verify the files as a job, and draw a card for each."""
    try:
        made = jobs.run(
            name,
            "Verifying",
            lambda report: _prepared(found, method, report),
            slot="ood-export",
        )
    except (DataError, FitError) as error:
        display.error_box(error, example=False, key=state.key("ood_export_problem"))
        return
    if made is None:
        return
    for kinds in (KINDS[:2], KINDS[2:]):
        for column, kind in zip(st.columns(2, gap="small"), kinds, strict=True):
            with column:
                _card(kind, made)


def _scored_rows(found: Detection, method: str) -> pd.DataFrame:
    """Return every reported row with its score and whether it is accepted."""
    own = found.results[method]
    assert own.detector is not None  # noqa: S101 - the section has looked
    parts = []
    for name, rows in {INSIDE: found.rows.test, **found.rows.ood}.items():
        frame = scored_table(rows, own.detector, own.threshold)
        frame.insert(0, "set", name)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def _prepared(found: Detection, method: str, report: Progress) -> Prepared:
    """Write every file and run it; the slow part of the section."""
    report(0.0, "Reading the detector")
    item = fitted_detector(found, method)
    shown = shown_rows(item, [found.rows.test, *found.rows.ood.values()])
    made = Prepared(tuple(entry.name for entry in item.inputs), {}, {})
    for number, kind in enumerate(KINDS):
        report((number + 1) / (len(KINDS) + 1), f"Verifying {CARDS[kind].title}")
        try:
            made.files[kind] = export_detector(item, shown, kind)
        except FitError as error:
            made.problems[kind] = error.what
    return made


def _card(kind: DetectorKind, made: Prepared) -> None:
    card, file = CARDS[kind], made.files.get(kind)
    with st.container(border=True, height="stretch", gap="small"):
        st.markdown(f"{card.icon} **{card.title}**  \n:small[:gray[{card.words}]]")
        if file is None:
            st.error(
                display.escape_markdown(made.problems[kind]),
                title="Not written",
                icon=":material/error:",
            )
            return
        fused.proof(file.verification)
        if not file.verification.is_offered:
            return
        with st.container(horizontal=True, gap="small"):
            st.download_button(
                "Download",
                data=file.data,
                file_name=file.file_name,
                mime="application/octet-stream",
                icon=":material/download:",
                key=state.key(f"get_detector_{kind}"),
                on_click="ignore",
                help=file.file_name,
            )
            with st.popover("How to use it", type="tertiary"):
                given = ", ".join(f'"{name}": {name}' for name in made.inputs)
                text = card.use.replace("{file}", file.file_name)
                text = text.replace("{inputs}", given)
                text = text.replace("{names}", " and ".join(made.inputs))
                st.code(text, language=card.language)
