"""The command `compare`: calibrators ranked on one data set or on several."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import cli_export, cli_flags, cli_text
from core.messages import DataError, FitError, Progress, part_of
from core.settings import Settings

if TYPE_CHECKING:
    from core.analysis import Analysis
    from core.loading import Schema
    from core.predictions import Study
    from core.rankings import Overall
    from core.standings import Standing

__all__ = ["add_flags", "choose_methods", "run"]

ALL, DEFAULT = "all", "default"
TABLE, DOCUMENT, TEXT = "comparison.csv", "comparison.json", "comparison.txt"
WithCopies = Callable[[argparse.Namespace, "Study", Settings, Progress], "Study"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `compare`, but for those that are made from `Settings`."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder for {TABLE}, {DOCUMENT} and {TEXT}",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="several files are one data set (logits and labels apart, say)",
    )
    section = parser.add_argument_group("calibrators (see `methods`)")
    section.add_argument(
        "--methods",
        "--calibrators",
        dest="calibrators",
        action="append",
        type=cli_flags.name_list,
        metavar="IDS",
        help="calibrators to compare, separated by commas; default for those that "
        "`methods` lists as default, all for every one (default: default)",
    )
    section.add_argument(
        "--baseline",
        metavar="ID",
        help="what the others are set against on the test rows (default: uncalibrated)",
    )
    section.add_argument(
        "--rank-by",
        type=cli_flags.name_list,
        default=("nll",),
        metavar="METRICS",
        help="cross-validated metrics whose ranks are put together: nll, brier, ece "
        "(default: nll)",
    )
    section.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="ID.NAME=VALUE",
        help="option of a calibrator; may be repeated",
    )


def choose_methods(args: argparse.Namespace) -> None:
    """Replace "default" and "all" among the methods by the ids they stand for."""
    from core.calibrators import CALIBRATORS
    from core.rankings import RANKED_BY

    if args.calibrators is None and args.session is not None:
        return
    named = [name for part in args.calibrators or [[DEFAULT]] for name in part]
    chosen: list[str] = []
    for name in named:
        if name in (ALL, DEFAULT):
            chosen += [
                item.id
                for item in CALIBRATORS.values()
                if name == ALL or item.tier == DEFAULT
            ]
        else:
            chosen.append(name)
    args.calibrators = [tuple(dict.fromkeys(chosen))]
    unknown = [name for name in args.rank_by if name not in RANKED_BY]
    if unknown or not args.rank_by:
        raise DataError(
            f"Calibrators cannot be ranked by {unknown[0]!r}."
            if unknown
            else "No metric is named.",
            "flag --rank-by",
            f"Choose among: {', '.join(RANKED_BY)}.",
        )


def run(
    args: argparse.Namespace,
    settings: Settings,
    progress: Progress,
    with_copies: WithCopies,
) -> tuple[dict[str, Any], str]:
    """Compare on every data set, write what is asked for; return JSON and text."""
    from core.contrasts import WHY_NOT_ECE
    from core.rankings import (
        comparison_document,
        data_set_document,
        put_together,
        scores_of,
    )

    if args.out is not None:
        cli_export.check_target(args.out, *args.files, *args.copies, is_folder=True)
    opened = _opened(args, settings, part_of(progress, 0, 0.2), with_copies)
    made: list[tuple[Schema, Analysis, tuple[Standing, ...]]] = []
    for number, (study, schema) in enumerate(opened):
        ends = (0.2 + 0.8 * place / len(opened) for place in (number, number + 1))
        made.append((schema, *_compared(study, settings, part_of(progress, *ends))))
    sets = [data_set_document(analysis, found) for _, analysis, found in made]
    document = comparison_document(settings, sets)
    parts = [
        part
        for schema, analysis, found in made
        for part in _texts(schema, analysis, found)
    ]
    scores = [scores_of(analysis, found) for _, analysis, found in made]
    overall = put_together(scores, args.rank_by, settings.level)
    if overall is not None:
        document["overall"] = overall.to_dict()
        parts.append(_overall_text(overall))
    parts.append(cli_text.wrapped(WHY_NOT_ECE))
    text = "\n\n".join(parts)
    if args.out is not None:
        _write(args.out, document, text, made)
        parts.append(f"Written to {args.out}: {TABLE}, {DOCUMENT}, {TEXT}")
        text = "\n\n".join(parts)
    return document, text


def _opened(
    args: argparse.Namespace,
    settings: Settings,
    progress: Progress,
    with_copies: WithCopies,
) -> list[tuple[Study, Schema]]:
    """Read every data set; copies belong to the only one."""
    from core.loading import open_study

    together = args.together or len(args.files) == 1
    sources = [args.files] if together else [[file] for file in args.files]
    if (args.copies or args.fit_copies) and len(sources) > 1:
        raise DataError(
            "Copies were given for several data sets.",
            "flag --copies",
            "Compare one data set at a time.",
        )
    opened = []
    for number, files in enumerate(sources):
        ends = (place / len(sources) for place in (number, number + 1))
        report = part_of(progress, *ends)
        try:
            study, schema = open_study(files, settings, progress=report)
            study = with_copies(args, study, settings, report)
        except DataError as error:
            if len(sources) == 1:
                raise
            fix = f"{error.how_to_fix} Files that belong together: --together."
            raise DataError(
                error.what, error.where, fix, answers=error.answers
            ) from None
        opened.append((study, schema))
    return opened


def _compared(
    study: Study, settings: Settings, progress: Progress
) -> tuple[Analysis, tuple[Standing, ...]]:
    from core.analysis import UNCALIBRATED, analyze
    from core.splitting import make_split
    from core.standings import standings

    if study.evaluation.is_labelled.any():
        make_split(study, settings)  # says why rows cannot be divided
    wanted = settings
    if settings.baseline != UNCALIBRATED:
        names = dict.fromkeys((*settings.calibrators, settings.baseline))
        wanted = settings.replace(calibrators=tuple(names))
    analysis = analyze(study, wanted, progress)
    if analysis.comparison is None:
        reasons = [
            n.text for n in analysis.notes if n.code in ("not-fitted", "no-split")
        ]
        why = " ".join(reasons) or "No row has a label."
        raise FitError(
            f"Nothing could be compared. {why}",
            study.evaluation.name,
            "Give labelled rows with the scores of every class, or other --methods. "
            "Files that belong together: --together.",
        )
    if settings.baseline not in (UNCALIBRATED, *analysis.fitted):
        raise FitError(
            f"The baseline {settings.baseline!r} could not be fitted.",
            study.evaluation.name,
            "Choose another --baseline.",
        )
    return analysis, standings(analysis, settings.baseline)


def _write(
    folder: Path,
    document: Mapping[str, Any],
    text: str,
    made: Sequence[tuple[Schema, Analysis, tuple[Standing, ...]]],
) -> None:
    import pandas as pd

    lines = [
        {"data_set": analysis.study.evaluation.name} | item.flat()
        for _, analysis, found in made
        for item in found
    ]
    with cli_export.whole(folder / TABLE) as path:
        pd.DataFrame(lines).to_csv(path, index=False)
    for name, content in (
        (DOCUMENT, cli_export.json_text(document)),
        (TEXT, text + "\n"),
    ):
        with cli_export.whole(folder / name) as path:
            path.write_text(content, encoding="utf-8", newline="\n")


# --------------------------------------------------------------------------- text


def _texts(
    schema: Schema, analysis: Analysis, found: Sequence[Standing]
) -> tuple[str, ...]:
    """Return what is said of one data set."""
    split = analysis.overview.split
    assert split is not None  # noqa: S101 - something was compared
    parts = [
        cli_text.wrapped(f"{schema.name}: {cli_text.understood(schema, analysis)}"),
        _ranking(found, split.rows),
        _changes(analysis, found),
        _fits(found),
    ]
    notes = cli_text.notes_text(analysis.notes)
    return (*parts, notes) if notes else tuple(parts)


def _ranking(found: Sequence[Standing], rows: str) -> str:
    where = "the cross-fitted rows" if rows == "cross-fitted" else "inside the fit rows"
    lines = [
        (
            str(item.place),
            item.method,
            *_value_and_span(item, "nll"),
            "" if item.place == 1 else _signed(item.behind.value, "nll"),
            ""
            if item.place == 1
            else cli_text.span(item.behind.low, item.behind.high, "nll", signed=True),
            *_value_and_span(item, "brier")[:1],
            *_value_and_span(item, "ece")[:1],
            _null(item),
        )
        for item in found
    ]
    level = _level(found)
    header = ("", "Method", "NLL", level, "Behind", level, "Brier", "ECE", "If calib.")
    title = f"Ranked by cross-validated NLL, {where}"
    return f"{title}\n{cli_text.table(header, lines, left=2)}"


def _changes(analysis: Analysis, found: Sequence[Standing]) -> str:
    baseline = next((x.method for x in found if not x.contrasts), "uncalibrated")
    shown = [item for item in found if item.contrasts]
    lines = []
    for item in shown:
        cells = [item.method]
        for metric in ("nll", "brier"):
            one = item.contrasts.get(metric)
            if one is None:
                cells += ["", "", ""]
                continue
            cells += [
                _signed(one.change.value, metric),
                cli_text.span(one.change.low, one.change.high, metric, signed=True),
                cli_text.p_value(one.adjusted_p),
            ]
        right = item.contrasts.get("accuracy")
        cells.append("" if right is None else _signed(right.change.value, "accuracy"))
        cells.append(f"{item.flips.changed:,}" if item.flips.changed else "none")
        lines.append(cells)
    level = _level(found)
    header = (
        *("Method", "NLL", level, "p, Holm", "Brier", level, "p, Holm"),
        *("Accuracy", "Flipped"),
    )
    split = analysis.overview.split
    assert split is not None  # noqa: S101 - something was compared
    n, rows = split.test.size, split.rows
    title = f"Change from {baseline} on {n:,} {rows} rows, for these fitted calibrators"
    words = (
        "Paired on the same rows. The p-values are corrected for the number of "
        "calibrators; intervals are of each difference by itself. Flipped: rows whose "
        "predicted class is not that of the scores as they are."
    )
    flagged = [
        f"{item.method} ({item.flips.gained:,} became right, {item.flips.lost:,} wrong)"
        for item in found
        if item.flips.changed
    ]
    parts = [title, cli_text.table(header, lines), cli_text.wrapped(words)]
    if flagged:
        parts.append(
            cli_text.wrapped(f"Predictions changed: {', '.join(flagged)}.", "", "  ")
        )
    if any(item.refits for item in shown):
        parts += ["", _refits(analysis, shown, baseline)]
    return "\n".join(parts)


def _refits(analysis: Analysis, shown: Sequence[Standing], baseline: str) -> str:
    n = max(len(item.refits) for item in analysis.fitted.values())
    lines = [
        (item.method, cli_text.span(*item.refits, "nll", signed=True))
        for item in shown
        if item.refits is not None
    ]
    title = f"NLL minus that of {baseline}, over {n} repetitions of the split"
    return f"{title}\n{cli_text.table(('Method', 'Least to greatest'), lines)}"


def _fits(found: Sequence[Standing]) -> str:
    lines = [
        (
            item.method,
            f"{item.n_parameters:,}",
            "" if item.seconds is None else f"{item.seconds:.2f}",
            "kept" if item.is_accuracy_preserving else "may change",
            str(len(item.notes)) if item.notes else "",
        )
        for item in found
    ]
    header = ("Method", "Parameters", "Fit, s", "Predictions", "Notes")
    return cli_text.table(header, lines)


def _overall_text(overall: Overall) -> str:
    n, order = len(overall.data_sets), overall.agreed.order
    lines = [
        (str(place), name, f"{overall.agreed.mean_rank[name]:.2f}")
        for place, name in enumerate(order, 1)
    ]
    sets = "data set" if n == 1 else "data sets"
    title = (
        f"Over {n} {sets} by {', '.join(overall.metrics)}: Kemeny's consensus, with "
        "the mean rank (Borda)"
    )
    said = (overall.agreement_sentence, overall.difference_sentence)
    parts = [title, cli_text.table(("", "Method", "Mean rank"), lines, 2)]
    parts += [cli_text.wrapped(sentence) for sentence in said if sentence]
    if overall.left_out:
        words = f"Not on every data set: {', '.join(overall.left_out)}."
        parts.append(cli_text.wrapped(words, "", "  "))
    return "\n".join(parts)


def _value_and_span(item: Standing, metric: str) -> tuple[str, str]:
    found = item.validated.get(metric)
    if found is None:
        return "", ""
    return (
        cli_text.number(found.value, metric),
        cli_text.span(found.low, found.high, metric),
    )


def _null(item: Standing) -> str:
    found = item.validated.get("ece")
    if found is None:
        return ""
    return cli_text.span(found.null_low, found.null_high, "ece")


def _signed(value: float, metric: str) -> str:
    return cli_text.number(value, metric, signed=True)


def _level(found: Sequence[Standing]) -> str:
    return f"{100 * found[0].behind.level:g} % interval"
