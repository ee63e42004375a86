"""Reliability diagrams: results of `core` in, a figure, a table and a sentence out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from components import tables, theme
from components.theme import Style
from core.binning import BinStatistics, assign_bins
from core.uncertainty import Estimate

__all__ = [
    "Counts",
    "bin_at",
    "bin_names",
    "counts_of",
    "diagram",
    "reliability_alt",
    "reliability_figure",
    "reliability_table",
    "shrink",
    "zoom",
]

HEIGHT = 560
_DOMAINS = {"top": (0.26, 1.0), "bottom": (0.0, 0.17)}
_HALF = 0.5
_TICKS = [0, 0.2, 0.4, 0.6, 0.8, 1]


class Counts(NamedTuple):
    """Bars of the rows per bin, or spans of bins that are not equally wide."""

    bars: Sequence[Mapping[str, Any]]
    is_even: bool


def reliability_figure(
    bins: Mapping[str, BinStatistics],
    *,
    labels: Mapping[str, str] | None = None,
    x_title: str = "Confidence",
    y_title: str = "Accuracy",
    height: int = HEIGHT,
    styles: Mapping[str, Style] | None = None,
    has_counts: bool = True,
) -> go.Figure:
    """Draw accuracy against confidence with intervals, and the counts under it.

    Parameters
    ----------
    bins : mapping of str to BinStatistics
        Calibrator id (or "uncalibrated") -> its bins.
    labels : mapping of str to str, optional
        Names in the legend; the ids by default.
    x_title, y_title : str
        What is estimated.
    height : int, default=560
        In pixels.
    styles : mapping of str to Style, optional
        By name of the series; by default those of the calibrators.
    has_counts : bool, default=True
        Whether the rows of each bin are drawn underneath.

    Returns
    -------
    plotly.graph_objects.Figure
        Bins with fewer than ten rows are grey.
    """
    shown = labels or {}
    styles = styles or {name: theme.style_of(name) for name in bins}
    traces: list[dict[str, Any]] = []
    for name, found in bins.items():
        title = theme.figure_text(shown.get(name, name))
        traces += _points(found, styles[name], title, name)
    counts = counts_of(bins, styles, shown) if has_counts else None
    return diagram(traces, counts, x_title, y_title, height)


def diagram(
    traces: Sequence[Mapping[str, Any]],
    counts: Counts | None,
    x_title: str,
    y_title: str,
    height: int = HEIGHT,
) -> go.Figure:
    """Return traces over the line of perfect calibration, and counts under them.

    Parameters
    ----------
    traces : sequence of mappings
    counts : Counts, optional
        Without them the diagram has their room.
    x_title, y_title : str
    height : int, default=560
        In pixels.
    """
    perfect = {
        "type": "scatter",
        "x": [0, 1],
        "y": [0, 1],
        "mode": "lines",
        "line": {"color": theme.DIAGONAL, "width": 1.5, "dash": "dash"},
        "name": "Perfectly calibrated",
        "showlegend": False,
        "hoverinfo": "skip",
    }
    look = _layout(x_title, y_title, height)
    if counts is None:
        look["yaxis"]["domain"], look["xaxis"]["anchor"] = [0, 1], "y"
        del look["yaxis2"]
        return go.Figure([perfect, *traces], look)
    if not counts.is_even:
        look["yaxis2"]["title"]["text"] = "Bins"
        look["yaxis2"] |= {
            "showgrid": False,
            "range": [-0.6, len(counts.bars) - 0.4],
            "showticklabels": False,
        }
    # At once: what is added to a figure takes four times as long.
    return go.Figure([perfect, *traces, *counts.bars], look)


def counts_of(
    bins: Mapping[str, BinStatistics],
    styles: Mapping[str, Style],
    labels: Mapping[str, str],
) -> Counts:
    """Return what shows the rows of each bin under a diagram."""
    is_even = all(np.allclose(np.diff(b.edges), b.edges[1]) for b in bins.values())
    bars = []
    for number, (name, found) in enumerate(bins.items()):
        title = theme.figure_text(labels.get(name, name))
        if is_even:
            bar = _counts(found, styles[name], title, name, number, len(bins))
        else:
            bar = _spans(found, styles[name], title, name, len(bins) - 1 - number)
        bars.append(bar)
    return Counts(bars, is_even)


def shrink(fig: go.Figure) -> None:
    """Make a diagram one of many small ones."""
    fig.update_layout(
        showlegend=False,
        margin={"l": 44, "r": 8, "t": 30, "b": 30},  # buttons lie in the top one
        xaxis={"title": {"text": ""}, "range": [-0.06, 1.06]},
        yaxis={"title": {"text": ""}, "range": [-0.06, 1.06]},
    )


def zoom(fig: go.Figure, top: float) -> None:
    """Show only the low corner of a diagram where nothing reaches one half.

    Parameters
    ----------
    fig : plotly.graph_objects.Figure
    top : float
        Largest confidence or share that is drawn.
    """
    if not 0 < top < _HALF:
        return
    axis = {
        "range": [-0.06 * top, 1.15 * top],
        "tickvals": None,
        "nticks": 5,
        "tickformat": "~%",
    }
    fig.update_layout(xaxis=axis, yaxis=axis)


def reliability_table(
    bins: Mapping[str, BinStatistics], labels: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return the numbers of a diagram, one line per series and bin, empty ones too."""
    shown = labels or {}
    parts = [
        pd.DataFrame(
            {
                "scores": shown.get(name, name),
                "bin_low": found.edges[:-1],
                "bin_high": found.edges[1:],
                "rows": found.count,
                "share_of_weight": found.weight,
                "mean_confidence": found.confidence,
                "accuracy": found.accuracy,
                "accuracy_low": found.low,
                "accuracy_high": found.high,
                "level": found.level,
            }
        )
        for name, found in bins.items()
    ]
    return pd.concat(parts, ignore_index=True)


def bin_at(found: BinStatistics, x: float) -> int:
    """Return the bin of a point that was clicked: a mean, a middle or an upper end."""
    return int(assign_bins(np.array([x]), found.edges)[0])


def bin_names(found: BinStatistics) -> dict[int, str]:
    """Return number -> words of the bins that hold rows."""
    return {
        number: (
            f"{found.edges[number]:.4g} to {found.edges[number + 1]:.4g}, "
            f"{tables.count_of(int(found.count[number]), 'row')}"
        )
        for number in range(found.n_bins)
        if found.count[number]
    }


def reliability_alt(
    gaps: Mapping[str, Estimate], labels: Mapping[str, str] | None = None
) -> str:
    """Return one sentence with the gap of each series, for those who cannot see."""
    shown = labels or {}
    parts = []
    for name, gap in gaps.items():
        value = 100 * gap.value
        side = "above" if value >= 0 else "below"
        parts.append(
            f"{shown.get(name, name)}: confidence lies {abs(value):.1f} points {side} "
            "what came true"
        )
    n = next(iter(gaps.values())).n if gaps else 0
    return f"Reliability diagram of {tables.count_of(n, 'row')}. {'; '.join(parts)}."


def _points(
    found: BinStatistics, style: Style, title: str, group: str
) -> list[dict[str, Any]]:
    """Return a trace of the bins that count, and one of the thin ones."""
    full = (found.count > 0) & ~found.is_thin
    traces = [_dots(found, full, style.color, style, title, group)]
    if found.is_thin.any():
        thin = _dots(found, found.is_thin, theme.THIN, style, title, group)
        thin["showlegend"] = False
        thin["opacity"] = 0.5
        thin["mode"] = "markers"
        thin["marker"]["symbol"] = f"{style.symbol}-open"
        thin["error_y"] |= {"thickness": 1, "width": 0}
        traces.append(thin)
    return traces


def _dots(
    found: BinStatistics,
    keep: NDArray[np.bool_],
    color: str,
    style: Style,
    title: str,
    group: str,
) -> dict[str, Any]:
    accuracy = found.accuracy[keep]
    ends = np.column_stack(
        [
            found.low[keep],
            found.high[keep],
            found.count[keep],
            found.edges[:-1][keep],
            found.edges[1:][keep],
        ]
    )
    return {
        "type": "scatter",
        "x": found.confidence[keep],
        "y": accuracy,
        "mode": "lines+markers",
        "name": title,
        "legendgroup": group,
        "line": {
            "color": theme.translucent(color, 0.45),
            "width": 1.5,
            "dash": style.dash,
        },
        "marker": {
            "color": color,
            "symbol": style.symbol,
            "size": 9,
            "line": {"width": 0},
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": found.high[keep] - accuracy,
            "arrayminus": accuracy - found.low[keep],
            "color": color,
            "thickness": 1.4,
            "width": 3,
        },
        "customdata": ends,
        "hovertemplate": (
            "<b>%{y:.1%}</b> came true (%{customdata[0]:.1%} to %{customdata[1]:.1%})"
            "<br>%{x:.1%} said, bin %{customdata[3]:.3~f} to %{customdata[4]:.3~f}"
            "<br>%{customdata[2]:,} rows"
            f"<extra>{title}</extra>"
        ),
    }


def _counts(
    found: BinStatistics, style: Style, title: str, group: str, number: int, of: int
) -> dict[str, Any]:
    """Return bars of the rows per bin; series share the width of a bin."""
    width = np.diff(found.edges)
    slot = width / of
    return {
        "type": "bar",
        "x": found.edges[:-1] + slot * (number + 0.5),
        "y": found.count,
        "width": slot * 0.86,
        "name": title,
        "legendgroup": group,
        "showlegend": False,
        "xaxis": "x",
        "yaxis": "y2",
        "marker": {
            "color": [
                theme.THIN if is_thin else style.color for is_thin in found.is_thin
            ],
            "line": {"width": 0},
        },
        "customdata": np.column_stack([found.edges[:-1], found.edges[1:]]),
        "hovertemplate": (
            "<b>%{y:,} rows</b><br>%{customdata[0]:.3~f} to %{customdata[1]:.3~f}"
            f"<extra>{title}</extra>"
        ),
    }


def _spans(
    found: BinStatistics, style: Style, title: str, group: str, lane: int
) -> dict[str, Any]:
    """Return the bins of equal counts as spans side by side: narrow where rows are.

    Bars of their counts would all be as high, and show nothing but their widths.
    """
    shades = [theme.translucent(style.color, alpha) for alpha in (1.0, 0.45)]
    return {
        "type": "bar",
        "orientation": "h",
        "base": found.edges[:-1],
        "x": np.diff(found.edges),
        "y": np.full(found.n_bins, lane),
        "width": 0.7,
        "name": title,
        "legendgroup": group,
        "showlegend": False,
        "xaxis": "x",
        "yaxis": "y2",
        "marker": {
            "color": [shades[number % 2] for number in range(found.n_bins)],
            "line": {"width": 0},
        },
        "customdata": np.column_stack([found.count, found.edges[:-1], found.edges[1:]]),
        "hovertemplate": (
            "<b>%{customdata[0]:,} rows</b><br>"
            "%{customdata[1]:.4~f} to %{customdata[2]:.4~f}"
            f"<extra>{title}</extra>"
        ),
    }


def _layout(x_title: str, y_title: str, height: int) -> dict[str, Any]:
    share = {"range": [-0.02, 1.02], "tickvals": _TICKS, "tickformat": ".0%"}
    return theme.layout(
        height,
        barmode="overlay",
        bargap=0,
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.01,
            "yanchor": "bottom",
            "title": {"text": ""},
            "itemsizing": "constant",
        },
        xaxis=theme.axis(
            theme.figure_text(x_title), anchor="y2", **share, **theme.EQUAL["x"]
        ),
        yaxis=theme.axis(
            theme.figure_text(y_title),
            domain=list(_DOMAINS["top"]),
            **share,
            **theme.EQUAL["y"],
        ),
        yaxis2=theme.axis(
            "Rows",
            anchor="x",
            domain=list(_DOMAINS["bottom"]),
            rangemode="tozero",
            nticks=3,
            tickformat="~s",
        ),
    )
