"""Put the calibrator behind the user's own ONNX model, on the Export page."""

from __future__ import annotations

import streamlit as st

from app import cli_export, compute, fused, opening, state
from components import display
from core.messages import Progress, part_of
from core.predictions import Study
from core.settings import Settings

__all__ = ["draw"]

WORDS = {
    "logits": "Its output must be the logits that your file was made from.",
    "probabilities": "Its output must be the probabilities that your file was made of.",
}


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
        fused.take_model("upload_model")
        file = fused.model_file()
        if file is None:
            return
        output = st.text_input(
            "Output to calibrate, where several fit",
            key=state.key("fuse_output"),
            max_chars=200,
        )
        made = _written(study, wanted, file, output.strip() or None)
        if made is not None:
            st.markdown(f":small[{made.words}]")
            fused.proof(made.verification)
            fused.offer(made, "get_fused")


def _written(
    study: Study, wanted: Settings, file: opening.Source, output: str | None
) -> fused.Written | None:
    def work(report: Progress) -> fused.Written:
        model = cli_export.UserModel.read(file.path, output, name=file.name)
        found = compute.analysis(study, wanted, part_of(report, 0.0, 0.5))
        cli_export.check_fitted(found, wanted.method)
        report(0.5, "Checking and running your model")
        from core.export.fuse import export_fused

        made, proof = export_fused(
            found, wanted.method, model.data, output=output, name=file.name
        )
        own, scores = display.code(file.name), display.code(made.scores)
        words = f"{scores} of {own} is calibrated."
        name = f"{display.file_stem(file.name)}_calibrated.onnx"
        return fused.Written(name, made.model, words, proof)

    key = f"fuse {study.identity} {wanted.to_json()} {file.number} {output!r}"
    return fused.written(key, work, "fuse", "model_problem")
