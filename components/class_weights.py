"""The linear map of logits that a calibrator learned: heat map or slopes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components import theme
from core.learned_maps import ClassWeights

__all__ = ["alt", "figure", "table"]

HEIGHT = 420
OFFSET = "offset"
_MOST_NAMES = 40  # classes whose names fit on an axis
_SCALE = [
    [0.0, theme.AFTER.color],
    [0.5, "rgba(127, 127, 127, 0.06)"],
    [1.0, theme.BEFORE.color],
]


def figure(found: ClassWeights, classes: Sequence[str]) -> go.Figure:
    """Draw a matrix as a heat map, or slopes and offsets as points.

    Parameters
    ----------
    found : ClassWeights
    classes : sequence of str
        Names of the k classes.
    """
    names = [theme.figure_text(theme.shortened(name, 20)) for name in classes]
    return _heat_map(found, names) if found.is_matrix else _points(found, names)


def table(found: ClassWeights, classes: Sequence[str]) -> pd.DataFrame:
    """Return the numbers of the figure, one line per class."""
    frame = pd.DataFrame({"class": list(classes)})
    if found.is_matrix:
        columns = pd.DataFrame(found.weights, columns=[f"from {c}" for c in classes])
        frame = pd.concat([frame, columns], axis=1)
    else:
        frame["slope"] = found.weights
    return frame.assign(offset=found.bias)


def alt(found: ClassWeights, classes: Sequence[str], label: str) -> str:
    """Return what the figure shows, for those who cannot see it."""
    far = int(np.abs(found.bias).argmax())
    text = f"{label}: the largest offset is {found.bias[far]:+.2f}, of {classes[far]}."
    if found.is_matrix:
        rest = found.weights - np.eye(len(classes))
        i, j = np.unravel_index(int(np.abs(rest).argmax()), rest.shape)
        return (
            f"{text} The largest weight beyond the identity is {rest[i, j]:+.2f}, from "
            f"{classes[int(j)]} to {classes[int(i)]}."
        )
    low, high = float(found.weights.min()), float(found.weights.max())
    return f"{text} Slopes go from {low:.2f} to {high:.2f}."


def _heat_map(found: ClassWeights, names: Sequence[str]) -> go.Figure:
    k = len(names)
    values = np.column_stack([found.weights - np.eye(k), found.bias])
    most = float(np.abs(values).max()) or 1.0
    columns = [*names, OFFSET]
    fig = go.Figure(
        {
            "type": "heatmap",
            "z": values,
            "x": np.arange(k + 1),
            "y": np.arange(k),
            "zmin": -most,
            "zmax": most,
            "colorscale": _SCALE,
            "customdata": np.array(
                [[[row, column] for column in columns] for row in names], dtype=object
            ),
            "hovertemplate": (
                "%{customdata[1]} \N{RIGHTWARDS ARROW} %{customdata[0]}: "
                "<b>%{z:+.3f}</b><extra></extra>"
            ),
            "colorbar": {"thickness": 12, "outlinewidth": 0},
        }
    )
    is_named = k <= _MOST_NAMES
    fig.update_layout(
        **theme.layout(
            HEIGHT,
            xaxis=theme.axis(
                "Old logit",
                tickvals=np.arange(k + 1) if is_named else [],
                ticktext=columns,
                showgrid=False,
            ),
            yaxis=theme.axis(
                "New logit",
                tickvals=np.arange(k) if is_named else [],
                ticktext=list(names),
                autorange="reversed",
                showgrid=False,
            ),
        )
    )
    return fig


def _points(found: ClassWeights, names: Sequence[str]) -> go.Figure:
    mode = "markers+text" if len(names) <= _MOST_NAMES else "markers"
    fig = go.Figure(
        {
            "type": "scatter",
            "x": found.weights,
            "y": found.bias,
            "mode": mode,
            "text": list(names),
            "textposition": "top center",
            "textfont": {"color": theme.TEXT},
            "marker": {"color": theme.AFTER.color, "size": 8, "symbol": "diamond"},
            "hovertemplate": (
                "%{text}<br>slope %{x:.3f}, offset %{y:+.3f}<extra></extra>"
            ),
            "showlegend": False,
        }
    )
    line = {"color": theme.DIAGONAL, "width": 1, "dash": "dash"}
    fig.add_vline(x=1.0, line=line)
    fig.add_hline(y=0.0, line=line)
    fig.update_layout(
        **theme.layout(
            HEIGHT,
            xaxis=theme.axis("Slope", nticks=7),
            yaxis=theme.axis("Offset", nticks=7),
        )
    )
    return fig
