"""Calibrators side by side: ranking, tables of numbers, the fitted temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components import contrasts, tables, theme
from core.analysis import UNCALIBRATED, Analysis, Comparison
from core.calibrators import CALIBRATORS, Calibrator, TemperatureScaling
from core.contrasts import refit_changes
from core.fitting import Fitted
from core.sweep import TemperatureSweep
from core.uncertainty import Estimate

__all__ = [
    "FittedTemperature",
    "comparison_frame",
    "fits_frame",
    "fits_table",
    "measured_frame",
    "method_label",
    "ranking_frame",
    "ranking_sentence",
    "refits_sentence",
    "sweep_alt",
    "sweep_figure",
    "sweep_table",
    "tried_frame",
]

DASH = "\N{EN DASH}"
SWEEP_HEIGHT = 260
_FEW_NUMBERS = 3  # of one name that are written out
SAME = "No detectable difference"
_SHORT = {
    "gap": "Gap, points",
    "nll": "NLL, nats",
    "brier": "Brier score",
    "ece": "ECE, points",
    "l2": "Squared error",
    "accuracy": "Accuracy, %",
    "auroc": "AUROC",
}


@dataclass(frozen=True, slots=True, eq=False)
class FittedTemperature:
    """A fitted temperature with what is drawn around it.

    Parameters
    ----------
    value, low, high : float
        T and its interval; the ends are NaN at a bound.
    level : float
        Level of the interval.
    folds : tuple of float
        T of each round of cross-fitting.
    """

    value: float
    low: float
    high: float
    level: float
    folds: tuple[float, ...]

    @classmethod
    def of(cls, fitted: Fitted, level: float) -> FittedTemperature:
        """Return the temperature of what was fitted."""
        calibrator = fitted.calibrator
        assert isinstance(calibrator, TemperatureScaling)  # noqa: S101 - the registry
        low, high = calibrator.interval(level)
        folds = tuple(float(item["temperature"]) for item in fitted.folds)
        return cls(calibrator.temperature_, low, high, level, folds)


def method_label(method: str) -> str:
    """Return how the page names a calibrator."""
    return CALIBRATORS[method].label


def ranking_frame(analysis: Analysis) -> pd.DataFrame:
    """Return the ranking by cross-validated NLL, as cells of Markdown."""
    lines = []
    for place, (method, nll, behind) in enumerate(_compared(analysis).ranking, 1):
        label = method_label(method)
        lines.append(
            {
                "": str(place),
                "Calibrator": f"**{label}**" if place == 1 else label,
                "NLL, cross-validated": _cell("nll", nll),
                "Behind the best": _behind_cell(behind, is_best=place == 1),
                "Brier score": _validated_cell(analysis, method, "brier"),
                "ECE, points": _validated_cell(analysis, method, "ece"),
                "Parameters": _n_parameters(analysis, method),
                "Predictions": contrasts.flips_cell(analysis, method),
            }
        )
    return pd.DataFrame(lines)


def ranking_sentence(analysis: Analysis) -> str:
    """Return what the ranking says, and what it does not."""
    ranking = _compared(analysis).ranking
    split = analysis.overview.split
    best = ranking[0][0]
    ties = [method for method, _, behind in ranking[1:] if _is_tied(behind)]
    text = f"{method_label(best)} has the lowest NLL"
    if ties:
        names = " and ".join(method_label(method) for method in ties)
        text += f"; no difference to {names} is detectable"
    text += ". "
    by_brier = _best_by_brier(analysis)
    if by_brier not in (best, *ties):
        text += f"By the Brier score {method_label(by_brier)} is first. "
    if split is not None and split.kind == "cross-fit":
        return text + (
            f"Ranked on the same cross-fitted rows that are reported: the best of "
            f"{len(ranking)} looks slightly better than it is."
        )
    return text + (
        "Ranked by cross-validation inside the fit rows; the test rows had no say."
    )


def measured_frame(
    analysis: Analysis,
    view: str,
    methods: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> pd.DataFrame:
    """Return calibrators' numbers on the test rows, as cells of Markdown.

    Parameters
    ----------
    analysis : Analysis
    view : {"top-label", "positive-class"}
    methods, metrics : sequence of str, optional
        Ids of those that are wanted; all by default.
    """
    results = _compared(analysis).views[view]
    lines = [
        {"Calibrator": method_label(method)}
        | {
            _SHORT[metric]: _cell(metric, found)
            for metric, found in _shown(results[method].estimates).items()
            if not metrics or metric in metrics
        }
        for method in methods or _order(analysis)
    ]
    return pd.DataFrame(lines)


def fits_frame(analysis: Analysis, baseline: str = UNCALIBRATED) -> pd.DataFrame:
    """Return what was fitted and how much it varies over refits, as Markdown."""
    moved = refit_changes(_compared(analysis), baseline)
    split = analysis.overview.split
    n_fit = 0 if split is None else split.fit.size
    lines = []
    for method in _order(analysis):
        fitted = analysis.fitted.get(method)
        if fitted is None:
            continue
        nll, gap = _range_cells(fitted)
        lines.append(
            {
                "Calibrator": method_label(method),
                "Fit rows": f"{n_fit:,}",
                "Parameters": _n_parameters(analysis, method),
                "Fitted": _unbroken(fitted_words(fitted.calibrator)),
                "Fit time": contrasts.seconds_cell(fitted.seconds),
                "NLL over refits": _unbroken(nll),
                "Its change": contrasts.range_cell(moved.get(method)),
                "Gap over refits": _unbroken(gap),
                "Remarks": str(len(fitted.notes)) if fitted.notes else DASH,
            }
        )
    return pd.DataFrame(lines)


def fitted_words(calibrator: Calibrator) -> str:
    """Return the fitted numbers that are few: those that are one, or up to three.

    Parameters
    ----------
    calibrator : Calibrator
        Of one that chose another, the numbers of that one.
    """
    parts = []
    for name, value in calibrator.exported.parameters().items():
        values = value if isinstance(value, list) else [value]
        numbers = [item for item in values if isinstance(item, int | float)]
        if 0 < len(numbers) == len(values) <= _FEW_NUMBERS:
            shown = ", ".join(f"{number:.3g}" for number in numbers)
            parts.append(f"{name.replace('_', ' ')} {shown}")
    return "  \n".join(parts) or DASH


def fits_table(analysis: Analysis) -> pd.DataFrame:
    """Return the numbers of `fits_frame`, one line per calibrator."""
    frame = comparison_frame(analysis)
    names = ["method", "label", "n_fit_rows", "n_parameters", "fit_seconds"]
    names += ["keeps_predictions", "n_changed", "n_gained", "n_lost"]
    refits = [name for name in frame if name.startswith("refit_")]
    fitted = frame[frame["method"].isin(analysis.fitted)]
    return fitted[[*names, *refits, "notes"]].reset_index(drop=True)


def refits_sentence(analysis: Analysis) -> str:
    """Return how the variation over refits came about; empty where there is none."""
    split = analysis.overview.split
    n = max((len(item.refits) for item in analysis.fitted.values()), default=0)
    if not n or split is None:
        return ""
    how = "on fit rows drawn again with replacement"
    if split.kind in ("cross-fit", "holdout"):
        how = "on other random splits"
    return (
        f"Fewer than 5,000 fit rows: each calibrator was fitted {n} more times {how}. "
        "A difference smaller than these ranges may be luck."
    )


def tried_frame(
    columns: Mapping[str, Mapping[str, Estimate]],
    metrics: Sequence[str],
    n_classes: int,
) -> pd.DataFrame:
    """Return some metrics of several sets of scores side by side, as Markdown."""
    lines = [
        {tables.MEASURE: tables.metric_label(metric, n_classes)}
        | {name: _cell(metric, found.get(metric)) for name, found in columns.items()}
        for metric in metrics
    ]
    return pd.DataFrame(lines)


def comparison_frame(analysis: Analysis) -> pd.DataFrame:
    """Return the whole comparison for a download, one line per calibrator."""
    split = analysis.overview.split
    lines = []
    for place, (method, nll, behind) in enumerate(_compared(analysis).ranking, 1):
        fitted = analysis.fitted.get(method)
        line: dict[str, Any] = {
            "rank": place,
            "method": method,
            "label": method_label(method),
            **_columns("cv_nll", nll),
            **_columns("behind_best", behind),
        }
        for view, results in _compared(analysis).views.items():
            for metric, found in results[method].estimates.items():
                line |= _columns(f"{view}_{metric}", found)
            moved = _compared(analysis).changes[view].get(method, {})
            for metric, found in moved.items():
                line |= _columns(f"{view}_{metric}_change", found)
        line["rows"] = split.rows if split else ""
        line["n_fit_rows"] = split.fit.size if split and fitted else 0
        line["n_parameters"] = _n_parameters(analysis, method)
        validated = _compared(analysis).validated.get(method, {})
        for metric in ("brier", "ece"):
            if metric in validated:
                line |= _columns(f"cv_{metric}", validated[metric])
        line["fit_seconds"] = fitted.seconds if fitted else None
        line["keeps_predictions"] = not fitted or fitted.calibrator.keeps_predictions
        changed = contrasts.flips_of(analysis, method)
        for name in ("changed", "gained", "lost"):
            line[f"n_{name}"] = getattr(changed, name) if changed else 0
        ranges = fitted.refit_range if fitted else {}
        for name in ("nll", "gap"):
            ends = ranges.get(name, (None, None))
            line[f"refit_{name}_min"], line[f"refit_{name}_max"] = ends
        line["notes"] = " ".join(note.text for note in fitted.notes) if fitted else ""
        lines.append(line)
    return pd.DataFrame(lines)


def sweep_figure(
    sweep: TemperatureSweep, fitted: FittedTemperature, tried: float | None = None
) -> go.Figure:
    """Draw the NLL of the fit rows over the temperature, the fit and its interval.

    Parameters
    ----------
    sweep : TemperatureSweep
    fitted : FittedTemperature
    tried : float, optional
        A temperature set by hand.

    Returns
    -------
    plotly.graph_objects.Figure
        Its axes do not depend on `tried`.
    """
    low, high = float(sweep.nll.min()), float(sweep.nll.max())
    # Far from the optimum the loss grows without saying more.
    top = min(high, max(low + 3 * (_at(sweep, 1.0) - low), low * 1.6, low + 0.05))
    lines = [(fitted.value, {"color": theme.AFTER.color, "width": 1.5})]
    marks = [(fitted.value, "fitted", tried is None or tried <= fitted.value)]
    if tried is not None:
        dashed = {"color": theme.TRIED.color, "width": 2.5, "dash": theme.TRIED.dash}
        lines.append((tried, dashed))
        # Text stands away from the other line.
        marks.append((tried, "tried", tried > fitted.value))
    tall = {"xref": "x", "yref": "y domain", "y0": 0, "y1": 1}
    shapes: list[dict[str, Any]] = [
        {"type": "line", "x0": x, "x1": x, "line": line, **tall} for x, line in lines
    ]
    if fitted.low == fitted.low:
        interval = {
            "type": "rect",
            "x0": fitted.low,
            "x1": fitted.high,
            "fillcolor": theme.translucent(theme.AFTER.color, 0.18),
            "line": {"width": 0},
            "layer": "below",
        }
        shapes.insert(0, interval | tall)
    words = [
        {
            "x": float(np.log10(x)),
            "y": 1.0,
            "yref": "paper",
            "yanchor": "top",
            "xanchor": "left" if is_right else "right",
            "xshift": 6 if is_right else -6,
            "text": text,
            "showarrow": False,
            "font": {"color": theme.TEXT, "size": 13},
        }
        for x, text, is_right in marks
    ]
    span = np.log10(sweep.temperature[[0, -1]])
    # At once: lines added one by one take eight times as long, at every temperature.
    return go.Figure(
        list(_sweep_lines(sweep, fitted, low, top)),
        theme.layout(
            SWEEP_HEIGHT,
            margin={"l": 56, "r": 12, "t": 32, "b": 48},
            showlegend=False,
            shapes=shapes,
            annotations=words,
            xaxis=theme.axis(
                "Temperature T, logarithmic",
                type="log",
                range=[float(span[0]), float(span[1])],
                tickvals=_ticks(sweep),
            ),
            yaxis=theme.axis(
                "NLL of fit rows",
                range=[low - 0.14 * (top - low), top],
                nticks=5,
            ),
        ),
    )


def sweep_table(sweep: TemperatureSweep) -> pd.DataFrame:
    """Return the numbers of the curve."""
    return pd.DataFrame(
        {
            "temperature": sweep.temperature,
            "nll": sweep.nll,
            "n_rows": sweep.n_rows,
        }
    )


def sweep_alt(fitted: FittedTemperature) -> str:
    """Return one sentence about the curve, for those who cannot see it."""
    return (
        "Negative log likelihood of the fit rows over the temperature: lowest at "
        f"{fitted.value:.3g}, {fitted.level:.0%} interval {fitted.low:.3g} to "
        f"{fitted.high:.3g}."
    )


def _sweep_lines(
    sweep: TemperatureSweep, fitted: FittedTemperature, low: float, top: float
) -> Sequence[dict[str, Any]]:
    curve = {
        "type": "scatter",
        "x": sweep.temperature,
        "y": sweep.nll,
        "mode": "lines",
        "line": {"color": theme.AFTER.color, "width": 2.5},
        "name": "NLL of fit rows",
        "hovertemplate": "T = %{x:.3g}<br><b>%{y:.4f}</b> nats<extra></extra>",
    }
    if len(fitted.folds) < 2:
        return [curve]
    floor = np.full(len(fitted.folds), low - 0.08 * (top - low))
    folds = {
        "type": "scatter",
        "x": np.array(fitted.folds),
        "y": floor,
        "mode": "markers",
        "marker": {
            "color": theme.AFTER.color,
            "symbol": "line-ns",
            "size": 12,
            "line": {"color": theme.AFTER.color, "width": 2},
        },
        "name": "One fold",
        "hovertemplate": "One fold: T = %{x:.4g}<extra></extra>",
    }
    return [curve, folds]


def _ticks(sweep: TemperatureSweep) -> list[float]:
    """Return round temperatures within the curve."""
    start, stop = float(sweep.temperature[0]), float(sweep.temperature[-1])
    decades = range(int(np.floor(np.log10(start))), int(np.ceil(np.log10(stop))) + 1)
    round_ones = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
    return [value for value in round_ones if start <= value <= stop]


def _at(sweep: TemperatureSweep, temperature: float) -> float:
    return float(np.interp(np.log(temperature), np.log(sweep.temperature), sweep.nll))


def _compared(analysis: Analysis) -> Comparison:
    if analysis.comparison is None:
        msg = "nothing was compared"
        raise ValueError(msg)
    return analysis.comparison


def _order(analysis: Analysis) -> list[str]:
    """Return the calibrators in the order of the ranking."""
    return [method for method, _, _ in _compared(analysis).ranking]


def _shown(found: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {metric: found[metric] for metric in _SHORT if metric in found}


def _is_tied(behind: Estimate) -> bool:
    if behind.low is None or behind.high is None:
        return False
    return behind.low <= 0 <= behind.high


def _behind_cell(behind: Estimate, *, is_best: bool) -> str:
    if is_best:
        return DASH
    ends = tables.format_interval("nll", behind, signed=True)
    value = tables.format_value("nll", behind.value, signed=True)
    first = f":gray[{SAME}]" if _is_tied(behind) else value
    small = f"{value}, {ends}" if _is_tied(behind) else ends
    return _unbroken(f"{first}  \n:small[:gray[{small}]]" if ends else first)


def _cell(metric: str, item: Estimate | None) -> str:
    return _unbroken(tables.value_cell(metric, item))


def _unbroken(cell: str) -> str:
    """Keep each line of a cell in one piece: on phones the table scrolls instead."""
    return "  \n".join(part.replace(" ", "\u00a0") for part in cell.split("  \n"))


def _best_by_brier(analysis: Analysis) -> str:
    """Return who has the lowest cross-validated Brier score."""
    compared = _compared(analysis)
    known = {
        name: found["brier"].value
        for name, found in compared.validated.items()
        if "brier" in found and found["brier"].value == found["brier"].value
    }
    return min(known, key=lambda name: known[name], default=compared.ranking[0][0])


def _validated_cell(analysis: Analysis, method: str, metric: str) -> str:
    found = _compared(analysis).validated.get(method, {})
    return _cell(metric, found.get(metric))


def _n_parameters(analysis: Analysis, method: str) -> str:
    made = analysis.fitted.get(method)
    if made is not None:
        return f"{made.calibrator.n_fitted_:,}"
    return f"{CALIBRATORS[method].n_parameters(analysis.study.evaluation.n_classes):,}"


def _range_cells(fitted: Fitted) -> tuple[str, str]:
    """Return the ranges of NLL and gap over refits."""
    cells = {
        metric: " to ".join(tables.format_value(metric, end) for end in ends)
        for metric, ends in fitted.refit_range.items()
    }
    return cells.get("nll", DASH), cells.get("gap", DASH)


def _columns(name: str, item: Estimate) -> dict[str, Any]:
    found = {name: item.value, f"{name}_low": item.low, f"{name}_high": item.high}
    if item.null_low is not None:
        found |= {
            f"{name}_null_low": item.null_low,
            f"{name}_null_high": item.null_high,
            f"{name}_p": item.p_value,
        }
    return found
