"""Differences to a baseline, what arrived so far, and which predictions changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from components import tables
from core.analysis import UNCALIBRATED, Analysis
from core.calibrators import CALIBRATORS
from core.contrasts import Flips, contrasts, flips
from core.metrics import changes
from core.standings import Arrival
from core.uncertainty import Estimate

__all__ = [
    "arrivals_frame",
    "baseline_words",
    "contrasts_data",
    "contrasts_frame",
    "flips_cell",
    "flips_of",
    "range_cell",
    "seconds_cell",
]

DASH = "\N{EN DASH}"
SHOWN = {
    "nll": "NLL, nats",
    "brier": "Brier score",
    "accuracy": "Accuracy, %",
    "gap": "Gap, points",
    "ece": "ECE, points",
    "l2": "Squared error",
    "auroc": "AUROC",
}
"""Columns of the table of differences: what ranks first."""


def contrasts_frame(
    analysis: Analysis, view: str, baseline: str = UNCALIBRATED
) -> pd.DataFrame:
    """Return the paired differences to a baseline, as cells of Markdown.

    NLL, Brier score and accuracy carry Holm's p-value and are coloured by it; the
    others are coloured where their interval excludes 0.

    Parameters
    ----------
    analysis : Analysis
        With a comparison.
    view : {"top-label", "positive-class"}
    baseline : str, default="uncalibrated"
        Id of one of those compared.
    """
    compared = analysis.comparison
    assert compared is not None  # noqa: S101 - the page has looked
    tested = contrasts(compared, baseline, view=view)
    results = compared.views[view]
    before = results[baseline].estimates
    lines = []
    for method, moved in _moves(analysis, view, baseline).items():
        line = {"Calibrator": CALIBRATORS[method].label}
        for metric, title in SHOWN.items():
            if metric not in moved:
                continue
            one = tested.get(metric, {}).get(method)
            cell = tables.change_cell(
                metric,
                moved[metric],
                before[metric],
                results[method].estimates.get(metric),
                adjusted_p=None if one is None else one.adjusted_p,
            )
            line[title] = unbroken(cell)
        lines.append(line)
    return pd.DataFrame(lines)


def contrasts_data(analysis: Analysis, view: str, baseline: str) -> pd.DataFrame:
    """Return the numbers of `contrasts_frame`, with both p-values, a line each."""
    compared = analysis.comparison
    assert compared is not None  # noqa: S101 - the page has looked
    tested = contrasts(compared, baseline, view=view)
    moves = _moves(analysis, view, baseline)
    frame = tables.estimates_frame(moves)
    pairs = zip(frame["of"], frame["metric"], strict=True)
    known = [tested.get(metric, {}).get(name) for name, metric in pairs]
    frame["p_difference"] = [None if x is None else x.p_value for x in known]
    frame["p_holm"] = [None if x is None else x.adjusted_p for x in known]
    frame.insert(0, "baseline", baseline)
    return frame


def _moves(
    analysis: Analysis, view: str, baseline: str
) -> dict[str, Mapping[str, Estimate]]:
    """Return method -> metric -> difference to the baseline, best method first."""
    compared = analysis.comparison
    assert compared is not None  # noqa: S101 - the page has looked
    others = [name for name, *_ in compared.ranking if name != baseline]
    if baseline == UNCALIBRATED:
        return {name: compared.changes[view][name] for name in others}
    sample = compared.samples[view]
    return {name: changes(sample, baseline, name) for name in others}


def baseline_words(baseline: str) -> str:
    """Return how a sentence names the baseline."""
    if baseline == UNCALIBRATED:
        return "the scores as they are"
    return CALIBRATORS[baseline].label


def flips_of(analysis: Analysis, method: str) -> Flips | None:
    """Return how many test rows changed their predicted class; None if uncalibrated."""
    fitted, split = analysis.fitted.get(method), analysis.overview.split
    if fitted is None or split is None:
        return None
    return flips(analysis.overview.rows.take(split.test), fitted.rows)


def flips_cell(analysis: Analysis, method: str) -> str:
    """Return whether predictions were kept, or how many changed, as Markdown."""
    found = flips_of(analysis, method)
    fitted = analysis.fitted.get(method)
    if found is None or fitted is None or fitted.calibrator.keeps_predictions:
        return "kept"
    if not found.changed:
        return unbroken("none changed")
    small = f"{found.gained:,} became right, {found.lost:,} wrong"
    worse = ":orange" if found.lost > found.gained else ""
    first = f"{found.changed:,} changed"
    return unbroken(
        f"{worse}[{first}]  \n:small[:gray[{small}]]"
        if worse
        else f"{first}  \n:small[:gray[{small}]]"
    )


def seconds_cell(seconds: float | None) -> str:
    """Return a duration as people say it."""
    if seconds is None:
        return DASH
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2f} s"


def range_cell(ends: tuple[float, float] | None) -> str:
    """Return the range of a change of the NLL."""
    if ends is None:
        return DASH
    return unbroken(
        " to ".join(tables.format_value("nll", end, signed=True) for end in ends)
    )


def arrivals_frame(
    methods: Sequence[str], arrived: Mapping[str, Arrival | None]
) -> pd.DataFrame:
    """Return what is known while calibrators are being fitted, one line each.

    Parameters
    ----------
    methods : sequence of str
        Ids, in the order in which they are fitted.
    arrived : mapping of str to Arrival or None
        Of those that are through; None where a fit failed.
    """
    lines = []
    is_first = True
    for method in methods:
        nll, seconds = DASH, "waiting"
        if method in arrived:
            item = arrived[method]
            seconds = "could not be fitted"
            if item is not None:
                nll = tables.format_value("nll", item.nll)
                seconds = f"fitted in {seconds_cell(item.seconds)}"
        elif is_first:
            is_first, seconds = False, "being fitted"
        lines.append(
            {
                "Calibrator": CALIBRATORS[method].label,
                "NLL, cross-validated": nll,
                "": seconds,
            }
        )
    return pd.DataFrame(lines)


def unbroken(cell: str) -> str:
    """Keep each line of a cell in one piece: on phones the table scrolls instead."""
    return "  \n".join(part.replace(" ", "\u00a0") for part in cell.split("  \n"))
