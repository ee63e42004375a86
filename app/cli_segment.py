"""The command `segment`: local temperatures of segmentation maps, measured by image."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import cli_export, cli_flags, cli_text
from core.messages import DataError, Progress, part_of
from core.settings import Settings

if TYPE_CHECKING:
    from core.export.maps import MapArtefact
    from core.map_evaluation import MapAnalysis

__all__ = ["add_command", "run"]

NUMBERS, IMAGES, TEMPERATURES = "numbers.csv", "images.csv", "temperatures.npz"
REPORT = "report.json"
_FLAGS = ("n_bins", "level", "n_resamples", "seed", "n_folds")
_SHOWN = ("nll", "brier", "gap", "ece", "accuracy")


def add_command(commands: Any, function: Any) -> None:
    """Add the command; `function` calls it."""
    parser = cli_flags.command(
        commands,
        "segment",
        function,
        "calibrate segmentation maps by local temperatures, and measure by image",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="NPZ with logits (n, classes, height, width), labels (n, height, width) "
        "and, where there are, classes, split and ignore_index",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write into"
    )
    parser.add_argument(
        "--ignore-index",
        type=int,
        metavar="N",
        help="label of pixels that do not count (default: the file's, else -1, -100 "
        "and 255 where they are not classes)",
    )
    cli_flags.add_some_flags(parser, "numbers and intervals", _FLAGS)


def run(args: argparse.Namespace, progress: Progress) -> tuple[dict[str, Any], str]:
    """Measure, write everything, and return JSON and text."""
    settings = cli_flags.chosen_settings(args)
    cli_export.check_there(args.file)
    _check_target(args.out, args.file)
    from core.export.maps import MAP_FILES, export_maps
    from core.loading.maps import read_maps
    from core.map_evaluation import evaluate_maps

    maps = read_maps(
        args.file, ignore_index=args.ignore_index, progress=part_of(progress, 0, 0.1)
    )
    found = evaluate_maps(maps, settings, part_of(progress, 0.1, 0.8))
    progress(0.8, "Running the exported files on your maps")
    made = {kind: export_maps(found, kind) for kind in MAP_FILES}
    written = _write(args.out, found, made)
    document = found.to_dict() | {
        "settings": {name: getattr(settings, name) for name in _FLAGS},
        "verification": {
            item.file_name: asdict(item.verification) for item in made.values()
        },
        "problems": [
            item.verification.sentence
            for item in made.values()
            if not item.verification.ok
        ],
        "files": [*written, REPORT],
    }
    with cli_export.whole(args.out / REPORT) as path:
        text = cli_export.json_text(document)
        path.write_text(text, encoding="utf-8", newline="\n")
    return document, _text(found, settings, made, args.out, document["files"])


def _check_target(folder: Path, source: Path) -> None:
    cli_export.check_target(folder, source, is_folder=True)
    own = (NUMBERS, IMAGES, TEMPERATURES, REPORT)
    if source.resolve() in {(folder / name).resolve() for name in own}:
        raise DataError(
            f"{source} would be written over.", "flag --out", "Choose another place."
        )


def _write(
    folder: Path, found: MapAnalysis, made: Mapping[Any, MapArtefact]
) -> list[str]:
    """Write what passed its verification, and the numbers; return the names."""
    import numpy as np

    from components.tables import estimates_frame
    from core.export import write_csv

    written = []
    for item in made.values():
        if not item.verification.ok:
            (folder / item.file_name).unlink(missing_ok=True)
            continue
        with cli_export.whole(folder / item.file_name) as path:
            path.write_text(item.text, encoding="utf-8", newline="\n")
        written.append(item.file_name)
    columns = {name: result.estimates for name, result in found.results.items()}
    changes = {f"{b} to {a}": item for (b, a), item in found.changes.items()}
    tables = {NUMBERS: estimates_frame(columns | changes), IMAGES: found.by_image}
    for name, frame in tables.items():
        with cli_export.whole(folder / name) as path:
            write_csv(frame, path)
    with (
        cli_export.whole(folder / TEMPERATURES) as path,
        path.open("wb") as file,
    ):
        np.savez_compressed(
            file,
            image=np.array([item.number for item in found.images]),
            temperature=np.stack([item.temperatures for item in found.images]),
        )
    return [*written, NUMBERS, IMAGES, TEMPERATURES]


def _text(
    found: MapAnalysis,
    settings: Settings,
    made: Mapping[Any, MapArtefact],
    folder: Path,
    files: list[str],
) -> str:
    from core.calibrators import CALIBRATORS
    from core.metrics import METRICS
    from core.segmentation import MAP_CALIBRATORS

    labels = {**CALIBRATORS, **MAP_CALIBRATORS}
    shape = found.maps.logits.shape
    parts = [
        cli_text.wrapped(
            f"{found.maps.name}: {shape[0]:,} images of {shape[2]:,} x {shape[3]:,}, "
            f"{shape[1]} classes, {found.n_test_pixels:,} pixels measured, "
            f"{found.split_sentence}"
        )
    ]
    level = f"{100 * settings.level:g} % interval"
    lines = []
    for metric in _SHOWN:
        for place, (name, result) in enumerate(found.results.items()):
            item = result.estimates[metric]
            p = "" if item.p_value is None else cli_text.p_value(item.p_value)
            lines.append(
                (
                    METRICS[metric].label if place == 0 else "",
                    labels[name].label,
                    cli_text.number(item.value, metric),
                    cli_text.span(item.low, item.high, metric),
                    cli_text.span(item.null_low, item.null_high, metric),
                    p,
                )
            )
    header = ("Metric", "", "Value", level, "If calibrated", "p")
    parts.append(cli_text.table(header, lines, left=2))
    changes = [
        (
            f"{labels[after].label} - {labels[before].label}",
            METRICS[metric].label,
            cli_text.number(item.value, metric, signed=True),
            cli_text.span(item.low, item.high, metric, signed=True),
        )
        for (before, after), changed in found.changes.items()
        for metric, item in changed.items()
    ]
    title = ("Paired on the same images", "Metric", "Change", level)
    parts.append(cli_text.table(title, changes, left=2))
    if found.notes:
        parts.append(cli_text.notes_text(found.notes))
    said = [f"Written to {folder}: {', '.join(files)}"]
    said += [
        cli_text.wrapped(f"{item.file_name}: {item.verification.sentence}", indent="  ")
        for item in made.values()
    ]
    return "\n\n".join([*parts, "\n".join(said)])
