"""Files that `calibrate` and `apply` write: whole or not at all, and verified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.messages import DataError, FitError, Progress

if TYPE_CHECKING:
    from core.analysis import Analysis
    from core.export import Verification

__all__ = ["check_fitted", "check_target", "json_text", "whole", "write_exports"]

FILES = {"json": "calibrator.json", "python": "calibrator.py"}
ROWS, REPORT = "calibrated.csv", "report.json"


def plain(value: Any) -> Any:
    """Return plain JSON values: JSON has neither NaN nor infinity nor NumPy types."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def json_text(document: Any) -> str:
    """Return a document as strict JSON."""
    text = json.dumps(plain(document), indent=2, allow_nan=False, ensure_ascii=False)
    return text + "\n"


def check_target(target: Path, *sources: Path, is_folder: bool = False) -> None:
    """Refuse a place that cannot be written, before any work is done.

    Parameters
    ----------
    target : Path
        File or folder to write.
    *sources : Path
        Files that must not be written over.
    is_folder : bool, default=False
        Whether `target` is a folder.

    Raises
    ------
    DataError
    """
    if is_folder and target.exists() and not target.is_dir():
        raise DataError(
            f"{target} is a file.", "flag --out", "Give a folder to write into."
        )
    if not is_folder and target.is_dir():
        raise DataError(
            f"{target} is a folder.", "flag --out", "Give the name of a CSV file."
        )
    written = [target]
    if is_folder:
        written = [target / name for name in (*FILES.values(), ROWS, REPORT)]
    kept = {source.resolve() for source in sources}
    for path in written:
        if path.resolve() in kept:
            raise DataError(
                f"{path} would be written over.", "flag --out", "Choose another place."
            )


def check_fitted(analysis: Analysis, method: str) -> None:
    """Refuse to export a calibrator that could not be fitted, with the reason.

    Raises
    ------
    FitError
    """
    from core.analysis import UNCALIBRATED

    if method == UNCALIBRATED or method in analysis.fitted:
        return
    own = analysis.study.evaluation
    if not own.is_labelled.any():
        raise FitError(
            "No row has a label, so that nothing can be fitted.",
            own.name,
            "Name the label column with --label-column, or use `apply` with a "
            "calibrator that was fitted on labelled rows.",
        )
    reasons = [n.text for n in analysis.notes if n.code in ("not-fitted", "no-split")]
    why = " ".join(reasons) or "The reason is unknown."
    raise FitError(
        f"The calibrator {method!r} could not be fitted. {why}",
        own.name,
        "Give more labelled rows, divide them in another way (--split), or choose "
        "another calibrator (--method).",
    )


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary name that becomes `path` once everything is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_exports(
    analysis: Analysis, folder: Path, progress: Progress
) -> tuple[dict[str, Any], dict[str, Verification]]:
    """Write calibrator, rows and report into a folder.

    Calibrators are run in a clean interpreter and rows are read back; what fails is
    not left there.

    Parameters
    ----------
    analysis : Analysis
        Its settings name the method.
    folder : Path
        Made if it is not there.
    progress : callable

    Returns
    -------
    report : dict
        The analysis, and what was written.
    verifications : dict of str to Verification
        By name of the file.
    """
    from core.export import annotate, export, write_csv
    from core.export.readback import verify_rows

    method = analysis.settings.method
    found: dict[str, Verification] = {}
    for kind, name in FILES.items():
        progress(len(found) / 3, f"Verifying {name} in a clean interpreter")
        artefact = export(analysis, method, kind)  # type: ignore[arg-type]
        found[name] = artefact.verification
        if artefact.verification.ok:
            with whole(folder / name) as path:
                path.write_text(artefact.text, encoding="utf-8", newline="\n")
    progress(2 / 3, f"Verifying {ROWS}")
    found[ROWS] = verify_rows(analysis, method)
    if found[ROWS].ok:
        with whole(folder / ROWS) as path:
            write_csv(annotate(analysis, method), path)
    for name, verification in found.items():
        if not verification.ok:
            (folder / name).unlink(missing_ok=True)  # of an earlier run
    written = [*(name for name, item in found.items() if item.ok), REPORT]
    report = analysis.to_dict() | {
        "exported": method,
        "verification": {name: asdict(item) for name, item in found.items()},
        "files": written,
    }
    with whole(folder / REPORT) as path:
        path.write_text(json_text(report), encoding="utf-8", newline="\n")
    return report, found
