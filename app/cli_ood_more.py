"""What `ood evaluate --details` adds, and the command `ood add-class`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import cli_export, cli_ood_export, cli_text
from core.messages import DataError, Progress, part_of
from core.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from core.ood import Detection, MixturePoint

__all__ = ["add_class", "add_class_flags", "details"]

_N_ROWS = 10


def details(found: Detection, settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """Return rows to look at, and what strangers do to calibration, of every detector.

    Parameters
    ----------
    found : Detection
    settings : Settings

    Returns
    -------
    document : dict
        Method -> hardest (OOD rows), rejected (in-distribution rows) and mixtures, by
        set.
    lines : list of str
        The same as text.
    """
    from core.ood import hardest_rows, mixtures, rejected_rows

    document: dict[str, Any] = {}
    lines, rows = [], found.rows
    has_labels = rows.test.is_labelled.any() and rows.test.input_kind != "features"
    for method, item in found.results.items():
        tables = {
            "hardest": hardest_rows(found, method, _N_ROWS),
            "rejected": rejected_rows(found, method, _N_ROWS),
        }
        accepts, points = item.threshold.accepts, {}
        for name, own in rows.ood.items():
            if has_labels and own.input_kind != "features":
                kept = accepts(item.scores.test), accepts(item.scores.ood[name])
                points[name] = mixtures(rows.test, own, kept, settings)
        titles = {
            "hardest": f"{method}: OOD rows that look most familiar",
            "rejected": f"{method}: in-distribution rows that look strangest",
        }
        lines += [_rows_text(titles[key], frame) for key, frame in tables.items()]
        lines += [_mixture_text(f"{method}, {n}", p) for n, p in points.items()]
        document[method] = {
            key: frame.to_dict(orient="records") for key, frame in tables.items()
        }
        document[method]["mixtures"] = {
            name: [_point(point) for point in part] for name, part in points.items()
        }
    return document, lines


def _point(point: MixturePoint) -> dict[str, Any]:
    names = ("share", "is_rejecting", "coverage", "ood_share", "accuracy")
    found = {name: getattr(point, name) for name in (*names, "confidence", "ece")}
    return found | {"gap": point.gap}


def _rows_text(title: str, frame: pd.DataFrame) -> str:
    if frame.empty:
        return f"{title}: none"
    kept = [n for n in ("set", "id", "prediction") if n in frame]
    header = ["Row", *(n.capitalize() for n in kept), "Confidence", "Score", "Accepted"]
    rows = [
        [
            f"{int(line['file_row']):,}",
            *(str(line[name]) for name in kept),
            f"{line['confidence']:.3f}",
            f"{line['score']:.6g}",
            "yes" if line["accepted"] else "no",
        ]
        for line in frame.to_dict(orient="records")
    ]
    return f"{title}\n{cli_text.table(header, rows)}"


def _mixture_text(title: str, points: list[MixturePoint]) -> str:
    header = ["OOD share", "Rejecting", "Kept", "Accuracy", "Confidence", "ECE"]
    rows = [
        [
            f"{point.share:.0%}",
            "yes" if point.is_rejecting else "no",
            *(
                f"{value:.3f}"
                for value in (
                    point.coverage,
                    point.accuracy,
                    point.confidence,
                    point.ece,
                )
            ),
        ]
        for point in points
    ]
    head = f"{title}: what its rows do to calibration as their share grows"
    return f"{head}\n{cli_text.table(header, rows)}"


# ---------------------------------------------------------------------- add-class


def add_class_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ood add-class`."""
    parser.add_argument(
        "--name", required=True, metavar="CLASS", help="name of the new class"
    )
    parser.add_argument(
        "--rule",
        choices=("paper", "weighted"),
        default="paper",
        help="how the new rows enter the covariance: every class counts alike, or "
        "every row does, as in a fit on all of them (default: paper)",
    )
    parser.add_argument(
        "--threshold-rows",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="in-distribution rows of old and new classes that fitted nothing: they "
        "set the threshold anew",
    )


def add_class(
    args: argparse.Namespace, settings: Settings, progress: Progress
) -> tuple[dict[str, Any], str]:
    """Add a class to a Mahalanobis detector from rows of it alone."""
    sources = [*args.files, *args.threshold_rows, args.detector_file]
    cli_export.check_target(args.out, *sources)
    cli_export.check_there(*sources)
    item = cli_ood_export.read_detector(args.detector_file)
    from core.ood import Mahalanobis, choose_threshold

    detector, names = item.detector, list(item.metadata.get("classes", ()))
    if not isinstance(detector, Mahalanobis):
        raise DataError(
            f"{item.method} keeps no class means: no class can be added to it.",
            str(args.detector_file),
            "Fit a Mahalanobis detector.",
        )
    if args.name in names:
        raise DataError(
            f"The detector knows a class {args.name!r} already.",
            "flag --name",
            "Give the new class a name of its own.",
        )
    new = cli_ood_export.read_rows(
        args.files, item, settings, part_of(progress, 0, 0.4)
    )
    report = part_of(progress, 0.4, 0.8)
    held = cli_ood_export.read_rows(args.threshold_rows, item, settings, report)
    detector.add_class(new, rule=args.rule)
    names += [f"class {i}" for i in range(len(names), detector.n_classes_ - 1)]
    threshold = choose_threshold(
        detector.score(held),
        rule=settings.threshold_rule,
        target=settings.threshold_target,
        level=settings.level,
        is_grouped=held.group_codes() is not None,
    )
    # What was measured is no longer true of the new detector.
    stale = ("accepted", "auroc", "fingerprint")
    metadata = {k: v for k, v in item.metadata.items() if k not in stale}
    metadata |= {"classes": [*names, args.name]}
    made = replace(item, threshold=threshold, metadata=metadata)
    with cli_export.whole(args.out) as path:
        path.write_text(made.to_json(), encoding="utf-8", newline="\n")
    note = next(n for n in reversed(detector.notes_) if n.code == "class-added")
    document = {
        "file": str(args.out),
        "method": item.method,
        "classes": metadata["classes"],
        "n_rows": len(new),
        "threshold": threshold.to_dict(),
        "notes": [note.to_dict(), *(n.to_dict() for n in threshold.notes)],
    }
    promised = threshold.acceptance
    said = (
        f"{args.out}: {note.text} Accepted where the score is at most "
        f"{threshold.value:.6g}: set by {promised.n:,} rows for {promised.value:.3f} "
        f"of new in-distribution rows ({promised.low:.3f} to {promised.high:.3f})."
    )
    parts = [cli_text.wrapped(said)]
    if threshold.notes:
        parts.append(cli_text.notes_text(threshold.notes))
    return document, "\n".join(parts)
