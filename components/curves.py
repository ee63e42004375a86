"""Reliability curves without bins: a figure, a table, a sentence, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components import reliability, tables, theme
from components.theme import Style
from core.binning import BinStatistics
from core.metrics import CURVES, Curve
from core.uncertainty import Estimate

__all__ = [
    "curve_alt",
    "curve_figure",
    "curve_table",
    "parts_frame",
    "small_curve_figure",
]

_PLACES = (0.25, 0.5, 0.75, 0.95)  # confidences that the description speaks of
_RULES = {
    "brier": "Brier score of the confidence",
    "log": "Log loss of the confidence, nats",
}
_PARTS = {"mcb": "Miscalibration", "dsc": "Discrimination", "unc": "Uncertainty"}


def curve_figure(
    curve: Curve,
    kind: str,
    style: Style,
    label: str,
    *,
    bins: BinStatistics | None = None,
    x_title: str = "Confidence",
    y_title: str = "Accuracy",
    height: int = reliability.HEIGHT,
) -> go.Figure:
    """Draw a reliability curve over the band of calibrated models.

    Parameters
    ----------
    curve : Curve
    kind : str
        Id in `core.metrics.CURVES`.
    style : Style
        Of the scores, as on every other page.
    label : str
        Name of the scores in the legend.
    bins : BinStatistics, optional
        Whose counts are drawn underneath.
    x_title, y_title : str
        What is estimated.
    height : int
        In pixels.
    """
    title = theme.figure_text(f"{label}: {CURVES[kind].label}")
    line = {
        "type": "scatter",
        "x": curve.x,
        "y": curve.y,
        "mode": "lines" if curve.x.size > 1 else "markers",
        "name": title,
        "legendgroup": "curve",
        "line": {"color": style.color, "width": 2.5},
        "marker": {"color": style.color, "symbol": style.symbol, "size": 9},
        "customdata": np.column_stack([curve.low, curve.high]),
        "hovertemplate": (
            "<b>%{y:.1%}</b> came true<br>%{x:.1%} said<br>calibrated: "
            "%{customdata[0]:.1%} to %{customdata[1]:.1%}"
            f"<extra>{title}</extra>"
        ),
    }
    counts = None
    if bins is not None:
        own = {"curve": bins}, {"curve": style}, {"curve": label}
        counts = reliability.counts_of(*own)
    return reliability.diagram([_band(curve), line], counts, x_title, y_title, height)


def small_curve_figure(
    curve: Curve, kind: str, style: Style, name: str, height: int
) -> go.Figure:
    """Draw the small reliability curve of one class against the rest."""
    fig = curve_figure(curve, kind, style, name, height=height)
    reliability.shrink(fig)
    reliability.zoom(fig, float(max(curve.x[-1], curve.y.max())))
    return fig


def curve_table(curves: Mapping[str, Curve], kind: str) -> pd.DataFrame:
    """Return the points of curves and bands, a line each.

    Parameters
    ----------
    curves : mapping of str to Curve
        What they are of -> curve.
    kind : str
        Id in `core.metrics.CURVES`.
    """
    parts = [
        pd.DataFrame(
            {
                "scores": name,
                "curve": kind,
                "confidence": found.x,
                "accuracy": found.y,
                "band_low": found.low,
                "band_high": found.high,
                "level": found.level,
                "n": found.n,
                "rows": found.rows,
                "method": found.method,
            }
        )
        for name, found in curves.items()
    ]
    return pd.concat(parts, ignore_index=True)


def curve_alt(curve: Curve, kind: str, label: str) -> str:
    """Return a sentence about a curve, for those who cannot see it."""
    first, last = curve.x[0], curve.x[-1]
    places = [place for place in _PLACES if first <= place <= last] or [float(first)]
    said = ", ".join(
        f"{np.interp(place, curve.x, curve.y):.0%} at {place:.0%}" for place in places
    )
    return (
        f"{CURVES[kind].label} reliability curve of "
        f"{tables.count_of(curve.n, 'row')}, {label}: what came true is {said} "
        f"confidence. A band holds {curve.level:.0%} of calibrated models."
    )


def parts_frame(found: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return the numbers beside a curve, as cells of Markdown.

    The parts of scores have a column for each score.
    """
    rules = [
        rule for rule in _RULES if all(f"{rule}-{part}" in found for part in _PARTS)
    ]
    if not rules:
        lines = [
            {
                tables.MEASURE: tables.metric_label(metric),
                "Value": tables.value_cell(metric, item),
            }
            for metric, item in found.items()
        ]
        return pd.DataFrame(lines)
    lines = [
        {"Part": name}
        | {
            _RULES[rule]: tables.value_cell(f"{rule}-{part}", found[f"{rule}-{part}"])
            for rule in rules
        }
        for part, name in _PARTS.items()
    ]
    return pd.DataFrame(lines)


def _band(curve: Curve) -> dict[str, object]:
    """Return one closed outline: up along the low ends, back along the high ones."""
    return {
        "type": "scatter",
        "x": np.concatenate([curve.x, curve.x[::-1]]),
        "y": np.concatenate([curve.low, curve.high[::-1]]),
        "mode": "lines",
        "fill": "toself",
        "fillcolor": theme.translucent(theme.DIAGONAL, 0.28),
        "line": {"width": 0, "color": theme.DIAGONAL},
        "name": f"Consistency band, {curve.level:.0%}",
        "hoverinfo": "skip",
    }
