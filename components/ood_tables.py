"""Out-of-distribution scores as tables: numbers by score and set, tests, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from components import display, tables
from components.ood import score_label
from core.ood import INSIDE, Scored, SetsEvaluation
from core.uncertainty import Estimate

__all__ = [
    "MEASURES",
    "MEASURE_WORDS",
    "SCORE",
    "differences_frame",
    "differences_table",
    "evaluation_table",
    "has_below_chance",
    "in_order",
    "is_marked",
    "numbers_frame",
    "rates_frame",
    "rates_table",
    "rows_table",
    "sets_frame",
]

SCORE = "Score"
DASH = "\N{EN DASH}"
MEASURES = {
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "aupr_out": "AUPR-out",
    "aupr_in": "AUPR-in",
    "fpr95_ood_positive": "FPR95, OOD positive",
    "detection_accuracy": "Accuracy",
}
MEASURE_WORDS = {
    "auroc": "Chance that an OOD row has the larger score; 0.5 is a coin.",
    "fpr95": "Share of OOD rows accepted where 95 % of in-distribution rows are: the "
    "convention of the papers, in-distribution positive. Smaller is better.",
    "aupr_out": "Average precision of finding OOD rows. A useless score has the share "
    "of OOD rows, in brackets.",
    "aupr_in": "Average precision of finding in-distribution rows. A useless score has "
    "1 minus the share of OOD rows, in brackets.",
    "fpr95_ood_positive": "Share of in-distribution rows rejected where 95 % of OOD "
    "rows are: the convention of OpenOOD and pytorch-ood. Smaller is better.",
    "detection_accuracy": "Mean of the shares treated rightly at the best threshold, "
    "which is chosen on these rows: optimistic.",
}
_MEANS = {"near": "Near", "far": "Far", "all": "All"}


def in_order(results: Mapping[str, Scored]) -> list[str]:
    """Return the scores by their mean AUROC, the largest first; else as they are."""
    areas = {name: _mean_area(item) for name, item in results.items()}
    return sorted(areas, key=lambda name: -areas[name])


def _mean_area(item: Scored) -> float:
    found = item.evaluation
    if found is None or not found.sets:
        return 0.0
    values = [own.auroc.value for own in found.sets.values()]
    return sum(values) / len(values)


def has_below_chance(results: Mapping[str, Scored]) -> bool:
    """Whether some AUROC is under 0.5."""
    return any(
        own.is_below_chance
        for item in results.values()
        if item.evaluation is not None
        for own in item.evaluation.sets.values()
    )


def sets_frame(results: Mapping[str, Scored], measure: str) -> pd.DataFrame:
    """Return one number of every score on every set, means first, as Markdown."""
    lines = []
    for name in in_order(results):
        item = results[name].evaluation
        if item is None:
            continue
        line = {SCORE: _name(name) + _mark(results[name])}
        for group, members in item.members.items():
            title = f"{_MEANS.get(group, group)} ({len(members)})"
            line[f"Mean {title}"] = _cell(measure, item.means[group][measure])
        for of, own in item.sets.items():
            share = ""
            if measure.startswith("aupr"):
                p = own.prevalence if measure == "aupr_out" else 1 - own.prevalence
                share = f", {p:.0%}"
            line[f"{_name_of(of)} ({own.n_ood:,}{share})"] = _cell(
                measure, own.estimates[measure]
            )
        lines.append(line)
    return pd.DataFrame(lines)


def numbers_frame(results: Mapping[str, Scored], of: str) -> pd.DataFrame:
    """Return every number of every score on one set, or mean of sets, as Markdown."""
    lines = []
    for name in in_order(results):
        item = results[name].evaluation
        if item is None:
            continue
        numbers = _numbers(item, of)
        line = {SCORE: _name(name) + _mark(results[name])}
        line |= {MEASURES[key]: _cell(key, numbers[key]) for key in MEASURES}
        lines.append(line)
    return pd.DataFrame(lines)


def _numbers(item: SetsEvaluation, of: str) -> Mapping[str, Estimate]:
    return item.sets[of].estimates if of in item.sets else item.means[of]


def evaluation_table(results: Mapping[str, Scored], only: str = "") -> pd.DataFrame:
    """Return every number in full: a line for each score, set and number.

    Parameters
    ----------
    results : mapping of str to Scored
    only : str, default=""
        Name of one set, or of one mean.
    """
    lines = []
    for name, scored in results.items():
        item = scored.evaluation
        if item is None:
            continue
        for of, own in item.sets.items():
            if only not in ("", of):
                continue
            for key, number in own.estimates.items():
                more: dict[str, float] = {"n_id": own.n_id, "n_ood": own.n_ood}
                more |= {"prevalence": own.prevalence}
                lines.append(_line(name, of, key, number) | more)
        for group, numbers in item.means.items():
            if only not in ("", group):
                continue
            for key, number in numbers.items():
                lines.append(_line(name, f"mean of {group}", key, number))
    return pd.DataFrame(lines)


def _line(name: str, of: str, key: str, number: Estimate) -> dict[str, Any]:
    return {
        "score": name,
        "set": of,
        "number": key,
        "value": number.value,
        "low": number.low,
        "high": number.high,
        "level": number.level,
        "n": number.n,
        "rows": number.rows,
        "method": number.method,
    }


# --------------------------------------------------------------------- differences


def differences_frame(
    found: Mapping[str, Mapping[str, Estimate]], order: Sequence[str]
) -> pd.DataFrame:
    """Return how much each AUROC exceeds that of the baseline, as Markdown."""
    lines = []
    for name in order:
        if name in found:
            line = {SCORE: _name(name)}
            line |= {_name_of(of): _difference(i) for of, i in found[name].items()}
            lines.append(line)
    return pd.DataFrame(lines)


def differences_table(
    found: Mapping[str, Mapping[str, Estimate]], baseline: str
) -> pd.DataFrame:
    """Return the paired differences in full."""
    return pd.DataFrame(
        [
            _line(name, of, "auroc_difference", item)
            | {"baseline": baseline, "p_value": item.p_value}
            for name, sets in found.items()
            for of, item in sets.items()
        ]
    )


def _difference(item: Estimate) -> str:
    value = f"{item.value:+.3f}".replace("-", "\N{MINUS SIGN}")
    if item.low is None or item.high is None:
        return value
    if not item.low <= 0 <= item.high:
        value = f":{'green' if item.value > 0 else 'orange'}[{value}]"
    span = f"{item.low:+.3f} to {item.high:+.3f}".replace("-", "\N{MINUS SIGN}")
    return _small(value, span, tables.format_p_value(item.p_value))


# ------------------------------------------------------------------ rates and rows


def rates_frame(item: Scored) -> pd.DataFrame:
    """Return which share of each set the threshold accepts, as Markdown."""
    return pd.DataFrame(
        [
            {
                "Set": "In-distribution test rows" if of == INSIDE else _name_of(of),
                "Accepted, %": _percent(rate),
                "Rows": f"{rate.n:,}",
            }
            for of, rate in item.rates.items()
        ]
    )


def rates_table(results: Mapping[str, Scored]) -> pd.DataFrame:
    """Return threshold, promise and accepted shares of every score in full."""
    lines = []
    for name, item in results.items():
        own = item.threshold
        lines.append(
            _line(name, "threshold rows", "accepted", own.acceptance)
            | {"threshold": own.value, "rule": own.rule, "target": own.target}
        )
        lines += [
            _line(name, of, "accepted", rate) | {"threshold": own.value}
            for of, rate in item.rates.items()
        ]
    return pd.DataFrame(lines)


def rows_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows to look at with headers as users read them."""
    names = {
        "set": "Set",
        "file_row": "Row",
        "id": "Id",
        "prediction": "Prediction",
        "confidence": "Confidence",
        "score": "Score",
        "share_above": "Known rows above",
        "accepted": "Accepted",
    }
    order = [name for name in names if name in frame.columns]
    return frame[order].rename(columns=names)


# ------------------------------------------------------------------------- private


def is_marked(item: Scored) -> bool:
    """Whether there is a warning about a score: the rows break what it assumes, say."""
    return any(note.severity == "warning" for note in item.notes)


def _mark(item: Scored) -> str:
    return " :orange[:material/warning:]" if is_marked(item) else ""


def _name(method: str) -> str:
    return f"**{_name_of(score_label(method))}**"


def _name_of(text: str) -> str:
    return display.escape_markdown(text)


def _cell(measure: str, item: Estimate) -> str:
    value = DASH if item.value != item.value else f"{item.value:.3f}"
    if measure == "auroc" and item.value < 0.5:
        value = f":orange[{value}]"
    if item.low is None or item.high is None:
        return value
    return _small(value, f"{item.low:.3f} to {item.high:.3f}")


def _percent(item: Estimate) -> str:
    value = DASH if item.value != item.value else f"{100 * item.value:.1f}"
    if item.low is None or item.high is None:
        return value
    return _small(value, f"{100 * item.low:.1f} to {100 * item.high:.1f}")


def _small(value: str, *lines: str) -> str:
    # Two spaces before a line end break the line in Markdown.
    lines = tuple(line.replace(" to ", "\u00a0to\u00a0") for line in lines)
    return "  \n".join([value, *(f":small[:gray[{line}]]" for line in lines if line)])
