"""The command `ood export`: a fitted detector in files to take home."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import cli_export, cli_flags, cli_text
from core.messages import DataError, Progress, part_of
from core.settings import Settings

if TYPE_CHECKING:
    from core.export.detectors import DetectorKind, DetectorVerification, FittedDetector
    from core.predictions import Predictions

__all__ = ["add_flags", "export", "read_detector", "read_rows"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write into"
    )
    parser.add_argument(
        "--formats",
        default="json,python",
        metavar="NAMES",
        help="how to write the detector, separated by commas: json, python, onnx "
        "(float64), onnx32 (float32), or all (default: json,python)",
    )
    section = parser.add_argument_group("behind your own model")
    section.add_argument(
        "--fuse",
        "--model",
        type=Path,
        metavar="MODEL.onnx",
        help="your own model, to be written again with the detector behind it",
    )
    section.add_argument(
        "--calibrator",
        type=Path,
        metavar="CALIBRATOR.json",
        help="file that `calibrate` wrote: the model then gives calibrated "
        "probabilities, too",
    )
    section.add_argument(
        "--fuse-output",
        metavar="NAME",
        help="which of its outputs holds the class scores, where several fit",
    )
    section.add_argument(
        "--fuse-features",
        action="append",
        default=[],
        metavar="[LAYER=]NAME",
        help="which value of it holds the features, an output or not (default: the "
        "output of their width, else what enters the last linear layer)",
    )
    section.add_argument(
        "--inputs",
        type=Path,
        metavar="FILE.npy",
        help="what your model was given for these rows, to run it on (default: the "
        "file's features if it takes them, else made-up inputs)",
    )


def read_detector(path: Path) -> FittedDetector:
    """Return the detector of a file that `ood fit` wrote."""
    text = cli_flags.read_text(path, "detector file")
    from core.export.detectors import detector_from_json

    try:
        return detector_from_json(text)
    except DataError as error:
        raise DataError(error.what, str(path), error.how_to_fix) from None


def export(
    args: argparse.Namespace, settings: Settings, progress: Progress
) -> tuple[dict[str, Any], str]:
    """Write a fitted detector in other formats, each verified; return JSON and text."""
    formats = _formats(args.formats)
    more = (args.fuse, args.calibrator, args.inputs)
    sources = [*args.files, args.detector_file, *(path for path in more if path)]
    cli_export.check_target(args.out, is_folder=True)
    cli_export.check_there(*sources)
    model = None
    if args.fuse is not None:
        model = cli_export.UserModel.read(args.fuse, args.fuse_output)
    elif args.calibrator or args.inputs or args.fuse_features:
        raise DataError(
            "There is no model to put a calibrator behind.",
            "flags --calibrator, --inputs and --fuse-features",
            "Give your model with --fuse.",
        )
    item = read_detector(args.detector_file)
    from core.export.detectors import DETECTOR_FILES

    names = [DETECTOR_FILES[kind] for kind in formats]
    names += [_fused_name(model)] if model else []
    _check_not_read(args.out, sources, names)
    own = read_rows(args.files, item, settings, part_of(progress, 0, 0.2))
    last = part_of(progress, 0.2, 0.7 if model else 1)
    found, written = _write(args.out, item, own, formats, last)
    if model is not None:
        progress(0.7, "Checking and running your model")
        _fuse(args, model, item, own, found, written)
    document = {
        "folder": str(args.out),
        "method": item.method,
        "threshold": item.threshold.value,
        "n_rows": len(own),
        "files": written,
        "verification": {name: asdict(proof) for name, proof in found.items()},
        "notes": [note.to_dict() for note in own.notes],
        "problems": problems(found),
    }
    lines = [f"Written to {args.out}: {', '.join(written) or 'nothing'}"]
    lines += [
        cli_text.wrapped(f"{name}: {proof.sentence}", indent="  ")
        for name, proof in found.items()
        if proof.ok or not proof.is_run
    ]
    if own.notes:
        lines.append(cli_text.notes_text(own.notes))
    return document, "\n".join(lines)


def _fused_name(model: cli_export.UserModel) -> str:
    return f"{Path(model.name).stem}_with_detector.onnx"


def _fuse(
    args: argparse.Namespace,
    model: cli_export.UserModel,
    item: FittedDetector,
    own: Predictions,
    found: dict[str, DetectorVerification],
    written: list[str],
) -> None:
    """Write the user's model with detector and calibrator behind it, if it passes."""
    from core.export import from_json
    from core.export.detectors import export_fused_detector

    calibrator, metadata = None, None
    if args.calibrator is not None:
        cli_export.check_is_json(args.calibrator)
        text = cli_flags.read_text(args.calibrator, "calibrator file")
        calibrator, metadata = from_json(text)
    pairs = dict(text.rpartition("=")[::2] for text in args.fuse_features)
    features: Any = pairs.get("") if list(pairs) == [""] else pairs
    fused, proof = export_fused_detector(
        item,
        [own],
        model.data,
        calibrator,
        metadata,
        scores=model.output,
        features=features,
        inputs=_inputs(args.inputs, own),
        name=model.name,
    )
    name = _fused_name(model)
    found[name] = proof
    if proof.is_offered:
        with cli_export.whole(args.out / name) as path:
            path.write_bytes(fused.model)
        written.append(name)
    else:
        (args.out / name).unlink(missing_ok=True)


def _inputs(path: Path | None, own: Predictions) -> Any:
    """Return what the model was given for the rows that were read."""
    if path is None:
        return None
    import numpy as np

    why, inputs = "there are several arrays", None
    try:
        inputs = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = str(error)
    if not isinstance(inputs, np.ndarray) or inputs.ndim == 0:
        raise DataError(
            f"The inputs cannot be read: {why}.",
            str(path),
            "Save them with numpy.save, one row for each row of the file.",
        )
    rows = own.file_rows - 1  # of rows that were left out, the inputs are, too
    return inputs[rows] if len(inputs) > rows.max() else inputs


def problems(found: dict[str, DetectorVerification]) -> list[str]:
    """Return a sentence for each file that is not what was shown."""
    said = []
    for name, proof in found.items():
        if proof.is_run and not proof.ok:
            text = f"Error: {name} was not written. {proof.sentence}"
            if proof.is_offered:
                text = f"Warning: {name} was written, but {proof.problem}."
            said.append(text)
    return said


def _formats(text: str) -> tuple[DetectorKind, ...]:
    from core.export.detectors import DETECTOR_FILES

    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    if "all" in names:
        return tuple(DETECTOR_FILES)
    unknown = [name for name in names if name not in DETECTOR_FILES]
    if unknown or not names:
        raise DataError(
            f"There is no format called {unknown[0]!r} for a detector."
            if unknown
            else "No format is named.",
            "flag --formats",
            f"Choose among: {', '.join(DETECTOR_FILES)}, or all.",
        )
    return tuple(kind for kind in DETECTOR_FILES if kind in names)


def _check_not_read(
    folder: Path, sources: Sequence[Path], names: Sequence[str]
) -> None:
    """Refuse to write over a file that is read."""
    kept = {source.resolve() for source in sources}
    for name in names:
        if (folder / name).resolve() in kept:
            raise DataError(
                f"{folder / name} would be written over.",
                "flag --out",
                "Choose another folder.",
            )


def read_rows(
    files: Sequence[Path], item: FittedDetector, settings: Settings, progress: Progress
) -> Predictions:
    """Read new rows with the classes that a detector was fitted on."""
    from core.loading import read_rows

    own, _ = read_rows(
        files,
        settings,
        classes=tuple(item.metadata.get("classes", ())),
        input_kind=str(item.metadata.get("input_kind", "")),
        progress=progress,
    )
    return own


def _write(
    folder: Path,
    item: FittedDetector,
    own: Predictions,
    formats: Sequence[DetectorKind],
    progress: Progress,
) -> tuple[dict[str, DetectorVerification], list[str]]:
    """Write every format that passes; return the proofs and what was written."""
    from core.export.detectors import DETECTOR_FILES, export_detector, shown_rows

    shown = shown_rows(item, [own])
    found, written = {}, []
    for number, kind in enumerate(formats):
        name = DETECTOR_FILES[kind]
        share = number / len(formats)
        progress(share, f"Verifying {name} in a clean interpreter")
        made = export_detector(item, shown, kind)
        found[name] = made.verification
        if made.verification.is_offered:
            with cli_export.whole(folder / name) as path:
                path.write_bytes(made.data)
            written.append(name)
        else:
            (folder / name).unlink(missing_ok=True)  # of an earlier run
    return found, written
