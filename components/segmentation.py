"""Segmentation maps on the page: numbers side by side, temperatures beside errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from components import reliability, tables, theme
from core.calibrators import CALIBRATORS
from core.map_evaluation import (
    LOCAL,
    METHODS,
    TEMPERATURE,
    UNCALIBRATED,
    ImageMaps,
    MapAnalysis,
)
from core.segmentation import MAP_CALIBRATORS

__all__ = [
    "LABELS",
    "changes_sentence",
    "errors_alt",
    "errors_figure",
    "image_sentence",
    "measured_frame",
    "numbers_table",
    "pixels_table",
    "reliability_of_pixels",
    "temperatures_alt",
    "temperatures_figure",
    "understood",
]

LABELS = {
    name: (CALIBRATORS if name in CALIBRATORS else MAP_CALIBRATORS)[name].label
    for name in METHODS
}
_STYLES = {
    UNCALIBRATED: theme.BEFORE,
    TEMPERATURE: theme.AFTER,
    LOCAL: theme.Style("#0f8a68", "square", "dash"),
}
_CHANGE = "Local against one"
_ORDER = ("nll", "brier", "gap", "ece", "accuracy")
_LAST = METHODS[1:]
_HEIGHT = 400
_MOST_SHOWN = 400  # pixels along a side that are drawn
_STATES = ("right", "wrong", "does not count")


def understood(found: MapAnalysis) -> str:
    """Return what the file holds and how images were divided, in one line."""
    b, k, h, w = found.maps.logits.shape
    parts = (
        tables.count_of(b, "image"),
        f"{h:,} \N{MULTIPLICATION SIGN} {w:,} pixels",
        f"{k} classes",
        f"{found.n_test_pixels:,} pixels measured",
        found.split_sentence,
    )
    return "\u2002\u00b7\u2002".join(parts)


def changes_sentence(found: MapAnalysis) -> str:
    """Say in Markdown whether local temperatures are better than one."""
    change = found.changes[_LAST]["nll"]
    where = f"on {found.n_test_images:,} held-out images"
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        return (
            f"**No detectable difference** in NLL between local temperatures and one "
            f"temperature {where}: take the one."
        )
    word = "lower" if change.value < 0 else "raise"
    size = tables.format_value("nll", abs(change.value))
    size = "less than 0.001" if float(size) == 0 else size
    span = tables.format_span("nll", *sorted((abs(change.low), abs(change.high))))
    return (
        f"Local temperatures **{word} the NLL by {size}** against one temperature "
        f":gray[({span})] {where}, paired."
    )


def measured_frame(found: MapAnalysis) -> pd.DataFrame:
    """Return every method side by side with the last change, as cells of Markdown."""
    n_classes = len(found.maps.classes)
    before, after = (found.results[name].estimates for name in _LAST)
    lines = []
    for metric in _ORDER:
        line = {tables.MEASURE: tables.metric_label(metric, n_classes)}
        for name, result in found.results.items():
            line[LABELS[name]] = tables.value_cell(metric, result.estimates[metric])
        change = found.changes[_LAST].get(metric)
        line[_CHANGE] = (
            ""
            if change is None
            else tables.change_cell(metric, change, before[metric], after[metric])
        )
        lines.append(line)
    return pd.DataFrame(lines)


def numbers_table(found: MapAnalysis) -> pd.DataFrame:
    """Return every number and every paired difference in full."""
    columns = {name: result.estimates for name, result in found.results.items()}
    changes = {f"{b} to {a}": item for (b, a), item in found.changes.items()}
    return tables.estimates_frame(columns | changes)


def reliability_of_pixels(found: MapAnalysis) -> go.Figure:
    """Draw the reliability of the three over each other, pixels underneath."""
    bins = {name: result.bins for name, result in found.results.items()}
    fig = reliability.reliability_figure(bins, labels=LABELS, styles=_STYLES)
    fig.for_each_yaxis(
        lambda axis: axis.title.update(text="Pixels"),
        selector=lambda axis: axis.title.text == "Rows",
    )
    return fig


def temperatures_figure(shown: ImageMaps) -> go.Figure:
    """Draw the temperature of every pixel of an image."""
    values, step = _thinned(shown.temperatures)
    return _picture(
        {
            "z": values,
            "colorscale": "Cividis",
            "colorbar": {"title": {"text": "T"}, "thickness": 12, "outlinewidth": 0},
            "hovertemplate": "row %{y}, column %{x}<br>T = %{z:.3f}<extra></extra>",
        },
        step,
    )


def errors_figure(shown: ImageMaps, classes: tuple[str, ...]) -> go.Figure:
    """Draw which pixels of an image are right and wrong, and which do not count."""
    state, step = _thinned(_state(shown))
    colors = (theme.translucent(theme.AFTER.color, 0.25), theme.BEFORE.color)
    steps = (*colors, theme.translucent(theme.THIN, 0.55))
    scale = [
        [edge / 3, color]
        for place, color in enumerate(steps)
        for edge in (place, place + 1)
    ]
    names = np.array(
        [*(theme.figure_text(theme.shortened(n)) for n in classes), "\N{EN DASH}"],
        dtype=object,
    )
    given = _thinned(shown.labels)[0], _thinned(shown.prediction)[0]
    return _picture(
        {
            "z": state,
            "zmin": -0.5,
            "zmax": 2.5,
            "colorscale": scale,
            "customdata": np.stack([names[place] for place in given], axis=-1),
            "colorbar": {
                "tickvals": [0, 1, 2],
                "ticktext": ["right", "wrong", "does<br>not<br>count"],
                "thickness": 12,
                "outlinewidth": 0,
            },
            "hovertemplate": (
                "row %{y}, column %{x}<br>label %{customdata[0]}<br>"
                "prediction %{customdata[1]}<extra></extra>"
            ),
        },
        step,
    )


def temperatures_alt(shown: ImageMaps) -> str:
    """Return what the temperatures are, for those who cannot see them."""
    low, high = float(shown.temperatures.min()), float(shown.temperatures.max())
    return f"Temperature of every pixel, from {low:.2f} to {high:.2f}"


def errors_alt(shown: ImageMaps) -> str:
    """Return how many pixels are wrong, for those who cannot see them."""
    n, wrong = int((shown.labels >= 0).sum()), int(shown.is_wrong.sum())
    return f"Pixels that are wrong: {wrong:,} of {n:,} that count"


def image_sentence(shown: ImageMaps) -> str:
    """Say how temperatures differ between wrong and right pixels."""
    n, wrong = int((shown.labels >= 0).sum()), int(shown.is_wrong.sum())
    right_t, wrong_t = shown.mean_temperatures
    said = f"{wrong:,} of {n:,} pixels are wrong."
    if right_t == right_t and wrong_t == wrong_t:
        said += f" Mean T where wrong {wrong_t:.2f}, where right {right_t:.2f}."
    return said


def pixels_table(shown: ImageMaps, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return one line per pixel of an image."""
    h, w = shown.labels.shape
    names = np.array([*classes, ""], dtype=object)
    return pd.DataFrame(
        {
            "image": shown.number,
            "row": np.repeat(np.arange(h), w),
            "column": np.tile(np.arange(w), h),
            "temperature": shown.temperatures.ravel().astype(np.float64),
            "label": names[shown.labels.ravel()],
            "prediction": names[shown.prediction.ravel()],
            "state": np.array(_STATES, dtype=object)[_state(shown).ravel()],
        }
    )


def _state(shown: ImageMaps) -> NDArray[np.int64]:
    return np.where(shown.labels < 0, 2, shown.is_wrong.astype(np.int64))


def _thinned(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return every so manieth pixel, so that a picture stays light."""
    step = max(1, -(-max(values.shape) // _MOST_SHOWN))
    return values[::step, ::step], step


def _picture(trace: dict[str, Any], step: int) -> go.Figure:
    fig = go.Figure({"type": "heatmap", "dx": step, "dy": step, **trace})
    equal: dict[str, Any] = {"constrain": "domain", "showgrid": False}
    fig.update_layout(
        **theme.layout(
            _HEIGHT,
            margin={"l": 36, "r": 8, "t": 28, "b": 28},
            xaxis=theme.axis(**equal),
            yaxis=theme.axis(autorange="reversed", scaleanchor="x", **equal),
        )
    )
    return fig
