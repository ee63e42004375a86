"""Files that `calibrate` and `apply` write: whole or not at all, and verified."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.messages import DataError, FitError, Progress

if TYPE_CHECKING:
    from core.analysis import Analysis
    from core.export import Kind, Verification

__all__ = [
    "UserModel",
    "check_fitted",
    "check_is_json",
    "check_target",
    "check_there",
    "chosen_formats",
    "files_of_older_runs",
    "json_text",
    "mixed_folder",
    "whole",
    "write_exports",
]

ROWS, REPORT = "calibrated.csv", "report.json"
OTHER_FORMATS = {
    ".onnx": ("an ONNX model", "An ONNX file runs in onnxruntime (see the README)."),
    ".py": (
        "a Python module",
        "A module is imported: from calibrator import calibrate.",
    ),
    ".safetensors": ("parameters for PyTorch", "They belong to calibrator_torch.py."),
}
"""Ending of a calibrator that `apply` does not read -> what it is, how it is used."""


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


@dataclass(frozen=True)
class UserModel:
    """An ONNX model that the user has, to put the calibrator behind.

    Parameters
    ----------
    name : str
        Of the file, without its folder.
    data : bytes
    output : str or None
        Which output holds the scores.
    """

    name: str
    data: bytes
    output: str | None = None

    @classmethod
    def read(cls, path: Path, output: str | None, name: str = "") -> UserModel:
        """Read a file; one that is too large is refused before it is read."""
        if not path.is_file():
            raise DataError("There is no such file.", str(path), "Check the path.")
        from core.export.user_model import check_size

        check_size(path.stat().st_size, name or str(path))
        return cls(name or path.name, path.read_bytes(), output)

    @property
    def fused_name(self) -> str:
        """Name of the file with the calibrator."""
        return f"{Path(self.name).stem}_calibrated.onnx"


def chosen_formats(text: str) -> tuple[Kind, ...]:
    """Return the formats that a list separated by commas names, each once.

    Raises
    ------
    DataError
        For a format that there is not.
    """
    from core.export import FILES

    names = dict.fromkeys(part.strip().lower() for part in text.split(",") if part)
    if "all" in names:
        return tuple(FILES)
    unknown = [name for name in names if name not in FILES]
    if unknown or not names:
        raise DataError(
            f"There is no format called {unknown[0]!r}."
            if unknown
            else "No format is named.",
            "flag --formats",
            f"Choose among: {', '.join(FILES)}, or all.",
        )
    return tuple(kind for kind in FILES if kind in names)


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
        from core.export import FILES

        names = [name for files in FILES.values() for name in files]
        written = [target / name for name in (*names, ROWS, REPORT)]
    kept = {source.resolve() for source in sources}
    for path in written:
        if path.resolve() in kept:
            raise DataError(
                f"{path} would be written over.", "flag --out", "Choose another place."
            )


def check_there(*paths: Path) -> None:
    """Refuse files that are not there, before any work is done.

    Raises
    ------
    DataError
    """
    for path in paths:
        if not path.exists():
            raise DataError("There is no such file.", str(path), "Check the path.")


def check_is_json(path: Path) -> None:
    """Refuse a calibrator that was written for another program, naming its JSON.

    Raises
    ------
    DataError
    """
    what = OTHER_FORMATS.get(path.suffix.lower())
    if what is None:
        return
    beside = path.with_name("calibrator.json")
    wanted = str(beside) if beside.is_file() else "the calibrator.json of the same run"
    raise DataError(
        f"apply reads the JSON file of a calibrator; this is {what[0]}.",
        str(path),
        f"Give {wanted}: it holds the same calibrator. {what[1]}",
    )


def files_of_older_runs(
    folder: Path, formats: Sequence[Kind], model: UserModel | None = None
) -> list[Path]:
    """Return files of an earlier run that this one would leave as they are.

    They hold another calibrator than those that it writes.
    """
    from core.export import FILES

    names = {name for files in FILES.values() for name in files}
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        listed = [str(name) for name in report["files"]]
    except (OSError, ValueError, LookupError, TypeError):
        listed = []
    names |= {name for name in listed if Path(name).name == name}
    names -= {ROWS, REPORT, *(name for kind in formats for name in FILES[kind])}
    if model is not None:
        names.discard(model.fused_name)
    return sorted(folder / name for name in names if (folder / name).is_file())


def mixed_folder(folder: Path, older: Sequence[Path]) -> DataError:
    """Return the error for a folder that would hold two calibrators."""
    names = ", ".join(path.name for path in older)
    return DataError(
        f"The folder holds {names} of an earlier run, which this run does not write: "
        "it would hold two calibrators.",
        f"flag --out, {folder}",
        "Choose another folder, name all formats that are wanted (--formats), or let "
        "--force remove the files of the earlier run.",
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
    analysis: Analysis,
    folder: Path,
    progress: Progress,
    formats: Sequence[Kind] = ("json", "python"),
    model: UserModel | None = None,
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
    formats : sequence of str, default=("json", "python")
        Of the calibrator.
    model : UserModel, optional
        To be written once more with the calibrator behind it.

    Returns
    -------
    report : dict
        The analysis with its findings, operating points and classes, and what was
        written.
    verifications : dict of str to Verification
        By name of the file.
    """
    from core.export import FILES, annotate, export, write_csv
    from core.export.readback import verify_rows
    from core.report import report_document

    method = analysis.settings.method
    found: dict[str, Verification] = {}
    written: list[str] = []
    for number, kind in enumerate(formats):
        names = FILES[kind]
        progress(
            number / (len(formats) + 1),
            f"Verifying {names[0]} in a clean interpreter",
        )
        artefact = export(analysis, method, kind)
        found[names[0]] = artefact.verification
        for name in names:
            if artefact.verification.is_offered:
                with whole(folder / name) as path:
                    path.write_bytes(artefact.files[name])
                written.append(name)
            else:
                (folder / name).unlink(missing_ok=True)  # of an earlier run
    if model is not None:
        from core.export.fuse import export_fused

        progress(len(formats) / (len(formats) + 1), "Running your model")
        fused, proof = export_fused(
            analysis, method, model.data, output=model.output, name=model.name
        )
        found[model.fused_name] = proof
        if proof.is_offered:
            with whole(folder / model.fused_name) as path:
                path.write_bytes(fused.model)
            written.append(model.fused_name)
        else:
            (folder / model.fused_name).unlink(missing_ok=True)
    progress(len(formats) / (len(formats) + 1), f"Verifying {ROWS}")
    found[ROWS] = verify_rows(analysis, method)
    if found[ROWS].ok:
        with whole(folder / ROWS) as path:
            write_csv(annotate(analysis, method), path)
        written.append(ROWS)
    else:
        (folder / ROWS).unlink(missing_ok=True)
    report = report_document(analysis, method) | {
        "exported": method,
        "verification": {name: asdict(item) for name, item in found.items()},
        "files": [*written, REPORT],
    }
    with whole(folder / REPORT) as path:
        path.write_text(json_text(report), encoding="utf-8", newline="\n")
    return report, found
