"""Out-of-distribution scores: densities, curves, confidences and mixtures, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from components import theme
from components.theme import Style
from core.ood import DETECTORS, GIVEN, INSIDE, Densities, MixturePoint
from core.uncertainty import Estimate

__all__ = [
    "CURVE_NAMES",
    "curve_alt",
    "curve_figure",
    "curve_table",
    "densities_alt",
    "densities_figure",
    "densities_table",
    "mixture_alt",
    "mixture_figure",
    "mixture_table",
    "scatter_alt",
    "scatter_figure",
    "score_label",
    "score_style",
    "set_style",
]

HEIGHT = 380
CURVE_NAMES = {"roc": "ROC", "pr-out": "PR, OOD", "pr-in": "PR, in-distribution"}
_AXES = {
    "roc": ("OOD rows accepted", "In-distribution rows accepted"),
    "pr-out": ("Recall: OOD rows rejected", "Precision of a rejection"),
    "pr-in": ("Recall: in-distribution rows accepted", "Precision of an acceptance"),
}
_INSIDE = Style("#2a78b5", "circle", "solid")
_SETS = (
    Style("#d55e00", "diamond", "dash"),
    Style("#0f8a68", "square", "dot"),
    Style("#8a63c9", "triangle-up", "dashdot"),
    Style("#a87400", "cross", "longdash"),
    Style("#b8487f", "star", "longdashdot"),
    Style("#0e8a9c", "pentagon", "dash"),
    Style("#7f8420", "hexagon", "dot"),
)
_PEAK = 25  # how far a bin may be above the median one
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SHARE = {"range": [-0.02, 1.02], "tickformat": ".0%"}


def score_label(method: str) -> str:
    """Return how the page names a score."""
    if method == GIVEN:
        return "Uploaded scores"
    return DETECTORS[method].label if method in DETECTORS else method


def score_style(method: str) -> Style:
    """Return how a score is drawn: the same in every figure."""
    place = list(DETECTORS).index(method) if method in DETECTORS else 0
    colors = [_INSIDE.color, *(style.color for style in _SETS)]
    dash = _DASHES[place % len(_DASHES)]
    return Style(colors[place % len(colors)], "circle", dash)


def set_style(name: str, sets: Sequence[str]) -> Style:
    """Return how a set is drawn: the same in every figure."""
    if name == INSIDE:
        return _INSIDE
    others = [item for item in sets if item != INSIDE]
    return _SETS[others.index(name) % len(_SETS)]


# ---------------------------------------------------------------------- densities


def densities_figure(
    found: Densities, threshold: float, *, label: str, height: int = HEIGHT
) -> go.Figure:
    """Draw the score of every set as a density, with the threshold.

    Parameters
    ----------
    found : Densities
    threshold : float
        Rows to the right of it are rejected.
    label : str
        Name of the score.
    height : int
        In pixels.
    """
    fig = go.Figure()
    middle = (found.edges[1:] + found.edges[:-1]) / 2
    sets, is_peaked = list(found.density), _is_peaked(found)
    for name, values in found.density.items():
        style, title = set_style(name, sets), theme.figure_text(name)
        fig.add_trace(
            {
                "type": "scatter",
                "x": middle,
                "y": np.where(values > 0, values, np.nan) if is_peaked else values,
                "mode": "lines+markers" if is_peaked else "lines",
                "marker": {"color": style.color, "size": 5 * _lone(values)},
                "line": {
                    "color": style.color,
                    "width": 2.5 if name == INSIDE else 1.8,
                    "dash": style.dash,
                },
                "fill": "tozeroy" if name == INSIDE and not is_peaked else None,
                "fillcolor": theme.translucent(style.color, 0.12),
                "name": title,
                "hovertemplate": f"%{{x:.4~g}}: density %{{y:.3~g}}<extra>{title}"
                "</extra>",
            }
        )
    low, high = float(found.edges[0]), float(found.edges[-1])
    if low <= threshold <= high:
        fig.add_vline(x=threshold, line={"color": theme.DIAGONAL, "dash": "dash"})
        fig.add_annotation(
            x=threshold,
            y=1,
            yref="paper",
            text="rejected \N{RIGHTWARDS ARROW}",
            showarrow=False,
            xanchor="left" if threshold < (low + high) / 2 else "right",
            yanchor="top",
            font={"color": theme.TEXT},
        )
    y: dict[str, Any] = theme.axis("Density", rangemode="tozero")
    if is_peaked:
        y = theme.axis(
            "Density, log scale", type="log", exponentformat="power", dtick=1
        )
    fig.update_layout(
        **theme.layout(
            height,
            xaxis=theme.axis(f"{theme.figure_text(label)} (larger = stranger)"),
            yaxis=y,
        )
    )
    return fig


def _lone(values: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return which bins have rows and no neighbour: a line leaves them out."""
    has_rows = np.concatenate([[False], values > 0, [False]])
    return has_rows[1:-1] & ~has_rows[:-2] & ~has_rows[2:]


def _is_peaked(found: Densities) -> bool:
    """Whether a few bins hold so much that the others would lie on the axis."""
    filled = np.concatenate([x[x > 0] for x in found.density.values()])
    return bool(filled.size and filled.max() > _PEAK * np.median(filled))


def densities_table(found: Densities) -> pd.DataFrame:
    """Return the numbers of the figure, a line for each set and bin."""
    parts = [
        pd.DataFrame(
            {
                "set": name,
                "score_low": found.edges[:-1],
                "score_high": found.edges[1:],
                "density": values,
            }
        )
        for name, values in found.density.items()
    ]
    return pd.concat(parts, ignore_index=True)


def densities_alt(rates: Mapping[str, Estimate], label: str) -> str:
    """Return what the figure shows, for those who cannot see it."""
    said = ", ".join(f"{name} {item.value:.0%}" for name, item in rates.items())
    return f"Densities of the score {label} by set. Accepted by the threshold: {said}."


# ------------------------------------------------------------------------- curves


def curve_figure(
    curves: Mapping[str, tuple[Any, Any, Any]],
    kind: str,
    *,
    prevalence: float,
    height: int = HEIGHT,
) -> go.Figure:
    """Draw ROC or precision-recall curves of several scores on one set.

    Parameters
    ----------
    curves : mapping of str to (x, y, threshold)
        Id of the score -> points.
    kind : {"roc", "pr-out", "pr-in"}
    prevalence : float
        Share of OOD rows: where a useless score is.
    height : int
        In pixels.
    """
    fig = go.Figure()
    floor = {"roc": None, "pr-out": prevalence, "pr-in": 1 - prevalence}[kind]
    ends = [0, 1] if floor is None else [floor, floor]
    fig.add_trace(
        {
            "type": "scatter",
            "x": [0, 1],
            "y": ends,
            "mode": "lines",
            "line": {"color": theme.DIAGONAL, "width": 1.5, "dash": "dash"},
            "showlegend": False,
            "hoverinfo": "skip",
        }
    )
    x_title, y_title = _AXES[kind]
    for name, (x, y, _) in curves.items():
        style, title = score_style(name), theme.figure_text(score_label(name))
        fig.add_trace(
            {
                "type": "scatter",
                "x": x,
                "y": y,
                "mode": "lines",
                "line": {"color": style.color, "width": 2.2, "dash": style.dash},
                "name": title,
                "hovertemplate": (
                    f"{x_title} %{{x:.1%}}<br>{y_title} %{{y:.1%}}"
                    f"<extra>{title}</extra>"
                ),
            }
        )
    fig.update_layout(
        **theme.layout(
            height,
            xaxis=theme.axis(x_title, **_SHARE),
            yaxis=theme.axis(y_title, **_SHARE),
        )
    )
    return fig


def curve_table(
    curves: Mapping[str, tuple[Any, Any, Any]], kind: str, of: str
) -> pd.DataFrame:
    """Return the points of the curves, a line each."""
    x_name, y_name = ("fpr", "tpr") if kind == "roc" else ("recall", "precision")
    parts = [
        pd.DataFrame({"score": name, "set": of, x_name: x, y_name: y, "threshold": cut})
        for name, (x, y, cut) in curves.items()
    ]
    return pd.concat(parts, ignore_index=True)


def curve_alt(areas: Mapping[str, float], kind: str, of: str) -> str:
    """Return what the figure shows, for those who cannot see it."""
    said = ", ".join(f"{score_label(name)} {area:.3f}" for name, area in areas.items())
    return f"{CURVE_NAMES[kind]} curves on {of}. Area under them: {said}."


# ------------------------------------------------------------------------ scatter


def scatter_figure(
    found: pd.DataFrame, threshold: float, *, label: str, height: int = HEIGHT
) -> go.Figure:
    """Draw the score of some rows of each set over their confidence.

    Parameters
    ----------
    found : DataFrame
        From `core.ood.scatter`.
    threshold : float
    label : str
        Name of the score.
    height : int
        In pixels.
    """
    fig = go.Figure()
    sets = list(dict.fromkeys(found["set"]))
    for name in sets:
        rows = found[found["set"] == name]
        style, title = set_style(name, sets), theme.figure_text(name)
        fig.add_trace(
            {
                "type": "scattergl",
                "x": rows["confidence"].to_numpy(np.float32),
                "y": rows["score"].to_numpy(np.float32),
                "mode": "markers",
                "marker": {
                    "color": style.color,
                    "symbol": f"{style.symbol}-open",
                    "size": 5,
                    "opacity": 0.7,
                },
                "customdata": rows["file_row"],
                "name": title,
                "hovertemplate": (
                    "row %{customdata}: confidence %{x:.3f}, score %{y:.4~g}"
                    f"<extra>{title}</extra>"
                ),
            }
        )
    fig.add_hline(y=threshold, line={"color": theme.DIAGONAL, "dash": "dash"})
    fig.update_layout(
        **theme.layout(
            height,
            xaxis=theme.axis("Confidence", range=[-0.02, 1.02]),
            yaxis=theme.axis(theme.figure_text(label)),
        )
    )
    return fig


def scatter_alt(found: pd.DataFrame, threshold: float, label: str) -> str:
    """Return what the figure shows, for those who cannot see it."""
    is_sure = found["confidence"] >= 0.9
    parts = []
    for name in dict.fromkeys(found["set"]):
        rows = found[is_sure & (found["set"] == name)]
        if len(rows):
            share = (rows["score"] > threshold).mean()
            parts.append(f"{name} {share:.0%} of {len(rows):,}")
    said = ", ".join(parts) or "none"
    return (
        f"The score {label} against the confidence. Rejected among rows that the model "
        f"is at least 90 % sure of: {said}."
    )


# ------------------------------------------------------------------------ mixture


def mixture_figure(points: Sequence[MixturePoint], height: int = HEIGHT) -> go.Figure:
    """Draw mean confidence and accuracy as the share of OOD rows grows.

    Parameters
    ----------
    points : sequence of MixturePoint
        From `core.ood.mixtures`.
    height : int
        In pixels.
    """
    fig = go.Figure()
    for is_rejecting, style in ((False, theme.BEFORE), (True, theme.AFTER)):
        kept = [p for p in points if p.is_rejecting == is_rejecting]
        if not kept:
            continue
        how = "with rejection" if is_rejecting else "all rows"
        for what, dash in (("confidence", "dash"), ("accuracy", "solid")):
            fig.add_trace(
                {
                    "type": "scatter",
                    "x": [p.share for p in kept],
                    "y": [getattr(p, what) for p in kept],
                    "mode": "lines+markers",
                    "line": {"color": style.color, "width": 2.2, "dash": dash},
                    "marker": {"symbol": style.symbol, "size": 7},
                    "name": f"{what.capitalize()}, {how}",
                    "hovertemplate": (
                        f"%{{x:.0%}} OOD: {what} %{{y:.1%}}<extra>{how}</extra>"
                    ),
                }
            )
    fig.update_layout(
        **theme.layout(
            height,
            xaxis=theme.axis("Share of OOD rows that come", tickformat=".0%"),
            yaxis=theme.axis("Mean confidence, accuracy", tickformat=".0%"),
        )
    )
    return fig


def mixture_table(points: Sequence[MixturePoint]) -> pd.DataFrame:
    """Return the numbers of the figure, a line each."""
    return pd.DataFrame(
        [
            {
                "ood_share": p.share,
                "rejection": p.is_rejecting,
                "kept": p.coverage,
                "ood_share_of_kept": p.ood_share,
                "accuracy": p.accuracy,
                "confidence": p.confidence,
                "gap": p.gap,
                "ece": p.ece,
            }
            for p in points
        ]
    )


def mixture_alt(points: Sequence[MixturePoint]) -> str:
    """Return what the figure shows, for those who cannot see it."""
    last = [p for p in points if p.share == max(q.share for q in points)]
    said = ", ".join(
        f"{100 * p.gap:+.1f} points {'with' if p.is_rejecting else 'without'} rejection"
        for p in last
    )
    return (
        f"Confidence minus accuracy where {last[0].share:.0%} of the rows are "
        f"out-of-distribution: {said}."
    )
