"""The held-out loss over the number of fit rows: figure, table and words."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from components import theme
from core.learning_curve import LearningCurve

__all__ = ["alt", "figure", "table"]

HEIGHT = 340


def figure(
    curves: Mapping[str, LearningCurve],
    labels: Mapping[str, str],
    uncalibrated: float,
) -> go.Figure:
    """Draw the NLL over the number of fit rows, and that of the scores as they are.

    Parameters
    ----------
    curves : mapping of str to LearningCurve
        By id of the calibrator.
    labels : mapping of str to str
        Names in the legend.
    uncalibrated : float
        NLL of the scores as they are.
    """
    fig = go.Figure()
    for name, item in curves.items():
        style, title = theme.style_of(name), theme.figure_text(labels[name])
        fig.add_trace(
            {
                "type": "scatter",
                "x": [*item.sizes, *item.sizes[::-1]],
                "y": [*item.low, *item.high[::-1]],
                "mode": "lines",
                "fill": "toself",
                "fillcolor": theme.translucent(style.color, 0.12),
                "line": {"width": 0},
                "legendgroup": name,
                "showlegend": False,
                "hoverinfo": "skip",
            }
        )
        fig.add_trace(
            {
                "type": "scatter",
                "x": item.sizes,
                "y": item.nll,
                "mode": "lines+markers",
                "line": {"color": style.color, "width": 2, "dash": style.dash},
                "marker": {"symbol": style.symbol, "size": 8, "color": style.color},
                "name": title,
                "legendgroup": name,
                "hovertemplate": (
                    f"%{{x:,}} fit rows<br><b>%{{y:.4f}}</b> nats<extra>{title}</extra>"
                ),
            }
        )
    fig.add_hline(
        y=uncalibrated,
        line={"color": theme.BEFORE.color, "width": 1.5, "dash": "dot"},
        annotation={"text": "uncalibrated", "font": {"color": theme.TEXT}},
        annotation_position="top right",
    )
    ticks = sorted({int(size) for item in curves.values() for size in item.sizes})
    fig.update_layout(
        **theme.layout(
            HEIGHT,
            xaxis=theme.axis(
                "Fit rows, logarithmic",
                type="log",
                tickvals=ticks,
                ticktext=[f"{tick:,}" for tick in ticks],
            ),
            yaxis=theme.axis("NLL of rows that no fit saw, nats", nticks=6),
        )
    )
    return fig


def table(
    curves: Mapping[str, LearningCurve], labels: Mapping[str, str]
) -> pd.DataFrame:
    """Return the numbers of the figure, one line per calibrator and size."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "calibrator": labels[name],
                    "fit_rows": item.sizes,
                    "nll": item.nll,
                    "low": item.low,
                    "high": item.high,
                }
            )
            for name, item in curves.items()
        ],
        ignore_index=True,
    )


def alt(curves: Mapping[str, LearningCurve]) -> str:
    """Return what the figure shows, for those who cannot see it."""
    return "NLL over the number of fit rows. " + " ".join(
        item.sentence for item in curves.values()
    )
