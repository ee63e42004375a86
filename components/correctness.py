"""What losses do to wrong rows, and the temperature of each row: figures and tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components import theme
from core.correctness import COMMON, GROUPS, LossEffects, RowTemperatures, pulls

__all__ = [
    "LOSS_LABELS",
    "effects_data",
    "effects_frame",
    "numbers_frame",
    "pulls_alt",
    "pulls_figure",
    "pulls_table",
    "temperatures_alt",
    "temperatures_figure",
    "temperatures_table",
]

HEIGHT = 400
MOST_POINTS = 1500
LOSS_LABELS = {
    COMMON: "Common temperature",
    "correctness-aware": "Correctness-aware",
    "cross-entropy": "Log loss",
    "squared-error": "Brier score",
    "mixture": "Mixture",
}
NUMBER_LABELS = {
    "nll": "NLL",
    "brier": "Brier",
    "ece-15": "ECE, 15 bins",
    "ece-25": "ECE, 25 bins",
    "ace-25": "ACE, 25 bins",
    "top-brier": "BS",
    "ks": "KS",
    "auroc": "AUC",
}
_LINES = {
    "correctness-aware": theme.Style("#d55e00", "circle", "solid"),
    "cross-entropy": theme.Style("#2a78b5", "diamond", "dash"),
    "squared-error": theme.Style("#0f8a68", "square", "dot"),
}
_RIGHT = theme.Style("#2a78b5", "circle-open", "solid")
_WRONG = theme.Style("#d55e00", "x", "solid")
_SHARES = {"ece-15", "ece-25", "ace-25", "ks"}


def _curves() -> dict[str, np.ndarray]:
    """Return each loss's pull as a share of its largest, with the confidence."""
    q = np.linspace(0.5, 0.995, 100)
    found = pulls(q, losses=tuple(_LINES))
    return {"confidence": q, **{k: v / v.max() for k, v in found.items()}}


def pulls_figure() -> go.Figure:
    """Draw how hard each loss pulls at the temperature of a wrong row."""
    found = _curves()
    fig = go.Figure()
    for name, style in _LINES.items():
        label = LOSS_LABELS[name]
        fig.add_trace(
            {
                "type": "scatter",
                "x": found["confidence"],
                "y": found[name],
                "mode": "lines",
                "line": {"color": style.color, "width": 2.5, "dash": style.dash},
                "name": label,
                "hovertemplate": (
                    "Confidence %{x:.2f}: %{y:.0%} of its largest pull"
                    f"<extra>{label}</extra>"
                ),
            }
        )
    fig.update_layout(
        **theme.layout(
            HEIGHT,
            xaxis=theme.axis("Confidence of a wrong prediction", range=[0.495, 1.005]),
            yaxis=theme.axis(
                "Pull towards a higher T", range=[-0.02, 1.05], tickformat=".0%"
            ),
        )
    )
    return fig


def pulls_table() -> pd.DataFrame:
    """Return the numbers of the figure."""
    return pd.DataFrame(_curves())


def pulls_alt() -> str:
    """Return what the figure shows, for those who cannot see it."""
    found = _curves()
    tops = {name: found["confidence"][found[name].argmax()] for name in _LINES}
    parts = [f"{LOSS_LABELS[name]} at {top:.2f}" for name, top in tops.items()]
    return "Confidence of a wrong row at which each loss pulls hardest: " + ", ".join(
        parts
    )


def temperatures_figure(found: RowTemperatures) -> go.Figure:
    """Draw T of each row over its confidence before, right and wrong rows apart."""
    fig = go.Figure()
    for label, style, is_shown in (
        ("Right", _RIGHT, found.correct),
        ("Wrong", _WRONG, ~found.correct),
    ):
        rows = _thinned(np.flatnonzero(is_shown), found.correct.size)
        fig.add_trace(
            {
                "type": "scatter",
                "x": found.confidence[rows],
                "y": found.temperature[rows],
                "mode": "markers",
                "marker": {"symbol": style.symbol, "size": 6, "color": style.color},
                "name": f"{label} ({is_shown.sum():,})",
                "hovertemplate": (
                    f"Confidence %{{x:.3f}}, T = %{{y:.3g}}<extra>{label}</extra>"
                ),
            }
        )
    if np.isfinite(found.common):
        fig.add_hline(
            y=found.common,
            line={"color": theme.DIAGONAL, "width": 1.5, "dash": "dash"},
        )
    low, high = float(found.temperature.min()), float(found.temperature.max())
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low / 2 < t < high * 2]
    fig.update_layout(
        **theme.layout(
            HEIGHT,
            xaxis=theme.axis("Confidence before", range=[-0.02, 1.02]),
            yaxis=theme.axis(
                "Temperature of the row", type="log", tickvals=ticks, ticktext=ticks
            ),
        )
    )
    return fig


def _thinned(rows: np.ndarray, n: int) -> np.ndarray:
    """Return evenly spaced rows, so that all together are at most MOST_POINTS."""
    n_wanted = max(1, round(rows.size * min(1.0, MOST_POINTS / n)))
    if rows.size <= n_wanted:
        return rows
    return rows[np.linspace(0, rows.size - 1, n_wanted).round().astype(np.int64)]


def temperatures_table(found: RowTemperatures) -> pd.DataFrame:
    """Return T of every row."""
    return pd.DataFrame(
        {
            "confidence_before": found.confidence,
            "temperature": found.temperature,
            "correct": found.correct,
        }
    )


def temperatures_alt(found: RowTemperatures) -> str:
    """Return what the figure shows, for those who cannot see it."""
    parts = []
    for label, rows in (("right", found.correct), ("wrong", ~found.correct)):
        if rows.any():
            middle = np.median(found.temperature[rows])
            parts.append(f"{middle:.2f} of {label} rows")
    return f"Median temperature {' and '.join(parts)}"


def effects_frame(found: LossEffects) -> pd.DataFrame:
    """Return mean confidences by loss and group, as Markdown cells."""
    columns = {
        f"{group.capitalize()} ({found.n[group]:,})": [
            _share(item[group]) for item in found.confidence.values()
        ]
        for group in GROUPS
    }
    names = [f"**{LOSS_LABELS[name]}**" for name in found.confidence]
    return pd.DataFrame({"Fitted by": names, **columns})


def numbers_frame(found: LossEffects, names: tuple[str, ...]) -> pd.DataFrame:
    """Return some numbers by loss, as Markdown cells; the best of each is bold."""
    columns: dict[str, list[str]] = {}
    for name in names:
        values = {loss: item[name] for loss, item in found.numbers.items()}
        best = max(values.values()) if name == "auroc" else min(values.values())
        columns[NUMBER_LABELS[name]] = [
            _bold(_share(v) if name in _SHARES else f"{v:.3f}", is_best=v == best)
            for v in values.values()
        ]
    labels = [f"**{LOSS_LABELS[name]}**" for name in found.numbers]
    return pd.DataFrame({"Fitted by": labels, **columns})


def effects_data(found: LossEffects) -> pd.DataFrame:
    """Return everything in full, one line per loss."""
    lines: list[Mapping[str, object]] = []
    for loss, numbers in found.numbers.items():
        means = {
            f"confidence_{group.replace(' ', '_')}": value
            for group, value in found.confidence[loss].items()
        }
        lines.append({"fitted_by": loss, **means, **numbers})
    return pd.DataFrame(lines)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if np.isfinite(value) else "\u2013"


def _bold(text: str, *, is_best: bool) -> str:
    return f"**{text}**" if is_best else text
