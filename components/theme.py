"""One palette for both themes, and what all figures share."""

from __future__ import annotations

import html
import zlib
from dataclasses import dataclass
from typing import Any

from core.calibrators import CALIBRATORS

__all__ = [
    "AFTER",
    "BEFORE",
    "CHART_CONFIG",
    "DARK_BACKGROUND",
    "DIAGONAL",
    "EQUAL",
    "LIGHT_BACKGROUND",
    "LOGO",
    "MARK",
    "STYLE",
    "TEXT",
    "THIN",
    "TRIED",
    "VERDICT_COLORS",
    "Style",
    "axis",
    "chart_config",
    "contrast",
    "figure_text",
    "layout",
    "shortened",
    "style_of",
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
TRIED = Style("#7f8420", "triangle-down", "dot")
"""A temperature that somebody set by hand: no calibrator looks like it."""

_STYLES = {
    "uncalibrated": BEFORE,
    "temperature": AFTER,
    "isotonic": Style("#0f8a68", "square", "dash"),
    "platt": Style("#8a63c9", "triangle-up", "dot"),
    "vector": Style("#a87400", "cross", "dashdot"),
    "beta": Style("#b8487f", "star", "longdash"),
    "histogram": Style("#0e8a9c", "pentagon", "longdashdot"),
}
_MORE_COLORS = (
    *("#6476d6", "#a1673f", "#5c8a2e", "#c0504d", "#8b6f9c", "#3d8f8a"),
    *("#b0569f", "#8a7f2a", "#5585b8", "#c26a3d", "#6f8f4e"),
)
_MORE_SYMBOLS = (
    *("hexagon", "bowtie", "hourglass", "x", "star-square", "octagon", "hexagram"),
    *("triangle-left", "triangle-right", "diamond-tall", "diamond-wide", "hexagon2"),
    *("star-diamond", "star-triangle-up", "star-triangle-down", "triangle-ne"),
    *("triangle-nw", "triangle-se", "triangle-sw", "circle-cross", "square-cross"),
    *("diamond-cross", "circle-x", "square-x", "diamond-x", "arrow-up", "arrow-down"),
    *("arrow-left", "arrow-right", "arrow-bar-up", "arrow-bar-down"),
    *("arrow-bar-left", "arrow-bar-right"),
)
_MORE_DASHES = ("dash", "dot", "longdash", "dashdot")
_NEW_SYMBOLS = ("hexagon", "star", "octagon", "square", "pentagon", "diamond")


def style_of(method: str) -> Style:
    """Return how a calibrator is drawn: the same in every figure of every page.

    Parameters
    ----------
    method : str
        Its id. The best known have a style that was chosen, the others in the registry
        take turns: no two have the same marker. One that is not there gets a style by
        its name, which none of them has.

    Returns
    -------
    Style
    """
    if method in _STYLES:
        return _STYLES[method]
    others = [name for name in CALIBRATORS if name not in _STYLES]
    if method in others:
        place = others.index(method)
        symbol = _MORE_SYMBOLS[place % len(_MORE_SYMBOLS)]
        dash = _MORE_DASHES[place % len(_MORE_DASHES)]
        return Style(_MORE_COLORS[place % len(_MORE_COLORS)], symbol, dash)
    number = zlib.crc32(method.encode())
    color = _MORE_COLORS[number % len(_MORE_COLORS)]
    symbol = _NEW_SYMBOLS[number // len(_MORE_COLORS) % len(_NEW_SYMBOLS)]
    return Style(color, f"{symbol}-open", "dash")


DIAGONAL = "#76828e"
THIN = "#8a949e"
TEXT = "#000037"
"""Of words in a figure. Streamlit writes the text colour of its theme for this one."""

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
    "<style>@media (prefers-color-scheme: dark) {text {fill: #b4c2cf}}</style>"
    '<g fill="none" stroke="#2a78b5" stroke-width="2" stroke-linecap="round">'
    '<path d="M5 3h14M12 3v11"/></g>'
    '<path fill="#d55e00" d="M12 13l6 5-6 12-6-12z"/>'
    '<text x="29" y="23" font-family="Source Sans Pro,Source Sans,Helvetica Neue,'
    'Arial,sans-serif" font-size="20" font-weight="650" letter-spacing="0.2" '
    'fill="#4c5f71">Plumbline</text></svg>'
)

MARK = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32" '
    'viewBox="0 0 32 32">'
    '<path fill="none" stroke="#2a78b5" stroke-width="2.4" stroke-linecap="round" '
    'd="M9 4h14M16 4v10"/>'
    '<path fill="#d55e00" d="M16 13l7 6-7 11-7-11z"/></svg>'
)
"""Icon of the browser tab; nothing is fetched from elsewhere."""

STYLE = f"""<style>
/* The chosen one of several wears the text colour: the primary one is too dark. */
[data-selected="true"] p {{ color: light-dark(#0d1319, #e8ecf0); }}
/* Quiet buttons under the pointer and the colours of code reach a contrast of 4.5. */
button[kind="tertiary"]:is(:hover, :active, :focus-visible) {{
  color: light-dark(#1d5f8f, #7fbdea) !important;
}}
code .token:is(.keyword, .builtin, .boolean, .number) {{
  color: light-dark(#1d5f8f, #7fbdea) !important;
}}
code .token:is(.string, .function, .class-name) {{
  color: light-dark(#0b7054, #54c9a3) !important;
}}
code .token:is(.comment, .punctuation, .operator, .decorator, .parameter) {{
  color: light-dark(#5b6670, #9da8b3) !important;
}}
/* A figure keeps the ink of the theme that it was drawn in. */
.js-plotly-plot .cartesianlayer text, .js-plotly-plot .infolayer text {{
  fill: currentColor !important;
}}
/* What scrolls sideways fades where more of it lies. */
[data-testid="stTable"] > div, .katex-display {{
  --page: light-dark({LIGHT_BACKGROUND}, {DARK_BACKGROUND});
  --edge: light-dark(rgb(13 19 25 / 0.3), rgb(232 236 240 / 0.4));
  background:
    linear-gradient(to right, var(--page) 50%, transparent) left / 3rem 100% local,
    linear-gradient(to left, var(--page) 50%, transparent) right / 3rem 100% local,
    linear-gradient(to right, var(--edge), transparent) left / 0.75rem 100% scroll,
    linear-gradient(to left, var(--edge), transparent) right / 0.75rem 100% scroll;
  background-repeat: no-repeat;
}}
/* The button that saves a figure as a picture is always in sight, in the corner. */
.modebar {{ display: flex; }}
.modebar-group:has([data-title^="Download"]) {{ order: 1; }}
.modebar--hover > .modebar-group:has([data-title^="Download"]) {{
  opacity: 1 !important;
}}
@media (max-width: 640px) {{
  .modebar-btn:not([data-title^="Download"]) {{ display: none !important; }}
  .js-plotly-plot:has(.legend) .modebar-container {{
    bottom: 28px !important; height: 0; top: auto !important;
  }}
  .katex-display {{ font-size: 0.85em; }}
}}
</style>"""
"""What the theme of Streamlit cannot say: contrast of choices, edges, small screens."""

EQUAL: dict[str, dict[str, str]] = {
    "x": {"constrain": "domain", "constraintoward": "left"},
    "y": {"constrain": "domain", "constraintoward": "bottom", "scaleanchor": "x"},
}
"""Axes of one scale: the diagonal rises by 45 degrees at every width."""

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
        "title": {"text": title, "standoff": 8, "font": {"color": TEXT}},
        "tickfont": {"color": TEXT},
        "gridcolor": _GRID,
        "zeroline": False,
    }
    return {**base, **changes}


def figure_text(text: str) -> str:
    """Escape names from files: Plotly reads a small part of HTML."""
    return html.escape(" ".join(str(text).split()), quote=False)


def shortened(name: str, length: int = 40) -> str:
    """Return a name that fits a table or an axis: cut before anything is escaped."""
    if len(name) <= length:
        return name
    return name[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


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
