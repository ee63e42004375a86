"""Put the calibrator behind the user's own ONNX model, on the Export page."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app import cli_export, compute, jobs, opening, state
from components import display, tables
from core.export import Verification
from core.messages import Cancelled, DataError, FitError, Progress, part_of
from core.predictions import Study
from core.settings import Settings

__all__ = ["Written", "draw"]

WORDS = {
    "logits": "Its output must be the logits that your file was made from.",
    "probabilities": "Its output must be the probabilities that your file was made of.",
}


@dataclass(frozen=True, eq=False)
class Written:
    """A model with the calibrator behind it.

    Parameters
    ----------
    name : str
        Of the file to download.
    data : bytes
    scores : str
        Output that the calibrator takes.
    verification : Verification
    """

    name: str
    data: bytes
    scores: str
    verification: Verification


def draw(study: Study, wanted: Settings) -> None:
    """Draw the section: take a model, write it with the calibrator, offer the file.

    Parameters
    ----------
    study : Study
    wanted : Settings
        Name the calibrator.
    """
    with st.container(border=True, height="stretch", gap="small"):
        kind = study.evaluation.input_kind
        st.markdown(
            ":material/account_tree: **Behind your own ONNX model**  \n"
            f":small[:gray[One file in, one file out. {WORDS[kind]}]]"
        )
        widget = state.key("upload_model")
        st.file_uploader(
            "Your model, in one file",
            type=["onnx"],
            max_upload_size=512,
            key=widget,
            on_change=opening.open_model,
            args=(widget,),
        )
        file: opening.Source | None = st.session_state.get("_model")
        if file is None:
            return
        output = st.text_input(
            "Output to calibrate, where several fit",
            key=state.key("fuse_output"),
            max_chars=200,
        )
        try:
            made = _written(study, wanted, file, output.strip() or None)
        except (DataError, FitError) as error:
            display.error_box(error, example=False, key=state.key("model_problem"))
            return
        except Cancelled:
            return
        if made is not None:
            _show(made, file.name)


def _written(
    study: Study, wanted: Settings, file: opening.Source, output: str | None
) -> Written | None:
    """Write and verify off the script thread; None while that is under way."""

    def work(report: Progress) -> Written:
        model = cli_export.UserModel.read(file.path, output, name=file.name)
        found = compute.analysis(study, wanted, part_of(report, 0.0, 0.5))
        cli_export.check_fitted(found, wanted.method)
        report(0.5, "Checking and running your model")
        from core.export.fuse import export_fused

        fused, proof = export_fused(
            found, wanted.method, model.data, output=output, name=file.name
        )
        name = f"{display.file_stem(file.name)}_calibrated.onnx"
        return Written(name, fused.model, fused.scores, proof)

    key = f"fuse {study.identity} {wanted.to_json()} {file.number} {output!r}"
    return jobs.run(key, "Putting it behind your model", work, slot="fuse")


def _show(made: Written, name: str) -> None:
    proof = made.verification
    said = display.escape_markdown(proof.sentence)
    st.markdown(
        f":small[{display.code(made.scores)} of {display.code(name)} is calibrated.]"
    )
    if proof.ok:
        rows = tables.count_of(proof.n_rows, "row")
        rows += " of made-up inputs" if proof.is_made_up else ""
        st.markdown(
            f":green[:material/check_circle:] :small[largest difference "
            f"{proof.max_difference:.1e} over {rows}, "
            f"{proof.seconds:.1f} s]"
        )
    elif not proof.is_run:
        st.markdown(f":small[:gray[:material/info: {said}]]")
    elif proof.is_offered:
        st.warning(said, title="Not within the tolerance", icon=":material/warning:")
    else:
        st.error(said, title="Not offered", icon=":material/error:")
    if proof.is_offered:
        st.download_button(
            "Download",
            data=made.data,
            file_name=made.name,
            mime="application/octet-stream",
            icon=":material/download:",
            key=state.key("get_fused"),
            on_click="ignore",
            help=made.name,
        )
