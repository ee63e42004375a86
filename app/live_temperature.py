"""A temperature that is dragged: diagram and numbers move without the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

__all__ = ["live_temperature"]

_HTML = """
<div class="live">
  <label for="temperature"><span>Try a temperature</span><output></output></label>
  <input id="temperature" type="range" step="1" aria-label="Try a temperature">
  <table aria-label="Numbers at the fitted and at the tried temperature">
    <thead><tr><th scope="col">Measure</th><th scope="col">Fitted</th>
    <th scope="col" class="tried" hidden>Tried</th></tr></thead>
    <tbody></tbody>
  </table>
  <div class="above"><div class="legend"></div>
  <button type="button" title="Save this diagram as SVG">SVG</button></div>
  <svg role="img"></svg>
</div>
"""


def _asset(suffix: str) -> str:
    return Path(__file__).with_suffix(suffix).read_text(encoding="utf-8")


_component = st.components.v2.component(
    "live_temperature", html=_HTML, css=_asset(".css"), js=_asset(".js")
)


def live_temperature(
    content: Mapping[str, Any], *, key: str, on_step: Callable[[], None]
) -> Any:
    """Show the slider with its diagram and numbers; return what was let go of.

    Parameters
    ----------
    content : mapping
        From `components.live_temperature.payload`.
    key : str
        Of the component; during `on_step` the session holds its ``step`` there.
    on_step : callable
        Called when somebody lets go of the slider at another step.
    """
    return _component(data=dict(content), key=key, on_step_change=on_step)
