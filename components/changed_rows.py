"""Single rows before and after a calibrator: scatter of confidences, changed rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from components import tables, theme
from components.display import escape_markdown
from components.theme import Style
from core.row_statistics import RowStatistics

__all__ = [
    "MOST_POINTS",
    "SHOWN",
    "rows_frame",
    "scatter_alt",
    "scatter_figure",
    "scatter_table",
]

HEIGHT = 420
MOST_POINTS = 2000
SHOWN = 10  # changed rows on the page
_KINDS = {
    "right": Style(theme.AFTER.color, "circle", ""),
    "wrong": Style(theme.BEFORE.color, "x", ""),
    "another class": Style("#8a63c9", "diamond", ""),
}
_SIZES = {"right": 5, "wrong": 6, "another class": 8}


def scatter_table(before: RowStatistics, after: RowStatistics) -> pd.DataFrame:
    """Return the confidence of each row before and after, and what became of it.

    Parameters
    ----------
    before, after : RowStatistics
        Of the same labelled rows in the same order.
    """
    assert before.correct is not None  # noqa: S101 - labelled rows
    what = np.where(before.correct, "right", "wrong").astype(object)
    if before.prediction is not None and after.prediction is not None:
        what[before.prediction != after.prediction] = "another class"
    return pd.DataFrame(
        {
            "confidence_before": before.confidence,
            "confidence_after": after.confidence,
            "prediction": what,
        }
    )


def scatter_figure(found: pd.DataFrame) -> go.Figure:
    """Draw the confidence after over the confidence before, one point per row.

    Parameters
    ----------
    found : DataFrame
        From `scatter_table`; of more than 2,000 rows an even share is drawn, and all
        whose class changed come first.
    """
    fig = go.Figure()
    drawn = found.iloc[_drawn(found["prediction"] == "another class")]
    for kind, style in _KINDS.items():
        part = drawn[drawn["prediction"] == kind]
        fig.add_trace(
            {
                "type": "scatter",
                "x": part["confidence_before"],
                "y": part["confidence_after"],
                "mode": "markers",
                "marker": {
                    "color": style.color,
                    "symbol": style.symbol,
                    "size": _SIZES[kind],
                    "opacity": 0.6,
                },
                "name": kind,
                "hovertemplate": (
                    f"%{{x:.3f}} becomes %{{y:.3f}}<extra>{kind}</extra>"
                ),
            }
        )
    line = {"color": theme.DIAGONAL, "width": 1.5, "dash": "dash"}
    fig.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line=line)
    least = float(found[["confidence_before", "confidence_after"]].min().min())
    low = max(0.0, np.floor(10 * least) / 10 - 0.02)
    fig.update_layout(
        **theme.layout(
            HEIGHT,
            xaxis=theme.axis("Confidence before", range=[low, 1.02], nticks=6),
            yaxis=theme.axis("Confidence after", range=[low, 1.02], nticks=6),
        )
    )
    return fig


def scatter_alt(found: pd.DataFrame) -> str:
    """Return what the scatter shows, for those who cannot see it."""
    counts = found["prediction"].value_counts()
    lower = int((found["confidence_after"] < found["confidence_before"]).sum())
    return (
        f"Confidence after over confidence before of {len(found):,} rows: "
        f"{lower:,} fell; {int(counts.get('another class', 0)):,} changed their "
        "predicted class."
    )


def rows_frame(found: pd.DataFrame, limit: int = SHOWN) -> pd.DataFrame:
    """Return changed rows, the surest first, as cells of Markdown.

    Parameters
    ----------
    found : DataFrame
        From `core.changed_rows.changed_rows`.
    limit : int, default=10
    """
    lines = []
    for _, row in found.head(limit).iterrows():
        became = {"right": ":green[right]", "wrong": ":orange[wrong]"}
        lines.append(
            {
                "Row": f"{int(row['file_row']):,}",
                "Label": _name(row["label"]),
                "Before": _said(row["prediction"], row["confidence"]),
                "After": _said(row["prediction_after"], row["confidence_after"]),
                "Became": became.get(row["became"], "\N{EN DASH}"),
            }
        )
    return pd.DataFrame(lines)


def _said(name: object, confidence: float) -> str:
    return f"{_name(name)} :gray[{tables.format_value('nll', confidence)}]"


def _name(name: object) -> str:
    return escape_markdown(theme.shortened(str(name)))


def _drawn(is_first: pd.Series[bool]) -> NDArray[np.int64]:
    """Return the places of the points that are drawn, in order."""
    first = np.flatnonzero(is_first)[: MOST_POINTS // 2]
    others = np.flatnonzero(~is_first)
    room = MOST_POINTS - first.size
    if others.size > room:
        others = others[np.linspace(0, others.size - 1, room).astype(np.int64)]
    return np.sort(np.concatenate([first, others]))
