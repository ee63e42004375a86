"""Calibrators and calibrated rows to take home, each checked before it is offered."""

from core.export.new_rows import read_new_rows
from core.export.portable import (
    INPUT_NAMES,
    Kind,
    export_metadata,
    exported_calibrator,
    from_json,
    to_json,
    to_python,
)
from core.export.tables import FLAGS, annotate, apply_calibrator
from core.export.verification import FILES, Artefact, Verification, export, verify
from core.export.writing import write_csv, write_json

__all__ = [
    "FILES",
    "FLAGS",
    "INPUT_NAMES",
    "Artefact",
    "Kind",
    "Verification",
    "annotate",
    "apply_calibrator",
    "export",
    "export_metadata",
    "exported_calibrator",
    "from_json",
    "read_new_rows",
    "to_json",
    "to_python",
    "verify",
    "write_csv",
    "write_json",
]
