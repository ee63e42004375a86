"""Detectors to take home, each checked before it is offered.

A page or a command goes::

    item = fitted_detector(found, "vim")             # found: core.ood.detect(...)
    shown = shown_rows(item, [found.rows.test, *found.rows.ood.values()])
    artefact = export_detector(item, shown, "onnx")  # of DETECTOR_FILES, each a kind
    artefact.data, artefact.file_name
    artefact.verification.is_offered, artefact.verification.sentence

Behind the user's own model, with a calibrator (`core.export.exported_calibrator` and
`export_metadata`, or `core.export.from_json`)::

    fused, proof = export_fused_detector(item, rows, data, calibrator, metadata)
    fused.model, fused.sentence, proof.is_offered, proof.sentence

Larger scores are more out-of-distribution in every format; the threshold is inside.
"""

from core.export.detectors.fitted import (
    FittedDetector,
    Input,
    fitted_detector,
    unwritable_reason,
)
from core.export.detectors.fitted import from_json as detector_from_json
from core.export.detectors.fused import FusedDetector, fuse_detector
from core.export.detectors.fused_verification import (
    export_fused_detector,
    verify_fused_detector,
)
from core.export.detectors.registered import EXPORTS
from core.export.detectors.verification import (
    DETECTOR_FILES,
    DetectorArtefact,
    DetectorKind,
    DetectorVerification,
    Shown,
    export_detector,
    shown_rows,
    verify_detector,
)

__all__ = [
    "DETECTOR_FILES",
    "EXPORTS",
    "DetectorArtefact",
    "DetectorKind",
    "DetectorVerification",
    "FittedDetector",
    "FusedDetector",
    "Input",
    "Shown",
    "detector_from_json",
    "export_detector",
    "export_fused_detector",
    "fitted_detector",
    "fuse_detector",
    "shown_rows",
    "unwritable_reason",
    "verify_detector",
    "verify_fused_detector",
]
