"""Command line: python -m app {evaluate, compare, calibrate, apply, ood, ...}.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import (
    cli_compare,
    cli_export,
    cli_flags,
    cli_more,
    cli_ood,
    cli_segment,
    cli_text,
)
from core.messages import Cancelled, DataError, FitError, Progress, part_of
from core.settings import Settings

if TYPE_CHECKING:
    from core.predictions import Predictions, Study

__all__ = ["build_parser", "main"]

OK, UNVERIFIED, REFUSED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

_READING = ("reading",)
_ALL = ("reading", "splitting", "statistics")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        0 fine, 1 an artefact failed its verification, 2 refused input or wrong
        flags, 130 stopped by Ctrl-C, 141 the reader of the output went away.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # terminals that lack a character
    try:
        return _run(argv)
    except BrokenPipeError:
        # Python flushes once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (KeyboardInterrupt, Cancelled):
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:
        sys.stdout.flush()
        return stop.code if isinstance(stop.code, int) else OK
    try:
        with warnings.catch_warnings():
            # The results carry their notes; Python's warnings name lines of code.
            warnings.simplefilter("ignore")
            code: int = args.command(args)
    except (DataError, FitError) as error:
        return _refuse(error, as_json=args.json)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _refuse(_os_problem(error), as_json=args.json)
    sys.stdout.flush()
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command and flag."""
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="See how far the confidence of a classifier can be trusted, repair "
        "it, and take the repair home.",
        epilog="Exit codes: 0 fine, 1 an exported file failed its verification, 2 "
        "refused input or wrong flags, 130 stopped.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    evaluate = cli_flags.command(
        commands, "evaluate", _evaluate, "measure a file of predictions"
    )
    cli_flags.add_files(evaluate, "predictions; several files that belong together")
    _add_copies(evaluate, is_fit=True)
    cli_flags.add_method_flags(evaluate)
    evaluate.add_argument(
        "--no-calibrators", action="store_true", help="measure only, fit nothing"
    )
    cli_more.add_flags(evaluate)

    compare = cli_flags.command(
        commands, "compare", _compare, "rank calibrators on one file or several"
    )
    cli_flags.add_files(compare, "labelled rows; each file is a data set of its own")
    _add_copies(compare, is_fit=True)
    cli_compare.add_flags(compare)

    calibrate = cli_flags.command(
        commands, "calibrate", _calibrate, "fit, compare and export"
    )
    cli_flags.add_files(calibrate, "labelled rows; several files that belong together")
    _add_copies(calibrate, is_fit=True)
    calibrate.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write into"
    )
    cli_flags.add_method_flags(calibrate)
    calibrate.add_argument(
        "--formats",
        default="json,python",
        metavar="NAMES",
        help="how to write the calibrator, separated by commas: json, python, onnx "
        "(float64), onnx32 (float32), torch, or all (default: json,python)",
    )
    calibrate.add_argument(
        "--fuse",
        type=Path,
        metavar="MODEL.onnx",
        help="your own model, to be written again with the calibrator behind it",
    )
    calibrate.add_argument(
        "--fuse-output",
        metavar="NAME",
        help="which of its outputs the file was made from, where several fit",
    )
    calibrate.add_argument(
        "--force",
        action="store_true",
        help="remove files of an earlier run that this one does not write again",
    )

    apply = cli_flags.command(
        commands, "apply", _apply, "calibrate new rows, labelled or not"
    )
    apply.add_argument(
        "calibrator", type=Path, metavar="CALIBRATOR", help="calibrator.json"
    )
    cli_flags.add_files(apply, "the new rows")
    _add_copies(apply, is_fit=False)
    apply.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="CSV to write"
    )

    cli_ood.add_commands(commands, _ood)
    cli_segment.add_command(commands, _segment)
    check = cli_flags.command(
        commands,
        "check",
        _check,
        "say what each column is taken for",
        aliases=["inspect"],
    )
    cli_flags.add_files(check, "predictions; several files that belong together")

    for command in (evaluate, compare, calibrate):
        cli_flags.add_settings_flags(command, _ALL)
    for command in (apply, check):
        cli_flags.add_settings_flags(command, _READING)
    for command in (evaluate, compare, calibrate, apply, check):
        cli_flags.add_session_flags(command)
    cli_flags.command(
        commands, "methods", _methods, "list calibrators, detectors and metrics"
    )
    cli_flags.command(commands, "warm-up", _warm_up, "compile the kernels")
    return parser


def _add_copies(parser: argparse.ArgumentParser, *, is_fit: bool) -> None:
    """Add the flags that name transformed copies of the rows."""
    text = (
        "scores of transformed copies of the %srows, for calibrators that read them: "
        "one file per transform, or an NPZ with several, always in the same order"
    )
    options: Any = {"type": Path, "nargs": "+", "metavar": "FILE", "default": []}
    parser.add_argument("--copies", help=text % "", **options)
    if is_fit:
        calibration = text % "calibration file's "
        parser.add_argument("--fit-copies", help=calibration, **options)


def _with_copies(
    args: argparse.Namespace, study: Study, settings: Settings, progress: Progress
) -> Study:
    """Return the study with the copies that the flags name."""
    from core.loading import add_copies

    cli_export.check_there(*args.copies, *args.fit_copies)
    if args.copies:
        study = add_copies(study, args.copies, settings, progress=progress)
    if args.fit_copies:
        study = add_copies(
            study, args.fit_copies, settings, role="fit", progress=progress
        )
    return study


def _evaluate(args: argparse.Namespace) -> int:
    settings = _settings(args)
    from core.analysis import analyze
    from core.findings import find
    from core.loading import open_study

    with _progress() as report:
        reading = part_of(report, 0, 0.3)
        study, schema = open_study(args.files, settings, progress=reading)
        study = _with_copies(args, study, settings, reading)
        _save_session(args, settings)
        _check_split(study, settings)
        analysis = analyze(study, settings, part_of(report, 0.3, 0.8))
        more = cli_more.measure(args, analysis, part_of(report, 0.8, 1))
        found = find(study, settings, analysis.overview)
    if args.json:
        findings = {"findings": None if found is None else found.to_dict()}
        _print_json(analysis.to_dict() | findings | more.to_dict())
    else:
        parts = [
            cli_text.evaluation_text(schema, analysis, _bold),
            "" if found is None else cli_text.findings_text(found),
            more.text(),
        ]
        print("\n\n".join(part for part in parts if part))
    return OK


def _check_split(study: Study, settings: Settings) -> None:
    """Refuse a split that was asked for by name and cannot be made."""
    from core.splitting import make_split

    if settings.split != "auto" and study.evaluation.is_labelled.any():
        make_split(study, settings)


def _compare(args: argparse.Namespace) -> int:
    cli_compare.choose_methods(args)
    settings = _settings(args)
    with _progress() as report:
        document, text = cli_compare.run(args, settings, report, _with_copies)
    _save_session(args, settings)
    if args.json:
        _print_json(document)
    else:
        print(text)
    return OK


def _calibrate(args: argparse.Namespace) -> int:
    settings = _settings(args)
    if settings.method not in settings.calibrators:
        settings = settings.replace(
            calibrators=(*settings.calibrators, settings.method)
        )
    formats = cli_export.chosen_formats(args.formats)
    model = None
    if args.fuse is not None:
        model = cli_export.UserModel.read(args.fuse, args.fuse_output)
    sources = [*args.files, *args.copies, *([args.fuse] if model else [])]
    cli_export.check_target(args.out, *sources, is_folder=True)
    older = cli_export.files_of_older_runs(args.out, formats, model)
    if older and not args.force:
        raise cli_export.mixed_folder(args.out, older)
    from core.analysis import analyze
    from core.loading import open_study

    with _progress() as report:
        reading = part_of(report, 0, 0.2)
        study, schema = open_study(args.files, settings, progress=reading)
        study = _with_copies(args, study, settings, reading)
        _save_session(args, settings)
        _check_split(study, settings)
        analysis = analyze(study, settings, part_of(report, 0.2, 0.8))
        cli_export.check_fitted(analysis, settings.method)
        last = part_of(report, 0.8, 1)
        for path in older:
            path.unlink(missing_ok=True)
        document, found = cli_export.write_exports(
            analysis, args.out, last, formats, model
        )
    if args.json:
        _print_json(document)
    else:
        print(cli_text.calibration_text(schema, analysis, _bold))
        print("\n" + cli_text.files_text(args.out, document["files"], found))
    for name, item in found.items():
        if item.is_run and not item.ok:
            text = f"Error: {name} was not written. {item.sentence}"
            if item.is_offered:
                text = f"Warning: {name} was written, but {item.problem}."
            print(cli_text.wrapped(text, indent="  "), file=sys.stderr)
    is_right = all(item.ok or not item.is_run for item in found.values())
    return OK if is_right else UNVERIFIED


def _apply(args: argparse.Namespace) -> int:
    settings = _settings(args)
    cli_export.check_target(args.out, *args.files, *args.copies, args.calibrator)
    cli_export.check_is_json(args.calibrator)
    text = cli_flags.read_text(args.calibrator, "calibrator file")
    from core.export import (
        apply_calibrator,
        from_json,
        read_new_rows,
        write_csv,
    )
    from core.loading import read_copies

    try:
        calibrator, metadata = from_json(text)
    except DataError as error:
        raise DataError(error.what, str(args.calibrator), error.how_to_fix) from None
    reading = _reading(settings)
    if settings.label_column is None:
        reading["label_column"] = ""  # labels play no part
    with _progress() as report:
        own = read_new_rows(args.files, metadata, progress=report, **reading)
        copies: tuple[Predictions, ...] = ()
        if "copies" in calibrator.reads:
            cli_export.check_there(*args.copies)
            given, is_named = args.copies or args.files, not args.copies
            copies = read_copies(own, given, settings, is_named=is_named)
        frame = apply_calibrator(calibrator, metadata, own, copies)
        with cli_export.whole(args.out) as path:
            write_csv(frame, path)
    _save_session(args, settings)
    classes = list(metadata.get("classes", own.classes))
    if args.json:
        document = {
            "file": str(args.out),
            "method": calibrator.method_id,
            "n_rows": len(frame),
            "n_left_out": len(own.left_out),
            "classes": classes,
            "input_kind": own.input_kind,
            "notes": [note.to_dict() for note in own.notes],
        }
        _print_json(document)
        return OK
    print(
        cli_text.wrapped(
            f"{args.out}: {len(frame):,} rows of {own.name} ({own.input_kind}), "
            f"{len(classes)} classes, calibrated by {calibrator.method_id}, "
            f"{len(own.left_out):,} rows left out"
        )
    )
    if own.notes:
        print(cli_text.notes_text(own.notes))
    return OK


def _check(args: argparse.Namespace) -> int:
    settings = _settings(args)
    from core.loading import inspect_file, open_study

    with _progress() as report:
        schema = inspect_file(args.files, settings=settings, progress=report)
    if not args.json:
        print(cli_text.columns_text(schema), end="\n\n")
        print(cli_text.wrapped(f"{schema.name}: {schema.summary()}"), flush=True)
    with _progress() as report:
        own = open_study(args.files, settings, progress=report)[0].evaluation
    _save_session(args, settings)
    if args.json:
        found = schema.to_dict() | {
            "summary": schema.summary(),
            "n_left_out": len(own.left_out),
            "notes": [note.to_dict() for note in own.notes],
        }
        _print_json(found)
        return OK
    if len(own.left_out):
        print(f"{len(own.left_out):,} rows are left out.")
    if own.notes:
        print("\n" + cli_text.notes_text(own.notes))
    return OK


def _ood(args: argparse.Namespace) -> int:
    settings = cli_ood.known_detectors(_settings(args))
    with _progress() as report:
        document, text = args.run(args, settings, report)
    _save_session(args, settings)
    if args.json:
        _print_json(document)
    else:
        print(text)
    problems = document.get("problems", ())
    for problem in problems:
        print(cli_text.wrapped(problem, indent="  "), file=sys.stderr)
    return UNVERIFIED if problems else OK


def _segment(args: argparse.Namespace) -> int:
    with _progress() as report:
        document, text = cli_segment.run(args, report)
    if args.json:
        _print_json(document)
    else:
        print(text)
    return UNVERIFIED if document["problems"] else OK


def _methods(args: argparse.Namespace) -> int:
    from core.calibrators import CALIBRATORS
    from core.metrics import METRICS
    from core.ood import DETECTORS
    from core.segmentation import MAP_CALIBRATORS

    families = {"Calibrators": CALIBRATORS, "Detectors": DETECTORS, "Metrics": METRICS}
    families["Maps"] = MAP_CALIBRATORS
    if not args.json:
        members = {title: list(found.values()) for title, found in families.items()}
        print(cli_text.methods_text(members))
        return OK
    keys = ("id", "label", "tier", "reference", "summary", "formula")
    document = {
        title.lower(): [
            {key: getattr(item, key) for key in keys}
            | item.advice
            | {"aliases": list(item.aliases), "params": [p.name for p in item.params]}
            for item in found.values()
        ]
        for title, found in families.items()
    }
    for entry, found in zip(document["detectors"], DETECTORS.values(), strict=True):
        entry |= {"requires": sorted(found.requires), "fits_on": found.fits_on}
        entry |= {"assumes": found.assumes}
    _print_json(document)
    return OK


def _warm_up(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    from core.warm_up import warm_up

    warm_up()
    seconds = time.perf_counter() - start
    if args.json:
        _print_json({"seconds": seconds})
    else:
        print(f"The kernels are ready after {seconds:.1f} s.")
    return OK


def _settings(args: argparse.Namespace) -> Settings:
    """Return the settings of session and flags, with the methods checked."""
    settings = cli_flags.chosen_settings(args)
    for file in getattr(args, "files", ()):
        if not file.exists():
            raise DataError("There is no such file.", str(file), "Check the path.")
    from core.calibrators import CALIBRATORS

    methods = (*settings.calibrators, settings.method, settings.baseline)
    names = dict.fromkeys(methods)
    known = {name: _known(name, CALIBRATORS) for name in names}
    options = []
    for owner, name, value in settings.options:
        registry = _registry_of(owner)
        try:
            checked = registry[_known(owner, registry)].validate({name: value})
        except ValueError as error:
            raise DataError(
                f"The option {owner}.{name} cannot be {value!r}: {error}.",
                "flag --option",
                "See `methods` for the options of each.",
            ) from None
        options.append((registry[owner].id, name, checked[name]))
    return settings.replace(
        calibrators=tuple(dict.fromkeys(known[n] for n in settings.calibrators)),
        method=known[settings.method],
        baseline=known[settings.baseline],
        options=tuple(options),
    )


def _registry_of(owner: str) -> Any:
    """Return the registry that an option belongs to; calibrators where none knows."""
    from core.calibrators import CALIBRATORS

    if owner in CALIBRATORS:
        return CALIBRATORS
    from core.ood import DETECTORS

    return DETECTORS if owner in DETECTORS else CALIBRATORS


def _known(name: str, registry: Any) -> str:
    if name not in registry:
        raise DataError(
            f"There is no calibrator called {name!r}.",
            "flag --method, --calibrators or --option, or the session file",
            f"Choose among: {', '.join(registry)}.",
        )
    found: str = registry[name].id
    return found


def _reading(settings: Settings) -> dict[str, Any]:
    from core.loading import READING_FIELDS

    return {name: getattr(settings, name) for name in READING_FIELDS}


def _save_session(args: argparse.Namespace, settings: Settings) -> None:
    path = args.save_session
    if path is not None:
        path.write_text(settings.to_json(), encoding="utf-8")


def _refuse(error: DataError | FitError, *, as_json: bool) -> int:
    """Show what is wrong on standard error, and as JSON where JSON is expected."""
    answers = {item.label: cli_flags.answer_flag(item) for item in error.answers}
    flags = [f"{flag} ({label})" for label, flag in answers.items()]
    sys.stdout.flush()
    print(cli_text.error_text(error, flags), file=sys.stderr)
    if as_json:
        _print_json({"error": error.to_dict() | {"flags": list(answers.values())}})
    return REFUSED


def _os_problem(error: OSError) -> DataError:
    why = (error.strerror or str(error) or "unknown reason").lower()
    return DataError(
        f"A file cannot be read or written: {why}.",
        str(error.filename or ""),
        "Check that the path exists and that you may use it.",
    )


def _print_json(document: Any) -> None:
    print(cli_export.json_text(document), end="")


def _bold(text: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[1m{text}\033[0m"


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Give a bar on standard error where that is a terminal, else nothing."""
    stream = sys.stderr
    is_shown = stream.isatty()
    last = 0.0

    def report(fraction: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if not is_shown or (now - last < 0.1 and fraction < 1):
            return
        last = now
        filled = round(24 * min(max(fraction, 0.0), 1.0))
        bar = f"[{'#' * filled}{'.' * (24 - filled)}] {100 * fraction:3.0f} %"
        stream.write(f"\r{bar} {message[:48]:<48}")
        stream.flush()

    try:
        yield report
    finally:
        if last:
            stream.write("\r" + " " * 84 + "\r")
            stream.flush()
