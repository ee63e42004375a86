"""The commands of `ood`: fit a detector, score rows with it, compare detectors."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import cli_export, cli_flags, cli_ood_export, cli_ood_more, cli_text
from core.messages import DataError, FitError, Progress, part_of
from core.settings import Settings

if TYPE_CHECKING:
    from core.ood import Detection, Scored
    from core.predictions import Study
    from core.uncertainty import Estimate

__all__ = ["add_commands", "evaluate", "fit", "known_detectors", "score"]

ALL = "all"
_NUMBERS = {
    "auroc": "AUROC",
    "aupr_out": "AUPR-out",
    "aupr_in": "AUPR-in",
    "fpr95": "FPR95",
    "fpr95_ood_positive": "FPR95 (OOD pos.)",
    "detection_accuracy": "Accuracy",
}
LEGEND = (
    "FPR95: share of OOD rows accepted where 95 % of in-distribution rows are "
    "(in-distribution positive); OOD pos.: share of in-distribution rows rejected "
    "where 95 % of OOD rows are. AUPR-out of a useless score: the share of OOD rows."
)


def add_commands(commands: Any, function: Any) -> None:
    """Add the commands; `function` calls what their parsers name as `run`."""
    text = "fit, apply and compare out-of-distribution detectors"
    parent: argparse.ArgumentParser = commands.add_parser(
        "ood", help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parts = parent.add_subparsers(title="commands", required=True, metavar="COMMAND")
    export_text = "write a fitted detector as JSON, Python or ONNX, verified on rows"
    reading, every = ("reading",), ("reading", "splitting", "statistics", "detection")
    table: tuple[tuple[Any, str, str, tuple[str, ...]], ...] = (
        (fit, "fit a detector and set its threshold", "in-distribution rows", every),
        (score, "score new rows with a fitted detector", "new rows", reading),
        (evaluate, "measure detectors on OOD sets", "in-distribution rows", every),
        (cli_ood_export.export, export_text, "rows to run the files on", reading),
        (
            cli_ood_more.add_class,
            "add a class to a Mahalanobis detector, from its rows alone",
            "rows of the new class",
            ("reading", "statistics", "detection"),
        ),
    )
    for run, text, rows, groups in table:
        name = run.__name__.replace("_", "-")
        parser = cli_flags.command(parts, name, function, text)
        if name in ("score", "export", "add-class"):
            parser.add_argument(
                "detector_file",
                type=Path,
                metavar="DETECTOR",
                help="file that `ood fit` wrote",
            )
        cli_flags.add_files(parser, rows)
        add_flags(parser, name)
        parser.set_defaults(run=run)
        cli_flags.add_settings_flags(parser, groups)
        cli_flags.add_session_flags(parser)
        if name not in ("evaluate", "export"):
            what = "FILE.csv" if name == "score" else "FILE.json"
            parser.add_argument(
                "--out", type=Path, required=True, metavar=what, help="file to write"
            )


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the flags of one of the commands."""
    if command == "export":
        cli_ood_export.add_flags(parser)
    if command == "add-class":
        cli_ood_more.add_class_flags(parser)
    if command not in ("fit", "evaluate"):
        return
    section = parser.add_argument_group("other files")
    section.add_argument(
        "--reference",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="in-distribution rows that fit detectors, such as the training rows "
        "(default: fit rows of FILE)",
    )
    section.add_argument(
        "--ood",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="an out-of-distribution set; may be repeated. Names that start with near "
        "or far are averaged as such",
    )
    section.add_argument(
        "--head",
        type=Path,
        metavar="FILE",
        help="last layer of the network: weight and bias as NPZ or safetensors",
    )
    section = parser.add_argument_group("detectors (see `methods`)")
    if command == "fit":
        section.add_argument(
            "--detector",
            default=argparse.SUPPRESS,
            metavar="ID",
            help="detector to fit (default: max-softmax)",
        )
    else:
        section.add_argument(
            "--detectors",
            action="append",
            type=cli_flags.name_list,
            default=argparse.SUPPRESS,
            metavar="IDS",
            help="detectors to compare, separated by commas, or all (default: those "
            "that `methods` lists as default)",
        )
        section.add_argument(
            "--details",
            action="store_true",
            help="list the rows that each detector gets most wrong, and what OOD rows "
            "do to calibration as their share grows",
        )
    section.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="ID.NAME=VALUE",
        help="option of a detector; may be repeated",
    )


def known_detectors(settings: Settings) -> Settings:
    """Return the settings with the ids of their detectors, or refuse unknown names."""
    from core.ood import DETECTORS

    def known(name: str) -> str:
        if name not in DETECTORS:
            raise DataError(
                f"There is no detector called {name!r}.",
                "flag --detector or --detectors, or the session file",
                f"Choose among: {', '.join(DETECTORS)}.",
            )
        return DETECTORS[name].id

    wanted = settings.detectors
    if ALL in wanted:
        wanted = tuple(DETECTORS)
    return settings.replace(
        detector=known(settings.detector),
        detectors=tuple(dict.fromkeys(known(name) for name in wanted)),
    )


# ----------------------------------------------------------------------- commands


def fit(
    args: argparse.Namespace, settings: Settings, progress: Progress
) -> tuple[dict[str, Any], str]:
    """Fit one detector with its threshold and write it; return JSON and text."""
    files = _all_files(args)
    cli_export.check_target(args.out, *files)
    from core.export.detectors import fitted_detector
    from core.ood import detect

    study = _study(args, settings, part_of(progress, 0, 0.4))
    method = settings.detector
    settings = settings.replace(detectors=())
    found = detect(study, settings, part_of(progress, 0.4, 1), (method,))
    if method not in found.results:
        raise FitError(
            f"The detector {method!r} cannot be fitted. {found.skipped[method]}",
            study.evaluation.name,
            "Give what is missing, or choose another detector (--detector).",
        )
    result, text = found.results[method], fitted_detector(found, method).to_json()
    with cli_export.whole(args.out) as path:
        path.write_text(text, encoding="utf-8", newline="\n")
    document = found.to_dict() | {"file": str(args.out), "method": method}
    lines = [
        cli_text.wrapped(f"{args.out}: {method}, fitted on {found.rows.sentence}"),
        _threshold_line(result),
        *_tables(found, settings),
        *_notes(found),
    ]
    return document, "\n\n".join(lines)


def score(
    args: argparse.Namespace, settings: Settings, progress: Progress
) -> tuple[dict[str, Any], str]:
    """Score new rows with a fitted detector; return JSON and text."""
    cli_export.check_target(args.out, *args.files, args.detector_file)
    item = cli_ood_export.read_detector(args.detector_file)
    from core.export import write_csv
    from core.ood import scored_table

    report = part_of(progress, 0, 0.5)
    own = cli_ood_export.read_rows(args.files, item, settings, report)
    detector, threshold = item.detector, item.threshold
    names = tuple(item.metadata.get("classes", ()))
    notes = [note for note in own.notes if not note.code.startswith("unlabelled")]
    report = part_of(progress, 0.5, 1)
    frame = scored_table(own, detector, threshold, report, classes=names)
    with cli_export.whole(args.out) as path:
        write_csv(frame, path)
    n_rejected = int((~frame["accepted"]).sum())
    document = {
        "file": str(args.out),
        "method": detector.method_id,
        "n_rows": len(frame),
        "n_rejected": n_rejected,
        "threshold": threshold.value,
        "notes": [note.to_dict() for note in notes],
    }
    said = (
        f"{args.out}: {len(frame):,} rows of {own.name} scored by "
        f"{detector.method_id}, {n_rejected:,} rejected (score above "
        f"{threshold.value:.6g})"
    )
    lines = [cli_text.wrapped(said)]
    if notes:
        lines.append(cli_text.notes_text(notes))
    return document, "\n".join(lines)


def evaluate(
    args: argparse.Namespace, settings: Settings, progress: Progress
) -> tuple[dict[str, Any], str]:
    """Compare detectors, or measure uploaded scores; return JSON and text."""
    given = _given(args, settings, part_of(progress, 0, 0.3))
    if given is not None:
        from core.ood import INSIDE

        lines = [
            *_set_tables({given.method: given}, settings),
            _threshold_line(given),
            cli_text.notes_text(given.notes),
        ]
        sizes = {INSIDE: given.scores.test.size}
        sizes |= {name: values.size for name, values in given.scores.ood.items()}
        return given.to_dict() | {"n": sizes}, "\n\n".join(lines)
    from core.ood import detect

    study = _study(args, settings, part_of(progress, 0, 0.3))
    if not study.ood:
        raise DataError(
            "There is no out-of-distribution set to measure with.",
            study.evaluation.name,
            "Give one with --ood NAME=FILE, or mark rows in a column is_ood.",
        )
    found = detect(study, settings, part_of(progress, 0.3, 1))
    if not found.results:
        few = [f"{name}: {reason}" for name, reason in list(found.skipped.items())[:3]]
        raise FitError(
            f"None of these detectors can be used. {' '.join(few)}",
            study.evaluation.name,
            "Give what is missing, or choose other detectors (--detectors).",
        )
    baseline = next(iter(found.results))
    against = found.against(baseline, level=settings.level)
    document = found.to_dict() | {
        "baseline": baseline,
        "auroc_differences": {
            method: {name: item.to_dict() for name, item in sets.items()}
            for method, sets in against.items()
        },
    }
    lines = [
        cli_text.wrapped(f"{study.evaluation.name}: {found.rows.sentence}"),
        *_tables(found, settings),
    ]
    if args.details:
        document["details"], more = cli_ood_more.details(found, settings)
        lines += more
    lines += _notes(found)
    return document, "\n\n".join(lines)


# -------------------------------------------------------------------------- files


def _all_files(args: argparse.Namespace) -> list[Path]:
    files = [*args.files, *(args.reference or ()), *([args.head] if args.head else [])]
    files += [path for _, path in _ood_files(args)]
    for file in files:
        if not file.exists():
            raise DataError("There is no such file.", str(file), "Check the path.")
    return files


def _ood_files(args: argparse.Namespace) -> Iterator[tuple[str | None, Path]]:
    for text in args.ood:
        name, equals, path = text.partition("=")
        # A path may hold the sign itself.
        if equals and name and not Path(text).exists():
            yield name, Path(path)
        else:
            yield None, Path(text)


def _study(args: argparse.Namespace, settings: Settings, progress: Progress) -> Study:
    """Read every file that the flags name."""
    from core.loading import add_head, add_ood, add_reference, open_study

    _all_files(args)
    study, _ = open_study(
        args.files, settings, needs_scores=False, progress=part_of(progress, 0, 0.5)
    )
    if args.head is not None:
        study = add_head(study, args.head)
    if args.reference is not None:
        report = part_of(progress, 0.5, 0.7)
        study = add_reference(study, args.reference, settings, progress=report)
    for name, path in _ood_files(args):
        report = part_of(progress, 0.7, 1)
        study = add_ood(study, path, settings, set_name=name, progress=report)
    return study


def _given(
    args: argparse.Namespace, settings: Settings, progress: Progress
) -> Scored | None:
    """Measure the files as scores of another library, where all of them are."""
    files = [(None, path) for path in args.files] + list(_ood_files(args))
    _all_files(args)
    if args.reference or args.head:
        return None
    from core.loading import read_given_scores

    found = []
    for name, path in files:
        item = read_given_scores(path, progress=progress)
        if item is None:
            return None
        found.append((name or item.name, item))
    from core.ood import measure_given

    return measure_given(found, settings, progress)


# --------------------------------------------------------------------------- text


def _tables(found: Detection, settings: Settings) -> list[str]:
    return _set_tables(found.results, settings)


def _set_tables(results: Mapping[str, Scored], settings: Settings) -> list[str]:
    """Return a table for each set and each mean, one detector a line."""
    first = next((item.evaluation for item in results.values()), None)
    if first is None:
        return []
    parts = []
    titles = {
        name: f"{name}, {item.n_ood:,} row{'' if item.n_ood == 1 else 's'}"
        for name, item in first.sets.items()
    }
    for name, title in titles.items():
        lines = {
            method: (item.evaluation.sets[name].estimates, item.rates[name])
            for method, item in results.items()
            if item.evaluation is not None
        }
        parts.append(_table(title, lines, settings))
    for group, members in first.members.items():
        title = f"Mean of {group}: {', '.join(members)}"
        means = {
            method: (item.evaluation.means[group], None)
            for method, item in results.items()
            if item.evaluation is not None
        }
        parts.append(_table(title, means, settings))
    return [*parts, cli_text.wrapped(LEGEND)]


def _table(
    title: str,
    lines: Mapping[str, tuple[Mapping[str, Estimate], Estimate | None]],
    settings: Settings,
) -> str:
    level = f"{settings.level:.0%}".replace("%", " %")
    header = ["Score", "AUROC", f"{level} interval"]
    header += [label for key, label in _NUMBERS.items() if key != "auroc"]
    has_rates = all(rate is not None for _, rate in lines.values())
    if has_rates:
        header.append("Accepted")
    rows = []
    for method, (numbers, rate) in lines.items():
        area = numbers["auroc"]
        mark = " *" if area.value < 0.5 else ""
        interval = "-"
        if area.low is not None and area.high is not None:
            interval = f"{area.low:.3f} to {area.high:.3f}"
        row = [method, f"{area.value:.3f}{mark}", interval]
        row += [f"{numbers[key].value:.3f}" for key in _NUMBERS if key != "auroc"]
        if rate is not None and has_rates:
            row.append(f"{rate.value:.3f}")
        rows.append(row)
    text = f"{title}\n{cli_text.table(header, rows)}"
    if any(numbers["auroc"].value < 0.5 for numbers, _ in lines.values()):
        text += "\n* under 0.5: OOD rows have the lower scores; not turned round."
    return text


def _threshold_line(result: Scored) -> str:
    from core.ood import INSIDE

    threshold, rate = result.threshold, result.rates[INSIDE]
    promised = threshold.acceptance
    bounds = f"{promised.low:.3f} to {promised.high:.3f}"
    said = (
        f"Accepted where the score is at most {threshold.value:.6g}: set by "
        f"{promised.n:,} threshold rows for {promised.value:.3f} of new "
        f"in-distribution rows ({bounds}); {rate.value:.3f} of the {rate.n:,} test "
        "rows are."
    )
    return cli_text.wrapped(said)


def _notes(found: Detection) -> list[str]:
    parts = []
    if found.skipped:
        lines = [
            cli_text.wrapped(reason, f"{name}: ", "  ")
            for name, reason in found.skipped.items()
        ]
        parts.append("Not used\n" + "\n".join(lines))
    notes = [*found.rows.notes, *found.rows.test.notes]
    for name, item in found.results.items():
        notes += _named(name, item.notes)
        notes += _named(name, item.threshold.notes)
    if notes:
        parts.append(cli_text.notes_text(notes))
    return parts


def _named(name: str, notes: Iterable[Any]) -> Sequence[Any]:
    from core.messages import Note

    return [Note(note.code, note.severity, f"{name}: {note.text}") for note in notes]
