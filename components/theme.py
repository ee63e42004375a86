"""One palette for both themes, and what all figures share."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

__all__ = [
    "AFTER",
    "BEFORE",
    "CHART_CONFIG",
    "DARK_BACKGROUND",
    "DIAGONAL",
    "LIGHT_BACKGROUND",
    "LOGO",
    "MARK",
    "PHONE",
    "SERIES",
    "THIN",
    "VERDICT_COLORS",
    "Style",
    "axis",
    "chart_config",
    "contrast",
    "figure_text",
    "layout",
    "translucent",
]

LIGHT_BACKGROUND = "#ffffff"
DARK_BACKGROUND = "#14171a"


@dataclass(frozen=True, slots=True)
class Style:
    """How one series is drawn; colour never tells it apart alone.

    Parameters
    ----------
    color : str
        Hexadecimal colour with a contrast of at least 3 on both backgrounds.
    symbol, dash : str
        Marker and line of Plotly.
    """

    color: str
    symbol: str
    dash: str


# After Okabe and Ito's colours, moved to the middle so that both themes carry them.
BEFORE = Style("#d55e00", "circle", "solid")
AFTER = Style("#2a78b5", "diamond", "solid")
SERIES = (
    AFTER,
    Style("#0f8a68", "square", "dash"),
    Style("#8a63c9", "triangle-up", "dot"),
    Style("#a87400", "cross", "dashdot"),
    Style("#b8487f", "star", "longdash"),
    Style("#0e8a9c", "pentagon", "longdashdot"),
    Style("#7f8420", "hexagon", "solid"),
)
"""Styles of calibrators, in order; the uncalibrated scores are always `BEFORE`."""

DIAGONAL = "#76828e"
THIN = "#8a949e"
_GRID = "rgba(128, 140, 152, 0.22)"

VERDICT_COLORS = {
    "overconfident": "orange",
    "underconfident": "violet",
    "uneven": "yellow",
    "calibrated": "green",
    "too-few": "gray",
    "no-labels": "gray",
}
"""Verdict -> name of the text colour that the theme gives in light and in dark."""

LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="148" height="32" '
    'viewBox="0 0 148 32">'
    '<g fill="none" stroke="#2a78b5" stroke-width="2" stroke-linecap="round">'
    '<path d="M5 3h14M12 3v11"/></g>'
    '<path fill="#d55e00" d="M12 13l6 5-6 12-6-12z"/>'
    '<text x="29" y="23" font-family="Source Sans Pro,Source Sans,Helvetica Neue,'
    'Arial,sans-serif" font-size="20" font-weight="650" letter-spacing="0.2" '
    'fill="#5f7386">Plumbline</text></svg>'
)

MARK = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32" '
    'viewBox="0 0 32 32">'
    '<path fill="none" stroke="#2a78b5" stroke-width="2.4" stroke-linecap="round" '
    'd="M9 4h14M16 4v10"/>'
    '<path fill="#d55e00" d="M16 13l7 6-7 11-7-11z"/></svg>'
)
"""Icon of the browser tab; nothing is fetched from elsewhere."""

# A touch screen shows the buttons of a figure all the time, over the figure.
PHONE = """<style>
@media (max-width: 640px) {
  .modebar-btn:not([data-title^="Download"]) { display: none !important; }
}
</style>"""
"""Style of small screens: of a figure's buttons only the one that saves it."""

CHART_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


def chart_config(name: str, picture: str = "png") -> dict[str, Any]:
    """Return Plotly's configuration with name and format of the saved picture."""
    options: dict[str, Any] = {"format": picture, "filename": name}
    if picture == "png":
        options["scale"] = 3
    return {**CHART_CONFIG, "toImageButtonOptions": options}


def layout(height: int, **changes: Any) -> dict[str, Any]:
    """Return the layout that all figures share."""
    base: dict[str, Any] = {
        "height": height,
        "margin": {"l": 56, "r": 12, "t": 36, "b": 48},
        "hovermode": "closest",
        "dragmode": "zoom",
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "yanchor": "bottom",
            "title": {"text": ""},
        },
    }
    return {**base, **changes}


def axis(title: str = "", **changes: Any) -> dict[str, Any]:
    """Return an axis with quiet grid lines."""
    base: dict[str, Any] = {
        "title": {"text": title, "standoff": 8},
        "gridcolor": _GRID,
        "zeroline": False,
    }
    return {**base, **changes}


def figure_text(text: str) -> str:
    """Escape names from files: Plotly reads a small part of HTML."""
    return html.escape(" ".join(str(text).split()), quote=False)


def translucent(color: str, alpha: float) -> str:
    """Return a hexadecimal colour with some transparency."""
    r, g, b = _channels(color)
    return f"rgba({r}, {g}, {b}, {alpha:g})"


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours after WCAG 2."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _luminance(color: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (value / 255 for value in _channels(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
