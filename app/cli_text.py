"""Results as plain text for a terminal: aligned columns, nothing computed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.messages import DataError, FitError, Note

if TYPE_CHECKING:
    from pathlib import Path

    from core.analysis import Analysis, ViewResult
    from core.export import Verification
    from core.findings import Findings
    from core.fitting import Fitted
    from core.loading import Schema
    from core.registry import Method
    from core.uncertainty import Estimate

__all__ = [
    "WIDTH",
    "calibration_text",
    "columns_text",
    "error_text",
    "estimates_table",
    "evaluation_text",
    "files_text",
    "findings_text",
    "methods_text",
    "notes_text",
    "number",
    "p_value",
    "rows_words",
    "span",
    "table",
    "understood",
    "wrapped",
]

WIDTH = 96
ADVICE_WORDS = {"when": "Use it", "not_when": "Not", "cost": "Cost"}

_VIEWS = {
    "top-label": "Top label: is the predicted class right as often as its probability "
    "says?",
    "positive-class": "Positive class {positive}: does it come true as often as its "
    "probability says?",
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return aligned columns: the first `left` to the left, the others to the right."""
    lines = [[_clean(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    made = []
    for line in lines:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        made.append("  ".join(cells).rstrip())
    return "\n".join(made)


def wrapped(text: str, first: str = "", indent: str = "") -> str:
    """Return text broken into lines of at most `WIDTH` characters."""
    return textwrap.fill(
        _clean(" ".join(text.split())),
        WIDTH,
        initial_indent=first,
        subsequent_indent=indent or " " * len(first),
        break_on_hyphens=False,
        break_long_words=False,
    )


def understood(schema: Schema, analysis: Analysis) -> str:
    """Return the line that says how the file was understood and divided."""
    split = analysis.overview.split
    n_left_out = len(analysis.study.evaluation.left_out)
    division = "no split" if split is None else split.sentence
    rows = "row" if n_left_out == 1 else "rows"
    return f"{schema.summary()}, {division}, {n_left_out:,} {rows} left out"


def evaluation_text(schema: Schema, analysis: Analysis, bold: Any = str) -> str:
    """Return what `evaluate` prints.

    Parameters
    ----------
    schema : Schema
        What was understood of the file.
    analysis : Analysis
    bold : callable, default=str
        Makes text stand out where the terminal can.
    """
    overview = analysis.overview
    parts = [
        wrapped(f"{schema.name}: {understood(schema, analysis)}"),
        bold(overview.verdict.headline) + "\n" + wrapped(overview.verdict.sentence),
    ]
    positive = _positive_class(analysis)
    for view, result in overview.views.items():
        heading = _heading("As they are", view, result, positive, len(overview.views))
        parts.append(
            heading
            + "\n"
            + estimates_table(result.estimates, len(analysis.study.evaluation.classes))
        )
    parts += _comparison_parts(analysis)
    return "\n\n".join((*parts, *_closing_parts(analysis, bold)))


def calibration_text(schema: Schema, analysis: Analysis, bold: Any = str) -> str:
    """Return what `calibrate` prints of the analysis; as `evaluation_text`."""
    parts = [
        wrapped(f"{schema.name}: {understood(schema, analysis)}"),
        *_comparison_parts(analysis),
        *_closing_parts(analysis, bold),
    ]
    return "\n\n".join(parts)


def files_text(
    folder: Path, names: Iterable[str], found: Mapping[str, Verification]
) -> str:
    """Return what was written, and how it was verified."""
    lines = [f"Written to {folder}: {', '.join(names)}"]
    for name, item in found.items():
        said = item.sentence
        if name.endswith(".csv"):
            said = f"Read back: the largest difference is {item.max_difference:.1e}."
        if item.ok or not item.is_run:
            lines.append(wrapped(f"{name}: {said}", indent="  "))
    return "\n".join(lines)


def findings_text(found: Findings) -> str:
    """Return the worst class, the worst slice and rows to review, a line each."""
    pairs = (
        ("Worst predicted class", found.worst_class, found.class_reason),
        ("Worst slice", found.worst_slice, found.slice_reason),
    )
    lines = [
        wrapped(reason if item is None else item.sentence, f"{title}: ", "  ")
        for title, item, reason in pairs
    ]
    first = ", ".join(f"{row:,}" for row in found.review["file_row"].head(10))
    words = f"{found.n_wrong:,} wrong rows"
    if first:
        words += f"; the most surprising are rows {first} of the file"
    return "\n".join([*lines, wrapped(f"{words}.", "Rows to review: ", "  ")])


def notes_text(notes: Iterable[Note]) -> str:
    """Return the notes as a list, each text once."""
    unique = {note.text: note for note in notes}
    return "\n".join(
        wrapped(note.text, f"{note.severity.capitalize()}: ", "  ")
        for note in unique.values()
    )


def error_text(error: DataError | FitError, flags: Sequence[str]) -> str:
    """Return what is wrong, where, how to fix it, and the flags that would let it in.

    Parameters
    ----------
    error : DataError or FitError
    flags : sequence of str
        The possible answers, as flags with what they mean.
    """
    lines = [wrapped(error.what, "Error: ", "  ")]
    if error.where:
        lines.append(wrapped(error.where, "  Where: ", "    "))
    first, *code = (error.how_to_fix or "-").splitlines()
    lines.append(wrapped(first, "  How to fix: ", "    "))
    lines += [f"    {line}" for line in code]  # lines to be copied as they are
    lines += [wrapped(f"Or pass {flag}", "    ") for flag in flags]
    return "\n".join(lines)


def columns_text(schema: Schema) -> str:
    """Return one line per column: role, evidence, what else it could be."""
    shown = _folded(schema)
    rows = [
        (
            _cut(item.name, 30),
            item.role,
            _cut(item.evidence, 44),
            _cut(", ".join(item.alternatives[:3]), 40)
            + (", ..." if item.alternatives[3:] else ""),
        )
        for item in shown
    ]
    text = table(("Column", "Taken for", "Because", "Could be"), rows, left=4)
    hidden = len(schema.columns) - len(shown)
    return text + (f"\nand {hidden:,} more columns of scores" if hidden else "")


def methods_text(families: Mapping[str, Iterable[Method]]) -> str:
    """Return a table per family: id, label, tier, and below it summary and source."""
    parts = []
    for title, members in families.items():
        lines = [title]
        shown = list(members)
        width = max((len(item.id) for item in shown), default=0) + 2
        for item in shown:
            also = f" (also: {', '.join(item.aliases)})" if item.aliases else ""
            lines.append(f"  {item.id:<{width}}{item.label:<36}{item.tier}")
            lines.append(wrapped(item.summary + also, " " * 16))
            lines += [
                wrapped(f"{ADVICE_WORDS[name]}: {text}", " " * 16, " " * 18)
                for name, text in item.advice.items()
            ]
            if item.reference != "-":
                lines.append(wrapped(item.reference, " " * 16))
            assumes = getattr(item, "assumes", "")
            if assumes:
                needs = (
                    ", ".join(sorted(getattr(item, "requires", ()))) or "any of them"
                )
                said = f"Needs {needs}. {assumes}"
                lines.append(wrapped(said, " " * 16))
            lines += [wrapped(text, " " * 16, " " * 18) for text in _params(item)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _params(method: Method) -> list[str]:
    found = []
    for item in method.params:
        limits = ", ".join(item.choices)
        if item.minimum is not None and item.maximum is not None:
            limits = f"{item.minimum:g} to {item.maximum:g}"
        limits = f" ({limits})" if limits else ""
        found.append(f"{item.name} = {item.default}{limits}: {item.help}")
    return found


def _folded(schema: Schema) -> list[Any]:
    """Return the columns, with all but three of many equal scores left out."""
    shown: list[Any] = []
    scores = 0
    for item in schema.columns:
        scores += item.role == "score"
        if item.role != "score" or scores <= 3 or len(schema.columns) <= 30:
            shown.append(item)
    return shown


def _clean(text: str) -> str:
    """Return text in which nothing from a file can steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 3] + "..."


def _positive_class(analysis: Analysis) -> str:
    classes = analysis.study.evaluation.classes
    chosen = analysis.settings.positive_class
    if chosen is None and len(classes) > 1:
        chosen = classes[1]
    return f"`{chosen}`"


def _heading(
    what: str, view: str, result: ViewResult, positive: str, n_views: int
) -> str:
    found = next(iter(result.estimates.values()))
    title = wrapped(f"{what}, {found.n:,} {rows_words(found)}", indent="  ")
    if n_views == 1:
        return title
    return f"{title}\n{_VIEWS[view].format(positive=positive)}"


def rows_words(found: Estimate) -> str:
    """Return "labelled rows", or which of them a number is of."""
    if found.rows == "all":
        return "labelled rows"
    return f"{found.rows} rows"


def estimates_table(estimates: Mapping[str, Estimate], n_classes: int) -> str:
    """Return a table of metrics, each with its interval or null range."""
    level = _level(estimates)
    header = ("Metric", "Value", level, "If calibrated", "p", "n", "Rows")
    rows = []
    for name in _ordered(estimates):
        found = estimates[name]
        rows.append(
            (
                _label(name, n_classes),
                number(found.value, name),
                span(found.low, found.high, name),
                span(found.null_low, found.null_high, name),
                p_value(found.p_value),
                f"{found.n:,}",
                found.rows,
            )
        )
    return table(header, rows)


def _ordered(estimates: Mapping[str, Estimate]) -> list[str]:
    """Return the metrics in the order of the page."""
    from components.tables import ORDER

    known = [name for name in ORDER if name in estimates]
    return known + [name for name in estimates if name not in known]


def _level(estimates: Mapping[str, Estimate]) -> str:
    level = next(iter(estimates.values())).level
    return f"{100 * level:g} % interval"


def _comparison_parts(analysis: Analysis) -> list[str]:
    """Return the ranking, and a table of changes for each calibrator and view."""
    comparison = analysis.comparison
    if comparison is None:
        return []
    positive = _positive_class(analysis)
    n_classes = len(analysis.study.evaluation.classes)
    parts = [_ranking(analysis)]
    for name, item in analysis.fitted.items():
        title = _fitted_title(item, analysis)
        for view, results in comparison.views.items():
            heading = _heading(
                title, view, results[name], positive, len(comparison.views)
            )
            before, after = results["uncalibrated"], results[name]
            changes = comparison.changes[view][name]
            body = _changes_table(before, after, changes, n_classes)
            parts.append(f"{heading}\n{body}")
        if item.refits:
            parts.append(_refits_words(item))
    return parts


def _closing_parts(analysis: Analysis, bold: Any) -> list[str]:
    """Return the sentence about the repair, the notes, and how numbers were made."""
    parts = []
    if analysis.repair:
        lines = [bold(wrapped(analysis.repair))]
        if analysis.remains:
            lines.append(wrapped(analysis.remains))
        parts.append("\n".join(lines))
    notes = notes_text((*analysis.notes, *_estimate_notes(analysis)))
    if notes:
        parts.append(notes)
    if analysis.overview.views:
        parts.append(_provenance(analysis))
    return parts


def _fitted_title(item: Fitted, analysis: Analysis) -> str:
    from core.calibrators import CALIBRATORS

    shown = []
    for key, value in item.calibrator.parameters().items():
        if isinstance(value, (int, float)):
            shown.append(f"{key} {value:.4g}")
    interval = getattr(item.calibrator, "interval", None)
    if interval is not None and shown:
        low, high = interval(analysis.settings.level)
        if low == low and high == high:
            level = f"{100 * analysis.settings.level:g} % interval"
            shown[0] += f", {level} {low:.4g} to {high:.4g}"
    title = f"After {CALIBRATORS[item.method].label}"
    return f"{title} ({'; '.join(shown)})" if shown else title


def _changes_table(
    before: ViewResult,
    after: ViewResult,
    changes: Mapping[str, Estimate],
    n_classes: int,
) -> str:
    header = (
        "Metric",
        "Before",
        "After",
        "If calibrated",
        "Change",
        _level(after.estimates),
    )
    rows = []
    for name in _ordered(after.estimates):
        found, change = after.estimates[name], changes.get(name)
        rows.append(
            (
                _label(name, n_classes),
                number(before.estimates[name].value, name),
                number(found.value, name),
                span(found.null_low, found.null_high, name),
                "" if change is None else number(change.value, name, signed=True),
                ""
                if change is None
                else span(change.low, change.high, name, signed=True),
            )
        )
    return table(header, rows)


def _ranking(analysis: Analysis) -> str:
    comparison = analysis.comparison
    assert comparison is not None  # noqa: S101 - the caller has looked
    rows = [
        (
            name,
            number(found.value, "nll"),
            span(found.low, found.high, "nll"),
            "best" if i == 0 else number(behind.value, "nll", signed=True),
            "" if i == 0 else span(behind.low, behind.high, "nll", signed=True),
        )
        for i, (name, found, behind) in enumerate(comparison.ranking)
    ]
    interval = f"{100 * analysis.settings.level:g} % interval"
    header = ("Ranking", "Cross-validated NLL", interval, "Behind the best", interval)
    return table(header, rows)


def _refits_words(item: Fitted) -> str:
    ranges = item.refit_range
    return wrapped(
        f"Over {len(item.refits)} repetitions of the split: NLL "
        f"{span(*ranges['nll'], 'nll')}, signed gap "
        f"{span(*ranges['gap'], 'gap')} points."
    )


def _label(name: str, n_classes: int) -> str:
    from components.tables import metric_label

    return metric_label(name, n_classes)


def number(value: float | None, name: str, *, signed: bool = False) -> str:
    """Return a number as the page shows it, in characters that every terminal has."""
    from components.tables import format_value

    text = format_value(name, value, signed=signed)
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")


def span(
    low: float | None, high: float | None, name: str, *, signed: bool = False
) -> str:
    """Return an interval as `number` writes its ends; empty where there is none."""
    from components.tables import format_span

    text = format_span(name, low, high, signed=signed)
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")


def p_value(p: float | None) -> str:
    """Return a p-value; empty where there is none."""
    if p is None or p != p:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _estimate_notes(analysis: Analysis) -> list[Note]:
    """Return the notes beside numbers, with the view where there are two."""
    views = analysis.overview.views
    made = []
    for view, result in views.items():
        for found in result.estimates.values():
            for note in found.notes:
                text = f"{view}: {note.text}" if len(views) > 1 else note.text
                made.append(Note(note.code, note.severity, text))
    return made


def _provenance(analysis: Analysis) -> str:
    chosen = analysis.settings
    views = analysis.overview.views.values()
    parts = [f"{chosen.n_bins} bins ({chosen.strategy}), norm {chosen.norm}"]
    for found in (item for view in views for item in view.estimates.values()):
        parts += found.method.split("; ")
    known = dict.fromkeys(part for part in parts if part)
    known.pop(f"{chosen.n_bins} bins", None)
    return wrapped(f"How: {'; '.join(known)}.", indent="  ")
