"""Confusions and operating points as a figure and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from components import tables, theme
from core.operating_points import OperatingPoint
from core.uncertainty import Estimate

__all__ = [
    "MOST_DRAWN",
    "confusion_alt",
    "confusion_figure",
    "confusion_frame",
    "points_frame",
    "points_table",
    "rates_table",
]

MOST_DRAWN = 30
"""Classes above which the matrix is not drawn."""

_LABEL = 14  # letters of a class name on an axis
_MOST_WRITTEN = 16  # classes above which counts are shown on hover only
_FEW = 5  # classes whose counts are written large
_DARKEST = 0.55  # opacity that leaves a contrast of 4.5 to the figures in both themes


def confusion_figure(
    matrix: NDArray[np.int64], classes: Sequence[str], height: int = 520
) -> go.Figure:
    """Draw counts of label (down) and prediction (across), shaded by share of label."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [theme.figure_text(name) for name in classes]
    places = list(range(len(names)))
    ticks = {
        "tickvals": places,
        "ticktext": [theme.figure_text(theme.shortened(n, _LABEL)) for n in classes],
    }
    fig = go.Figure(
        go.Heatmap(
            z=share,
            text=matrix,
            customdata=np.array(
                [[[label, said] for said in names] for label in names], dtype=object
            ),
            colorscale=[
                [0.0, theme.translucent(theme.AFTER.color, 0.03)],
                [1.0, theme.translucent(theme.AFTER.color, _DARKEST)],
            ],
            zmin=0,
            zmax=1,
            showscale=False,
            xgap=1,
            ygap=1,
            hovertemplate=(
                "<b>%{text:,} rows</b>, %{z:.1%} of this label<br>"
                "label %{customdata[0]}<br>prediction %{customdata[1]}<extra></extra>"
            ),
        )
    )
    if len(names) <= _MOST_WRITTEN:
        down, across = np.indices(matrix.shape)
        fig.add_scatter(
            x=across.ravel(),
            y=down.ravel(),
            mode="text",
            text=[f"{count:,}" for count in matrix.ravel()],
            textfont={"color": theme.TEXT, "size": 12 if len(names) > _FEW else 16},
            hoverinfo="skip",
            showlegend=False,
        )
    fig.update_layout(
        **theme.layout(
            height,
            margin={"l": 110, "r": 8, "t": 36, "b": 70},
            xaxis=theme.axis("Prediction", showgrid=False, **ticks),
            yaxis=theme.axis("Label", showgrid=False, autorange="reversed", **ticks),
        )
    )
    return fig


def confusion_frame(matrix: NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Return the matrix as a table for a download."""
    frame = pd.DataFrame(matrix, columns=[f"predicted_{name}" for name in classes])
    frame.insert(0, "label", list(classes))
    return frame


def confusion_alt(matrix: NDArray[np.int64]) -> str:
    """Return one sentence about the matrix, for those who cannot see."""
    n, right = int(matrix.sum()), int(np.trace(matrix))
    return (
        f"Confusion matrix of {len(matrix):,} classes: {right:,} of {n:,} rows lie on "
        "the diagonal, where the prediction is the label."
    )


def rates_table(
    rates: Sequence[Mapping[str, Estimate]], classes: Sequence[str]
) -> pd.DataFrame:
    """Return recall and precision of every class in full, lowest recall first."""
    lines = []
    for name, found in zip(classes, rates, strict=True):
        line: dict[str, Any] = {"class": name}
        for rate, item in found.items():
            line |= {
                rate: item.value,
                f"{rate}_low": item.low,
                f"{rate}_high": item.high,
                f"{rate}_rows": item.n,
            }
        lines.append(line)
    return pd.DataFrame(lines).sort_values("recall", kind="stable", ignore_index=True)


def points_frame(
    points: Sequence[OperatingPoint], wanted: str, threshold: str
) -> pd.DataFrame:
    """Return operating points as cells of Markdown, one line per target.

    A target that the test rows miss is said under the rate that it is of.
    """
    names = list(dict.fromkeys(name for item in points for name in item.rates))
    lines = []
    for item in points:
        line = {
            wanted: f"{item.target:.0%}",
            threshold: "not reached"
            if item.threshold is None
            else _threshold(item.threshold),
        }
        for name in names:
            cell = _percent(item.rates.get(name))
            if name == item.wanted and item.is_missed:
                cell += f"  \n:small[:orange[{item.outcome}]]"
            line[f"{name.capitalize()}, %"] = cell
        lines.append(line)
    return pd.DataFrame(lines)


def points_table(points: Sequence[OperatingPoint]) -> pd.DataFrame:
    """Return operating points in full for a download."""
    lines = []
    for item in points:
        line: dict[str, Any] = {
            "target": item.target,
            "threshold": item.threshold,
            "on_test_rows": item.outcome,
        }
        for name, rate in item.rates.items():
            line |= {
                name: rate.value,
                f"{name}_low": rate.low,
                f"{name}_high": rate.high,
                f"{name}_rows": rate.n,
            }
        lines.append(line)
    return pd.DataFrame(lines)


def _percent(item: Estimate | None) -> str:
    if item is None or item.value != item.value:
        return "\N{EN DASH}"
    cell = tables.value_cell("accuracy", item)
    n = tables.count_of(item.n, "row")
    return f"{cell}  \n:small[:gray[{n}]]".replace(" to ", "\u00a0to\u00a0")


def _threshold(value: float) -> str:
    """Return a threshold in four digits, or in as many as keep it apart from 1."""
    short = f"{value:.4g}"
    return f"1 \N{MINUS SIGN} {1 - value:.1e}" if short == "1" and value < 1 else short
