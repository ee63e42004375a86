"""Put a detector and a calibrator behind the user's own ONNX model, in one file."""

from __future__ import annotations

import streamlit as st

from app import cli_export, compute, fused, opening, state
from components import display
from core.calibrators import CALIBRATORS
from core.export import Verification, export_metadata, exported_calibrator
from core.export.detectors import fitted_detector
from core.fitting import unusable_reason
from core.messages import Progress, part_of
from core.ood import Detection
from core.predictions import Study
from core.settings import Settings

__all__ = ["draw"]

NONE = ""


def draw(study: Study, found: Detection, method: str, chosen: Settings) -> None:
    """Take a model, write it with detector and calibrator, and offer the file.

    Parameters
    ----------
    study : Study
    found : Detection
        With the threshold that goes into the file.
    method : str
        Id of the detector.
    chosen : Settings
        Name the calibrator that is suggested.
    """
    with st.container(border=True, gap="small"):
        st.markdown(
            ":material/account_tree: **Behind your own ONNX model**  \n"
            ":small[:gray[One file that returns calibrated probabilities, the score "
            "and whether a row is accepted. Features are found where they "
            "enter the last layer.]]"
        )
        left, right = st.columns(2, gap="large")
        with left:
            fused.take_model("upload_model_ood")
        with right:
            calibrator = _calibrator(study, chosen)
            with st.popover("Where it is not found", type="tertiary"):
                scores = st.text_input(
                    "Output with the class scores", key=state.key("ood_fuse_scores")
                )
                features = st.text_input(
                    "Value with the features", key=state.key("ood_fuse_features")
                )
        file = fused.model_file()
        if file is None:
            return
        asked = (calibrator, scores.strip() or None, features.strip() or None)
        made = _written(study, found, method, chosen, file, asked)
        if made is None:
            return
        st.markdown(f":small[{made.words}]")
        fused.proof(made.verification)
        calibration = getattr(made.verification, "calibration", None)
        if calibration is not None:
            _probabilities(calibration)
        fused.offer(made, "get_detector_fused")


def _calibrator(study: Study, chosen: Settings) -> str:
    """Choose the calibrator that goes along."""
    usable = [name for name in CALIBRATORS if unusable_reason(study, name) is None]
    names = {NONE: "None: score and decision only"}
    names |= {name: CALIBRATORS[name].label for name in usable}
    now = CALIBRATORS[chosen.method].id
    return st.selectbox(
        "Calibrator",
        list(names),
        index=list(names).index(now) if now in names else 0,
        format_func=names.__getitem__,
        key=state.key(f"ood_fuse_calibrator_{len(names)}"),
    )


def _written(
    study: Study,
    found: Detection,
    method: str,
    chosen: Settings,
    file: opening.Source,
    asked: tuple[str, str | None, str | None],
) -> fused.Written | None:
    calibrator, scores, features = asked
    wanted = chosen.replace(
        method=calibrator or "uncalibrated",
        temperature=None,
        calibrators=(calibrator,) if calibrator else (),
    )

    def work(report: Progress) -> fused.Written:
        model = cli_export.UserModel.read(file.path, scores, name=file.name)
        item, fitted, metadata = fitted_detector(found, method), None, None
        if calibrator:
            analysis = compute.analysis(study, wanted, part_of(report, 0.0, 0.5))
            cli_export.check_fitted(analysis, calibrator)
            fitted = exported_calibrator(analysis, calibrator)
            metadata = export_metadata(analysis, calibrator)
        report(0.5, "Checking and running your model")
        from core.export.detectors import export_fused_detector

        whole, proof = export_fused_detector(
            item,
            [found.rows.test, *found.rows.ood.values()],
            model.data,
            fitted,
            metadata,
            scores=scores,
            features=features,
            bins=(chosen.n_bins, chosen.strategy),
            name=file.name,
        )
        name = f"{display.file_stem(file.name)}_with_detector.onnx"
        words = f"{display.code(file.name)}: {display.escape_markdown(whole.sentence)}."
        return fused.Written(name, whole.model, words, proof)

    cut = found.results[method].threshold.value
    key = f"ood fuse {study.identity} {wanted.to_json()} {method} {cut!r} "
    key += f" {file.number} {asked!r}"
    return fused.written(key, work, "ood-fuse", "ood_model_problem")


def _probabilities(found: Verification) -> None:
    """Say what was found of the calibrated probabilities."""
    said = display.escape_markdown(found.sentence)
    icon = ":green[:material/check_circle:]" if found.ok else ":material/info:"
    st.markdown(f"{icon} :small[Probabilities: {said}]")
