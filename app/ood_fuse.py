"""Put a detector and a calibrator behind the user's own ONNX model, in one file."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app import cli_export, compute, jobs, opening, state
from components import display, tables
from core.calibrators import CALIBRATORS
from core.export import Verification, export_metadata, exported_calibrator
from core.export.detectors import DetectorVerification, fitted_detector
from core.fitting import unusable_reason
from core.messages import Cancelled, DataError, FitError, Progress, part_of
from core.ood import Detection
from core.predictions import Study
from core.settings import Settings

__all__ = ["draw", "proof"]

NONE = ""


@dataclass(frozen=True, eq=False)
class Written:
    """A model with a detector behind it.

    Parameters
    ----------
    name : str
        Of the file to download.
    data : bytes
    reads : str
        Which values of the model are read.
    verification : DetectorVerification
    """

    name: str
    data: bytes
    reads: str
    verification: DetectorVerification


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
            widget = state.key("upload_model_ood")
            st.file_uploader(
                "Your model, in one file",
                type=["onnx"],
                max_upload_size=512,
                key=widget,
                on_change=opening.open_model,
                args=(widget,),
            )
        with right:
            calibrator = _calibrator(study, chosen)
            with st.popover("Where it is not found", type="tertiary"):
                scores = st.text_input(
                    "Output with the class scores", key=state.key("ood_fuse_scores")
                )
                features = st.text_input(
                    "Value with the features", key=state.key("ood_fuse_features")
                )
        file: opening.Source | None = st.session_state.get("_model")
        if file is None:
            return
        asked = (calibrator, scores.strip() or None, features.strip() or None)
        try:
            made = _written(study, found, method, chosen, file, asked)
        except (DataError, FitError) as error:
            display.error_box(error, example=False, key=state.key("ood_model_problem"))
            return
        except Cancelled:
            return
        if made is not None:
            _show(made, file.name)


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
) -> Written | None:
    """Write and verify off the script thread; None while that is under way."""
    calibrator, scores, features = asked
    wanted = chosen.replace(
        method=calibrator or "uncalibrated",
        temperature=None,
        calibrators=(calibrator,) if calibrator else (),
    )

    def work(report: Progress) -> Written:
        model = cli_export.UserModel.read(file.path, scores, name=file.name)
        item, fitted, metadata = fitted_detector(found, method), None, None
        if calibrator:
            analysis = compute.analysis(study, wanted, part_of(report, 0.0, 0.5))
            cli_export.check_fitted(analysis, calibrator)
            fitted = exported_calibrator(analysis, calibrator)
            metadata = export_metadata(analysis, calibrator)
        report(0.5, "Checking and running your model")
        from core.export.detectors import export_fused_detector

        fused, found_proof = export_fused_detector(
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
        return Written(name, fused.model, fused.sentence, found_proof)

    cut = found.results[method].threshold.value
    key = f"ood fuse {study.identity} {wanted.to_json()} {method} {cut!r} "
    return jobs.run(
        f"{key} {file.number} {asked!r}",
        "Putting it behind your model",
        work,
        slot="ood-fuse",
    )


def _show(made: Written, name: str) -> None:
    reads = display.escape_markdown(made.reads)
    st.markdown(f":small[{display.code(name)}: {reads}.]")
    proof(made.verification)
    if made.verification.calibration is not None:
        _probabilities(made.verification.calibration)
    if made.verification.is_offered:
        st.download_button(
            "Download",
            data=made.data,
            file_name=made.name,
            mime="application/octet-stream",
            icon=":material/download:",
            key=state.key("get_detector_fused"),
            on_click="ignore",
            help=made.name,
        )


def _probabilities(found: Verification) -> None:
    """Say what was found of the calibrated probabilities."""
    said = display.escape_markdown(found.sentence)
    icon = ":green[:material/check_circle:]" if found.ok else ":material/info:"
    st.markdown(f"{icon} :small[Probabilities: {said}]")


def proof(found: DetectorVerification) -> None:
    """Say what the verification of a file found."""
    said = display.escape_markdown(found.sentence)
    if not found.is_run:
        st.markdown(f":small[:gray[:material/info: {said}]]")
    elif found.ok:
        rows = tables.count_of(found.n_rows, "row")
        rows += " of made-up inputs" if found.is_made_up else ""
        changes = tables.count_of(found.n_decision_changes, "decision")
        st.markdown(
            ":green[:material/check_circle:] :small[largest difference "
            f"{found.max_difference:.1e} over {rows}, {changes} changed, "
            f"{found.seconds:.1f} s]"
        )
    elif found.is_offered:
        st.warning(said, title="Not within the tolerance", icon=":material/warning:")
    else:
        st.error(said, title="Not offered", icon=":material/error:")
