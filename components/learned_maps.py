"""What calibrators learned and changed: figures, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from components import theme
from components.display import escape_markdown
from components.theme import Style
from core.binning import THIN
from core.learned_maps import ClassChanges, ClassCurve, ConfidenceMap

__all__ = [
    "changes_frame",
    "changes_sentence",
    "changes_table",
    "confidence_alt",
    "confidence_figure",
    "confidence_table",
    "curves_alt",
    "curves_figure",
    "curves_table",
]

HEIGHT = 420
SHOWN = 10  # classes in the table on the page
BANDS = 2  # calibrators with a band: more would hide each other
_TICKS = [0, 0.2, 0.4, 0.6, 0.8, 1]


def confidence_figure(
    maps: Mapping[str, ConfidenceMap], labels: Mapping[str, str]
) -> go.Figure:
    """Draw the confidence after over the confidence before, one line per calibrator.

    Parameters
    ----------
    maps : mapping of str to ConfidenceMap
        Calibrator id -> what became of the confidences.
    labels : mapping of str to str
        Names in the legend.

    Returns
    -------
    plotly.graph_objects.Figure
        Medians; of one or two calibrators with a band from the 10 % to the 90 %
        quantile. Bins with fewer than ten rows are grey.
    """
    fig = _square("Confidence before", "Confidence after")
    for name, found in maps.items():
        style, title = theme.style_of(name), theme.figure_text(labels[name])
        if len(maps) <= BANDS:
            fig.add_trace(_band(found, style, name))
        fig.add_trace(
            {
                "type": "scatter",
                "x": found.before,
                "y": found.after,
                "customdata": np.column_stack([found.low, found.high, found.count]),
                "mode": "lines+markers",
                "line": {"color": style.color, "width": 2, "dash": style.dash},
                "marker": {"symbol": style.symbol, "size": 7, "color": style.color},
                "name": title,
                "legendgroup": name,
                "hovertemplate": (
                    "%{x:.3f} becomes %{y:.3f}<br>10 % to 90 %: %{customdata[0]:.3f} "
                    "to %{customdata[1]:.3f}<br>%{customdata[2]:,} rows"
                    f"<extra>{title}</extra>"
                ),
            }
        )
        thin = found.count < THIN
        fig.add_trace(
            {
                "type": "scatter",
                "x": found.before[thin],
                "y": found.after[thin],
                "mode": "markers",
                "marker": {"symbol": style.symbol, "size": 7, "color": theme.THIN},
                "legendgroup": name,
                "showlegend": False,
                "hoverinfo": "skip",
            }
        )
    return fig


def confidence_table(
    maps: Mapping[str, ConfidenceMap], labels: Mapping[str, str]
) -> pd.DataFrame:
    """Return the numbers of the figure, one line per calibrator and bin."""
    parts = [
        pd.DataFrame(
            {
                "calibrator": labels[name],
                "rows": found.count,
                "mean_confidence_before": found.before,
                "median_confidence_after": found.after,
                "quantile_10_after": found.low,
                "quantile_90_after": found.high,
            }
        )
        for name, found in maps.items()
    ]
    return pd.concat(parts, ignore_index=True)


def confidence_alt(maps: Mapping[str, ConfidenceMap], labels: Mapping[str, str]) -> str:
    """Return what the figure shows, for those who cannot see it."""
    parts = [
        f"{labels[name]}: {found.before[-1]:.2f} becomes {found.after[-1]:.2f}"
        for name, found in maps.items()
        if found.count.size
    ]
    return "Confidence after over confidence before. At the top, " + "; ".join(parts)


def curves_figure(
    curves: Mapping[str, ClassCurve], labels: Mapping[str, str], class_name: str
) -> go.Figure:
    """Draw what calibrators make of the probability of one class.

    Parameters
    ----------
    curves : mapping of str to ClassCurve
        Calibrator id -> its curve of the class.
    labels : mapping of str to str
        Names in the legend.
    class_name : str
    """
    name_shown = theme.figure_text(theme.shortened(class_name))
    fig = _square(f"Probability of {name_shown} before", "After, on its own")
    for name, curve in curves.items():
        style, title = theme.style_of(name), theme.figure_text(labels[name])
        fig.add_trace(
            {
                "type": "scatter",
                "x": curve.before,
                "y": curve.after,
                "mode": "lines",
                "line": {"color": style.color, "width": 2, "dash": style.dash},
                "name": title,
                "hovertemplate": f"%{{x:.3f}} becomes %{{y:.3f}}<extra>{title}</extra>",
            }
        )
    return fig


def curves_table(
    curves: Mapping[str, ClassCurve], labels: Mapping[str, str], class_name: str
) -> pd.DataFrame:
    """Return the points of the curves."""
    parts = [
        pd.DataFrame(
            {
                "calibrator": labels[name],
                "class": class_name,
                "probability_before": curve.before,
                "probability_after": curve.after,
            }
        )
        for name, curve in curves.items()
    ]
    return pd.concat(parts, ignore_index=True)


def curves_alt(
    curves: Mapping[str, ClassCurve], labels: Mapping[str, str], class_name: str
) -> str:
    """Return what the curves make of one half, for those who cannot see them."""
    parts = [
        f"{labels[name]} maps 0.5 to {np.interp(0.5, curve.before, curve.after):.2f}"
        for name, curve in curves.items()
    ]
    return f"Curves of the class {class_name}. " + "; ".join(parts)


def changes_sentence(label: str, changes: ClassChanges) -> str:
    """Return how many predictions a calibrator changed, and what came of it."""
    n, moved = changes.n_rows, changes.n_changed
    if not moved:
        return f"{label} changed none of {n:,} predictions."
    text = f"{label} changed {moved:,} of {n:,} predictions ({moved / n:.1%})"
    if changes.correct_before is None or changes.correct_after is None:
        return f"{text}."
    before, after = (
        int(part.sum()) for part in (changes.correct_before, changes.correct_after)
    )
    return f"{text}; {before:,} were right before, {after:,} are right after."


def changes_frame(
    changes: ClassChanges, classes: Sequence[str], limit: int = SHOWN
) -> pd.DataFrame:
    """Return the classes that changed most, as cells of Markdown.

    Parameters
    ----------
    changes : ClassChanges
    classes : sequence of str
    limit : int, default=10
        Lines at most; classes that nothing was predicted as are left out.
    """
    lines: list[dict[str, str]] = []
    for place in changes.by_change():
        if len(lines) == limit:
            break
        if not changes.n[place] and not changes.n_joined[place]:
            continue
        name = escape_markdown(theme.shortened(classes[place]))
        lines.append(
            {
                "Predicted class": name,
                "Rows": f"{changes.n[place]:,}",
                "Left": f"{changes.n_left[place]:,}",
                "Joined": f"{changes.n_joined[place]:,}",
                "Mean confidence": _moved(
                    changes.confidence_before[place], changes.confidence_after[place]
                ),
                "Right": _counts(changes, int(place)),
            }
        )
    return pd.DataFrame(lines)


def changes_table(changes: ClassChanges, classes: Sequence[str]) -> pd.DataFrame:
    """Return every class, in the order of the columns, for a download."""
    columns: dict[str, NDArray[np.generic] | Sequence[str]] = {
        "predicted_before": list(classes),
        "rows": changes.n,
        "left": changes.n_left,
        "joined": changes.n_joined,
        "mean_confidence_before": changes.confidence_before,
        "mean_confidence_after": changes.confidence_after,
    }
    if changes.correct_before is not None and changes.correct_after is not None:
        columns["right_before"] = changes.correct_before
        columns["right_after"] = changes.correct_after
    return pd.DataFrame(columns)


def _band(found: ConfidenceMap, style: Style, name: str) -> dict[str, Any]:
    """Return the area from the 10 % to the 90 % quantile."""
    return {
        "type": "scatter",
        "x": np.concatenate([found.before, found.before[::-1]]),
        "y": np.concatenate([found.high, found.low[::-1]]),
        "fill": "toself",
        "fillcolor": theme.translucent(style.color, 0.15),
        "line": {"width": 0},
        "mode": "lines",
        "legendgroup": name,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _moved(before: float, after: float) -> str:
    if np.isnan(before):
        return "\N{EN DASH}"
    return f"{before:.3f} \N{RIGHTWARDS ARROW} {after:.3f}"


def _counts(changes: ClassChanges, place: int) -> str:
    if changes.correct_before is None or changes.correct_after is None:
        return "\N{EN DASH}"
    before, after = changes.correct_before[place], changes.correct_after[place]
    if before == after:
        return f"{before:,}"
    return f"{before:,} \N{RIGHTWARDS ARROW} {after:,}"


def _square(x_title: str, y_title: str) -> go.Figure:
    """Return axes from 0 to 1 with the line on which nothing changes."""
    fig = go.Figure()
    fig.add_trace(
        {
            "type": "scatter",
            "x": [0, 1],
            "y": [0, 1],
            "mode": "lines",
            "line": {"color": theme.DIAGONAL, "width": 1.5, "dash": "dash"},
            "name": "Unchanged",
            "showlegend": False,
            "hoverinfo": "skip",
        }
    )
    span = {"range": [-0.02, 1.02], "tickvals": _TICKS}
    fig.update_layout(
        **theme.layout(
            HEIGHT,
            xaxis=theme.axis(x_title, **span, **theme.EQUAL["x"]),
            yaxis=theme.axis(y_title, **span, **theme.EQUAL["y"]),
        )
    )
    return fig
