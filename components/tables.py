"""Tables of estimates: formatted for the page, and plain for a download."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import pandas as pd

from core.metrics import METRICS
from core.uncertainty import Estimate

__all__ = [
    "MEASURE",
    "ORDER",
    "before_after_frame",
    "change_cell",
    "count_of",
    "described_frame",
    "estimates_frame",
    "format_interval",
    "format_null",
    "format_p_value",
    "format_span",
    "format_value",
    "in_order",
    "metric_label",
    "metrics_frame",
    "rows_of",
    "single_frame",
    "small_print",
    "value_cell",
]

ORDER = ("gap", "nll", "brier", "ece", "l2", "accuracy", "auroc", "aurc")
"""The headline first; the plug-in distance after it, with its null range."""

_DISTANCES = {
    "rmsce",
    "mce",
    "ace",
    "ks",
    "classwise-ece",
    "smooth-ece",
    "smooth-ece-relplot",
}
_IN_POINTS = {"gap", "ece", "accuracy"} | _DISTANCES
_DIGITS = {"l2": 4, "sharpness": 4}
_SMALL = {"classwise-ece", "classwise-l2"}
"""Means over classes, the smaller the more there are: shown by significant digits."""
_LABELS = {
    "gap": "Gap, points",
    "nll": "NLL, nats",
    "ece": "ECE, points",
    "l2": "Squared error, debiased",
    "accuracy": "Accuracy, %",
    "auroc": "AUROC of correctness",
    "aurc": "AURC",
}
_NO_INTERVAL = {"ece"}
_MOST_MORE = 4  # digits added to an end that would look like 0
_NOISE = 1e-9  # an end that is 0 but for rounding
MEASURE = "Measure"


def count_of(number: int, noun: str, plural: str = "") -> str:
    """Return "1 row" or "2,394 rows"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def rows_of(number: int, kind: str) -> str:
    """Return "2,394 rows", or "1,194 test rows" where they are not all."""
    return count_of(number, "row" if kind == "all" else f"{kind} row")


def metric_label(metric: str, n_classes: int = 0) -> str:
    """Return the name of a metric with its unit, and the form of the Brier score."""
    if metric == "brier":
        if n_classes == 2:
            return "Brier score, 0-1 form"
        return "Brier score, sum form" if n_classes else "Brier score"
    if metric in _DISTANCES:
        return f"{METRICS[metric].label}, points"
    return _LABELS.get(metric, METRICS[metric].label)


def format_value(
    metric: str, value: float | None, *, signed: bool = False, more_digits: int = 0
) -> str:
    """Return a value with as many digits as its metric deserves."""
    if value is None or value != value:
        return "\N{EN DASH}"
    digits = _DIGITS.get(metric, 4 if metric.startswith("brier-") else 3)
    if metric in _IN_POINTS:
        value, digits = 100 * value, 1
    digits += more_digits
    if metric in _SMALL:
        return f"{value:#.3g}".removesuffix(".").replace("-", "\N{MINUS SIGN}")
    value = round(value, digits) + 0.0
    sign = "+" if (signed or metric == "gap") and value > 0 else ""
    return f"{sign}{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def format_interval(metric: str, item: Estimate, *, signed: bool = False) -> str:
    """Return "low to high", or an empty string where no interval is valid."""
    return format_span(metric, item.low, item.high, signed=signed)


def format_span(
    metric: str, low: float | None, high: float | None, *, signed: bool = False
) -> str:
    """Return "low to high", with digits enough that no end looks like 0 but is not."""
    if low is None or high is None:
        return ""
    said = ["", ""]
    for more in range(_MOST_MORE + 1):
        said = [
            format_value(metric, end, signed=signed, more_digits=more)
            for end in (low, high)
        ]
        ends = zip((low, high), said, strict=True)
        if all(abs(end) < _NOISE or re.search("[1-9]", text) for end, text in ends):
            break
    return " to ".join(said)


def format_p_value(p_value: float | None) -> str:
    """Return "p = 0.03" or "p < 0.001"."""
    if p_value is None:
        return ""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def before_after_frame(
    before: Mapping[str, Estimate],
    after: Mapping[str, Estimate],
    change: Mapping[str, Estimate],
    n_classes: int,
    *,
    names: tuple[str, str] = ("Before", "After"),
) -> pd.DataFrame:
    """Return metrics before and after with the paired change, as cells of Markdown."""
    lines = [
        {
            MEASURE: metric_label(metric, n_classes),
            names[0]: _cell(metric, before[metric]),
            names[1]: _cell(metric, after.get(metric)),
            "Change": _change_cell(
                metric, change.get(metric), before[metric], after.get(metric)
            ),
        }
        for metric in in_order(before)
    ]
    return pd.DataFrame(lines)


def single_frame(
    found: Mapping[str, Estimate], n_classes: int, *, name: str = "As it is"
) -> pd.DataFrame:
    """Return metrics of one set of scores, as cells of Markdown."""
    lines = [
        {
            MEASURE: metric_label(metric, n_classes),
            name: _cell(metric, found[metric]),
        }
        for metric in in_order(found)
    ]
    return pd.DataFrame(lines)


def estimates_frame(columns: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """Return every estimate in full: one line per set of scores and metric.

    Parameters
    ----------
    columns : mapping of str to mapping of str to Estimate
        What the estimates are of ("before", "after", "change") -> metric -> Estimate.
    """
    lines = [
        {
            "of": name,
            "metric": metric,
            "value": item.value,
            "low": item.low,
            "high": item.high,
            "level": item.level,
            "null_low": item.null_low,
            "null_high": item.null_high,
            "p_value": item.p_value,
            "n": item.n,
            "rows": item.rows,
            "method": item.method,
        }
        for name, found in columns.items()
        for metric, item in found.items()
    ]
    return pd.DataFrame(lines)


def format_null(metric: str, item: Estimate) -> str:
    """Return "low to high" of a calibrated model, or an empty string."""
    return format_span(metric, item.null_low, item.null_high)


def metrics_frame(found: Mapping[str, Estimate], n_classes: int) -> pd.DataFrame:
    """Return metrics with what they are, and interval or null range with p-value.

    The first line of a metric's docstring stands under its name; cells are Markdown.
    """
    return pd.DataFrame(
        [
            {
                MEASURE: _with_small(
                    metric_label(metric, n_classes), METRICS[metric].summary
                ),
                "Value": format_value(metric, item.value),
                "Interval or null range": _range_cell(metric, item),
            }
            for metric, item in found.items()
        ]
    )


def _range_cell(metric: str, item: Estimate) -> str:
    null = format_null(metric, item)
    parts = [
        format_interval(metric, item),
        f"null {null}" if null else "",
        format_p_value(item.p_value),
    ]
    return "  \n".join(part for part in parts if part) or "\N{EN DASH}"


def described_frame(columns: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """Return every estimate in full, with name, meaning, formula and source."""
    frame = estimates_frame(columns)
    known = [METRICS[metric] for metric in frame["metric"]]
    return frame.assign(
        label=[method.label for method in known],
        meaning=[method.summary for method in known],
        formula=[method.formula for method in known],
        reference=[method.reference for method in known],
    )


def value_cell(metric: str, item: Estimate | None) -> str:
    """Return a value with its interval or null range under it, as Markdown."""
    return _cell(metric, item)


def small_print(metric: str, item: Estimate) -> str:
    """Return what stands under a value: its interval, or null range and p-value."""
    return _small(metric, item).replace("  \n", " \u00b7 ")


def change_cell(
    metric: str,
    item: Estimate | None,
    before: Estimate,
    after: Estimate | None,
    *,
    adjusted_p: float | None = None,
) -> str:
    """Return a paired change, coloured where its interval excludes 0, as Markdown.

    With a p-value that was adjusted for the number of changes, that one decides.
    """
    return _change_cell(metric, item, before, after, adjusted_p)


def in_order(found: Collection[str]) -> Iterable[str]:
    """Return metrics in the order of the page: the headline first."""
    known = [metric for metric in ORDER if metric in found]
    return [*known, *(metric for metric in found if metric not in ORDER)]


def _cell(metric: str, item: Estimate | None) -> str:
    if item is None:
        return "\N{EN DASH}"
    return _with_small(format_value(metric, item.value), _small(metric, item))


def _small(metric: str, item: Estimate) -> str:
    null = format_null(metric, item)
    if null:
        return f"null {null}  \n{format_p_value(item.p_value)}"
    return format_interval(metric, item) or format_p_value(item.p_value)


def _change_cell(
    metric: str,
    item: Estimate | None,
    before: Estimate,
    after: Estimate | None,
    adjusted_p: float | None = None,
) -> str:
    if item is None:
        return "\N{EN DASH}"
    value = format_value(metric, item.value, signed=True)
    if metric in _NO_INTERVAL:
        return value
    color = _verdict(metric, item, before, after)
    small = format_interval(metric, item, signed=True)
    if adjusted_p is not None and adjusted_p == adjusted_p:
        color = color if adjusted_p <= 1 - item.level + 1e-12 else ""
        small += f"  \n{format_p_value(adjusted_p)}"
    return _with_small(f":{color}[{value}]" if color else value, small)


def _verdict(
    metric: str, item: Estimate, before: Estimate, after: Estimate | None
) -> str:
    """Return the colour of a change whose interval excludes 0."""
    if item.low is None or item.high is None or item.low <= 0 <= item.high:
        return ""
    direction = METRICS[metric].traits["direction"]
    if direction == "zero":
        is_better = after is not None and abs(after.value) < abs(before.value)
        if is_better and after is not None and _is_overshot(before, after):
            return ""
    else:
        is_better = (item.value < 0) == (direction == "lower")
    return "green" if is_better else "orange"


def _is_overshot(before: Estimate, after: Estimate) -> bool:
    """Whether what was removed now has the other sign, beyond chance."""
    if after.low is None or after.high is None or after.low <= 0 <= after.high:
        return False
    return before.value * after.value < 0


def _with_small(value: str, small: str) -> str:
    # Two spaces before a line end break the line in Markdown.
    lines = (f":small[:gray[{line}]]" for line in small.split("  \n") if line)
    return "  \n".join([value, *lines])
